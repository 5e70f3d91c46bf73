"""The hub's own pass in virtual time: on one machine it is EASY to the second."""

from __future__ import annotations

import random
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanai.core.schedule import decide
from lanai.model.policy import Policy, Weights
from lanai.sim.live import LivePlanner
from lanai.sim.policies import planner_of
from lanai.sim.replay import replay
from lanai.sim.swf import Trace, TraceJob

BY_AGE = Weights(age=1.0)
LIKE = {
    "fcfs": Policy(preset="tight", weights=BY_AGE, backfill="none"),
    "easy": Policy(preset="tight", weights=BY_AGE, backfill_order="same"),
    "easy-sjbf": Policy(preset="tight", weights=BY_AGE),
}
"""Policies of a site that come to the same as policies of the literature."""


def machine(procs: int, jobs: list[tuple[int, int, int, int]]) -> Trace:
    """(submit, width, run, estimate) in order of submission."""
    made = [
        TraceJob(id=str(n), submit_s=submit, run_s=run, width=width, estimate_s=estimate, user=n % 3)
        for n, (submit, width, run, estimate) in enumerate(jobs, 1)
    ]
    return Trace(file="jobs", procs=procs, read=len(made), jobs=made, skipped=[])


def live(trace: Trace, policy: Policy) -> list[int]:
    return replay(trace, LivePlanner(trace.procs, policy, [str(job.user) for job in trace.jobs]))


@st.composite
def workloads(draw: st.DrawFn) -> Trace:
    procs = draw(st.integers(1, 8))
    submit, jobs = 0, []
    for _ in range(draw(st.integers(1, 25))):
        submit += draw(st.integers(0, 4))
        run = draw(st.integers(1, 12))
        jobs.append((submit, draw(st.integers(1, procs)), run, run + draw(st.integers(0, 6))))
    return machine(procs, jobs)


@pytest.mark.parametrize("name", LIKE)
@given(trace=workloads(), looked_at_most=st.sampled_from((1, 20, 6000)))
@settings(max_examples=60, deadline=None)
def test_the_pass_is_easy_where_the_policy_says_so(name: str, trace: Trace, looked_at_most: int) -> None:
    """Also where a call may look at less than there is, and leaves the rest to the next."""
    planner = planner_of(name)
    assert planner is not None
    with mock.patch.object(decide, "LOOKED_AT_MOST", looked_at_most):
        assert live(trace, LIKE[name]) == replay(trace, planner(trace.procs))


@pytest.mark.parametrize("name", LIKE)
def test_and_on_a_longer_workload_too(name: str) -> None:
    rng = random.Random(11)
    submit, jobs = 0, []
    for _ in range(600):
        submit += rng.randrange(60)
        run = rng.choice((1, 20, 300, 3000))
        jobs.append((submit, rng.choice((1, 1, 2, 4, 16, 32)), run, run * rng.randrange(1, 4)))
    trace = machine(32, jobs)
    planner = planner_of(name)
    assert planner is not None
    assert live(trace, LIKE[name]) == replay(trace, planner(trace.procs))
