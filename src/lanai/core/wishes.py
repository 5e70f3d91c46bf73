"""What people want done with their jobs: cancel, hold, release, retry, change.

A wish is answered once it is kept. Jobs at nodes follow later: what has not begun is recalled, what runs is killed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import itemgetter
from typing import Final

import msgspec

from lanai.core import credentials, dates, ends, holds, reservations
from lanai.core.batches import Batch
from lanai.core.effects import Answer, KillAttempts
from lanai.core.events import BatchChanged, JobsCancelled, JobsHeld, JobsReleased, JobsRetried, Spans
from lanai.core.nodes import Grant
from lanai.core.policy import move
from lanai.core.queue import Span, size
from lanai.core.queue import Spans as Waiting
from lanai.core.recall import recall
from lanai.core.schedule import limits
from lanai.core.world import World
from lanai.model.batch import COUNT_MAX, PRIORITY_MAX, PRIORITY_MIN
from lanai.model.errors import ImpossibleRequest, LanaiError, NothingThere, Refusal, UserError
from lanai.model.ids import BatchId, GrantId, Index, NodeId
from lanai.model.job import JobState
from lanai.model.moments import format_moment
from lanai.model.records import DropOverrides, ReopenJobs, SaveSettings

_first_of: Final = itemgetter(0)


def on_cancelled(world: World, event: JobsCancelled) -> None:
    """Waiting jobs never run; those at nodes are recalled or killed."""
    batch = _batch(world, event.request, event.batch, {"changed": 0})
    if batch is None:
        return
    wanted = set(event.states) or {JobState.HELD, JobState.QUEUED, JobState.LOCKED, JobState.RUNNING}
    changed = 0
    for first, last in event.spans or ((1, batch.total),):
        changed += ends.cancel_waiting(
            world, batch, first, last, queued=JobState.QUEUED in wanted, held=JobState.HELD in wanted
        )
    at_nodes = 0
    if wanted & {JobState.LOCKED, JobState.RUNNING}:
        at_nodes = _kill(world, batch, event.spans, wanted)
    world.do(Answer(event.request, _told(changed + at_nodes, at_nodes=at_nodes)))
    world.touch(batch)
    ends.finish_if_over(world, batch, event.wall_us)
    world.needs_pass = True


def _kill(world: World, batch: Batch, spans: Spans | None, states: set[str]) -> int:
    by_node: dict[NodeId, list[tuple[GrantId, Index]]] = {}
    wished: set[Index] = set()
    for grant in _grants(world, batch):
        members = _within(grant, spans) - batch.cancel_wishes
        if JobState.LOCKED not in states:
            members &= grant.started.keys()
        elif JobState.RUNNING not in states:
            members -= grant.started.keys()
        wished |= members
        if members and grant.node.is_in_step:
            grant.withhold()
            by_node.setdefault(grant.node.id, []).extend((grant.id, index) for index in sorted(members))
    ends.wish_cancelled(world, batch, wished)
    for node, items in by_node.items():
        world.do(KillAttempts(node, items, batch.settings.grace_us, "cancelled"))
    return len(wished)


def on_held(world: World, event: JobsHeld) -> None:
    """Waiting jobs wait on until released; granted ones that have not begun are recalled for it.

    Held ones are held by whoever holds them last, but for what an operator holds, which is not its user's to hold.
    """
    batch = _batch(world, event.request, event.batch, {"changed": 0})
    if batch is None:
        return
    if event.until_us and event.until_us <= event.wall_us:
        over = UserError(f"{format_moment(event.until_us)} is over", code="moment_is_over", hint="--until a later one")
        world.do(Answer(event.request, error=over.body()))
        return
    spans: list[Span] = []
    wanted = set(event.states) or {JobState.QUEUED, JobState.LOCKED, JobState.HELD}
    wish = holds.Wish(event.caller, event.wall_us, event.until_us)
    anew = holds.put(world, batch, event.spans or ((1, batch.total),), wish, anew=JobState.HELD in wanted)
    for first, last in (event.spans or ((1, batch.total),)) if JobState.QUEUED in wanted else ():
        late = [index for index in batch.delayed if first <= index <= last]
        batch.delayed.difference_update(late)
        spans += [*batch.dequeue(first, last), *((index, index) for index in late)]
    batch.held.merge(sorted(spans))
    changed = size(spans)
    batch.counts.queued -= changed
    batch.counts.held += changed
    at_nodes = running = 0
    for grant in _grants(world, batch) if JobState.LOCKED in wanted else ():
        members = _within(grant, event.spans) - batch.cancel_wishes
        waiting = members - grant.started.keys()
        batch.hold_wishes |= waiting
        at_nodes += len(waiting)
        running += len(members) - len(waiting)
    recall(world, batch)
    if not event.has_more:
        world.keep(batch.progress(world.last_row))
    world.do(Answer(event.request, _told(changed + anew + at_nodes, at_nodes=at_nodes, running=running)))
    world.touch(batch)
    world.needs_pass = True


def on_released(world: World, event: JobsReleased) -> None:
    """Held jobs wait for their turn again, and a paused batch goes on."""
    batch = _batch(world, event.request, event.batch, {"changed": 0})
    if batch is None:
        return
    wanted = set(event.states) or {JobState.HELD, JobState.LOCKED}
    meant = event.spans or ((1, batch.total),)
    mine = holds.releasable(batch, meant, event.caller)
    changed = holds.let_go(
        world, batch, mine.spans(), held=JobState.HELD in wanted, at_nodes=JobState.LOCKED in wanted
    )
    stay = sum(size(batch.held.within(first, last)) for first, last in meant) if JobState.HELD in wanted else 0
    is_resumed = batch.state == "paused" and event.spans is None and not event.states
    if is_resumed:
        batch.state, batch.reason = "open", ""
        batch.failed_in_row.clear()
        batch.nodes_in_row.clear()
        batch.node_failures.clear()
        batch.avoided.clear()
        world.keep(batch.standing())
        holds.resume(world, batch)
    if not event.has_more:
        world.keep(batch.progress(world.last_row))
    world.do(Answer(event.request, _told(changed, is_resumed=is_resumed, stay=stay)))
    world.touch(batch)
    world.needs_pass = True


def on_retried(world: World, event: JobsRetried) -> None:
    """Failed and cancelled jobs wait again, with fresh retries."""
    batch = _batch(world, event.request, event.batch)
    if batch is None:
        return
    states = set(event.states) or {JobState.FAILED, JobState.CANCELLED}
    sources = [
        s for name, s in ((JobState.FAILED, batch.failed), (JobState.CANCELLED, batch.cancelled)) if name in states
    ]
    if JobState.CANCELLED in states:
        _forgive_cancelled(batch, event.spans)
    before = batch.failed.count, batch.cancelled.count
    spans: list[Span] = []
    for first, last in event.spans or ((1, batch.total),):
        for low, high in [span for source in sources for span in source.remove(first, last)]:
            spans.append((low, high))
            world.keep(ReopenJobs(batch.id, low, high))
            world.keep(DropOverrides(batch.id, low, high, "cancelled"))
    spans.sort()
    held = holds.still_held(batch, spans, event.caller)
    batch.held.merge(held)
    batch.enqueue(_without(spans, held))
    changed = size(spans)
    batch.counts.held += size(held)
    batch.counts.queued += changed - size(held)
    batch.counts.failed -= before[0] - batch.failed.count
    batch.counts.cancelled -= before[1] - batch.cancelled.count
    if changed:
        batch.reason = "" if batch.state != "paused" else batch.reason
        world.keep(batch.standing())
        world.keep(batch.progress(world.last_row))
    world.do(Answer(event.request, {"changed": changed}))
    world.touch(batch)
    ends.finish_if_over(world, batch, event.wall_us)
    world.needs_pass = True


def _without(spans: list[Span], others: list[Span]) -> Iterable[Span]:
    if not others:
        return spans
    left = Waiting.of(spans)
    for first, last in others:
        left.remove(first, last)
    return left


def _forgive_cancelled(batch: Batch, spans: Spans | None) -> None:
    """Those that were cancelled on their way may have been charged; who has failed is charged with nothing."""
    if batch.cancelled:
        for index, tries in batch.tries.items():
            if tries.charges and index in batch.cancelled and (spans is None or _in_spans(index, spans)):
                tries.charges.clear()


def on_changed(world: World, event: BatchChanged) -> None:
    """A new priority, limit, account, service or start date."""
    batch = _batch(world, event.request, event.batch)
    if batch is None:
        return
    if event.priority is not None and not PRIORITY_MIN <= event.priority <= PRIORITY_MAX:
        error = UserError(f"priority {event.priority} is not between {PRIORITY_MIN} and {PRIORITY_MAX}")
        world.do(Answer(event.request, error=error.body()))
        return
    if event.max_running is not None and not 0 <= event.max_running <= COUNT_MAX:
        error = UserError(f"max_running {event.max_running} is not between 0, which is without limit, and {COUNT_MAX}")
        world.do(Answer(event.request, error=error.body()))
        return
    if (refused := _resettle(world, batch, event)) is not None:
        world.do(Answer(event.request, error=refused.body()))
        return
    batch.leaf.priority = batch.priority if event.priority is None else event.priority
    batch.max_running = batch.max_running if event.max_running is None else event.max_running
    world.keep(batch.standing())
    world.do(Answer(event.request, {}))
    world.touch(batch)
    recall(world, batch)
    world.needs_pass = True


def _resettle(world: World, batch: Batch, event: BatchChanged) -> LanaiError | None:
    """Change those of the batch's settings that the event names; why not, where the batch's user may not have them."""
    wished = {
        "account": event.account,
        "service": event.service,
        "start_after_us": event.start_after_us,
        "reservation": event.reservation,
    }
    changes = {name: value for name, value in wished.items() if value is not None}
    if not changes:
        return None
    if not 0 <= (event.start_after_us or 0) <= COUNT_MAX:
        return UserError(f"start_after_us {event.start_after_us} is not between 0, which is now, and {COUNT_MAX}")
    settings = msgspec.structs.replace(batch.settings, **changes)
    refused = credentials.refusal(world.policy, batch.user, account=settings.account, service=settings.service)
    if refused is not None and (event.account, event.service) != (None, None):
        return refused
    if event.reservation is not None:
        refused = reservations.refusal(world, batch.user, settings, batch.id)
        if refused is not None:
            return refused
    if (event.account, event.service) != (None, None) and (never := limits.never(world, batch, settings)):
        return ImpossibleRequest(f"{never}; nothing was changed", hint="name another --service or --account")
    batch.settings = settings
    world.keep(SaveSettings(batch.id, settings))
    move(world, batch, world.policy.account_of(batch.user, settings.account))
    limits.attach(world, batch)
    world.wall_us, world.wall_seen_us = max(world.wall_us, event.wall_us), world.now_us
    dates.settle(world, batch)
    return None


def _told(
    changed: int, *, at_nodes: int = 0, running: int = 0, is_resumed: bool = False, stay: int = 0
) -> dict[str, object]:
    """What is known when a wish is kept; what is nought is left out.

    Args:
        changed: jobs that the wish reaches.
        at_nodes: those of them that are at nodes, where it shows only later whether it came in time.
        running: jobs that are known to run and that it does not touch.
        is_resumed: a paused batch goes on.
        stay: held jobs that are not the caller's to release.
    """
    rest = {"at_nodes": at_nodes, "running": running, "resumed": is_resumed, "stay": stay}
    return {"changed": changed, **{name: value for name, value in rest.items() if value}}


def _batch(world: World, request: int, batch_id: BatchId, nothing: dict[str, object] | None = None) -> Batch | None:
    """The batch; where it is gone, the wish is answered by `nothing`, or without that refused."""
    batch = world.batches.get(batch_id)
    if batch is None:
        # It was there when the wish was taken, so it has ended since.
        if batch_id in world.pruned:
            gone = NothingThere(f"there is no batch {batch_id}", code="no_such_batch", hint="lanai batch list")
            world.do(Answer(request, error=gone.body()))
        elif nothing is None:
            world.do(Answer(request, error=has_ended(batch_id).body()))
        else:
            world.do(Answer(request, nothing))
    return batch


def has_ended(batch: BatchId) -> Refusal:
    """Of an ended batch nothing can be changed; to cancel, hold or release its jobs just changes none."""
    return Refusal(f"batch {batch} has ended", code="batch_ended", hint=f"lanai retry {batch}@failed")


def _grants(world: World, batch: Batch) -> list[Grant]:
    return [grant for grant in world.grants.values() if grant.batch is batch]


def _within(grant: Grant, spans: Spans | None) -> set[Index]:
    if spans is None:
        return set(grant.members)
    return {index for index in grant.members if _in_spans(index, spans)}


def _in_spans(index: int, spans: Spans) -> bool:
    """Whether one of the spans, which ascend and are disjoint, holds it."""
    at = bisect_right(spans, index, key=_first_of) - 1
    return at >= 0 and index <= spans[at][1]
