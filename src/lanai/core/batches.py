"""A batch in the core: its lines, its counts, its sparse exceptions. No decisions; those are its callers'.

Every job of the batch is in exactly one of: a line's waiting spans, `held`, a grant's members, `delayed`, or ended
(`failed`, `cancelled`, else done). `counts` says how many, and `check()` that both agree.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from lanai.core.queue import Span, Spans
from lanai.core.schedule.counters import Counter
from lanai.core.schedule.leaf import Leaf
from lanai.core.schedule.lines import Line
from lanai.model.batch import BatchSettings, Counts, Retries
from lanai.model.ids import BatchId, Index, NodeId, ShapeId
from lanai.model.job import Outcome
from lanai.model.policy import NO_ACCOUNT
from lanai.model.records import SaveProgress, SetBatch
from lanai.model.resources import Shape
from lanai.model.vector import Layout

ANYWHERE: Final = NodeId(0)
STUCK_US: Final = 8_000_000
"""A stall that takes so long follows others, the first of them about as long ago."""
RECORD_US: Final = 900_000
RECORD_PIECE_US: Final = 20
"""Recording a span costs about 1 us: so it takes a twentieth of the time at most."""
_RECENT: Final = 20


class Tries:
    """What a job that did not succeed at once has behind it. A job that has failed for good is charged with nothing:
    if it is tried once more, that is by `lanai retry`, which begins anew."""

    __slots__ = ("attempts", "charges", "gave_way")

    def __init__(self) -> None:
        self.attempts = 0
        self.charges: dict[str, int] = {}
        self.gave_way = 0
        """How often an attempt of it was ended for another job, which is no charge."""


class Tried(NamedTuple):
    """What the jobs of a batch have behind them that did not succeed at once: read from the store, for one batch only.

    `failed` and `cancelled` are those whose last attempt was to be their last. `shunned` are nodes that could not begin
    a job, which is to be tried again, on another one.
    """

    tries: dict[Index, Tries]
    failed: Spans
    cancelled: Spans
    shunned: dict[Index, NodeId]


def allowed(retries: Retries, cause: str) -> int:
    """How many retries a cause is granted."""
    return {
        Outcome.EXIT: retries.exit,
        Outcome.SIGNAL: retries.signal,
        Outcome.CHECK: retries.check,
        Outcome.TIME: retries.time,
        Outcome.MEMORY: retries.memory,
        Outcome.NODE: retries.node,
        Outcome.LOST: retries.node,
        Outcome.NOTFOUND: 1,
    }.get(Outcome(cause), 0)


class Stall(NamedTuple):
    """A node cannot begin the batch's jobs for a reason that passes: until when it is left alone, and why."""

    until_us: int
    why: str


class Way(NamedTuple):
    """An attempt at a node is to give way to a job of the batch `to`; `how` is `requeue` or `cancel`."""

    to: BatchId
    how: str


class Hold(NamedTuple):
    """Who holds those of `spans` that are held: `kind` as in `core/holds.py`; until 0 it does not end by itself."""

    kind: str
    by: str
    since_us: int
    until_us: int
    spans: Spans


