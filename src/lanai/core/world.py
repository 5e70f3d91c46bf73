"""The state that the core decides on: batches, nodes, grants, and what this call has decided so far.

One object, owned by `HubCore`; the other modules of the core are functions over it. `records` and `effects` collect
what a call is to return: records are kept first, then effects are carried out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappush
from typing import Final, NamedTuple, cast

import msgspec

from lanai.core.batches import Batch
from lanai.core.effects import ClaimRoom, Effect, StartAttempts, UnclaimRoom
from lanai.core.long_work import LongWork
from lanai.core.nodes import Grant, Node
from lanai.core.queue import Span, spans_of
from lanai.core.reserved import Live
from lanai.core.schedule.agenda import Effort
from lanai.core.schedule.cells import Cell
from lanai.core.schedule.counters import Counter, Key
from lanai.core.schedule.leaf import Leaf
from lanai.core.schedule.lines import Line
from lanai.core.schedule.tree import ShareTree
from lanai.model.ids import BatchId, GrantId, Index, NodeId, TokenId, grant_id
from lanai.model.job import AttemptResult
from lanai.model.node import HEARTBEAT_S, LEASE_S
from lanai.model.policy import DEFAULT_POLICY, Policy
from lanai.model.records import DropGrant, Record, SaveEvent, SaveGrant, SaveMeta, SaveToken
from lanai.model.vector import Layout, Vector

SECOND_US: Final = 1_000_000
LAST_RUNS: Final = 2
"""So many run times of a user make a prediction."""
GRANTS_AT_ONCE: Final = 1000
"""Numbers of grants are set aside in the store in lots of this size; a start goes on after the last lot."""
GRANTS_LOST_AT_MOST: Final = 1_000_000
"""So many more are left out at a start: with `durability = normal` a power cut may have taken the last lots with it."""


class Arriving:
    """A batch of which chunks are still coming."""

    __slots__ = ("next", "opened")

    def __init__(self, opened: Batch) -> None:
        self.opened = opened
        self.next = 1


class Promise(NamedTuple):
    """The head of a line is to start on these nodes at `at_us`, by the hub's clock, or sooner.

    It was promised a time first at `since_us`.
    """

    line: Line
    at_us: int
    nodes: tuple[Node, ...]
    since_us: int


class Giving(NamedTuple):
    """Attempts of others are to make room for the head of a line on `nodes`.

    `victims` are these attempts. They are told at `due_us`, if that is still needed (`is_asked`: they have been), and
    have ended by `at_us` at the latest if nothing goes wrong.
    """

    nodes: tuple[Node, ...]
    victims: tuple[tuple[GrantId, Index], ...]
    due_us: int
    at_us: int
    is_asked: bool


class Kept(msgspec.Struct, frozen=True):
    """How long what is over is kept; 0 is for ever."""

    batches_us: int = 0
    events_us: int = 0


FOR_EVER: Final = Kept()


class World:
    """Everything the core knows. Attributes are read and written by the modules of `core` only."""

    def __init__(
        self,
        *,
        epoch: int,
        lease_us: int = LEASE_S * SECOND_US,
        kept: Kept = FOR_EVER,
        policy: Policy = DEFAULT_POLICY,
        has_fast_path: bool = True,
    ) -> None:
        self.epoch = epoch
        self.has_fast_path = has_fast_path
        """An end is followed at once. In a replay, where all of an instant is one pass, it is not."""
        self.lease_us = lease_us
        self.heartbeat_us = HEARTBEAT_S * SECOND_US
        self.now_us = 0
        self.wall_us = 0
        self.layout = Layout()
        self.batches: dict[BatchId, Batch] = {}
        self.arriving: dict[BatchId, Arriving] = {}
        self.tree = ShareTree(DEFAULT_POLICY)
        """What accounts and users have and have used; those that have ever submitted anything stay."""
        self.use_kept = 0.0
        """Its total when that was kept last, and"""
        self.use_due_us = 0
        """when it is to be kept next."""
        self.nodes: dict[NodeId, Node] = {}
        self.total: Vector = 0
        """All capacity of the nodes that have taken stock and are connected."""
        self.names: dict[str, NodeId] = {}
        self.suspended: set[NodeId] = set()
        """Nodes with attempts that were told that the hub stops on purpose, and have not joined since."""
        self.grants: dict[GrantId, Grant] = {}
        self.claiming: dict[GrantId, Grant] = {}
        """Grants over several nodes that are not sent yet, because some of these have not answered."""
        self.cells: dict[tuple[Vector, tuple[str, ...]], Cell] = {}
        self.able: dict[tuple[Vector, frozenset[str]], tuple[Cell, ...]] = {}
        """What `placing.able_cells` has found for lines of a vector and features, until a cell comes or goes."""
        self.policy = policy
        self.counters: dict[Key, Counter] = {}
        """What the policy limits, but for each batch by itself."""
        self.is_limited = False
        """Whether attempts of any batch count in a limit."""
        self.last_runs: dict[str, deque[int]] = {}
        """The last `LAST_RUNS` run times of each user."""
        self.kept = kept
        self.look_due_us = 0
        self.pruned: dict[BatchId, int] = {}
        """Batches that were pruned lately, and when: who has read one before must not revive it."""
        self.reservations: dict[str, Live] = {}
        """Those made by people, by name."""
        self.reservations_due_us = 0
        """When one of them begins or ends next, by the core's own clock; 0: none does."""
        self.reservations_skew_us = 0
        """What the core's own clock was ahead of that on the wall when their steps were laid."""
        self.reservations_are_looked_at = False
        """That one of them begins or ends, or that the clock was set, waits among other work."""
        self.coming: Live | None = None
        """The one that is being laid, and is not in force yet; in place of one of its name, if there is one."""
        self.work = LongWork()
        """All that is done to reservations, one thing after the other."""
        self.effort = Effort()
        """How much this call of the core may still look at anew."""
        self.promises: dict[Line, Promise] = {}
        """What the last pass has promised, in the order of the lines."""
        self.renewed: set[Line] = set()
        """Lines that a pass which goes on has done with: it has found a time for their heads, or that there is none."""
        self.is_renewing = False
        """All promises that outlast the pass are being made anew; those of the lines in `renewed` have been."""
        self.renewal_due_us = 0
        """When they may be made anew again."""
        self.bettered: set[Line] = set()
        """Lines with such a promise for which a better time was looked for since that began anew."""
        self.to_better = 0
        """How much of `effort` the pass may still take for that."""
        self.owed: Line | None = None
        """Whose head's turn came, in the order of `fair`, when there was no room: it is looked at before others."""
        self.giving: dict[Line, Giving] = {}
        """For which lines others make room."""
        self.vain: dict[Line, int] = {}
        """Until when nobody is looked for who could make room for a line, because there was nobody."""
        self.search_due_us = 0
        """When a pass is to look for those that the last one did not; 0: it did."""
        self.delayed: list[tuple[int, BatchId, Index]] = []
        self.dates: list[tuple[int, BatchId]] = []
        """When batches are to be looked at, by the clock on the wall; the first is the next."""
        self.wall_seen_us = 0
        """When that clock showed `wall_us`, by the core's own."""
        self.stalls: list[tuple[int, BatchId, NodeId]] = []
        self.tokens: dict[TokenId, SaveToken] = {}
        self.token_of: dict[bytes, SaveToken] = {}
        """By the SHA-256 of the secret."""
        self.token_due_us = 0
        """When the next token expires, by the clock on the wall; 0: none does."""
        self.last_audit = 0
        self.last_batch = 0
        self.last_node = 0
        self.last_grant = 0
        self.grants_set_aside = 0
        self.last_row = 0
        self.needs_pass = False
        """Something has changed that no pass has begun with."""
        self.is_passing = False
        """The last pass has not come to its end: it goes on in the next call."""
        self.records: list[Record] = []
        self.effects: list[Effect] = []
        self.moved: dict[BatchId, None] = {}
        """Batches that this call has touched."""

    # -- what this call decides

    def keep(self, record: Record) -> None:
        """Have the store keep it, before any effect of this call."""
        self.records.append(record)

    def do(self, effect: Effect) -> None:
        """Have the shell do it, after the records of this call are kept."""
        self.effects.append(effect)

    def tell(self, kind: str, subject: str, text: str) -> None:
        """Leave a line in the log of events."""
        self.keep(SaveEvent(self.wall_us, kind, subject, text))

    def touch(self, batch: Batch) -> None:
        """The batch has moved: its watchers are told once this call is over, its progress is to be recorded."""
        batch.version += 1
        batch.is_dirty = True
        self.moved[batch.id] = None

    def suspension(self) -> Record:
        """Which nodes' leases are suspended, as a record."""
        return SaveMeta("suspended", " ".join(map(str, sorted(self.suspended))))

    def lift_suspension(self, node: Node) -> None:
        """The node has joined again, or its attempts are known to be no more: its lease runs as all do."""
        if node.id in self.suspended:
            self.suspended.discard(node.id)
            self.keep(self.suspension())

    def measure_lines(self) -> None:
        """Nodes offer what they did not before: requests that name it may be such as a node can hold."""
        for batch in (*self.batches.values(), *(arriving.opened for arriving in self.arriving.values())):
            for line in batch.lines.values():
                # Of a line with attempts at nodes this changes nothing: what it names was offered there.
                if line.shape.named:
                    line.vector = self.layout.request(line.shape)

    def leaf_of(self, account: str, user: str) -> Leaf:
        """The leaf that those of the user's batches in the account hang from."""
        return self.tree.user(account, user)

    def every_batch(self) -> Iterator[Batch]:
        """All that have not ended, those that are arriving last."""
        yield from self.batches.values()
        for arriving in self.arriving.values():
            yield arriving.opened

    def pass_time(self, now_us: int) -> None:
        """It is now so late, by the hub's own clock."""
        self.now_us = now_us
        self.tree.set(now_us, (batch.leaf for batch in self.every_batch()))

    def wake_at(self, batch: BatchId, at_us: int) -> None:
        """The batch wants to be looked at then, by the clock on the wall."""
        heappush(self.dates, (at_us, batch))

    # -- cells

    def cell_of(self, node: Node) -> Cell:
        """The cell that the node belongs to, made when first needed."""
        key = node.total, node.features
        found = self.cells.get(key)
        if found is None:
            found = self.cells[key] = Cell(node.total, node.features)
            self.able.clear()
        return found

    def reindex(self, node: Node) -> None:
        """Put the node where its free amount belongs, or take it out if it is not open."""
        if node.is_open():
            self.cell_of(node).put(node, self.layout.guard)
        else:
            self.unindex(node)

    def unindex(self, node: Node) -> None:
        """Take the node out; a cell goes with its last node, since passes cost by the number of cells."""
        key = node.total, node.features
        cell = self.cells.get(key)
        if cell is not None:
            cell.drop(node)
            if cell.is_empty:
                del self.cells[key]
                self.able.clear()

    # -- nodes in step

    def step_in(self, node: Node) -> None:
        """The node has taken stock, so that grants may be sent."""
        if not node.is_in_step:
            node.is_in_step = True
            self.total += node.total

    def step_out(self, node: Node) -> None:
        """Nothing may be sent to the node until it has taken stock. To be called before its capacity changes."""
        if node.is_in_step:
            node.is_in_step = False
            self.total -= node.total

    # -- grants

    def next_row(self) -> int:
        """The number of the next attempt row."""
        self.last_row += 1
        return self.last_row

    def book(self, batch: Batch, line: Line, count: int) -> None:
        """So many more attempts of a line of the batch are at nodes, the surplus included; fewer where negative."""
        line.sent += count
        batch.sent += count
        for counter in batch.counters:
            counter.book(line, count)
        if count > 0 and self.owed is line:
            self.owed = None

    def observe(self, user: str, walls_us: list[int]) -> None:
        """So many more jobs of the user ran for so long."""
        runs = self.last_runs.get(user)
        if runs is None:
            runs = self.last_runs[user] = deque(maxlen=LAST_RUNS)
        runs += walls_us

    def give(
        self,
        node: Node,
        line: Line,
        spans: list[Span],
        *,
        is_urgent: bool,
        was_stacked: bool = False,
        is_booked: bool = False,
    ) -> None:
        """Make grants for jobs already taken out of the line's waiting spans: one for each attempt number among them.

        The caller has booked the room on the node, or (`was_stacked`) that they wait there for room; where `is_booked`,
        he has also called `book`.
        """
        batch = self.batches[line.batch]
        batch.has_begun = True
        counts = batch.counts
        for attempt, ranges, members in _by_attempt(batch, spans):
            number = self._next_grant()
            grant = Grant(number, node, batch, line, attempt, members, self.now_us, was_stacked=was_stacked)
            self.grants[number] = node.grants[number] = grant
            self.records.append(SaveGrant(number, node.id, batch.id, attempt, ranges))
            self.effects.append(StartAttempts(node.id, number, batch.id, line.shape_id, attempt, ranges, is_urgent))
            count = len(members)
            if not is_booked:
                self.book(batch, line, count)
            counts.queued -= count
            counts.locked += count
        self.touch(batch)

    def give_wide(self, nodes: list[Node], line: Line, span: Span) -> None:
        """Make the grant of one job over several nodes, and book the room on all of them.

        The command runs on the first of the nodes, by id. It is sent when all others have said that they keep the room.
        The caller has called `book`.

        Args:
            nodes: open ones, two or more, each with room for the line's head.
            span: the job's index twice, already taken out of the line's waiting spans.
        """
        first, *others = sorted(nodes, key=lambda node: node.id)
        batch, index = self.batches[line.batch], Index(span[0])
        grant = Grant(self._next_grant(), first, batch, line, batch.attempt_of(index), {index}, self.now_us)
        grant.others = tuple(others)
        grant.awaited = frozenset(node.id for node in others)
        self.grants[grant.id] = first.grants[grant.id] = self.claiming[grant.id] = grant
        first.occupy(line, 1)
        self.keep(grant.record())
        for node in others:
            node.claim(grant)
            self.do(ClaimRoom(node.id, grant.id, line.shape))
        for node in nodes:
            self.reindex(node)
        batch.has_begun = True
        batch.counts.queued -= 1
        batch.counts.locked += 1
        self.touch(batch)

    def lift(self, promise: Promise) -> None:
        """What its nodes keep for the line that was promised them, they keep no longer."""
        for node in promise.nodes:
            node.lift(promise.line)

    def _next_grant(self) -> GrantId:
        """A number that no grant ever had, not even one of which the store no longer knows."""
        self.last_grant += 1
        if self.last_grant > self.grants_set_aside:
            self.grants_set_aside = self.last_grant + GRANTS_AT_ONCE - 1
            self.keep(SaveMeta("grant", str(self.grants_set_aside)))
        return grant_id(self.epoch, self.last_grant)

    def leave_grant(self, grant: Grant, index: Index) -> None:
        """One member has left the grant, whatever became of it. Counts of the batch are set to queued for now."""
        grant.members.discard(index)
        counts = grant.batch.counts
        if grant.started.pop(index, None) is None:
            counts.locked -= 1
        else:
            counts.running -= 1
        counts.queued += 1
        self.book(grant.batch, grant.line, -1)
        if not grant.members:
            self.drop_grant(grant)

    def left_grant(self, grant: Grant, results: list[AttemptResult]) -> None:
        """These members have left the grant's members: count them out, the rest of it as in `leave_grant`."""
        started, count = grant.started, len(results)
        running = sum(started.pop(result.index, None) is not None for result in results) if started else 0
        grant.batch.counts.running -= running
        grant.batch.counts.locked -= count - running
        self.book(grant.batch, grant.line, -count)
        if not grant.members:
            self.drop_grant(grant)

    def drop_grant(self, grant: Grant) -> None:
        """The grant has no members left."""
        del self.grants[grant.id]
        grant.node.grants.pop(grant.id, None)
        self.keep(DropGrant(grant.id))
        if grant.others:
            self._free_others(grant)

    def _free_others(self, grant: Grant) -> None:
        self.claiming.pop(grant.id, None)
        for node in grant.others:
            node.unclaim(grant, self.layout.guard)
            self.do(UnclaimRoom(node.id, [grant.id]))
            self.reindex(node)
        self.needs_pass = True


def _by_attempt(batch: Batch, spans: list[Span]) -> list[tuple[int, tuple[Span, ...], set[Index]]]:
    """Jobs by the number of their next attempt, as spans and as a set."""
    if not batch.tries:
        members: set[int] = set()
        for first, last in spans:
            members.update(range(first, last + 1))
        return [(1, tuple(spans), cast("set[Index]", members))]
    found: dict[int, set[Index]] = {}
    for first, last in spans:
        for index in range(first, last + 1):
            found.setdefault(batch.attempt_of(Index(index)), set()).add(Index(index))
    return [(attempt, spans_of(own), own) for attempt, own in found.items()]
