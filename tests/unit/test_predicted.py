"""Replays by predicted run times: as a slow second replay has it, and by hand where a prediction is outlived."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanai.core.schedule.easy import ListPlanner
from lanai.core.schedule.predicted import PredictingPlanner
from lanai.sim.policies import predicting_planner_of
from lanai.sim.replay import replay
from lanai.sim.swf import Reading, Trace, TraceJob, read_trace
from replay_reference import reference_starts

TRACES = sorted((Path(__file__).resolve().parents[1] / "traces").glob("*.swf.gz"))
POLICIES = ("fcfs", "sjf", "wfp3", "easy", "sjf+easy", "wfp3+easy", "easy-sjbf", "depth:1", "depth:3", "depth:50")


def starts(trace: Trace, policy: str) -> list[int]:
    planner = predicting_planner_of(policy)
    assert planner is not None
    return replay(trace, planner(trace))


def trace_of(procs: int, *jobs: tuple[int, int, int, int, int]) -> Trace:
    """A trace of jobs as (submit, width, run, requested, user), in order."""
    made = [
        TraceJob(str(n), submit, run, width, asked, user)
        for n, (submit, width, run, asked, user) in enumerate(jobs)
    ]
    return Trace("jobs", procs, len(jobs), made, [])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name)
def test_a_stretch_of_a_trace_is_replayed_as_the_reference_does(path: Path, policy: str) -> None:
    with gzip.open(path) as lines:
        trace = read_trace(lines, path.name, Reading())
    assert starts(trace, policy) == reference_starts(trace, policy, predicts=True)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Small machines, short times and few users, so that predictions are made, missed and outlived."""
    procs = draw(st.integers(1, 8))
    longest = draw(st.sampled_from([3, 10, 30]))
    last = draw(st.sampled_from([0, 10, 60]))
    jobs = []
    for _ in range(draw(st.integers(1, 30))):
        asked = draw(st.integers(1, longest))
        run = draw(st.one_of(st.just(asked), st.integers(0, asked)))
        jobs.append((draw(st.integers(0, last)), draw(st.integers(1, procs)), run, asked, draw(st.integers(1, 3))))
    return trace_of(procs, *sorted(jobs, key=lambda job: job[0]))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(trace=traces())
def test_any_workload_is_replayed_as_the_reference_does(policy: str, trace: Trace) -> None:
    assert starts(trace, policy) == reference_starts(trace, policy, predicts=True)


def test_without_two_runs_of_its_user_a_job_is_expected_to_run_as_requested() -> None:
    """Requests lie in the way of backfill; of user 1 nothing is known yet when his third job comes."""
    jobs = ((0, 1, 10, 10, 9), (0, 2, 5, 5, 9), (0, 1, 4, 60, 1))
    assert starts(trace_of(2, *jobs), "easy") == reference_starts(trace_of(2, *jobs), "easy")


def test_by_its_prediction_a_job_is_backfilled_that_its_request_would_not_let_start() -> None:
    """User 1 asks for 100 and runs for 4, twice; his third fits before the wide job, which waits until 30."""
    jobs = ((0, 1, 4, 100, 1), (0, 1, 4, 100, 1), (5, 1, 25, 25, 2), (6, 2, 5, 5, 2), (7, 1, 4, 100, 1))
    assert starts(trace_of(2, *jobs), "easy") == [0, 0, 5, 30, 7]


def test_an_outlived_prediction_becomes_the_request_and_the_head_waits_longer() -> None:
    """The third job of user 1 is expected until 9, runs until 60; what backfills at 20 goes by its request, 100."""
    jobs = (
        *((0, 1, 4, 100, 1), (0, 1, 4, 100, 1), (5, 1, 55, 100, 1)),
        *((6, 2, 5, 5, 2), (20, 1, 40, 40, 2)),
    )
    assert starts(trace_of(2, *jobs), "easy") == [0, 0, 5, 60, 20]


def test_a_prediction_that_is_outlived_is_an_instant_of_its_own() -> None:
    planner = PredictingPlanner(ListPlanner(4, order="fcfs", backfill="same"), [1, 1, 1])
    trace = trace_of(4, (0, 1, 2, 50, 1), (0, 1, 4, 50, 1), (5, 1, 50, 50, 1))
    assert replay(trace, planner) == [0, 0, 5]
    assert planner.wake() is None


def test_a_policy_of_promises_does_not_go_by_predictions() -> None:
    assert predicting_planner_of("conservative") is None
    assert predicting_planner_of("live") is None