class Batch:
    """One unfinished batch. `user_leaf` is what its user has in all in the account that the batch belongs to."""

    def __init__(
        self,
        batch: BatchId,
        user: str,
        settings: BatchSettings,
        env: bytes,
        layout: Layout,
        user_leaf: Leaf,
        submitted_at_us: int,
        account: str = NO_ACCOUNT,
    ) -> None:
        self.id = batch
        self.user = user
        self.settings = settings
        self.env = env
        self.submitted_at_us = submitted_at_us
        self.user_leaf = user_leaf
        self.account = account
        self.leaf = Leaf(user_leaf.clock, batch, settings.priority, above=user_leaf)
        self.max_running = settings.max_running
        self.state = "open"
        self.reason = ""
        self.counts = Counts()
        self.shapes: dict[ShapeId, Shape] = {}
        self.runs: list[tuple[int, int, ShapeId]] = []
        self.reshaped: dict[Index, ShapeId] = {}
        self.lines: dict[tuple[ShapeId, NodeId], Line] = {}
        self.tries: dict[Index, Tries] = {}
        self.held = Spans()
        self.holds: list[Hold] = []
        self.failed = Spans()
        self.cancelled = Spans()
        self.delayed: set[Index] = set()
        self.cancel_wishes: set[Index] = set()
        self.hold_wishes: set[Index] = set()
        self.ways: dict[Index, Way] = {}
        """Jobs whose attempts at nodes are to give way to others."""
        self.node_failures: dict[NodeId, int] = {}
        self.avoided: set[NodeId] = set()
        self.stalls: dict[NodeId, Stall] = {}
        self.stall_waits_us: dict[NodeId, int] = {}
        """How long the last stall on a node took; gone once something has begun there."""
        self.failed_in_row: set[Index] = set()
        self.nodes_in_row: set[NodeId] = set()
        self.version = 1
        self.is_dirty = False
        """Its progress differs from what was last recorded,"""
        self.recorded_us = 0
        """which was then, by the hub's own clock."""
        self.has_begun = False
        """It has had its first turn: something was started, or way was made for it."""
        self.sent = 0
        self.counters: tuple[Counter, ...] = ()
        """Those limits that its attempts at nodes count in,"""
        self.queues: tuple[Counter, ...] = ()
        """and those on how many waiting jobs are considered."""
        self.is_early = False
        """None of its jobs is to start yet: its date is still to come."""
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._layout = layout

    @property
    def priority(self) -> int:
        """From 1, the most urgent, to 10000; a weight, not an order."""
        return self.leaf.priority

    @property
    def total(self) -> int:
        """All jobs."""
        return self.counts.total()

    @property
    def waiting(self) -> int:
        """Jobs in lines: neither held nor delayed nor at a node."""
        count = 0
        for line in self.lines.values():
            count += line.waiting.count
        return count

    @property
    def is_open(self) -> bool:
        """Whether its jobs may start: it is not paused, and not early."""
        return self.state == "open" and not self.is_early

    def is_barred(self, node: NodeId) -> bool:
        """Whether nothing of it goes to that node now, whatever is free there."""
        return node in self.avoided or node in self.stalls

    def is_stuck(self, node: NodeId) -> bool:
        """Whether nothing of it has begun on that node for so long that others must not wait for it to be tried."""
        return self.stall_waits_us.get(node, 0) >= STUCK_US

    def room(self) -> int:
        """How many more attempts its own limit allows at once."""
        return self.max_running - self.sent if self.max_running else 1 << 60

    def shape_of(self, index: Index) -> ShapeId:
        """The shape that a job has now."""
        changed = self.reshaped.get(index)
        if changed is not None:
            return changed
        return self.runs[self._run_of(index)][2]

    def line(self, shape: ShapeId, not_on: NodeId = ANYWHERE) -> Line:
        """The line for a shape, made when first asked for."""
        found = self.lines.get((shape, not_on))
        if found is None:
            request = self.shapes[shape]
            found = Line(self.id, self.leaf, shape, request, self._layout.request(request), not_on)
            self.lines[shape, not_on] = found
        return found

    def append(self, first: int, count: int, shape: ShapeId) -> None:
        """The next `count` jobs of an arriving batch, `first` being the first of them; they wait."""
        if self.runs and self.runs[-1][2] == shape:
            begin, before, _ = self.runs[-1]
            self.runs[-1] = (begin, before + count, shape)
        else:
            self.runs.append((first, count, shape))
        self.line(shape).waiting.add(first, first + count - 1)

    def enqueue(self, spans: Iterable[Span]) -> None:
        """Put jobs, in ascending spans, into the lines of their shapes, at their places."""
        by_shape: dict[ShapeId, list[Span]] = {}
        for first, last in spans:
            for low, high, shape in self._by_shape(first, last):
                by_shape.setdefault(shape, []).append((low, high))
        for shape, own in by_shape.items():
            self.line(shape).waiting.merge(own)

    def dequeue(self, first: int, last: int) -> list[Span]:
        """Take jobs out of all lines; returns those that were waiting there."""
        return [span for line in self.lines.values() for span in line.waiting.remove(first, last)]

    def pending(self) -> Spans:
        """Everything that waits without being held or at a node, the delayed included."""
        spans = [span for line in self.lines.values() for span in line.waiting]
        spans += [(index, index) for index in self.delayed]
        return Spans.of(spans)

    def is_pending(self, index: Index) -> bool:
        """Whether `pending` would hold it, without making that."""
        return index in self.delayed or any(index in line.waiting for line in self.lines.values())

    def attempt_of(self, index: Index) -> int:
        """The number that the job's next attempt gets, or its current one has."""
        tries = self.tries.get(index)
        return tries.attempts + 1 if tries else 1

    def observe(self, walls_us: list[int]) -> None:
        """So many more of its jobs ran for so long."""
        self._recent += walls_us[-_RECENT:]

    def mean_run_us(self) -> int:
        """Mean of its last run times; 0 while there are none."""
        return sum(self._recent) // len(self._recent) if self._recent else 0

    def progress(self, upto: int) -> SaveProgress:
        """Its waiting jobs and counts as a record. Jobs at nodes that are to be held are among the held."""
        self.is_dirty = False
        held = self.held
        if self.hold_wishes:
            held = Spans.of([*self.held, *((index, index) for index in self.hold_wishes)])
        return SaveProgress(self.id, upto, self.pending().spans(), held.spans(), _copy(self.counts))

    def progress_is_due(self, now_us: int) -> bool:
        """Whether to record it now: once a second, less often where its waiting jobs make up very many spans."""
        if not self.is_dirty:
            return False
        pieces = self.held.pieces + sum(line.waiting.pieces for line in self.lines.values())
        return now_us - self.recorded_us >= max(RECORD_US, pieces * RECORD_PIECE_US)

    def standing(self, ended_at_us: int = 0) -> SetBatch:
        """Its state, limits and reason as a record."""
        return SetBatch(
            self.id, self.state, self.priority, self.max_running, self.reason, tuple(sorted(self.avoided)), ended_at_us
        )

    def check(self) -> None:
        """Raise AssertionError where its parts disagree. For tests; costs by the number of spans."""
        at_nodes = self.counts.locked + self.counts.running
        assert self.sent == at_nodes == sum(line.sent for line in self.lines.values()), (self.sent, self.counts)
        assert self.counts.queued == self.waiting + len(self.delayed), (self.counts, self.waiting)
        assert self.counts.held == self.held.count
        assert self.counts.failed == self.failed.count
        assert self.counts.cancelled == self.cancelled.count

    def _run_of(self, index: int) -> int:
        return bisect_right(self.runs, index, key=lambda run: run[0]) - 1

    def _by_shape(self, first: int, last: int) -> list[tuple[int, int, ShapeId]]:
        found: list[tuple[int, int, ShapeId]] = []
        at = self._run_of(first)
        while at < len(self.runs) and self.runs[at][0] <= last:
            start, count, shape = self.runs[at]
            low, high = max(first, start), min(last, start + count - 1)
            found += self._around_reshaped(low, high, shape)
            at += 1
        return found

    def _around_reshaped(self, low: int, high: int, shape: ShapeId) -> list[tuple[int, int, ShapeId]]:
        if not self.reshaped:
            return [(low, high, shape)]
        found: list[tuple[int, int, ShapeId]] = []
        for index in sorted(index for index in self.reshaped if low <= index <= high):
            if low < index:
                found.append((low, index - 1, shape))
            found.append((index, index, self.reshaped[index]))
            low = index + 1
        if low <= high:
            found.append((low, high, shape))
        return found


def _copy(counts: Counts) -> Counts:
    return Counts(
        held=counts.held,
        queued=counts.queued,
        locked=counts.locked,
        running=counts.running,
        done=counts.done,
        failed=counts.failed,
        cancelled=counts.cancelled,
    )
