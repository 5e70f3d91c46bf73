"""Batches come in: opened, filled chunk by chunk, closed; or found again in the store."""

from __future__ import annotations

from collections.abc import Iterable

from lanai.core import credentials, dates, explain, giving_way, holds, reservations
from lanai.core.batches import ANYWHERE, Batch, Tried, Tries
from lanai.core.effects import AckChunk, Answer
from lanai.core.events import BatchAbandoned, BatchClosed, BatchOpened, ChunkArrived
from lanai.core.nodes import Grant
from lanai.core.queue import Span, Spans
from lanai.core.schedule import limits
from lanai.core.world import LAST_RUNS, Arriving, World
from lanai.model.batch import BatchSettings
from lanai.model.errors import ImpossibleRequest, LanaiError, NothingThere, TooMany, UserError
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId
from lanai.model.job import JobState, Outcome
from lanai.model.records import (
    CloseBatch,
    DropBatch,
    DropGrant,
    OpenBatch,
    RecoveredBatch,
    SaveAccount,
    SaveChunk,
    SaveEnv,
    SaveShape,
)

REOPENED = "reopened"

BATCHES_EACH = 100_000
"""So many batches of one user may not have ended: what the core holds of each takes some memory."""


def open_batch(world: World, event: BatchOpened) -> None:
    """Give it a number."""
    settings = event.settings
    refused = (
        _too_many(world, event.user)
        or credentials.refusal(world.policy, event.user, account=settings.account, service=settings.service)
        or reservations.refusal(world, event.user, settings)
    )
    if refused is not None:
        world.do(Answer(event.request, error=refused.body()))
        return
    world.last_batch += 1
    batch = BatchId(world.last_batch)
    made = _made(world, batch, event.user, event.settings, event.env, event.wall_us)
    world.arriving[batch] = Arriving(made)
    world.keep(SaveEnv(event.env, event.env_blob))
    world.keep(OpenBatch(batch, event.user, event.key, event.settings, event.env, event.wall_us, made.account))
    world.do(Answer(event.request, {"batch": batch}))


def _too_many(world: World, user: str) -> LanaiError | None:
    if not _has_too_many(world, user):
        return None
    what = f"{BATCHES_EACH} batches of {user} have not ended, which is the most"
    hint = "wait for some, cancel some, or submit lists: one batch of many jobs"
    return TooMany(what, code="too_many_batches", hint=hint)


def _has_too_many(world: World, user: str) -> bool:
    if len(world.batches) + len(world.arriving) < BATCHES_EACH:
        return False  # and so nobody has: only then is it counted, which costs by all of them
    arriving = (each.opened for each in world.arriving.values())
    return sum(batch.user == user for batch in (*world.batches.values(), *arriving)) >= BATCHES_EACH


def take_chunk(world: World, event: ChunkArrived) -> None:
    """Keep a piece. One out of order ends the batch: its sender is not to be trusted with the rest."""
    arriving = world.arriving.get(event.batch)
    if arriving is None:
        return
    batch = arriving.opened
    counted = sum(count for count, _ in event.runs)
    batch.shapes.update(event.shapes)
    if event.first != arriving.next or counted != event.count or any(s not in batch.shapes for _, s in event.runs):
        abandon_batch(world, BatchAbandoned(event.batch))
        return
    for shape, request in event.shapes:
        world.keep(SaveShape(event.batch, shape, request))
    for count, shape in event.runs:
        batch.append(arriving.next, count, shape)
        arriving.next += count
    world.keep(SaveChunk(event.batch, event.first, event.count, event.runs, event.lines, event.checks))
    world.do(AckChunk(event.connection, event.batch, event.first))


