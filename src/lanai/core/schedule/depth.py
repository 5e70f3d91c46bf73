"""Backfill around the reservations of the first D jobs that do not fit, all of which are made anew at each end.

In order of submission: a job that fits for the whole of its estimate starts; the first D that do not are given a
reservation each, at the earliest time at which they fit beside those before them; the rest only start. With D = 1 that
is EASY. Nothing is remembered from one end to the next, so a start that was promised may move to a later time, other
than under `conservative`.

A sweep goes only as far as there are jobs narrow enough to start. While nothing ends, the next one goes on from there:
reservations begin at estimated ends, so all of them still lie ahead, and what was passed over has not become startable.
"""

from __future__ import annotations

from lanai.core.schedule.rigid import Amount, RigidJob
from lanai.core.schedule.running import Running
from lanai.core.schedule.timeline import Timeline


class DepthPlanner:
    """The waiting and the running jobs of a machine, with reservations for the first `depth` that do not fit.

    Args:
        capacity: of the machine.
        depth: 1 or more.
    """

    def __init__(self, capacity: Amount, depth: int) -> None:
        self._running = Running(capacity)
        self._depth = depth
        self._waiting: list[RigidJob] = []
        self._timeline: Timeline | None = None  # with the reservations held; None where they have to be made anew
        self._held = 0
        self._next = 0  # the first waiting job that has not been looked at

    def arrived(self, job: RigidJob) -> None:
        """See `Planner`."""
        self._waiting.append(job)

    def ended(self, job: RigidJob, now: int, started: int) -> None:
        """See `Planner`."""
        self._running.end(job, started)
        self._timeline = None

    def estimated(self, before: RigidJob, after: RigidJob, started: int) -> None:
        """See `RevisingPlanner`."""
        self._running.end(before, started)
        self._running.start(after, started)
        self._timeline = None

    def wake(self) -> int | None:
        """See `Planner`: reservations begin where something is expected to end."""
        return None

    def decide(self, now: int) -> list[RigidJob]:
        """See `Planner`."""
        waiting, running = self._waiting, self._running
        if self._timeline is None:
            self._held = self._next = 0
        kept: list[RigidJob] = []
        started: list[RigidJob] = []
        at, end = self._next, self._after_last_that_fits(len(waiting))
        while at < end:
            if self._starts(waiting[at], now):
                running.start(waiting[at], now)
                started.append(waiting[at])
                end = self._after_last_that_fits(end)
            else:
                kept.append(waiting[at])
            at += 1
        if started:
            waiting[self._next : at] = kept
        self._next += len(kept)
        return started

    def _after_last_that_fits(self, end: int) -> int:
        """One more than the last place before `end` of a job that is not wider than what is free now."""
        free = self._running.free
        while end > self._next and self._waiting[end - 1].width > free:
            end -= 1
        return end

    def _starts(self, job: RigidJob, now: int) -> bool:
        """Whether a job starts now; what it takes, now or by a reservation, is taken from the timeline."""
        running = self._running
        if self._timeline is None:
            self._timeline = Timeline(running.capacity, now, running.steps())
        timeline, length = self._timeline, job.estimate or 1
        if self._held < self._depth:
            start = timeline.earliest(now, job.width, length)
            timeline.take(start, start + length, job.width)
            self._held += start > now
            return start == now
        if job.width > running.free or not timeline.fits(now, job.width, length):
            return False
        timeline.take(now, now + length, job.width)
        return True
