"""Every message between hub, agents and the API process.

Structs are tagged and array-like: fields are only ever added at the end, with a default; an unknown tag is refused.
Both ends can repeat everything: a Grant already known changes nothing, an unknown Recall is answered Returned, an
Ended seen twice is only acknowledged.

    agent -> hub   Hello Inventory Heartbeat Started Ended Returned Claimed Tail Output InputTaken
    hub -> agent   Welcome Refused Spec Unspec Grant Recall Kill Claim Unclaim Forget Beat Drain Suspend
                   Fetch Credit Unfetch Input
    api -> hub     Hello Open Chunk Close Abandon Command Noted Watch Follow Credit Unfetch Input
    hub -> api     Welcome Refused Opened ChunkTaken Reply Progress TokensChanged Output InputTaken
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from lanai.model.access import Caller
from lanai.model.batch import BatchSettings, Counts
from lanai.model.errors import ErrorBody
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId
from lanai.model.job import Amount, AttemptResult
from lanai.model.request import Check
from lanai.model.resources import Capacity, Shape

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 2
CLAIMS_PROTOCOL: Final = 2
"""From here on agents know Claim and Unclaim, and what `Grant.nodes` means."""

_WITHIN_AMOUNT: Final = msgspec.Meta(ge=0, le=(1 << 62) - 1)
"""What `Amount` is bounded by, for numbers with a type of their own."""


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=True):
    """The root of all messages; the tag is the class's name."""


# -- opening a connection


class Hello(Message, frozen=True):
    """The first message of whoever connects.

    Attributes:
        kind: `agent` or `api`.
        token: the join token, as hexadecimal digits; empty on the hub's own Unix socket.
        key: proves that an agent of this name is the one that joined under it first.
        capacity: None but for agents.
        started_by: the user who runs the agent.
        facts: what it can and cannot do on this computer, for people: (name, text), such as `runs_as`, `memory_limit`.
    """

    kind: str
    protocol_min: int
    protocol_max: int
    version: str
    token: str = ""
    name: str = ""
    key: str = ""
    boot_id: str = ""
    pid: int = 0
    wall_us: int = 0
    capacity: Capacity | None = None
    features: tuple[str, ...] = ()
    started_by: str = ""
    facts: tuple[tuple[str, str], ...] = ()


class Welcome(Message, frozen=True):
    """The hub's yes. `heartbeat_us` and `lease_us` hold for this connection."""

    protocol: int
    version: str
    hub: str
    epoch: int
    node: NodeId
    lease_us: int
    heartbeat_us: int
    wall_us: int


class Refused(Message, frozen=True):
    """The hub's no; the connection ends after it."""

    error: ErrorBody


# -- agent to hub


class Inventory(Message, frozen=True):
    """Everything the agent still answers for: (grant, index, state), state `waiting`, `running` or `ended`.

    `ended` ones are in the spool and follow as Ended. Sent once after Welcome, in as many frames as it needs; the last
    has `is_last`, and names the grants that room is kept for because another node runs their attempt.
    """

    items: list[tuple[GrantId, Index, str]]
    is_last: bool
    claims: list[GrantId] = []


class Heartbeat(Message, frozen=True):
    """Every `heartbeat_us`, answered by a Beat of the same number.

    Attributes:
        trouble: why nothing new can start here (`disk full`), or empty.
    """

    number: int
    wall_us: int
    running: int = 0
    waiting: int = 0
    trouble: str = ""
    escaped: int = 0


class Started(Message, frozen=True):
    """Attempts that have been running for 100 ms: (grant, index, wall time of the start in us).

    After the inventory it names all that run, since the hub may be another process than the one that was told.
    """

    items: list[tuple[GrantId, Index, int]]


class Ended(Message, frozen=True):
    """Results, oldest first. `upto` is the spool's sequence number of the last of them."""

    upto: int
    results: list[AttemptResult]


class Returned(Message, frozen=True):
    """Granted jobs that never began here and never will.

    `why`: what keeps the node from beginning them now, though it would; empty where it was told to give them back, or
    takes nothing at all. The hub tries again by itself.
    """

    items: list[tuple[GrantId, Index]]
    why: str = ""


class Claimed(Message, frozen=True):
    """Room is kept here for the attempts of these grants, which other nodes run. Answers Claim, once there is room."""

    grants: list[GrantId]


class Tail(Message, frozen=True):
    """The ends of an attempt's two outputs. Sent after its result; never delays one.

    At most 64 KiB each of an attempt that failed, 4 KiB of one that succeeded; `*_bytes` are the whole lengths.
    """

    batch: Annotated[BatchId, _WITHIN_AMOUNT]
    index: Annotated[Index, _WITHIN_AMOUNT]
    attempt: Amount
    out: bytes
    err: bytes
    out_bytes: Amount
    err_bytes: Amount
    is_failed: bool = False


