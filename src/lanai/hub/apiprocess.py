"""The API process as the hub's child: started, watched, started again when it dies, ended with the hub."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

RESTART_S: Final = 0.2
LONGEST_RESTART_S: Final = 5.0
END_S: Final = 3.0
_log = logging.getLogger(__name__)


class ApiProcess:
    """Keeps one `python -m lanai.api` alive.

    Args:
        listen: the TLS address as HOST:PORT, or None for the Unix socket alone.
    """

    def __init__(self, directory: Path, listen: str | None) -> None:
        self._command = [sys.executable, "-m", "lanai.api", os.fspath(directory), "--parent", str(os.getpid())]
        if listen:
            self._command += ["--listen", listen]
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._watched: int | None = None
        self._delay_s = RESTART_S
        self._is_stopped = False

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 between two."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it. The hub is still small here, so that the fork is cheap."""
        if self._is_stopped:
            return
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        self._watched = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._watched, self._ended)
        self._loop.call_later(LONGEST_RESTART_S, self._settled, self._process.pid)

    def stop(self) -> None:
        """End it, and wait for that."""
        self._is_stopped = True
        if self._process is None:
            return
        self._unwatch()
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ended(self) -> None:
        assert self._process is not None
        self._unwatch()
        _log.warning("the API process ended with %s; starting another", self._process.wait())
        self._process = None
        self._loop.call_later(self._delay_s, self.start)
        self._delay_s = min(LONGEST_RESTART_S, self._delay_s * 2)

    def _settled(self, pid: int) -> None:
        if self._process is not None and self._process.pid == pid:
            self._delay_s = RESTART_S

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None
