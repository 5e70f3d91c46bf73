"""One pass of the core in a large world: 10,000 nodes, 110,000 attempts, 1,000,000 jobs that wait in 2,000 lines.

    python bench/passes.py 1 | 16 | fill | reserve

The number is how many lines are promised a time. The world is made by the core's own events. Between
passes 90 attempts end, which the fast path follows up. The garbage
collector is off, as in the hub. And 32,000 slots over 1,000 nodes are filled from empty for 40 users; and thousands of
nodes of the large world, but for those who wait, are reserved in several ways. What is timed are the calls of the core.
"""

from __future__ import annotations

import gc
import json
import random
import resource
import statistics
import subprocess
import sys
import time

import msgspec
from processes import bare_environment

from lanai.core.effects import Effect, StartAttempts
from lanai.core.events import (
    AttemptsEnded,
    BatchClosed,
    BatchOpened,
    ChunkArrived,
    Event,
    NodeJoined,
    NodeTookStock,
    ReservationDropped,
    ReservationRenewed,
    ReservationWished,
)
from lanai.core.hub import HubCore
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, NodeId, ShapeId
from lanai.model.job import AttemptResult
from lanai.model.reservation import Period, Reservation, Rule
from lanai.model.resources import Capacity, Shape

GIB = 1 << 30
MINUTE_US = 60_000_000
TYPES = ((32, 128, 0), (64, 256, 0), (128, 1024, 0), (64, 512, 8))
NODES, LEAVES, LINES, EACH, RUNNING, ENDS = 10_000, 300, 2_000, 500, 110_000, 90


class World:
    """A core, and the clock that it is told."""

    def __init__(self, depth: int = 1) -> None:
        self.core = HubCore(epoch=1, lease_us=MINUTE_US)
        self.core.world.policy = msgspec.structs.replace(self.core.world.policy, depth=depth)
        self.now_us = 1_000_000_000
        self.wall_us = 1_700_000_000_000_000
        self.running: list[tuple[NodeId, int, int]] = []
        self._spooled: dict[NodeId, int] = {}

    def handle(self, *events: Event) -> None:
        """Tell the core, and note what it starts."""
        self._note(self.core.handle(self.now_us, events).effects)

    def decide(self) -> tuple[float, float]:
        """One pass; returns how long its calls took together, and the longest of them, in seconds."""
        whole_s = longest_s = 0.0
        while True:
            began_s = time.perf_counter()
            decision = self.core.decide(self.now_us)
            took_s = time.perf_counter() - began_s
            whole_s, longest_s = whole_s + took_s, max(longest_s, took_s)
            self._note(decision.effects)
            if not self.core.needs_pass:
                return whole_s, longest_s

    def work(self, event: Event) -> tuple[float, float]:
        """One wish and all the work that it makes, without passes between; returns what `decide` does."""
        calls = [lambda: self.core.handle(self.now_us, [event])]
        whole_s = longest_s = 0.0
        while calls or self.core.world.work:
            call = calls.pop() if calls else lambda: self.core.decide(self.now_us)
            began_s = time.perf_counter()
            call()
            took_s = time.perf_counter() - began_s
            whole_s, longest_s = whole_s + took_s, max(longest_s, took_s)
            self.core.world.needs_pass = False
        return whole_s, longest_s

    def join(self, name: str, cpus: int, memory_gib: int, gpus: int, features: tuple[str, ...] = ()) -> None:
        """A node comes."""
        capacity = Capacity(cpu_milli=1000 * cpus, memory_bytes=memory_gib * GIB, gpus=tuple(map(str, range(gpus))))
        number = len(self.core.world.nodes) + 1
        self.handle(NodeJoined(number, name, b"", "boot", capacity, features, "root", self.wall_us))
        self.handle(NodeTookStock(NodeId(number), []))

    def submit(self, user: str, shapes: list[tuple[int, Shape]]) -> BatchId:
        """A batch of (count, shape) runs comes."""
        self.handle(BatchOpened(1, user, str(self.core.world.last_batch), BatchSettings(), b"", b"", self.wall_us))
        batch = BatchId(self.core.world.last_batch)
        runs = tuple((count, ShapeId(number)) for number, (count, _) in enumerate(shapes))
        known = tuple((ShapeId(number), shape) for number, (_, shape) in enumerate(shapes))
        total = sum(count for count, _ in shapes)
        self.handle(ChunkArrived(1, batch, 1, total, runs, known, b"", {}))
        self.handle(BatchClosed(1, batch, total, b"", self.wall_us))
        return batch

    def end(self, count: int, rng: random.Random) -> None:
        """So many of the running attempts end, after half a second."""
        self.now_us += 100_000
        self.wall_us += 100_000
        for _ in range(count):
            at = rng.randrange(len(self.running))
            self.running[at], self.running[-1] = self.running[-1], self.running[at]
            node, grant, index = self.running.pop()
            self._spooled[node] = self._spooled.get(node, 0) + 1
            result = AttemptResult(grant, index, "ok", 0, started_at_us=self.wall_us, wall_us=20 * MINUTE_US)
            self.handle(AttemptsEnded(node, self._spooled[node], [result], self.wall_us))

    def _note(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartAttempts):
                for first, last in effect.spans:
                    self.running += [(effect.node, effect.grant, index) for index in range(first, last + 1)]


