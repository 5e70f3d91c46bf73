"""Jobs alike in everything but their command, and the grants they came in.

Plain bookkeeping for the machine, which owns these objects and alone decides about them. Nothing here is I/O.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from lanai.agent.events import Item, Member
from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.job import AttemptResult
from lanai.model.vector import Vector
from lanai.wire.messages import Grant, Spec

SURPLUS_JOBS: Final = 256
SURPLUS_US: Final = 500_000


class Lane:
    """Jobs of one batch and one shape: they wait in line at the starter, which runs `width` of them at once.

    Attributes:
        number: the starter knows the lane by it.
        spec: None for a lane that was taken over from an earlier agent; nothing can be added to such a one.
        need: what one running job takes of the node.
        gpu_milli: of `need`; jobs with gpus get theirs by number, one by one.
        owner: the user whose starter runs them, "" for the agent's own.
        width: how many may run at once; the node's free amounts are less by as much.
        told_width: what the starter was told of it.
        held: how many the starter has, running or not.
        mean_us: mean run time, 0 while unknown.
    """

    __slots__ = ("gpu_milli", "held", "is_open", "mean_us", "need", "number", "owner", "spec", "told_width", "width")

    def __init__(self, number: int, owner: str, spec: Spec | None, need: Vector, gpu_milli: int) -> None:
        self.number = number
        self.owner = owner
        self.spec = spec
        self.need = need
        self.gpu_milli = gpu_milli
        self.is_open = False
        self.width = 0
        self.told_width = 0
        self.held = 0
        self.mean_us = 0

    def surplus(self) -> int:
        """How many more than run at once the starter may hold, so that short jobs follow each other at once."""
        if not self.mean_us or self.gpu_milli:
            return 0
        return min(SURPLUS_JOBS, SURPLUS_US * self.width // self.mean_us)

    def measure(self, results: list[AttemptResult]) -> None:
        """Learn from the run times of jobs of this lane that ended."""
        mean_us = max(1, sum(result.wall_us for result in results) // len(results))
        self.mean_us = mean_us if not self.mean_us else (3 * self.mean_us + mean_us) // 4


class Granted:
    """One grant.

    Attributes:
        pending: its members that the starter was not given yet, in order.
        known: every member that was ever accepted on this connection, so that a repeat changes nothing.
        is_queued: it stands in the machine's order of starting.
        live_count: members at the starter.
    """

    __slots__ = ("attempt", "batch", "grant", "is_queued", "known", "lane", "live_count", "pending")

    def __init__(self, grant: GrantId, batch: BatchId, attempt: int, lane: Lane) -> None:
        self.grant = grant
        self.batch = batch
        self.attempt = attempt
        self.lane = lane
        self.pending: deque[Item] = deque()
        self.known: set[Index] = set()
        self.live_count = 0
        self.is_queued = False

    def add(self, message: Grant) -> None:
        """Take the message's members that are new."""
        indices = [Index(index) for first, last in message.ranges for index in range(first, last + 1)]
        lines = message.lines.split(b"\0")
        checks = message.checks
        if checks or message.nodes:
            rows = enumerate(zip(indices, lines, strict=True))
            items = [Item(i, line, checks.get(n, ()), nodes=message.nodes) for n, (i, line) in rows]
        else:
            items = list(map(Item, indices, lines))
        if self.known:
            items = [item for item in items if item.index not in self.known]
        self.pending.extend(items)
        self.known.update(indices)

    def withdraw(self, first: int, last: int) -> list[Member]:
        """Take back the pending members first .. last."""
        taken = [(self.grant, item.index) for item in self.pending if first <= item.index <= last]
        if taken:
            self.pending = deque(item for item in self.pending if not first <= item.index <= last)
        return taken


class Claim:
    """Room for an attempt that another node runs. `pending`: there is none yet."""

    __slots__ = ("gpu_milli", "grant", "need", "pending")

    def __init__(self, grant: GrantId, need: Vector, gpu_milli: int) -> None:
        self.grant = grant
        self.need = need
        self.gpu_milli = gpu_milli
        self.pending = True


class Gpus:
    """Which gpus are free, in thousandths; whole ones are handed out to one job alone."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        self._free = dict.fromkeys(ids, 1000)
        self._taken: dict[Member, tuple[tuple[str, ...], int]] = {}

    def take(self, member: Member, gpu_milli: int) -> tuple[str, ...] | None:
        """The gpus for a job, or None where there are too few. A part of one comes from the fullest that has it."""
        if gpu_milli >= 1000:
            share, count = 1000, -(-gpu_milli // 1000)
            chosen = tuple(gpu for gpu, free in self._free.items() if free == 1000)[:count]
        else:
            share, count = gpu_milli, 1
            fitting = sorted((free, gpu) for gpu, free in self._free.items() if free >= gpu_milli)
            chosen = tuple(gpu for _, gpu in fitting[:1])
        if len(chosen) < count:
            return None
        for gpu in chosen:
            self._free[gpu] -= share
        self._taken[member] = (chosen, share)
        return chosen

    def hold(self, member: Member, gpus: tuple[str, ...], gpu_milli: int) -> None:
        """These were taken for the job by an earlier agent. One that the node no longer has is of no account."""
        chosen, share = tuple(gpu for gpu in gpus if gpu in self._free), min(1000, gpu_milli)
        for gpu in chosen:
            self._free[gpu] -= share
        self._taken[member] = (chosen, share)

    def give_back(self, member: Member) -> None:
        """The job has ended. A repeat is harmless."""
        chosen, share = self._taken.pop(member, ((), 0))
        for gpu in chosen:
            self._free[gpu] += share


def is_same_lane(ours: Spec | None, theirs: Spec) -> bool:
    """Whether two specs differ at most in their number, which counts only on its own connection."""
    return ours is not None and msgspec.structs.replace(ours, spec=theirs.spec) == theirs
