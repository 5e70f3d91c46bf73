"""A job as backfill sees it, and what every policy of starting such jobs has in common.

A *rigid* job takes one fixed amount for one length of time that was estimated. The amount is an `int` behind the name
`Amount`, in whatever unit the capacity is in.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import msgspec

Amount: TypeAlias = int


class RigidJob(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A waiting or running job.

    Attributes:
        seq: its place among the jobs submitted at the same time; unique.
        submit: when it was submitted, in the unit of time of whoever asks.
        width: what it takes while it runs, 1 or more.
        estimate: how long it is expected to run, 0 or more, in the same unit of time. It never runs longer.
    """

    seq: int
    submit: int
    width: Amount
    estimate: int


class Planner(Protocol):
    """A policy with the jobs that wait and run under it: it is told what happened, and says what starts.

    At one instant: first `ended` for all ends, then `arrived` for all arrivals in the order of (submit, seq), then
    `decide` once. If jobs it started end at the same instant, a second such round follows.
    """

    def arrived(self, job: RigidJob) -> None:
        """A job waits from now on. It must be no wider than the capacity, and in order of (submit, seq)."""

    def ended(self, job: RigidJob, now: int, started: int) -> None:
        """A job that `decide` gave at `started` has ended at `now`, not after `started + job.estimate`."""

    def decide(self, now: int) -> list[RigidJob]:
        """One pass: the jobs that start now. They run from here on, and fit."""

    def wake(self) -> int | None:
        """When a pass is due even if nothing happens until then; None where none is."""


class RevisingPlanner(Planner, Protocol):
    """A planner that can be told that a job which runs is expected to run for another time than it was.

    That is an event like ends and arrivals, and comes before the pass of its instant. For such a planner a job never
    outlives the estimate that it has by then: whoever predicts says so beforehand.
    """

    def estimated(self, before: RigidJob, after: RigidJob, started: int) -> None:
        """The estimate of `before`, which `decide` gave at `started`, has changed.

        It is `after` from now on, the same but for that; `started + after.estimate` lies ahead.
        """
