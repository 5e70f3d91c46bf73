"""Copies of a trace with submissions moved a little, and the averages over their replays."""

from __future__ import annotations

import msgspec
import pytest

from lanai.sim.averages import average
from lanai.sim.measures import measure
from lanai.sim.shaking import shaken
from lanai.sim.swf import Trace, TraceJob


def trace(*submits: int) -> Trace:
    jobs = [TraceJob(str(number), submit, 20, 1, 30, 1) for number, submit in enumerate(submits)]
    return Trace("log", 4, len(jobs), jobs, [])


def test_submissions_move_by_no_more_than_asked_and_stay_in_order() -> None:
    before = trace(*range(1000, 3000, 2))
    after = shaken(before, 60, 1, 1)
    moved = {job.id: job.submit_s for job in after.jobs}
    moves = [moved[job.id] - job.submit_s for job in before.jobs]
    assert (min(moves), max(moves)) == (-60, 60)
    assert abs(sum(moves) / len(moves)) < 5
    assert [job.submit_s for job in after.jobs] == sorted(moved.values())
    assert msgspec.structs.replace(after, jobs=before.jobs) == before


def test_the_same_numbers_give_the_same_copy_and_others_another() -> None:
    before = trace(*range(500, 900, 3))
    copies = [shaken(before, 60, seed, copy) for seed in (1, 2) for copy in (1, 2)]
    assert copies == [shaken(before, 60, seed, copy) for seed in (1, 2) for copy in (1, 2)]
    assert len({tuple(job.submit_s for job in copy.jobs) for copy in copies}) == 4


def test_nothing_is_submitted_before_the_beginning_and_ties_keep_their_order() -> None:
    assert shaken(trace(0, 0, 0), 0, 1, 1) == trace(0, 0, 0)
    jobs = shaken(trace(*[0] * 50), 5, 1, 1).jobs
    assert jobs[0].submit_s == 0 and {job.submit_s for job in jobs} == {0, 1, 2, 3, 4, 5}
    for submit in range(6):
        names = [int(job.id) for job in jobs if job.submit_s == submit]
        assert names == sorted(names)


def test_averages_are_means_with_standard_deviations() -> None:
    log = trace(0, 0)
    measures = [measure(log, starts) for starts in ([0, 10], [0, 30], [0, 20])]
    found = average(measures)
    assert found.copies == 3
    assert found.means["wait_max_s"] == 20 and found.deviations["wait_max_s"] == 10
    assert found.means["slowdown_avg"] == pytest.approx((1.25 + 1.75 + 1.5) / 3)
    assert "starts_sha256" not in found.means
    assert set(average(measures[:1]).deviations.values()) == {0.0}
