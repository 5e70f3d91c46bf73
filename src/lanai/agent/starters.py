"""The conversation with the starters: which there are, and what comes of what they say. Pure, a part of the machine.

An agent has one starter of its own, or one for each user whose jobs it was given; what a user's starter says counts for
what that starter was handed, and for nothing else. What an earlier agent had handed out, the orphans, is asked of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

from lanai.agent import events as ev
from lanai.agent.events import Effect, Member
from lanai.agent.lanes import Lane
from lanai.agent.lease import Lease
from lanai.agent.results import Results
from lanai.agent.roster import Roster
from lanai.agent.spool import Handed
from lanai.model.ids import GrantId, Index
from lanai.model.job import AttemptResult, Outcome
from lanai.wire import messages as wire

RETIRE_US: Final = 300_000_000
OWN: Final = ""


class Starters:
    """All starters of one agent.

    Attributes:
        served: whose starters are there and may be handed jobs.
        orphans: what an earlier agent had handed out, of starters that have not said yet what became of it.
        escaped: how many processes have outlived their attempts.
    """

    def __init__(
        self,
        roster: Roster,
        lease: Lease,
        results: Results,
        orphans: list[Handed],
        *,
        fill: Callable[[int, list[Effect]], None],
        tell: Callable[[wire.ToHub, list[Effect]], None],
        in_trouble: Callable[[int, str, list[Effect]], None],
    ) -> None:
        """`fill` starts what has room; `tell` says it to the hub; `in_trouble`: what ails the agent's own, or ""."""
        self.served: set[str] = set()
        self.orphans = orphans
        self.escaped = 0
        self._roster = roster
        self._lease = lease
        self._results = results
        self._fill = fill
        self._tell = tell
        self._in_trouble = in_trouble
        self._woken: set[str] = set()
        self._retiring: set[str] = set()
        self._idle_since: dict[str, int] = {}

    def wake(self, out: list[Effect]) -> None:
        """Have those started that are wanted."""
        for owner in sorted(self._roster.wanted - self._woken - self._retiring - {OWN}):
            self._woken.add(owner)
            out.append(ev.WakeStarter(owner))

    def retire_idle(self, now_us: int, out: list[Effect]) -> None:
        """A user who has had nothing here for long needs no starter. Until it has ended, nothing is handed to it."""
        idle = self.served - self._roster.busy() - {OWN}
        self._idle_since = {owner: self._idle_since.get(owner, now_us) for owner in idle}
        for owner in sorted(idle):
            if now_us - self._idle_since[owner] >= RETIRE_US:
                self.served.discard(owner)
                self._retiring.add(owner)
                out.append(ev.RetireStarter(owner))

    def handle(self, now_us: int, event: ev.StarterEvent, out: list[Effect]) -> None:
        """What a starter has said, or what has become of it."""
        match event:
            case ev.AttemptsEnded():
                self._on_ended(now_us, event, out)
            case ev.AttemptsBegan(items, owner):
                self._on_began(items, owner, out)
            case ev.JobsGivenBack():
                self._on_given_back(now_us, event, out)
            case ev.StarterUp():
                self._on_starter_up(now_us, event, out)
            case ev.StarterMissing():
                self._on_starter_missing(now_us, event, out)
            case ev.StarterDied(owner, begun):
                self._on_starter_died(now_us, owner, begun, out)
            case _:
                assert_never(event)

    def _on_starter_up(self, now_us: int, up: ev.StarterUp, out: list[Effect]) -> None:
        owner = up.owner
        self.served.add(owner)
        self._woken.discard(owner)
        if owner == OWN:
            self._in_trouble(now_us, "", out)
        ended = {(result.grant, result.index) for result in up.ended}
        here = {(grant, index) for grant, index, _ in up.running} | set(up.waiting)
        gone: list[Member] = []
        for handed in self._take_orphans(owner):
            members = [(handed.grant, index) for index in handed.indices]
            self._roster.adopt(handed, [member for member in members if member in here or member in ended])
            gone += [member for member in members if member not in here and member not in ended]
        self._take_over(up, here, out)
        self._on_ended(now_us, ev.AttemptsEnded(up.ended, up.ended_upto, owner), out)
        self._fail(gone, {}, "the agent and its starter were killed", owner, out)
        self._fill(now_us, out)

    def _take_orphans(self, owner: str) -> list[Handed]:
        orphans = [handed for handed in self.orphans if handed.owner == owner]
        if orphans:
            self.orphans = [handed for handed in self.orphans if handed.owner != owner]
        return orphans

    def _take_over(self, up: ev.StarterUp, here: set[Member], out: list[Effect]) -> None:
        live = set(self._roster.at_starter(up.owner))
        unknown = sorted(here - live)
        if unknown:
            out.append(ev.EndAttempts(unknown, 0, "nothing is known of it here", up.owner))
        self._roster.began.update({(grant, i): wall_us for grant, i, wall_us in up.running if (grant, i) in live})
        waiting = [member for member in up.waiting if member in live]
        if waiting:
            out.append(ev.TakeBack(waiting, up.owner))
        if self._lease.good_until_us:
            out.append(ev.SetLease(self._lease.good_until_us))

    def _on_starter_missing(self, now_us: int, missing: ev.StarterMissing, out: list[Effect]) -> None:
        """Without its own starter the node can do nothing; without a user's, nothing of that user's."""
        problem, owner = missing.problem, missing.owner
        if owner == OWN:
            self._in_trouble(now_us, problem, out)
            return
        self._woken.discard(owner)
        orphans = [] if missing.may_live else self._take_orphans(owner)
        gone = [(handed.grant, index) for handed in orphans for index in handed.indices]
        pending = self._roster.withdraw_from(owner)
        if missing.is_passing:
            self._return(pending, out, problem)
        else:
            gone += pending
        self._fail(gone, {}, problem, owner, out)
        self._fill(now_us, out)

    def _on_starter_died(
        self, now_us: int, owner: str, begun: tuple[Member, ...] | None, out: list[Effect]
    ) -> None:
        self.served.discard(owner)
        self._woken.discard(owner)
        self._retiring.discard(owner)
        self._results.starter_died(owner)
        began = dict(self._roster.began)
        if begun is not None:
            # These are given again: it was asked to end before it took them.
            self._give_back([m for m in self._roster.at_starter(owner) if m not in begun and m not in began], out)
        members = self._roster.at_starter(owner)
        self._roster.drop(members)
        self._roster.forget_starter(owner)
        self._fail(members, began, "the starter ended unexpectedly", owner, out)
        if owner != OWN:
            self._fill(now_us, out)

    def _fail(self, members: list[Member], began: dict[Member, int], why: str, owner: str, out: list[Effect]) -> None:
        """End attempts of which nothing more can be learned, at the node's charge."""
        if members:
            results = [
                AttemptResult(*member, Outcome.NODE, started_at_us=began.get(member, 0), reason=why)
                for member in members
            ]
            self._results.keep(results, owner, out)

    def _on_began(self, items: list[tuple[GrantId, Index, int]], owner: str, out: list[Effect]) -> None:
        fresh = [item for item in items if self._is_at((item[0], item[1]), owner)]
        for grant, index, wall_us in fresh:
            self._roster.began[grant, index] = wall_us
        if fresh:
            self._tell(wire.Started(fresh), out)

    def _is_at(self, member: Member, owner: str) -> bool:
        lane = self._roster.live.get(member)
        return lane is not None and lane.owner == owner

    def _on_ended(self, now_us: int, ends: ev.AttemptsEnded, out: list[Effect]) -> None:
        owner, results = ends.owner, ends.results
        upto = self._results.told(owner, ends.upto)
        live = self._roster.live
        by_lane: dict[Lane, dict[Member, AttemptResult]] = {}
        for result in results:
            member = result.grant, result.index
            lane = live.get(member)
            if lane is not None and lane.owner == owner:
                by_lane.setdefault(lane, {}).setdefault(member, result)
        if by_lane:
            fresh = [result for some in by_lane.values() for result in some.values()]
            for lane, ended in by_lane.items():
                lane.measure(list(ended.values()))
            self.escaped += sum(result.escaped for result in fresh)
            self._roster.drop([(result.grant, result.index) for result in fresh])
            self._fill(now_us, out)
            self._results.keep(fresh, owner, out)
        elif results and not self._results.has_unkept(owner):
            out.append(ev.Release(upto, owner))

    def _on_given_back(self, now_us: int, back: ev.JobsGivenBack, out: list[Effect]) -> None:
        """Where the starter cannot begin them now, neither can it those alike that it was not given yet."""
        fresh = [member for member in dict.fromkeys(back.items) if self._is_at(member, back.owner)]
        if fresh:
            lanes = {self._roster.live[member] for member in fresh}
            self._roster.drop(fresh)
            out.append(ev.NoteGone(fresh))
            alike = self._roster.withdraw_alike(lanes) if back.why else []
            self._return([*fresh, *alike], out, back.why)
            self._fill(now_us, out)

    def _give_back(self, members: list[Member], out: list[Effect]) -> None:
        """The starter has not begun these and will not: they are the hub's again."""
        if members:
            self._roster.drop(members)
            out.append(ev.NoteGone(members))
            self._return(members, out)

    def _return(self, items: list[Member], out: list[Effect], why: str = "") -> None:
        if items:
            self._tell(wire.Returned(items, why), out)
