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
        ranges: list[tuple[int, int]] = []
        lines: list[bytes] = []
        checks: dict[int, tuple[Check, ...]] = {}
        room = MESSAGE_BYTES
        for first, last in spans:
            at = first
            while at <= last:
                chunk = self._chunk(batch, Index(at))
                end = min(last, chunk.last)
                part = chunk.lines[at - chunk.first : end - chunk.first + 1]
                size = sum(map(len, part)) + len(part)
                if size > room:
                    part, end = _as_many(part, at, room, is_first=not lines)
                    size = sum(map(len, part)) + len(part)
                if part:
                    if chunk.checks:
                        for index in range(at, end + 1):
                            if (found := chunk.checks.get(index - chunk.first)) is not None:
                                checks[len(lines) + index - at] = found
                    ranges.append((at, end))
                    lines += part
                    room -= size
                    at = end + 1
                if not part or room <= 0:
                    yield Piece(ranges, b"\0".join(lines), checks)
                    ranges, lines, checks, room = [], [], {}, MESSAGE_BYTES
        if lines:
            yield Piece(ranges, b"\0".join(lines), checks)

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


def _as_many(part: list[bytes], at: int, room: int, *, is_first: bool) -> tuple[list[bytes], int]:
    """The lines that fit `room`, at least one where the piece is still empty, and the last index of them."""
    taken = 0
    for line in part:
        room -= len(line) + 1
        if room < 0 and not (is_first and not taken):
            break
        taken += 1
    return part[:taken], at + taken - 1
