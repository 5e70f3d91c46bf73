"""All starters of an agent: one of its own, or one for each user whose jobs it runs. Which is whose, and where each is.

It passes on the machine's effects to the starter that they are for, and the starters' events to the machine. It decides
nothing; a starter that is wanted no more is let go of here once it has ended.

A user's name comes from the hub and is part of paths here. This is the only place that makes a path of it, and it makes
none of what cannot be a user's name: everything below is then of the shape STATE/users/NAME, in directories that only
root can write to.
"""

from __future__ import annotations

import os
import pwd
import stat
import time
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from lanai.agent import events as ev
from lanai.agent import starter_link as link
from lanai.agent.cgroups import Cgroups
from lanai.agent.events import Member, StarterEvent
from lanai.agent.leaves import Leaves
from lanai.agent.reads import Answer
from lanai.agent.starting import NEVER_US, StarterPort
from lanai.model.access import user_name
from lanai.model.errors import Refusal, UserError

OWN: Final = ""
SWEPT_AT_ONCE: Final = 8
PARTING_S: Final = 1.0


class Served(msgspec.Struct, frozen=True):
    """Which users an agent of root's serves: those from `min_uid` on, and root where `allow_root`."""

    min_uid: int = 0
    allow_root: bool = True


class Starters:
    """The starters of one agent.

    Args:
        state: the agent's directory.
        served: None for an agent that runs everything as whoever started it.
        expected: whose starters had jobs of an earlier agent's, which have to be accounted for.
        cgroups: the agent's; None for none.
        log: told what is of interest to nobody but who looks into the log.
        output_bytes: how much is kept of either output of an attempt; 0 for all.
        node: what the hub calls this computer.

    Attributes:
        ports: the starters that there are, by owner.
    """

    def __init__(
        self,
        state: Path,
        served: Served | None,
        expected: Iterable[str] = (),
        *,
        cgroups: Cgroups | None = None,
        output_bytes: int = 0,
        node: str = "",
        log: Callable[[str], None] = print,
    ) -> None:
        self._state = state
        self._served = served
        self._cgroups = cgroups
        self._output_bytes = output_bytes
        self._node = node
        self._log = log
        self._lanes: dict[int, StarterPort] = {}
        self.ports: dict[str, StarterPort] = {}
        self._answers: list[Answer] = []
        self._unswept: list[str] = []
        self._unusable: list[StarterEvent] = []
        if served is None:
            leaves = Leaves(cgroups, _own_name(), log)
            place = link.own_place(state / "starter")
            self.ports[OWN] = StarterPort(place, leaves=leaves, output_bytes=output_bytes, node=node)
            return
        for name, mode in (("doors", 0o700), ("users", 0o711)):
            (state / name).mkdir(mode=mode, exist_ok=True)
            os.chmod(state / name, mode)
        # Those that an earlier agent left may have something to tell, and what a dead one left running is ended.
        for path in (state / "doors").iterdir():
            self._find(path.name)
        for owner in expected:
            self.wake(owner)

    def wake(self, owner: str) -> None:
        """This starter is wanted; answered by StarterUp or StarterMissing when it is there, or cannot be."""
        try:
            self._port(owner).wake()
        except UserError as error:
            self._unusable.append(ev.StarterMissing(error.message, owner))

    def _find(self, owner: str) -> StarterPort | None:
        """The port of that owner's; None where that is no name."""
        try:
            return self._port(owner)
        except UserError:
            return None

    def _port(self, owner: str) -> StarterPort:
        """The port of that owner's. Raises UserError where that is no name."""
        port = self.ports.get(owner)
        if port is None:
            assert self._served is not None
            name = user_name(owner)
            place = link.Place(self._state / "users" / name, self._state / "doors" / name)
            account = link.Account(owner, self._served.min_uid, self._served.allow_root)
            leaves = Leaves(self._cgroups, owner, self._log)
            sizes = self._output_bytes
            port = self.ports[owner] = StarterPort(place, account, leaves, output_bytes=sizes, node=self._node)
        return port

    def reading(self, owner: str) -> StarterPort | None:
        """The port to the starter that can read the outputs of that owner's; None where this agent cannot have it."""
        return None if (owner == OWN) != (self._served is None) else self._find(owner)

    def answers(self) -> list[Answer]:
        """What came of the reads of all of them since this was last asked."""
        found, self._answers = self._answers, []
        for port in self.ports.values():
            found += port.answers()
        return found

    def sweep(self, keep_us: int, cap_bytes: int) -> None:
        """Have old outputs removed. For users without a starter one is started, for a few of them each time."""
        for port in self.ports.values():
            port.sweep(keep_us, cap_bytes)
        if self._served is None:
            return
        if not self._unswept:
            self._unswept = [path.name for path in (self._state / "users").iterdir()]
        for _ in range(min(SWEPT_AT_ONCE, len(self._unswept))):
            owner = self._unswept.pop()
            found = None if owner in self.ports else self._find(owner)
            if found is not None:
                found.sweep(keep_us, cap_bytes)

    def __iter__(self) -> Iterator[StarterPort]:
        return iter(list(self.ports.values()))

    @property
    def due_us(self) -> int:
        """When `on_time` wants to be called."""
        if self._unusable:
            return 0
        return min((port.due_us for port in self.ports.values()), default=NEVER_US)

    def on_time(self, now_us: int) -> list[StarterEvent]:
        """What is due at any of them."""
        found, self._unusable = self._unusable, []
        for port in self:
            if now_us >= port.due_us:
                found += port.on_time(now_us)
                if self._served is not None and port.is_dormant():
                    self._answers += port.answers()
                    del self.ports[port.owner]
        return found

    def flush(self) -> None:
        """Send what can be sent."""
        for port in self.ports.values():
            port.flush()

    def unstartable(self) -> list[StarterEvent]:
        """Jobs that could not even be given to their starter, as ended."""
        return [event for port in self.ports.values() for event in port.unstartable()]

    def close(self, *, busy: Container[str] = ()) -> None:
        """Hang up. The starters of these owners and what they run go on; of the others nothing is to be left.

        A control group can only be removed by us, and perhaps nobody comes after us.
        """
        idle = [port for port in self if port.owner not in busy]
        for port in idle:
            port.quit_when_idle()
        for port in self:
            port.close()
        until_s = time.monotonic() + PARTING_S
        for port in idle:
            if port.ends_within(max(0.0, until_s - time.monotonic())):
                port.clear_up()
        if self._cgroups is not None:
            self._cgroups.close()

    def quit_when_idle(self) -> None:
        """The agent leaves for good."""
        for port in self.ports.values():
            port.quit_when_idle()

    # -- what the machine wants

    def hand(self, hand: ev.Hand) -> None:
        """Give jobs to the starter that has their lane."""
        port = self._lanes.get(hand.lane)
        if port is not None:
            port.hand(hand.lane, hand.handed.grant, hand.handed.attempt, hand.items)

    def widen(self, lane: int, width: int) -> None:
        """Let that many of the lane run at once."""
        port = self._lanes.get(lane)
        if port is not None:
            port.widen(lane, width)

    def release(self, upto: int, owner: str) -> None:
        """The starter may forget its ends up to this number."""
        self._tell(owner, lambda port: port.release(upto))

    def do(self, effect: ev.StarterEffect, now_us: int) -> None:
        """Carry out one effect."""
        match effect:
            case ev.OpenLane(lane, spec):
                owner = OWN if self._served is None else spec.user
                port = self._lanes[lane] = self._port(owner)
                port.open_lane(lane, spec)
            case ev.CloseLane(lane):
                gone = self._lanes.pop(lane, None)
                if gone is not None:
                    gone.close_lane(lane)
            case ev.TakeBack(items, owner):
                self._tell(owner, lambda port: port.take_back(items))
            case ev.EndAttempts(items, grace_us, why, owner):
                self._tell(owner, lambda port: port.end(items, grace_us, why))
            case ev.SetLease(until_us):
                for each in self.ports.values():
                    each.set_lease(until_us, now_us)
            case ev.WakeStarter(owner):
                self.wake(owner)
            case ev.EndStarter(owner):
                self._tell(owner, lambda port: port.kill())
            case ev.RetireStarter(owner):
                self._tell(owner, lambda port: port.quit_when_idle())

    def input(self, owner: str, member: Member, data: bytes, *, offset: int, is_end: bool) -> None:
        """Standard input for a job of that starter's."""
        self._tell(owner, lambda port: port.input(member, data, offset=offset, is_end=is_end))

    def _tell(self, owner: str, call: Callable[[StarterPort], None]) -> None:
        port = self.ports.get(owner)
        if port is not None:
            call(port)


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def check_state(state: Path, served: Served | None) -> None:
    """See to it that a directory fits an agent of this kind, and that users get through to what is theirs in it.

    Raises:
        Refusal: a directory above it is closed to users, or in the hands of one; or it is that of an agent of the other
            kind, whose commands would not be known here.
    """
    other, kind = ("starter", "without") if served is not None else ("doors", "with")
    if (state / other).exists():
        raise Refusal(
            f"{state} was made by an agent {kind} --as-users",
            code="state_of_other_kind",
            hint=f"start it {kind} --as-users, or give another directory",
        )
    if served is None:
        return
    unsafe = [path for path in (state, *_above(state)) if _is_in_others_hands(path)]
    if unsafe:
        raise Refusal(
            f"somebody else than root could replace what root writes in {state}, for {unsafe[-1]} is his",
            code="state_unsafe",
            hint="give a directory that is root's all the way: --state /var/lib/lanai-agent",
        )
    os.chmod(state, 0o711)
    closed = [path for path in _above(state) if not path.stat().st_mode & 0o001]
    if closed:
        raise Refusal(
            f"users cannot get through {closed[-1]} to what is theirs in {state}",
            code="state_unreachable",
            hint="give a directory that everybody can enter: --state /var/lib/lanai-agent",
        )


def _is_in_others_hands(directory: Path) -> bool:
    status = directory.stat()
    others = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid else 0)
    return status.st_uid != 0 or bool(status.st_mode & others and not status.st_mode & stat.S_ISVTX)


def _above(path: Path) -> Iterable[Path]:
    return path.resolve().parents
