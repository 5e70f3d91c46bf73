"""The pass: start what can be started, say why the rest waits, and leave tickets for the time until the next pass.

Without reservations yet: every line is tried in the order of turns (`shares`), the smallest node that fits is taken, a
line whose head gets no room is done for this pass. Who is at a soft limit is put aside, and tried under the hard one if
that leaves room. A pass stops after `MOST_STARTS` starts and asks to be called again, so that no call is long whatever
the queue.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from lanai.core import dates, explain
from lanai.core.batches import ANYWHERE, Batch
from lanai.core.nodes import Node
from lanai.core.recall import make_way
from lanai.core.schedule import limits
from lanai.core.schedule.cells import Cell
from lanai.core.schedule.lines import Line
from lanai.core.schedule.shares import Turns, price, weigh_users
from lanai.core.world import World
from lanai.model.ids import BatchId, NodeId
from lanai.model.vector import CPU, GPU, MEMORY, Vector, field

MOST_STARTS: Final = 256
MIN_TICKETS: Final = 16

Candidates = dict[BatchId, list[Line]]
"""Lines to be tried, of each batch in the order of their heads."""


def decide(world: World) -> bool:
    """One pass. True when it came to its end, False when it wants to be called again at once."""
    _lift_vain_bans(world)
    _forget_reasons(world)
    dates.note(world)
    price(world.batches.values(), world.total())
    waiting = [batch for batch in world.batches.values() if batch.is_open and batch.waiting]
    weigh_users(waiting)
    considered = limits.Considered(world)
    aside: Candidates = {}
    starts = _start(world, {batch.id: _by_head(batch) for batch in waiting}, considered, aside)
    if starts < MOST_STARTS and aside:
        starts += _start(world, aside, considered, None)
    if starts >= MOST_STARTS:
        return False
    for cell in world.cells.values():
        _deal(world, cell, considered)
    return True


def _start(world: World, candidates: Candidates, considered: limits.Considered, aside: Candidates | None) -> int:
    """Start what can be: under soft limits, where lines that only these hold back are put `aside`; else under hard."""
    hard = aside is None
    turns = Turns([world.batches[batch] for batch in candidates])
    refused: list[Vector] = []
    booked: dict[tuple[Node, Line], int] = {}
    taken: Counter[Line] = Counter()
    asked: set[NodeId] = set()
    starts = 0
    while starts < MOST_STARTS and (batch := turns.next()) is not None:
        lines = candidates[batch.id]
        line = lines[0]
        node = None
        if not _is_allowed(world, line, considered, taken[line], hard=hard):
            if aside is not None and _is_allowed(world, line, considered, taken[line], hard=True):
                aside.setdefault(batch.id, []).append(line)
            explain.limit_reached(world, line, considered)
            lines.pop(0)
        elif _is_dominated(line, refused, world.layout.guard) or (node := find(world, batch, line)) is None:
            if not batch.avoided and not batch.stalls and line.not_on == ANYWHERE:
                refused.append(line.vector)
            explain.no_room(world, batch, line)
            if not batch.has_begun:
                batch.has_begun = True
                make_way(world, batch, line.vector, asked)
            lines.pop(0)
        else:
            node.occupy(line, 1)
            world.reindex(node)
            world.book(batch, line, 1)
            booked[node, line] = booked.get((node, line), 0) + 1
            taken[line] += 1
            starts += 1
            turns.charge(line)
            if taken[line] >= line.waiting.count:
                lines.pop(0)
        if not lines:
            turns.leave(batch)
    for (node, line), count in booked.items():
        world.give(node, line, line.waiting.take(count), is_urgent=True, is_booked=True)
    return starts


def _is_allowed(world: World, line: Line, considered: limits.Considered, taken: int, *, hard: bool) -> bool:
    """Whether limits let one more of the line start, of which so many are about to."""
    is_considered = considered.admit(line, line.waiting.count, hard=hard) > taken
    return is_considered and limits.room(world, line, hard=hard) > 0


def find(world: World, batch: Batch, line: Line) -> Node | None:
    """The smallest open node that the line's head fits on: least gpus, cpus, memory, lowest id."""

    def allows(node: Node) -> bool:
        return node.id != line.not_on and not batch.is_barred(node.id)

    best: Node | None = None
    guard = world.layout.guard
    for cell in world.cells.values():
        if (cell.total - line.vector) & guard:
            continue
        node = cell.find(line.vector, guard, allows)
        if node is not None and (best is None or _size(node) < _size(best)):
            best = node
    return best


