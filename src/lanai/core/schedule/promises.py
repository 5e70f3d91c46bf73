"""Promises: a line whose head finds no room is told where and when it will have some, and others keep out of the way.

EASY backfill over nodes (Lifka 1995): of the lines that find no room the first `depth` are promised the earliest time
at which enough nodes are free for as long as the job is expected to run, if every attempt there ends as estimated. Each
node of a promise keeps what it needs from that time on: a *step*. Whoever is behind starts only where that stays so.

All promises are made anew in each pass, so many in one call as `Effort` allows. Where one is due and cannot be kept,
because an attempt runs longer than expected, it is held on to for `HELD_US`: else short jobs whose run times are only
guessed could slip in front of it for ever.
"""

from __future__ import annotations

from collections.abc import Container
from functools import partial
from heapq import heappush, heapreplace
from typing import Final

from lanai.core.batches import Batch
from lanai.core.nodes import NEVER_US, Node, Step
from lanai.core.schedule import access, future
from lanai.core.schedule.agenda import Effort, Exhausted
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import able_cells, has_rules, is_plain, may_go, need
from lanai.core.world import Promise, World

HELD_US: Final = 60_000_000
LATE_US: Final = 200_000
"""A pass comes no later than this after what is due, unless the hub is very busy."""


def promise(world: World, batch: Batch, line: Line, length_us: int, before: Promise | None) -> Promise | None:
    """Promise the head of the line the earliest time there is, and lay the steps; None: there is no such time.

    Args:
        world: its clock says what is now.
        batch: the line's.
        line: its head finds no room now.
        length_us: how long its job is expected to run.
        before: what the line was promised by the last pass; its steps are lifted already.

    Raises:
        Exhausted: to find that out takes more than this call may do. Nothing has been laid.
    """
    if world.effort.left <= 0:
        raise Exhausted
    found = _earliest(world, batch, line, length_us)
    world.renewed.add(line)
    is_later = before is not None and (found is None or found.at_us > before.at_us)
    if before is not None and is_later and _still_holds(world, batch, before, length_us):
        found = before
    if found is None:
        return None
    if before is not None:
        found = found._replace(since_us=before.since_us)
    _lay(world, batch, found, length_us)
    return found


def _lay(world: World, batch: Batch, promised: Promise, length_us: int) -> None:
    line, begin_us = promised.line, max(promised.at_us, world.now_us)
    for node in promised.nodes:
        # Users who do not share nodes keep them whole: one that is empty just now may be somebody else's by then.
        vector = node.total if world.policy.sharing == "single_user" else need(world, batch, line, node)
        node.lay(Step(begin_us, begin_us + length_us, vector, line, _nobody))
    world.promises[line] = promised


def keep(world: World, batch: Batch, before: Promise, length_us: int) -> None:
    """Let the line have what the last pass promised it until one comes to it."""
    _lay(world, batch, before, length_us)


def look_ahead(world: World) -> None:
    """Look anew at nodes that have changed, for those who are promised something by the next passes."""
    ends_of = partial(future.ends_of, world)
    for cell in world.cells.values():
        if world.effort.left <= 0:
            return
        cell.agenda.update(world.layout.guard, world.now_us, world.effort, ends_of)


def lift_all(world: World, *, but: Container[Line] = ()) -> dict[Line, Promise]:
    """Take back all promises, but for those of these lines; returns what there were."""
    before = dict(world.promises)
    for line in before:
        if line not in but:
            world.lift(world.promises.pop(line))
    return before


def renew(world: World) -> None:
    """Go on with making all promises that outlast the pass anew, because one of them cannot be kept any more.

    Those that were promised something first come first. So nobody who came to wait later gets in front of one whose
    nodes are not free when they were expected to be: of such there might be one more each time. That one may have to
    wait longer than he was told, as all do whose nodes are busy for longer.

    Raises:
        Exhausted: that takes more than this call may do. Those that were not come to have no promise.
    """
    done = world.renewed | world.giving.keys()
    lasting = [promise for line, promise in world.promises.items() if line not in done]
    for each in lasting:
        world.lift(world.promises.pop(each.line))
    for before in sorted(lasting, key=_since):
        line = before.line
        promise(world, world.batches[line.batch], line, estimate_us(world, line), before)
    world.is_renewing = False
    world.bettered |= world.renewed
    world.renewed.clear()


def stands(world: World, batch: Batch, promised: Promise, length_us: int) -> bool:
    """Whether the nodes will be free for the line when it was promised them, or are now that this is past."""
    line, begin_us = promised.line, max(promised.at_us, world.now_us)
    return all(
        node.is_open() and future.fits_at(world, node, line, need(world, batch, line, node), length_us, begin_us)
        for node in promised.nodes
    )


def _since(promised: Promise) -> tuple[int, int]:
    return promised.since_us, promised.at_us


def _nobody(line: Line) -> bool:
    return False


