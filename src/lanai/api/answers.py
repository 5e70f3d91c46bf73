"""How values look in answers: JSON that may carry any bytes, times as RFC 3339, lengths of time in seconds."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec
from starlette.responses import Response

from lanai.model.errors import InternalError, LanaiError

VERSION: Final = 1
"""Of the answers; they only ever gain fields."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_log = logging.getLogger("lanai.api")


def rfc3339(at_us: int) -> str | None:
    """A wall time in microseconds since 1970 as text in UTC; None for 0, which means never.

    What a node says may be no time at all: what no calendar has stands as the last moment that has a name.
    """
    if not at_us:
        return None
    at_s, rest_us = divmod(min(max(at_us, 0), _LAST_US), 1_000_000)
    return f"{_second(at_s)}.{rest_us:06d}Z"


# Jobs of one page end a few seconds apart, and were submitted all at once.
@lru_cache(maxsize=1024)
def _second(at_s: int) -> str:
    return (_EPOCH + timedelta(seconds=at_s)).isoformat().removesuffix("+00:00")


def seconds(length_us: int) -> float:
    """A length of time in seconds."""
    return length_us / 1_000_000


def text(raw: bytes) -> str:
    """Bytes as text; what is no UTF-8 stands as lone surrogates, and comes back as the same bytes."""
    return raw.decode("utf-8", "surrogateescape")


def encoded(value: object) -> bytes:
    """The JSON of a value."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # lone surrogates, which only the slower encoder can write
        return json.dumps(msgspec.to_builtins(value)).encode()


def encoded_lines(values: Iterable[object]) -> bytes:
    """The JSON of each value on a line of its own."""
    return b"".join(encoded(value) + b"\n" for value in values)


def answer(fields: Mapping[str, Any] | msgspec.Struct, status: int = 200) -> Response:
    """A JSON object as an answer."""
    value = fields if isinstance(fields, msgspec.Struct) else {"version": VERSION, **fields}
    return written(encoded(value), status)


def written(body: bytes, status: int = 200) -> Response:
    """An answer whose JSON was written already."""
    return Response(body, status_code=status, media_type="application/json")


def refusal(error: Exception) -> Response:
    """An error as an answer. What is not one of ours is our bug: it is logged whole, and said to be one."""
    if not isinstance(error, LanaiError):
        _log.error("a request failed by a mistake of ours", exc_info=error)
        error = InternalError(
            f"the API failed: {type(error).__name__}: {error}", hint="the report is in the hub's log"
        )
    body = error.body()
    return Response(encoded({"error": body}), status_code=body.http_status, media_type="application/json")
