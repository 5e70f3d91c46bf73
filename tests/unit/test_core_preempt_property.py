"""Victims against all that could have been chosen: enough of them, none too many, and none where nobody could help."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from core_recorder import SECOND, Recorder, capacity
from lanai.core.effects import KillAttempts
from lanai.core.events import NodeHeard, PolicyChanged
from lanai.model.ids import NodeId
from lanai.model.policy import Policy, ServicePolicy
from lanai.model.resources import Shape

SERVICES = {
    "urgent": ServicePolicy(tier=2, is_preemptor=True),
    "low": ServicePolicy(is_preemptee=True),
    "middle": ServicePolicy(tier=1, is_preemptee=True),
    "sturdy": ServicePolicy(),
}
CPUS = 4
runs = st.lists(
    st.tuples(st.sampled_from(("low", "low", "middle", "sturdy")), st.integers(1, 3), st.integers(0, 14)), max_size=10
)


@settings(max_examples=60, deadline=None)
@given(runs, st.integers(1, 2), st.integers(1, CPUS), st.integers(1, 2))
def test_victims_are_enough_and_none_is_one_too_many(
    before: list[tuple[str, int, int]], nodes: int, asked: int, wide: int
) -> None:
    """Brute force over all sets of attempts on two nodes says whether there was a choice."""
    hub = Recorder()
    for name in "ab"[:nodes]:
        hub.join(name, capacity(cpus=CPUS))
    hub.feed(PolicyChanged(1, Policy(services=SERVICES), hub.now_us))
    for service, cpus, later in before:
        hub.take_all()
        hub.submit(1, service=service, shape=Shape(cpu_milli=1000 * cpus))
        hub.decide()
        hub.now_us += later * SECOND
        hub.feed(*(NodeHeard(NodeId(node), "", hub.now_us) for node in range(1, nodes + 1)))
    hub.take_all()
    urgent = hub.submit(1, service="urgent", shape=Shape(cpu_milli=1000 * asked, nodes=wide))
    hub.decide()
    running = [
        (grant.node.id, grant.line.shape.cpu_milli // 1000, grant.batch)
        for grant in hub.core.world.grants.values()
        if grant.batch.id != urgent
    ]
    free = {node: CPUS - sum(cpus for at, cpus, _ in running if at == node) for node in range(1, nodes + 1)}

    def has_room(ended: tuple[tuple[int, int, object], ...]) -> bool:
        left = [free[node] + sum(cpus for at, cpus, _ in ended if at == node) for node in free]
        return sum(room >= asked for room in left) >= wide

    hub.wait(0.1)
    hub.decide()
    items = [item for kill in hub.take(KillAttempts) for item in kill.items]
    killed = tuple(
        (grant.node.id, grant.line.shape.cpu_milli // 1000, grant.batch)
        for number, _ in items
        if (grant := hub.core.world.grants[number])
    )
    may_end = [each for each in running if SERVICES[each[2].settings.service].is_preemptee]
    could = any(has_room(some) for count in range(len(may_end) + 1) for some in combinations(may_end, count))
    if has_room(()) or not could:
        assert not killed
        return
    assert all(SERVICES[batch.settings.service].is_preemptee for _, _, batch in killed)
    assert has_room(killed)
    assert not any(has_room(killed[:at] + killed[at + 1 :]) for at in range(len(killed)))
