"""The nodes of a job over several: which of them, and whether there are enough at all.

Every look costs by the number of open nodes; only heads of lines that ask for more than one node are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from lanai.core.batches import Batch
from lanai.core.nodes import Node
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.ids import NodeId
from lanai.model.vector import CPU, GPU, MEMORY, field


def find_several(world: World, batch: Batch, line: Line) -> list[Node] | None:
    """As many open nodes as the line's head needs that have room for it now, the smallest; None where there are fewer.

    Smallest: least gpus, cpus and memory free, then lowest id.
    """
    free = [node for cell in world.cells.values() for node in cell.nodes() if has_room(world, batch, line, node)]
    if len(free) < line.shape.nodes:
        return None
    return sorted(free, key=_size)[: line.shape.nodes]


def has_room(world: World, batch: Batch, line: Line, node: Node) -> bool:
    """Whether the head of a line over several nodes could have this one among them now."""
    is_allowed = node.takes_claims and node.id != line.not_on and not batch.is_barred(node.id)
    return is_allowed and not (node.free - line.vector) & world.layout.guard


def are_enough(line: Line, able: Iterable[NodeId]) -> bool:
    """Whether the line's jobs find as many nodes as they need among these, each of which is named once."""
    if line.shape.nodes == 1:
        return any(True for _ in able)
    return sum(1 for _ in able) >= line.shape.nodes


def _size(node: Node) -> tuple[int, int, int, int]:
    return field(node.free, GPU), field(node.free, CPU), field(node.free, MEMORY), node.id
