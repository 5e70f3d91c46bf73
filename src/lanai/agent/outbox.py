"""What is to be sent over a Unix socket and has not left yet: bytes, and descriptors that go along with them."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Final

_ALONG_BYTES: Final = 4096


class Outbox:
    """Bytes in order. It owns the descriptors given to it, and closes them once they have left or are dropped."""

    def __init__(self) -> None:
        self._unsent = bytearray()
        self._passed: deque[tuple[int, Sequence[int]]] = deque()
        """How many bytes go before the descriptors do, counted from the first unsent one, or from those before them."""

    def __bool__(self) -> bool:
        return bool(self._unsent)

    def put(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Queue this. The descriptors go with its first byte."""
        if descriptors:
            self._passed.append((len(self._unsent) - sum(ahead for ahead, _ in self._passed), descriptors))
        self._unsent += data

    def flush(self, to: socket.socket) -> None:
        """Send what can be sent. Raises OSError: BlockingIOError, or that of a broken connection."""
        unsent = self._unsent
        while unsent:
            if not self._passed:
                del unsent[: to.send(unsent)]
            elif ahead := self._passed[0][0]:
                sent = to.send(unsent[:ahead])
                del unsent[:sent]
                self._passed[0] = ahead - sent, self._passed[0][1]
            else:
                self._pass_on(to)

    def _pass_on(self, to: socket.socket) -> None:
        _, descriptors = self._passed[0]
        # No further than to the next that go along: the kernel hands over descriptors only with their own bytes.
        until = self._passed[1][0] if len(self._passed) > 1 else _ALONG_BYTES
        sent = socket.send_fds(to, [self._unsent[: min(until, _ALONG_BYTES)]], list(descriptors))
        self._passed.popleft()
        _close(descriptors)
        del self._unsent[:sent]
        if self._passed:
            self._passed[0] = self._passed[0][0] - sent, self._passed[0][1]

    def clear(self) -> None:
        """Drop everything."""
        self._unsent.clear()
        while self._passed:
            _close(self._passed.popleft()[1])


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