def close_batch(world: World, event: BatchClosed) -> None:
    """The batch is whole: it may run."""
    arriving = world.arriving.pop(event.batch, None)
    error: LanaiError | None = None
    if arriving is None:
        error = NothingThere(f"batch {event.batch} is not arriving", code="no_such_batch")
    elif arriving.next != event.total + 1 or not event.total:
        error = UserError(f"batch {event.batch} has {arriving.next - 1} jobs, not {event.total}", code="bad_total")
        world.keep(DropBatch(event.batch))
    elif never := limits.never(world, arriving.opened):
        error = ImpossibleRequest(f"{never}; nothing was submitted", hint="ask for less, or name another --service")
        world.keep(DropBatch(event.batch))
    if error is not None or arriving is None:
        world.do(Answer(event.request, error=error.body() if error else None))
        return
    batch = arriving.opened
    batch.submitted_at_us = event.wall_us
    batch.counts.queued = event.total
    world.batches[batch.id] = batch
    if event.wall_us > world.wall_us:
        world.wall_us, world.wall_seen_us = event.wall_us, world.now_us
    dates.settle(world, batch)
    world.keep(CloseBatch(batch.id, event.total, event.digest, event.wall_us))
    if batch.settings.is_held:
        holds.hold_all(world, batch, holds.Wish(event.caller, event.wall_us, 0))
    world.keep(batch.progress(world.last_row))
    world.do(Answer(event.request, {"batch": batch.id, "jobs": event.total}))
    world.touch(batch)
    world.needs_pass = True


def abandon_batch(world: World, event: BatchAbandoned) -> None:
    """Drop what has arrived; harmless where nothing has."""
    if world.arriving.pop(event.batch, None) is not None:
        world.keep(DropBatch(event.batch))


def tried_of(found: RecoveredBatch) -> Tried:
    """What the jobs of a batch have behind them. Costs by the attempts that did not succeed; may be called anywhere."""
    tries: dict[Index, Tries] = {}
    final: dict[str, list[Span]] = {JobState.FAILED: [], JobState.CANCELLED: []}
    shunned: dict[Index, NodeId] = {}
    current, last = Index(0), ""
    for index, attempt, outcome, state, node in found.charged:
        if index != current:
            _note_final(final, current, last)
            current = index
            one = tries[index] = Tries()
        one.attempts = max(one.attempts, attempt)
        if outcome == Outcome.PREEMPTED:
            one.gave_way += 1
        elif state in (REOPENED, JobState.FAILED):
            one.charges.clear()
        elif state != JobState.CANCELLED:
            one.charges[outcome] = one.charges.get(outcome, 0) + 1
        if state == JobState.QUEUED and outcome in (Outcome.NODE, Outcome.NOTFOUND):
            shunned[index] = node
        elif shunned:
            shunned.pop(index, None)
        last = state
    _note_final(final, current, last)
    return Tried(tries, Spans.of(final[JobState.FAILED]), Spans.of(final[JobState.CANCELLED]), shunned)


def _note_final(final: dict[str, list[Span]], index: int, state: str) -> None:
    """The job's last attempt left it in `state`. Neighbours become one at once: a million spans take long to sort."""
    spans = final.get(state)
    if spans is None:
        return
    if spans and spans[-1][1] == index - 1:
        spans[-1] = (spans[-1][0], index)
    else:
        spans.append((index, index))


def recover_batch(world: World, found: RecoveredBatch, tried: Tried | None = None) -> Batch:
    """Build a batch again from what the store holds of it; `tried` is `tried_of(found)` where that was made before.

    Waiting is: what was pending at the last progress row, minus jobs with a final attempt row since, plus those with a
    row that says `queued`, minus members of grants, minus what was cancelled.
    """
    batch = _made(world, found.batch, found.user, found.settings, found.env, found.submitted_at_us)
    if batch.account != found.account:
        world.keep(SaveAccount(batch.id, batch.account))
    if found.state is not None:
        batch.state, batch.reason = found.state.state, found.state.reason
        batch.leaf.priority, batch.max_running = found.state.priority, found.state.max_running
        batch.avoided = set(found.state.avoided)
    if batch.state == "ended":
        batch.state = "open"
    batch.shapes, batch.runs = dict(found.shapes), list(found.runs)
    batch.reshaped = {Index(i): shape for first, last, shape in found.reshaped for i in range(first, last + 1)}
    pending = Spans(found.progress.pending if found.progress else ((1, found.total),))
    batch.held = Spans(found.progress.held if found.progress else ())
    for _, index, _, _, _, state, _, _ in found.attempts:
        if state not in (JobState.QUEUED, REOPENED):
            pending.remove(index, index)
            batch.held.remove(index, index)
        elif index not in batch.held:
            pending.add(index, index)
    batch.tries, batch.failed, batch.cancelled, shunned = tried or tried_of(found)
    for first, last in found.cancelled:
        pending.remove(first, last)
        batch.held.remove(first, last)
        batch.cancelled.add(first, last)
    world.batches[batch.id] = batch
    _recover_grants(world, batch, found, pending, shunned)
    batch.enqueue(pending)
    for index, node in shunned.items():
        if batch.dequeue(index, index):  # where no other node could take it, the next pass lets it go there again
            batch.line(batch.shape_of(index), node).waiting.add(index, index)
    for first, last in pending:
        batch.failed.remove(first, last)
    counts = batch.counts
    counts.queued, counts.held = pending.count, batch.held.count
    counts.failed, counts.cancelled = batch.failed.count, batch.cancelled.count
    counts.done = found.total - counts.waiting() - counts.failed - counts.cancelled
    batch.has_begun = bool(batch.sent or counts.done or counts.failed)
    dates.settle(world, batch)
    holds.recover(world, batch, found.holds)
    giving_way.recover(batch, found.preempted)
    _recover_walls(batch, found)
    if not (found.state and found.state.state == "ended"):  # one that is revived begins to wait anew
        explain.recover(batch, found.reasons)
    return batch


