"""The named policies for rigid jobs on one machine, as they stand in papers, and the planner of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

from lanai.core.schedule.conservative import ConservativePlanner
from lanai.core.schedule.depth import DepthPlanner
from lanai.core.schedule.easy import ListPlanner
from lanai.core.schedule.predicted import PredictingPlanner
from lanai.core.schedule.rigid import Amount, Planner, RevisingPlanner
from lanai.core.schedule.urgency import UrgencyPlanner
from lanai.sim.swf import Trace

PlannerMaker: TypeAlias = Callable[[Trace], Planner]
"""What makes a new planner for the replay of a trace."""

_REVISING: Final[Mapping[str, Callable[[Amount], RevisingPlanner]]] = MappingProxyType({
    "fcfs": partial(ListPlanner, order="fcfs", backfill="none"),
    "easy": partial(ListPlanner, order="fcfs", backfill="same"),
    "easy-sjbf": partial(ListPlanner, order="fcfs", backfill="shortest"),
    "sjf": partial(ListPlanner, order="sjf", backfill="none"),
    "sjf+easy": partial(ListPlanner, order="sjf", backfill="same"),
    "wfp3": partial(UrgencyPlanner, backfills=False),
    "wfp3+easy": partial(UrgencyPlanner, backfills=True),
})
NAMED: Final[Mapping[str, Callable[[Amount], Planner]]] = MappingProxyType({
    **_REVISING,
    "conservative": ConservativePlanner,
})
POLICIES: Final = (*NAMED, "depth:D")
_DEPTH: Final = re.compile(r"depth:([1-9][0-9]{0,5})", re.ASCII)


def planner_of(policy: str) -> Callable[[Amount], Planner] | None:
    """What makes a planner for a capacity under a policy of `POLICIES` (D from 1 to 999999); None: there is none."""
    return _revising(policy) or NAMED.get(policy)


def predicting_planner_of(policy: str) -> PlannerMaker | None:
    """What makes a planner that decides by predicted run times; None: the policy cannot.

    `conservative` cannot: it promises starts, and a job that outlives its prediction would break them.
    """
    planner = _revising(policy)
    if planner is None:
        return None
    return lambda trace: PredictingPlanner(planner(trace.procs), [job.user for job in trace.jobs])


def _revising(policy: str) -> Callable[[Amount], RevisingPlanner] | None:
    if match := _DEPTH.fullmatch(policy):
        return partial(DepthPlanner, depth=int(match[1]))
    return _REVISING.get(policy)
