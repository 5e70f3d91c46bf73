"""Moments as people write them, by the clock on the wall."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from lanai.model.moments import format_moment, parse_moment
from lanai.model.units import UnitError

NOW_US = round(datetime(2026, 11, 27, 20, 0, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture(autouse=True)
def _hawaii(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ten hours behind: it is 10:00 there."""
    monkeypatch.setenv("TZ", "HST10")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-12-01T08:00", "2026-12-01 18:00:00 UTC"),
        ("2026-12-01 08:00:30", "2026-12-01 18:00:30 UTC"),
        ("2026-12-01T08:00Z", "2026-12-01 08:00:00 UTC"),
        ("2026-12-01T08:00+01:00", "2026-12-01 07:00:00 UTC"),
        ("2026-12-01", "2026-12-01 10:00:00 UTC"),
        ("10:30", "2026-11-27 20:30:00 UTC"),
        ("9:59", "2026-11-28 19:59:00 UTC"),
        ("10:00", "2026-11-28 20:00:00 UTC"),
        ("+2h", "2026-11-27 22:00:00 UTC"),
        (" +90 ", "2026-11-27 20:01:30 UTC"),
        ("now", "2026-11-27 20:00:00 UTC"),
    ],
)
def test_moments(text: str, shown: str) -> None:
    assert format_moment(parse_moment(text, NOW_US)) == shown


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "2026-13-01", "+", "+x", "-2h", "2026", "20261201", "1960-01-01"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(UnitError, match="accepted is a moment such as"):
        parse_moment(text, NOW_US)