def shapes_of(rng: random.Random, count: int) -> list[Shape]:
    """What lines ask for: a tenth of them over several nodes, two fifths with a feature."""
    return [
        Shape(
            cpu_milli=1000 * rng.choice((1, 1, 2, 4, 8, 16, 32)),
            memory_bytes=rng.choice((1, 2, 4, 8, 16, 64)) * GIB,
            gpu_milli=1000 * rng.choice((0, 0, 0, 0, 1)),
            time_limit_us=rng.choice((10, 30, 60, 240, 1440)) * MINUTE_US,
            nodes=rng.randrange(2, 65) if rng.random() < 0.1 else 1,
            features=(rng.choice(("a", "b", "c")),) if rng.random() < 0.4 else (),
        )
        for _ in range(count)
    ]


def busy_world(depth: int) -> World:
    """10,000 nodes on which all runs that fits, and nobody waits who could start."""
    world = World(depth)
    for number in range(NODES):
        world.join(f"n{number}", *TYPES[number % 4], features=("abc"[number // 4 % 3],))
    for minutes in (60, 120, 240, 480, 960):
        large = Shape(cpu_milli=8000, memory_bytes=8 * GIB, time_limit_us=minutes * MINUTE_US)
        small = Shape(cpu_milli=5538, memory_bytes=4 * GIB, time_limit_us=minutes * MINUTE_US)
        world.submit("filler", [(9_000, large), (RUNNING // 5 - 9_000, small)])
    world.decide()
    return world


def large_world(depth: int) -> dict[str, float]:
    """Milliseconds of 60 passes, and the longest call of all."""
    rng = random.Random(4)
    world = busy_world(depth)
    per_leaf = LINES // LEAVES + 1
    shapes = shapes_of(rng, LINES)
    for leaf in range(LEAVES):
        own = shapes[leaf * per_leaf : (leaf + 1) * per_leaf]
        if own:
            world.submit(f"u{leaf % 60}", [(EACH, shape) for shape in own])
    gc.collect()
    settle_s, first_s = world.decide()
    passes_s = []
    for _ in range(60):
        world.end(ENDS, rng)
        world.core.world.needs_pass = True
        passes_s.append(world.decide())
    took = sorted(whole for whole, _ in passes_s)
    return {
        "running": len(world.running),
        "waiting": sum(batch.waiting for batch in world.core.world.batches.values()),
        "first_ms": 1000 * settle_s,
        "first_longest_call_ms": 1000 * first_s,
        "median_ms": 1000 * statistics.median(took),
        "p95_ms": 1000 * took[int(len(took) * 0.95)],
        "longest_call_ms": 1000 * max(longest for _, longest in passes_s),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def filled_from_empty() -> dict[str, float]:
    """Milliseconds to fill 32,000 slots of 1,000 nodes for 200 batches of 40 users, and the longest call."""
    world = World()
    for number in range(1000):
        world.join(f"n{number}", 32, 128, 0)
    for number in range(200):
        world.submit(f"u{number % 40}", [(1000, Shape())])
    gc.collect()
    whole_s, longest_s = world.decide()
    return {
        "started": len(world.running),
        "ms": 1000 * whole_s,
        "longest_call_ms": 1000 * longest_s,
    }


def reserved() -> dict[str, float]:
    """Milliseconds that reservations over thousands of nodes take, and the longest call of all."""
    world = busy_world(1)
    rule = Rule(on=tuple(range(7)), from_minute=0, to_minute=60, timezone="UTC")

    def days(first_hour: int) -> tuple[Period, ...]:
        begins = [world.wall_us + (first_hour + 24 * day) * 60 * MINUTE_US for day in range(14)]
        return tuple(Period(begin_us, begin_us + 60 * MINUTE_US) for begin_us in begins)

    def wish(name: str, first_hour: int, *, is_change: bool = False, count: int = 0) -> Event:
        made = Reservation(name=name, nodes="*", count=count, rule=rule, periods=days(first_hour))
        return ReservationWished(1, made, is_change, world.wall_us)

    gc.collect()
    took = {
        "made": world.work(wish("all", 5)),
        "made beside another": world.work(wish("also", 7)),
        "made by number": world.work(wish("some", 9, count=4_000)),
        "changed": world.work(wish("some", 11, is_change=True, count=4_010)),
        "renewed": world.work(ReservationRenewed("all", rule, days(6))),
        "dropped": world.work(ReservationDropped(1, "also", world.wall_us)),
    }
    return {
        **{f"{what}_ms": 1000 * whole_s for what, (whole_s, _) in took.items()},
        "longest_call_ms": 1000 * max(longest_s for _, longest_s in took.values()),
    }


def measured(what: str) -> dict[str, float]:
    """What this program prints, run by itself: its garbage collector is frozen, and its memory counted."""
    words = [sys.executable, __file__, what]
    printed = subprocess.run(words, check=True, capture_output=True, env=bare_environment()).stdout
    found: dict[str, float] = json.loads(printed)
    return found


if __name__ == "__main__":
    gc.disable()
    what = sys.argv[1] if len(sys.argv) > 1 else "1"
    others = {"fill": filled_from_empty, "reserve": reserved}
    print(json.dumps(others[what]() if what in others else large_world(int(what))))
