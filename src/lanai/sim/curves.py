"""What a replay looks like over time: how much of the machine is used, how many jobs wait, and who waits how long.

A curve over time is the mean over stretches of one length, so that two years and two hours are both a hundred
points or so; nothing is left out of a mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from lanai.sim.swf import Trace

POINTS_MOST: Final = 150
STRETCHES_S: Final = (
    *(1, 10, 60, 600, 3600, 3 * 3600, 6 * 3600, 12 * 3600),
    *(86_400, 2 * 86_400, 4 * 86_400, 7 * 86_400, 14 * 86_400, 28 * 86_400),
)


class Curve(msgspec.Struct, frozen=True):
    """Means over stretches of `stretch_s` each, from the first submission on; the last stretch may be shorter."""

    stretch_s: int
    means: list[float]


def stretch_of(spans_s: Iterable[int]) -> int:
    """The shortest stretch by which the longest of these spans has no more than `POINTS_MOST` points."""
    longest = max(spans_s, default=1)
    for stretch in STRETCHES_S:
        if longest <= stretch * POINTS_MOST:
            return stretch
    return -(-longest // POINTS_MOST)


def span_of(trace: Trace, starts: Sequence[int]) -> int:
    """From the first submission to the last end, in seconds."""
    ends = (start + job.run_s for job, start in zip(trace.jobs, starts, strict=True))
    return max(ends) - trace.jobs[0].submit_s


def utilisation(trace: Trace, starts: Sequence[int], stretch_s: int) -> Curve:
    """Processors used, as a part of those there are, 0 to 1."""
    spans = (
        (start, start + job.run_s, job.width / trace.procs) for job, start in zip(trace.jobs, starts, strict=True)
    )
    return _means(spans, trace.jobs[0].submit_s, span_of(trace, starts), stretch_s)


def queue_length(trace: Trace, starts: Sequence[int], stretch_s: int) -> Curve:
    """Jobs that wait."""
    spans = ((job.submit_s, start, 1.0) for job, start in zip(trace.jobs, starts, strict=True))
    return _means(spans, trace.jobs[0].submit_s, span_of(trace, starts), stretch_s)


def waits(trace: Trace, starts: Sequence[int]) -> list[tuple[int, float]]:
    """(wait in seconds, which part of the jobs waited no longer), ascending, each wait once; the last part is 1."""
    ordered = sorted(start - job.submit_s for job, start in zip(trace.jobs, starts, strict=True))
    parts = {wait: place / len(ordered) for place, wait in enumerate(ordered, 1)}
    return list(parts.items())


def _means(spans: Iterable[tuple[int, int, float]], origin: int, length: int, stretch: int) -> Curve:
    """Of what lasts from a time to a time with a weight each: the sum of weights, as means over stretches."""
    count = max(1, -(-length // stretch))
    areas = [0.0] * (count + 1)  # what begins or ends within a stretch, by its seconds there
    steps = [0.0] * (count + 1)  # by how much more or less there is of it in each stretch from here on
    for begin, end, weight in spans:
        first, into = divmod(begin - origin, stretch)
        last, out = divmod(end - origin, stretch)
        areas[first] -= into * weight
        steps[first] += weight
        areas[last] += out * weight
        steps[last] -= weight
    means = []
    level = 0.0
    for at in range(count):
        level += steps[at]
        seconds = min(stretch, length - at * stretch) or 1
        means.append(max(0.0, level * stretch + areas[at]) / seconds)
    return Curve(stretch, means)
