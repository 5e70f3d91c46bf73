"""The hub's own pass in virtual time on several nodes, by predictions, and where a policy refuses a job."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanai.core.schedule.rigid import RigidJob
from lanai.model.errors import UserError
from lanai.model.policy import Bound, Limits, Policy, ServicePolicy, UserPolicy, Weights
from lanai.sim.live import LivePlanner, parts_of, predicting, site_planner
from lanai.sim.machines import MachineNode
from lanai.sim.replay import replay
from lanai.sim.swf import Trace, TraceJob

TIGHT = Policy(preset="tight", weights=Weights(age=1.0))


def machine(*cpus: int) -> list[MachineNode]:
    return [MachineNode(f"n{number}", each) for number, each in enumerate(cpus)]


def log(procs: int, *jobs: tuple[int, int, int, int]) -> Trace:
    """(submit, width, run, estimate)."""
    made = [TraceJob(str(n), s, run, width, estimate, n % 2) for n, (s, width, run, estimate) in enumerate(jobs)]
    return Trace("log", procs, len(made), made, [])


class Watched(LivePlanner):
    """Has the core look at itself after each pass."""

    def decide(self, now: int) -> list[RigidJob]:
        started = super().decide(now)
        self._core.check()
        assert not self._core.world.claiming
        return started


def starts(trace: Trace, policy: Policy, nodes: list[MachineNode]) -> list[int]:
    return replay(trace, Watched(trace.procs, policy, [str(job.user) for job in trace.jobs], nodes))


@pytest.mark.parametrize(
    ("width", "parts"),
    [(1, (1, 1)), (16, (1, 16)), (17, (2, 9)), (32, (2, 16)), (33, (5, 7)), (40, (5, 8)), (41, None)],
)
def test_a_job_has_equal_parts_on_as_few_nodes_as_it_takes(width: int, parts: tuple[int, int] | None) -> None:
    assert parts_of(width, [16, 16, 8, 8, 8]) == parts


def test_a_job_that_fits_no_node_has_several_and_none_is_put_together_of_crumbs() -> None:
    trace = log(8, (0, 3, 10, 10), (0, 3, 10, 10), (0, 2, 10, 10), (1, 6, 5, 5))
    assert starts(trace, TIGHT, machine(8)) == [0, 0, 0, 10]
    assert starts(trace, TIGHT, machine(4, 4)) == [0, 0, 10, 20]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_room_of_no_node_is_exceeded_and_everybody_starts(data: st.DataObject) -> None:
    cpus = data.draw(st.lists(st.sampled_from((2, 4)), min_size=1, max_size=5))
    widths = [width for width in range(1, sum(cpus) + 1) if parts_of(width, sorted(cpus, reverse=True))]
    submit, jobs = 0, []
    for _ in range(data.draw(st.integers(1, 20))):
        submit += data.draw(st.integers(0, 4))
        run = data.draw(st.integers(1, 12))
        jobs.append((submit, data.draw(st.sampled_from(widths)), run, run + data.draw(st.integers(0, 9))))
    trace = log(sum(cpus), *jobs)
    policy = Policy(preset=data.draw(st.sampled_from(("tight", "fair"))))
    if data.draw(st.booleans()):
        policy = predicting(policy)
    found = starts(trace, policy, machine(*cpus))
    assert all(start >= job.submit_s for start, job in zip(found, trace.jobs, strict=True))


def test_predictions_let_a_job_pass_that_its_request_keeps_back() -> None:
    """Two runs of 5 s make the third, which asks for 1000, short enough to be over before the wide one's turn."""
    jobs = [(0, 1, 5, 1000), (10, 1, 5, 1000), (20, 3, 100, 100), (21, 4, 50, 50), (22, 1, 5, 1000)]
    made = [TraceJob(str(n), s, run, width, est, n in (2, 3)) for n, (s, width, run, est) in enumerate(jobs)]
    trace = Trace("log", 4, 5, made, [], {0: "ann", 1: "bob"})
    requested = replay(trace, site_planner(trace, TIGHT, None, predicts=False))
    predicted = replay(trace, site_planner(trace, TIGHT, None, predicts=True))
    assert requested == [0, 10, 20, 120, 170]
    assert predicted == [0, 10, 20, 120, 22]


def test_predicting_keeps_everything_else_of_the_services() -> None:
    policy = Policy(services={"urgent": ServicePolicy(tier=2)})
    assert predicting(policy).services == {
        "urgent": ServicePolicy(tier=2, estimates="predicted"),
        "normal": ServicePolicy(estimates="predicted"),
    }


def test_users_are_called_as_the_trace_says() -> None:
    trace = Trace("log", 4, 2, [TraceJob(str(n), 0, 9, 1, 9, n) for n in (1, 2)], [], {2: "ann"})
    limited = Policy(users={"ann": UserPolicy(limits=Limits(jobs=Bound(1, 1)))})
    assert replay(trace, site_planner(trace, limited, None, predicts=False)) == [0, 0]
    both = Trace("log", 4, 2, trace.jobs, [], {1: "ann", 2: "ann"})
    assert replay(both, site_planner(both, limited, None, predicts=False)) == [0, 9]


def test_a_job_that_nodes_or_the_policy_can_never_take_is_refused() -> None:
    trace = log(11, (0, 11, 1, 1))
    with pytest.raises(UserError, match=r"log: job 0 asks for 11 processors, which these nodes do not have in equal"):
        site_planner(trace, TIGHT, machine(10, 1), predicts=False)
    narrow = Policy(limits=Limits(cpus=Bound(4000, 4000)))
    with pytest.raises(UserError, match="the policy refuses a job of user 0 for 11 processors: "):
        replay(trace, site_planner(trace, narrow, None, predicts=False))
