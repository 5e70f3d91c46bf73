"""Promises: a line whose head finds no room is told where and when it will have some, and others keep out of the way.

EASY backfill over nodes (Lifka 1995): of the lines that find no room the first `depth` are promised the earliest time
at which enough nodes are free for as long as the job is expected to run, if every attempt there ends as estimated. Each
node of a promise keeps what it needs from that time on: a *step*. Whoever is behind starts only where that stays so.

All promises are made anew in each pass. Where that would put one off, because an attempt runs longer than expected, the
old one is held on to until its time and `HELD_US` more: else short jobs whose run times are only guessed could slip in
front of it for ever.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import Final

from lanai.core.batches import Batch
from lanai.core.nodes import NEVER_US, Node, Step
from lanai.core.schedule import future
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import able_cells, may_go, need
from lanai.core.world import Promise, World

HELD_US: Final = 60_000_000


def promise(world: World, batch: Batch, line: Line, length_us: int, before: Promise | None) -> Promise | None:
    """Promise the head of the line the earliest time there is, and lay the steps; None: there is no such time.

    Args:
        world: its clock says what is now.
        batch: the line's.
        line: its head finds no room now.
        length_us: how long its job is expected to run.
        before: what the line was promised by the last pass; its steps are lifted already.
    """
    found = _earliest(world, batch, line, length_us)
    if before is not None and (found is None or found.at_us > before.at_us) and _still_holds(world, batch, before):
        found = before
    if found is None:
        return None
    begin_us = max(found.at_us, world.now_us)
    for node in found.nodes:
        vector = need(world, batch, line, node)
        future.lay(node, Step(begin_us, begin_us + length_us, vector, line, _nobody))
    world.promises[line] = found
    return found


def lift_all(world: World) -> dict[Line, Promise]:
    """Take back all promises; returns them."""
    before, world.promises = world.promises, {}
    for line, promise in before.items():
        for node in promise.nodes:
            future.lift(node, line)
    return before


def _nobody(line: Line) -> bool:
    return False


def _still_holds(world: World, batch: Batch, before: Promise) -> bool:
    """Whether a promise that cannot be bettered is held on to."""
    return world.now_us < before.at_us + HELD_US and all(
        node.is_open() and may_go(batch, before.line, node) for node in before.nodes
    )


def _earliest(world: World, batch: Batch, line: Line, length_us: int) -> Promise | None:
    wanted = line.shape.nodes
    nodes = [node for cell in able_cells(world, line) for node in cell.nodes() if may_go(batch, line, node)]
    times = _times(world, batch, line, nodes, length_us)
    at_us = 0
    while True:
        chosen = nsmallest(wanted, times)
        if len(chosen) < wanted or chosen[-1][0] >= NEVER_US:
            return None
        at_us = max(at_us, chosen[-1][0])
        late = _late(world, batch, line, [node for _, _, node in chosen], at_us, length_us)
        if not late:
            return Promise(line, at_us, tuple(sorted((node for _, _, node in chosen), key=_number)))
        times = [(late.get(number, when), number, node) for when, number, node in times]


def _late(
    world: World, batch: Batch, line: Line, nodes: list[Node], at_us: int, length_us: int
) -> dict[int, int]:
    """The next time of each of these nodes that have no room at `at_us` after all."""
    late: dict[int, int] = {}
    for node in nodes:
        vector = need(world, batch, line, node)
        when = future.earliest(world, node, line, vector, length_us, at_us)
        if when > at_us:
            late[node.id] = when
    return late


def _times(
    world: World, batch: Batch, line: Line, nodes: list[Node], length_us: int
) -> list[tuple[int, int, Node]]:
    """(earliest time, node's number, node); what was found before is used where nothing has changed since."""
    known = world.horizons.setdefault(line, {})
    now_us = world.now_us
    times: list[tuple[int, int, Node]] = []
    for node in nodes:
        horizon = known.get(node.id)
        if node.steps:
            at_us = future.earliest(world, node, line, need(world, batch, line, node), length_us, now_us)
        elif horizon is not None and horizon[0] == node.changes and horizon[1] > now_us:
            at_us = horizon[1]
        else:
            at_us = future.earliest(world, node, line, need(world, batch, line, node), length_us, now_us)
            known[node.id] = node.changes, at_us
        times.append((at_us, int(node.id), node))
    return times


def _number(node: Node) -> int:
    return node.id
