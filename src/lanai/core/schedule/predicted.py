"""Estimates predicted from a user's last runs, put between whoever tells what happens and a planner.

The prediction (Tsafrir, Etsion, Feitelson 2007) is the mean of the user's last two jobs that have ended, and no more
than the request; where he has fewer, it is the request. It is made when the job arrives.
A job that outlives its prediction is expected to run for as long as was requested (Gaussier et al. 2015 call it "EASY++
prediction, request as correction"): its estimate changes at that instant, as an event of its own. The request stays
what it was, and with it the time at which a job would be killed; only what planners expect is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from lanai.core.schedule.rigid import RevisingPlanner, RigidJob


class PredictingPlanner:
    """A `Planner` of jobs as requested, which has `planner` decide by predictions.

    Args:
        planner: a new one.
        users: whose job each is, by its `seq`. Jobs of an unknown user are those of one more user.
    """

    def __init__(self, planner: RevisingPlanner, users: Sequence[int]) -> None:
        self._planner = planner
        self._users = users
        self._last: dict[int, tuple[int, int]] = {}  # of a user: the sum of the last two run times, and the last one
        self._only: dict[int, int] = {}  # the run time of those of whom one job has ended
        self._asked: dict[int, RigidJob] = {}  # as requested, of those that wait or run, by seq
        self._planned: dict[int, RigidJob] = {}  # the same as the planner has them
        self._started: dict[int, int] = {}
        self._overruns: list[tuple[int, int]] = []  # a heap of (predicted end, seq), of those that may outlive it

    def arrived(self, job: RigidJob) -> None:
        """See `Planner`."""
        planned = _expected(job, self._predicted(job))
        self._asked[job.seq] = job
        self._planned[job.seq] = planned
        self._planner.arrived(planned)

    def ended(self, job: RigidJob, now: int, started: int) -> None:
        """See `Planner`."""
        del self._asked[job.seq], self._started[job.seq]
        self._planner.ended(self._planned.pop(job.seq), now, started)
        self._learn(self._users[job.seq], now - started)

    def wake(self) -> int | None:
        """See `Planner`: the next prediction that will be outlived, unless its job ends by then."""
        overruns = self._overruns
        while overruns and overruns[0][1] not in self._started:
            heappop(overruns)
        due = self._planner.wake()
        if overruns and (due is None or overruns[0][0] < due):
            return overruns[0][0]
        return due

    def decide(self, now: int) -> list[RigidJob]:
        """See `Planner`."""
        overruns = self._overruns
        while overruns and overruns[0][0] <= now:
            seq = heappop(overruns)[1]
            if seq in self._started:
                before, after = self._planned[seq], self._asked[seq]
                self._planned[seq] = after
                self._planner.estimated(before, after, self._started[seq])
        return [self._start(planned, now) for planned in self._planner.decide(now)]

    def _start(self, planned: RigidJob, now: int) -> RigidJob:
        job = self._asked[planned.seq]
        self._started[job.seq] = now
        if planned.estimate < job.estimate:
            heappush(self._overruns, (now + planned.estimate, job.seq))
        return job

    def _learn(self, user: int, run: int) -> None:
        if user in self._last:
            self._last[user] = (self._last[user][1] + run, run)
        elif user in self._only:
            self._last[user] = (self._only.pop(user) + run, run)
        else:
            self._only[user] = run

    def _predicted(self, job: RigidJob) -> int:
        last = self._last.get(self._users[job.seq])
        return job.estimate if last is None else min(job.estimate, max(1, last[0] // 2))


def _expected(job: RigidJob, estimate: int) -> RigidJob:
    """The same job with another estimate."""
    return job if job.estimate == estimate else RigidJob(job.seq, job.submit, job.width, estimate)
