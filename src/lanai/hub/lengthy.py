"""Which questions take long in which hub, so that a copy of it is to answer them (`hub.copies`).

A copy costs the loop 0.4 ms in a small hub and 2 to 4 at 10,000 nodes and a million waiting jobs, so that is done only
where an answer may take longer than 10 ms. Measured in the world of `bench/passes.py`, and in the same made smaller:

    nodes, lines, grants                 500, 100, 5,200    10,000, 2,000, 54,000
    why                                             9 ms                    85 ms
    when, free, queue, priority                   3 to 7                 16 to 33
    in_flight                                          2                 25 to 50
    plan                                               5                140 to 180
    reservation_try                           230 to 600           60 to 11,000

That last one costs by nodes, lines and periods: 50 ms with one node, 45 lines and 14 periods, 400 with 100 periods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from lanai.core.world import World
from lanai.hub.copies import Copies, Outcome
from lanai.wire.messages import Command

QUESTIONS_AT_ONCE: Final = 2
DRY_RUNS_AT_ONCE: Final = 1
"""Copies of the hub at a time. A dry run may take seconds, for which no other question is to wait."""

_DRY_RUNS: Final = ("plan", "reservation_try")
_LENGTHY: Final = ("why", "queue", "free", "when", "priority", "in_flight", "reservations", "plan")
_LARGE: Final = 1_000
"""Nodes, lines, and tens of grants: in a hub of so many all of these may take 10 ms."""
_TRIED_ON_NODES: Final = 15_000
"""Shapes times nodes: a node is tried in half a microsecond at most."""


def is_long(world: World, command: Command) -> bool:
    """Whether this is a question that may hold the loop for more than 10 ms. A wish is none, and is the core's."""
    match command.verb:
        case "reservation_try":
            return True
        case "fits":
            return len(world.nodes) * _shapes(command.arguments) > _TRIED_ON_NODES
        case verb:
            return verb in _LENGTHY and _size(world) >= _LARGE


class LongQuestions:
    """Has them answered by copies of the hub."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._quick = Copies(loop, most=QUESTIONS_AT_ONCE)
        self._dry_runs = Copies(loop, most=DRY_RUNS_AT_ONCE)

    def ask(self, command: Command, work: Callable[[], bytes], then: Callable[[Outcome], None]) -> None:
        """As `Copies.ask`, for the user whose command it is."""
        (self._dry_runs if command.verb in _DRY_RUNS else self._quick).ask(command.user, work, then)

    def close(self) -> None:
        """End the copies, and leave what they were asked unanswered. A repeat is harmless."""
        self._quick.close()
        self._dry_runs.close()


def _size(world: World) -> int:
    lines = sum(len(batch.lines) for batch in world.batches.values())
    return len(world.nodes) + lines + len(world.grants) // 10


class _OfShapes(msgspec.Struct, frozen=True):
    shapes: list[msgspec.Raw] = []


def _shapes(arguments: msgspec.Raw) -> int:
    try:
        return len(msgspec.msgpack.decode(arguments, type=_OfShapes).shapes)
    except msgspec.DecodeError:
        return 0  # whoever answers says what is wrong with it
