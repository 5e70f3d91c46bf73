"""The API process as the hub's child: started, watched, started again when it dies, ended with the hub.

The hub starts it before it imports what it needs itself, so this module imports as little as it can.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import asyncio
    import logging

RESTART_S: Final = 0.2
LONGEST_RESTART_S: Final = 5.0
END_S: Final = 3.0


class Access(NamedTuple):
    """Who may come in through the API's doors, and as what.

    Attributes:
        is_open: everybody on this machine may use the Unix socket; else the hub's own user and root alone.
        socket: another place for it, besides the one in the hub's directory.
        operators, admins: names of users.
    """

    is_open: bool = False
    socket: Path | None = None
    operators: tuple[str, ...] = ()
    admins: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """As the API process takes it."""
        words = ["--local", "everyone"] if self.is_open else []
        words += ["--socket", os.fspath(self.socket)] if self.socket else []
        words += [word for name in self.operators for word in ("--operator", name)]
        return words + [word for name in self.admins for word in ("--admin", name)]


class ApiProcess:
    """Keeps one `python -m lanai.api` alive: `start` it, `watch` it once there is a loop, `stop` it."""

    def __init__(self, directory: Path, access: Access) -> None:
        # -P keeps files of the working directory from being taken for modules.
        self._command = [sys.executable, "-P", "-m", "lanai.api", os.fspath(directory), "--parent", str(os.getpid())]
        self._command += access.arguments()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: int | None = None
        self._delay_s = RESTART_S
        self._is_stopped = False

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 before the first and between two."""
        return self._pid

    def start(self, listen: str = "") -> None:
        """Start it, and have it also `listen` at HOST:PORT for TLS. It tries for 15 s until the hub listens."""
        if listen:
            self._command += ["--listen", listen]
        self._spawn()

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on start another where it dies. It was started."""
        self._loop = loop
        self._begin_watch(loop)

    def stop(self) -> None:
        """End it, and wait for that."""
        self._is_stopped = True
        if not self._pid:
            return
        self._unwatch()
        watched = os.pidfd_open(self._pid)
        try:
            os.kill(self._pid, signal.SIGTERM)
            ended = select.poll()  # select() cannot look at descriptors from 1,024 on
            ended.register(watched, select.POLLIN)
            if not ended.poll(END_S * 1000):
                os.kill(self._pid, signal.SIGKILL)
        finally:
            os.close(watched)
        os.waitpid(self._pid, 0)
        self._pid = 0

    def _spawn(self) -> None:
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        self._pid = os.posix_spawn(sys.executable, self._command, os.environ, file_actions=actions)

    def _begin_watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watched = os.pidfd_open(self._pid)
        loop.add_reader(self._watched, self._ended, loop)
        loop.call_later(LONGEST_RESTART_S, self._settled, self._pid)

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_stopped:
            return
        try:
            self._spawn()
        except OSError as error:
            _log().warning("no API process can be started now: %s", error.strerror)
            loop.call_later(LONGEST_RESTART_S, self._again, loop)
        else:
            self._begin_watch(loop)

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        self._unwatch()
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = 0
        _log().warning("the API process ended with %s; starting another", code)
        loop.call_later(self._delay_s, self._again, loop)
        self._delay_s = min(LONGEST_RESTART_S, self._delay_s * 2)

    def _settled(self, pid: int) -> None:
        if self._pid == pid:
            self._delay_s = RESTART_S

    def _unwatch(self) -> None:
        if self._watched is not None and self._loop is not None:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None


def _log() -> logging.Logger:
    import logging

    return logging.getLogger(__name__)
