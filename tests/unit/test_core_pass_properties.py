"""What holds of every pass, in random worlds in virtual time: nodes, wide and small jobs, users, policies, true limits.

No job runs longer than it asks for, so every promise can be kept: where the order of those who wait does not change, it
must not be put off. No node may be overbooked, who waits knows why, and everybody's work is done in the end.
"""

from __future__ import annotations

import random
from heapq import heappop, heappush
from math import log

import pytest

from core_recorder import GIB, SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.batches import Batch
from lanai.core.effects import ClaimRoom, StartAttempts
from lanai.core.nodes import NEVER_US, Node
from lanai.core.schedule import decide as scheduler
from lanai.core.schedule import future, promises
from lanai.core.schedule.leaf import WHOLE
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import is_able, may_go, need
from lanai.core.world import World
from lanai.model.ids import BatchId, GrantId, Index, NodeId
from lanai.model.job import AttemptResult
from lanai.model.policy import Bound, Limits, Policy, UserPolicy, Weights
from lanai.model.resources import Shape

MINUTE = 60 * SECOND
USERS = ("ann", "bob", "carl")
BY_AGE = Weights(age=1.0)


class Site:
    """A hub's core with nodes that do what they are told, and never longer than was asked for."""

    def __init__(self, hub: Recorder, seed: int, policy: Policy) -> None:
        self.hub = hub
        self.rng = random.Random(seed)
        hub.core.world.policy = policy
        self.cpus = [self.rng.choice((2, 4, 8)) for _ in range(self.rng.randrange(1, 6))]
        for number, cpus in enumerate(self.cpus):
            hub.join(f"n{number}", capacity(cpus=cpus, gpus=1))
        self.at_work: list[tuple[int, NodeId, GrantId, Index]] = []
        self.starts: dict[tuple[BatchId, int], int] = {}
        self.promised: dict[Line, tuple[int, int]] = {}
        self.keeps_order = policy.preset == "tight" and policy.weights == BY_AGE
        self._spooled: dict[NodeId, int] = {}

    def submit(self) -> None:
        """Some jobs that are alike; those over several nodes are one each."""
        cpus = self.rng.randrange(1, max(self.cpus) + 1)
        able = sum(count >= cpus for count in self.cpus)
        nodes = self.rng.randrange(1, able + 1) if self.rng.random() < 0.3 else 1
        memory = self.rng.choice((0, 0, GIB, 8 * GIB))
        shape = Shape(
            cpu_milli=1000 * cpus,
            memory_bytes=memory,
            gpu_milli=1000 * (self.rng.random() < 0.2),
            nodes=nodes,
            time_limit_us=self.rng.randrange(1, 30) * MINUTE,
        )
        self.hub.submit(self.rng.randrange(1, 6), user=self.rng.choice(USERS), shape=shape)

    def run(self, minutes: int, *, comes: float) -> None:
        """Go on for so long; a submission comes in each minute with this chance."""
        for _ in range(minutes):
            if self.rng.random() < comes:
                self.submit()
            self.decide()
            until_us = self.hub.now_us + MINUTE
            while (next_us := self._next_us()) <= until_us:
                self.hub.now_us = next_us
                while self.at_work and self.at_work[0][0] == next_us:
                    self._end(*heappop(self.at_work)[1:])
                self.hub.core.world.needs_pass = True
                self.decide()
            self.hub.now_us = until_us
            self.hub.core.world.wall_us = until_us

    def _next_us(self) -> int:
        """When something ends, or a promise is due."""
        due_us = self.hub.core.next_due_us()
        times = [NEVER_US if due_us is None else due_us]
        if self.at_work:
            times.append(self.at_work[0][0])
        return min(times)

    def decide(self) -> None:
        """Passes until none is wanted, and a look at everything."""
        self.hub.core.world.wall_us = self.hub.now_us
        self.hub.decide()
        self._carry_out()
        while self.hub.core.needs_pass:
            self.hub.decide()
            self._carry_out()
        self._check()

    def _end(self, node: NodeId, grant: GrantId, index: Index) -> None:
        self._spooled[node] = self._spooled.get(node, 0) + 1
        result = AttemptResult(grant, index, "ok", 0, started_at_us=self.hub.now_us, wall_us=MINUTE)
        self.hub.feed(ev.AttemptsEnded(node, self._spooled[node], [result], self.hub.now_us))
        self._carry_out()

    def _carry_out(self) -> None:
        for claim in self.hub.take(ClaimRoom):
            self.hub.feed(ev.RoomClaimed(claim.node, [claim.grant]))
        for start in self.hub.take(StartAttempts):
            limit_us = self.hub.batch(start.batch).shapes[start.shape].time_limit_us
            for first, last in start.spans:
                for index in range(first, last + 1):
                    lasts_us = self.rng.randrange(1, limit_us + 1)
                    self.starts[start.batch, index] = self.hub.now_us
                    heappush(self.at_work, (self.hub.now_us + lasts_us, start.node, start.grant, Index(index)))
        self.hub.take_all()

    def _check(self) -> None:
        world = self.hub.core.world
        for node in world.nodes.values():
            assert not node.free & world.layout.guard, node.name
            assert not node.booked
        for batch in world.batches.values():
            for line in batch.lines.values():
                assert not line.waiting or line.reason, (batch.id, line.waiting.spans())
        lines = [line for batch in world.batches.values() for line in batch.lines.values() if line.waiting]
        first = min(lines, key=lambda line: line.batch, default=None)
        for promise in world.promises.values():
            head = promise.line.waiting.head()
            before = self.promised.get(promise.line)
            is_first = promise.line is first or self.hub.core.world.policy.backfill == "conservative"
            if self.keeps_order and is_first and before is not None and before[0] == head:
                assert promise.at_us <= max(before[1], self.hub.now_us), "a promise was put off"
        kept = list(world.promises.values())
        if world.policy.backfill != "conservative":
            kept = [each for each in kept if each.line is first]  # it is promised only while it stays the first
        self.promised = {each.line: (each.line.waiting.head(), each.at_us) for each in kept}


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