class Output(Message, frozen=True):
    """Bytes of an output that somebody follows.

    Attributes:
        stream: the number the asker chose in Fetch or Follow.
        which: 1 standard output, 2 standard error.
        offset: of the first byte of `data` in that output.
        is_end: nothing follows on this stream; `problem` says why where that is not simply the end.
    """

    stream: int
    which: int
    offset: int
    data: bytes
    is_end: bool = False
    problem: str = ""


class InputState(StrEnum):
    """What may come after an InputTaken."""

    OPEN = "open"
    """More."""
    CLOSED = "closed"
    """Nothing: its end has arrived, or the command reads no more."""
    WAITING = "waiting"
    """The same piece again, in a while: nobody could take it, or it may have been lost on its way."""
    MISSING = "missing"
    """What begins at `offset`: the piece began after that and was not kept."""
    OVER = "over"
    """Nothing: the attempt, or the job, has ended."""


class InputTaken(Message, frozen=True):
    """The command's standard input has room again: everything before `offset` was taken. Agent to hub to API.

    Attributes:
        problem: why nothing more is taken (now), for people; else empty.
        attempt: whose input it is; 0 where that is not known.
        state: what may be sent now.
    """

    batch: BatchId
    index: Index
    offset: int
    problem: str = ""
    attempt: int = 0
    state: InputState = InputState.OPEN


# -- hub to agent


class Spec(Message, frozen=True):
    """What a grant's jobs have in common. Sent once a connection, before the first Grant that names it."""

    spec: int
    batch: BatchId
    user: str
    env: dict[bytes, bytes]
    cwd: str
    umask: int
    output: str | None
    error: str | None
    shell: str
    shape: Shape
    grace_us: int
    stdin: str = "null"


class Unspec(Message, frozen=True):
    """No grant of this connection will name these specs any more: their batch has ended."""

    specs: list[int]


class Grant(Message, frozen=True):
    """Leave to run jobs. The node starts them in the order of grants, the first that fits first.

    Attributes:
        ranges: (first, last) indices, ascending.
        lines: the command lines in that order, joined by NUL.
        checks: for the jobs that have any: position among the members (from 0) -> checks.
        nodes: names of all nodes that the one job has, this one first; empty where it has only this one.
    """

    grant: GrantId
    spec: int
    attempt: int
    ranges: list[tuple[int, int]]
    lines: bytes
    checks: dict[int, tuple[Check, ...]] = {}
    nodes: tuple[str, ...] = ()


class Claim(Message, frozen=True):
    """Keep room for one attempt of `shape`, which another node runs under this grant, as soon as there is room.

    Answered by Claimed then. It waits in the order of grants, and nothing that was granted after it begins before. A
    repeat is answered again.
    """

    grant: GrantId
    shape: Shape


class Unclaim(Message, frozen=True):
    """No room is needed for these any more, or none is to be waited for. Harmless for those that are not known."""

    grants: list[GrantId]


class Recall(Message, frozen=True):
    """Give back what has not begun, of these grants' index ranges: (grant, first, last)."""

    items: list[tuple[GrantId, int, int]]


class Kill(Message, frozen=True):
    """End attempts: (grant, index). Those that have not begun are Returned, or ended as cancelled."""

    items: list[tuple[GrantId, Index]]
    grace_us: int
    why: str


class Forget(Message, frozen=True):
    """Everything in the spool up to this sequence number is committed at the hub."""

    upto: int


class Beat(Message, frozen=True):
    """Answers Heartbeat."""

    number: int
    wall_us: int


class Drain(Message, frozen=True):
    """Begin nothing new (True), or begin again (False). With `leave`, the agent ends once nothing runs."""

    is_draining: bool
    leave: bool = False


class Suspend(Message, frozen=True):
    """The hub stops on purpose: leases do not run until the next Welcome."""


class Fetch(Message, frozen=True):
    """Send an attempt's output from `offset`; with `follow`, until it ends. At most `credit` bytes unasked."""

    stream: int
    batch: BatchId
    index: Index
    attempt: int
    which: int
    offset: int
    follow: bool
    credit: int


class Credit(Message, frozen=True):
    """The reader of `stream` has room for this many bytes more."""

    stream: int
    count: int


class Unfetch(Message, frozen=True):
    """Nobody reads `stream` any more."""

    stream: int


class Input(Message, frozen=True):
    """Bytes for the standard input of a job of a batch with `stdin = "pipe"`.

    Attributes:
        offset: of the first byte of `data` in the whole of the attempt's input. What has come before is taken once.
        is_end: nothing follows `data`.
        attempt: the only one that it is for; 0 is whichever there is.
    """

    batch: BatchId
    index: Index
    offset: int
    data: bytes
    is_end: bool
    attempt: int = 0


