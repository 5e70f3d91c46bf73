"""Taking back what was granted and has not begun: the agent answers with what it returns, the rest has begun."""

from __future__ import annotations

from collections.abc import Callable

from lanai.core.batches import Batch
from lanai.core.effects import RecallJobs
from lanai.core.nodes import Grant, Node
from lanai.core.queue import spans_of
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.ids import GrantId, NodeId
from lanai.model.vector import Vector


def recall(world: World, batch: Batch, *, node: Node | None = None) -> None:
    """Ask for everything of the batch that has not begun, on one node or on all."""
    by_node: dict[NodeId, list[tuple[GrantId, int, int]]] = {}
    grants = world.grants if node is None else node.grants
    for grant in grants.values():
        if grant.batch is batch and grant.node.is_in_step:
            grant.withhold()
            spans = spans_of(grant.members - grant.started.keys())
            by_node.setdefault(grant.node.id, []).extend((grant.id, first, last) for first, last in spans)
    for node_id, items in by_node.items():
        if items:
            world.do(RecallJobs(node_id, items))


def nodes_with_surplus(world: World) -> list[Node]:
    """Those where attempts wait that may be taken back."""
    return [node for node in world.nodes.values() if node.surplus_count and node.is_open()]


def make_way(world: World, nodes: list[Node], batch: Batch, request: Vector, asked: set[NodeId]) -> None:
    """A batch that has had nothing yet finds no room: take the surplus of others back where it could go.

    It then begins as soon as any attempt there ends, and not after half a second of other people's work. As many nodes
    are asked as its waiting jobs need, and none that stands in `asked`, to which they are added.

    Args:
        world: whose nodes they are.
        nodes: as of `nodes_with_surplus`.
        batch: the one that has had nothing.
        request: what its head asks for.
        asked: nodes of which the surplus has been asked for in this pass.
    """
    wanted = sum(line.waiting.count * line.shape.nodes for line in batch.lines.values())
    for node in nodes:
        if wanted < 1:
            return
        if not (node.total - request) & world.layout.guard:
            wanted -= 1
            recall_surplus(world, node, batch, asked)


def recall_surplus(world: World, node: Node, batch: Batch, asked: set[NodeId]) -> None:
    """Ask for what waits at the node and is not the batch's, unless the node stands in `asked`; it does afterwards."""
    if node.surplus_count and node.id not in asked:
        asked.add(node.id)
        _recall_items(world, node, [grant for grant in node.grants.values() if grant.batch is not batch])


def recall_from(world: World, node: Node, stays: Callable[[Line], bool]) -> None:
    """Ask for what waits at the node, but for lines of which it may stay."""
    if node.surplus_count and node.is_in_step:
        _recall_items(world, node, [grant for grant in node.grants.values() if not stays(grant.line)])


def _recall_items(world: World, node: Node, grants: list[Grant]) -> None:
    items = [
        (grant.id, first, last)
        for grant in grants
        if grant.line in node.surplus
        for first, last in spans_of(grant.members - grant.started.keys())
    ]
    if items:
        world.do(RecallJobs(node.id, items))
