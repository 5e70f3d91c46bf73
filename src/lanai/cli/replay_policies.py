"""Which policy a name of `lanai simulate --policy` means, and what makes its planners.

A policy of the literature (`easy`), a preset of the hub (`fair`, `tight`), the policy in force at the hub (`live`), or
a file that `lanai policy check` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from lanai.cli.context import Asked
from lanai.model.policy import Policy
from lanai.sim.policies import POLICIES, planner_of, predicting_planner_of

if TYPE_CHECKING:
    from lanai.cli.replays import PlannerMaker

FILE_CHARACTERS: Final = 2 << 20
ACCEPTED: Final = (*POLICIES, "fair", "tight", "live", "FILE.toml")


def is_of_site(name: str) -> bool:
    """Whether the hub's own pass decides under it, on nodes where the machine is one of nodes."""
    return name in ("fair", "tight", "live") or name.endswith(".toml")


def planner_maker(name: str, estimates: str, asked: Asked) -> PlannerMaker:
    """What makes a planner for a workload.

    Raises:
        click.UsageError: there is no such policy, or it takes no such estimates.
        LanaiError: a file that is none of a policy; no hub answers.
    """
    if is_of_site(name):
        return _of_site(_policy(name, asked), predicts=estimates == "predicted")
    planner = planner_of(name)
    if planner is None:
        raise click.UsageError(f"there is no policy {name!r}; accepted are {', '.join(ACCEPTED)} (D from 1 to 999999)")
    if estimates != "predicted":
        return lambda workload: planner(workload.trace.procs)
    predicting = predicting_planner_of(name)
    if predicting is None:
        raise click.UsageError(
            f"{name} promises every job its start, and a job that outlives its prediction would break that: "
            "--estimates predicted is for the other policies"
        )
    return lambda workload: predicting(workload.trace)


def _of_site(policy: Policy, *, predicts: bool) -> PlannerMaker:
    from lanai.sim.live import site_planner

    return lambda workload: site_planner(workload.trace, policy, workload.nodes, predicts=predicts)


def _policy(name: str, asked: Asked) -> Policy:
    from lanai.cli.replays import text_of
    from lanai.model.policy_file import policy_from_toml

    if name == "fair":
        return Policy(preset="fair")
    if name == "tight":
        return Policy(preset="tight")
    if name == "live":
        return policy_from_toml(asked.connect().policy()["toml"], "the hub's policy")
    return policy_from_toml(text_of(name, FILE_CHARACTERS, "a policy"), name)
