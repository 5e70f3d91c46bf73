"""The agent's machine with a clock of its own, and short names for what it is told and what it wants done."""

from __future__ import annotations

import dataclasses

from lanai.agent import events as ev
from lanai.agent.machine import Machine
from lanai.agent.spool import Handed, Remembered
from lanai.model.ids import BatchId, GrantId, Index, NodeId, grant_id
from lanai.model.job import AttemptResult
from lanai.model.resources import MIB, Capacity, Shape
from lanai.wire import messages as wire

S = 1_000_000
LEASE = 60 * S
NOTHING = Remembered([], [])
G1, G2, G3 = grant_id(1, 1), grant_id(1, 2), grant_id(1, 3)
ONE_CPU = Shape(cpu_milli=1000)


def welcome(epoch: int = 1) -> wire.Welcome:
    return wire.Welcome(1, "test", "hub", epoch, NodeId(1), LEASE, 3 * S, 0)


def spec(number: int = 1, shape: Shape = ONE_CPU, batch: int = 7, user: str = "me") -> wire.Spec:
    return wire.Spec(number, BatchId(batch), user, {}, "/", 0o022, None, None, "auto", shape, 5 * S)


def grant(number: GrantId, *ranges: tuple[int, int], of: int = 1) -> wire.Grant:
    count = sum(last - first + 1 for first, last in ranges)
    return wire.Grant(number, of, 1, list(ranges), b"\0".join([b"true"] * count))


def members(number: GrantId, *indices: int) -> list[ev.Member]:
    return [(number, Index(index)) for index in indices]


def ok(number: GrantId, *indices: int, wall_us: int = 10 * S) -> list[AttemptResult]:
    return [AttemptResult(number, Index(i), "ok", 0, started_at_us=5, wall_us=wall_us) for i in indices]


def items(*indices: int) -> list[ev.Item]:
    return [ev.Item(Index(index), b"true") for index in indices]


def hand(lane: int, number: GrantId, *indices: int, shape: Shape = ONE_CPU, batch: int = 7, owner: str = "") -> ev.Hand:
    handed = Handed(number, BatchId(batch), 1, shape, [Index(i) for i in indices], [], owner)
    return ev.Hand(lane, handed, items(*indices))


@dataclasses.dataclass
class World:
    """A machine with a clock of its own."""

    machine: Machine
    now_us: int = 1000 * S

    def tell(self, *events: ev.Event) -> list[ev.Effect]:
        return [effect for event in events for effect in self.machine.handle(self.now_us, event)]

    def pass_s(self, seconds: float) -> list[ev.Effect]:
        self.now_us += round(seconds * S)
        return self.tell(ev.Ticked(self.now_us))

    def connect(self, epoch: int = 1) -> list[ev.Effect]:
        return self.tell(ev.HubGreeted(), welcome(epoch))

    def end(self, results: list[AttemptResult], starter_upto: int, spool_upto: int) -> list[ev.Effect]:
        """The starter tells of ends, and the spool takes them."""
        effects = self.tell(ev.AttemptsEnded(results, starter_upto))
        assert ev.Keep(results, starter_upto) in effects
        return effects + self.tell(ev.ResultsKept(spool_upto, results, starter_upto))


def world(
    cpus: int = 2,
    gpus: tuple[str, ...] = (),
    remembered: Remembered = NOTHING,
    end_with_hub_us: int = 0,
    serves_users: bool = False,
) -> World:
    capacity = Capacity(cpu_milli=1000 * cpus, memory_bytes=1024 * MIB, gpus=gpus, named=(("licence", 1),))
    return World(Machine(capacity, remembered, end_with_hub_us=end_with_hub_us, serves_users=serves_users))
