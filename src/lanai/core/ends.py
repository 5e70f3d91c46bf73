"""Attempts end: whose fault it was, and whether the job is tried again.

Charged to the job: exit, signal, time, memory, checks. Charged to the node: `node` and `lost`; they use up the
batch's `node` retries only, and a command not found is tried once more elsewhere. Charged to nobody: `preempted`. A
node that fails a batch three times in a row is avoided for it while another is left; 25 different jobs failing in a row
on more than one node pause the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Final

import msgspec

from lanai.core import explain, giving_way, holds
from lanai.core.batches import ANYWHERE, Batch, Tries, allowed
from lanai.core.effects import BatchMoved, ForgetResults, KillAttempts
from lanai.core.events import AttemptsEnded, AttemptsStarted, JobsReturned
from lanai.core.nodes import Grant, Node
from lanai.core.queue import spans_of
from lanai.core.recall import recall
from lanai.core.schedule import limits
from lanai.core.schedule.lines import RECENT, Line
from lanai.core.schedule.placing import is_able
from lanai.core.schedule.tickets import refill
from lanai.core.stalls import has_begun, stall
from lanai.core.world import World
from lanai.model.ids import GrantId, Index, ShapeId
from lanai.model.job import AttemptResult, JobState, Outcome
from lanai.model.records import AttemptRow, DropOverrides, SaveAttempts, SaveOverride, SaveShape

SICK_NODE_FAILURES: Final = 3
SICK_BATCH_FAILURES: Final = 25
FIRST_DELAY_US: Final = 200_000
LONGEST_DELAY_US: Final = 60_000_000
STALE_TOLD: Final = 20
"""Of one message so many results that count for nothing are told one by one; an agent may send any number."""
_OUTCOMES: Final = frozenset(Outcome)
_OK: Final = str(Outcome.OK)


def on_started(world: World, event: AttemptsStarted) -> None:
    """Attempts that have run for a while are shown as running, since when the node says; also where it says it anew."""
    for grant_id, index, wall_us in event.items:
        grant = world.grants.get(grant_id)
        if grant is None or grant.node.id != event.node or index not in grant.members:
            continue
        is_known = index in grant.started
        grant.started[index] = wall_us
        if grant.is_adopted:
            grant.node.changes += 1  # of what it was adopted with no start was known: ends are reckoned anew
        if is_known:
            continue
        grant.batch.counts.locked -= 1
        grant.batch.counts.running += 1
        world.touch(grant.batch)


def on_ended(world: World, event: AttemptsEnded) -> None:
    """Take results in. Those that no current grant covers change nothing; all are forgotten by the node afterwards."""
    node = world.nodes[event.node]
    rows: list[AttemptRow] = []
    gone: dict[Line, int] = {}
    touched: dict[int, Batch] = {}
    for grant, results in _by_grant(world, node, event.results):
        gone[grant.line] = gone.get(grant.line, 0) + len(results)
        touched[grant.batch.id] = grant.batch
        if results[0].outcome == _OK:
            rows += _settle_done(world, grant, results, event.wall_us)
        else:
            rows.append(settle(world, grant, results[0], event.wall_us))
    world.do(ForgetResults(node.id, event.upto))
    if not rows:
        return
    world.keep(SaveAttempts(rows))
    free_before, node.ended_us = node.free, world.now_us
    for line, count in gone.items():
        node.vacate(line, count, world.layout.guard)
    if node.is_open():
        world.cell_of(node).ended += len(rows)
    for batch in touched.values():
        world.touch(batch)
        finish_if_over(world, batch, event.wall_us)
    refill(world, node, list(gone))
    # A limit may have kept back what fits on another node, even where a surplus has taken all the room on this one.
    has_room = node.free != free_before or any(batch.counters for batch in touched.values())
    if has_room and not world.needs_pass:
        world.needs_pass = any(batch.is_open and batch.waiting for batch in world.batches.values())


def _by_grant(world: World, node: Node, results: list[AttemptResult]) -> Iterator[tuple[Grant, list[AttemptResult]]]:
    """The results that current grants cover: successes of one grant in a row together, all others one by one.

    Members of what is yielded with success have left the grant's members, and nothing else of it.
    """
    grants = world.grants
    current: Grant | None = None
    done: list[AttemptResult] = []
    stale = 0
    for result in results:
        grant = grants.get(result.grant)
        if grant is None or grant.node is not node or result.index not in grant.members:
            stale += 1
            if stale <= STALE_TOLD:
                what = f"from {node.name}: {result.outcome}, ignored"
                world.tell("stale_result", f"{result.grant}/{result.index}", what)
            continue
        is_done = result.outcome == _OK
        if done and current is not None and not (is_done and grant is current):
            yield current, done
            done = []
        if is_done:
            grant.members.remove(result.index)
            current = grant
            done.append(result)
        else:
            yield grant, [result]
    if done and current is not None:
        yield current, done
    if stale > STALE_TOLD:
        world.tell("stale_result", node.name, f"{stale - STALE_TOLD} more results of that message, ignored")


def on_returned(world: World, event: JobsReturned) -> None:
    """Granted jobs come back unbegun; with a reason where the node cannot begin them now."""
    node = world.nodes[event.node]
    if event.why:
        grants = (world.grants.get(grant) for grant, _ in event.items)
        for batch in {grant.batch.id: grant.batch for grant in grants if grant and grant.node is node}.values():
            stall(world, batch, node, event.why)
    take_back(world, node, event.items)


def take_back(world: World, node: Node, items: Iterable[tuple[GrantId, Index]]) -> None:
    """These have not begun on the node and never will: they go to their old places, or to where a wish wants them."""
    shrunk: dict[GrantId, Grant] = {}
    for grant_id, index in items:
        grant = world.grants.get(grant_id)
        if grant is None or grant.node is not node or index not in grant.members:
            continue
        world.leave_grant(grant, index)
        node.withdraw(grant.line, 1, world.layout.guard)
        shrunk[grant_id] = grant
        put_back(world, grant, index)
    for grant in shrunk.values():
        if grant.members:
            world.keep(grant.record())
    for batch in {grant.batch.id: grant.batch for grant in shrunk.values()}.values():
        world.keep(batch.progress(world.last_row))
        world.touch(batch)
        finish_if_over(world, batch, world.wall_us)
    world.reindex(node)
    world.needs_pass = True


def put_back(world: World, grant: Grant, index: Index) -> None:
    """A job that left its grant without an attempt: cancelled, held, or waiting again."""
    batch = grant.batch
    counts = batch.counts
    giving_way.over(world, batch, (index,))
    if index in batch.cancel_wishes:
        batch.cancel_wishes.discard(index)
        batch.hold_wishes.discard(index)
        counts.queued -= 1
        counts.cancelled += 1
        batch.cancelled.add(index, index)
    elif index in batch.hold_wishes:
        counts.queued -= 1
        put_back_held(batch, index)
    else:
        # A node where its command was not found is still to be kept from it.
        batch.line(batch.shape_of(index), grant.line.not_on).waiting.add(index, index)


def _settle_done(world: World, grant: Grant, results: list[AttemptResult], wall_us: int) -> list[AttemptRow]:
    """Attempts of one grant succeeded: book them together, and return the rows to keep. The members have left it."""
    batch, count = grant.batch, len(results)
    world.left_grant(grant, results)
    batch.counts.done += count
    walls_us = [result.wall_us for result in results[-RECENT:]]
    grant.line.observe(walls_us)
    batch.observe(walls_us)
    world.observe(batch.user, walls_us)
    if batch.node_failures or batch.failed_in_row:
        batch.node_failures.pop(grant.node.id, None)
        batch.failed_in_row.clear()
        batch.nodes_in_row.clear()
    if batch.stall_waits_us:
        has_begun(world, batch, grant.node)
    if batch.hold_wishes:
        batch.hold_wishes.difference_update(result.index for result in results)
    if batch.cancel_wishes:
        _came_too_late(world, batch, {result.index for result in results} & batch.cancel_wishes)
    if batch.ways:
        giving_way.over(world, batch, [result.index for result in results])
    first_row = world.last_row + 1
    world.last_row += count
    number, attempt, grant_id, node = batch.id, grant.attempt, grant.id, grant.node.id
    return [
        (
            row,
            number,
            result.index,
            attempt,
            grant_id,
            node,
            "done",
            _OK,
            result.exit_code,
            result.signal,
            result.started_at_us,
            result.started_at_us + result.wall_us if result.started_at_us else wall_us,
            result.wall_us,
            result.cpu_user_us,
            result.cpu_system_us,
            result.memory_peak_bytes,
            result.reason,
        )
        for row, result in enumerate(results, first_row)
    ]


def _came_too_late(world: World, batch: Batch, indices: set[Index]) -> None:
    """These jobs were done before the wish to cancel them reached them."""
    batch.cancel_wishes -= indices
    for first, last in spans_of(indices):
        world.keep(DropOverrides(batch.id, first, last, "cancelled"))


def settle(world: World, grant: Grant, result: AttemptResult, wall_us: int) -> AttemptRow:
    """One attempt failed: decide what becomes of the job, book it, and return the row to keep."""
    batch, index = grant.batch, result.index
    attempt = grant.attempt
    if grant.broken:
        result = msgspec.structs.replace(result, outcome=str(Outcome.LOST), reason=grant.broken)
    result = giving_way.judged(batch, result)
    world.leave_grant(grant, index)
    batch.counts.queued -= 1
    if batch.stall_waits_us and result.started_at_us:
        has_begun(world, batch, grant.node)
    state = _failed(world, grant, result)
    giving_way.over(world, batch, (index,))
    return (
        world.next_row(),
        batch.id,
        index,
        attempt,
        grant.id,
        grant.node.id,
        str(state),
        result.outcome,
        result.exit_code,
        result.signal,
        result.started_at_us,
        result.started_at_us + result.wall_us if result.started_at_us else wall_us,
        result.wall_us,
        result.cpu_user_us,
        result.cpu_system_us,
        result.memory_peak_bytes,
        result.reason,
    )


def lose_everything(world: World, node: Node, why: str) -> None:
    """The node's attempts are known to have ended, or its lease has run out on both sides: they are void."""
    rows: list[AttemptRow] = []
    touched: dict[int, Batch] = {}
    for grant in list(node.grants.values()):
        touched[grant.batch.id] = grant.batch
        for index in sorted(grant.members):
            started = grant.started.get(index, 0)
            lost = AttemptResult(
                grant.id, index, str(Outcome.LOST), started_at_us=started, reason=f"{why} ({node.name})"
            )
            rows.append(settle(world, grant, lost, world.wall_us))
    node.clear()
    for grant in list(node.claims.values()):
        break_off(world, grant, f"{why} ({node.name})")
    if rows:
        world.keep(SaveAttempts(rows))
        world.tell("attempts_lost", node.name, f"{len(rows)} attempts: {why}")
    for batch in touched.values():
        world.touch(batch)
        finish_if_over(world, batch, world.wall_us)
    world.needs_pass = True


