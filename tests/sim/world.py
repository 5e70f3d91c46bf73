"""One seed, one world: hosts, a hub, people, and the faults that befall them.

A world has two parts. In the first, faults come at random, each kind with the rate that this seed has drawn for it.
Then everything heals, and every batch has to end within a bounded time.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from unittest import mock

import msgspec

from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, Index
from lanai.model.policy import DEFAULT_POLICY, EVERYONE, Bound, Limits, Policy, ServicePolicy, UserPolicy
from lanai.model.resources import Capacity, Shape
from lanai.store.memory import MemoryStore
from sim.hub import Hub
from sim.node import Node
from sim.promises import Broken, Promises, picture, recovered_core
from sim.users import Submission, Users, some_settings
from sim.virtual import SECOND_US, Loop

GIB = 1 << 30

FAULTS = (
    "cut", "partition_short", "partition_long", "hub_crash_before_commit", "hub_crash_after_commit",
    "hub_crash_mid_send", "agent_crash", "agent_and_starter_crash", "starter_crash", "reboot", "node_disk_full",
    "hub_disk_full", "clock_jump", "freeze_short", "freeze_long", "wish", "node_wish", "join", "sickness",
    "lie", "unknown_user",
)  # fmt: skip
"""Each comes with a rate of its own, per second of virtual time."""

NODES_OF_WIDE = 3
SHORTAGE_US = 5 * SECOND_US
USERS = ("ann", "bob", "cid")
OUTCOMES = ("exit", "signal", "time", "memory", "check", "notfound", "node")


class Fate(msgspec.Struct, frozen=True):
    """What an attempt will come to if nobody ends it."""

    outcome: str
    lasts_us: int


def some_policy(rng: Random) -> Policy:
    """Limits under which every job can run at some time; in half of the worlds there are none."""
    if rng.random() < 0.5:
        return DEFAULT_POLICY

    def some() -> Limits:
        chosen: dict[str, Bound] = {}
        for thing, least in (("jobs", 1), ("nodes", 1), ("cpus", 4000), ("cpu_seconds", 15_000)):
            if rng.random() < 0.4:
                hard = least * rng.randint(3, 8)
                chosen[thing] = Bound(rng.randint(0, hard), hard)
        return Limits(**chosen)

    users = {EVERYONE: UserPolicy(limits=some())}
    return Policy(users=users, limits=some(), batch_limits=some(), services={"normal": ServicePolicy(limits=some())})


def with_preemption(policy: Policy) -> Policy:
    """The same with services whose jobs make way for others."""
    usual = policy.service("")
    services = {
        "normal": usual,
        "urgent": ServicePolicy(tier=1, is_preemptor=True),
        "low": ServicePolicy(is_preemptee=True),
        "doomed": ServicePolicy(is_preemptee=True, preempt_by="cancel"),
    }
    return msgspec.structs.replace(policy, services=services)


class World:
    """Made from a seed; `run` raises Broken, or whatever the code under test raises.

    `shortages`: how often, of all spans of a few seconds, a node lacks what a batch's jobs need to begin.
    `wide`: which part of all shapes asks for several nodes.
    `preempts`: which part of all batches is of a service that makes way, or for which others do.
    """

    def __init__(self, seed: int, shortages: float = 0.0, wide: float = 0.0, preempts: float = 0.0) -> None:
        self.seed = seed
        self._shortages = shortages
        self._wide = wide
        self._preempts = preempts
        self.rng = rng = Random(seed)
        self.loop = Loop()
        self.lease_us = rng.choice((20, 60)) * SECOND_US
        self.store = MemoryStore()
        self.compare = 0.1
        self.policy = some_policy(Random(f"policy of {seed}"))
        if preempts:
            self.policy = with_preemption(self.policy)
        self.has_licences = rng.random() < 0.3
        self.slowness_us = rng.choice((500, 5_000, 200_000))
        self.repeats = rng.choice((0.0, 0.02, 0.3))
        self.late = rng.choice((0.0, 0.01))
        self.rates = {name: rng.choice((0.0, 0.0, 1 / 100, 1 / 25)) for name in FAULTS}
        self.rates["wish"] = rng.choice((0.0, 0.02, 0.1, 0.5))
        self.fail_rate = rng.choice((0.0, 0.1, 0.4))
        self.length_us = rng.choice((20, 200, 2_000, 20_000)) * 1000
        if preempts:
            self.length_us = max(self.length_us, 10 * SECOND_US)
        self.has_faults = True
        self.hub: Hub | None = None
        self.hub_offset_us = rng.randrange(10**12)
        self.hub_wall_offset_us = 1_700_000_000 * SECOND_US
        self.promises = Promises(self)
        self.users = Users(self)
        self.nodes: list[Node] = []
        self.happened: dict[str, int] = {}

    # -- clocks and network

    def hub_us(self) -> int:
        return self.loop.now_us + self.hub_offset_us

    def hub_wall_us(self) -> int:
        return self.loop.now_us + self.hub_wall_offset_us

    def line(self, node: Node) -> _Line:
        return _Line(self, node)

    def notice_us(self) -> int:
        """How long an end takes to learn that the other is gone."""
        return self.rng.choice((0, 0, 1000, SECOND_US, 30 * SECOND_US)) if self.has_faults else 1000

    # -- jobs

    def fate(self, batch: BatchId, index: Index, attempt: int, node: Node) -> Fate:
        """The same for the same attempt, whatever happened elsewhere; a sick node fails everything."""
        rng = Random(f"{self.seed}/{batch}/{index}/{attempt}")
        lasts_us = round(self.length_us * rng.choice((0.2, 1, 1, 3)))
        if node.is_sick:
            return Fate(rng.choice(("node", "exit")), 1000)
        return Fate(rng.choice(OUTCOMES) if rng.random() < self.fail_rate else "ok", lasts_us)

    def is_short(self, node: Node, batch: BatchId) -> bool:
        """Whether jobs of the batch cannot begin on the node now. Not drawn from `rng`: seeds live as without it."""
        if not self._shortages or not self.has_faults:
            return False
        span = self.loop.now_us // SHORTAGE_US
        if Random(f"{self.seed}/{node.name}/{batch}/{span}").random() >= self._shortages:
            return False
        self.happened["shortage"] = self.happened.get("shortage", 0) + 1
        return True

    # -- the run

    def run(self) -> None:
        """From the first boot to the end of the last batch."""
        with (
            mock.patch("lanai.hub.switchboard.wall_us", self.hub_wall_us),
            mock.patch("lanai.hub.commands.wall_us", self.hub_wall_us),
            mock.patch("lanai.hub.commands.boottime_us", self.hub_us),
        ):
            self._begin()
            self._make_trouble()
            self.loop.run(self.loop.now_us + self.rng.choice((60, 200, 400)) * SECOND_US)
            self._heal()
            self.loop.run(self.loop.now_us + 3600 * SECOND_US, self._is_over)
            self._look_at_the_end()

    def _begin(self) -> None:
        rng = self.rng
        self._start_hub()
        for _ in range(max(rng.randint(1, 4), NODES_OF_WIDE if self._wide else 0)):
            self._add_node()
        for number in range(rng.randint(1, 5)):
            settings, shapes = some_settings(self)
            shapes = self._widened(shapes)
            settings = msgspec.structs.replace(settings, service=self._service(number))
            size = rng.choice((1, 5, 20, 20, 60))
            jobs = sorted(rng.randrange(len(shapes)) for _ in range(size))
            submission = Submission(f"key {number}", rng.choice(USERS), settings, shapes, jobs)
            self.loop.later(rng.randrange(60 * SECOND_US), self._submits(submission))
        if self._preempts:
            self._add_urgent()

    def _add_urgent(self) -> None:
        """Small batches for which others make way, while these run."""
        rng = Random(f"urgent of {self.seed}")
        settings = BatchSettings(service="urgent")
        for number in range(8):
            shape = Shape(cpu_milli=rng.choice((1000, 2000, 8000)))
            jobs = [0] * rng.choice((1, 1, 3))
            submission = Submission(f"urgent {number}", rng.choice(USERS), settings, [shape], jobs)
            self.loop.later(rng.randrange(60 * SECOND_US), self._submits(submission))

    def _service(self, number: int) -> str:
        """Of one batch. Not drawn from `rng`: seeds live as without it."""
        rng = Random(f"service {self.seed} {number}")
        return rng.choice(("urgent", "low", "low", "doomed")) if rng.random() < self._preempts else ""

    def _widened(self, shapes: list[Shape]) -> list[Shape]:
        """Some of them over several nodes, each so small that any node holds one."""
        rng = self.rng
        return [
            Shape(nodes=rng.randint(2, NODES_OF_WIDE), cpu_milli=rng.choice((500, 1000)), memory_bytes=GIB)
            if self._wide and rng.random() < self._wide
            else shape
            for shape in shapes
        ]

    def _submits(self, submission: Submission) -> Callable[[], None]:
        return lambda: self.users.submit(submission)

    def _add_node(self) -> None:
        rng = self.rng
        capacity = Capacity(
            cpu_milli=rng.choice((2000, 4000, 8000)),
            memory_bytes=rng.choice((4, 8)) * GIB,
            named=(("licence", 2),) if self.has_licences and (not self.nodes or rng.random() < 0.5) else (),
        )
        if not self.nodes:  # at least one on which everything fits
            capacity = msgspec.structs.replace(capacity, cpu_milli=8000, memory_bytes=16 * GIB)
        node = Node(self, f"n{len(self.nodes) + 1}", capacity)
        self.nodes.append(node)
        node.boot()

    def _start_hub(self) -> None:
        if self.hub is None:
            self.hub = Hub(self)

    def crash_hub(self, *, keep_commit: bool, away_us: int | None = None) -> None:
        if self.hub is None:
            return
        hub, self.hub = self.hub, None
        hub.crash(keep_commit=keep_commit)
        self.promises.hub_gone()
        if away_us is None:
            away_us = self.rng.choice((0, SECOND_US, 20 * SECOND_US, 100 * SECOND_US))
        self.loop.later(away_us, self._start_hub)

    # -- faults

    def _make_trouble(self) -> None:
        if not self.has_faults:
            return
        for name in FAULTS:
            if self.rates[name] and self.rng.random() < self.rates[name] / 2:
                self.happened[name] = self.happened.get(name, 0) + 1
                getattr(self, f"_{name}")(self.rng.choice(self.nodes))
        self.loop.later(SECOND_US // 2, self._make_trouble)

    def _cut(self, node: Node) -> None:
        if node.agent is not None:
            node.agent.cut(self.notice_us(), self.notice_us())

    def _partition_short(self, node: Node) -> None:
        self._block(node, self.rng.randrange(1, self.lease_us * 2 // 3))

    def _partition_long(self, node: Node) -> None:
        self._block(node, self.rng.randrange(self.lease_us, 3 * self.lease_us))

    def _block(self, node: Node, for_us: int) -> None:
        node.blocked_until_us = max(node.blocked_until_us, self.loop.now_us + for_us)

    def _hub_crash_before_commit(self, _: Node) -> None:
        self.crash_hub(keep_commit=False)

    def _hub_crash_after_commit(self, _: Node) -> None:
        self.crash_hub(keep_commit=True)

    def _hub_crash_mid_send(self, _: Node) -> None:
        if self.hub is not None:
            self.hub.crash_after_effects = self.rng.randint(0, 3)

    def _agent_crash(self, node: Node) -> None:
        node.kill_agent()
        self.loop.later(self.rng.choice((1000, 2 * SECOND_US, 100 * SECOND_US)), node.start_agent)

    def _agent_and_starter_crash(self, node: Node) -> None:
        node.kill_agent()
        node.kill_starters()
        self.loop.later(self.rng.choice((1000, 2 * SECOND_US, 100 * SECOND_US)), node.start_agent)

    def _starter_crash(self, node: Node) -> None:
        node.kill_starter()

    def _reboot(self, node: Node) -> None:
        node.reboot(self.rng.choice((5, 30, 200)) * SECOND_US)

    def _node_disk_full(self, node: Node) -> None:
        node.disk.is_full = True
        self.loop.later(self.rng.choice((1, 30)) * SECOND_US, lambda: setattr(node.disk, "is_full", False))

    def _hub_disk_full(self, _: Node) -> None:
        self.store.is_full = True
        self.loop.later(self.rng.choice((1, 30, 100)) * SECOND_US, lambda: setattr(self.store, "is_full", False))

    def _clock_jump(self, node: Node) -> None:
        jump_us = self.rng.choice((-3600, 3600)) * SECOND_US
        if self.rng.random() < 0.5:
            node.wall_offset_us += jump_us
        else:
            self.hub_wall_offset_us += jump_us

    def _freeze_short(self, node: Node) -> None:
        node.freeze(self.rng.randrange(10 * SECOND_US))

    def _freeze_long(self, node: Node) -> None:
        node.freeze(self.rng.randrange(self.lease_us, 3 * self.lease_us))

    def _wish(self, _: Node) -> None:
        self.users.wish()

    def _node_wish(self, _: Node) -> None:
        self.users.node_wish()

    def _join(self, _: Node) -> None:
        if len(self.nodes) < 6:
            self._add_node()

    def _sickness(self, node: Node) -> None:
        node.is_sick = not node.is_sick

    def _lie(self, node: Node) -> None:
        """A user makes his starter say what is not so."""
        if node.serves_users and node.starters:
            self.rng.choice(list(node.starters.values())).lie()

    def _unknown_user(self, node: Node) -> None:
        """For a while the node cannot make a starter for this user."""
        node.unknown = self.rng.choice((*USERS, ""))

    # -- the end

    def _heal(self) -> None:
        self.has_faults = False
        self.repeats = self.late = 0.0
        self.store.is_full = False
        for node in self.nodes:
            node.is_sick = node.disk.is_full = False
            node.unknown = ""
            node.blocked_until_us = node.frozen_until_us = 0
            node.thaw()
            node.start_agent()
        if self.hub is not None:
            self.hub.crash_after_effects = -1
        self._nurse()

    def _nurse(self) -> None:
        """What people do when nothing goes on: release what is held, resume what is drained."""
        if self.hub is not None:
            for node in self.nodes:
                self.users.command("resume", {"node": node.name})
            for one in self.users.submissions:
                if one.batch is not None:
                    self.users.command("release", {"batch": one.batch, "ranges": None})
                    batch = self.hub.core.world.batches.get(one.batch)
                    if batch is not None and batch.max_running:
                        self.users.command("set", {"batch": one.batch, "priority": None, "max_running": 0})
        self.loop.later(60 * SECOND_US, self._nurse)

    def _is_over(self) -> bool:
        return (
            self.hub is not None
            and all(one.is_acknowledged for one in self.users.submissions)
            and not self.hub.core.world.batches
            and all(self._has_ended(one) for one in self.users.submissions)
        )

    def _has_ended(self, one: Submission) -> bool:
        settings = self.store.kept.settings.get(one.batch) if one.batch is not None else None
        return settings is not None and settings.state == "ended"

    def _look_at_the_end(self) -> None:
        if not self._is_over():
            assert self.hub is not None
            why = [(batch.id, self.hub.core.why(batch.id, None)) for batch in self.hub.core.world.batches.values()]
            raise Broken(f"not over an hour after the last fault: {why} {self.hub.core.nodes(self.hub_us())}")
        for one in self.users.submissions:
            assert one.batch is not None
            counts = self.store.kept.progress[one.batch].counts
            if counts.total() != len(one.jobs) or counts.waiting():
                raise Broken(f"batch {one.batch} of {len(one.jobs)} jobs ended as {counts}")
        if picture(recovered_core(self)).keys() & {f"batch {one.batch} counts" for one in self.users.submissions}:
            raise Broken("a batch that has ended would be recovered")


class _Line:
    """The network between one node and the hub."""

    def __init__(self, world: World, node: Node) -> None:
        self.loop = world.loop
        self.rng = world.rng
        self._world = world
        self._node = node

    def delay_us(self) -> int:
        world = self._world
        if world.late and world.rng.random() < world.late:
            return world.rng.randrange(10 * SECOND_US)
        return world.rng.randrange(100, world.slowness_us)

    def blocked_until_us(self) -> int:
        return self._node.blocked_until_us

    def is_repeated(self) -> bool:
        return self._world.repeats > 0 and self.rng.random() < self._world.repeats
