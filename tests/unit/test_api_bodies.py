"""Bodies are read within bounds: what is too long is not gathered, and what comes byte by byte is not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from lanai.api import bodies
from lanai.api.bodies import SMALL_BYTES, decoded, streamed
from lanai.model.errors import UserError


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """A body."""

    now: bool = False


def request(pieces: Iterable[bytes], *, pause_s: float = 0.0, headers: Iterable[tuple[bytes, bytes]] = ()) -> Request:
    """A request whose body comes in these pieces."""
    left = iter(pieces)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause_s)
        piece = next(left, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return Request({"type": "http", "method": "POST", "headers": list(headers)}, receive)


def test_a_body_is_decoded_and_none_is_an_empty_object() -> None:
    assert asyncio.run(decoded(request([b'{"no', b'w": true}']), Wish)) == Wish(now=True)
    assert asyncio.run(decoded(request([]), Wish)) == Wish()


@pytest.mark.parametrize(
    ("pieces", "headers", "code"),
    [
        ([b"["], [], "bad_body"),
        ([b"[" * 60_000], [], "bad_body"),
        ([b'{"user": "root"}'], [], "bad_body"),
        ([b" " * SMALL_BYTES, b" "], [], "body_too_long"),
        ([], [(b"content-length", b"1073741824")], "body_too_long"),
        ([], [(b"content-length", b"9" * 20)], "body_too_long"),
    ],
)
def test_bodies_that_are_refused(pieces: list[bytes], headers: list[tuple[bytes, bytes]], code: str) -> None:
    with pytest.raises(UserError) as refused:
        asyncio.run(decoded(request(pieces, headers=headers), Wish))
    assert refused.value.code == code


async def gathered(pieces: AsyncIterator[bytes]) -> int:
    """How many bytes there are."""
    return sum([len(piece) async for piece in pieces])


def test_a_body_byte_by_byte_is_not_waited_for() -> None:
    with pytest.raises(UserError) as refused:
        asyncio.run(gathered(streamed(request([b"x"] * 1000, pause_s=0.01), within_s=0.1)))
    assert refused.value.code == "body_too_slow"


def test_a_body_that_brings_enough_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LEAST_BYTES_PER_S", 1000)
    body = request([b"x" * 1000] * 20, pause_s=0.01)
    assert asyncio.run(gathered(streamed(body, within_s=0.05))) == 20_000


def test_only_the_clients_time_counts() -> None:
    async def slowly() -> int:
        count = 0
        async for piece in streamed(request([b"x"] * 5), within_s=0.05):
            await asyncio.sleep(0.02)
            count += len(piece)
        return count

    assert asyncio.run(slowly()) == 5