def _recover_walls(batch: Batch, found: RecoveredBatch) -> None:
    """How long its last jobs ran, and those of each line."""
    of_shape: dict[ShapeId, list[int]] = {}
    for _, index, wall_us in found.walls:
        of_shape.setdefault(batch.shape_of(index), []).append(wall_us)
    for shape, walls_us in of_shape.items():
        batch.line(shape).observe(walls_us)
    batch.observe([wall_us for _, _, wall_us in found.walls])


def recover_last_runs(world: World, batches: Iterable[RecoveredBatch]) -> None:
    """What users ran last, by which it is predicted what they will: as far as it was in batches that have not ended."""
    last = [(row, batch.user, wall_us) for batch in batches for row, _, wall_us in batch.walls[-LAST_RUNS:]]
    for _, user, wall_us in sorted(last):
        world.observe(user, [wall_us])


def _made(world: World, batch: BatchId, user: str, settings: BatchSettings, env: bytes, at_us: int) -> Batch:
    account = world.policy.account_of(user, settings.account)
    made = Batch(batch, user, settings, env, world.layout, world.leaf_of(account, user), at_us, account)
    limits.attach(world, made)
    return made


def _recover_grants(
    world: World, batch: Batch, found: RecoveredBatch, pending: Spans, shunned: dict[Index, NodeId]
) -> None:
    for saved in found.grants:
        node = world.nodes.get(saved.node)
        members = {Index(index) for first, last in saved.ranges for index in range(first, last + 1)}
        if node is None or not members:
            world.keep(DropGrant(saved.grant))
            continue
        for index in members:
            pending.remove(index, index)
            batch.failed.remove(index, index)
            if batch.held.remove(index, index):
                batch.hold_wishes.add(index)
            if batch.cancelled.remove(index, index):
                batch.cancel_wishes.add(index)
        not_on = shunned.get(min(members), ANYWHERE)
        adopted = _adopt(world, batch, saved.grant, node.id, saved.attempt, members, not_on)
        adopted.others = tuple(world.nodes[other] for other in saved.others if other in world.nodes)
        adopted.broken = saved.broken
        for other in adopted.others:
            other.claim(adopted)


def _adopt(
    world: World, batch: Batch, grant: int, node_id: NodeId, attempt: int, members: set[Index], not_on: NodeId
) -> Grant:
    """Take a recovered grant in. All its members came from one line."""
    node = world.nodes[node_id]
    shape = batch.shape_of(min(members))
    world.layout.meet(name for name, _ in batch.shapes[shape].named)  # its node may offer it no more
    line = batch.line(shape, not_on)
    adopted = Grant(GrantId(grant), node, batch, line, attempt, members, world.now_us, was_stacked=True)
    adopted.is_adopted = True
    world.grants[adopted.id] = node.grants[adopted.id] = adopted
    count = len(members)
    world.book(batch, line, count)
    batch.counts.locked += count
    node.stack(line, count)
    return adopted
