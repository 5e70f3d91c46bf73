"""The pass: start what can be started, say why the rest waits, and leave tickets for the time until the next pass.

Without reservations yet: every line is tried in the order of turns (`shares`), the smallest node that fits is taken, a
line whose head gets no room is done for this pass. A pass stops after `MOST_STARTS` starts and asks to be called again,
so that no call is long whatever the queue.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from lanai.core import explain
from lanai.core.batches import ANYWHERE, Batch
from lanai.core.nodes import Node
from lanai.core.recall import make_way
from lanai.core.schedule.cells import Cell
from lanai.core.schedule.lines import Line
from lanai.core.schedule.several import are_enough, find_several
from lanai.core.schedule.shares import Turns, price, weigh_users
from lanai.core.world import World
from lanai.model.ids import BatchId, NodeId
from lanai.model.vector import CPU, GPU, MEMORY, Vector, field

MOST_STARTS: Final = 256
MIN_TICKETS: Final = 16


def decide(world: World) -> bool:
    """One pass. True when it came to its end, False when it wants to be called again at once."""
    _lift_vain_bans(world)
    _forget_reasons(world)
    price(world.batches.values(), world.total())
    waiting = [batch for batch in world.batches.values() if batch.state == "open" and batch.waiting]
    weigh_users(waiting)
    starts = _start(world, waiting)
    if starts >= MOST_STARTS:
        return False
    for cell in world.cells.values():
        _deal(world, cell)
    return True


def _start(world: World, waiting: list[Batch]) -> int:
    turns = Turns(waiting)
    candidates = {batch.id: _by_head(batch) for batch in waiting}
    refused: list[Vector] = []
    booked: dict[tuple[Node, Line], int] = {}
    taken: Counter[Line | BatchId] = Counter()
    asked: set[NodeId] = set()
    starts = 0
    while starts < MOST_STARTS and (batch := turns.next()) is not None:
        lines = candidates[batch.id]
        if batch.room() <= taken[batch.id]:
            explain.limit_reached(world, batch, lines)
            turns.leave(batch)
            continue
        line = lines[0]
        if line.shape.nodes > 1:
            starts += _start_several(world, batch, lines, turns, asked)
            continue
        node = None if _is_dominated(line, refused, world.layout.guard) else find(world, batch, line)
        if node is None:
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
            booked[node, line] = booked.get((node, line), 0) + 1
            taken[line] += 1
            taken[batch.id] += 1
            starts += 1
            turns.charge(line)
            if taken[line] >= line.waiting.count:
                lines.pop(0)
        if not lines:
            turns.leave(batch)
    for (node, line), count in booked.items():
        world.give(node, line, line.waiting.take(count), is_urgent=True)
    return starts


def _start_several(world: World, batch: Batch, lines: list[Line], turns: Turns, asked: set[NodeId]) -> int:
    """Try the first of a batch's lines, whose jobs need several nodes; returns how many starts it came to."""
    line = lines[0]
    nodes = find_several(world, batch, line)
    if nodes is None:
        explain.no_room(world, batch, line)
        if not batch.has_begun:
            batch.has_begun = True
            make_way(world, batch, line.vector, asked)
        lines.pop(0)
    else:
        world.give_wide(nodes, line, line.waiting.take(1)[0])
        turns.charge(line, line.shape.nodes)
        if not line.waiting:
            lines.pop(0)
    if not lines:
        turns.leave(batch)
    return 0 if nodes is None else 1


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
            able = (node.id for node in others if not (node.total - line.vector) & world.layout.guard)
            if open_nodes and not are_enough(line, able):
                home = batch.line(line.shape_id)
                for first, last in line.waiting.take(line.waiting.count):
                    home.waiting.add(first, last)


def _lift_avoidance(world: World, batch: Batch, open_nodes: list[Node]) -> None:
    for line in [line for line in batch.lines.values() if line.waiting]:
        able = {node.id for node in open_nodes if not (node.total - line.vector) & world.layout.guard}
        banned = able & batch.avoided
        if banned and not are_enough(line, (node for node in able - banned if not batch.is_stuck(node))):
            batch.avoided -= banned
            for node in banned:
                batch.node_failures.pop(node, None)
            world.keep(batch.standing())


def _forget_reasons(world: World) -> None:
    for batch in world.batches.values():
        for line in batch.lines.values():
            if line.reason and not line.waiting:
                explain.set_reason(world, line, "", "")


def _deal(world: World, cell: Cell) -> None:
    """Leave tickets: go on dealing turns with virtual charges, twice as many as ended here since the last pass.

    And one for each line before that, so that none is left out because those before it do not fit into what becomes
    free. A batch at its own limit has them too: the next end may be one of its own.
    """
    guard = world.layout.guard
    lines = {
        batch.id: [
            line for line in _by_head(batch) if line.shape.nodes == 1 and not (cell.total - line.vector) & guard
        ]
        for batch in world.batches.values()
        if batch.state == "open"
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
