"""The agent's own decisions: what to start, keep, report and give back. Pure: (time, event) -> effects.

It reads no clock, touches no file and opens no socket; the loop in `__main__` does what the effects say, in order, and
answers with events. It must not choose between jobs beyond the order in which the hub granted them.

Theory of operation. An attempt's way: pending here -> live (noted in the spool, at the starter) -> its result in the
spool -> reported -> the hub says forget. The fence (grant, index) is its name all the way. `roster.py` keeps what is
pending and live and says what starts next; `lease.py` until when anything may run; `starters.py` is the conversation
with the starters, `results.py` what has ended and is not forgotten; here is the conversation with the hub, and what
holds these together.
"""

from __future__ import annotations

from typing import Final, assert_never

from lanai.agent import events as ev
from lanai.agent.endings import LOOK_US, Endings
from lanai.agent.events import Effect, Event, Member, Send
from lanai.agent.lease import Lease
from lanai.agent.results import Results
from lanai.agent.roster import Roster
from lanai.agent.spool import Remembered
from lanai.agent.starters import OWN, Starters
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, GrantId, Index, grant_epoch
from lanai.model.job import AttemptResult
from lanai.model.resources import Capacity
from lanai.wire import messages as wire

FRAME_ITEMS: Final = 1000
SILENCE_US: Final = 15_000_000
RETRY_KEEP_US: Final = 1_000_000
NEVER_US: Final = 1 << 62
DISK_FULL: Final = "disk full"
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
        self._results = Results(remembered.results)
        self._starters = Starters(
            self.roster,
            self.lease,
            self._results,
            remembered.handed,
            fill=self._fill,
            tell=self._tell,
            in_trouble=self._set_starter_trouble,
        )
        self._trouble = self._starter_trouble = self._disk_trouble = ""
        self._endings = Endings()
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
        return next(((one.batch, one.attempt) for one in self._starters.orphans if one.grant == grant), None)

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
        return next((one.owner for one in self._starters.orphans if one.grant == number and index in one.indices), None)

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
                self._results.not_kept(results, owner)
                self._set_disk_trouble(now_us, DISK_FULL, out)
            case ev.HandFailed(items):
                self._on_hand_failed(now_us, items, out)
            case ev.DiskFilled():
                self._set_disk_trouble(now_us, DISK_FULL, out)
            case ev.DiskFreed():
                self._set_disk_trouble(now_us, "", out)
                self._fill(now_us, out)
            case _:
                self._starters.handle(now_us, event, out)

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
        if self._starters.orphans or self._results.are_being_kept:
            return
        self._owes_stock = False
        ended = self._results.members()
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
        self._send_results(self._results.numbered(), out)
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
        self._results.set_apart(self._is_foreign, out)

    def _on_hub_lost(self, now_us: int) -> None:
        self._is_connected = self._is_welcome = self._owes_stock = False
        self._next_beat_us = NEVER_US
        if self._gone_since_us < 0:
            self._gone_since_us = now_us

    def _on_forget(self, upto: int, out: list[Effect]) -> None:
        self._results.forget(upto)
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

    def _on_kept(self, kept: ev.ResultsKept, out: list[Effect]) -> None:
        numbered = self._results.kept(kept, self._is_foreign, out)
        if self._is_in_step():
            self._send_results(numbered, out)

    def _without_ended(self, members: list[Member]) -> list[Member]:
        if not members:
            return members
        ended = set(self._results.members())
        return [member for member in members if member not in ended]

    def _return(self, items: list[Member], out: list[Effect], why: str = "") -> None:
        if items:
            self._tell(wire.Returned(items, why), out)

    def _tell(self, message: wire.ToHub, out: list[Effect]) -> None:
        """What the hub need not hear where it cannot: the inventory says it again."""
        if self._is_in_step():
            out.append(Send(message))

    def _on_hand_failed(self, now_us: int, items: list[Member], out: list[Effect]) -> None:
        """The jobs go back to the hub, since nothing new starts here while the disk is full."""
        self.roster.drop(items)
        self._set_disk_trouble(now_us, DISK_FULL, out)
        self._return(items, out)
        self.roster.resize(out)

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
            self._say_claimed(self.roster.fill(self._starters.served, out), out)
            self._starters.wake(out)
        elif self.roster.claims:
            self._say_claimed(self.roster.keep_room(), out)
        self.roster.resize(out)

    def _say_claimed(self, claims: list[GrantId], out: list[Effect]) -> None:
        if claims:
            self._tell(wire.Claimed(claims), out)

    # -- time and trouble

    def _on_tick(self, now_us: int, wall_us: int, out: list[Effect]) -> None:
        self._wall_offset_us = wall_us - now_us
        if self._is_connected and now_us - self._heard_us >= SILENCE_US:
            out.append(ev.Reconnect("the hub is silent"))
            return
        if now_us >= self._next_beat_us:
            self._beat(now_us, out)
        self._results.keep_unkept(out)
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
        self._starters.retire_idle(now_us, out)

    def _beat(self, now_us: int, out: list[Effect]) -> None:
        self._next_beat_us = now_us + self._heartbeat_us
        number, wall_us = self.lease.beat(now_us), now_us + self._wall_offset_us
        running, waiting = self.roster.running, self.roster.waiting
        out.append(Send(wire.Heartbeat(number, wall_us, running, waiting, self._trouble, self._starters.escaped)))

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
        is_keeping = self._results.are_being_kept or self._results.are_unkept
        if self._is_gone or is_keeping or self.roster.live or self.roster.pending or self._starters.orphans:
            return
        if self._is_leaving and not (self._is_welcome and (self._results.are_unforgotten or self.roster.claims)):
            self._is_gone = True
            out.append(ev.Leave("drained, and told to leave"))
        elif self._end_with_hub_us and 0 <= self._gone_since_us <= now_us - self._end_with_hub_us:
            self._is_gone = True
            out.append(ev.Leave("the hub is gone and nothing runs"))

    def _set_due(self, now_us: int) -> None:
        due_us = self._next_beat_us
        if self._is_connected:
            due_us = min(due_us, self._heard_us + SILENCE_US)
        if self._results.are_unkept:
            due_us = min(due_us, now_us + RETRY_KEEP_US)
        if self._endings.are_awaited:
            due_us = min(due_us, now_us + LOOK_US)
        if self.lease.good_until_us > 0:
            due_us = min(due_us, self.lease.good_until_us)
        self.due_us = due_us
