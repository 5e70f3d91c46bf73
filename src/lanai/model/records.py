"""What the store is told to keep: the rows of one transaction, as the core emits them.

A record says what is to be true afterwards, never how. Applying one twice is harmless. `Ranges` are ascending, disjoint
(first, last) pairs of job indices.
"""

from __future__ import annotations

import msgspec

from lanai.model.access import Caller
from lanai.model.batch import BatchSettings, Counts
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId, TokenId
from lanai.model.request import Check
from lanai.model.resources import Capacity, Shape

Ranges = tuple[tuple[int, int], ...]
HoldRow = tuple[str, int, int, int, int]


class Record(msgspec.Struct, frozen=True, gc=False):
    """The root of all records."""


class SaveEnv(Record, frozen=True):
    """An environment, kept once however many batches share it. `digest` is the SHA-256 of `blob`, which is msgpack."""

    digest: bytes
    blob: bytes


class OpenBatch(Record, frozen=True):
    """A batch that is arriving. (user, key) is unique among all batches. `account` is what it is charged to."""

    batch: BatchId
    user: str
    key: str
    settings: BatchSettings
    env: bytes
    opened_at_us: int
    account: str = ""


class SaveShape(Record, frozen=True):
    """A shape of a batch; the core adds ones of its own for memory retries."""

    batch: BatchId
    shape: ShapeId
    request: Shape


class SaveChunk(Record, frozen=True):
    """Jobs first .. first+count-1 of a batch. `runs` are (count, shape) in order; `lines` are joined by NUL."""

    batch: BatchId
    first: int
    count: int
    runs: tuple[tuple[int, ShapeId], ...]
    lines: bytes
    checks: dict[int, tuple[Check, ...]] = {}


class CloseBatch(Record, frozen=True):
    """The batch is whole; it may run."""

    batch: BatchId
    total: int
    digest: bytes
    submitted_at_us: int


class DropBatch(Record, frozen=True):
    """An arriving batch was abandoned; everything of it goes."""

    batch: BatchId


class SetBatch(Record, frozen=True):
    """What may change about a batch later.

    Attributes:
        state: `open`, `held`, `paused` or `ended`.
        reason: why it is paused or was stopped, else empty.
        avoided: nodes that this batch stays away from.
        ended_at_us: 0 while it has not ended.
    """

    batch: BatchId
    state: str
    priority: int
    max_running: int
    reason: str = ""
    avoided: tuple[NodeId, ...] = ()
    ended_at_us: int = 0


class SaveSettings(Record, frozen=True):
    """The batch's settings, in which its account, its service and its start date have changed."""

    batch: BatchId
    settings: BatchSettings


class SaveAccount(Record, frozen=True):
    """The batch is charged to another account from now on."""

    batch: BatchId
    account: str


class SaveProgress(Record, frozen=True):
    """The batch's waiting jobs, none of them granted, as of attempt row `upto`, and its counts then."""

    batch: BatchId
    upto: int
    pending: Ranges
    held: Ranges
    counts: Counts


class SaveOverride(Record, frozen=True):
    """One thing that differs for some jobs of a batch: `cancelled`, `shape` (value: the shape's id), `hold KIND BY`,
    or `preempted HOW` (value: the batch that the attempt at a node is to give way to).

    The value of a hold is when it ends, 0 where it does not; `at_us` is since when.

    Overrides of the same `what` replace each other where they overlap.
    """

    batch: BatchId
    first: int
    last: int
    what: str
    value: int = 0
    at_us: int = 0


class DropOverrides(Record, frozen=True):
    """Jobs first .. last no longer have an override `what`."""

    batch: BatchId
    first: int
    last: int
    what: str


class SaveGrant(Record, frozen=True):
    """A grant, new or with fewer members than before.

    Attributes:
        others: further nodes that its one member has to itself as it has `node`, which runs the command; ascending.
        broken: why that attempt is to end before its time: one of its nodes was lost. Empty: it is whole.
    """

    grant: GrantId
    node: NodeId
    batch: BatchId
    attempt: int
    ranges: Ranges
    others: tuple[NodeId, ...] = ()
    broken: str = ""


class DropGrant(Record, frozen=True):
    """All members have attempt rows or were returned. Which `others` it had is kept with its attempts."""

    grant: GrantId


AttemptRow = tuple[
    int,  # row: the core's own counter, ascending in commit order
    BatchId,
    Index,
    int,  # attempt, from 1
    GrantId,
    NodeId,
    str,  # state of the job after it: done, failed, cancelled or queued
    str,  # outcome
    int | None,  # exit_code
    int,  # signal
    int,  # started_at_us, 0 where it never began
    int,  # ended_at_us
    int,  # wall_us
    int,  # cpu_user_us
    int,  # cpu_system_us
    int | None,  # memory_peak_bytes
    str,  # reason
]


class SaveAttempts(Record, frozen=True):
    """Attempts that ended, and what became of their jobs."""

    rows: list[AttemptRow]


class ReopenJobs(Record, frozen=True):
    """Failed and cancelled jobs first .. last are to be tried again with fresh retries.

    All their attempt rows so far get the state `reopened`: not final any more, and charged for nothing.
    """

    batch: BatchId
    first: int
    last: int


