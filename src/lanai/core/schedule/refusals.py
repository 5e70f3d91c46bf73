"""What a pass need not look at: lines that find no room because others that ask for no more have found none.

In a long queue that is so for most lines in most passes, and little time is to be spent on them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lanai.core import explain
from lanai.core.batches import ANYWHERE, Batch
from lanai.core.schedule import access
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import most_and_able
from lanai.core.world import World
from lanai.model.vector import Vector

REMEMBERED: Final = 64
"""So many refusals of a pass are remembered to compare with: most lines are like one of the first."""


class Refusal(NamedTuple):
    """What found no room in this pass: nothing that asks for as much or more need be tried."""

    vector: Vector
    length_us: int
    nodes: int
    features: frozenset[str]
    reservations: frozenset[str] = access.NONE
    """Those that it might use; who might use others as well may find room there."""


class Refusals:
    """What one pass has found to have no room."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._noted: list[Refusal] = []
        self._most_and_able: dict[tuple[Vector, frozenset[str], bool], tuple[int, int]] = {}
        self._is_simple: dict[Batch, bool] = {}

    def note(self, refusal: Refusal) -> None:
        """One more. Its nodes must be any that fit, shared with whoever is there."""
        if len(self._noted) < REMEMBERED:
            self._noted.append(refusal)

    def are_like(self, asked: Refusal) -> bool:
        """Whether one that asks for no more has found no room."""
        guard = self._world.layout.guard
        vector, length_us, nodes, features, might_use = asked
        for other in self._noted:
            if (
                not (vector - other.vector) & guard
                and length_us >= other.length_us
                and nodes >= other.nodes
                and features >= other.features
                and might_use <= other.reservations
            ):
                return True
        return False

    def is_vain(self, batch: Batch, line: Line) -> bool:
        """Whether to look at the line would change nothing: the index alone tells that it finds no room, as before."""
        if not self._waits_for_room_only(batch, line):
            return False
        most, able = self._counted(line)
        return most < line.shape.nodes <= able

    def is_as_before(self, batch: Batch, line: Line) -> bool:
        """The same where one that asks for no more has found no room in this pass. Not for who has a promise."""
        if not self._noted or self._world.reservations or not self._waits_for_room_only(batch, line):
            return False
        nodes = line.shape.nodes
        if self._counted(line)[1] < nodes:
            return False  # since the last pass nodes have gone, which is now why it waits
        return self.are_like(Refusal(line.vector, estimate_us(self._world, line), nodes, line.features))

    def _counted(self, line: Line) -> tuple[int, int]:
        """What `most_and_able` says, as of the first time that the pass asks."""
        kind = line.vector, line.features, line.shape.nodes > 1
        found = self._most_and_able.get(kind)
        if found is None:
            found = self._most_and_able[kind] = most_and_able(self._world, line)
        return found

    def _waits_for_room_only(self, batch: Batch, line: Line) -> bool:
        """Whether the last pass found no room for the line, and nothing else can have to do with it."""
        if line.reason != explain.NO_ROOM or line.not_on != ANYWHERE or line.names is not None:
            return False
        is_simple = self._is_simple.get(batch)
        if is_simple is None:
            is_barred = batch.counters or batch.queues or batch.avoided or batch.stalls or batch.settings.reservation
            has_rules = bool(is_barred or self._world.policy.services)
            is_simple = self._is_simple[batch] = not has_rules and batch.has_begun and batch.room() > 0
        return is_simple
