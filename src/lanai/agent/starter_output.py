"""Where the output of attempts goes: slots with a pair of append files, segments, files of their own.

Standard library only, part of the starter. Two new files per job can halve the rate of short jobs, so an attempt
borrows a *slot*: a pair of files opened once and appended to. When it has ended, what it wrote is copied to the current
segment and the pair is emptied; much output, or a pair that something still alive may write to, is renamed to the
attempt's own file and the slot gets a new pair.
"""

import errno
import os
import re
from typing import NamedTuple

from lanai.agent.starter_command import node_or
from lanai.agent.starter_descriptors import open_files
from lanai.agent.starter_exec import Streams
from lanai.agent.starter_trimming import free_bytes, trim

SMALL_BYTES = 64 << 10
SEGMENT_BYTES = 64 << 20
_STREAMS = ("out", "err")
_OWN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_OWN_UMASK = 0o077
_PATTERN = re.compile(r"%(.)")
Record = list[object]


class Slot(NamedTuple):
    """A pair of append files, as descriptors and as what a command is spawned with."""

    number: int
    descriptors: tuple[int, int]
    streams: Streams


class Output:
    """Hands out slots and takes them back; owns the segment being written. All names are below ``directory``."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._free: list[Slot] = []
        self._slots = 0
        self._segment = -1
        self._segment_number = 0
        self._segment_bytes = 0
        self._batches: set[int] = set()

    def take(self) -> Slot:
        """Returns an empty slot.

        Raises:
            CannotStart: outcome node, if no file could be opened.
        """
        if self._free:
            return self._free.pop()
        self._slots += 1
        try:
            return self._open(self._slots - 1)
        except OSError as error:
            self._slots -= 1
            raise node_or(error, "node", None, "opening output files") from None

    def give_back(self, slot: Slot) -> None:
        """Takes back a slot whose attempt never began."""
        self._free.append(slot)

    def collect(
        self, slot: Slot, job: tuple[int, int, int], is_shared: bool, most_bytes: int = 0
    ) -> list[Record | None] | None:
        """Takes what an ended attempt wrote, and its slot back.

        Args:
            slot: the attempt's.
            job: batch, index and attempt, for names.
            is_shared: something of the attempt is still alive and may write on.
            most_bytes: how much of either is kept; 0 for all.

        Returns:
            Where standard output and error went; None if nothing was written.
        """
        out_bytes = os.lseek(slot.descriptors[0], 0, os.SEEK_END)
        err_bytes = os.lseek(slot.descriptors[1], 0, os.SEEK_END)
        if not (out_bytes or err_bytes or is_shared):
            self._free.append(slot)
            return None
        umask = os.umask(_OWN_UMASK)
        try:
            if most_bytes and max(out_bytes, err_bytes) > SMALL_BYTES:
                trim(slot.descriptors, most_bytes, free_bytes(self.directory))
            return self._keep(slot, job, (out_bytes, err_bytes), is_shared)
        finally:
            os.umask(umask)

    def _keep(
        self, slot: Slot, job: tuple[int, int, int], sizes: tuple[int, int], is_shared: bool
    ) -> list[Record | None]:
        if is_shared or max(sizes) > SMALL_BYTES:
            return self._retire(slot, job, sizes)
        try:
            records = [self._copy(slot.descriptors[i], sizes[i]) for i in (0, 1)]
        except OSError:
            # No room for a copy: the files themselves are kept, which takes none.
            return self._retire(slot, job, sizes)
        self._free.append(slot)
        return records

    def _copy(self, descriptor: int, size: int) -> Record | None:
        if not size:
            return None
        data = os.pread(descriptor, size, 0)
        segment, offset = self._room(len(data))
        if os.write(segment, data) != size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._segment_bytes += len(data)
        os.ftruncate(descriptor, 0)
        return ["segment", self._segment_number, offset, len(data)]

    def _room(self, size: int) -> tuple[int, int]:
        if self._segment < 0 or self._segment_bytes + size > SEGMENT_BYTES:
            self._next_segment()
        # A write that failed half-way leaves rubbish behind; the file's own end is the truth.
        self._segment_bytes = os.lseek(self._segment, 0, os.SEEK_END)
        return self._segment, self._segment_bytes

    def _next_segment(self) -> None:
        if self._segment >= 0:
            os.close(self._segment)
            self._segment = -1
        # After the last that there is: a number is not used again once its segment was swept, for there may be records
        # of it still.
        self._segment_number = max(segments_in(self.directory)[-1:], default=self._segment_number)
        while True:
            self._segment_number += 1
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._segment = os.open(segment_path(self.directory, self._segment_number), flags, 0o600)
            except FileExistsError:
                continue
            return

    def _retire(self, slot: Slot, job: tuple[int, int, int], sizes: tuple[int, int]) -> list[Record | None]:
        batch, index, attempt = job
        records: list[Record | None] = []
        folder = f"jobs/{batch}"
        try:
            if batch not in self._batches:
                os.makedirs(os.path.join(self.directory, folder), exist_ok=True)
                self._batches.add(batch)
            for stream, size in zip(_STREAMS, sizes, strict=True):
                name = f"{folder}/{index}.{attempt}.{stream}"
                os.rename(self._path(slot.number, stream), os.path.join(self.directory, name))
                records.append(["file", name, size])
        except OSError as error:
            self._batches.discard(batch)
            return [["lost", os.strerror(error.errno or 0), max(sizes)], None]
        finally:
            for descriptor in slot.descriptors:
                os.close(descriptor)
            self._reopen(slot.number)
        return records

    def _reopen(self, number: int) -> None:
        try:
            self._free.append(self._open(number))
        except OSError:
            # The next attempt that needs a slot tries again, under a number of its own, and reports the failure.
            return

    def _open(self, number: int) -> Slot:
        opened: list[int] = []
        umask = os.umask(_OWN_UMASK)
        try:
            for stream in _STREAMS:
                path = self._path(number, stream)
                if os.path.exists(path):
                    os.unlink(path)
                opened.append(os.open(path, _OWN_FLAGS, 0o600))
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        finally:
            os.umask(umask)
        open_files.hold(*opened)
        return Slot(number, (opened[0], opened[1]), Streams(None, opened[0], opened[1]))

    def _path(self, number: int, stream: str) -> str:
        return os.path.join(self.directory, f"slot{number}.{stream}")


def segment_path(directory: str, number: int) -> str:
    """Returns the name of an output segment."""
    return os.path.join(directory, f"out-{number:06d}")


def segments_in(directory: str) -> list[int]:
    """Returns the numbers of the output segments that there are, lowest first; none where they cannot be listed."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(int(name[4:]) for name in names if name.startswith("out-") and name[4:].isdecimal())


def expand(pattern: str, job: tuple[int, int, int]) -> str:
    """Fills in a pattern: %b batch, %i index, %a attempt, %% a percent sign; anything else stays as it is."""
    values = {"b": str(job[0]), "i": str(job[1]), "a": str(job[2]), "%": "%"}
    return _PATTERN.sub(lambda match: values.get(match[1], match[0]), pattern)
