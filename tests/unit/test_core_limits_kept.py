"""Limits whatever happens: random towns in which counters agree with the grants, and no hard limit is exceeded."""

from __future__ import annotations

from random import Random

import pytest

from core_recorder import GIB, SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.schedule import limits
from lanai.core.schedule.counters import AMOUNTS, MILLI_US, Counter
from lanai.core.schedule.estimate import estimate_us
from lanai.model.access import Caller, Role
from lanai.model.ids import NodeId, grant_id
from lanai.model.job import AttemptResult
from lanai.model.policy import (
    EVERYONE,
    AccountPolicy,
    Bound,
    GroupPolicy,
    Limits,
    Policy,
    ServicePolicy,
    UserPolicy,
)
from lanai.model.resources import Shape


def random_policy(random: Random) -> Policy:
    def some() -> Limits:
        chosen = {}
        for thing, most in (("jobs", 12), ("nodes", 12), ("cpus", 16000), ("memory", 8192), ("cpu_seconds", 900)):
            if random.random() < 0.3:
                hard = random.randint(1, most)
                chosen[thing] = Bound(random.randint(0, hard), hard)
        return Limits(**chosen)

    return Policy(
        users={EVERYONE: UserPolicy(limits=some()), "ann": UserPolicy(limits=some(), account="grant")},
        groups={"lab": GroupPolicy(members=("ann", "bob"), limits=some())},
        accounts={EVERYONE: AccountPolicy(limits=some()), "grant": AccountPolicy(limits=some())},
        services={"short": ServicePolicy(limits=some(), estimate_us=60 * SECOND)},
        limits=some(),
        batch_limits=some(),
    )


class Town:
    """A hub that all kinds of things happen to; looked at after each."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.hub = Recorder()
        self.nodes = [self.hub.join(f"n{at}", capacity(cpus=6)) for at in range(3)]
        self.spooled = dict.fromkeys(self.nodes, 0)
        self.new_policy()

    def _settle(self, policy: Policy) -> None:
        self.hub.core.world.policy = policy
        limits.rebuild(self.hub.core.world)

    def new_policy(self) -> None:
        self._settle(random_policy(self.random))

    def used(self, key: tuple[str, str, str]) -> int:
        counter = self.hub.core.world.counters[key]
        return counter.used if key[2] != "cpu_seconds" else self.outstanding(counter)

    def outstanding(self, counter: Counter) -> int:
        """What the grants say, each attempt by itself."""
        world, owed = self.hub.core.world, 0
        for grant in world.grants.values():
            for index in grant.members if counter in grant.batch.counters else ():
                ran_us = world.wall_us - grant.started[index] if index in grant.started else 0
                owed += grant.line.shape.cpu_milli * max(0, estimate_us(world, grant.line) - ran_us)
        return owed

    def submit(self) -> None:
        random = self.random
        shape = Shape(
            cpu_milli=random.choice((500, 1000, 3000)),
            memory_bytes=random.choice((0, GIB)),
            time_limit_us=random.choice((0, 20 * SECOND)),
        )
        user, service = random.choice(("ann", "bob", "eve")), random.choice(("", "", "short"))
        self.hub.submit(random.randint(1, 30), user=user, service=service, shape=shape)

    def end(self) -> None:
        grants = list(self.hub.core.world.grants.values())
        if grants:
            grant = self.random.choice(grants)
            members = sorted(grant.members)[: self.random.randint(1, 4)]
            outcome = self.random.choice(("ok", "ok", "exit", "node"))
            wall_us = self.random.choice((1000, 30 * SECOND))
            results = [AttemptResult(grant.id, index, outcome, wall_us=wall_us) for index in members]
            self.spooled[grant.node.id] += len(results)
            self.hub.feed(ev.AttemptsEnded(grant.node.id, self.spooled[grant.node.id], results, self.hub.now_us))

    def begin(self) -> None:
        for grant in list(self.hub.core.world.grants.values())[:2]:
            index = min(grant.members)
            self.hub.feed(ev.AttemptsStarted(grant.node.id, [(grant.id, index, self.hub.now_us)]))

    def give_back(self) -> None:
        grants = [grant for grant in self.hub.core.world.grants.values() if not grant.started]
        if grants:
            grant = self.random.choice(grants)
            self.hub.feed(ev.JobsReturned(grant.node.id, [(grant.id, max(grant.members))], ""))

    def lose(self) -> None:
        """A node comes back with nothing of what it had."""
        node = self.random.choice(self.nodes)
        self.hub.join(self.hub.node(node).name, capacity(cpus=6), boot=str(self.random.random()), take=False)

    def cancel(self) -> None:
        batches = list(self.hub.core.world.batches)
        if batches:
            batch = self.random.choice(batches)
            self.hub.feed(ev.JobsCancelled(1, batch, ((1, 5),), (), self.hub.now_us, Caller("root", Role.ADMIN)))

    def wait(self) -> None:
        self.hub.now_us += self.random.choice((1000, SECOND))
        self.hub.feed(ev.TimePassed(self.hub.now_us), *(ev.NodeHeard(node, "", self.hub.now_us) for node in self.nodes))

    def restart(self) -> None:
        policy = self.hub.core.world.policy
        self.hub.restart()
        self._settle(policy)
        for node in self.hub.core.world.nodes.values():
            held = [(g.id, index, "running") for g in node.grants.values() for index in sorted(g.members)]
            self.hub.hello(node.name, capacity(cpus=6))
            self.hub.feed(ev.NodeTookStock(NodeId(node.id), held))

    def step(self) -> None:
        ways = (self.submit, self.end, self.end, self.end, self.begin, self.give_back, self.lose, self.cancel)
        way = self.random.choice((*ways, self.wait, self.hub.decide, self.hub.decide, self.new_policy, self.restart))
        last = self.hub.core.world.last_grant
        way()
        self.hub.take_all()
        grants = list(self.hub.core.world.grants.values())
        new = [grant for grant in grants if grant.id > grant_id(1, last)] if way != self.restart else []
        for key, counter in self.hub.core.world.counters.items():
            # As attempts end estimates become others, and with them what is outstanding.
            is_exact = key[2] != "cpu_seconds" or way == self.hub.decide
            own = [grant for grant in new if counter in grant.batch.counters]
            if is_exact and any(AMOUNTS.get(key[2], AMOUNTS["cpus"])(grant.line.shape) for grant in own):
                most = counter.bound.hard * (MILLI_US if key[2] == "cpu_seconds" else 1)
                assert self.used(key) <= most, (key, way)
            if counter.thing == "cpu_seconds":
                assert limits.outstanding(self.hub.core.world).get(counter, 0) == self.outstanding(counter)
            assert counter.thing == "cpu_seconds" or counter.used == sum(
                len(grant.members) * AMOUNTS[counter.thing](grant.line.shape)
                for grant in grants
                if counter in grant.batch.counters
            )


@pytest.mark.parametrize("seed", range(40))
def test_counters_agree_with_grants_and_hard_limits_hold_whatever_happens(seed: int) -> None:
    town = Town(seed)
    for _ in range(120):
        town.step()