def break_off(world: World, grant: Grant, why: str) -> None:
    """One of the further nodes of a job is lost: its attempt is to end on all of them, at the node's charge.

    The rest of them are free, and the job waits again, when the first node says that the attempt has ended, or its own
    lease is over: until then it may run. What was not sent yet comes back without having begun.
    """
    members = [(grant.id, index) for index in sorted(grant.members)]
    if grant.id in world.claiming:
        take_back(world, grant.node, members)
    elif not grant.broken:
        grant.broken = why
        world.keep(grant.record())
        world.tell("attempts_lost", grant.node.name, f"an attempt over {len(grant.others) + 1} nodes: {why}")
        if grant.node.is_in_step:
            world.do(KillAttempts(grant.node.id, members, grant.batch.settings.grace_us, why))


def finish_if_over(world: World, batch: Batch, wall_us: int) -> None:
    """A batch of which nothing waits or runs has ended; the core lets go of it."""
    if batch.counts.waiting() or batch.id not in world.batches:
        return
    batch.state = "ended"
    world.keep(batch.progress(world.last_row))
    world.keep(batch.standing(wall_us))
    del world.batches[batch.id]
    world.do(BatchMoved(batch.id, has_ended=True))


def release_delayed(world: World) -> None:
    """Jobs whose back-off is over wait again."""
    while world.delayed and world.delayed[0][0] <= world.now_us:
        _, batch_id, index = heappop(world.delayed)
        batch = world.batches.get(batch_id)
        if batch is not None and index in batch.delayed:
            batch.delayed.discard(index)
            batch.line(batch.shape_of(index)).waiting.add(index, index)
            world.needs_pass = True


