"""What is measured of a replay: waits, slowdowns, utilisation, and how evenly the users fared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from lanai.sim.swf import Trace, TraceJob

SLOWDOWN_BOUND_S: Final = 10


class Measures(msgspec.Struct, frozen=True):
    """Of the jobs that were run. A percentile is by nearest rank.

    Attributes:
        jobs: how many were run.
        wait_avg_s: mean time from submission to start.
        wait_median_s: half of the jobs waited no longer.
        wait_p95_s: 95 of 100 waited no longer.
        wait_max_s: the longest wait.
        slowdown_avg: mean bounded slowdown, max(1, (wait + run)/max(run, 10 s)).
        slowdown_p95: 95 of 100 had no larger.
        slowdown_max: the largest.
        utilisation: processor-seconds of the jobs as a part of those of the machine during the makespan, 0 to 1.
        makespan_s: from the first submission to the last end.
        fairness_jain: Jain's index over the users' mean bounded slowdowns, 1/users to 1: (sum x)^2 / (n * sum x^2).
        users: how many there are; jobs without a user have one together.
        starts_sum_s: sum of all start times.
        starts_sha256: of the lines `id start` in order of submission: equal where every start is.
    """

    jobs: int
    wait_avg_s: float
    wait_median_s: int
    wait_p95_s: int
    wait_max_s: int
    slowdown_avg: float
    slowdown_p95: float
    slowdown_max: float
    utilisation: float
    makespan_s: int
    fairness_jain: float
    users: int
    starts_sum_s: int
    starts_sha256: str


def measure(trace: Trace, starts: Sequence[int]) -> Measures:
    """The measures of a replay of `trace`, which has at least one job, with the starts that `replay` gave."""
    jobs = trace.jobs
    waits = sorted(start - job.submit_s for job, start in zip(jobs, starts, strict=True))
    slowdowns = [_slowdown(job, start) for job, start in zip(jobs, starts, strict=True)]
    ordered = sorted(slowdowns)
    makespan = max(start + job.run_s for job, start in zip(jobs, starts, strict=True)) - jobs[0].submit_s
    area = sum(job.width * job.run_s for job in jobs)
    users = _means_by_user(jobs, slowdowns)
    return Measures(
        jobs=len(jobs),
        wait_avg_s=sum(waits) / len(waits),
        wait_median_s=waits[_rank(50, len(waits))],
        wait_p95_s=waits[_rank(95, len(waits))],
        wait_max_s=waits[-1],
        slowdown_avg=sum(slowdowns) / len(slowdowns),
        slowdown_p95=ordered[_rank(95, len(ordered))],
        slowdown_max=ordered[-1],
        utilisation=area / (trace.procs * makespan) if makespan else 0.0,
        makespan_s=makespan,
        fairness_jain=sum(users) ** 2 / (len(users) * sum(mean * mean for mean in users)),
        users=len(users),
        starts_sum_s=sum(starts),
        starts_sha256=_hash(trace, starts),
    )


def start_lines(trace: Trace, starts: Sequence[int]) -> Iterator[str]:
    """Lines `id submit start end`, one for each job, in order of submission, then of the file."""
    for job, start in zip(trace.jobs, starts, strict=True):
        yield f"{job.id} {job.submit_s} {start} {start + job.run_s}\n"


def _slowdown(job: TraceJob, start: int) -> float:
    return max(1.0, (start - job.submit_s + job.run_s) / max(job.run_s, SLOWDOWN_BOUND_S))


def _rank(percent: int, count: int) -> int:
    """The place, from 0, of the nearest rank: ceil(percent/100 * count) - 1."""
    return -(-percent * count // 100) - 1


def _means_by_user(jobs: Sequence[TraceJob], values: Sequence[float]) -> list[float]:
    sums: dict[int, list[float]] = {}
    for job, value in zip(jobs, values, strict=True):
        entry = sums.setdefault(job.user, [0.0, 0])
        entry[0] += value
        entry[1] += 1
    return [total / count for total, count in sums.values()]


def _hash(trace: Trace, starts: Sequence[int]) -> str:
    lines = "".join([f"{job.id} {start}\n" for job, start in zip(trace.jobs, starts, strict=True)])
    return hashlib.sha256(lines.encode()).hexdigest()
