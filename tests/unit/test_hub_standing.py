"""What the rules of standing reservations come to: hours by the clock on the wall, summer time or not."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from core_recorder import Recorder
from lanai.core import events as ev
from lanai.hub.standing import periods_of, renewals
from lanai.model.errors import UserError
from lanai.model.reservation import Period, Reservation, Rule

EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def rule(from_: str, to: str, *, on: tuple[int, ...] = EVERY_DAY, zone: str = "UTC", until_us: int = 0) -> Rule:
    minutes = [int(hour) * 60 + int(minute) for hour, minute in (from_.split(":"), to.split(":"))]
    return Rule(on=on, from_minute=minutes[0], to_minute=minutes[1], timezone=zone, until_us=until_us)


def shown(periods: tuple[Period, ...]) -> list[str]:
    def text(at_us: int) -> str:
        return f"{datetime.fromtimestamp(at_us / 1e6, tz=UTC):%m-%d %H:%M}"

    return [f"{text(period.begin_us)} - {text(period.end_us)}" for period in periods]


def test_every_day_for_two_weeks_from_the_one_that_lasts() -> None:
    periods = shown(periods_of(rule("08:00", "18:00"), at("2026-03-02T12:00")))
    assert (periods[0], periods[1], periods[-1], len(periods)) == (
        "03-02 08:00 - 03-02 18:00", "03-03 08:00 - 03-03 18:00", "03-16 08:00 - 03-16 18:00", 15
    )  # fmt: skip
    assert shown(periods_of(rule("08:00", "18:00"), at("2026-03-02T18:00")))[0] == "03-03 08:00 - 03-03 18:00"


def test_on_some_days_of_the_week() -> None:
    periods = shown(periods_of(rule("08:00", "18:00", on=(0, 3)), at("2026-03-03T00:00")))
    assert [period[:5] for period in periods] == ["03-05", "03-09", "03-12", "03-16"]


def test_a_night_that_began_yesterday_lasts() -> None:
    periods = shown(periods_of(rule("22:00", "06:00"), at("2026-03-02T03:00")))
    assert periods[:2] == ["03-01 22:00 - 03-02 06:00", "03-02 22:00 - 03-03 06:00"]


def test_whole_days_touch() -> None:
    periods = periods_of(rule("00:00", "24:00", zone="Europe/Berlin"), at("2026-03-25T12:00"))
    assert all(one.end_us == other.begin_us for one, other in pairwise(periods))
    same = periods_of(rule("09:00", "09:00"), at("2026-03-25T12:00"))
    assert all(one.end_us == other.begin_us for one, other in pairwise(same))


def test_eight_stays_eight_when_summer_time_begins_and_ends() -> None:
    spring = shown(periods_of(rule("08:00", "18:00", zone="Europe/Berlin"), at("2026-03-28T00:00")))
    assert spring[:2] == ["03-28 07:00 - 03-28 17:00", "03-29 06:00 - 03-29 16:00"]
    autumn = shown(periods_of(rule("08:00", "18:00", zone="Europe/Berlin"), at("2026-10-24T00:00")))
    assert autumn[:2] == ["10-24 06:00 - 10-24 16:00", "10-25 07:00 - 10-25 17:00"]


def test_an_hour_that_the_clock_leaves_out_is_as_late_as_the_one_after() -> None:
    gap = shown(periods_of(rule("02:30", "04:00", zone="Europe/Berlin"), at("2026-03-29T00:00")))
    assert gap[0] == "03-29 01:30 - 03-29 02:00"
    nothing = shown(periods_of(rule("02:30", "03:30", zone="Europe/Berlin"), at("2026-03-29T00:00")))
    assert nothing[0] == "03-30 00:30 - 03-30 01:30"
    twice = shown(periods_of(rule("01:00", "04:00", zone="Europe/Berlin"), at("2026-10-25T00:00")))
    assert twice[0] == "10-24 23:00 - 10-25 03:00", "four hours long"


def test_none_begins_at_its_end_or_later() -> None:
    ends = rule("08:00", "18:00", until_us=at("2026-03-04T08:00"))
    assert len(periods_of(ends, at("2026-03-02T00:00"))) == 2
    assert periods_of(ends, at("2026-03-05T00:00")) == ()


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "", "/etc/localtime", "a\0b", "Europe"])
def test_a_time_zone_that_is_none(zone: str) -> None:
    with pytest.raises(UserError) as raised:
        periods_of(rule("08:00", "18:00", zone=zone), 0)
    assert raised.value.code == "bad_timezone"


def test_the_hub_renews_what_has_moved_on() -> None:
    hub = Recorder()
    hub.feed(ev.TimePassed(hub.now_us))
    hub.join("n")
    daily = rule("00:00", "01:00")
    made = Reservation(name="r", owner="ann", nodes="n", rule=daily, periods=periods_of(daily, hub.now_us))
    hub.feed(ev.ReservationWished(1, made, False, hub.now_us))
    hub.take_all()
    assert renewals(hub.core, hub.now_us) == []
    (renewal,) = renewals(hub.core, hub.now_us + 24 * 3600 * 1_000_000)
    assert renewal.periods[0].begin_us == made.periods[1].begin_us
    assert renewal.periods[-1].begin_us > made.periods[-1].begin_us
