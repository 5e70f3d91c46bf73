"""The door of the core: `handle(now, events)` records, `decide(now)` is one pass; both return what to keep and to do.

Pure: no clock, socket, file, task, log or random number that was not handed in. Records are to be kept in one
transaction before the effects returned with them are carried out; the next call may come before that has happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from lanai.core import (
    audit,
    dates,
    ends,
    explain,
    fleet,
    history,
    holds,
    intake,
    laying,
    policy,
    reservations,
    reserved_shown,
    stalls,
    sync,
    tokens,
    wide,
    wishes,
)
from lanai.core.effects import Answer, BatchMoved, Effect, EndHub
from lanai.core.events import (
    AttemptsEnded,
    AttemptsStarted,
    BatchAbandoned,
    BatchChanged,
    BatchClosed,
    BatchOpened,
    BatchRevived,
    ChunkArrived,
    Event,
    HubStopWished,
    JobsCancelled,
    JobsHeld,
    JobsReleased,
    JobsRetried,
    JobsReturned,
    NodeDisconnected,
    NodeHeard,
    NodeJoined,
    NodeTookStock,
    NodeWished,
    Noted,
    OldFound,
    PolicyChanged,
    ReservationDropped,
    ReservationRenewed,
    ReservationWished,
    RoomClaimed,
    TailArrived,
    TimePassed,
    TokenCreated,
    TokensRevoked,
)
from lanai.core.long_work import Work
from lanai.core.schedule import decide as scheduler
from lanai.core.schedule import limits, preempt
from lanai.core.schedule.lines import Line
from lanai.core.world import FOR_EVER, GRANTS_LOST_AT_MOST, Kept, World
from lanai.model.batch import Counts
from lanai.model.ids import BatchId, Index, NodeId
from lanai.model.node import NodeState
from lanai.model.policy import DEFAULT_POLICY, Policy
from lanai.model.records import Record, Recovered
from lanai.model.resources import Amounts, Capacity, Shape

OTHERS_MOST: Final = 20_000
_FROM_NODES: Final = (AttemptsEnded, NodeHeard, AttemptsStarted, JobsReturned, NodeTookStock, RoomClaimed)


def _on_revived(world: World, event: BatchRevived) -> None:
    # A batch that ended a moment ago may not be `ended` in the store yet; what was read of it is stale.
    was = event.batch.state
    is_gone = event.batch.batch in world.batches or event.batch.batch in world.pruned
    if not is_gone and was is not None and was.state == "ended":
        intake.recover_batch(world, event.batch, event.tried)


def _on_tail(world: World, event: TailArrived) -> None:
    world.keep(event.tail)


def _on_time_passed(world: World, event: TimePassed) -> None:
    ends.release_delayed(world)
    stalls.lift_stalls(world)
    sync.look_at_deadlines(world)
    if any(promise.at_us <= world.now_us for promise in world.promises.values()):
        world.needs_pass = True  # what was to end by now runs on
    world.needs_pass = world.needs_pass or preempt.is_due(world)
    wide.look_at_claims(world)
    history.look(world)
    tokens.look_at_expiry(world)
    policy.look_at_use(world)
    limits.wake_for_time(world)
    reservations.look(world)
    for batch in dates.due(world):
        dates.settle(world, batch)
        holds.release_due(world, batch)
    for batch in world.batches.values():
        if batch.progress_is_due(world.now_us):
            batch.recorded_us = world.now_us
            world.keep(batch.progress(world.last_row))


def _on_stop_wished(world: World, event: HubStopWished) -> None:
    world.do(Answer(event.request, {}))
    world.do(EndHub())


E = TypeVar("E", bound=Event)


def _takes(kind: type[E], handler: Callable[[World, E], None]) -> tuple[type[Event], Callable[[World, Event], None]]:
    def run(world: World, event: Event) -> None:
        assert isinstance(event, kind)
        handler(world, event)

    return kind, run


def _audited(
    kind: type[audit.W], handler: Callable[[World, audit.W], None]
) -> tuple[type[Event], Callable[[World, Event], None]]:
    return _takes(kind, lambda world, event: audit.watched(world, event, handler))


def _worked(
    kind: type[audit.W], handler: Callable[[World, audit.W], Work]
) -> tuple[type[Event], Callable[[World, Event], None]]:
    """Of a wish that waits for its turn, and may take more than this call."""
    return _takes(kind, lambda world, event: world.work.begin(audit.watched_work(world, event, handler)))


_HANDLERS: Final = dict(
    (
        _takes(AttemptsEnded, ends.on_ended),
        _takes(AttemptsStarted, ends.on_started),
        _takes(JobsReturned, ends.on_returned),
        _takes(RoomClaimed, wide.on_claimed),
        _takes(NodeHeard, fleet.on_heard),
        _takes(NodeJoined, fleet.on_joined),
        _takes(NodeTookStock, fleet.on_took_stock),
        _takes(NodeDisconnected, fleet.on_disconnected),
        _audited(NodeWished, fleet.on_wished),
        _takes(ChunkArrived, intake.take_chunk),
        _takes(BatchOpened, intake.open_batch),
        _audited(BatchClosed, intake.close_batch),
        _takes(BatchAbandoned, intake.abandon_batch),
        _takes(BatchRevived, _on_revived),
        _audited(JobsCancelled, wishes.on_cancelled),
        _audited(JobsHeld, wishes.on_held),
        _audited(JobsReleased, wishes.on_released),
        _audited(JobsRetried, wishes.on_retried),
        _audited(BatchChanged, wishes.on_changed),
        _audited(TokenCreated, tokens.on_created),
        _audited(TokensRevoked, tokens.on_revoked),
        _audited(PolicyChanged, policy.on_changed),
        _worked(ReservationWished, reservations.on_wished),
        _worked(ReservationDropped, reservations.on_dropped),
        _takes(ReservationRenewed, lambda world, event: world.work.begin(reservations.on_renewed(world, event))),
        _audited(HubStopWished, _on_stop_wished),
        _takes(Noted, audit.note),
        _takes(TailArrived, _on_tail),
        _takes(OldFound, history.on_found),
        _takes(TimePassed, _on_time_passed),
    )
)
"""Who takes which event."""


class Decision(msgspec.Struct, frozen=True):
    """What a call came to: `records` first, in one transaction, then `effects` in order."""

    records: list[Record]
    effects: list[Effect]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch stands, for those who ask."""

    batch: BatchId
    version: int
    state: str
    counts: Counts
    reason: str
    mean_run_us: int
    slots: int


class NodeStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node stands, for those who ask."""

    node: NodeId
    name: str
    state: str
    is_drained: bool
    capacity: Capacity
    running: int
    waiting: int
    seen_s: float
    seen_at_us: int
    trouble: str
    started_by: str
    features: tuple[str, ...]
    avoided_by: list[BatchId]
    stalled: list[BatchId]
    free: Amounts
    version: str
    escaped: int
    facts: dict[str, str]
    claims: list[str]
    """Jobs that other nodes run and that have room here: BATCH/INDEX."""
    reserved: list[dict[str, str | int]] = []
    """What people have reserved of it: the next period of each reservation."""


class HubCore:
    """Every decision of a hub. One owner, one thread.

    Args:
        epoch: of the hub's grants.
        lease_us: how long a node's attempts are its own after its last word.
        kept: how long what is over is kept.
        policy: of the scheduler, until another one comes.
        has_fast_path: False only where time stands still between ends and the pass, as in a replay.
    """

    def __init__(
        self,
        *,
        epoch: int,
        lease_us: int,
        kept: Kept = FOR_EVER,
        policy: Policy = DEFAULT_POLICY,
        has_fast_path: bool = True,
    ) -> None:
        self.world = World(epoch=epoch, lease_us=lease_us, kept=kept, policy=policy, has_fast_path=has_fast_path)
        self._has_passed = True
        """The last call of `decide` was a pass."""

    # -- start

    def recover(self, now_us: int, wall_us: int, found: Recovered) -> Decision:
        """Take over what the store holds. Every node's lease begins anew now."""
        world = self._begin(now_us)
        world.wall_us, world.wall_seen_us = wall_us, now_us
        world.last_batch = found.last_batch
        world.last_row = max(found.last_row, int(found.meta.get("row", "0")))
        world.grants_set_aside = int(found.meta.get("grant", "0"))
        world.last_grant = world.grants_set_aside + GRANTS_LOST_AT_MOST if world.grants_set_aside else 0
        world.suspended = {NodeId(int(node)) for node in found.meta.get("suspended", "").split()}
        world.last_audit = found.last_audit
        policy.recover(world, found.meta)
        tokens.recover(world, found.tokens)
        for node in found.nodes:
            fleet.recover_node(world, node)
        reservations.recover(world, found.meta)
        for saved in found.batches:
            batch = intake.recover_batch(world, saved)
            ends.finish_if_over(world, batch, wall_us)
        policy.recover_use(world, found.meta)
        intake.recover_last_runs(world, found.batches)
        world.needs_pass = True
        return self._end()

    # -- events

    def handle(self, now_us: int, events: Iterable[Event]) -> Decision:
        """Take events in, in their order. Never a long call by itself: it costs by the events."""
        world = self._begin(now_us)
        for event in events:
            if isinstance(event, _FROM_NODES):
                node = world.nodes.get(event.node)
                if node is None:
                    continue
                fleet.hear(world, node)
            if isinstance(event, (AttemptsEnded, TimePassed)):
                world.wall_us, world.wall_seen_us = event.wall_us, now_us
            _HANDLERS[type(event)](world, event)
        return self._end()

    # -- the pass

    @property
    def needs_pass(self) -> bool:
        """Something has changed since the last pass, or there is work left to do."""
        return self.world.needs_pass or self.goes_on

    @property
    def goes_on(self) -> bool:
        """The next call is wanted at once: a pass has not come to its end, or there is long work left."""
        return self.world.is_passing or bool(self.world.work)

    def decide(self, now_us: int) -> Decision:
        """One pass of the scheduler, or, in turn with passes, a part of what is long work.

        When `needs_pass` is still true afterwards, it wants to be called again.
        """
        world = self._begin(now_us)
        if world.work and (self._has_passed or not (world.needs_pass or world.is_passing)):
            self._has_passed = False
            world.work.go_on()
        else:
            self._has_passed = True
            if not world.is_passing:
                world.needs_pass = False  # what changes before it ends is for the next one
            world.is_passing = not scheduler.decide(world)
        return self._end()

    def next_due_us(self) -> int | None:
        """When a back-off, a promise or a date is due, by the clock of `handle`; None where nothing waits for one."""
        world = self.world
        due = [first[0][0] for first in (world.delayed, world.stalls) if first]
        due += [promise.at_us for promise in world.promises.values() if promise.at_us > world.now_us]
        others = dates.next_due_us(world), preempt.next_due_us(world), reservations.next_due_us(world)
        return min([*due, *(at_us for at_us in others if at_us is not None)], default=None)

    def suspend(self) -> list[Record]:
        """What is to be kept before the nodes are told that the hub stops on purpose; empty where nothing is to be.

        They go on without an end from then on, so nothing of theirs may be given to others before they are back.
        """
        world = self.world
        use = policy.use_record(world)
        records: list[Record] = [] if use is None else [use]
        told = {node.id for node in world.nodes.values() if node.connection and (node.grants or node.claims)}
        if not told <= world.suspended:
            world.suspended |= told
            records.append(world.suspension())
        return records

    # -- questions, which change nothing

    def standing(self, batch_id: BatchId, slots: dict[BatchId, int] | None = None) -> Standing | None:
        """Where an unfinished batch stands; None where the core does not hold it. `slots`: of all, where known."""
        batch = self.world.batches.get(batch_id)
        if batch is None:
            return None
        waiting = [line for line in batch.lines.values() if line.waiting and line.reason]
        reason = batch.reason or (waiting[0].reason_text if waiting and not batch.sent else "")
        return Standing(
            batch=batch.id,
            version=batch.version,
            state=batch.state if batch.counts.waiting() != batch.counts.held else "held",
            counts=batch.counts,
            reason=reason,
            mean_run_us=batch.mean_run_us(),
            slots=self._slots().get(batch.id, 0) if slots is None else slots.get(batch.id, 0),
        )

    def standings(self, after: int, most: int) -> list[Standing]:
        """Where unfinished batches stand, in the order of their numbers: of those above `after`, at most `most`."""
        slots = self._slots()
        asked = sorted(batch for batch in self.world.batches if batch > after)[:most]
        return [standing for batch in asked if (standing := self.standing(batch, slots)) is not None]

    def _slots(self) -> dict[BatchId, int]:
        slots: dict[BatchId, int] = {}
        for node in self.world.nodes.values():
            for line, count in node.active.items():
                slots[line.batch] = slots.get(line.batch, 0) + count
        return slots

    def why(self, batch_id: BatchId, index: Index | None) -> dict[str, object] | None:
        """Why a batch or a job waits; None where the core does not hold the batch."""
        batch = self.world.batches.get(batch_id)
        return None if batch is None else explain.why(self.world, batch, index)

    def fits(self, shapes: Iterable[Shape]) -> list[str]:
        """For each shape why no node can ever hold it, or empty."""
        return [explain.too_large(self.world, shape) for shape in shapes]

    def in_flight(
        self, batch_id: BatchId, first: int, last: int
    ) -> list[tuple[Index, int, str, int, int, list[str]]]:
        """Attempts at nodes: (index, try, node, grant, wall time of the start, further nodes).

        The time is 0 where it is not known to have begun. Of the further nodes at most `OTHERS_MOST` are named in all,
        so that the answer fits a message: those of whole attempts, as far as that goes.
        """
        batch = self.world.batches.get(batch_id)
        if batch is None:
            return []
        wanted = frozenset(range(max(first, 1), min(last, batch.total) + 1))
        found: list[tuple[Index, int, str, int, int, list[str]]] = []
        left = OTHERS_MOST
        for grant in self.world.grants.values():
            members = grant.members & wanted if grant.batch is batch else ()
            others = [node.name for node in grant.others] if members and len(grant.others) <= left else []
            left -= len(others)
            about = grant.attempt, grant.node.name, int(grant.id)
            found += [(Index(index), *about, grant.started.get(Index(index), 0), others) for index in members]
        return sorted(found)

    def reasons(self, batch_id: BatchId, first: int, last: int, most: int) -> list[tuple[int, int, str]]:
        """Why jobs first .. last wait that wait: (first, last, text), ascending, at most `most` of them."""
        batch = self.world.batches.get(batch_id)
        if batch is None:
            return []
        paused = f"the batch is paused: {batch.reason}" if batch.state == "paused" else ""
        found = [
            (low, high, paused or line.reason_text)
            for line in batch.lines.values()
            if paused or line.reason_text
            for low, high in line.waiting.within(first, last)
        ]
        found += [
            (low, high, holds.words(batch, hold))
            for hold in batch.holds
            if hold.kind != holds.SYSTEM
            for within in hold.spans.within(first, last)
            for low, high in batch.held.within(*within)
        ]
        return sorted(found)[:most]

    def nodes(
        self, now_us: int, avoided_most: int | None = None, after: str = "", most: int | None = None
    ) -> list[NodeStanding]:
        """All nodes but those removed, by name; of the batches that avoid one, or stall there, the first few.

        Of nodes with names behind `after` at most the first `most` are told.
        """
        there = (node for node in self.world.nodes.values() if node.state is not NodeState.REMOVED)
        told = sorted((node for node in there if node.name > after), key=lambda node: node.name)[:most]
        avoided_by: dict[NodeId, list[BatchId]] = {}
        stalled: dict[NodeId, list[BatchId]] = {}
        for batch in self.world.batches.values():
            for avoided in batch.avoided:
                avoided_by.setdefault(avoided, []).append(batch.id)
            for stalling in batch.stalls:
                stalled.setdefault(stalling, []).append(batch.id)
        return [
            NodeStanding(
                node=node.id,
                name=node.name,
                state=str(node.state),
                is_drained=node.is_drained,
                capacity=node.capacity,
                running=sum(node.active.values()),
                waiting=node.surplus_count,
                seen_s=(now_us - node.heard_us) / 1e6,
                seen_at_us=node.seen_at_us,
                trouble=node.trouble,
                started_by=node.started_by,
                features=node.features,
                avoided_by=avoided_by.get(node.id, [])[:avoided_most],
                stalled=stalled.get(node.id, [])[:avoided_most],
                free=self.world.layout.left(node.total, node.total - node.free),
                version=node.version,
                escaped=node.escaped,
                facts=dict(node.facts),
                claims=[f"{one.batch.id}/{min(one.members)}" for one in node.claims.values()][:avoided_most],
                reserved=reserved_shown.of_node(self.world, node),
            )
            for node in told
        ]

    # -- for tests

    def check(self) -> None:
        """Raise AssertionError where the core contradicts itself."""
        world = self.world
        for batch in world.batches.values():
            batch.check()
        world.tree.check(batch.leaf for batch in world.every_batch())
        for node in world.nodes.values():
            members = sum(len(grant.members) for grant in node.grants.values())
            assert members == sum(node.active.values()) + node.surplus_count, node.name
        booked: Counter[tuple[Line, bool]] = Counter()
        for node in world.nodes.values():
            booked.update({(line, True): count for line, count in node.active.items()})
            booked.update({(line, False): count for line, count in node.surplus.items()})
            booked.update((grant.line, True) for grant in node.claims.values())
        for batch in world.batches.values():
            for line in batch.lines.values():
                assert (line.active, line.stacked) == (booked[line, True], booked[line, False]), batch.id
        for grant in world.grants.values():
            assert grant.members, grant.id
            assert grant.node.grants[grant.id] is grant
            assert all(node.claims[grant.id] is grant for node in grant.others), grant.id
            assert bool(grant.awaited) <= (grant.id in world.claiming), grant.id
        for node in world.nodes.values():
            assert all(world.grants[grant] is claim for grant, claim in node.claims.items()), node.name
            used = sum(line.vector * count for line, count in node.active.items())
            used += sum(claim.line.vector for claim in node.claims.values())
            assert node.free == node.total - used, node.name
        assert world.total == sum(node.total for node in world.nodes.values() if node.is_in_step)
        limits.check(world)
        laying.check(world)

    def _begin(self, now_us: int) -> World:
        world = self.world
        world.pass_time(now_us)
        world.records, world.effects, world.moved = [], [], {}
        world.work.begin_call()
        return world

    def _end(self) -> Decision:
        world = self.world
        # One word a batch, however often it was touched; of one that has ended its end has been said.
        world.effects += [BatchMoved(batch) for batch in world.moved if batch in world.batches]
        return Decision(world.records, world.effects)
