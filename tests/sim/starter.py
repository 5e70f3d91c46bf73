"""A starter as its agent sees it: lanes, a lease, ends that are kept until they may be forgotten. No processes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from lanai.agent import events as ev
from lanai.agent.events import Item, Member
from lanai.model.ids import GrantId, Index
from lanai.model.job import AttemptResult
from lanai.model.resources import Shape
from lanai.wire.messages import Spec

if TYPE_CHECKING:
    from sim.node import Node

NEVER_US = 1 << 62
TELL_AFTER_US = 100_000
GATHER_US = 5_000


class Queued(msgspec.Struct, frozen=True):
    """An item that was handed in."""

    grant: GrantId
    item: Item
    attempt: int
    lane: int
    spec: Spec


class Running:
    """A command that runs."""

    def __init__(self, queued: Queued, began_us: int, wall_us: int) -> None:
        self.queued = queued
        self.began_us = began_us
        self.wall_us = wall_us
        self.outcome = ""
        self.is_over = False


class Starter:
    """What survives its agent. Gone with `die`."""

    def __init__(self, node: Node, owner: str) -> None:
        self.node = node
        self.owner = owner
        self.is_alive = True
        self.lease_us = NEVER_US
        self.is_expired = False
        self.agent: object = None
        self.waiting: dict[Member, Queued] = {}
        self.active: dict[Member, Running] = {}
        self.kept: deque[tuple[int, AttemptResult]] = deque()
        self._told_upto = 0
        self._last = 0
        self._is_gathering = False
        self._specs: dict[int, Spec] = {}
        self._widths: dict[int, int] = {}
        self._queues: dict[int, deque[Member]] = {}

    # -- what the agent says

    def attach(self, agent: object) -> ev.StarterUp:
        """A new agent: everything there is."""
        self.agent = agent
        self._told_upto = self._last
        return ev.StarterUp(
            [(*member, one.wall_us) for member, one in self.active.items() if not one.is_over],
            list(self.waiting),
            [result for _, result in self.kept],
            self._last if self.kept else 0,
            self.owner,
        )

    def open_lane(self, lane: int, spec: Spec) -> None:
        self._specs[lane] = spec

    def close_lane(self, lane: int) -> None:
        self._specs.pop(lane, None)
        self._widths.pop(lane, None)

    def widen(self, lane: int, width: int) -> None:
        self._widths[lane] = width
        self._fill()

    def hand(self, lane: int, grant: GrantId, attempt: int, items: list[Item]) -> None:
        kept = {(result.grant, result.index) for _, result in self.kept}
        for item in items:
            member = (grant, item.index)
            if member in self.waiting or member in self.active or member in kept:
                continue
            self.waiting[member] = Queued(grant, item, attempt, lane, self._specs[lane])
            self._queues.setdefault(lane, deque()).append(member)
        if self.is_expired:
            self.end_all("lease expired")
        self._fill()

    def take_back(self, items: list[Member]) -> None:
        kept = {(result.grant, result.index) for _, result in self.kept}
        back = [m for m in items if self.waiting.pop(m, None) or (m not in self.active and m not in kept)]
        if back:
            self._tell(ev.JobsGivenBack(back, self.owner))

    def end(self, items: list[Member], grace_us: int) -> None:
        for member in items:
            queued = self.waiting.pop(member, None)
            if queued is not None:
                self._keep(AttemptResult(*member, "cancelled", reason="killed"))
            elif member in self.active and not self.active[member].outcome:
                running = self.active[member]
                running.outcome = "cancelled"
                self._later(min(grace_us, self.node.world.rng.randrange(1, 3_000_000)), lambda r=running: self._over(r))

    def release(self, upto: int) -> None:
        while self.kept and self.kept[0][0] <= upto:
            self.kept.popleft()

    def set_lease(self, until_us: int) -> None:
        if until_us:
            self.lease_us = NEVER_US if until_us == -1 else until_us
            self.is_expired = False
            wait_us = self.lease_us - self.node.boot_us()
            if wait_us < NEVER_US >> 1:
                self._later(wait_us, self.look_at_lease)

    # -- what happens to it

    def look_at_lease(self) -> None:
        if self.node.boot_us() >= self.lease_us:
            self.end_all("lease expired")
            self.is_expired = True
            self.lease_us = NEVER_US

    def die(self) -> None:
        """Killed, and with it everything that it ran."""
        self.is_alive = False
        for member, running in self.active.items():
            if not running.is_over:
                self.node.world.promises.ended(self.node, member, running.queued.spec.batch)
        self.active.clear()
        self.waiting.clear()

    def say_goodbye(self) -> None:
        """Asked to end: it ends what runs, tells of that, and takes nothing more."""
        self.waiting.clear()
        self.end_all("starter ended by SIGTERM")
        self._report()
        self.die()

    def end_all(self, why: str) -> None:
        for member in list(self.waiting):
            del self.waiting[member]
            self._keep(AttemptResult(*member, "node", reason=why))
        for running in list(self.active.values()):
            running.outcome = "node"
            self._over(running)

    def lie(self) -> None:
        """Say of what others have that it has ended, begun, or come back. Its own user may do that with what is his."""
        others = [m for one in self.node.starters.values() if one is not self for m in (*one.waiting, *one.active)]
        rng = self.node.world.rng
        foreign = [*others, (GrantId(rng.randrange(1 << 41)), Index(1))]
        members = rng.sample(foreign, min(len(foreign), 3))
        results = [AttemptResult(*member, rng.choice(("ok", "exit", "node"))) for member in members]
        # Its ends are numbered without gaps, lies and all: one that leaves out a number is hung up on, and killed.
        lies: tuple[ev.StarterEvent, ...] = (
            ev.AttemptsEnded(results, self._last + len(results), self.owner),
            ev.JobsGivenBack(members, self.owner),
            ev.AttemptsBegan([(*member, 1) for member in members], self.owner),
        )
        lie = rng.choice(lies)
        if isinstance(lie, ev.AttemptsEnded):
            self._report()
            self._last = self._told_upto = lie.upto
        self._tell(lie)

    # -- running

    def _fill(self) -> None:
        for lane, queue in self._queues.items():
            while queue and self._width_left(lane) > 0:
                queued = self.waiting.pop(queue.popleft(), None)
                if queued is not None and queued.lane == lane:
                    if self.node.boot_us() >= self.lease_us:
                        self.waiting[queued.grant, queued.item.index] = queued
                        self.look_at_lease()
                        return
                    if self.agent is not None and self.node.world.is_short(self.node, queued.spec.batch):
                        self._give_back(lane, queued)
                    else:
                        self._begin(queued)

    def _give_back(self, lane: int, first: Queued) -> None:
        """It cannot begin now, nor can those behind it."""
        behind = [one for key in self._queues[lane] if (one := self.waiting.pop(key, None)) and one.lane == lane]
        self._queues[lane].clear()
        back = [(one.grant, one.item.index) for one in (first, *behind)]
        self._tell(ev.JobsGivenBack(back, self.owner, "out of processes"))

    def _width_left(self, lane: int) -> int:
        running = sum(one.queued.lane == lane for one in self.active.values())
        return self._widths.get(lane, 0) - running

    def _begin(self, queued: Queued) -> None:
        node, member = self.node, (queued.grant, queued.item.index)
        fate = node.world.fate(queued.spec.batch, queued.item.index, queued.attempt, node)
        if fate.outcome == "notfound":
            self._keep(AttemptResult(*member, "notfound", exit_code=127))
            return
        running = self.active[member] = Running(queued, node.boot_us(), node.wall_us())
        node.world.promises.began(node, self, member, queued.spec.batch, queued.item.line, node.shapes())
        self._later(fate.lasts_us, lambda: self._natural_end(running, fate.outcome))
        self._later(TELL_AFTER_US, lambda: self._tell_began(member, running))

    def shapes(self) -> list[Shape]:
        """Of everything that runs."""
        return [one.queued.spec.shape for one in self.active.values() if not one.is_over]

    def _natural_end(self, running: Running, outcome: str) -> None:
        if not running.is_over and not running.outcome:
            running.outcome = outcome
            self._over(running)

    def _tell_began(self, member: Member, running: Running) -> None:
        if not running.is_over:
            self._tell(ev.AttemptsBegan([(*member, running.wall_us)], self.owner))

    def _over(self, running: Running) -> None:
        if running.is_over or not self.is_alive:
            return
        running.is_over = True
        member = (running.queued.grant, running.queued.item.index)
        del self.active[member]
        self.node.world.promises.ended(self.node, member, running.queued.spec.batch)
        wall_us = self.node.boot_us() - running.began_us
        self._keep(AttemptResult(*member, running.outcome, 0, 0, running.wall_us, wall_us))
        self._fill()

    def _keep(self, result: AttemptResult) -> None:
        self._last += 1
        self.kept.append((self._last, result))
        if not self._is_gathering:
            self._is_gathering = True
            self._later(GATHER_US, self._report)

    def _report(self) -> None:
        self._is_gathering = False
        fresh = [(number, result) for number, result in self.kept if number > self._told_upto]
        if fresh and self.agent is not None:
            self._told_upto = fresh[-1][0]
            self._tell(ev.AttemptsEnded([result for _, result in fresh], fresh[-1][0], self.owner))

    def _tell(self, event: ev.StarterEvent) -> None:
        if self.agent is not None:
            self.node.from_starter(self, self.agent, event)

    def _later(self, delay_us: int, call: object) -> None:
        assert callable(call)
        self.node.later(delay_us, lambda: call() if self.is_alive else None)
