"""What the core is told. Past tense; each is a fact that has happened, with its whole story.

`connection` numbers are the shell's: they let an answer find its way back and keep a word from an old connection from
being taken for one from the new. `caller` is who wished it, for the audit trail; None is the hub itself.
"""

from __future__ import annotations

import msgspec

from lanai.core.batches import Tried
from lanai.model.access import Caller
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId, TokenId
from lanai.model.job import AttemptResult
from lanai.model.policy import Policy
from lanai.model.records import Facts, RecoveredBatch, SaveTail
from lanai.model.request import Check
from lanai.model.reservation import Period, Reservation, Rule
from lanai.model.resources import Capacity, Shape

Spans = tuple[tuple[int, int], ...]


class Event(msgspec.Struct, frozen=True, gc=False):
    """The root of all events."""


class NodeJoined(Event, frozen=True):
    """An agent that the shell has authenticated says hello. `key_hash` tells whether it is the one of that name.

    `takes_claims`: it can be one of the nodes of a job over several; agents of before that cannot.

    `facts` are what it can do on its computer, for people; nothing is decided by them. `token` is the one that it has
    shown, 0 where it is of the hub's machine and needs none.
    """

    connection: int
    name: str
    key_hash: bytes
    boot_id: str
    capacity: Capacity
    features: tuple[str, ...]
    started_by: str
    wall_us: int
    version: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    token: TokenId = TokenId(0)
    takes_claims: bool = True


class NodeTookStock(Event, frozen=True):
    """The agent's whole inventory, all frames of it together: (grant, index, state).

    `claims` are the grants that it keeps room for because another node runs their attempt.
    """

    node: NodeId
    items: list[tuple[GrantId, Index, str]]
    claims: tuple[GrantId, ...] = ()


class RoomClaimed(Event, frozen=True):
    """The node keeps room for the attempts of these grants, which other nodes run. A repeat is harmless."""

    node: NodeId
    grants: list[GrantId]


class NodeHeard(Event, frozen=True):
    """A heartbeat arrived.

    `trouble` is why nothing new can start there, or empty; `escaped` how many processes its attempts have left alive.
    """

    node: NodeId
    trouble: str
    wall_us: int
    escaped: int = 0


class NodeDisconnected(Event, frozen=True):
    """The node's connection ended. Its attempts live on until their lease."""

    node: NodeId
    connection: int


class AttemptsStarted(Event, frozen=True):
    """Attempts have run for 100 ms: (grant, index, wall time of the start)."""

    node: NodeId
    items: list[tuple[GrantId, Index, int]]


class AttemptsEnded(Event, frozen=True):
    """Results from a node's spool, up to its sequence number `upto`. `wall_us` is the hub's time of receipt."""

    node: NodeId
    upto: int
    results: list[AttemptResult]
    wall_us: int


class JobsReturned(Event, frozen=True):
    """Granted jobs that never began and never will; `why` where the node cannot begin them now, else empty."""

    node: NodeId
    items: list[tuple[GrantId, Index]]
    why: str = ""


class TailArrived(Event, frozen=True):
    """The end of an attempt's output, to be kept for those who ask. Nothing is decided by it."""

    tail: SaveTail


class BatchOpened(Event, frozen=True):
    """A batch begins to arrive. The shell has made sure that (user, key) is new."""

    request: int
    user: str
    key: str
    settings: BatchSettings
    env: bytes
    env_blob: bytes
    wall_us: int


class ChunkArrived(Event, frozen=True):
    """A piece of an arriving batch."""

    connection: int
    batch: BatchId
    first: int
    count: int
    runs: tuple[tuple[int, ShapeId], ...]
    shapes: tuple[tuple[ShapeId, Shape], ...]
    lines: bytes
    checks: dict[int, tuple[Check, ...]]


class BatchClosed(Event, frozen=True):
    """The batch is whole."""

    request: int
    batch: BatchId
    total: int
    digest: bytes
    wall_us: int
    caller: Caller | None = None


class BatchAbandoned(Event, frozen=True):
    """Its client is gone, or its list is bad."""

    batch: BatchId


class BatchRevived(Event, frozen=True):
    """An ended batch, read from the store again because somebody wants to retry some of it.

    `tried` is what `intake.tried_of` makes of it: for a million failures that takes seconds, which the core has not.
    """

    batch: RecoveredBatch
    tried: Tried | None = None


