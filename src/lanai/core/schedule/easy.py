"""Start in order, and behind a head that does not fit start what does not delay it: nothing at all, or EASY backfill.

EASY (Lifka 1995): the first job in order that does not fit is the *head*. Its *shadow* is the time at which it will fit
if every running job ends as estimated; *extra* is what will be free then besides. A job behind the head starts if it
fits now and either ends by the shadow or is no wider than extra, which it then uses up. The jobs behind the head are
looked at once, in backfill order: that of the queue, or shortest first (Tsafrir, Etsion, Feitelson 2007).

Nothing is remembered from one pass to the next, with one shortcut that changes no result. While no job ends and the
head stays first, shadow stays the same: what was started since ends by it or was paid for from extra. What was passed
over stays out: free and extra have only shrunk, and the time until the shadow too. So only new jobs are looked at.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Literal, TypeAlias

from lanai.core.schedule.order import Place, Queue, StaticOrder, by_estimate, by_submission
from lanai.core.schedule.rigid import Amount, RigidJob
from lanai.core.schedule.running import Running

Backfill: TypeAlias = Literal["none", "same", "shortest"]


class Shadow:
    """What a head has been promised: when it will fit, and what is free then besides.

    Attributes:
        when: the time.
        extra: what jobs that run beyond it may still take.
    """

    __slots__ = ("extra", "when")

    def __init__(self, when: int, extra: Amount) -> None:
        self.when = when
        self.extra = extra

    def admits(self, job: RigidJob, now: int) -> bool:
        """Whether a job that fits now may start without delaying the head. If so, it has been counted as started."""
        if now + job.estimate <= self.when:
            return True
        if job.width > self.extra:
            return False
        self.extra -= job.width
        return True


class ListPlanner:
    """The queue and the running jobs of a machine under an order, with or without EASY backfill.

    Args:
        capacity: of the machine.
        order: of the queue; for that of `wfp3` see `urgency`.
        backfill: `none`, or EASY over the rest of the queue in its own order (`same`) or by estimate (`shortest`).
    """

    def __init__(self, capacity: Amount, order: StaticOrder, backfill: Backfill) -> None:
        self._running = Running(capacity)
        self._queue = Queue(by_estimate if order == "sjf" else by_submission)
        self._shortest = Queue(by_estimate) if backfill == "shortest" else None
        self._backfills = backfill != "none"
        self._new: list[RigidJob] = []
        self._head: Place | None = None  # that of the last pass; None where a whole pass is due
        self._shadow: Shadow | None = None  # of that head; None until it is asked for

    def arrived(self, job: RigidJob) -> None:
        """See `Planner`."""
        self._queue.add(job)
        if self._shortest is not None:
            self._shortest.add(job)
        self._new.append(job)

    def ended(self, job: RigidJob, now: int, started: int) -> None:
        """See `Planner`."""
        self._running.end(job, started)
        self._head = None

    def estimated(self, before: RigidJob, after: RigidJob, started: int) -> None:
        """See `RevisingPlanner`."""
        self._running.end(before, started)
        self._running.start(after, started)
        self._head = None

    def wake(self) -> int | None:
        """See `Planner`: nothing changes between ends and arrivals."""
        return None

    def decide(self, now: int) -> list[RigidJob]:
        """See `Planner`."""
        new, self._new = self._new, []
        if not self._running.free or not self._queue.places:
            return []  # what is new is looked at when something has ended, as all is then
        if self._head is not None and self._queue.places[0] is self._head:
            return self._pass_over_new(now, new)
        return self._whole_pass(now)

    # -- passes

    def _whole_pass(self, now: int) -> list[RigidJob]:
        places = self._queue.places
        started = self._start_in_order(now, places)
        del places[: len(started)]
        if self._shortest is not None:
            for job in started:
                self._shortest.remove(job)
        self._shadow = None
        self._head = places[0] if places else None
        if not self._backfills or self._head is None or not self._running.free:
            return started
        filled = self._backfill(now, self._head[1], places if self._shortest is None else self._shortest.places)
        self._forget(filled)
        return started + filled

    def _pass_over_new(self, now: int, new: list[RigidJob]) -> list[RigidJob]:
        assert self._head is not None
        if not self._backfills:
            return []
        queue = self._queue if self._shortest is None else self._shortest
        filled = self._backfill(now, self._head[1], sorted([(queue.rank(job), job) for job in new], key=itemgetter(0)))
        self._forget(filled)
        return filled

    # -- steps of a pass

    def _start_in_order(self, now: int, places: list[Place]) -> list[RigidJob]:
        running = self._running
        started = []
        for _rank, job in places:
            if job.width > running.free:
                break
            running.start(job, now)
            started.append(job)
        return started

    def _backfill(self, now: int, head: RigidJob, places: list[Place]) -> list[RigidJob]:
        """Start what may be; among the places may be the head, which does not fit."""
        running = self._running
        free = running.free
        fitting = [job for _rank, job in places if job.width <= free]
        if not fitting:
            return fitting
        if self._shadow is None:
            self._shadow = Shadow(*running.shadow(head.width))
        started = []
        for job in fitting:
            if job.width <= running.free and self._shadow.admits(job, now):
                running.start(job, now)
                started.append(job)
                if not running.free:
                    break
        return started

    def _forget(self, started: list[RigidJob]) -> None:
        for job in started:
            self._queue.remove(job)
            if self._shortest is not None:
                self._shortest.remove(job)
