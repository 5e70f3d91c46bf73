"""Start times: the recorded cases, a slow second replay of another construction, and promises that are kept."""

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanai.sim.policies import NAMED, POLICIES, planner_of
from lanai.sim.replay import replay
from lanai.sim.swf import Reading, Trace, TraceJob, read_trace
from replay_reference import reference_starts

TESTS = Path(__file__).resolve().parents[1]
CASES = sorted((TESTS / "cases").glob("*.json"))
TRACES = sorted((TESTS / "traces").glob("*.swf.gz"))
ALL = (*NAMED, "depth:1", "depth:3", "depth:50")


def starts(trace: Trace, policy: str) -> list[int]:
    planner = planner_of(policy)
    assert planner is not None
    return replay(trace, planner(trace.procs))


def trace_of(procs: int, *jobs: tuple[int, int, int, int]) -> Trace:
    """A trace of jobs as (submit, width, run, estimate), in order."""
    return Trace(
        file="jobs",
        procs=procs,
        read=len(jobs),
        jobs=[
            TraceJob(id=str(n), submit_s=submit, run_s=run, width=width, estimate_s=estimate, user=1)
            for n, (submit, width, run, estimate) in enumerate(jobs, 1)
        ],
        skipped=[],
    )


def test_the_cases_and_traces_are_there() -> None:
    assert len(CASES) == 7
    assert len(TRACES) == 3


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_start_of_a_case_is_met(path: Path) -> None:
    case = json.loads(path.read_text())
    lines = [
        b"%d %d -1 %d %d -1 -1 %d %d -1 1 1 1 -1 -1 -1 -1 -1\n" % (name, submit, run, procs, procs, requested)
        for name, submit, procs, run, requested in case["jobs"]
    ]
    trace = read_trace(lines, path.name, Reading(procs=case["procs"], **case.get("options", {})))
    found = {
        policy: {job.id: start for job, start in zip(trace.jobs, starts(trace, policy), strict=True)}
        for policy in case["expect"]
    }
    assert found == case["expect"]


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name)
def test_a_stretch_of_a_trace_is_replayed_as_the_reference_does(path: Path, policy: str) -> None:
    with gzip.open(path) as lines:
        trace = read_trace(lines, path.name, Reading())
    assert len(trace.jobs) == 400
    assert starts(trace, policy) == reference_starts(trace, policy)


@st.composite
def traces(draw: st.DrawFn, least_estimate: int = 1) -> Trace:
    """Small machines and short times, so that jobs meet: many ties, jobs of 0 s, estimates kept and not kept."""
    procs = draw(st.integers(1, 8))
    longest = draw(st.sampled_from([2, 10, 30]))
    last = draw(st.sampled_from([0, 5, 40]))
    jobs = []
    for _ in range(draw(st.integers(1, 25))):
        estimate = draw(st.integers(least_estimate, longest))
        run = draw(st.one_of(st.just(estimate), st.integers(0, estimate)))
        jobs.append((draw(st.integers(0, last)), draw(st.integers(1, procs)), run, estimate))
    return trace_of(procs, *sorted(jobs, key=lambda job: job[0]))


@pytest.mark.parametrize("policy", ALL)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_workload_is_replayed_as_the_reference_does(policy: str, data: st.DataObject) -> None:
    """The reference also sees to it that no more runs than there are processors, and that no promise is broken."""
    trace = data.draw(traces(0 if policy in ("fcfs", "sjf", "wfp3", "conservative") else 1))
    assert starts(trace, policy) == reference_starts(trace, policy)


def long_queue(seed: int) -> Trace:
    """More than the machine can bear for a while, of few shapes, most of them shorter than estimated.

    Jobs of one shape are where a shortcut that is not quite right shows: they stand for one another, but were placed at
    different times.
    """
    draw = random.Random(seed)
    procs = draw.choice([5, 8, 16])
    shapes = [(draw.randint(1, procs), draw.randint(1, 30)) for _ in range(draw.choice([4, 8]))]
    jobs = []
    for submit in sorted(draw.randint(0, draw.choice([80, 200])) for _ in range(80)):
        width, estimate = draw.choice(shapes)
        jobs.append((submit, width, estimate if draw.random() < 0.4 else draw.randint(1, estimate), estimate))
    return trace_of(procs, *jobs)


@pytest.mark.parametrize("policy", ALL)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_long_queue_of_few_shapes_is_replayed_as_the_reference_does(policy: str, seed: int) -> None:
    trace = long_queue(seed)
    assert starts(trace, policy) == reference_starts(trace, policy)


@settings(max_examples=200, deadline=None)
@given(trace=traces())
def test_depth_1_is_easy(trace: Trace) -> None:
    assert starts(trace, "depth:1") == starts(trace, "easy")


@settings(max_examples=200, deadline=None)
@given(trace=traces())
def test_the_head_is_never_delayed_by_backfill(trace: Trace) -> None:
    """With run times known, the first job that waits under easy starts no later than under fcfs."""
    exact = trace_of(trace.procs, *[(job.submit_s, job.width, job.estimate_s, job.estimate_s) for job in trace.jobs])
    easy, fcfs = starts(exact, "easy"), starts(exact, "fcfs")
    first = next((n for n, job in enumerate(exact.jobs) if fcfs[n] > job.submit_s), None)
    assert first is None or easy[first] <= fcfs[first]


def test_an_arrival_while_all_is_taken_gets_its_reservation_when_something_ends() -> None:
    """Jobs 3 and 4 come while nothing is free. When job 1 ends early job 3 is promised 10, and job 4 what is left."""
    jobs = ((0, 2, 4, 30), (0, 2, 10, 10), (1, 3, 10, 10), (2, 2, 20, 20))
    assert starts(trace_of(4, *jobs), "conservative") == [0, 0, 10, 20]


def test_a_job_of_no_time_ends_in_a_second_round_of_its_instant() -> None:
    jobs = ((0, 2, 0, 5), (0, 2, 5, 5))
    for policy in POLICIES[:-1]:
        assert starts(trace_of(2, *jobs), policy) == [0, 0], policy


@pytest.mark.parametrize("name", ["", "live", "depth", "depth:", "depth:0", "depth:-1", "depth:1.5", "EASY", "depth:٣"])
def test_what_is_no_policy_is_not_taken_for_one(name: str) -> None:
    assert planner_of(name) is None
