"""The agent's own decisions: what to start, keep, report and give back. Pure: (time, event) -> effects.

It reads no clock, touches no file and opens no socket; the loop in `__main__` does what the effects say, in order, and
answers with events. It must not choose between jobs beyond the order in which the hub granted them.

Theory of operation. An attempt's way: pending here -> live (noted in the spool, at the starter) -> its result in the
spool -> reported -> the hub says forget. The fence (grant, index) is its name all the way. `roster.py` keeps what is
pending and live and says what starts next; `lease.py` until when anything may run; here are the conversations with the
hub and the starters, and the results between them. An agent has one starter of its own, or one for each user whose jobs
it was given; what a user's starter says counts for what that starter was handed, and for nothing else.
"""

from __future__ import annotations

from collections import deque
from typing import Final, assert_never

from lanai.agent import events as ev
from lanai.agent.endings import LOOK_US, Endings
from lanai.agent.events import Effect, Event, Member, Send
from lanai.agent.lanes import Lane
from lanai.agent.lease import Lease
from lanai.agent.roster import Roster
from lanai.agent.spool import Handed, Remembered
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, GrantId, Index, grant_epoch
from lanai.model.job import AttemptResult, Outcome
from lanai.model.resources import Capacity
from lanai.wire import messages as wire

FRAME_ITEMS: Final = 1000
SILENCE_US: Final = 15_000_000
RETRY_KEEP_US: Final = 1_000_000
NEVER_US: Final = 1 << 62
DISK_FULL: Final = "disk full"
RETIRE_US: Final = 300_000_000
OWN: Final = ""
_GRACE_US: Final = BatchSettings().grace_us