def _failed(world: World, grant: Grant, result: AttemptResult) -> JobState:
    """Charge the attempt and say what the job is now: queued again, failed or cancelled."""
    batch, index, node = grant.batch, result.index, grant.node
    tries = batch.tries.setdefault(index, Tries())
    tries.attempts = grant.attempt
    # In a stopped batch nothing is tried again; what met a fault of the node's would have been, and has not failed.
    is_over = has_stopped(batch) and result.outcome in (Outcome.NODE, Outcome.LOST, Outcome.PREEMPTED)
    if result.outcome == Outcome.PREEMPTED:
        tries.gave_way += 1
        is_over = is_over or batch.ways[index].how == "cancel"
    if is_over or index in batch.cancel_wishes or result.outcome == Outcome.CANCELLED:
        batch.cancel_wishes.discard(index)
        batch.hold_wishes.discard(index)
        batch.counts.cancelled += 1
        batch.cancelled.add(index, index)
        return JobState.CANCELLED
    if result.outcome == Outcome.PREEMPTED:
        batch.counts.queued += 1
        put_back(world, grant, index)
        world.needs_pass = True
        return JobState.QUEUED
    cause = result.outcome if result.outcome in _OUTCOMES else Outcome.NODE
    tries.charges[cause] = tries.charges.get(cause, 0) + 1
    if cause != Outcome.LOST:
        _blame(world, batch, node, index, grant.line)
    if not has_stopped(batch) and _has_retry(batch, tries, cause) and _requeue(world, grant, index, cause, tries):
        return JobState.QUEUED
    tries.charges.clear()
    batch.counts.failed += 1
    batch.failed.add(index, index)
    batch.hold_wishes.discard(index)
    _stop_if_enough(world, batch)
    return JobState.FAILED


