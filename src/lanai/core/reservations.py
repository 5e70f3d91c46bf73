"""Reservations made by people: made, changed, renewed, begun, over, dropped.

All of this is long work, done one thing after the other: who wishes something of one that is being made waits until it
is. What comes of a wish is kept, put in force (`laying`) and answered in one call, the last of its work. All of them
are kept as one value: they are few, and change seldom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from lanai.core import explain, laying
from lanai.core.batches import Batch
from lanai.core.effects import Answer
from lanai.core.events import ReservationDropped, ReservationRenewed, ReservationWished
from lanai.core.long_work import Part, Work, at_once
from lanai.core.reserved import Live
from lanai.core.reserving import own_times, placed
from lanai.core.schedule import access
from lanai.core.world import SECOND_US, World
from lanai.model.batch import BatchSettings
from lanai.model.errors import LanaiError, NotAllowed, NothingThere, TooMany
from lanai.model.ids import BatchId
from lanai.model.moments import format_moment
from lanai.model.records import SaveMeta
from lanai.model.reservation import Period, Reservation

META: Final = "reservations"
SKEW_US: Final = SECOND_US
"""By so much the clock on the wall may be set before steps are laid anew."""
BYTES_MOST: Final = 2 << 20
"""The longest that all reservations together may be, as they are kept: what one answer can tell."""


def recover(world: World, meta: Mapping[str, str]) -> None:
    """Take over what the store holds. To be called once its nodes are there. Takes as long as it takes."""
    if kept := meta.get(META):
        for made in msgspec.json.decode(kept, type=list[Reservation]):
            live = world.reservations[made.name] = Live(made)
            # What has begun by now was told then, or is not worth telling any more.
            live.began_us = next((each.begin_us for each in made.periods if each.begin_us <= world.wall_us), 0)
        at_once(laying.relay_all(world))
        for live in list(world.reservations.values()):
            _look_at(world, live)
        _settled(world)
        world.work.go_on()


# -- wishes


def on_wished(world: World, event: ReservationWished) -> Work:
    """One more reservation, or one that is to be another."""
    set_clock(world, event.wall_us)
    before = world.reservations.get(event.reservation.name) if event.is_change else None
    try:
        live = yield from _laid(world, event.reservation, before, is_change=event.is_change)
    except LanaiError as error:
        world.do(Answer(event.request, error=error.body()))
        return
    made = live.made
    laying.put_in_force(world, live)
    _settled(world)
    by = f" by {event.caller.user}" if event.caller is not None else ""
    what = f"{len(live.nodes)} node{'s' * (len(live.nodes) != 1)}, {_when(made.periods)}{by}"
    world.tell("reservation_changed" if event.is_change else "reservation_made", made.name, what)
    names = sorted(node.name for node in live.nodes.values())
    world.do(Answer(event.request, {"name": made.name, "nodes": names, "count": len(names)}))


def _laid(world: World, wish: Reservation, before: Live | None, *, is_change: bool) -> Part[Live]:
    """The reservation, laid and not in force yet. Raises LanaiError; nothing is left of it then."""
    while True:
        made = yield from placed(world, wish, before, is_change=is_change)
        _check_size(world, made)
        live = Live(made, is_in_force=False)
        yield from laying.lay(world, live)
        yield len(live.nodes) // 2  # what comes then is done in one call
        if not made.count or (len(live.nodes) == made.count and not live.short):
            return live
        # One of those that were chosen has gone meanwhile, or is another's.
        laying.end(world, live)


def _check_size(world: World, made: Reservation) -> None:
    """Raises TooMany where all reservations together were too long to be told."""
    all_of_them = [live.made for live in world.reservations.values() if live.made.name != made.name]
    if len(msgspec.json.encode([*all_of_them, made])) > BYTES_MOST:
        hint = "name fewer users and nodes, or lanai reserve drop what is needed no more"
        raise TooMany("the lists of all reservations are too long together", code="too_many_reservations", hint=hint)


def on_dropped(world: World, event: ReservationDropped) -> Work:
    """A reservation is no more."""
    yield 1
    live = world.reservations.get(event.name)
    if live is None:
        world.do(Answer(event.request, error=nothing_of_name(event.name).body()))
        return
    by = f"dropped by {event.caller.user}" if event.caller is not None else "dropped"
    _drop(world, live, by)
    _settled(world)
    world.do(Answer(event.request, {"name": event.name}))


def on_renewed(world: World, event: ReservationRenewed) -> Work:
    """The hub has worked out the periods of a standing reservation for some days more. Old news is left alone."""
    live = world.reservations.get(event.name)
    if live is None or live.made.rule != event.rule or live.made.periods == event.periods:
        return
    renewed = Live(msgspec.structs.replace(live.made, periods=event.periods), is_in_force=False)
    yield from laying.lay(world, renewed)
    laying.put_in_force(world, renewed)
    _settled(world)


def nothing_of_name(name: str) -> NothingThere:
    """There is no reservation of this name."""
    what = f"there is no reservation {name}"
    return NothingThere(what, code="no_such_reservation", hint="lanai reservations", facts={"reservation": name})


def refusal(world: World, user: str, settings: BatchSettings, batch: BatchId | None = None) -> LanaiError | None:
    """Why the user may not have a batch in the reservation that it names; None: he may, or it names none.

    `batch`: its number, where it has one already.
    """
    if not settings.reservation:
        return None
    live = world.reservations.get(settings.reservation)
    if live is None:
        return nothing_of_name(settings.reservation)
    lists = live.made.access
    is_named = batch in lists.batches or access.is_named(world, lists, live.made.owner, user, settings)
    if is_named and live.made.kind != "maintenance":
        return None
    open_to = "nobody: it is for maintenance" if live.made.kind == "maintenance" else access_text(live.made)
    return NotAllowed(
        f"{user} may not use the reservation {live.made.name}",
        code="not_in_reservation",
        hint=f"it is open to {open_to}",
        facts={"reservation": live.made.name, "user": user},
    )


def access_text(made: Reservation) -> str:
    """Who may use it, in words."""
    lists = made.access
    parts = [
        f"{kind} {', '.join(map(str, names))}"
        for kind, names in (
            ("users", lists.users),
            ("groups", lists.groups),
            ("accounts", lists.accounts),
            ("services", lists.services),
            ("batches", lists.batches),
        )
        if names
    ]
    if lists.max_time_us:
        parts.append(f"jobs of at most {lists.max_time_us // SECOND_US} s")
    return "; ".join(parts) or made.owner


# -- time


def look(world: World) -> None:
    """Time has passed: periods begin, and are over."""
    is_due = 0 < world.reservations_due_us <= world.now_us
    if (is_due or _is_clock_set(world)) and not world.reservations_are_looked_at:
        world.reservations_are_looked_at = True
        world.work.begin(_look(world))


def next_due_us(world: World) -> int | None:
    """When `look` is due, by the core's own clock; None: never, or it waits among other work."""
    return None if world.reservations_are_looked_at else world.reservations_due_us or None