class JobsCancelled(Event, frozen=True):
    """Somebody wants jobs not to run. `spans` None is all; `states` empty is any."""

    request: int
    batch: BatchId
    spans: Spans | None
    states: tuple[str, ...]
    wall_us: int
    caller: Caller | None = None


class JobsHeld(Event, frozen=True):
    """Somebody wants waiting jobs to wait on; with `states` only those that are in one of them.

    `until_us`: so long, by the clock on the wall; 0: until they are released.
    `has_more`: the wish goes on in the next event, and is kept with the last of them.
    """

    request: int
    batch: BatchId
    spans: Spans | None
    wall_us: int
    states: tuple[str, ...] = ()
    has_more: bool = False
    caller: Caller | None = None
    until_us: int = 0


class JobsReleased(Event, frozen=True):
    """Held jobs may run; a paused batch goes on where all of it is meant. `states`, `has_more` as with `JobsHeld`."""

    request: int
    batch: BatchId
    spans: Spans | None
    wall_us: int
    states: tuple[str, ...] = ()
    has_more: bool = False
    caller: Caller | None = None


class JobsRetried(Event, frozen=True):
    """Failed and cancelled jobs are to be tried again, with fresh retries."""

    request: int
    batch: BatchId
    spans: Spans | None
    states: tuple[str, ...]
    wall_us: int
    caller: Caller | None = None


class BatchChanged(Event, frozen=True):
    """New priority, limit, account, service, start date or reservation; None leaves it, an empty one is none."""

    request: int
    batch: BatchId
    priority: int | None
    max_running: int | None
    wall_us: int = 0
    caller: Caller | None = None
    account: str | None = None
    service: str | None = None
    start_after_us: int | None = None
    reservation: str | None = None


class NodeWished(Event, frozen=True):
    """A person's wish about a node: `drain`, `resume` or `remove`."""

    request: int
    name: str
    wish: str
    wall_us: int
    caller: Caller | None = None


class TokenCreated(Event, frozen=True):
    """Somebody wants a token, of whose secret the core is told no more than the SHA-256."""

    request: int
    kind: str
    user: str
    sha256: bytes
    expires_at_us: int
    label: str
    wall_us: int
    caller: Caller | None = None


class TokensRevoked(Event, frozen=True):
    """A token (0: none by its number), or every token of a user (empty: nobody's), is good no longer."""

    request: int
    token: TokenId
    user: str
    wall_us: int
    caller: Caller | None = None


class PolicyChanged(Event, frozen=True):
    """Another scheduling policy, complete and checked, is to be in force."""

    request: int
    policy: Policy
    wall_us: int
    caller: Caller | None = None


class ReservationWished(Event, frozen=True):
    """A reservation is to be made, or (`is_change`) the one of that name to be like this."""

    request: int
    reservation: Reservation
    is_change: bool
    wall_us: int
    caller: Caller | None = None


class ReservationDropped(Event, frozen=True):
    """A reservation is to be no more."""

    request: int
    name: str
    wall_us: int
    caller: Caller | None = None


class ReservationRenewed(Event, frozen=True):
    """What the rule of a standing reservation comes to from now on."""

    name: str
    rule: Rule
    periods: tuple[Period, ...]


class HubStopWished(Event, frozen=True):
    """Somebody stops the hub, which has not refused."""

    request: int
    wall_us: int
    caller: Caller | None = None


class Noted(Event, frozen=True):
    """Something for the audit trail that changes nothing the core knows of. Fields as in `SaveAudit`."""

    caller: Caller
    action: str
    subject: str
    wall_us: int
    after: Facts = {}
    is_refused: bool = False
    why: str = ""
    left_out: int = 0


class OldFound(Event, frozen=True):
    """What a `LookForOld` has found.

    `batch` ended longest ago of those that are too old, None where none is; `has_rows`: events are too old, or rows of
    batches that were pruned are left.
    """

    batch: BatchId | None
    has_rows: bool
    told_before_us: int


class TimePassed(Event, frozen=True):
    """Nothing but the time; deadlines are looked at. `wall_us` is for the records that follow from it."""

    wall_us: int
