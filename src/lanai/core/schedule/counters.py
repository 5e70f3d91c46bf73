"""Counters: what of one limited thing the jobs of one user, group, account, service or batch have at nodes now.

There is a counter only where the policy sets a limit, so that who is not limited costs nothing. Each counts one thing
for one credential; a batch knows those that it counts in, and `World.book` is the one place where they change. What is
decided by them stands in `limits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lanai.core.schedule.lines import Line
from lanai.model.policy import Bound
from lanai.model.resources import Shape, mebibytes

CPU_SECONDS: Final = "cpu_seconds"
WAITING: Final = "waiting"
AMOUNTS: Final[dict[str, Callable[[Shape], int]]] = {
    "jobs": lambda shape: 1,
    "nodes": lambda shape: shape.nodes,
    "cpus": lambda shape: shape.cpu_milli * shape.nodes,
    "memory": lambda shape: mebibytes(shape.memory_bytes) * shape.nodes,
    "gpus": lambda shape: shape.gpu_milli * shape.nodes,
}
"""What one attempt of a shape has of each thing that is simply added up, in the units of `Limits`."""
MILLI_US: Final = 1_000_000_000
"""Thousandths of a cpu times microseconds in a cpu-second."""

Key = tuple[str, str, str]


class Counter:
    """One thing of one credential.

    Attributes:
        kind: `user`, `group`, `account`, `service`, `batch` or `hub`.
        name: of the user, and so on; empty for the hub, and for a batch that has no number yet.
        thing: a field of `Limits`.
        bound: the limits, in the unit of that field.
        used: what is at nodes now, in that unit; of `cpu_seconds` what it was when it was last counted, in thousandths
            of a cpu times microseconds. Nothing is used of `waiting`.
        counted_us: when that was, by the clock of the core; -1: it is to be counted anew.
        since: attempts of each line that have been given to nodes since then.
        kept_for: the line whose head's turn came when the limit held it: what it needs is nobody else's.
    """

    __slots__ = ("bound", "counted_us", "kept_for", "kind", "name", "since", "thing", "used")

    def __init__(self, kind: str, name: str, thing: str, bound: Bound) -> None:
        self.kind = kind
        self.name = name
        self.thing = thing
        self.bound = bound
        self.used = 0
        self.counted_us = -1
        self.since: dict[Line, int] = {}
        self.kept_for: Line | None = None

    def most(self, *, hard: bool) -> int:
        """The limit, in the unit of `used`."""
        most = self.bound.hard if hard else self.bound.soft
        return most * MILLI_US if self.thing == CPU_SECONDS else most

    def book(self, line: Line, count: int) -> None:
        """So many more attempts of the line are at nodes, or fewer where negative."""
        if count > 0 and self.kept_for is line:
            self.kept_for = None
        amount = AMOUNTS.get(self.thing)
        if amount is not None:
            self.used += count * amount(line.shape)
        elif count > 0:
            # What ends is left in until the next count: that is on the safe side, and seldom for long.
            self.since[line] = self.since.get(line, 0) + count
