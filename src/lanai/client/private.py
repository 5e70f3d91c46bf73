"""Starts the private hub and its agent: one pair a user and host, however many clients want it at once.

Both are started detached, with their output in log files beside their state. A lock file makes starters wait for each
other, so the second finds what the first has started. Nothing here knows how long they live: they end by themselves.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from lanai.model import places
from lanai.model.errors import ErrorBody, OtherEnd, raised_from

READY_WITHIN_S: Final = 15.0
SAY_AFTER_S: Final = 1.0
POLL_S: Final = 0.01
LOG_LINES: Final = 5

Say = Callable[[str], None]


def is_answering(directory: Path) -> bool:
    """Whether somebody listens on the API socket of the hub in `directory`."""
    from lanai.wire import unix

    try:
        unix.connect(places.api_socket(directory), timeout_s=1.0).close()
    except OSError:
        return False
    return True


def start(directory: Path, *, host: str, say: Say) -> int:
    """Have a private hub with its agent in `directory`, starting what is not there.

    Args:
        directory: made if it is missing; nobody else's.
        host: the agent's name.
        say: told what takes long, one line a time.

    Returns:
        How many unfinished batches the hub that was started has taken up again; 0 where another was there.

    Raises:
        LanaiError: what the hub says it cannot start by.
        OtherEnd: it did not come up within 15 s; with the last lines of its log.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _start_lock(directory):
        if is_answering(directory):
            return 0
        hub, reader = _start_hub(directory)
        # Both start at once: the agent tries until the hub listens.
        agent = _start_agent(directory, host)
        try:
            return int(_ready(directory, hub, reader, say).get("resumed", 0))
        except BaseException:
            os.kill(agent, signal.SIGTERM)  # not waited for, so the number is still its own
            raise
        finally:
            os.close(reader)


def _start_hub(directory: Path) -> tuple[int, int]:
    """Its pid, and the descriptor on which it says that it is ready."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        arguments = ["lanai.hub", os.fspath(directory), "--private", "--ready-fd", str(writer)]
        return _spawn(arguments, directory / "hub.log"), reader
    finally:
        os.close(writer)


def _start_agent(directory: Path, host: str) -> int:
    state = directory / "agent"
    state.mkdir(exist_ok=True, mode=0o700)
    wire = f"unix:{places.wire_socket(directory)}"
    return _spawn(["lanai.agent", "--state", os.fspath(state), "--hub", wire, "--name", host], directory / "agent.log")


@contextmanager
def _start_lock(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _spawn(arguments: list[str], log: Path) -> int:
    """Start `python -m ...` in a session of its own; returns its pid.

    -P keeps the caller's working directory out of the module search: a file there named like one of ours, or of
    Python's, must not be run.
    """
    output = (os.POSIX_SPAWN_OPEN, 1, os.fspath(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", *arguments],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            output,
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _ready(directory: Path, hub: int, reader: int, say: Say) -> dict[str, Any]:
    """What the hub says of itself once it takes work. Raises what it says it failed by."""
    begun_s = time.monotonic()
    line = _line(reader, SAY_AFTER_S)
    if line is None:
        say("starting a private hub ...")
        line = _line(reader, READY_WITHIN_S - SAY_AFTER_S)
    if not line:
        raise _not_ready(directory, time.monotonic() - begun_s)
    facts = json.loads(line)
    if "error" in facts:
        os.waitpid(hub, 0)
        raise raised_from(msgspec.convert(facts["error"], ErrorBody))
    while not is_answering(directory):
        if time.monotonic() - begun_s > READY_WITHIN_S:
            raise _not_ready(directory, time.monotonic() - begun_s)
        time.sleep(POLL_S)
    return dict(facts)


def _line(reader: int, within_s: float) -> bytes | None:
    """A line of the pipe; empty where it was closed without one, None where none came in time."""
    deadline_s = time.monotonic() + within_s
    gathered = b""
    while not gathered.endswith(b"\n"):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([reader], [], [], left_s)[0]:
            return None
        piece = os.read(reader, 1 << 16)
        if not piece:
            return b""
        gathered += piece
    return gathered


def _not_ready(directory: Path, waited_s: float) -> OtherEnd:
    log = directory / "hub.log"
    try:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        lines = []
    shown = ": " + " | ".join(lines) if lines else ""
    return OtherEnd(
        f"the private hub did not come up ({waited_s:.1f} s){shown}",
        code="hub_not_ready",
        hint=f"see {log}",
        facts={"log": os.fspath(log)},
    )