def _still_holds(world: World, batch: Batch, before: Promise, length_us: int) -> bool:
    """Whether a promise that is due and cannot be kept is held on to: its nodes are open to it, and nobody else's."""
    line = before.line
    if access.is_bound(world, line) and not _is_within(world, batch, before, length_us):
        return False
    return before.at_us <= world.now_us < before.at_us + HELD_US and all(
        node.is_open()
        and may_go(batch, line, node)
        and not any(isinstance(step.owner, Line) for step in node.steps)
        and not access.is_reserved(world, node, line, need(world, batch, line, node), world.now_us, length_us)
        for node in before.nodes
    )


def _is_within(world: World, batch: Batch, before: Promise, length_us: int) -> bool:
    """Whether a bound job that begins in a moment, when what is there may be gone, is within its reservation."""
    line, soon_us = before.line, world.now_us + 1
    return all(
        access.is_within(world, node, line, need(world, batch, line, node), soon_us, length_us)
        for node in before.nodes
    )


def _earliest(world: World, batch: Batch, line: Line, length_us: int) -> Promise | None:
    floors: dict[int, int] = {}
    at_us = world.now_us
    while True:
        soonest = _soonest(world, batch, line, length_us, floors)
        if len(soonest) < line.shape.nodes or soonest[-1][0] >= NEVER_US:
            return None
        at_us = max(at_us, soonest[-1][0])
        nodes = [node for _, _, node in soonest]
        late = _late(world, batch, line, nodes, at_us, length_us)
        if not late:
            return Promise(line, at_us, tuple(sorted(nodes, key=_number)), world.now_us)
        floors |= late


def _soonest(
    world: World, batch: Batch, line: Line, length_us: int, floors: dict[int, int]
) -> list[tuple[int, int, Node]]:
    """(first time, number, node) of as many nodes as the line asks for, those that have room first.

    `floors`: the times that nodes are looked at from, by their numbers; others are from now on.
    """
    guard, vector = world.layout.guard, line.vector
    ends_of = partial(future.ends_of, world)
    asked = _Asked(world, batch, line, length_us, floors)
    for cell in able_cells(world, line):
        for node in cell.having_room(vector, guard):
            asked.look_at(node)
        for least_us, number, entry in cell.agenda.in_order(vector, guard, world.now_us, world.effort, ends_of):
            asked.spent += 1
            if least_us >= asked.last_us and (least_us, number) > (asked.last_us, asked.last_number):
                break
            if (entry.node.free - vector) & guard:  # else it has been looked at
                room_us = entry.room_us(vector, guard)
                if room_us <= asked.last_us:
                    asked.look_at(entry.node, room_us)
    world.effort.spend(asked.spent)  # now that all is known that has changed: a search is begun and ended in one call
    return asked.soonest()


class _Asked:
    """The nodes that have room first for the head of a line, of those looked at: as many as it asks for."""

    def __init__(self, world: World, batch: Batch, line: Line, length_us: int, floors: dict[int, int]) -> None:
        self._about = world, batch, line, length_us
        self._floors = floors
        self._is_plain = not has_rules(world) and not access.is_bound(world, line)
        self._is_barred = not is_plain(batch, line) or line.shape.nodes > 1
        self._best: list[tuple[int, int, Node]] = []  # a heap whose first is the last of them
        self.last_us = NEVER_US
        """When the last of them has room, and its number: no node that comes later is any good."""
        self.last_number = 0
        self.spent = 0
        """What this has taken, as `Effort` counts it."""

    def look_at(self, node: Node, room_us: int | None = None) -> None:
        """See when the node has room. `room_us`: it has none now, and has then if nothing is kept there."""
        world, batch, line, length_us = self._about
        self.spent += Effort.PER_LOOK
        if self._is_barred and not may_go(batch, line, node):
            return
        at_us = self._floors.get(node.id, world.now_us)
        if room_us is not None and self._is_plain and not node.steps:
            at_us = max(at_us, room_us)
        else:
            vector = need(world, batch, line, node)
            at_us = future.earliest(world, node, line, vector, length_us, at_us, self.last_us)
        entry = -at_us, -node.id, node
        if len(self._best) < line.shape.nodes:
            heappush(self._best, entry)
        elif entry > self._best[0]:
            heapreplace(self._best, entry)
        if len(self._best) == line.shape.nodes:
            self.last_us, self.last_number = -self._best[0][0], -self._best[0][1]

    def soonest(self) -> list[tuple[int, int, Node]]:
        """(first time, number, node) of each, in order."""
        return sorted((-at_us, -number, node) for at_us, number, node in self._best)


def _late(world: World, batch: Batch, line: Line, nodes: list[Node], at_us: int, length_us: int) -> dict[int, int]:
    """The next time of each of these nodes that have no room at `at_us` after all, by their numbers."""
    late: dict[int, int] = {}
    for node in nodes:
        when = future.earliest(world, node, line, need(world, batch, line, node), length_us, at_us)
        if when > at_us:
            late[node.id] = when
    return late


def _number(node: Node) -> int:
    return node.id
