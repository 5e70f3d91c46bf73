"""What the core wants done. Imperative; the shell carries them out in order, after the records made with them are kept.

Each asynchronous one ends in exactly one event: a start in `AttemptsEnded`, `JobsReturned` or the node's lease running
out, a look in `OldFound`.
"""

from __future__ import annotations

import msgspec

from lanai.model.errors import ErrorBody
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId, TokenId
from lanai.model.resources import Shape


class Effect(msgspec.Struct, frozen=True, gc=False):
    """The root of all effects."""


class AcceptNode(Effect, frozen=True):
    """Welcome the agent on `connection` as `node`."""

    connection: int
    node: NodeId


class RejectNode(Effect, frozen=True):
    """Send the agent on `connection` away."""

    connection: int
    error: ErrorBody


class StartAttempts(Effect, frozen=True):
    """Send a grant. After a reconnect the node may have it already, which changes nothing there.

    `others` are the further nodes of a job over several.
    """

    node: NodeId
    grant: GrantId
    batch: BatchId
    shape: ShapeId
    attempt: int
    spans: tuple[tuple[int, int], ...]
    is_urgent: bool = True
    others: tuple[NodeId, ...] = ()


class ClaimRoom(Effect, frozen=True):
    """Have the node keep room for an attempt that another one runs. Answered by `RoomClaimed`; a repeat is harmless."""

    node: NodeId
    grant: GrantId
    shape: Shape


class UnclaimRoom(Effect, frozen=True):
    """These grants need no room on the node any more."""

    node: NodeId
    grants: list[GrantId]


class RecallJobs(Effect, frozen=True):
    """Ask for what has not begun: (grant, first, last)."""

    node: NodeId
    items: list[tuple[GrantId, int, int]]


class KillAttempts(Effect, frozen=True):
    """End attempts: (grant, index)."""

    node: NodeId
    items: list[tuple[GrantId, Index]]
    grace_us: int
    why: str


class ForgetResults(Effect, frozen=True):
    """The node's spool up to here is kept by us."""

    node: NodeId
    upto: int


class DrainNode(Effect, frozen=True):
    """Tell the node to begin nothing new, or to begin again."""

    node: NodeId
    is_draining: bool


class DismissNode(Effect, frozen=True):
    """Close the node's connection."""

    node: NodeId


class AckChunk(Effect, frozen=True):
    """The chunk is kept."""

    connection: int
    batch: BatchId
    first: int


class Answer(Effect, frozen=True):
    """The answer to request `request`: a result or an error."""

    request: int
    result: dict[str, object] | None = None
    error: ErrorBody | None = None


class TokensChanged(Effect, frozen=True):
    """Whoever checks tokens has to look anew; agents that came in by one of `gone` are to go."""

    gone: tuple[TokenId, ...] = ()


class EndHub(Effect, frozen=True):
    """The wish to stop the hub is kept and answered: end it."""


class LookForOld(Effect, frozen=True):
    """Find a batch that ended before the one time, and events from before the other. Answered by `OldFound`."""

    ended_before_us: int
    told_before_us: int


class BatchMoved(Effect, frozen=True):
    """Watchers of this batch want to know. `has_ended`: the core has let go of it."""

    batch: BatchId
    has_ended: bool = False
