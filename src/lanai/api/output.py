"""The output of a job: from the tail in the store where that is all of it, else from the node through the hub.

A reader holds nothing but its own streams: the hub sends on each at most the credit given, and more is given only for
what the reader has taken. Where the node cannot be asked, the tail is served and what is missing is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from lanai.api.answers import encoded
from lanai.api.hublink import HubLink, OutputStream
from lanai.model.ids import BatchId, Index
from lanai.wire import messages

CREDIT_BYTES: Final = 256 << 10
OUT, ERR, END, GAP = 1, 2, 0, 3


class WantedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Which output somebody wants.

    Attributes:
        attempt: 0 is the current or next one.
        offsets: which of the streams (1, 2) -> where to begin.
    """

    batch: BatchId
    index: Index
    attempt: int
    offsets: dict[int, int]
    follow: bool


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the store has of an attempt's output: the ends of both streams, and how long each was in all."""

    out: bytes
    err: bytes
    out_bytes: int
    err_bytes: int

    def of(self, which: int) -> tuple[bytes, int]:
        """The end of one stream, and its whole length."""
        return (self.out, self.out_bytes) if which == OUT else (self.err, self.err_bytes)

    def is_enough(self, offsets: dict[int, int]) -> bool:
        """Whether everything from `offsets` on is here."""
        return all(offset >= total - len(tail) for which, offset in offsets.items() for tail, total in [self.of(which)])


Piece = tuple[int, bytes, str]
"""(OUT, ERR or END, bytes, problem); or (GAP, JSON of `stream` and `missing`, ""): so much of it is not kept here."""


async def from_store(wanted: WantedOutput, kept: Kept, problem: str) -> AsyncIterator[Piece]:
    """What the store has from the offsets on, and how much it lacks."""
    missing = 0
    for which, offset in wanted.offsets.items():
        tail, total = kept.of(which)
        begins = total - len(tail)
        missing += max(0, begins - offset)
        data = tail[max(0, offset - begins) :]
        if data:
            yield which, data, ""
    if missing:
        lacking = f"{missing} bytes before these are not kept here"
        problem = f"{problem}; {lacking}" if problem else lacking
    yield END, b"", problem


async def nothing(problem: str) -> AsyncIterator[Piece]:
    """No output, and why."""
    yield END, b"", problem


async def from_node(link: HubLink, wanted: WantedOutput) -> AsyncIterator[Piece]:
    """The streams as they come from the node. Each piece counts as taken when the next is asked for."""
    async with AsyncExitStack() as held:
        streams: dict[int, OutputStream] = {}
        for which, offset in wanted.offsets.items():
            streams[which] = await held.enter_async_context(link.following(_asking(wanted, which, offset)))
        coming: dict[asyncio.Future[messages.Output], int] = {
            asyncio.ensure_future(stream.next()): which for which, stream in streams.items()
        }
        held.callback(_cancel, coming)
        problem = ""
        offsets = dict(wanted.offsets)
        while coming:
            arrived, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for future in arrived:
                which = coming.pop(future)
                piece = future.result()
                if piece.data:
                    if missing := piece.offset - offsets[which]:
                        yield GAP, encoded({"stream": which, "missing": missing}), ""
                    offsets[which] = piece.offset + len(piece.data)
                    yield which, piece.data, ""
                    streams[which].consumed(len(piece.data))
                if piece.is_end:
                    problem = problem or piece.problem
                else:
                    coming[asyncio.ensure_future(streams[which].next())] = which
        yield END, b"", problem


def _asking(wanted: WantedOutput, which: int, offset: int) -> Callable[[int], messages.Follow]:
    return lambda stream: messages.Follow(
        stream=stream,
        batch=wanted.batch,
        index=wanted.index,
        attempt=wanted.attempt,
        which=which,
        offset=offset,
        follow=wanted.follow,
        credit=CREDIT_BYTES,
    )


def _cancel(coming: dict[asyncio.Future[messages.Output], int]) -> None:
    for future in coming:
        future.cancel()


async def framed(pieces: AsyncIterator[Piece], attempt: int) -> AsyncIterator[bytes]:
    """The pieces as frames: one byte (which), u32 length big-endian, bytes; the last carries JSON."""
    async for which, data, problem in pieces:
        if which == END:
            data = encoded({"attempt": attempt, "problem": problem})
        yield bytes([which]) + len(data).to_bytes(4, "big") + data


async def bare(pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    """The bytes alone."""
    async for which, data, _ in pieces:
        if which in (OUT, ERR):
            yield data
