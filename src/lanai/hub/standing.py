"""Standing reservations: what their rules come to, worked out for 14 days ahead and renewed as time passes.

The core knows no calendar. Here a rule becomes moments: the hours of a rule are by the clock on the wall of its time
zone, so that 08:00 stays 08:00 when summer time begins. An hour that the clock leaves out is as late as the one after.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from lanai.core.events import ReservationRenewed
from lanai.core.hub import HubCore
from lanai.model.errors import UserError
from lanai.model.reservation import MINUTES_OF_DAY, Period, Rule

AHEAD: Final = timedelta(days=14)
RENEWED_S: Final = 600.0
"""So often rules are looked at: what is planned reaches so much further each time at the least."""
_DAY: Final = timedelta(days=1)


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name. Raises UserError."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # that there is none is a kind of KeyError
        hint = "--timezone Europe/Berlin, or UTC"
        raise UserError(f"there is no time zone {name[:80]!r}", code="bad_timezone", hint=hint) from None


def periods_of(rule: Rule, now_us: int) -> tuple[Period, ...]:
    """The periods of a rule that are not over and begin within the next 14 days. Raises UserError."""
    zone = zone_of(rule.timezone)
    today = datetime.fromtimestamp(now_us / 1e6, tz=UTC).astimezone(zone).date()
    found: list[Period] = []
    for begin_us, end_us in _of_days(rule, zone, today - _DAY, today + AHEAD):
        first_us = max(begin_us, found[-1].end_us if found else 0)
        if now_us < end_us and first_us < end_us and not 0 < rule.until_us <= begin_us:
            found.append(Period(first_us, end_us))
    return tuple(found)


def renewals(core: HubCore, now_us: int) -> list[ReservationRenewed]:
    """What the rules of all standing reservations come to by now, where that is not what the core knows."""
    found: list[ReservationRenewed] = []
    for live in core.world.reservations.values():
        rule = live.made.rule
        if rule is None:
            continue
        try:
            periods = periods_of(rule, now_us)
        except UserError:
            continue  # the system has forgotten the time zone: what was planned stays
        if periods != live.made.periods:
            found.append(ReservationRenewed(live.made.name, rule, periods))
    return found


def _of_days(rule: Rule, zone: ZoneInfo, first: date, last: date) -> Iterator[tuple[int, int]]:
    day = first
    while day <= last:
        if day.weekday() in rule.on:
            ends_on = day if rule.from_minute < rule.to_minute else day + _DAY
            yield _moment(day, rule.from_minute, zone), _moment(ends_on, rule.to_minute, zone)
        day += _DAY


def _moment(day: date, minute: int, zone: ZoneInfo) -> int:
    if minute == MINUTES_OF_DAY:
        day, minute = day + _DAY, 0
    at = datetime.combine(day, time(minute // 60, minute % 60), tzinfo=zone)
    return round(at.timestamp()) * 1_000_000