def _is_clock_set(world: World) -> bool:
    skew_us = world.wall_seen_us - world.wall_us
    return bool(world.reservations) and abs(skew_us - world.reservations_skew_us) > SKEW_US


def _look(world: World) -> Work:
    while _is_clock_set(world):
        yield from laying.relay_all(world)
    world.reservations_are_looked_at = False
    for live in list(world.reservations.values()):
        _look_at(world, live)
    _settled(world)


def _look_at(world: World, live: Live) -> None:
    made, wall_us = live.made, _wall_us(world)
    left = tuple(period for period in made.periods if period.end_us > wall_us)
    if live.began_us and all(period.begin_us != live.began_us for period in left):
        live.began_us = 0
        world.tell("reservation_ended", made.name, "its time is over")
    if not left and (made.rule is None or 0 < made.rule.until_us <= wall_us):
        _drop(world, live, "over")
        return
    if left != made.periods:
        live.leave(msgspec.structs.replace(made, periods=left))
        world.work.add(laying.clean(world, list(live.nodes.values())))
    if left and left[0].begin_us <= wall_us and live.began_us != left[0].begin_us:
        live.began_us = left[0].begin_us
        world.tell("reservation_begun", made.name, f"until {format_moment(left[0].end_us)}")
        world.work.add(laying.recall(world, live))


def note(world: World) -> frozenset[BatchId]:
    """Batches none of whose jobs may start, because what they are to run in is not there now; the reasons are set.

    Notes as well which reservations are waited for by jobs that name them. For each pass.
    """
    for live in world.reservations.values():
        live.is_wanted = False
    found = set()
    for batch in world.batches.values():
        if batch.settings.reservation and batch.waiting:
            named = world.reservations.get(batch.settings.reservation)
            if named is not None:
                named.is_wanted = True
            if access.is_out(world, batch):
                found.add(batch.id)
                text = _why_out(world, batch)
                for line in batch.lines.values():
                    if line.waiting:
                        explain.set_reason(world, line, "reservation", text)
    return frozenset(found)


def _why_out(world: World, batch: Batch) -> str:
    name = batch.settings.reservation
    live = world.reservations.get(name)
    if live is None:
        return f"it runs in the reservation {name} only, which is over or was dropped"
    coming = [period.begin_us for period in live.made.periods if period.end_us > _wall_us(world)]
    when = f"which begins at {format_moment(coming[0])}" if coming else "of which no time is known"
    return f"it runs in the reservation {name} only, {when}"


# -- within


def _drop(world: World, live: Live, why: str) -> None:
    del world.reservations[live.made.name]
    laying.end(world, live)
    world.tell("reservation_dropped", live.made.name, why)


def _settled(world: World) -> None:
    """Something about reservations has changed: it is kept, and the next pass goes by it."""
    made = [live.made for live in world.reservations.values()]
    world.keep(SaveMeta(META, msgspec.json.encode(made).decode() if made else ""))
    _set_due(world)
    world.needs_pass = True


def _set_due(world: World) -> None:
    wall_us = _wall_us(world)
    due_us = 0
    for live in world.reservations.values():
        periods = live.made.periods
        if periods and periods[0].begin_us <= wall_us and live.began_us != periods[0].begin_us:
            # One that has begun and has not been told so is looked at as soon as time passes.
            world.reservations_due_us = world.now_us
            return
        at_us = next((at_us for period in own_times(world, periods) for at_us in period if at_us > world.now_us), 0)
        if at_us and (not due_us or at_us < due_us):
            due_us = at_us
    world.reservations_due_us = due_us


def set_clock(world: World, wall_us: int) -> None:
    """A wish says how late it is. Without reservations nothing has looked at that for a while."""
    if wall_us > world.wall_us:
        world.wall_us, world.wall_seen_us = wall_us, world.now_us
    if not world.reservations and world.coming is None:
        world.reservations_skew_us = world.wall_seen_us - world.wall_us  # nothing lies by the one of before


def _wall_us(world: World) -> int:
    """What the clock on the wall shows now, as far as steps go: that may be off by `SKEW_US`."""
    return world.now_us - world.reservations_skew_us


def _when(periods: tuple[Period, ...]) -> str:
    if not periods:
        return "at no time yet"
    first = f"from {format_moment(periods[0].begin_us)} to {format_moment(periods[0].end_us)}"
    return first if len(periods) == 1 else f"{first} and {len(periods) - 1} times more"
