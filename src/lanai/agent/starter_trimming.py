"""How much of an attempt's output is kept: the first part and the last; what lies between them is let go of.

Standard library only, part of the starter. A command that prints without end must fill no disk, and must not notice
that it does not: its output goes on growing, but the file becomes hollow. What is missing is told by the file itself
(`lseek` with SEEK_DATA and SEEK_HOLE), so that nobody has to remember it.

Theory of operation. An output may take ``most`` bytes of the disk, or an eighth of what is free with it, if that is
less: so many outputs together never take all of it. Beyond that a hole is punched from the end of its first quarter
to the beginning of its last, and half of the room is free again. It is looked at four times a second, oftener where the
disk would be full before; and only at attempts that have been running for a while, and at the end of those that have
written much. Between two looks an output may be larger. A file system that knows no holes (NFS before 4.2) keeps all.
"""

import ctypes
import os
from collections.abc import Iterable

NEVER = 1 << 62
LOOK_US = 250_000
SOONEST_US = 5_000
LEAST_BYTES = 1 << 20
"""So much of an output is kept however full the disk is."""

_SHARE = 8
_BLOCK_BYTES = 4096
_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_c = ctypes.PyDLL(None, use_errno=True)
_c.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Trimming:
    """The outputs that are looked at while they grow. ``due_us`` is when `look` wants to be called."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._watched: dict[str, tuple[tuple[int, int], int]] = {}
        self._written_bytes = 0
        self._looked_us = 0
        self.due_us = NEVER

    def watch(self, name: str, descriptors: tuple[int, int], most_bytes: int, now_us: int) -> None:
        """Look at these from now on, until `ended` is called with that name."""
        self._watched[name] = descriptors, most_bytes
        self.due_us = now_us

    def ended(self, name: str) -> None:
        """Look at these no more; harmless where nobody did."""
        self._watched.pop(name, None)

    def look(self, now_us: int) -> None:
        """Hollow out what has grown too large."""
        if not self._watched:
            self.due_us = NEVER
            return
        free = free_bytes(self._directory)
        written = sum(trim(descriptors, most, free) for descriptors, most in self._watched.values())
        grown, took_us = written - self._written_bytes, now_us - self._looked_us
        self._written_bytes, self._looked_us = written, now_us
        # Before what is free is used up, if all goes on as it did.
        full_us = took_us * free // grown if grown > 0 else NEVER
        self.due_us = now_us + min(LOOK_US, max(SOONEST_US, full_us // 4))


def free_bytes(directory: str) -> int:
    """How much room there is for users on the disk of a directory; where that cannot be told, as if all were free."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return NEVER
    return status.f_bavail * status.f_frsize


def trim(descriptors: Iterable[int], most_bytes: int, free_bytes: int) -> int:
    """Hollows out those of these files that take more than they may; where that cannot be done they stay.

    Returns:
        The length of all of them, what is missing included.
    """
    written = 0
    for descriptor in descriptors:
        status = os.fstat(descriptor)
        written += status.st_size
        taken = status.st_blocks * 512
        bound = min(most_bytes, max(LEAST_BYTES, (free_bytes + taken) // _SHARE))
        if taken <= bound:
            continue
        block = max(_BLOCK_BYTES, status.st_blksize)
        # Whole blocks only: of a part of one the kernel would make zeros, which nobody could tell from data.
        first = max(bound // 4 // block, 1) * block
        last = (status.st_size - bound // 4) // block * block
        if last > first:
            _c.fallocate64(descriptor, _PUNCH_HOLE | _KEEP_SIZE, first, last - first)
    return written


def stretch(descriptor: int, begin: int) -> tuple[int, int]:
    """Returns the next stretch of data of a file at or after ``begin``, as its begin and its end.

    Raises:
        OSError: there is none.
    """
    start = os.lseek(descriptor, begin, os.SEEK_DATA)
    return start, os.lseek(descriptor, start, os.SEEK_HOLE)
