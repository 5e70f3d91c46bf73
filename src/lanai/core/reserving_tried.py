"""What a reservation would do if it were made: a dry run on the core's own timelines, which changes nothing.

The heads of the lines that wait are given the earliest times there are, one after the other in the order of the pass,
once without the reservation and once with it; what differs is the delay. Attempts that are expected to run into it are
named one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from heapq import nsmallest
from itertools import islice
from typing import Final

import msgspec

from lanai.core.asking import pass_order
from lanai.core.laying import lay_on
from lanai.core.long_work import at_once
from lanai.core.nodes import Grant, Node
from lanai.core.reservations import set_clock
from lanai.core.reserved import Live
from lanai.core.reserving import amount_on, own_times, placed
from lanai.core.schedule import access
from lanai.core.schedule.estimate import end_of, estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.promises import promise
from lanai.core.world import World
from lanai.model.ids import BatchId, Index
from lanai.model.reservation import Reservation

LOOKED_AT: Final = 50
"""So many lines are looked at, the first ones by the order of the pass."""
NAMED: Final = 200
"""So many attempts are named that would run into it."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that is expected to be on a node when that is to be another's. `until_us`: wall time of its end."""

    batch: BatchId
    index: Index
    node: str
    until_us: int


class Delayed(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a line that would start later: at which wall times, without it and with it; 0: nothing says when."""

    batch: BatchId
    index: int
    user: str
    before_us: int
    after_us: int


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What a reservation would come to.

    Attributes:
        made: as it would be, nodes chosen.
        nodes: their names.
        running: the first of the attempts that are expected to run into it; `more` is how many others do.
        delayed: heads of lines that would start later, of the first `looked_at` lines that wait.
    """

    made: Reservation
    nodes: list[str]
    running: list[Running]
    more: int
    delayed: list[Delayed]
    looked_at: int


def rehearse(world: World, wish: Reservation, wall_us: int, *, is_change: bool) -> Rehearsal:
    """Try it at this wall time. Raises what making it would raise."""
    set_clock(world, wall_us)
    before = world.reservations.get(wish.name)
    made = at_once(placed(world, wish, before if is_change else None, is_change=is_change))
    lines = _first_lines(world)
    with _restored(world):
        without = _starts(world, lines)
    live = Live(made)
    with _restored(world):
        if before is not None:
            for node in before.nodes.values():
                node.lift(before)
        world.reservations = {**world.reservations, made.name: live}
        for node in world.nodes.values():
            lay_on(world, live, node)
        running = list(_running_into(world, live))
        beside = _starts(world, lines)
    return Rehearsal(
        made=made,
        nodes=sorted(node.name for node in live.nodes.values()),
        running=running[:NAMED],
        more=max(0, len(running) - NAMED),
        delayed=[each for line in lines if (each := _delay(world, line, without, beside)) is not None],
        looked_at=len(lines),
    )


def _first_lines(world: World) -> list[Line]:
    waiting = (
        line for batch in world.batches.values() if batch.is_open for line in batch.lines.values() if line.waiting
    )
    return nsmallest(LOOKED_AT, waiting, key=pass_order(world))


@contextmanager
def _restored(world: World) -> Iterator[None]:
    """Afterwards all steps, promises and reservations are what they were."""
    steps = [(node, node.steps, node.until_us) for node in world.nodes.values()]
    promises, reservations = world.promises, world.reservations
    effects, records = world.effects, world.records
    world.effects, world.records = [], []
    for node in world.nodes.values():
        node.steps = list(node.steps)
    world.promises = {}
    for kept in promises.values():
        world.lift(kept)
    try:
        yield
    finally:
        world.promises, world.reservations = promises, reservations
        world.effects, world.records = effects, records
        for node, kept_steps, until_us in steps:
            node.steps, node.until_us = kept_steps, until_us


def _starts(world: World, lines: list[Line]) -> dict[Line, int]:
    """When the head of each line starts if all estimates hold, by the core's own clock; those of which that is known.

    Each is kept what it needs before the next one is looked at.
    """
    found: dict[Line, int] = {}
    for line in lines:
        batch = world.batches[line.batch]
        start = promise(world, batch, line, estimate_us(world, line), None)
        if start is not None:
            found[line] = start.at_us
    return found


def _delay(world: World, line: Line, without: dict[Line, int], beside: dict[Line, int]) -> Delayed | None:
    before_us, after_us = without.get(line), beside.get(line)
    if before_us is None or (after_us is not None and after_us <= before_us):
        return None
    return Delayed(
        batch=line.batch,
        index=line.waiting.head(),
        user=world.batches[line.batch].user,
        before_us=_wall(world, before_us),
        after_us=0 if after_us is None else _wall(world, after_us),
    )


def _running_into(world: World, live: Live) -> Iterator[Running]:
    times = own_times(world, live.made.periods)
    if not times:
        return
    begin_us = max(times[0][0], world.now_us)
    for node in sorted(live.nodes.values(), key=lambda node: node.name):
        late = [each for each in _attempts(world, node) if each[1] > begin_us]
        others = [each for each in late if not access.is_admitted(world, live, each[0].line)]
        taken = sum(grant.line.vector for grant, _, _ in others)
        if (node.total - amount_on(world, live.made, node) - taken) & world.layout.guard:
            for grant, end_us, index in others:
                yield Running(batch=grant.batch.id, index=index, node=node.name, until_us=_wall(world, end_us))


def _attempts(world: World, node: Node) -> Iterator[tuple[Grant, int, Index]]:
    """(grant, expected end, index) of each attempt that takes room on the node."""
    left = dict(node.active)
    for grant in (*node.grants.values(), *node.claims.values()):
        end_us = end_of(grant.granted_at_us, estimate_us(world, grant.line), world.now_us)
        here = len(grant.members)
        if grant.id in node.grants:
            here = min(here, left.get(grant.line, 0))
            left[grant.line] = left.get(grant.line, 0) - here
        for index in islice(sorted(grant.members), here):
            yield grant, end_us, index


def _wall(world: World, at_us: int) -> int:
    return at_us - world.now_us + world.wall_us
