"""The named policies for rigid jobs on one machine, as they stand in papers, and the planner of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from lanai.core.schedule.conservative import ConservativePlanner
from lanai.core.schedule.depth import DepthPlanner
from lanai.core.schedule.easy import ListPlanner
from lanai.core.schedule.rigid import Amount, Planner
from lanai.core.schedule.urgency import UrgencyPlanner

NAMED: Final[Mapping[str, Callable[[Amount], Planner]]] = MappingProxyType({
    "fcfs": partial(ListPlanner, order="fcfs", backfill="none"),
    "easy": partial(ListPlanner, order="fcfs", backfill="same"),
    "easy-sjbf": partial(ListPlanner, order="fcfs", backfill="shortest"),
    "sjf": partial(ListPlanner, order="sjf", backfill="none"),
    "sjf+easy": partial(ListPlanner, order="sjf", backfill="same"),
    "wfp3": partial(UrgencyPlanner, backfills=False),
    "wfp3+easy": partial(UrgencyPlanner, backfills=True),
    "conservative": ConservativePlanner,
})
POLICIES: Final = (*NAMED, "depth:D")
_DEPTH: Final = re.compile(r"depth:([1-9][0-9]{0,5})", re.ASCII)


def planner_of(policy: str) -> Callable[[Amount], Planner] | None:
    """What makes a planner for a capacity under a policy of `POLICIES` (D from 1 to 999999); None: there is none."""
    if match := _DEPTH.fullmatch(policy):
        return partial(DepthPlanner, depth=int(match[1]))
    return NAMED.get(policy)
