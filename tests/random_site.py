"""A site in virtual time for random tests of the pass: nodes, users, wide and small jobs, true limits."""

from __future__ import annotations

import random
from heapq import heappop, heappush

from core_recorder import GIB, SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.effects import ClaimRoom, StartAttempts
from lanai.core.nodes import NEVER_US
from lanai.core.schedule.lines import Line
from lanai.model.ids import BatchId, GrantId, Index, NodeId
from lanai.model.job import AttemptResult
from lanai.model.policy import Policy, Weights
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