class SaveNode(Record, frozen=True):
    """A node that has joined at least once. `seen_at_us` is wall time."""

    node: NodeId
    name: str
    key_hash: bytes
    boot_id: str
    state: str
    is_drained: bool
    capacity: Capacity
    features: tuple[str, ...]
    started_by: str
    joined_at_us: int
    seen_at_us: int


class SaveReason(Record, frozen=True):
    """Why the line (batch, shape) waits. An empty `code` removes it."""

    batch: BatchId
    shape: ShapeId
    code: str
    text: str
    since_us: int


class SaveTail(Record, frozen=True):
    """The last bytes of both outputs of an attempt; `*_bytes` are the whole lengths.

    With `node`, who has sent it: it is kept only where an attempt of that name has ended there.
    """

    batch: BatchId
    index: Index
    attempt: int
    is_failed: bool
    out: bytes
    err: bytes
    out_bytes: int
    err_bytes: int
    node: NodeId = NodeId(0)


class SaveEvent(Record, frozen=True):
    """Something that people may want to read later."""

    at_us: int
    kind: str
    subject: str
    text: str


Facts = dict[str, str | int | bool]
"""How something stood, in a few words and numbers."""


class SaveAudit(Record, frozen=True):
    """Somebody changed something, or was refused: who, from where, what, and how it stood before and after.

    Attributes:
        row: the core's own counter, ascending.
        action: as in `model.access`.
        subject: what it was done to, e.g. `batch 417`.
        is_refused: nothing was changed; `why` says why not.
        left_out: how many refusals of the same caller before this one were not written down.
    """

    row: int
    at_us: int
    caller: Caller
    action: str
    subject: str
    before: Facts = {}
    after: Facts = {}
    is_refused: bool = False
    why: str = ""
    left_out: int = 0


class SaveToken(Record, frozen=True):
    """A token. `sha256` is all there is of its secret; the times are wall time, 0 where there is none."""

    token: TokenId
    kind: str
    user: str
    sha256: bytes
    created_at_us: int
    expires_at_us: int = 0
    revoked_at_us: int = 0
    label: str = ""

    def is_good(self, wall_us: int) -> bool:
        """Whether it opens its door at that time."""
        return not self.revoked_at_us and (not self.expires_at_us or wall_us < self.expires_at_us)


class PruneBatch(Record, frozen=True):
    """An ended batch is too old: from now on there is no such batch. Its many rows go by `PruneRows`."""

    batch: BatchId


class PruneRows(Record, frozen=True):
    """Up to about `most` rows are gone of batches that were pruned, and as many events and rows of the audit trail.

    Of these two what is from before `told_before_us` goes.
    """

    told_before_us: int
    most: int


class SaveMeta(Record, frozen=True):
    """A value of the hub's own: `hub`, `epoch`, `port`, `grant`, `row`, ..."""

    name: str
    value: str


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a hub needs at its start: of batches that have not ended only, and never a command line.

    Attributes:
        meta: all values.
        last_batch: the highest batch id ever given.
        last_row: the highest attempt row ever written.
        batches: those open, held or paused.
        nodes: all that ever joined and were not removed for good.
        tokens: all, by number.
        last_audit: the highest row of the audit trail.
    """

    meta: dict[str, str]
    last_batch: int
    last_row: int
    batches: list[RecoveredBatch]
    nodes: list[SaveNode]
    tokens: list[SaveToken] = []
    last_audit: int = 0


class RecoveredBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One unfinished batch.

    Attributes:
        runs: (first, count, shape) in order of indices.
        progress: the last one written, None where there is none (then all jobs were pending at attempt row 0).
        attempts: rows after `progress.upto`, in order: (row, index, attempt, grant, node, state, outcome, wall_us).
        charged: attempts of the whole batch whose outcome was not `ok`: (index, attempt, outcome, state, node), by
            index, and of one job by row.
        grants: with their members that have no attempt row of that grant yet.
        cancelled: ranges cancelled while waiting.
        reshaped: (first, last, shape) of memory retries.
        holds: (what, first, last, value, at_us) of overrides that say who holds jobs, by what and first.
        preempted: the same of those that say which attempts at nodes are to give way.
        account: what it was charged to; empty where an older version did not say.
        reasons: why its lines wait, by shape; there may be some of lines of which nothing waits any more.
        walls: (row, index, wall_us) of its last few successes, by row, as far as they are among its last rows.
    """

    batch: BatchId
    user: str
    key: str
    settings: BatchSettings
    env: bytes
    total: int
    submitted_at_us: int
    state: SetBatch | None
    shapes: dict[ShapeId, Shape]
    runs: list[tuple[int, int, ShapeId]]
    progress: SaveProgress | None
    attempts: list[tuple[int, Index, int, GrantId, NodeId, str, str, int]]
    charged: list[tuple[Index, int, str, str, NodeId]]
    grants: list[SaveGrant]
    cancelled: Ranges
    reshaped: list[tuple[int, int, ShapeId]]
    holds: list[HoldRow] = []
    preempted: list[HoldRow] = []
    account: str = ""
    reasons: list[SaveReason] = []
    walls: list[tuple[int, Index, int]] = []
