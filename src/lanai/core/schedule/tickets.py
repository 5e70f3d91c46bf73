"""The fast path: an ending attempt is followed at once, whatever the queue's length.

A node with room takes the first ticket of its cell that fits, looking at no more than eight; else the line of the job
that has just ended; else nothing until the pass. A node whose slots are full is also sent a *surplus*, a little more
than fits, so that it never waits for the hub between short jobs: at most 256 jobs and 0.5 s of measured run time, and
none for a line of which no run time is known.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from lanai.core.batches import Batch
from lanai.core.nodes import Node
from lanai.core.schedule.cells import Cell
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.vector import fit_count

LOOKED_AT: Final = 8
SURPLUS_JOBS: Final = 256
SURPLUS_US: Final = 500_000
LONGEST_SURPLUS_US: Final = 60_000_000
GATHERED_US: Final = 60_000
"""A grant that is not urgent may wait for so long until it is committed and sent."""
SELDOM: Final = 8
"""Run times of so many gatherings a slot: then one hardly ever ends within one, and little is lost where it does."""


def refill(world: World, node: Node, own: list[Line]) -> None:
    """Follow up attempts that have just ended on the node; `own` are their lines."""
    if not node.is_open():
        return
    cell = world.cell_of(node)
    lines = _candidates(world, cell, own)
    while (line := _next(world, node, lines)) is not None:
        most = min(_most(world, cell, line), SURPLUS_JOBS)
        count = fit_count(node.free, line.vector, world.layout.guard, most)
        node.occupy(line, count)
        _send(world, cell, node, line, count, is_urgent=True)
        lines = _candidates(world, cell, own)
    _fill_surplus(world, cell, node, own, lines)
    cell.put(node, world.layout.guard)


def surplus_target(slots: int, mean_us: int) -> int:
    """How many jobs of a line alone may wait at a node with `slots` attempts at work."""
    if not mean_us or mean_us > LONGEST_SURPLUS_US:
        return 0
    return min(SURPLUS_JOBS, SURPLUS_US * slots // mean_us)


def is_pressing(surplus: int, slots: int, mean_us: int) -> bool:
    """Whether a slot is likely to be idle before a gathered commit: few jobs wait there, and none runs for long."""
    soon_us = GATHERED_US * slots
    return surplus * mean_us < soon_us and mean_us < SELDOM * soon_us


def _fill_surplus(world: World, cell: Cell, node: Node, own: list[Line], lines: list[Line]) -> None:
    surplus_before = node.surplus_count
    slots = sum(node.active.values())
    for _ in range(LOOKED_AT):
        line = _next_surplus(world, node, lines, slots)
        if line is None:
            return
        target = surplus_target(slots, line.mean_run_us)
        booked_us = 0
        for other, count in node.surplus.items():
            booked_us += count * other.mean_run_us
        room = min(SURPLUS_JOBS - node.surplus_count, (SURPLUS_US * slots - booked_us) // line.mean_run_us)
        if room < 1 or room * 2 < target:
            return
        count = min(room, _most(world, cell, line))
        node.stack(line, count)
        _send(world, cell, node, line, count, is_urgent=is_pressing(surplus_before, slots, line.mean_run_us))
        if count == room:
            return
        lines = _candidates(world, cell, own)


def _next(world: World, node: Node, lines: list[Line]) -> Line | None:
    free, guard = node.free, world.layout.guard
    for line in lines:
        if not (free - line.vector) & guard and _may_start(world, node, line):
            return line
    return None


def _next_surplus(world: World, node: Node, lines: list[Line], slots: int) -> Line | None:
    for line in lines:
        if surplus_target(slots, line.mean_run_us) and _may_start(world, node, line):
            return line
    return None


def _candidates(world: World, cell: Cell, own: list[Line]) -> list[Line]:
    tickets = cell.tickets
    while tickets and (tickets[0].count < 1 or not tickets[0].line.waiting):
        tickets.popleft()
    if not tickets:
        world.needs_pass = world.needs_pass or any(line.waiting for line in own)
        return own
    return [ticket.line for ticket in islice(tickets, LOOKED_AT) if ticket.count > 0] + own


def _may_start(world: World, node: Node, line: Line) -> bool:
    batch: Batch | None = world.batches.get(line.batch)
    return (
        batch is not None
        and batch.state == "open"
        and line.waiting.count > 0
        and node.id != line.not_on
        and node.id not in batch.avoided
        and batch.room() > 0
    )


def _most(world: World, cell: Cell, line: Line) -> int:
    """How many in one go: what the first ticket of the line says, if it has one and others wait too."""
    most = min(line.waiting.count, world.batches[line.batch].room())
    for ticket in cell.tickets:
        if ticket.line is line and ticket.count > 0:
            return min(most, ticket.count) if len(cell.tickets) > 1 else most
    return most


def _send(world: World, cell: Cell, node: Node, line: Line, count: int, *, is_urgent: bool) -> None:
    for ticket in cell.tickets:
        if ticket.line is line and ticket.count > 0:
            ticket.count -= count
            break
    world.give(node, line, line.waiting.take(count), is_urgent=is_urgent)
    if line.waiting and world.batches[line.batch].room() <= 0:
        world.needs_pass = True  # what is left now waits for another reason than the last pass saw
