"""What a pass leaves out because it would change nothing changes nothing: against passes that leave nothing out."""

from __future__ import annotations

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from lanai.core.nodes import Node
from lanai.core.schedule import decide
from lanai.core.schedule.cells import Cell
from lanai.core.schedule.decide import Sweep
from lanai.core.schedule.rigid import RigidJob
from lanai.core.schedule.score import Scorer
from lanai.model.ids import NodeId
from lanai.model.policy import Bound, Limits, Policy, UserPolicy, Weights
from lanai.model.vector import FIELD_BITS, GPU, Layout
from lanai.sim.live import LivePlanner, parts_of
from lanai.sim.machines import MachineNode
from lanai.sim.replay import replay
from lanai.sim.swf import Trace, TraceJob

POLICIES = (
    Policy(preset="tight"),
    Policy(preset="fair"),
    Policy(preset="tight", backfill_order="same", depth=3),
    Policy(preset="fair", users={"1": UserPolicy(limits=Limits(jobs=Bound(1, 2)))}),
)
BY_AGE = (
    Policy(preset="tight", weights=Weights(age=1.0)),
    Policy(preset="tight", weights=Weights(age=1.0), backfill_order="same", depth=3),
)


class Telling(LivePlanner):
    """Notes after each pass why each line waits, and what was promised."""

    def __init__(self, trace: Trace, policy: Policy, nodes: list[MachineNode]) -> None:
        super().__init__(trace.procs, policy, [str(job.user) for job in trace.jobs], nodes)
        self.told: list[object] = []

    def decide(self, now: int) -> list[RigidJob]:
        started = super().decide(now)
        world = self._core.world
        waits = [
            (batch.id, line.reason, line.reason_text, batch.has_begun)
            for batch in world.batches.values()
            for line in batch.lines.values()
        ]
        promises = [(line.batch, promise.at_us) for line, promise in world.promises.items()]
        self.told.append((now, [job.seq for job in started], waits, promises))
        return started


def told(trace: Trace, policy: Policy, nodes: list[MachineNode]) -> list[object]:
    planner = Telling(trace, policy, nodes)
    replay(trace, planner)
    return planner.told


@st.composite
def sites(draw: st.DrawFn) -> tuple[Trace, list[MachineNode]]:
    """Nodes of 2 or 4 cpus, and jobs for them."""
    cpus = draw(st.lists(st.sampled_from((2, 4)), min_size=1, max_size=4))
    widths = [width for width in range(1, sum(cpus) + 1) if parts_of(width, sorted(cpus, reverse=True))]
    submit, jobs = 0, []
    for number in range(draw(st.integers(1, 25))):
        submit += draw(st.integers(0, 3))
        run = draw(st.integers(1, 12))
        estimate = run + draw(st.integers(0, 9))
        jobs.append(TraceJob(str(number), submit, run, draw(st.sampled_from(widths)), estimate, number % 3))
    trace = Trace("log", sum(cpus), len(jobs), jobs, [])
    return trace, [MachineNode(f"n{number}", each) for number, each in enumerate(cpus)]


@given(site=sites(), policy=st.sampled_from(POLICIES))
@settings(max_examples=60, deadline=None)
def test_starts_reasons_and_promises_are_those_of_passes_without_shortcuts(
    site: tuple[Trace, list[MachineNode]], policy: Policy
) -> None:
    trace, nodes = site
    found = told(trace, policy, nodes)

    def as_written(scorer: Scorer, *about: object) -> float:
        return sum((part.points for part in scorer.parts(*about) if part.weight), 0.0)  # type: ignore[arg-type]

    with mock.patch.object(Sweep, "_is_vain", return_value=False), mock.patch.object(Scorer, "_usual", as_written):
        assert found == told(trace, policy, nodes)


@given(site=sites(), policy=st.sampled_from(BY_AGE))
@settings(max_examples=150, deadline=None)
def test_a_pass_that_stops_and_goes_on_comes_to_the_same(site: tuple[Trace, list[MachineNode]], policy: Policy) -> None:
    """Each call looks at one node anew. (By shares the order would be another one, since some have started.)"""
    trace, nodes = site
    whole = LivePlanner(trace.procs, policy, [str(job.user) for job in trace.jobs], nodes)
    parts = LivePlanner(trace.procs, policy, [str(job.user) for job in trace.jobs], nodes)
    started = replay(trace, whole)
    with mock.patch.object(decide, "LOOKED_AT_MOST", 1):
        assert replay(trace, parts) == started


amounts = st.tuples(st.integers(0, 9000), st.integers(0, 2))


def packed(cpu_milli: int, gpus: int) -> int:
    return cpu_milli | gpus << GPU * FIELD_BITS


@given(st.lists(st.tuples(st.integers(1, 4), amounts, st.booleans()), max_size=12), amounts)
def test_a_cell_never_denies_room_that_a_search_finds_and_keeps_its_nodes_in_order(
    steps: list[tuple[int, tuple[int, int], bool]], wanted: tuple[int, int]
) -> None:
    guard, cell = Layout().guard, Cell(packed(9000, 2), ())
    nodes = {number: Node(NodeId(number), str(number), b"") for number in range(1, 5)}
    there: set[int] = set()
    for number, free, is_gone in steps:
        node = nodes[number]
        node.free = packed(*free)
        if is_gone:
            cell.drop(node)
            there.discard(number)
        else:
            cell.put(node, guard)
            there.add(number)
        assert [each.id for each in cell.nodes()] == sorted(there)
    request = packed(*wanted)
    assert cell.may_hold(request) or cell.find(request, guard, lambda node: True) is None
