"""What an agent must not forget when it is killed: results not yet committed at the hub, and what its starter holds.

It writes, reads back and drops; it decides nothing and never syncs (a kill loses nothing, a power cut of the node is
told by its boot id). One owner, one thread.

Theory of operation. The spool is a row of segment files of fixed size, allocated in full before they are used, so that
a write into one cannot run out of disk. A segment holds records: u32 length, u32 CRC-32, msgpack. Reading stops at the
first record of a segment that is not whole: that is where the writer was killed. Every segment begins with a checkpoint
of what the starter holds, so that the oldest segments can be dropped as soon as the hub has committed their results,
and the journal of what was handed out never has to be searched further back than the oldest segment that is left.
One segment is always kept in reserve; when there is no room for the reserve the disk counts as full, while the segment
in use still takes the results of what runs.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.job import AttemptResult
from lanai.model.resources import Shape

SEGMENT_BYTES: Final = 1 << 20
_HEADER_BYTES: Final = 8
_RESERVE: Final = "reserve"


class Handed(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Jobs of one grant that were given to the starter. Written before they are.

    `gpus` are those of each index, in the same order; empty where the shape has none. `owner` is the user whose starter
    has them, "" for the agent's own.
    """

    grant: GrantId
    batch: BatchId
    attempt: int
    shape: Shape
    indices: list[Index]
    gpus: list[tuple[str, ...]] = []
    owner: str = ""


class Gone(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Jobs that the starter gave back without having begun them."""

    items: list[tuple[GrantId, Index]]


class Results(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Attempts that ended, numbered from `first` on."""

    first: int
    results: list[AttemptResult]


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """The first record of each segment: the number of the next result, and everything the starter holds."""

    next_seq: int
    handed: list[Handed]


_About = tuple[BatchId, int, Shape, tuple[str, ...], str]
"""Of one job at a starter: batch, attempt, shape, gpus, owner."""

Record = Handed | Gone | Results | Checkpoint
_encode = msgspec.msgpack.Encoder().encode
_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)


class Remembered(msgspec.Struct, frozen=True):
    """What an earlier agent left.

    Attributes:
        results: (number, result), oldest first, of those not known to be forgotten. The hub may know some already.
        handed: what the starter held, without those that have ended.
    """

    results: list[tuple[int, AttemptResult]]
    handed: list[Handed]


