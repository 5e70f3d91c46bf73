"""Start by `wfp3`, whose order changes as time passes, with or without EASY backfill.

Jobs of one width and one estimate form a line: of these the one that came first is the most urgent at any time, so only
the heads of lines are scored, and a line whose head may not start is done for that pass: no other of it may either.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heapreplace

from lanai.core.schedule.easy import Shadow
from lanai.core.schedule.order import Place, by_urgency
from lanai.core.schedule.rigid import Amount, RigidJob
from lanai.core.schedule.running import Running


class UrgencyPlanner:
    """The waiting and the running jobs of a machine under `wfp3`.

    Args:
        capacity: of the machine.
        backfills: whether EASY backfill follows the first job that does not fit.
    """

    def __init__(self, capacity: Amount, *, backfills: bool) -> None:
        self._running = Running(capacity)
        self._backfills = backfills
        self._lines: dict[tuple[Amount, int], deque[RigidJob]] = {}

    def arrived(self, job: RigidJob) -> None:
        """See `Planner`."""
        self._lines.setdefault((job.width, job.estimate), deque()).append(job)

    def ended(self, job: RigidJob, now: int, started: int) -> None:
        """See `Planner`."""
        self._running.end(job, started)

    def estimated(self, before: RigidJob, after: RigidJob, started: int) -> None:
        """See `RevisingPlanner`."""
        self._running.end(before, started)
        self._running.start(after, started)

    def wake(self) -> int | None:
        """See `Planner`: the order is looked at only where something happens."""
        return None

    def decide(self, now: int) -> list[RigidJob]:
        """See `Planner`."""
        free = self._running.free
        if all(width > free for width, _estimate in self._lines):
            return []
        heads = [(by_urgency(line[0], now), line[0]) for line in self._lines.values()]
        heapify(heads)
        started: list[RigidJob] = []
        while heads and heads[0][1].width <= self._running.free:
            started.append(self._start(heads, now))
        if heads and self._backfills and self._running.free:
            self._backfill(heads, started, now)
        return started

    def _backfill(self, heads: list[Place], started: list[RigidJob], now: int) -> None:
        """Behind the first of the heads; those that start are added to `started`."""
        running = self._running
        first = heads[0][1]
        heads = [place for place in heads if place[1].width <= running.free]
        if not heads:
            return
        heapify(heads)
        shadow = Shadow(*running.shadow(first.width))
        while heads and running.free:
            job = heads[0][1]
            if job.width <= running.free and shadow.admits(job, now):
                started.append(self._start(heads, now))
            else:
                heappop(heads)

    def _start(self, heads: list[Place], now: int) -> RigidJob:
        """Start the first of the heads; the next of its line takes its place among them."""
        job = heads[0][1]
        line = self._lines[job.width, job.estimate]
        line.popleft()
        if line:
            heapreplace(heads, (by_urgency(line[0], now), line[0]))
        else:
            heappop(heads)
            del self._lines[job.width, job.estimate]
        self._running.start(job, now)
        return job
