"""What holds of every pass, in random worlds in virtual time: nodes, wide and small jobs, users, policies, true limits.

No job runs longer than it asks for, so every promise can be kept: where the order of those who wait does not change, it
must not be put off. No node may be overbooked, who waits knows why, and everybody's work is done in the end.
"""

from __future__ import annotations

from math import log

import pytest

from core_recorder import Recorder
from lanai.core.batches import Batch
from lanai.core.nodes import NEVER_US, Node
from lanai.core.schedule import decide as scheduler
from lanai.core.schedule import future, promises
from lanai.core.schedule.leaf import WHOLE
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import is_able, may_go, need
from lanai.core.world import World
from lanai.model.policy import Bound, Limits, Policy, UserPolicy
from lanai.model.resources import Shape
from random_site import BY_AGE, MINUTE, USERS, Site

POLICIES = {
    "fair": Policy(),
    "tight": Policy(preset="tight"),
    "easy": Policy(preset="tight", weights=BY_AGE),
    "deep": Policy(preset="tight", weights=BY_AGE, depth=4, backfill_order="same"),
    "conservative": Policy(preset="tight", weights=BY_AGE, backfill="conservative"),
    "limited": Policy(users={"*": UserPolicy(limits=Limits(cpus=Bound(4000, 8000)))}),
    "none": Policy(preset="tight", weights=BY_AGE, backfill="none"),
}


@pytest.fixture(params=("at once", "in parts"))
def looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is promised is compared with a look at all nodes; a call looks at all of them anew, or at one."""
    soonest = promises._soonest

    def compared(
        world: World, batch: Batch, line: Line, length_us: int, floors: dict[int, int]
    ) -> list[tuple[int, int, Node]]:
        found = soonest(world, batch, line, length_us, floors)
        times = []
        for node in world.nodes.values():
            if node.is_open() and is_able(world, line, node) and may_go(batch, line, node):
                from_us = floors.get(node.id, world.now_us)
                vector = need(world, batch, line, node)
                times.append((future.earliest(world, node, line, vector, length_us, from_us), int(node.id)))
        first = sorted(times)[: line.shape.nodes]
        assert [at_us for at_us, _, _ in found if at_us < NEVER_US] == [at_us for at_us, _ in first if at_us < NEVER_US]
        if first[-1][0] < NEVER_US:
            assert [(at_us, number) for at_us, number, _ in found] == first
        return found

    monkeypatch.setattr(promises, "_soonest", compared)
    if request.param == "in parts":
        monkeypatch.setattr(scheduler, "LOOKED_AT_MOST", 1)


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", range(4))
def test_promises_hold_and_all_is_done(hub: Recorder, name: str, seed: int) -> None:
    site = Site(hub, seed, POLICIES[name])
    site.run(120, comes=0.5)
    site.run(4000, comes=0.0)
    assert not site.hub.core.world.batches, "somebody waits without end"


@pytest.mark.parametrize("seed", range(3))
def test_equal_users_get_equal_shares_of_a_saturated_day(hub: Recorder, seed: int) -> None:
    """Within the area of one job, whatever their jobs look like: slots are dealt by what each has."""
    site = Site(hub, seed, Policy())
    longest_us = 0
    for user in USERS:
        limit_us = site.rng.randrange(5, 40) * MINUTE
        longest_us = max(longest_us, limit_us)
        for _ in range(site.rng.randrange(1, 4)):
            hub.submit(8000, user=user, shape=Shape(cpu_milli=1000, time_limit_us=limit_us))
    site.run(24 * 60, comes=0.0)
    tree = hub.core.world.tree
    used = [leaf.used() for (_, user), leaf in tree.users.items() if user in USERS]
    one_job = WHOLE / sum(site.cpus) * longest_us * log(2) / Policy().half_life_us
    assert len(used) == len(USERS) and max(used) - min(used) <= one_job, (used, one_job)