def _has_retry(batch: Batch, tries: Tries, cause: str) -> bool:
    charges = tries.charges
    used = charges[cause]
    if cause in (Outcome.NODE, Outcome.LOST):
        used = charges.get(Outcome.NODE, 0) + charges.get(Outcome.LOST, 0)
    return used <= allowed(batch.settings.retries, cause)


def _requeue(world: World, grant: Grant, index: Index, cause: str, tries: Tries) -> bool:
    """Put the job where it waits for its next attempt; False where there is no point in one."""
    batch, node = grant.batch, grant.node
    shape = batch.shape_of(index)
    not_on = ANYWHERE
    if cause == Outcome.MEMORY:
        larger = _twice_the_memory(world, batch, index, shape)
        if larger is None:
            return False
        shape = larger
    elif cause in (Outcome.NODE, Outcome.NOTFOUND):
        if _has_other(world, batch, node, grant.line):
            not_on = node.id
        elif cause == Outcome.NOTFOUND:
            return False
    batch.counts.queued += 1
    if index in batch.hold_wishes:
        batch.counts.queued -= 1
        put_back_held(batch, index)
    elif cause == Outcome.NODE and not_on == ANYWHERE:
        delay_us = min(FIRST_DELAY_US << min(tries.charges[cause], 10) - 1, LONGEST_DELAY_US)
        batch.delayed.add(index)
        heappush(world.delayed, (world.now_us + delay_us, batch.id, index))
    else:
        batch.line(shape, not_on).waiting.add(index, index)
    world.needs_pass = True
    return True


def put_back_held(batch: Batch, index: Index) -> None:
    """A job that somebody wants held is, as soon as it is no longer at a node."""
    batch.hold_wishes.discard(index)
    batch.counts.held += 1
    batch.held.add(index, index)


