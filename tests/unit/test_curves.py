"""Curves over time against a count at every second, and the distribution of waits by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanai.sim.curves import POINTS_MOST, queue_length, span_of, stretch_of, utilisation, waits
from lanai.sim.swf import Trace, TraceJob

Replay = tuple[Trace, list[int]]


@st.composite
def replays(draw: st.DrawFn) -> Replay:
    """Any jobs with any starts: what is drawn does not ask whether they fit."""
    jobs, starts = [], []
    for n in range(draw(st.integers(1, 8))):
        submit, wait, run = draw(st.integers(5, 30)), draw(st.integers(0, 20)), draw(st.integers(0, 20))
        jobs.append(TraceJob(str(n), submit, run, draw(st.integers(1, 4)), run, 1))
        starts.append(submit + wait)
    order = sorted(range(len(jobs)), key=lambda n: jobs[n].submit_s)
    return Trace("log", 4, len(jobs), [jobs[n] for n in order], []), [starts[n] for n in order]


def means(values: list[float], stretch: int) -> list[float]:
    pieces = [values[at : at + stretch] for at in range(0, len(values), stretch)] or [[0.0]]
    return [sum(piece) / len(piece) for piece in pieces]


@given(replayed=replays(), stretch=st.integers(1, 50))
def test_each_point_is_the_mean_over_its_seconds(replayed: Replay, stretch: int) -> None:
    trace, starts = replayed
    begin = trace.jobs[0].submit_s
    seconds = range(begin, begin + span_of(trace, starts))
    both = list(zip(trace.jobs, starts, strict=True))
    used = [sum(job.width for job, start in both if start <= at < start + job.run_s) / 4 for at in seconds]
    queued = [float(sum(job.submit_s <= at < start for job, start in both)) for at in seconds]
    assert utilisation(trace, starts, stretch).means == pytest.approx(means(used, stretch))
    assert queue_length(trace, starts, stretch).means == pytest.approx(means(queued, stretch))


@pytest.mark.parametrize(
    ("spans", "stretch"),
    [([], 1), ([0], 1), ([150, 3], 1), ([151], 10), ([86_400 * 150], 86_400), ([86_400 * 731], 7 * 86_400)],
)
def test_a_picture_has_a_bounded_number_of_points(spans: list[int], stretch: int) -> None:
    assert stretch_of(spans) == stretch


def test_a_span_of_centuries_has_no_more_points_either() -> None:
    span = 86_400 * 365 * 1000
    assert span / stretch_of([span]) <= POINTS_MOST


def test_the_distribution_of_waits() -> None:
    jobs = [TraceJob(str(n), 10, 1, 1, 1, 1) for n in range(4)]
    assert waits(Trace("log", 4, 4, jobs, []), [10, 10, 15, 17]) == [(0, 0.5), (5, 0.75), (7, 1.0)]
