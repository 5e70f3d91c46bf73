"""How long a job is thought to run. Estimates decide when something starts; requested limits decide when it is killed.

Predictions are those of Tsafrir, Etsion and Feitelson (Backfilling using system-generated predictions rather than user
runtime estimates, 2007): the mean of the user's last two run times, and no more than what the job asks for.
"""

from __future__ import annotations

from typing import Final

from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.policy import DEFAULT_POLICY

_ESTIMATE_US: Final = DEFAULT_POLICY.service("").estimate_us
OVERRUN_US: Final = 60_000_000
"""An attempt that outlives its estimate is given so much more at least, or what it was estimated where that is less."""

LATE_US: Final = 200_000
"""What is due may be seen so much later: word of an end has to come, and then a pass, unless the hub is very busy."""


def estimate_us(world: World, line: Line) -> int:
    """The estimated run time of a job of the line, at least 1.

    It is what the job asks for; else the mean of the last run times of its line; else what its service says. Where the
    service predicts, it is the user's last two run times' mean, once there are any.
    """
    request_us = line.shape.time_limit_us
    if not world.policy.services:  # as what follows comes to; it is asked for very often
        return request_us or line.mean_run_us or _ESTIMATE_US
    service = world.policy.service(world.batches[line.batch].settings.service)
    known_us = predicted_us(world, line) if service.estimates == "predicted" else 0
    return known_us or request_us or line.mean_run_us or max(1, service.estimate_us)


def predicted_us(world: World, line: Line) -> int:
    """The prediction, no more than the request; 0 where the service does not predict, or knows no run of the user's."""
    batch = world.batches.get(line.batch)
    if batch is None or world.policy.service(batch.settings.service).estimates != "predicted":
        return 0
    runs_us = world.last_runs.get(batch.user)
    if not runs_us:
        return 0
    mean_us = max(1, sum(runs_us) // len(runs_us))
    return min(mean_us, line.shape.time_limit_us or mean_us)


def end_of(start_us: int, estimate: int, now_us: int) -> int:
    """When an attempt that runs is expected to end: after `now_us`.

    Where an expected end has passed, the next one is half as long again from the start; but word of one that has just
    passed may be on its way.
    """
    end_us = start_us + estimate
    if end_us <= now_us < end_us + LATE_US:
        return end_us + LATE_US
    least_us = min(OVERRUN_US, estimate)
    while end_us <= now_us:
        end_us = max(start_us + (end_us - start_us) * 3 // 2, end_us + least_us)
    return end_us
