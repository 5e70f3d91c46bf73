"""Command lines and environments on their way from store to node: read when a grant needs them, kept for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from lanai.model.ids import BatchId, Index
from lanai.model.request import Check
from lanai.store.port import Lines

CHUNKS_KEPT: Final = 64
ENVS_KEPT: Final = 64
MESSAGE_BYTES: Final = 1 << 20
"""What a piece holds at most, unless one job alone is more: that may be twice as much, and fits a frame all the same.

A line has at most 1 MiB, and what it is checked for stood in it: the files once more, the rest in more letters.
"""

CHECK_BYTES: Final = 20
"""What a check takes on the wire beside its file, at most."""
RANGE_BYTES: Final = 20
"""What a range of indices takes there, at most."""


class Piece(msgspec.Struct, frozen=True):
    """A part of a grant that fits one message."""

    ranges: list[tuple[int, int]]
    lines: bytes
    checks: dict[int, tuple[Check, ...]]


class _Chunk(msgspec.Struct, frozen=True):
    first: int
    last: int
    lines: list[bytes]
    checks: dict[int, tuple[Check, ...]]


class LineSource:
    """Reads through a small cache. On the hub's loop: one indexed row a miss."""

    def __init__(self, store: Lines) -> None:
        self._store = store
        self._chunks: OrderedDict[tuple[BatchId, int], _Chunk] = OrderedDict()
        self._envs: OrderedDict[bytes, dict[bytes, bytes]] = OrderedDict()
        self._current: dict[BatchId, _Chunk] = {}

    def pieces(self, batch: BatchId, spans: tuple[tuple[int, int], ...]) -> Iterable[Piece]:
        """The members' lines and checks, cut so that each piece fits a message; read when a piece is asked for."""
        if len(spans) == 1:
            first, last = spans[0]
            chunk = self._chunk(batch, Index(first))
            if last <= chunk.last and not chunk.checks:
                joined = b"\0".join(chunk.lines[first - chunk.first : last - chunk.first + 1])
                if len(joined) < MESSAGE_BYTES:
                    return [Piece([(first, last)], joined, {})]
        return self._cut(batch, spans)

    def _cut(self, batch: BatchId, spans: tuple[tuple[int, int], ...]) -> Iterator[Piece]:
        gathered = _Gathered()
        for first, last in spans:
            at = first
            while at <= last:
                chunk = self._chunk(batch, Index(at))
                taken = gathered.take(chunk, at, min(last, chunk.last))
                at += taken
                if not taken or gathered.room <= 0:
                    yield gathered.piece()
                    gathered = _Gathered()
        if gathered.lines:
            yield gathered.piece()

    def env(self, digest: bytes) -> dict[bytes, bytes]:
        """The environment saved under `digest`."""
        found = self._envs.get(digest)
        if found is None:
            found = msgspec.msgpack.decode(self._store.env(digest), type=dict[bytes, bytes])
            self._envs[digest] = found
            if len(self._envs) > ENVS_KEPT:
                self._envs.popitem(last=False)
        return found

    def forget(self, batch: BatchId) -> None:
        """The batch has ended."""
        self._current.pop(batch, None)
        for key in [key for key in self._chunks if key[0] == batch]:
            del self._chunks[key]

    def _chunk(self, batch: BatchId, index: Index) -> _Chunk:
        current = self._current.get(batch)
        if current is not None and current.first <= index <= current.last:
            return current
        for (owner, _), chunk in self._chunks.items():
            if owner == batch and chunk.first <= index <= chunk.last:
                self._current[batch] = chunk
                return chunk
        saved = self._store.chunk(batch, index)
        chunk = _Chunk(saved.first, saved.first + saved.count - 1, saved.lines.split(b"\0"), saved.checks)
        self._chunks[batch, chunk.first] = self._current[batch] = chunk
        if len(self._chunks) > CHUNKS_KEPT:
            self._chunks.popitem(last=False)
        return chunk


class _Gathered:
    """What is to go into one piece, and the bytes that it has room for."""

    def __init__(self) -> None:
        self.room = MESSAGE_BYTES
        self.ranges: list[tuple[int, int]] = []
        self.lines: list[bytes] = []
        self.checks: dict[int, tuple[Check, ...]] = {}

    def take(self, chunk: _Chunk, first: int, last: int) -> int:
        """Take jobs of a chunk, from `first` on, as many as there is room for; at least one where it is empty."""
        lines = chunk.lines[first - chunk.first : last - chunk.first + 1]
        checks = _checks_of(chunk, first, last)
        size = RANGE_BYTES + sum(map(len, lines)) + len(lines) + sum(map(_size_of, checks.values()))
        if size > self.room:
            lines, size = self._as_many(lines, checks)
        if lines:
            begin = len(self.lines)
            self.checks.update({begin + at: found for at, found in checks.items() if at < len(lines)})
            self.ranges.append((first, first + len(lines) - 1))
            self.lines += lines
            self.room -= size
        return len(lines)

    def _as_many(self, lines: list[bytes], checks: dict[int, tuple[Check, ...]]) -> tuple[list[bytes], int]:
        size, taken = RANGE_BYTES, 0
        for at, line in enumerate(lines):
            more = len(line) + 1 + _size_of(checks.get(at, ()))
            if size + more > self.room and (taken or self.lines):
                break
            size += more
            taken += 1
        return lines[:taken], size

    def piece(self) -> Piece:
        return Piece(self.ranges, b"\0".join(self.lines), self.checks)


def _checks_of(chunk: _Chunk, first: int, last: int) -> dict[int, tuple[Check, ...]]:
    """The checks of jobs first .. last of a chunk, by position from `first`."""
    if not chunk.checks:
        return {}
    known = chunk.checks
    return {at - first: known[at - chunk.first] for at in range(first, last + 1) if at - chunk.first in known}


def _size_of(checks: tuple[Check, ...]) -> int:
    return CHECK_BYTES * (len(checks) + 1) + sum(len(check.file) for check in checks) if checks else 0
