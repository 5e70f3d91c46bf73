"""Starting hub and agent as processes of their own, and ending them.

A daemon is started with `--ready-fd N` and writes a line there once it is ready: JSON, either facts about itself or
`{"error": {...}}`. Until then its starter waits; where the descriptor is closed without a line, the daemon has failed
and the end of its log says why.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lanai.model.errors import ErrorBody, OtherEnd, TimedOut, raised_from

LOG_LINES: Final = 10
STOP_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A process that was started.

    Attributes:
        facts: what it said of itself.
        missing: what it goes on waiting for; None where it is ready.
    """

    pid: int
    facts: Mapping[str, Any]
    missing: OtherEnd | None = None


def start(
    arguments: Sequence[str], *, log: Path, within_s: float, is_detached: bool = True, keeps_trying: bool = False
) -> Daemon:
    """Start `python -m ARGUMENTS...` and wait until it is ready.

    Args:
        arguments: the module, and what it is given.
        log: where a detached one writes.
        within_s: how long it may take; after that it is ended.
        is_detached: in a session of its own, without terminal; else it belongs to this process and writes to its
            standard error.
        keeps_trying: let it live where it only waits for another end to answer.

    Raises:
        LanaiError: what the daemon says went wrong, or OtherEnd with the last lines of its log.
    """
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        pid = _spawn([*arguments, "--ready-fd", str(writer)], log, is_detached=is_detached)
    finally:
        os.close(writer)
    try:
        line = _line(reader, within_s)
    finally:
        os.close(reader)
    facts = _facts(line)
    if facts is None:
        error = _not_ready(arguments[0], log if is_detached else None)
        _end(pid)
        raise error
    if isinstance(facts.get("error"), dict):
        import msgspec

        problem = raised_from(msgspec.convert(facts["error"], ErrorBody))
        if keeps_trying and isinstance(problem, OtherEnd):
            return Daemon(pid=pid, facts={}, missing=problem)
        _end(pid)
        raise problem
    return Daemon(pid=pid, facts=facts)


def stay(daemon: Daemon) -> int:
    """Remain while a daemon that was not detached lives, handing on what we are told; returns its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: _send(daemon.pid, got))
    _, status = os.waitpid(daemon.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def wait_gone(pid: int, *, within_s: float = STOP_WITHIN_S) -> None:
    """Wait until a process has ended. Raises TimedOut."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([descriptor], [], [], within_s)[0]:
            raise TimedOut(f"process {pid} has not ended after {within_s:g} s", hint=f"kill {pid}")
    finally:
        os.close(descriptor)


def mentioning(*words: str) -> list[int]:
    """The processes whose command lines hold all of `words`, each as a part of some argument."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue
            if all(os.fsencode(word) in line for word in words):
                found.append(int(entry.name))
    return found


def is_module(pid: int, module: str) -> bool:
    """Whether a process is a `python -m MODULE` that has not ended: process ids are used again."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return module.encode() in words


def terminate(pid: int) -> None:
    """Ask a process to end, and wait until it has. Harmless where it has already. Raises TimedOut."""
    _send(pid, signal.SIGTERM)
    wait_gone(pid)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _spawn(arguments: Sequence[str], log: Path, *, is_detached: bool) -> int:
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    if is_detached:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        actions.append((os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        actions.append((os.POSIX_SPAWN_DUP2, 1, 2))
    else:
        actions.append((os.POSIX_SPAWN_DUP2, 2, 1))
    # -P keeps files of the working directory from being taken for modules.
    words = [sys.executable, "-P", "-m", *arguments]
    return os.posix_spawn(sys.executable, words, os.environ, file_actions=actions, setsid=is_detached)


def _line(reader: int, within_s: float) -> bytes:
    deadline_s = time.monotonic() + within_s
    gathered = b""
    while b"\n" not in gathered:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([reader], [], [], left_s)[0]:
            return b""
        piece = os.read(reader, 1 << 16)
        if not piece:
            break
        gathered += piece
    return gathered


def _facts(line: bytes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    try:
        facts = json.loads(line)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _end(pid: int) -> None:
    _send(pid, signal.SIGTERM)
    try:
        wait_gone(pid, within_s=5.0)
    except TimedOut:
        _send(pid, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def _not_ready(module: str, log: Path | None) -> OtherEnd:
    what = "the " + module.rpartition(".")[2]
    lines: list[str] = []
    if log is not None:
        try:
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            pass
    why = ": " + lines[-1] if lines else ""
    return OtherEnd(f"{what} did not come up{why}", code="not_ready", hint=f"see {log}" if log else "")
