"""What a hub or an agent tells the service manager that started it: sd_notify(3), as text and as datagrams.

A service manager names a socket in `NOTIFY_SOCKET`, and in `WATCHDOG_USEC` how often it wants to hear that the process
is alive. Both are taken out of the environment, so that no child speaks in our name. Where nobody listens, everything
here does nothing. It lies in `wire` since hub and agent both speak it, and the two share nothing else.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

STATUS_EVERY_US: Final = 10_000_000
PATIENCE_S: Final = 1.0
"""A service manager that does not read for so long misses a message, and the process goes on."""


class Notifier:
    """Speaks to the service manager.

    Args:
        address: of its socket, a leading `@` for an abstract one; empty: there is none.
        watchdog_us: it ends a process that has been silent for so long; 0: it does not.

    Attributes:
        every_us: how often `beat` wants to be called, from the loop whose life it proves; 0: never.
    """

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._has_watchdog = watchdog_us > 0
        self.every_us = 0
        if address:
            self.every_us = min(STATUS_EVERY_US, watchdog_us // 2) if watchdog_us else STATUS_EVERY_US
        self._due_us = 0
        self._status = ""

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The one that the environment names; its variables are removed. A watchdog of another process is not ours."""
        address = environ.pop("NOTIFY_SOCKET", "")
        length, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        is_ours = length.isdigit() and pid in ("", str(os.getpid()))
        if not address.startswith(("/", "@")):
            return cls()
        return cls(address, int(length) if is_ours else 0)

    @property
    def has_watchdog(self) -> bool:
        """Whether silence ends the process."""
        return self._has_watchdog

    def ready(self, status: str) -> None:
        """It works from now on."""
        self._send("READY=1", *self._changed(status))

    def beat(self, now_us: int, status: str) -> int:
        """It is alive, and this is how it is; sent where that is due. Returns when it will be again, of the same clock.

        Only for one that has a service manager: `every_us` is not 0.
        """
        if now_us >= self._due_us:
            self._due_us = now_us + self.every_us
            self._send(*(["WATCHDOG=1"] if self._has_watchdog else []), *self._changed(status))
        return self._due_us

    def stopping(self) -> None:
        """It ends on purpose."""
        self._send("STOPPING=1")

    def _changed(self, status: str) -> list[str]:
        line = " ".join(status.split())
        if line == self._status:
            return []
        self._status = line
        return [f"STATUS={line}"]

    def _send(self, *assignments: str) -> None:
        if not self._address or not assignments:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.settimeout(PATIENCE_S)
                speaker.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)
        except OSError:
            pass  # it is not there, or does not read: that is no reason to do our work differently
