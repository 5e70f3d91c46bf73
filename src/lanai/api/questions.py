"""What a request asks in its query, read and checked."""

from __future__ import annotations

from datetime import datetime

from starlette.requests import Request

from lanai.model.errors import UserError
from lanai.model.ranges import MAX_INDEX


def listed(request: Request, name: str) -> tuple[str, ...]:
    """Words with commas between them."""
    return tuple(part for part in request.query_params.get(name, "").split(",") if part)


def flag(request: Request, name: str) -> bool:
    """Whether it is given, and not 0."""
    return request.query_params.get(name, "0") not in ("0", "")


def number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number within bounds. Raises UserError."""
    given = request.query_params.get(name)
    if given is None:
        return default
    found = whole(name, given)
    if not least <= found <= most:
        raise UserError(f"found {name}={found}, accepted is {least} to {most}", code="bad_query")
    return found


def whole(name: str, text: str) -> int:
    """A whole number of a text. Raises UserError."""
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > MAX_INDEX:
        raise UserError(f"found {name}={text}, accepted is a whole number", code="bad_query")
    return int(text)


def decimal(request: Request, name: str, most: float, default: float | None = None) -> float:
    """A number from 0 to `most`, `most` without a `default` where it is not given. Raises UserError."""
    given = request.query_params.get(name, str(most if default is None else default))
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise UserError(f"found {name}={given}, accepted is 0 to {most:g}", code="bad_query")
    return value


def since_us(request: Request) -> int:
    """The time in `since`, in microseconds since 1970; 0 where there is none. Raises UserError."""
    given = request.query_params.get("since", "")
    if not given:
        return 0
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at.year < 1970:
        raise UserError(f"found since={given}, accepted is a time such as 2026-11-21T20:02:03Z", code="bad_query")
    return round(at.timestamp() * 1e6)
