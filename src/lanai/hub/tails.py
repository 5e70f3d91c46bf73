"""How many tails of outputs may wait for the store: tails are worth less than memory, results are not.

While the disk is full, or slow, what nodes send piles up in front of the store. Results are bounded by what was
granted; tails come as fast as nodes can read files. So they have room of their own, and what finds none is dropped and
counted. Those of jobs that succeeded, which hardly anybody reads, leave a part of it to those of jobs that failed. The
node has the whole output all the same, for as long as it keeps outputs.
"""

from __future__ import annotations

import logging
from typing import Final

from lanai.model.records import SaveTail

ROOM_BYTES: Final = 64 << 20
ROOM_FOR_OK_BYTES: Final = 48 << 20
_RECORD_BYTES: Final = 512
"""What a tail takes besides its bytes, generously."""
_log = logging.getLogger(__name__)


class TailRoom:
    """Room for the tails that are not in the store yet.

    Attributes:
        dropped: tails that found no room since the hub began.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting_bytes = 0
        self._told = 0

    def admit(self, tail: SaveTail) -> bool:
        """Whether there is room for it; from then on it takes that room until it is `kept`."""
        size = size_of(tail)
        if self._waiting_bytes + size > (ROOM_BYTES if tail.is_failed else ROOM_FOR_OK_BYTES):
            if self.dropped == self._told:
                _log.warning("ends of outputs are dropped: %d bytes of them wait for the store", self._waiting_bytes)
            self.dropped += 1
            return False
        self._waiting_bytes += size
        return True

    def kept(self, size_bytes: int) -> None:
        """Tails of so many bytes, by `size_of`, are in the store now."""
        self._waiting_bytes -= size_bytes
        if size_bytes and self._told != self.dropped:
            _log.warning("the ends of %d outputs were dropped for lack of room", self.dropped - self._told)
            self._told = self.dropped


def size_of(tail: SaveTail) -> int:
    """What it takes in memory, in bytes."""
    return len(tail.out) + len(tail.err) + _RECORD_BYTES