# -- api to hub


class Open(Message, frozen=True):
    """Begin a batch under `key` for `user` (the caller's, as the API proved it). Answered by Opened."""

    request: int
    key: str
    user: str
    settings: BatchSettings
    env: dict[bytes, bytes]


class Opened(Message, frozen=True):
    """The batch's number. `known` where this key was used before: its digest decides whether that is a repeat."""

    request: int
    batch: BatchId
    known: bool = False
    digest: bytes = b""


class Chunk(Message, frozen=True):
    """A piece of an arriving batch: jobs first .. first+count-1.

    Attributes:
        runs: (count, shape id) in order; sums to `count`.
        shapes: shapes that appear here for the first time.
        lines: commands joined by NUL.
        checks: offset in the chunk -> checks.
    """

    batch: BatchId
    first: int
    count: int
    runs: list[tuple[int, ShapeId]]
    shapes: list[tuple[ShapeId, Shape]]
    lines: bytes
    checks: dict[int, tuple[Check, ...]] = {}


class ChunkTaken(Message, frozen=True):
    """The chunk is committed; back pressure."""

    batch: BatchId
    first: int


class Close(Message, frozen=True):
    """The batch is whole: make it run. Answered by Reply once committed. `caller` is for the audit trail."""

    request: int
    batch: BatchId
    total: int
    digest: bytes
    caller: Caller = Caller()


class Abandon(Message, frozen=True):
    """Drop an arriving batch."""

    batch: BatchId


class Command(Message, frozen=True):
    """A wish of `user`: a verb of `hub/commands.py` and its arguments as msgpack. Answered by Reply.

    Whether he may was decided by the API process; `caller`, who is the user and where he came from, is for the audit
    trail.
    """

    request: int
    user: str
    verb: str
    arguments: msgspec.Raw
    caller: Caller = Caller()


class Noted(Message, frozen=True):
    """Something for the audit trail that the hub has no part in: a refusal, input for a job. Not answered.

    Attributes:
        action: as in `model.access`.
        left_out: how many refusals before this one were not noted.
    """

    caller: Caller
    action: str
    subject: str
    after: dict[str, str | int | bool] = {}
    is_refused: bool = False
    why: str = ""
    left_out: int = 0


class Reply(Message, frozen=True):
    """The answer to Command or Close: an error, or a result as msgpack (nil where there is nothing to say)."""

    request: int
    result: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: ErrorBody | None = None


class TokensChanged(Message, frozen=True):
    """Tokens were created, were revoked or have expired: what was read of them before is out of date."""


class Watch(Message, frozen=True):
    """Send Progress of this batch when it changes, at most ten times a second; once more when it has ended."""

    batch: BatchId
    is_on: bool = True


class Progress(Message, frozen=True):
    """Where a batch stands.

    Attributes:
        state: `arriving`, `open`, `held`, `paused` or `ended`.
        reason: why it is paused, or why its first line waits; empty otherwise.
        mean_run_us: of its last ended jobs; 0 while unknown.
        slots: attempts of it at nodes now.
    """

    batch: BatchId
    version: int
    state: str
    counts: Counts
    reason: str = ""
    mean_run_us: int = 0
    slots: int = 0


class Follow(Message, frozen=True):
    """Like Fetch, by job: the hub passes it on to the node that has the attempt. `attempt` 0 is the current or next."""

    stream: int
    batch: BatchId
    index: Index
    attempt: int
    which: int
    offset: int
    follow: bool
    credit: int


ToHub = (
    Hello
    | Inventory
    | Heartbeat
    | Started
    | Ended
    | Returned
    | Claimed
    | Tail
    | Output
    | InputTaken
    | Open
    | Chunk
    | Close
    | Abandon
    | Command
    | Noted
    | Watch
    | Follow
    | Credit
    | Unfetch
    | Input
)
ToAgent = (
    Welcome
    | Refused
    | Spec
    | Grant
    | Recall
    | Kill
    | Claim
    | Unclaim
    | Forget
    | Beat
    | Drain
    | Suspend
    | Unspec
    | Fetch
    | Credit
    | Unfetch
    | Input
)
ToApi = Welcome | Refused | Opened | ChunkTaken | Reply | Progress | TokensChanged | Output | InputTaken

to_hub: Final[msgspec.msgpack.Decoder[ToHub]] = msgspec.msgpack.Decoder(ToHub)
to_agent: Final[msgspec.msgpack.Decoder[ToAgent]] = msgspec.msgpack.Decoder(ToAgent)
to_api: Final[msgspec.msgpack.Decoder[ToApi]] = msgspec.msgpack.Decoder(ToApi)
