"""The orders in which waiting jobs are looked at. Ties always go by (submit, seq).

* `fcfs`: first come, first served.
* `sjf`: shortest estimate first.
* `wfp3`: highest (wait/estimate)^3 * width first (ALCF Cobalt). It changes as time passes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from math import inf
from operator import itemgetter
from typing import Literal, TypeAlias

from lanai.core.schedule.rigid import RigidJob

StaticOrder: TypeAlias = Literal["fcfs", "sjf"]
Rank: TypeAlias = tuple[float, int, int]
Place: TypeAlias = tuple[Rank, RigidJob]


def by_submission(job: RigidJob) -> Rank:
    """The rank in `fcfs`: lowest first."""
    return 0, job.submit, job.seq


def by_estimate(job: RigidJob) -> Rank:
    """The rank in `sjf`: lowest first."""
    return job.estimate, job.submit, job.seq


def by_urgency(job: RigidJob, now: int) -> Rank:
    """The rank in `wfp3` at `now`: lowest first.

    The score is computed in IEEE doubles, r*r*r*width from left to right with r = wait/estimate. With an estimate of 0
    it is infinite, or 0 where the job has not waited.
    """
    waited = now - job.submit
    ratio = waited / job.estimate if job.estimate else inf if waited else 0.0
    return -(ratio * ratio * ratio * job.width), job.submit, job.seq


class Queue:
    """Waiting jobs, kept in the order of a rank that does not change while they wait."""

    def __init__(self, rank: Callable[[RigidJob], Rank]) -> None:
        self.rank = rank
        self.places: list[Place] = []

    def add(self, job: RigidJob) -> None:
        """Put a job into its place."""
        place = (self.rank(job), job)
        if not self.places or self.places[-1][0] < place[0]:
            self.places.append(place)
        else:
            insort(self.places, place, key=itemgetter(0))

    def remove(self, job: RigidJob) -> None:
        """Take out a job that waits."""
        del self.places[bisect_left(self.places, self.rank(job), key=itemgetter(0))]
