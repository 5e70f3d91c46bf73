"""Bodies of requests, read within bounds of size and of time: whoever sends a byte now and then is not waited for.

Only the time that the client lets us wait counts, not what is done with a piece.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final, TypeVar

import msgspec
from starlette.requests import Request

from lanai.model.errors import UserError

SMALL_BYTES: Final = 64 << 10
"""The longest body of a wish that names no jobs."""
RANGES_BYTES: Final = 16 << 20
"""The longest of one that may name each of a million jobs."""
SMALL_S: Final = 10.0
STREAM_S: Final = 60.0
LEAST_BYTES_PER_S: Final = 4 << 10
"""A body may take this much longer for what it brings, besides the seconds above."""

Number = Annotated[int, msgspec.Meta(ge=-(1 << 53) + 1, le=(1 << 53) - 1)]
"""Of a body: what JSON carries exactly, and the wire holds."""

B = TypeVar("B", bound=msgspec.Struct)


async def decoded(request: Request, kind: type[B], most_bytes: int = SMALL_BYTES) -> B:
    """The body as a `kind`; none at all is an empty object.

    Raises:
        UserError: it is too long, too slow, or no such object.
    """
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said[:19]) > most_bytes:
        raise _too_long(most_bytes)
    gathered = bytearray()
    async for piece in streamed(request, SMALL_S):
        gathered += piece
        if len(gathered) > most_bytes:
            raise _too_long(most_bytes)
    try:
        return msgspec.json.decode(bytes(gathered) or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UserError(f"the body is not understood: {error}", code="bad_body") from None


async def streamed(request: Request, within_s: float = STREAM_S) -> AsyncIterator[bytes]:
    """The body piece by piece, as it comes.

    Raises:
        UserError: it is too slow.
        ClientDisconnect: the client has gone.
    """
    left_s = within_s
    pieces = aiter(request.stream())
    while True:
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise UserError(
                f"the body comes too slowly: accepted is {within_s:g} s, and longer for more than it brought",
                code="body_too_slow",
            ) from None
        if piece is None:
            return
        left_s += len(piece) / LEAST_BYTES_PER_S - (time.monotonic() - begun_s)
        yield piece


def _too_long(most_bytes: int) -> UserError:
    return UserError(f"the body is too long: accepted are at most {most_bytes} bytes", code="body_too_long")
