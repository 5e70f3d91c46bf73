"""What the agent's machine is told (past tense) and what it wants done (imperative).

Messages of the hub are events too. Values only. Times are microseconds of CLOCK_BOOTTIME unless the name says wall.
Lists belong to the receiver once handed over. `owner` says which starter is meant: that of a user, by name, or "" for
the one that runs everything as whoever started the agent.
"""

from __future__ import annotations

import msgspec

from lanai.agent.spool import Handed
from lanai.model.ids import GrantId, Index
from lanai.model.job import AttemptResult
from lanai.model.request import Check
from lanai.wire import messages

Member = tuple[GrantId, Index]
"""What the fence knows an attempt by."""


class Value(msgspec.Struct, frozen=True, gc=False):
    """The root of all events and effects."""


# -- events


class HubGreeted(Value, frozen=True):
    """The connection stands and Hello was sent; its Welcome will renew the lease as of now."""


class HubRefused(Value, frozen=True):
    """A connect was refused: no hub is up. It began at `began_us`."""

    began_us: int


class HubLost(Value, frozen=True):
    """The connection ended."""


class Ticked(Value, frozen=True):
    """Time has passed; at least as often as `Machine.due_us` asks."""

    wall_us: int


class StarterUp(Value, frozen=True):
    """A starter stands ready.

    Attributes:
        running: what it runs, with the wall time of each start.
        waiting: what it was given and has not begun.
        ended: what it has not been told to forget, up to its number `ended_upto`.
    """

    running: list[tuple[GrantId, Index, int]]
    waiting: list[Member]
    ended: list[AttemptResult]
    ended_upto: int = 0
    owner: str = ""


class StarterMissing(Value, frozen=True):
    """There is none, and none can be started now; that is tried again. `problem` is why, in words.

    `is_passing`: it is this computer that is short of something; else there cannot be one for that user. `may_live`:
    it could not even be found out whether there is one, so that what an earlier agent gave it may still run.
    """

    problem: str
    owner: str = ""
    is_passing: bool = False
    may_live: bool = False


class StarterDied(Value, frozen=True):
    """The starter is gone, and whatever it ran has been killed.

    `begun` is what it said of itself, where it was asked to end and could: what had begun and not ended. Nothing else
    that it was given had begun. None where it said nothing.
    """

    owner: str = ""
    begun: tuple[Member, ...] | None = None


class AttemptsBegan(Value, frozen=True):
    """Attempts have been running for 100 ms: (grant, index, wall time of the start)."""

    items: list[tuple[GrantId, Index, int]]
    owner: str = ""


class AttemptsEnded(Value, frozen=True):
    """What the starter says of attempts, oldest first, up to its own number `upto`. A repeat is harmless."""

    results: list[AttemptResult]
    upto: int
    owner: str = ""


class JobsGivenBack(Value, frozen=True):
    """The starter gave these back without having begun them; `why` where it cannot begin them now, else empty."""

    items: list[Member]
    owner: str = ""
    why: str = ""


class ResultsKept(Value, frozen=True):
    """The results are in the spool, the last of them under number `upto`, and with them all up to the starter's."""

    upto: int
    results: list[AttemptResult]
    starter_upto: int
    owner: str = ""


class ResultsNotKept(Value, frozen=True):
    """There was no room for them on the disk."""

    results: list[AttemptResult]
    owner: str = ""


class HandFailed(Value, frozen=True):
    """There was no room to note what was to be given to the starter, and so it was not given."""

    items: list[Member]


class DiskFilled(Value, frozen=True):
    """There is no room for a further segment of the spool."""


class DiskFreed(Value, frozen=True):
    """There is room again."""


StarterEvent = StarterUp | StarterMissing | StarterDied | AttemptsBegan | AttemptsEnded | JobsGivenBack
OwnEvent = (
    HubGreeted
    | HubRefused
    | HubLost
    | Ticked
    | ResultsKept
    | ResultsNotKept
    | HandFailed
    | DiskFilled
    | DiskFreed
    | StarterEvent
)
Event = OwnEvent | messages.ToAgent


# -- effects


class Send(Value, frozen=True):
    """Send this to the hub."""

    message: messages.ToHub


class OpenLane(Value, frozen=True):
    """Tell the starter what the jobs of this lane have in common. Always before the first Hand to it."""

    lane: int
    spec: messages.Spec


class CloseLane(Value, frozen=True):
    """Nothing more comes for this lane, and nothing of it is left."""

    lane: int


class Item(Value, frozen=True):
    """One job for the starter: its index, its command line, its checks, the gpus it has to itself.

    `nodes`: the names of all nodes that it has, where these are several.
    """

    index: Index
    line: bytes
    checks: tuple[Check, ...] = ()
    gpus: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


class Hand(Value, frozen=True):
    """Note these jobs in the spool, then give them to the starter; answered by HandFailed if they cannot be noted."""

    lane: int
    handed: Handed
    items: list[Item]


class Widen(Value, frozen=True):
    """Let the starter run this many of the lane at once: more than before, or fewer."""

    lane: int
    width: int


class TakeBack(Value, frozen=True):
    """Ask the starter for those of these that have not begun; answered by JobsGivenBack, those that have by nothing."""

    items: list[Member]
    owner: str = ""


class EndAttempts(Value, frozen=True):
    """Have the starter end these; those not begun are given back."""

    items: list[Member]
    grace_us: int
    why: str
    owner: str = ""


class Keep(Value, frozen=True):
    """Write results to the spool; answered by ResultsKept or ResultsNotKept."""

    results: list[AttemptResult]
    starter_upto: int
    owner: str = ""


class Release(Value, frozen=True):
    """The starter may forget the ends up to its own number `upto`: they are in the spool."""

    upto: int
    owner: str = ""


class NoteGone(Value, frozen=True):
    """Note in the spool that these were given back."""

    items: list[Member]


class ForgetResults(Value, frozen=True):
    """The hub has committed everything in the spool up to this number."""

    upto: int


class SetApart(Value, frozen=True):
    """These results belong to another epoch of the hub: write them aside for people."""

    results: list[AttemptResult]


class WakeStarter(Value, frozen=True):
    """A starter is wanted; answered by StarterUp or StarterMissing. A repeat is harmless."""

    owner: str


class RetireStarter(Value, frozen=True):
    """This one has had nothing to do for long and is to end; answered by StarterDied."""

    owner: str


class EndStarter(Value, frozen=True):
    """This one has not ended what it was told to for far too long. It is killed; answered by StarterDied."""

    owner: str


class SetLease(Value, frozen=True):
    """Tell every starter until when it may run anything; -1 is without end."""

    until_us: int


class Reconnect(Value, frozen=True):
    """Give the connection up and make another."""

    problem: str


class Leave(Value, frozen=True):
    """End the agent; nothing runs."""

    why: str


StarterEffect = OpenLane | CloseLane | TakeBack | EndAttempts | SetLease | WakeStarter | RetireStarter | EndStarter
Effect = (
    Send | Hand | Widen | Keep | Release | NoteGone | ForgetResults | SetApart | Reconnect | Leave | StarterEffect
)
