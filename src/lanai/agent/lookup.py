"""The addresses of a name, asked for in a thread of its own: a name server may take a minute to answer, or never.

It tells nobody by itself: its descriptor can be read once the answer is there. What is written as numbers needs no
answer and is there at once.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import Final

Place = tuple[int, object]
"""An address family, and what `connect` takes."""

PLACES_MOST: Final = 32


class Lookup:
    """One question, begun at once. `take` is called when the descriptor can be read, once."""

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError where there is no descriptor or no thread left for it."""
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._found: list[Place] | OSError = []
        try:
            threading.Thread(target=self._ask, args=(host, port), name="lookup", daemon=True).start()
        except RuntimeError as error:
            os.close(self._fd)
            raise OSError(errno.EAGAIN, str(error)) from None

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._fd

    def take(self) -> list[Place]:
        """The answer, in the order in which to try them. Raises OSError where there is none."""
        os.eventfd_read(self._fd)
        os.close(self._fd)
        if isinstance(self._found, OSError):
            raise self._found
        return self._found

    def _ask(self, host: str, port: int) -> None:
        try:
            self._found = _places(host, port, 0)
        except OSError as error:
            self._found = error
        except UnicodeError as error:
            self._found = OSError(f"{host!r} is no name of a computer: {error}")
        os.eventfd_write(self._fd, 1)


def numeric(host: str, port: int) -> list[Place]:
    """The address of a host that is written as numbers; none for a name."""
    try:
        return _places(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []


def _places(host: str, port: int, flags: int) -> list[Place]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(int(family), where) for family, _, _, _, where in found[:PLACES_MOST]]
