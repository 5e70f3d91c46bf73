"""A job's states and what an attempt at it came to."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from lanai.model.ids import GrantId, Index


class JobState(StrEnum):
    """Where a job stands. `blocked` and `suspended` belong to later issues."""

    HELD = "held"
    BLOCKED = "blocked"
    QUEUED = "queued"
    LOCKED = "locked"
    RUNNING = "running"
    SUSPENDED = "suspended"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Final[dict[JobState, tuple[JobState, ...]]] = {
    JobState.HELD: (JobState.QUEUED, JobState.CANCELLED),
    JobState.BLOCKED: (JobState.QUEUED, JobState.CANCELLED),
    JobState.QUEUED: (JobState.HELD, JobState.LOCKED, JobState.CANCELLED),
    JobState.LOCKED: (
        JobState.QUEUED,
        JobState.RUNNING,
        JobState.DONE,
        JobState.FAILED,
        JobState.CANCELLED,
    ),
    JobState.RUNNING: (JobState.QUEUED, JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.SUSPENDED),
    JobState.SUSPENDED: (JobState.RUNNING, JobState.QUEUED, JobState.CANCELLED),
    JobState.DONE: (),
    JobState.FAILED: (JobState.QUEUED,),
    JobState.CANCELLED: (JobState.QUEUED,),
}
"""Which state may follow which. `failed` and `cancelled` return to `queued` only by `lanai retry`."""

FINAL: Final = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class Outcome(StrEnum):
    """How one attempt ended, and so whom it is charged to."""

    OK = "ok"
    EXIT = "exit"
    SIGNAL = "signal"
    TIME = "time"
    MEMORY = "memory"
    CHECK = "check"
    NOTFOUND = "notfound"
    NODE = "node"
    LOST = "lost"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    """The hub's own word: it ended the attempt to make way for another job. Nothing is charged for it."""


Amount = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
"""What a node reports is bounded where it is decoded: every store can hold it."""

REASON_CHARACTERS: Final = 10_000
"""Far more than agents and starters say; a million of them are to fit a store."""


class AttemptResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node says of one attempt that ended. Also the row an agent spools.

    Attributes:
        grant, index: the fence.
        outcome: a value of `Outcome`.
        exit_code: 0..255, or None where the command did not exit by itself.
        signal: its number, or 0.
        started_at_us: wall time by the node's clock, microseconds since 1970; 0 where it never began.
        wall_us: by CLOCK_BOOTTIME.
        cpu_user_us, cpu_system_us: of the attempt and all children it waited for.
        memory_peak_bytes: None where not known.
        reason: one sentence for people, or empty.
        escaped: how many of its processes were left alive.
    """

    grant: GrantId
    index: Index
    outcome: str
    exit_code: Amount | None = None
    signal: Amount = 0
    started_at_us: Amount = 0
    wall_us: Amount = 0
    cpu_user_us: Amount = 0
    cpu_system_us: Amount = 0
    memory_peak_bytes: Amount | None = None
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS)] = ""
    escaped: Amount = 0
