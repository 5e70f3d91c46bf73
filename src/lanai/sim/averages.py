"""Measures of several replays of one workload, shaken a little: their means, and how far apart they lie."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Final

import msgspec

from lanai.sim.measures import Measures

AVERAGED: Final = tuple(name for name in Measures.__struct_fields__ if name not in ("starts_sum_s", "starts_sha256"))


class Average(msgspec.Struct, frozen=True):
    """Of replays of several copies: by the names of `Measures`, but for what is of single starts.

    Attributes:
        copies: how many.
        means: the mean of each.
        deviations: the standard deviation of each (n - 1 in its denominator); 0 for one copy.
    """

    copies: int
    means: dict[str, float]
    deviations: dict[str, float]


def average(replays: Sequence[Measures]) -> Average:
    """The average of one replay or more."""
    values = {name: [float(getattr(each, name)) for each in replays] for name in AVERAGED}
    return Average(
        copies=len(replays),
        means={name: fmean(found) for name, found in values.items()},
        deviations={name: stdev(found) if len(found) > 1 else 0.0 for name, found in values.items()},
    )