class Machine:
    """The state of one agent.

    Attributes:
        due_us: when it wants to be Ticked at the latest.
        lease: until when anything may run.
        roster: what was granted and what of it is live.
    """

    def __init__(
        self,
        capacity: Capacity,
        remembered: Remembered,
        *,
        first_lane: int = 1,
        lease_us: int = 0,
        end_with_hub_us: int = 0,
        serves_users: bool = False,
    ) -> None:
        """`first_lane` must be higher than any lane of an earlier agent; `end_with_hub_us` 0 is to wait for ever.

        With `serves_users` each user has a starter, which is woken when it is wanted; without, there is one, "".
        """
        self.roster = Roster(capacity, first_lane, serves_users=serves_users)
        self.lease = Lease(lease_us)
        self.due_us = 0
        self._orphans = remembered.handed
        self._unforgotten = deque(remembered.results)
        self._unkept: dict[str, list[AttemptResult]] = {}
        self._being_kept = 0
        self._starter_upto: dict[str, int] = {}
        self._served: set[str] = set()
        self._woken: set[str] = set()
        self._retiring: set[str] = set()
        self._idle_since: dict[str, int] = {}
        self._trouble = self._starter_trouble = self._disk_trouble = ""
        self._endings = Endings()
        self._escaped = 0
        self._is_connected = self._is_welcome = False
        self._is_draining = self._is_leaving = self._is_gone = self._owes_stock = False
        self._epoch = 0
        self._heartbeat_us = 0
        self._wall_offset_us = 0
        self._greeted_us = self._heard_us = 0
        self._next_beat_us = NEVER_US
        self._gone_since_us = -1
        self._end_with_hub_us = end_with_hub_us

    def about(self, grant: GrantId) -> tuple[BatchId, int] | None:
        """Batch and attempt of a grant of which something is pending or live; None for others."""
        if (found := self.roster.grants.get(grant)) is not None:
            return found.batch, found.attempt
        return next(((one.batch, one.attempt) for one in self._orphans if one.grant == grant), None)

    def is_here(self, batch: BatchId, index: Index, attempt: int) -> bool:
        """Whether that attempt is still to begin here, or runs."""
        grants = (one for one in self.roster.grants.values() if (one.batch, one.attempt) == (batch, attempt))
        return any(
            (grant.grant, index) in self.roster.live or any(item.index == index for item in grant.pending)
            for grant in grants
        )

    def live_member(self, batch: BatchId, index: Index, attempt: int | None = None) -> Member | None:
        """The job at the starter that people know by these, of any attempt if None; None where it is not there."""
        for grant in self.roster.grants.values():
            is_it = grant.batch == batch and attempt in (None, grant.attempt)
            if is_it and (grant.grant, index) in self.roster.live:
                return grant.grant, index
        return None

    def owner_of(self, member: Member) -> str | None:
        """Whose starter has the job, or had it when an earlier agent was killed; None where none has."""
        lane = self.roster.live.get(member)
        if lane is not None:
            return lane.owner
        number, index = member
        return next((one.owner for one in self._orphans if one.grant == number and index in one.indices), None)

    def handle(self, now_us: int, event: Event) -> list[Effect]:
        """Take one event; what is to be done about it, in order."""
        out: list[Effect] = []
        lease_before_us = self.lease.good_until_us
        if isinstance(event, ev.Value):
            self._on_event(now_us, event, out)
        else:
            self._heard_us = now_us
            self._on_message(now_us, event, out)
        if self._owes_stock:
            self._take_stock(now_us, out)
        if self.lease.good_until_us != lease_before_us:
            out.append(ev.SetLease(self.lease.good_until_us))
        # Without a hub only where a connect has just failed: it may have been started again since the one before.
        if self._is_leaving or isinstance(event, ev.HubRefused | ev.HubLost):
            self._leave_when_done(now_us, out)
        self._set_due(now_us)
        return out

    def _on_event(self, now_us: int, event: ev.OwnEvent, out: list[Effect]) -> None:
        match event:
            case ev.Ticked(wall_us):
                self._on_tick(now_us, wall_us, out)
            case ev.HubGreeted():
                self._is_connected, self._greeted_us, self._heard_us = True, now_us, now_us
            case ev.HubRefused(began_us):
                self.lease.refused(began_us)
                self._on_hub_lost(now_us)
            case ev.HubLost():
                self._on_hub_lost(now_us)
            case ev.ResultsKept():
                self._on_kept(event, out)
            case ev.ResultsNotKept(results, owner):
                self._being_kept -= len(results)
                self._unkept[owner] = results + self._unkept.get(owner, [])
                self._set_disk_trouble(now_us, DISK_FULL, out)
            case ev.HandFailed(items):
                self._on_hand_failed(now_us, items, out)
            case ev.DiskFilled():
                self._set_disk_trouble(now_us, DISK_FULL, out)
            case ev.DiskFreed():
                self._set_disk_trouble(now_us, "", out)
                self._fill(now_us, out)
            case _:
                self._on_starter(now_us, event, out)

    def _on_message(self, now_us: int, message: wire.ToAgent, out: list[Effect]) -> None:
        match message:
            case wire.Grant():
                self._on_grant(now_us, message, out)
            case wire.Forget(upto):
                self._on_forget(upto, out)
            case wire.Beat(number):
                self.lease.acknowledge(number)
            case wire.Spec():
                self.roster.name_spec(message)
            case wire.Unspec(specs):
                self.roster.forget_specs(specs)
            case wire.Recall(items):
                self._on_recall(items, out)
            case wire.Kill(items, grace_us, why):
                self._on_kill(items, grace_us, why, out)
            case wire.Claim() | wire.Unclaim():
                self._on_claim(now_us, message, out)
            case wire.Welcome():
                self._on_welcome(now_us, message, out)
            case wire.Drain(is_draining, leave):
                # Told to leave before it was in step, it is told afterwards how things stand there otherwise.
                self._is_leaving = self._is_leaving or leave
                self._is_draining = is_draining or self._is_leaving
                if self._is_draining:
                    self._give_all_back(out)
                self._fill(now_us, out)
            case wire.Suspend():
                self.lease.suspend()
            case wire.Refused(error):
                hint = error.hint and f" ({error.hint})"
                out.append(ev.Reconnect(f"the hub refuses: {error.message}{hint}"))
            case wire.Fetch() | wire.Credit() | wire.Unfetch() | wire.Input():
                pass  # the loop gives these to whoever reads outputs and writes inputs
            case _:
                assert_never(message)

    def _on_starter(self, now_us: int, event: ev.StarterEvent, out: list[Effect]) -> None:
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

    # -- the hub

    def _on_welcome(self, now_us: int, welcome: wire.Welcome, out: list[Effect]) -> None:
        self._is_welcome = True
        self._is_draining = self._is_leaving = False  # the hub says it again where it still holds
        self._gone_since_us = -1
        self._epoch = welcome.epoch
        self._heartbeat_us = welcome.heartbeat_us
        self._next_beat_us = now_us
        self.lease.begin(self._greeted_us, welcome.lease_us)
        self._end_other_epochs(out)
        self._owes_stock = True

    def _take_stock(self, now_us: int, out: list[Effect]) -> None:
        """Tell the hub of everything that is here, as soon as that is known.

        It is not while the starter has not said what it still runs of an earlier agent's, nor while results are on
        their way into the spool. The hub sends nothing before it has the inventory, and so can recall nothing that
        would be given back here although it runs.
        """
        if self._orphans or self._being_kept:
            return
        self._owes_stock = False
        ended = [(result.grant, result.index) for _, result in self._unforgotten]
        ended += [(result.grant, result.index) for results in self._unkept.values() for result in results]
        self.roster.begin_connection(ended)
        items = self.roster.inventory() + [(*member, "ended") for member in ended]
        for first in range(0, max(1, len(items)), FRAME_ITEMS):
            is_last = first + FRAME_ITEMS >= len(items)
            claims = self.roster.kept_claims() if is_last else []
            out.append(Send(wire.Inventory(items[first : first + FRAME_ITEMS], is_last, claims)))
        # The hub may be another process than the one that was told of it.
        began = [(*member, wall_us) for member, wall_us in self.roster.began.items() if member in self.roster.live]
        firsts = range(0, len(began), FRAME_ITEMS)
        out.extend(Send(wire.Started(began[first : first + FRAME_ITEMS])) for first in firsts)
        self._send_results(list(self._unforgotten), out)
        self._fill(now_us, out)

    def _is_in_step(self) -> bool:
        return self._is_welcome and not self._owes_stock

    def _send_results(self, numbered: list[tuple[int, AttemptResult]], out: list[Effect]) -> None:
        for first in range(0, len(numbered), FRAME_ITEMS):
            some = numbered[first : first + FRAME_ITEMS]
            out.append(Send(wire.Ended(some[-1][0], [result for _, result in some])))

    def _is_foreign(self, grant: GrantId) -> bool:
        return self._epoch > 0 and grant_epoch(grant) != self._epoch

    def _end_other_epochs(self, out: list[Effect]) -> None:
        """The hub was restored from a backup: what an earlier epoch granted is ended, and its results are put aside."""
        for number in [number for number in self.roster.grants if self._is_foreign(number)]:
            self.roster.withdraw(number, 0, NEVER_US)
        self.roster.unclaim([number for number in self.roster.claims if self._is_foreign(number)])
        running = [member for member in self.roster.live if self._is_foreign(member[0])]
        self._end(running, _GRACE_US, "the hub was restored from a backup", out)
        apart = [result for _, result in self._unforgotten if self._is_foreign(result.grant)]
        if apart:
            out.append(ev.SetApart(apart))
            self._unforgotten = deque(one for one in self._unforgotten if not self._is_foreign(one[1].grant))

    def _on_hub_lost(self, now_us: int) -> None:
        self._is_connected = self._is_welcome = self._owes_stock = False
        self._next_beat_us = NEVER_US
        if self._gone_since_us < 0:
            self._gone_since_us = now_us

    def _on_forget(self, upto: int, out: list[Effect]) -> None:
        unforgotten = self._unforgotten
        while unforgotten and unforgotten[0][0] <= upto:
            unforgotten.popleft()
        out.append(ev.ForgetResults(upto))

    def _on_grant(self, now_us: int, message: wire.Grant, out: list[Effect]) -> None:
        roster = self.roster
        if not roster.has_spec(message.spec):
            out.append(ev.Reconnect(f"grant {message.grant} names spec {message.spec}, which was never sent"))
        elif self._must_return(now_us) or not roster.can_ever_fit(message.spec):
            members = [(message.grant, Index(i)) for first, last in message.ranges for i in range(first, last + 1)]
            self._return([member for member in members if not roster.is_known(member)], out)
        else:
            roster.add(message)
            self._fill(now_us, out)

    def _must_return(self, now_us: int) -> bool:
        """Whether nothing may be taken up. After the lease the hub may have given it to others already."""
        return self._is_draining or bool(self._trouble) or not self.lease.is_good(now_us)

    def _on_claim(self, now_us: int, message: wire.Claim | wire.Unclaim, out: list[Effect]) -> None:
        """Also while nothing new begins here: what it is for is another node's."""
        if isinstance(message, wire.Unclaim):
            self.roster.unclaim(message.grants)
        elif self.roster.claim(message.grant, message.shape):
            out.append(Send(wire.Claimed([message.grant])))
        self._fill(now_us, out)

    def _on_recall(self, items: list[tuple[GrantId, int, int]], out: list[Effect]) -> None:
        returned: list[Member] = []
        asked: list[Member] = []
        for number, first, last in items:
            members = [(number, Index(index)) for index in range(first, last + 1)]
            asked += [member for member in members if member in self.roster.live]
            returned += [member for member in members if not self.roster.is_known(member)]
            returned += self.roster.withdraw(number, first, last)
        self._return(self._without_ended(returned), out)
        self._take_back(asked, out)

    def _on_kill(self, items: list[Member], grace_us: int, why: str, out: list[Effect]) -> None:
        live = [member for member in items if member in self.roster.live]
        others = [member for member in items if member not in self.roster.live]
        returned = [member for member in others if not self.roster.is_known(member)]
        for number, index in others:
            returned += self.roster.withdraw(number, index, index)
        self._return(self._without_ended(returned), out)
        self._end(live, grace_us, why, out)

    def _without_ended(self, members: list[Member]) -> list[Member]:
        if not members:
            return members
        ended = {(result.grant, result.index) for _, result in self._unforgotten}
        ended.update((result.grant, result.index) for results in self._unkept.values() for result in results)
        return [member for member in members if member not in ended]

    def _return(self, items: list[Member], out: list[Effect], why: str = "") -> None:
        if items and self._is_in_step():
            out.append(Send(wire.Returned(items, why)))

    def _give_all_back(self, out: list[Effect]) -> None:
        """Nothing new may begin: return what is pending and ask the starters for what they have not begun."""
        self._return(self.roster.withdraw_all(), out)
        self._take_back(self.roster.not_begun(), out)

    def _take_back(self, members: list[Member], out: list[Effect]) -> None:
        for owner, some in self.roster.by_owner(members).items():
            out.append(ev.TakeBack(some, owner))

    def _end(self, members: list[Member], grace_us: int, why: str, out: list[Effect]) -> None:
        for owner, some in self.roster.by_owner(members).items():
            out.append(ev.EndAttempts(some, grace_us, why, owner))
            self._await_ends(some, grace_us, owner)

    def _await_ends(self, members: list[Member], grace_us: int, owner: str) -> None:
        if owner != OWN:
            self._endings.told(members, grace_us)

    def _fill(self, now_us: int, out: list[Effect]) -> None:
        if not self._is_draining and not self._trouble and self.lease.is_good(now_us):
            self._say_claimed(self.roster.fill(self._served, out), out)
            for owner in sorted(self.roster.wanted - self._woken - self._retiring - {OWN}):
                self._woken.add(owner)
                out.append(ev.WakeStarter(owner))
        elif self.roster.claims:
            self._say_claimed(self.roster.keep_room(), out)
        self.roster.resize(out)

    def _say_claimed(self, claims: list[GrantId], out: list[Effect]) -> None:
        # Where the hub cannot hear it, the inventory says it again.
        if claims and self._is_in_step():
            out.append(Send(wire.Claimed(claims)))

    # -- the starters

    def _on_starter_up(self, now_us: int, up: ev.StarterUp, out: list[Effect]) -> None:
        owner = up.owner
        self._served.add(owner)
        self._woken.discard(owner)
        if owner == OWN:
            self._set_starter_trouble(now_us, "", out)
        ended = {(result.grant, result.index) for result in up.ended}
        here = {(grant, index) for grant, index, _ in up.running} | set(up.waiting)
        gone: list[Member] = []
        for handed in self._take_orphans(owner):
            members = [(handed.grant, index) for index in handed.indices]
            self.roster.adopt(handed, [member for member in members if member in here or member in ended])
            gone += [member for member in members if member not in here and member not in ended]
        self._take_over(up, here, out)
        self._on_ended(now_us, ev.AttemptsEnded(up.ended, up.ended_upto, owner), out)
        self._fail(gone, {}, "the agent and its starter were killed", owner, out)
        self._fill(now_us, out)

    def _take_orphans(self, owner: str) -> list[Handed]:
        orphans = [handed for handed in self._orphans if handed.owner == owner]
        if orphans:
            self._orphans = [handed for handed in self._orphans if handed.owner != owner]
        return orphans

    def _take_over(self, up: ev.StarterUp, here: set[Member], out: list[Effect]) -> None:
        live = set(self.roster.at_starter(up.owner))
        unknown = sorted(here - live)
        if unknown:
            out.append(ev.EndAttempts(unknown, 0, "nothing is known of it here", up.owner))
        self.roster.began.update({(grant, i): wall_us for grant, i, wall_us in up.running if (grant, i) in live})
        waiting = [member for member in up.waiting if member in live]
        if waiting:
            out.append(ev.TakeBack(waiting, up.owner))
        if self.lease.good_until_us:
            out.append(ev.SetLease(self.lease.good_until_us))

    def _on_starter_missing(self, now_us: int, missing: ev.StarterMissing, out: list[Effect]) -> None:
        """Without its own starter the node can do nothing; without a user's, nothing of that user's."""
        problem, owner = missing.problem, missing.owner
        if owner == OWN:
            self._set_starter_trouble(now_us, problem, out)
            return
        self._woken.discard(owner)
        orphans = [] if missing.may_live else self._take_orphans(owner)
        gone = [(handed.grant, index) for handed in orphans for index in handed.indices]
        pending = self.roster.withdraw_from(owner)
        if missing.is_passing:
            self._return(pending, out, problem)
        else:
            gone += pending
        self._fail(gone, {}, problem, owner, out)
        self._fill(now_us, out)

    def _on_starter_died(
        self, now_us: int, owner: str, begun: tuple[Member, ...] | None, out: list[Effect]
    ) -> None:
        self._served.discard(owner)
        self._woken.discard(owner)
        self._retiring.discard(owner)
        self._starter_upto.pop(owner, None)
        began = dict(self.roster.began)
        if begun is not None:
            # These are given again: it was asked to end before it took them.
            self._give_back([m for m in self.roster.at_starter(owner) if m not in begun and m not in began], out)
        members = self.roster.at_starter(owner)
        self.roster.drop(members)
        self.roster.forget_starter(owner)
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
            self._keep(results, owner, out)

    def _on_began(self, items: list[tuple[GrantId, Index, int]], owner: str, out: list[Effect]) -> None:
        fresh = [item for item in items if self._is_at((item[0], item[1]), owner)]
        for grant, index, wall_us in fresh:
            self.roster.began[grant, index] = wall_us
        if fresh and self._is_in_step():
            out.append(Send(wire.Started(fresh)))

    def _is_at(self, member: Member, owner: str) -> bool:
        lane = self.roster.live.get(member)
        return lane is not None and lane.owner == owner

    def _on_ended(self, now_us: int, ends: ev.AttemptsEnded, out: list[Effect]) -> None:
        owner, results = ends.owner, ends.results
        upto = self._starter_upto[owner] = max(self._starter_upto.get(owner, 0), ends.upto)
        live = self.roster.live
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
            self._escaped += sum(result.escaped for result in fresh)
            self.roster.drop([(result.grant, result.index) for result in fresh])
            self._fill(now_us, out)
            self._keep(fresh, owner, out)
        elif results and owner not in self._unkept:
            out.append(ev.Release(upto, owner))

    def _keep(self, results: list[AttemptResult], owner: str, out: list[Effect]) -> None:
        everything = self._unkept.pop(owner, []) + results
        self._being_kept += len(everything)
        out.append(ev.Keep(everything, self._starter_upto.get(owner, 0), owner))

    def _on_kept(self, kept: ev.ResultsKept, out: list[Effect]) -> None:
        upto, results = kept.upto, kept.results
        self._being_kept -= len(results)
        if kept.starter_upto:
            out.append(ev.Release(kept.starter_upto, kept.owner))
        numbered = list(enumerate(results, upto - len(results) + 1))
        apart = [result for result in results if self._is_foreign(result.grant)]
        if apart:
            out.append(ev.SetApart(apart))
            numbered = [one for one in numbered if not self._is_foreign(one[1].grant)]
        self._unforgotten.extend(numbered)
        if self._is_in_step():
            self._send_results(numbered, out)

    def _on_given_back(self, now_us: int, back: ev.JobsGivenBack, out: list[Effect]) -> None:
        """Where the starter cannot begin them now, neither can it those alike that it was not given yet."""
        fresh = [member for member in dict.fromkeys(back.items) if self._is_at(member, back.owner)]
        if fresh:
            lanes = {self.roster.live[member] for member in fresh}
            self.roster.drop(fresh)
            out.append(ev.NoteGone(fresh))
            alike = self.roster.withdraw_alike(lanes) if back.why else []
            self._return([*fresh, *alike], out, back.why)
            self._fill(now_us, out)

    def _give_back(self, members: list[Member], out: list[Effect]) -> None:
        """The starter has not begun these and will not: they are the hub's again."""
        if members:
            self.roster.drop(members)
            out.append(ev.NoteGone(members))
            self._return(members, out)

    def _on_hand_failed(self, now_us: int, items: list[Member], out: list[Effect]) -> None:
        """The jobs go back to the hub, since nothing new starts here while the disk is full."""
        self.roster.drop(items)
        self._set_disk_trouble(now_us, DISK_FULL, out)
        self._return(items, out)
        self.roster.resize(out)

    # -- time and trouble

    def _on_tick(self, now_us: int, wall_us: int, out: list[Effect]) -> None:
        self._wall_offset_us = wall_us - now_us
        if self._is_connected and now_us - self._heard_us >= SILENCE_US:
            out.append(ev.Reconnect("the hub is silent"))
            return
        if now_us >= self._next_beat_us:
            self._beat(now_us, out)
        for owner in list(self._unkept):
            self._keep([], owner, out)
        if self.lease.has_run_out(now_us):
            # The hub gives these jobs to others now; what runs is ended by the starter itself.
            self._give_all_back(out)
            self.roster.unclaim(list(self.roster.claims))
            self.lease.end()
            for owner, some in self.roster.by_owner(self.roster.live).items():
                self._await_ends(some, 0, owner)
        if self._endings.are_awaited:
            overdue = self._endings.look(now_us, self.roster.live)
            out += [ev.EndStarter(owner) for owner in self.roster.by_owner(overdue)]
        self.roster.close_idle_lanes(now_us, out)
        self._retire_idle(now_us, out)

    def _retire_idle(self, now_us: int, out: list[Effect]) -> None:
        """A user who has had nothing here for long needs no starter. Until it has ended, nothing is handed to it."""
        idle = self._served - self.roster.busy() - {OWN}
        self._idle_since = {owner: self._idle_since.get(owner, now_us) for owner in idle}
        for owner in sorted(idle):
            if now_us - self._idle_since[owner] >= RETIRE_US:
                self._served.discard(owner)
                self._retiring.add(owner)
                out.append(ev.RetireStarter(owner))

    def _beat(self, now_us: int, out: list[Effect]) -> None:
        self._next_beat_us = now_us + self._heartbeat_us
        number, wall_us = self.lease.beat(now_us), now_us + self._wall_offset_us
        running, waiting = self.roster.running, self.roster.waiting
        out.append(Send(wire.Heartbeat(number, wall_us, running, waiting, self._trouble, self._escaped)))

    def _set_disk_trouble(self, now_us: int, trouble: str, out: list[Effect]) -> None:
        self._disk_trouble = trouble
        self._tell_trouble(now_us, out)

    def _set_starter_trouble(self, now_us: int, trouble: str, out: list[Effect]) -> None:
        self._starter_trouble = trouble
        self._tell_trouble(now_us, out)

    def _tell_trouble(self, now_us: int, out: list[Effect]) -> None:
        trouble = "; ".join(filter(None, (self._disk_trouble, self._starter_trouble)))
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if self._is_welcome:
            self._beat(now_us, out)
        if trouble:
            self._give_all_back(out)

    def _leave_when_done(self, now_us: int, out: list[Effect]) -> None:
        is_busy = self.roster.live or self.roster.pending or self._being_kept or self._unkept or self._orphans
        if self._is_gone or is_busy:
            return
        if self._is_leaving and not (self._is_welcome and (self._unforgotten or self.roster.claims)):
            self._is_gone = True
            out.append(ev.Leave("drained, and told to leave"))
        elif self._end_with_hub_us and 0 <= self._gone_since_us <= now_us - self._end_with_hub_us:
            self._is_gone = True
            out.append(ev.Leave("the hub is gone and nothing runs"))

    def _set_due(self, now_us: int) -> None:
        due_us = self._next_beat_us
        if self._is_connected:
            due_us = min(due_us, self._heard_us + SILENCE_US)
        if self._unkept:
            due_us = min(due_us, now_us + RETRY_KEEP_US)
        if self._endings.are_awaited:
            due_us = min(due_us, now_us + LOOK_US)
        if self.lease.good_until_us > 0:
            due_us = min(due_us, self.lease.good_until_us)
        self.due_us = due_us
