"""Moments, as people write them: a date, a time of day, or so long from now."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from lanai.model.units import UnitError, parse_duration

ACCEPTED_MOMENT = "a moment such as 2026-12-01T08:00, 2026-12-01, 08:00 (the next), +2h30m or now"

_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)


def parse_moment(text: str, now_us: int) -> int:
    """Read a moment, in microseconds since 1970.

    `2026-12-01T08:00` (seconds and an offset such as `Z` or `+01:00` may follow; a blank may stand for the T),
    `2026-12-01` (its beginning), `08:00` (the next time that it is so late), `+2h` (so long after now), `now`. Without
    an offset it is meant by the clock on the wall here.

    Args:
        now_us: what time it is.

    Raises:
        UnitError: it is none of these.
    """
    stripped = text.strip()
    try:
        if stripped == "now":
            return now_us
        if stripped.startswith("+"):
            return now_us + round(parse_duration(stripped[1:]) * 1_000_000)
        # Without its offset, which may be another one tomorrow.
        now = datetime.fromtimestamp(now_us / 1_000_000, tz=UTC).astimezone().replace(tzinfo=None)
        if match := _TIME_OF_DAY.fullmatch(stripped):
            at = now.replace(hour=int(match[1]), minute=int(match[2]), second=int(match[3] or 0), microsecond=0)
            return _microseconds(at if at > now else at + timedelta(days=1))
        if not stripped[:4].isdecimal() or "-" not in stripped:
            raise ValueError(stripped)
        return _microseconds(datetime.fromisoformat(stripped))
    except (ValueError, OverflowError, OSError):
        raise UnitError(text, ACCEPTED_MOMENT) from None


def _microseconds(moment: datetime) -> int:
    at_us = round(moment.timestamp() * 1_000_000)
    if at_us <= 0:
        raise ValueError(at_us)
    return at_us


def format_moment(at_us: int) -> str:
    """Write a moment for people in UTC, to the second: `2026-12-01 08:00:00 UTC`."""
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us):%Y-%m-%d %H:%M:%S} UTC"
