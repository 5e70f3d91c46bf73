"""The running hub's heart: drain the inbox, `core.handle`, one transaction, and then, and only then, send.

The only owner of the core. Everything that happens outside becomes an event in the inbox; everything the core wants
goes to `perform` after the records it came with are on disk, in order. A group is committed at once when the writer is
idle and something urgent waits (an acknowledgement, a command, a node with a free slot); else up to 50 ms or 1,000 rows
are gathered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from lanai.core.effects import (
    AcceptNode,
    AckChunk,
    Answer,
    BatchMoved,
    ClaimRoom,
    DrainNode,
    Effect,
    KillAttempts,
    RecallJobs,
    RejectNode,
    StartAttempts,
    UnclaimRoom,
)
from lanai.core.events import (
    BatchChanged,
    BatchClosed,
    BatchRevived,
    Event,
    JobsReleased,
    JobsRetried,
    NodeJoined,
    NodeTookStock,
    ReservationDropped,
    ReservationRenewed,
    ReservationWished,
    TailArrived,
    TimePassed,
)
from lanai.core.hub import Decision, HubCore
from lanai.hub.clock import boottime_us, wall_us
from lanai.hub.commit import CommitLine, Group, Store
from lanai.hub.tails import TailRoom, size_of
from lanai.hub.told import log_events

GATHER_S: Final = 0.05
GATHER_RECORDS: Final = 1000
PASS_US: Final = 100_000
"""Passes that ends of jobs ask for are so far apart: the fast path has filled the slots already."""
PROMPT_SHARE: Final = 100
"""Somebody waits for the effect of new work, a wish or a new node: these get a pass at once, as long as passes take no
more than one part in so many of the time."""
TICK_US: Final = 1_000_000
"""Time passes for the core so often at least, sooner where something is due, and"""
TICKS_APART_US: Final = 10_000
"""no sooner than this after it was last looked at what is due."""

_URGENT: Final = frozenset(
    {AcceptNode, AckChunk, Answer, ClaimRoom, DrainNode, KillAttempts, RecallJobs, RejectNode, UnclaimRoom}
)

_PROMPT: Final = frozenset(
    {
        *(BatchChanged, BatchClosed, BatchRevived, JobsReleased, JobsRetried, NodeJoined, NodeTookStock),
        *(ReservationDropped, ReservationRenewed, ReservationWished),
    }
)

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Heart:
    """Beats on the loop it is made on.

    Args:
        perform: carries out one effect; called on the loop, in order, after the effect's records are kept.
        on_fault: called once with what the store could not survive, or with a mistake of ours in any callback of the
            loop: what is known may be half a step then. Nothing is committed or performed after it.
    """

    def __init__(
        self,
        core: HubCore,
        store: Store,
        *,
        perform: Callable[[Effect], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.core = core
        self.is_full = False
        """The disk is full: submissions and commands are to be refused."""
        self._is_resting = False
        self.tails = TailRoom()
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._callback_failed)
        self._perform = perform
        self._on_fault = on_fault
        self._inbox: list[Event] = []
        self._afterwards: list[Callable[[], None]] = []
        self._is_awake = False
        self._group = Group()
        self._gathering: asyncio.TimerHandle | None = None
        self._pass_timer: asyncio.TimerHandle | None = None
        self._last_pass_us = -PASS_US
        self._pass_took_us = 0
        self._pass_due_us = 0
        self._is_stopped = False
        self._commits = CommitLine(
            store, self._loop, on_committed=self._committed, on_full=self._store_is_full, on_fault=self._fault
        )
        self._tick_timer: asyncio.TimerHandle | None = None
        self._tick_due_us = 0
        self._set_tick(boottime_us() + TICK_US)

    def post(self, event: Event) -> None:
        """Put an event into the inbox. A tail for which there is no room is dropped instead."""
        if type(event) is TailArrived and not self.tails.admit(event.tail):
            return
        self._inbox.append(event)
        if not self._is_awake:
            self._is_awake = True
            self._loop.call_soon(self._beat)

    def take(self, decision: Decision) -> None:
        """Add what the core decided to the open group, and have a pass where it wants one."""
        self._gather(decision)
        self._pass_if_due(PASS_US)
        self._flush_if_due()

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call back on the loop, unless the heart has stopped by then."""
        self._loop.call_later(delay_s, lambda: None if self._is_stopped else call())

    def afterwards(self, call: Callable[[], None]) -> None:
        """Call back on the loop once the core has handled what is in the inbox now."""
        self._afterwards.append(call)

    def aside(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do what takes long in a thread, and give what came of it to `then` on the loop, unless the heart has stopped.

        `work` touches nothing that others change. An error in it ends the hub as one on the loop does.
        """
        done = self._loop.run_in_executor(None, work)
        done.add_done_callback(lambda done: None if self._is_stopped else then(done.result()))

    def rest(self) -> None:
        """Have no pass any more: what waits goes on waiting."""
        self._is_resting = True

    def stop(self) -> None:
        """Finish the commit under way and end the threads. What was gathered after it is dropped, never half done."""
        self._is_stopped = True
        for timer in (self._tick_timer, self._gathering, self._pass_timer):
            if timer is not None:
                timer.cancel()
        self._commits.close()

    # -- the beat

    def _beat(self) -> None:
        self._is_awake = False
        if self._is_stopped:
            return
        events, self._inbox = self._inbox, []
        self._gather(self.core.handle(boottime_us(), events))
        calls, self._afterwards = self._afterwards, []
        for call in calls:
            call()
        self._group.tail_bytes += sum(size_of(event.tail) for event in events if type(event) is TailArrived)
        is_prompt = any(type(event) in _PROMPT for event in events)
        self._pass_if_due(min(PASS_US, self._pass_took_us * PROMPT_SHARE) if is_prompt else PASS_US)
        self._flush_if_due()

    def _pass_if_due(self, apart_us: int) -> None:
        """Have a pass, or set a timer for one, `apart_us` after the last."""
        if not self._may_pass():
            return
        now_us = boottime_us()
        due_us = self._last_pass_us + apart_us
        if due_us <= now_us:
            self._run_pass(now_us)
        elif self._pass_timer is None or self._pass_due_us > due_us:
            self._set_pass_timer(now_us, due_us)

    def _may_pass(self) -> bool:
        return self.core.needs_pass and not self.is_full and not self._is_resting

    def _set_pass_timer(self, now_us: int, due_us: int) -> None:
        if self._pass_timer is not None:
            self._pass_timer.cancel()
        self._pass_due_us = due_us
        self._pass_timer = self._loop.call_later((due_us - now_us) / 1e6, self._late_pass)

    def _run_pass(self, now_us: int) -> None:
        self._last_pass_us = now_us
        self._gather(self.core.decide(now_us))
        self._pass_took_us = boottime_us() - now_us
        if self.core.needs_pass:
            # Where it stopped at its work limit others get their turn first.
            self._set_pass_timer(now_us, now_us if self.core.goes_on else now_us + PASS_US)
        # What it has planned, such as that others make way, may be due long before the next tick.
        due_us = self.core.next_due_us()
        if due_us is not None and due_us < self._tick_due_us:
            self._set_tick(due_us)

    def _late_pass(self) -> None:
        self._pass_timer = None
        if not self._is_stopped and self._may_pass():
            self._run_pass(boottime_us())
            self._flush_if_due()

    def _gather(self, decision: Decision) -> None:
        group = self._group
        group.records += decision.records
        group.effects += decision.effects
        group.is_urgent = group.is_urgent or any(map(_is_urgent, decision.effects))

    # -- commits

    def _flush_if_due(self) -> None:
        group = self._group
        if self._commits.is_busy or self._is_stopped:
            return
        if group.is_urgent or len(group.records) >= GATHER_RECORDS:
            self._flush()
        elif (group.records or group.effects) and self._gathering is None:
            self._gathering = self._loop.call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        if not self._commits.is_busy and not self._is_stopped and (self._group.records or self._group.effects):
            self._flush()

    def _flush(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        group, self._group = self._group, Group()
        self._commits.send(group)

    def _committed(self, group: Group) -> None:
        self.tails.kept(group.tail_bytes)
        log_events(group.records)
        for effect in group.effects:
            if self._is_stopped:
                return
            self._perform(effect)
        self._flush_if_due()

    def _store_is_full(self, is_full: bool) -> None:
        if is_full != self.is_full:
            _log.warning("the disk is full" if is_full else "there is room on the disk again")
        self.is_full = is_full
        if not is_full:
            self._pass_if_due(PASS_US)

    def _fault(self, fault: BaseException) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._on_fault(fault)

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback did not catch ends the hub; what asyncio says of one connection does not."""
        loop.default_exception_handler(context)
        fault = context.get("exception")
        if "handle" in context and fault is not None:
            self._fault(fault)

    # -- time

    def _tick(self) -> None:
        self.post(TimePassed(wall_us()))
        next_us = boottime_us() + TICK_US
        due_us = self.core.next_due_us()
        self._set_tick(next_us if due_us is None else min(next_us, due_us))

    def _set_tick(self, due_us: int) -> None:
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self._tick_due_us = due_us
        self._tick_timer = self._loop.call_later(max(TICKS_APART_US, due_us - boottime_us()) / 1e6, self._tick)


def _is_urgent(effect: Effect) -> bool:
    if isinstance(effect, StartAttempts):
        return effect.is_urgent
    return type(effect) in _URGENT or (isinstance(effect, BatchMoved) and effect.has_ended)
