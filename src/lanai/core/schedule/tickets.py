"""The fast path: an ending attempt is followed at once, whatever the queue's length.

A node with room takes, of the first eight lines with a ticket for its cell that could go there and the lines of the
attempts that have just ended, what fits and has the lowest claim; where claims are equal whoever was not served last is
next. Tickets say who is looked at, not how often he may start: one that is used up asks for a pass, which deals anew.

A node whose slots are full is also sent a *surplus*, a little more than fits, so that it never waits for the hub
between short jobs: at most 256 jobs and 0.5 s of measured run time, and none for a line of which no run time is known.
Nothing is stacked in front of somebody whose turn it is and whose job cannot be stacked, because it is long or nothing
is known of it: the next end makes room for him instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from lanai.core.batches import Batch
from lanai.core.nodes import NEVER_US, Node
from lanai.core.schedule import access, heads, limits
from lanai.core.schedule.cells import Cell
from lanai.core.schedule.considered import Considered
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import SURPLUS_US, Line
from lanai.core.schedule.placing import able_cells, has_rules, is_alone, is_plain
from lanai.core.schedule.shares import Turns
from lanai.core.world import World
from lanai.model.vector import Vector, fit_count

LOOKED_AT: Final = 8
PASSED_OVER: Final = 32
"""Lines with a ticket that one end may pass over: no end makes room for their jobs, or their batch is at its limit."""
SURPLUS_JOBS: Final = 256
SHARED_SURPLUS_US: Final = 100_000
LONGEST_SURPLUS_US: Final = 60_000_000
GATHERED_US: Final = 60_000
"""A grant that is not urgent may wait for so long until it is committed and sent."""
SELDOM: Final = 8
"""Run times of so many gatherings a slot: then one hardly ever ends within one, and little is lost where it does."""


def refill(world: World, node: Node, own: list[Line]) -> None:
    """Follow up attempts that have just ended on the node; `own` are their lines."""
    if not node.is_open():
        return
    if not world.has_fast_path:
        world.reindex(node)
        return
    cell = world.cell_of(node)
    guard = world.layout.guard
    lines = _candidates(world, cell, node, own)
    while fitting := [line for line in lines if not (node.free - line.vector) & guard]:
        line = fitting[0]
        most = min(_most(world, line), SURPLUS_JOBS)
        rival = _rival(world, line, fitting)
        if rival is not None:
            most = min(most, max(1, line.leaf.turns_before(rival.leaf, line.cost)))
        count = fit_count(node.free, line.vector, guard, most)
        node.occupy(line, count)
        _send(world, cell, node, line, count, is_urgent=True)
        lines = _candidates(world, cell, node, own)
    _fill_surplus(world, cell, node, own, lines)
    cell.put(node, guard)


MIN_TICKETS: Final = 16
LINES: Final = 128
"""So many lines have tickets of one cell at most. Where none of them fits into what an end makes free, a pass comes."""


def deal(world: World, total: Vector, considered: Considered) -> None:
    """Leave tickets on all cells: who is looked at first, where an attempt ends, until the next pass.

    Each line has one, so that none is left out because those before it do not fit into what becomes free. Then turns
    are dealt on with virtual charges, twice as many as attempts ended in the cell since the last pass. A batch at its
    own limit has tickets too: the next end may be one of its own; a line that is not considered has none. `total` is
    all capacity.
    """
    for cell in world.cells.values():
        cell.tickets = {}
    if has_rules(world) or not world.has_fast_path:
        return  # who may be on a node together is looked at by passes only
    here: dict[Cell, list[tuple[Batch, Line]]] = {cell: [] for cell in world.cells.values()}
    left = len(here)
    for each in _lines_in_order(world, total, considered):
        for cell in able_cells(world, each[1]):
            lines = here[cell]
            if len(lines) < LINES:
                lines.append(each)
                left -= len(lines) == LINES
        if not left:
            break
    for cell, lines in here.items():
        _deal(world, cell, lines)


def _lines_in_order(world: World, total: Vector, considered: Considered) -> Iterator[tuple[Batch, Line]]:
    batches = [batch for batch in world.batches.values() if batch.is_open and not access.is_out(world, batch)]
    if world.policy.preset == "tight" or heads.is_strict(world):
        left = {line: line.waiting.count for batch in batches for line in batch.lines.values() if line.waiting}
        lines = iter(heads.in_order(world, batches, left, total).rest())
    else:
        batches.sort(key=lambda batch: (-heads.tier(world, batch), batch.leaf.claim()))
        lines = ((batch, line) for batch in batches for line in by_head(batch))
    lines = (each for each in lines if not each[0].queues or considered.admit(each[1], 1, hard=True) > 0)
    return ((batch, line) for batch, line in _in_their_turn(world, lines) if line.shape.nodes == 1)


def _in_their_turn(world: World, lines: Iterator[tuple[Batch, Line]]) -> Iterator[tuple[Batch, Line]]:
    """Without those that would overtake others and may not: the first that no limit holds is whom they wait for.

    Without backfill these are all behind the first, but for those whose turns alternate with its own: they ask for no
    less, so that it has room wherever they have.
    """
    if not heads.is_strict(world) and all(service.may_backfill for service in world.policy.services.values()):
        yield from lines
        return
    first: tuple[Batch, Line] | None = None
    owed = world.owed if heads.is_strict(world) else None
    for batch, line in lines:
        if first is None and owed is not None and _tier(world, line) <= _tier(world, owed):
            first = world.batches[owed.batch], owed
        if first is None or line is first[1] or not _waits_its_turn(world, batch) or _alternate(world, first, line):
            yield batch, line
        if first is None and limits.room(world, line, hard=True) > 0:
            first = batch, line


def _waits_its_turn(world: World, batch: Batch) -> bool:
    """Whether its jobs may not start before others that are in front of them."""
    if heads.is_strict(world):
        return True
    return bool(world.policy.services) and not world.policy.service(batch.settings.service).may_backfill


def _alternate(world: World, first: tuple[Batch, Line], line: Line) -> bool:
    batch, before = first
    if world.policy.preset != "fair" or before.shape.nodes > 1 or not is_plain(batch, before):
        return False
    is_tier_same = _tier(world, before) == _tier(world, line)
    return is_tier_same and not (line.vector - before.vector) & world.layout.guard and before.features <= line.features


def by_head(batch: Batch) -> list[Line]:
    """The lines of a batch with something waiting, by the first of it."""
    return sorted((line for line in batch.lines.values() if line.waiting), key=lambda line: line.waiting.head())


def _deal(world: World, cell: Cell, lines: list[tuple[Batch, Line]]) -> None:
    """Leave tickets for these lines, which are in order."""
    wanted, cell.ended = 2 * cell.ended + MIN_TICKETS, 0
    cell.tickets = {line: 1 for _, line in lines}
    left = {line: line.waiting.count for _, line in lines}
    if world.policy.preset == "tight":
        for _, line in lines:
            cell.tickets[line] += min(wanted, left[line])
            wanted -= min(wanted, left[line])
        return
    own: dict[Batch, list[Line]] = {}
    for batch, line in lines:
        own.setdefault(batch, []).append(line)
    turns = Turns(list(own))
    while wanted > 0 and (turn := turns.next()) is not None:
        line = own[turn][0]
        count = min(wanted, left[line]) if len(left) == 1 else 1
        cell.tickets[line] += count
        turns.charge(line, count)
        wanted -= count
        left[line] -= count
        if not left[line]:
            own[turn].pop(0)
            if not own[turn]:
                turns.leave(turn)


def surplus_target(slots: int, mean_us: int, window_us: int = SURPLUS_US) -> int:
    """How many jobs of one line may wait at a node for `slots` attempts at work, `window_us` for each."""
    longest_us = LONGEST_SURPLUS_US if window_us == SURPLUS_US else window_us
    if not mean_us or mean_us > longest_us:
        return 0
    return min(SURPLUS_JOBS, window_us * slots // mean_us)


def is_pressing(surplus: int, slots: int, mean_us: int) -> bool:
    """Whether a slot is likely to be idle before a gathered commit: few jobs wait there, and none runs for long."""
    soon_us = GATHERED_US * slots
    return surplus * mean_us < soon_us and mean_us < SELDOM * soon_us


def _fill_surplus(world: World, cell: Cell, node: Node, own: list[Line], lines: list[Line]) -> None:
    surplus_before = node.surplus_count
    slots = sum(node.active.values())
    for _ in range(LOOKED_AT):
        window_us = _window_us(lines, slots)
        line = next((line for line in lines if _may_stack(world, line, slots, window_us)), None)
        if line is None or not _is_over_in_time(world, node, line, SURPLUS_US):
            return
        room = _room(node, line, window_us)
        count = min(room, _most(world, line), _turns(world, line, lines, room))
        if count < 1:
            return
        node.stack(line, count)
        is_urgent = is_pressing(surplus_before, slots, line.mean_run_us)
        _send(world, cell, node, line, count, is_urgent=is_urgent, was_stacked=True)
        if count == room:
            return
        lines = _candidates(world, cell, node, own)


def _may_stack(world: World, line: Line, slots: int, window_us: int) -> bool:
    return surplus_target(slots, line.mean_run_us, window_us) > 0 and not access.is_bound(world, line)


def _window_us(lines: list[Line], slots: int) -> int:
    """How long what is stacked may last, for each slot that it is stacked for.

    Half a second where one batch alone wants the slots. Where several do it is a tenth, and no longer than the shortest
    of their jobs can fill with as many as may wait at a node, because what is stacked runs in the order in which it was
    sent, whoever's slot becomes free.
    """
    if all(line.batch == lines[0].batch for line in lines):
        return SURPLUS_US
    shortest_us = min((line.mean_run_us for line in lines if line.mean_run_us), default=SHARED_SURPLUS_US)
    return min(SHARED_SURPLUS_US, max(shortest_us, SURPLUS_JOBS * shortest_us // slots))


def _room(node: Node, line: Line, window_us: int) -> int:
    """How many of the line may be stacked now; 0 until half of what may be there has begun, so that few grants do it.

    Where several batches want the slots each may fill the window of its own slots only.
    """
    is_shared = window_us < SURPLUS_US
    slots = sum(count for other, count in node.active.items() if not is_shared or other.batch == line.batch) or 1
    booked_us = 0
    for other, count in node.surplus.items():
        if not is_shared or other.batch == line.batch:
            booked_us += count * other.mean_run_us
    room = min(SURPLUS_JOBS - node.surplus_count, (window_us * slots - booked_us) // line.mean_run_us)
    return room if room * 2 >= surplus_target(slots, line.mean_run_us, window_us) else 0


def _turns(world: World, line: Line, lines: list[Line], room: int) -> int:
    """How many of the line, the first that can be stacked of all `lines`, may be so before others have their turn."""
    before = lines[: lines.index(line)]
    if before and _tier(world, before[0]) > _tier(world, line):
        return 0  # it would begin before one that goes before it
    first = _rival(world, line, before)
    if first is not None:
        # It cannot be stacked. An end of this line makes room for it, unless the line would keep that by its claim.
        return line.leaf.turns_before(first.leaf, line.stack_cost(), -line.cost)
    rival = _rival(world, line, lines)
    if rival is None:
        return room
    # A grant for a job or two would cost more than so little unevenness.
    return max(line.leaf.turns_before(rival.leaf, line.stack_cost()), -(-room // LOOKED_AT))


def _rival(world: World, line: Line, lines: list[Line]) -> Line | None:
    """The first of another batch whose turns alternate with the line's; a lower tier has none before it."""
    others = (other for other in lines if other.batch != line.batch)
    if not world.policy.services:
        return next(others, None)
    tier = _tier(world, line)
    return next((other for other in others if _tier(world, other) == tier), None)