class Spool:
    """The spool of one agent, in a directory of its own.

    Attributes:
        is_full: there was no room for the next segment; `make_room` tries again.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open the spool, reading what is there into `remembered`. Raises OSError where it cannot be written."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segments: deque[tuple[Path, int]] = deque()
        self._live: dict[tuple[GrantId, Index], _About] = {}
        self._next_seq = 1
        self._number = 0
        self._fd = -1
        self._offset = self._read_bytes = 0
        self.is_full = False
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.remembered = self._read()
        try:
            self._begin_segment(0)
        except OSError:
            if not self._segments or not self._read_bytes:
                raise
            # An agent before had the reserve too: as long as there is no room, its last segment takes what still fits.
            self._fd = os.open(self._segments[-1][0], os.O_WRONLY | os.O_CLOEXEC)
            self._offset = self._read_bytes
        self.make_room()

    def hand(self, handed: Sequence[Handed]) -> None:
        """Note what will be given to the starter. Raises OSError where there is no room; nothing is noted then."""
        self._write(list(handed))
        for one in handed:
            self._live.update(_members(one))

    def gone(self, items: list[tuple[GrantId, Index]]) -> None:
        """Note what the starter gave back."""
        self._write([Gone(items)])
        for item in items:
            self._live.pop(item, None)

    def keep(self, results: list[AttemptResult]) -> int:
        """Write results; they may be reported once this returns.

        Returns:
            The number of the last of them. They are numbered without gaps.

        Raises:
            OSError: there is no room; nothing was kept.
        """
        self._write([Results(self._next_seq, results)])
        self._next_seq += len(results)
        live = self._live
        for result in results:
            live.pop((result.grant, result.index), None)
        return self._next_seq - 1

    def forget(self, upto: int) -> None:
        """The hub has committed everything up to this number: drop the segments that hold nothing later."""
        while len(self._segments) > 1 and self._segments[0][1] <= upto:
            self._segments.popleft()[0].unlink(missing_ok=True)

    def make_room(self) -> bool:
        """Allocate the reserve where it is missing; whether it is there now."""
        path = self._directory / _RESERVE
        if not path.exists():
            try:
                _allocate(path, self._segment_bytes)
            except OSError:
                path.unlink(missing_ok=True)
                self.is_full = True
                return False
        self.is_full = False
        return True

    def close(self) -> None:
        """Close the file in use. A repeat is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, records: Sequence[Record]) -> None:
        data = b"".join(map(_packed, records))
        if self._offset + len(data) > self._segment_bytes:
            self._begin_segment(len(data))
        os.pwrite(self._fd, data, self._offset)
        self._offset += len(data)

    def _begin_segment(self, wanted_bytes: int) -> None:
        """Go on in a new segment with room for `wanted_bytes` after its checkpoint. Raises OSError; the old stays."""
        first = _packed(Checkpoint(self._next_seq, self._handed()))
        size = max(self._segment_bytes, len(first) + wanted_bytes)
        path = self._directory / f"{self._number + 1:016d}.seg"
        reserve = self._directory / _RESERVE
        if not reserve.exists() or size > self._segment_bytes:
            _allocate(path, size)
        else:
            reserve.rename(path)
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(fd, first, 0)
        self.close()
        if self._segments:
            self._segments[-1] = (self._segments[-1][0], self._next_seq - 1)
        self._segments.append((path, self._next_seq - 1))
        self._number += 1
        self._fd = fd
        self._offset = len(first)
        self.make_room()

    def _handed(self) -> list[Handed]:
        found: dict[GrantId, Handed] = {}
        for (grant, index), (batch, attempt, shape, gpus, owner) in self._live.items():
            if grant not in found:
                found[grant] = Handed(grant, batch, attempt, shape, [], [], owner)
            found[grant].indices.append(index)
            if gpus:
                found[grant].gpus.append(gpus)
        return list(found.values())

    def _read(self) -> Remembered:
        results: list[tuple[int, AttemptResult]] = []
        for path in sorted(self._directory.glob("*.seg")):
            records, self._read_bytes = _records(path.read_bytes())
            for record in records:
                self._replay(record, results)
            self._number = int(path.stem)
            self._segments.append((path, self._next_seq - 1))
        return Remembered(results, self._handed())

    def _replay(self, record: Record, results: list[tuple[int, AttemptResult]]) -> None:
        match record:
            case Checkpoint(next_seq, handed):
                self._next_seq = next_seq
                self._live = {member: about for one in handed for member, about in _members(one)}
            case Handed():
                self._live.update(_members(record))
            case Gone(items):
                for item in items:
                    self._live.pop(item, None)
            case Results(first, ended):
                results.extend(enumerate(ended, first))
                self._next_seq = first + len(ended)
                for result in ended:
                    self._live.pop((result.grant, result.index), None)


def _members(handed: Handed) -> Iterator[tuple[tuple[GrantId, Index], _About]]:
    about = (handed.batch, handed.attempt, handed.shape, (), handed.owner)
    if not handed.gpus:
        return (((handed.grant, index), about) for index in handed.indices)
    pairs = zip(handed.indices, handed.gpus, strict=True)
    return (((handed.grant, index), (*about[:3], gpus, handed.owner)) for index, gpus in pairs)


def _packed(record: Record) -> bytes:
    body = _encode(record)
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def _records(data: bytes) -> tuple[list[Record], int]:
    """The whole records at the head of a segment, and how long they are; what follows a torn one is not looked at."""
    found: list[Record] = []
    offset = 0
    while offset + _HEADER_BYTES <= len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        checksum = int.from_bytes(data[offset + 4 : offset + 8], "big")
        body = data[offset + _HEADER_BYTES : offset + _HEADER_BYTES + length]
        if not length or len(body) < length or zlib.crc32(body) != checksum:
            break
        try:
            found.append(_decoder.decode(body))
        except msgspec.DecodeError:
            break
        offset += _HEADER_BYTES + length
    return found, offset


def _allocate(path: Path, size_bytes: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