def _twice_the_memory(world: World, batch: Batch, index: Index, shape: ShapeId) -> ShapeId | None:
    old = batch.shapes[shape]
    if not old.memory_bytes:
        return None
    wanted = msgspec.structs.replace(old, memory_bytes=2 * old.memory_bytes)
    if explain.too_large(world, wanted) or limits.beyond(batch, wanted):
        return None
    known = next((number for number, other in batch.shapes.items() if other == wanted), None)
    if known is None:
        known = ShapeId(max(batch.shapes) + 1)
        batch.shapes[known] = wanted
        world.keep(SaveShape(batch.id, known, wanted))
    batch.reshaped[index] = known
    world.keep(SaveOverride(batch.id, index, index, "shape", known, world.wall_us))
    return known


def _blame(world: World, batch: Batch, node: Node, index: Index, line: Line) -> None:
    failures = batch.node_failures[node.id] = batch.node_failures.get(node.id, 0) + 1
    if len(batch.failed_in_row) < SICK_BATCH_FAILURES:
        batch.failed_in_row.add(index)
    batch.nodes_in_row.add(node.id)
    if failures >= SICK_NODE_FAILURES and node.id not in batch.avoided and _has_other(world, batch, node, line):
        batch.avoided.add(node.id)
        world.keep(batch.standing())
        world.tell("node_avoided", node.name, f"failed batch {batch.id} {failures} times in a row")
        recall(world, batch, node=node)
        world.needs_pass = True
    if len(batch.failed_in_row) >= SICK_BATCH_FAILURES and len(batch.nodes_in_row) > 1 and batch.state == "open":
        batch.state = "paused"
        batch.reason = (
            f"{len(batch.failed_in_row)} different jobs in a row failed on {len(batch.nodes_in_row)} nodes; "
            f"`lanai release {batch.id}` lets it go on"
        )
        world.keep(batch.standing())
        holds.pause(world, batch)
        world.tell("batch_paused", str(batch.id), batch.reason)
        recall(world, batch)


def _has_other(world: World, batch: Batch, node: Node, line: Line) -> bool:
    """Whether open nodes other than this one, as many as it needs, could take one of the line's jobs."""
    able = (
        other is not node
        and other.is_open()
        and not batch.is_barred(other.id)
        and not batch.is_stuck(other.id)
        and is_able(world, line, other)
        for other in world.nodes.values()
    )
    return any(able) if line.shape.nodes == 1 else sum(able) >= line.shape.nodes


def has_stopped(batch: Batch) -> bool:
    """So many of its jobs have failed that nothing more of it is to begin."""
    return 0 < batch.settings.stop_after <= batch.counts.failed


def _stop_if_enough(world: World, batch: Batch) -> None:
    if not has_stopped(batch) or batch.reason:
        return
    batch.reason = f"stopped after {batch.counts.failed} failed jobs"
    world.keep(batch.standing())
    cancel_waiting(world, batch, 1, batch.total)
    recall(world, batch)
    wish_cancelled(
        world, batch, {i for g in world.grants.values() if g.batch is batch for i in g.members - g.started.keys()}
    )


def wish_cancelled(world: World, batch: Batch, indices: set[Index]) -> None:
    """Jobs at nodes are to be cancelled as they end or come back; the wish is kept."""
    batch.cancel_wishes |= indices
    batch.hold_wishes -= indices
    for first, last in spans_of(indices):
        world.keep(SaveOverride(batch.id, first, last, "cancelled", 0, world.wall_us))


def cancel_waiting(world: World, batch: Batch, first: int, last: int, *, queued: bool = True, held: bool = True) -> int:
    """Waiting and held jobs of this range, or one kind of them, will never run; returns how many."""
    taken = batch.dequeue(first, last) if queued else []
    let_go = batch.held.remove(first, last) if held else []
    late = [index for index in batch.delayed if first <= index <= last] if queued else []
    batch.delayed.difference_update(late)
    spans = taken + let_go + [(index, index) for index in late]
    counts = batch.counts
    for low, high in spans:
        batch.cancelled.add(low, high)
        world.keep(SaveOverride(batch.id, low, high, "cancelled", 0, world.wall_us))
        counts.cancelled += high - low + 1
    counts.held -= sum(high - low + 1 for low, high in let_go)
    counts.queued -= sum(high - low + 1 for low, high in taken) + len(late)
    return sum(high - low + 1 for low, high in spans)
