"""Starting hub and agent as processes of their own, and ending them: the one place where that is done.

A daemon is started with `--ready-fd N` and writes a line there once it is ready: JSON, either facts about itself or
`{"error": {...}}`. Until then its starter waits; where the descriptor is closed without a line, the daemon has failed
and the end of its log says why.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from lanai.model.errors import OtherEnd, TimedOut, raised_from

STOP_WITHIN_S: Final = 60.0
SLOW_S: Final = 1.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A process that was started and has not said yet that it is ready. `reader` is where it will."""

    pid: int
    module: str
    log: Path | None
    reader: int


def start(
    arguments: Sequence[str], *, log: Path, within_s: float, is_detached: bool = True, keeps_trying: bool = False
) -> Daemon:
    """`begin` and then `ready`."""
    return ready(begin(arguments, log=log, is_detached=is_detached), within_s=within_s, keeps_trying=keeps_trying)


def begin(arguments: Sequence[str], *, log: Path, is_detached: bool = True) -> Begun:
    """Start `python -m ARGUMENTS...`, to be handed to `ready` once.

    Args:
        arguments: the module, and what it is given.
        log: where a detached one writes.
        is_detached: in a session of its own, without terminal; else it belongs to this process, is handed the signals
            that end this one, and writes to its standard error.
    """
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        pid = spawn([*arguments, "--ready-fd", str(writer)], log, is_detached=is_detached)
    finally:
        os.close(writer)
    if not is_detached:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda got, _: _send(pid, got))
    return Begun(pid=pid, module=arguments[0], log=log if is_detached else None, reader=reader)


def ready(
    begun: Begun,
    *,
    within_s: float,
    keeps_trying: bool = False,
    on_slow: Callable[[], None] = lambda: None,
) -> Daemon:
    """Wait until a daemon is ready.

    Args:
        within_s: how long it may take; after that it is ended.
        keeps_trying: let it live where it only waits for another end to answer.
        on_slow: called where it takes more than a second.

    Raises:
        LanaiError: what the daemon says went wrong, or OtherEnd with the last line of its log.
    """
    try:
        line = _line(begun.reader, min(within_s, SLOW_S))
        if line is None and within_s > SLOW_S:
            on_slow()
            line = _line(begun.reader, within_s - SLOW_S)
    finally:
        os.close(begun.reader)
    facts = _facts(line or b"")
    if facts is None:
        error = not_ready(begun)
        _end(begun.pid)
        raise error
    if isinstance(facts.get("error"), dict):
        problem = _problem(facts["error"])
        if keeps_trying and isinstance(problem, OtherEnd):
            return Daemon(pid=begun.pid, facts={}, missing=problem)
        _end(begun.pid)
        raise problem
    return Daemon(pid=begun.pid, facts=facts)


def is_managed(environ: Mapping[str, str]) -> bool:
    """Whether a service manager started this process and waits for its word: sd_notify(3)."""
    return bool(environ.get("NOTIFY_SOCKET"))


def become(arguments: Sequence[str]) -> NoReturn:
    """Be `python -m ARGUMENTS...` in this very process from now on: that which a service manager watches."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, _python(arguments))


def stay(daemon: Daemon) -> int:
    """Remain while a daemon that was not detached lives; returns its exit code. What was printed is seen at once."""
    sys.stdout.flush()
    _, status = os.waitpid(daemon.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def wait_gone(pid: int, *, within_s: float | None = STOP_WITHIN_S) -> None:
    """Wait until a process has ended; None is for as long as it takes. Raises TimedOut."""
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


def end_starters(state: Path) -> None:
    """End the starters of the agent whose state is in `state`, and with them what they run: they outlive their agent.

    What has run off from them too, where they were in control groups, which are removed. Harmless where there is none.
    Raises TimedOut.
    """
    for starter in [pid for part in ("starter", "users") for pid in mentioning("starter.py", f"{state}/{part}")]:
        terminate(starter)
    if (state / "cgroups.json").exists():
        subprocess.run([sys.executable, "-P", "-m", "lanai.agent.clear", os.fspath(state)], check=False)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def spawn(arguments: Sequence[str], log: Path, *, is_detached: bool = True) -> int:
    """Start `python -m ARGUMENTS...` as `begin` does, but hear nothing of it; returns its process id."""
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    if is_detached:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        actions.append((os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        actions.append((os.POSIX_SPAWN_DUP2, 1, 2))
    else:
        actions.append((os.POSIX_SPAWN_DUP2, 2, 1))
    return os.posix_spawn(sys.executable, _python(arguments), os.environ, file_actions=actions, setsid=is_detached)


def _python(arguments: Sequence[str]) -> list[str]:
    # -P keeps files of the working directory from being taken for modules.
    return [sys.executable, "-P", "-m", *arguments]


def _line(reader: int, within_s: float) -> bytes | None:
    """A line of the pipe; what there was of it where the pipe was closed first, None where none came in time."""
    deadline_s = time.monotonic() + within_s
    gathered = b""
    while b"\n" not in gathered:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([reader], [], [], left_s)[0]:
            return None
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


def _problem(body: Mapping[str, Any]) -> Exception:
    import msgspec

    from lanai.model.errors import ErrorBody

    return raised_from(msgspec.convert(body, ErrorBody))


def not_ready(begun: Begun) -> OtherEnd:
    """The error for one that did not come up."""
    what = "the " + begun.module.rpartition(".")[2]
    lines: list[str] = []
    if begun.log is not None:
        try:
            lines = begun.log.read_text(errors="replace").splitlines()
        except OSError:
            pass
    why = ": " + lines[-1] if lines else ""
    return OtherEnd(f"{what} did not come up{why}", code="not_ready", hint=f"see {begun.log}" if begun.log else "")
