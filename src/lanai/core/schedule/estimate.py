"""How long an attempt is expected to run. Estimates decide when things start; requests decide what is killed."""

from __future__ import annotations

from typing import Final

from lanai.core.schedule.lines import Line
from lanai.core.world import World

OVERRUN_US: Final = 60_000_000
"""An attempt that outlives its estimate is given so much more at least, or what it was estimated where that is less."""


def estimate_us(world: World, line: Line) -> int:
    """Of one attempt of the line, at least 1."""
    asked = line.shape.time_limit_us
    if asked or line.mean_run_us:
        return asked or line.mean_run_us
    return world.policy.service(world.batches[line.batch].settings.service).estimate_us


def end_of(start_us: int, estimate: int, now_us: int) -> int:
    """When an attempt that runs is expected to end: after `now_us`.

    Where an expected end has passed, the next one is half as long again from the start.
    """
    end_us = start_us + estimate
    least_us = min(OVERRUN_US, estimate)
    while end_us <= now_us:
        end_us = max(start_us + (end_us - start_us) * 3 // 2, end_us + least_us)
    return end_us
