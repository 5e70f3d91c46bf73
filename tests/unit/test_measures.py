"""What is measured of a replay, worked out by hand."""

import hashlib

import pytest

from lanai.sim.measures import measure, start_lines
from lanai.sim.swf import Trace, TraceJob


def job(name: str, submit: int, run: int, width: int, user: int) -> TraceJob:
    return TraceJob(id=name, submit_s=submit, run_s=run, width=width, estimate_s=run, user=user)


def trace(*jobs: TraceJob) -> Trace:
    return Trace(file="log", procs=4, read=len(jobs), jobs=list(jobs), skipped=[])


def test_the_measures_of_three_jobs() -> None:
    log = trace(job("a", 100, 20, 4, 1), job("b", 100, 5, 2, 1), job("c", 110, 40, 1, 2))
    found = measure(log, [100, 120, 120])
    assert (found.jobs, found.users, found.makespan_s, found.starts_sum_s) == (3, 2, 60, 340)
    assert (found.wait_avg_s, found.wait_median_s, found.wait_p95_s, found.wait_max_s) == (10.0, 10, 20, 20)
    slowdowns = [1.0, 2.5, 1.25]  # b: (20 + 5) / 10
    assert found.slowdown_avg == pytest.approx(sum(slowdowns) / 3)
    assert (found.slowdown_p95, found.slowdown_max) == (2.5, 2.5)
    assert found.utilisation == pytest.approx((80 + 10 + 40) / (4 * 60))
    means = [1.75, 1.25]
    assert found.fairness_jain == pytest.approx(sum(means) ** 2 / (2 * sum(mean**2 for mean in means)))
    assert found.starts_sha256 == hashlib.sha256(b"a 100\nb 120\nc 120\n").hexdigest()
    assert list(start_lines(log, [100, 120, 120])) == ["a 100 100 120\n", "b 100 120 125\n", "c 110 120 160\n"]


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (19, 19), (20, 19), (21, 20), (100, 95), (101, 96)])
def test_the_95th_percentile_is_by_nearest_rank(count: int, rank: int) -> None:
    log = trace(*[job(str(n), 0, 10, 1, 1) for n in range(count)])
    assert measure(log, list(range(1, count + 1))).wait_p95_s == rank


def test_jobs_of_no_time_at_one_instant_use_nothing() -> None:
    found = measure(trace(job("a", 7, 0, 1, -1), job("b", 7, 0, 1, -1)), [7, 7])
    assert (found.utilisation, found.makespan_s, found.fairness_jain, found.users) == (0.0, 0, 1.0, 1)
