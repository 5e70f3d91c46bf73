"""Where the head of a line may go, and where it goes: on the nodes that fit now and stay free long enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import nsmallest
from itertools import islice
from typing import Final

from lanai.core.batches import ANYWHERE, Batch
from lanai.core.nodes import Node
from lanai.core.schedule import future
from lanai.core.schedule.cells import Cell
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.ids import NodeId
from lanai.model.policy import NodeChoice
from lanai.model.vector import CPU, GPU, MEMORY, Vector, field

Size = tuple[int, int, int, int]
KINDS: Final = 10_000
"""Of so many kinds of lines it is remembered which cells could take them."""


def able_cells(world: World, line: Line) -> tuple[Cell, ...]:
    """Cells whose nodes, empty, could take an attempt of the line."""
    vector, features = kind = line.vector, line.features
    found = world.able.get(kind)
    if found is None:
        if len(world.able) >= KINDS:
            world.able.clear()
        guard = world.layout.guard
        found = world.able[kind] = tuple(
            cell
            for cell in world.cells.values()
            if not (cell.total - vector) & guard and features.issubset(cell.features)
        )
    return found


def most_and_able(world: World, line: Line) -> tuple[int, int]:
    """No more nodes than so many have room for an attempt of the line, which the index alone tells; and could, empty.

    Where a job has one node only, at most 1 of each.
    """
    cells = able_cells(world, line)
    if line.shape.nodes == 1:
        return int(any(cell.may_hold(line.vector) for cell in cells)), int(bool(cells))
    return sum(cell.most(line.vector) for cell in cells), sum(cell.takers() for cell in cells)


def may_go(batch: Batch, line: Line, node: Node) -> bool:
    """Whether nothing keeps the line's jobs from that node, whatever is free there."""
    if line.shape.nodes > 1 and not node.takes_claims:
        return False
    return node.id != line.not_on and not batch.is_barred(node.id) and line.may_be_on(node.name)


def is_plain(batch: Batch, line: Line) -> bool:
    """Whether nothing keeps the line's jobs from any node."""
    is_free_to_go = not batch.avoided and not batch.stalls and line.not_on == ANYWHERE and line.names is None
    return is_free_to_go and not batch.settings.reservation


def is_able(world: World, line: Line, node: Node) -> bool:
    """Whether the node, empty, could take an attempt of the line, by what it has and what it is called."""
    if (node.total - line.vector) & world.layout.guard or (line.shape.nodes > 1 and not node.takes_claims):
        return False
    return line.features.issubset(node.features) and line.may_be_on(node.name)


def are_enough(line: Line, able: Iterable[NodeId]) -> bool:
    """Whether the line's jobs find as many nodes as they need among these, each of which is named once."""
    return sum(1 for _ in islice(able, line.shape.nodes)) == line.shape.nodes


def is_alone(world: World, batch: Batch) -> bool:
    """Whether each job of the batch has its nodes to itself."""
    return world.policy.sharing == "single_job" or world.policy.service(batch.settings.service).is_dedicated


def has_rules(world: World) -> bool:
    """Whether anything but room says who may be on a node together."""
    policy = world.policy
    if policy.sharing != "shared" or not policy.services:
        return policy.sharing != "shared"
    return any(service.is_dedicated for service in policy.services.values())


def need(world: World, batch: Batch, line: Line, node: Node) -> Vector:
    """What must be free on the node for an attempt of the line: what it asks for, or all there is.

    That is so as well where it may not be beside those who are there now: they have to be gone.
    """
    if not has_rules(world):
        return line.vector
    return node.total if is_alone(world, batch) or not may_share(world, batch, node) else line.vector


def may_share(world: World, batch: Batch, node: Node) -> bool:
    """Whether the rules of sharing let a job of the batch onto the node beside what is there now."""
    return may_join(world, batch, [*node.active, *node.surplus, *(claim.line for claim in node.claims.values())])


def may_join(world: World, batch: Batch, lines: list[Line]) -> bool:
    """Whether the rules of sharing let a job of the batch onto a node beside jobs of these lines."""
    if not lines:
        return True
    if is_alone(world, batch):
        return False
    there = [world.batches.get(line.batch) for line in lines]
    if any(other is None or world.policy.service(other.settings.service).is_dedicated for other in there):
        return False
    return world.policy.sharing != "single_user" or all(other and other.user == batch.user for other in there)


def find(world: World, batch: Batch, line: Line, length_us: int, clear_us: int = 0) -> list[Node] | None:
    """As many nodes as a job of the line has at once, on which it fits now and for so long; None: there are not.

    For `clear_us`, where that is longer, they are at least not reserved by people for others.

    Where it may have more they are as many as there are, unless its batch counts in a limit: that is by the least.
    """
    allows = _rule(world, batch, line, length_us, clear_us)
    guard = world.layout.guard
    if line.shape.nodes == 1 and world.policy.node_choice == "smallest":
        best: Node | None = None
        for cell in able_cells(world, line):
            node = cell.find(line.vector, guard, allows)
            if node is not None and (best is None or size(node) < size(best)):
                best = node
        return None if best is None else [best]
    wanted, choice = line.shape.nodes, world.policy.node_choice
    most = wanted if batch.counters else max(wanted, line.shape.nodes_most)
    fitting: list[Node] = []
    cells = able_cells(world, line)
    if sum(cell.most(line.vector) for cell in cells) < wanted:
        return None
    for cell in cells:
        if choice == "smallest":
            fitting += cell.smallest(line.vector, guard, allows, most)
        else:
            fitting += cell.fitting(line.vector, guard, allows)
    if len(fitting) < wanted:
        return None
    return sorted(nsmallest(most, fitting, key=_BY[choice]), key=lambda node: node.id)


def _rule(world: World, batch: Batch, line: Line, length_us: int, clear_us: int) -> Callable[[Node], bool]:
    """Which of the nodes with enough room are taken."""
    now_us = world.now_us
    is_plain = not has_rules(world)
    is_bound = bool(batch.settings.reservation)

    def allows(node: Node) -> bool:
        if not may_go(batch, line, node):
            return False
        if is_plain and not is_bound:
            return now_us + length_us <= node.until_us or future.fits(world, node, line, line.vector, length_us)
        vector = need(world, batch, line, node)
        return may_share(world, batch, node) and future.fits(world, node, line, vector, length_us)

    def allows_for_long(node: Node) -> bool:
        return allows(node) and future.is_clear(world, node, line, need(world, batch, line, node), clear_us)

    return allows_for_long if clear_us > length_us else allows


def size(node: Node) -> Size:
    """What is free on the node: gpus, cpus, memory; then its number."""
    return field(node.free, GPU), field(node.free, CPU), field(node.free, MEMORY), node.id


def _most_free(node: Node) -> Size:
    gpus, cpus, memory, number = size(node)
    return -gpus, -cpus, -memory, number


def _by_number(node: Node) -> Size:
    return 0, 0, 0, node.id


_BY: Final[dict[NodeChoice, Callable[[Node], Size]]] = {
    "smallest": size,
    "most_free": _most_free,
    "first": _by_number,
}