def _tier(world: World, line: Line) -> int:
    return heads.tier(world, world.batches[line.batch]) if world.policy.services else 0


def _candidates(world: World, cell: Cell, node: Node, own: list[Line]) -> list[Line]:
    """Lines that may start on the node now or when an attempt ends there, in the order of their turns.

    Of those within their soft limits; where none is, however far one looks, those that only a soft limit holds back.
    """
    lines = _within_limits(world, cell, node, own, hard=False)
    if not lines and world.is_limited and len(cell.tickets) <= PASSED_OVER and not heads.is_strict(world):
        lines = _within_limits(world, cell, node, own, hard=True)
    return lines


def _within_limits(world: World, cell: Cell, node: Node, own: list[Line], *, hard: bool) -> list[Line]:
    guard = world.layout.guard
    rooms = {node.free, *(node.free + ending.vector for ending in node.active)}

    def could_go(line: Line) -> bool:
        if not any(not (room - line.vector) & guard for room in rooms) or not _may_start(world, node, line):
            return False
        batch = world.batches[line.batch]
        has_turn = line in tickets or not (batch.queues or _waits_its_turn(world, batch))
        return has_turn and limits.room(world, line, hard=hard) > 0

    tickets = cell.tickets
    lines: list[Line] = []
    passed: list[Line] = []
    for line in islice(tickets, PASSED_OVER):
        (lines if could_go(line) else passed).append(line)
        if len(lines) == LOOKED_AT:
            break
    if len(tickets) > PASSED_OVER:
        for line in passed:
            tickets[line] = tickets.pop(line)  # who is behind them is looked at the next time
    lines += [line for line in own if line not in lines and could_go(line)]
    if world.policy.preset == "fair" and len(lines) > 1 and any(line.batch != lines[0].batch for line in lines):
        had = {line.batch for line in own}
        lines.sort(key=lambda line: (line.leaf.claim(), line.batch in had))
    if world.policy.services:
        lines.sort(key=lambda line: -_tier(world, line))
    return lines


