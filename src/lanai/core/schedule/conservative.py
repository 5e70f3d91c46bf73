"""Conservative backfill: every waiting job has a reservation, and none ever moves to a later time.

A job gets the earliest start at which it fits, at the first pass after its arrival. There is none while nothing is
free: those that arrive meanwhile are placed when something has ended, after those before them have moved. Recorded
replays have it so; to place them at once gives other starts.

Where jobs have ended, each waiting job in order of submission is lifted out and placed again at its earliest start,
with all other reservations in place: one sweep, so what a later job gives up serves an earlier one at the next sweep.
A job starts when its reservation has come.

To sweep over thousands is affordable because most need no look. A job that could not move when it was last looked at
can move now only to a start from which it would use something that was given back since. So what is given back is kept
as a list of intervals (`_freed`), each job remembers how long that list was (`seen`), and it is only tried from the
first to the last of the times given back since.
"""

from __future__ import annotations

from bisect import bisect_left
from heapq import heappop, heappush
from operator import attrgetter

import msgspec

from lanai.core.schedule.rigid import Amount, RigidJob
from lanai.core.schedule.timeline import NEVER, Timeline


class _Promise(msgspec.Struct, gc=False, eq=False):
    """A waiting job with its reservation. `seen` counts what had been given back when it was last placed or tried."""

    job: RigidJob
    submit: int
    seq: int
    start: int
    seen: int


class ConservativePlanner:
    """The waiting jobs of a machine, each with its reservation, in a timeline with the running ones.

    A job whose estimate is 0 is planned with a length of 1: it needs its width at the time at which it starts.
    """

    def __init__(self, capacity: Amount) -> None:
        self._timeline = Timeline(capacity)
        self._free = capacity
        self._promises: list[_Promise] = []
        self._due: list[tuple[int, int, _Promise]] = []  # a heap; those whose promise has moved since are passed over
        self._new: list[RigidJob] = []
        self._freed: list[tuple[int, int]] = []
        self._forgotten = 0  # how many intervals were dropped from the beginning of `_freed`
        self._has_ended = False

    def arrived(self, job: RigidJob) -> None:
        """See `Planner`."""
        self._new.append(job)

    def ended(self, job: RigidJob, now: int, started: int) -> None:
        """See `Planner`."""
        self._has_ended = True
        self._free += job.width
        self._give(now, started + _length(job), job.width)

    def wake(self) -> int | None:
        """See `Planner`: the first reservation."""
        due = self._due
        while due and due[0][2].start != due[0][0]:
            heappop(due)
        return due[0][0] if due else None

    def decide(self, now: int) -> list[RigidJob]:
        """See `Planner`."""
        if not self._free:
            return []
        self._timeline.advance(now)
        if self._has_ended:
            self._sweep(now)
            self._has_ended = False
        for job in self._new:
            self._place(job, now)
        self._new = []
        return self._start(now)

    def _place(self, job: RigidJob, now: int) -> None:
        start = self._timeline.earliest(now, job.width, _length(job))
        self._timeline.take(start, start + _length(job), job.width)
        seen = self._forgotten + len(self._freed)
        promise = _Promise(job=job, submit=job.submit, seq=job.seq, start=start, seen=seen)
        self._promises.append(promise)
        heappush(self._due, (start, job.seq, promise))

    def _sweep(self, now: int) -> None:
        spans = self._spans()
        at_first = len(self._freed)
        low, high = NEVER, 0  # of what is given back during this sweep
        for promise in self._promises:
            begin, end = spans[promise.seen - self._forgotten]
            promise.seen = self._forgotten + len(self._freed)
            begin, end = min(begin, low), max(end, high)
            if begin >= end or begin >= promise.start:
                continue
            old = promise.start
            if self._move(promise, now, begin, end):
                low, high = min(low, old), max(high, old + _length(promise.job))
        self._forgotten += at_first
        del self._freed[:at_first]

    def _spans(self) -> list[tuple[int, int]]:
        """For each number of intervals of `_freed` seen: from where to where the rest reaches."""
        begin, end = NEVER, 0
        spans = [(begin, end)]
        for low, high in reversed(self._freed):
            begin, end = min(begin, low), max(end, high)
            spans.append((begin, end))
        spans.reverse()
        return spans

    def _move(self, promise: _Promise, now: int, begin: int, end: int) -> bool:
        """Place a job anew at its earliest start, which can only have come to lie such that [begin, end) is met."""
        job, old, length = promise.job, promise.start, _length(promise.job)
        start = self._timeline.earlier(max(now, begin - length + 1), job, old, min(end, old))
        if start is None or start >= old:
            return False
        self._give(old, old + length, job.width)
        self._timeline.take(start, start + length, job.width)
        promise.start = start
        heappush(self._due, (start, job.seq, promise))
        return True

    def _start(self, now: int) -> list[RigidJob]:
        started = []
        while self.wake() == now:
            promise = heappop(self._due)[2]
            at = bisect_left(self._promises, (promise.submit, promise.seq), key=attrgetter("submit", "seq"))
            del self._promises[at]
            self._free -= promise.job.width
            started.append(promise.job)
        return started

    def _give(self, begin: int, end: int, width: Amount) -> None:
        if begin < end:
            self._timeline.give(begin, end, width)
            self._freed.append((begin, end))


def _length(job: RigidJob) -> int:
    return job.estimate or 1