def _size(node: Node) -> tuple[int, int, int, int]:
    return field(node.free, GPU), field(node.free, CPU), field(node.free, MEMORY), node.id


def _by_head(batch: Batch) -> list[Line]:
    return sorted((line for line in batch.lines.values() if line.waiting), key=lambda line: line.waiting.head())


def _is_dominated(line: Line, refused: list[Vector], guard: int) -> bool:
    return any(not (line.vector - smaller) & guard for smaller in refused)


def _lift_vain_bans(world: World) -> None:
    """Bans keep jobs from sick nodes, not from the last ones there are: lift those that leave a line nowhere to go.

    A node that cannot begin the batch's jobs for some time is as good as none.
    """
    open_nodes = [node for node in world.nodes.values() if node.is_open()]
    for batch in world.batches.values():
        if batch.avoided:
            _lift_avoidance(world, batch, open_nodes)
        for line in [line for line in batch.lines.values() if line.not_on != ANYWHERE and line.waiting]:
            others = [node for node in open_nodes if node.id != line.not_on and node.id not in batch.avoided]
            others = [node for node in others if not batch.is_stuck(node.id)]
            if open_nodes and not any(not (node.total - line.vector) & world.layout.guard for node in others):
                home = batch.line(line.shape_id)
                for first, last in line.waiting.take(line.waiting.count):
                    home.waiting.add(first, last)


def _lift_avoidance(world: World, batch: Batch, open_nodes: list[Node]) -> None:
    for line in [line for line in batch.lines.values() if line.waiting]:
        able = {node.id for node in open_nodes if not (node.total - line.vector) & world.layout.guard}
        banned = able & batch.avoided
        if banned and not any(node not in banned and not batch.is_stuck(node) for node in able):
            batch.avoided -= banned
            for node in banned:
                batch.node_failures.pop(node, None)
            world.keep(batch.standing())


def _forget_reasons(world: World) -> None:
    for batch in world.batches.values():
        for line in batch.lines.values():
            if line.reason and not line.waiting:
                explain.set_reason(world, line, "", "")


def _deal(world: World, cell: Cell, considered: limits.Considered) -> None:
    """Leave tickets: go on dealing turns with virtual charges, twice as many as ended here since the last pass.

    And one for each line before that, so that none is left out because those before it do not fit into what becomes
    free. A batch at a limit has them too: the next end may be one of its own. A line that is not considered has none.
    """
    guard = world.layout.guard

    def has_tickets(line: Line) -> bool:
        return not (cell.total - line.vector) & guard and considered.admit(line, 1, hard=True) > 0

    lines = {
        batch.id: [line for line in _by_head(batch) if has_tickets(line)]
        for batch in world.batches.values()
        if batch.is_open
    }
    wanted, cell.ended = 2 * cell.ended + MIN_TICKETS, 0
    left = {line: line.waiting.count for own in lines.values() for line in own}
    in_order = sorted(lines, key=lambda batch: world.batches[batch].leaf.claim())
    cell.tickets = {line: 1 for batch in in_order for line in lines[batch]}
    turns = Turns([world.batches[b] for b, own in lines.items() if own])
    while wanted > 0 and (batch := turns.next()) is not None:
        line = lines[batch.id][0]
        count = min(wanted, left[line]) if len(left) == 1 else 1
        cell.tickets[line] += count
        turns.charge(line, count)
        wanted -= count
        left[line] -= count
        if not left[line]:
            lines[batch.id].pop(0)
            if not lines[batch.id]:
                turns.leave(batch)