def _may_start(world: World, node: Node, line: Line) -> bool:
    batch: Batch | None = world.batches.get(line.batch)
    return (
        batch is not None
        and batch.is_open
        and line.waiting.count > 0
        and node.id != line.not_on
        and line.may_be_on(node.name)
        and line.shape.nodes == 1
        and not batch.is_barred(node.id)
        and (not line.features or line.features.issubset(node.features))
        and not is_alone(world, batch)  # how much of the node is free says nothing then
        and (node.until_us == NEVER_US or _is_over_in_time(world, node, line))
        and access.may_follow(world, node, line)
    )


def _is_over_in_time(world: World, node: Node, line: Line, wait_us: int = 0) -> bool:
    """Whether a job of the line that begins now, or after so long, is expected to end before the node is another's."""
    if node.until_us == NEVER_US:
        return True
    begins = (step.begin_us for step in node.steps if step.owner is not line and not step.admits(line))
    return world.now_us + wait_us + estimate_us(world, line) <= min(begins, default=NEVER_US)


def _most(world: World, line: Line) -> int:
    """How many of a candidate may go; one that is not within its soft limits is none before others have had theirs."""
    return min(line.waiting.count, limits.room(world, line, hard=False) or limits.room(world, line, hard=True))


def _send(
    world: World, cell: Cell, node: Node, line: Line, count: int, *, is_urgent: bool, was_stacked: bool = False
) -> None:
    world.give(node, line, line.waiting.take(count), is_urgent=is_urgent, was_stacked=was_stacked)
    if line in world.promises:
        world.lift(world.promises.pop(line))
        world.needs_pass = True  # it was this head's, and not the next one's
    if line.waiting and limits.room(world, line, hard=False) <= 0:
        world.needs_pass = True  # what is left now waits for another reason than the last pass saw
    # Who was served goes behind those who were not: where claims are equal turns go round. With services there may be
    # tiers, and nobody goes behind a lower one.
    left = cell.tickets.get(line, 0) - count
    if not world.policy.services:
        cell.tickets.pop(line, None)
    cell.tickets[line] = left
    if left <= 0 and line.waiting:
        world.needs_pass = True
