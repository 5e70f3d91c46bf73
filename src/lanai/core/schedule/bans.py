"""Bans that help nobody: a batch stays away from nodes that failed it, unless those are the last ones there are."""

from __future__ import annotations

from lanai.core.batches import ANYWHERE, Batch
from lanai.core.nodes import Node
from lanai.core.schedule.placing import are_enough, is_able
from lanai.core.world import World


def lift_vain_bans(world: World) -> None:
    """Bans keep jobs from sick nodes, not from the last ones there are: lift those that leave a line nowhere to go.

    A node that cannot begin the batch's jobs for some time is as good as none.
    """
    banning = [batch for batch in world.batches.values() if batch.avoided or _keeps_away(batch)]
    # After a start of the hub nodes come back one by one: the first of them is not the last that there is.
    open_nodes = [node for node in world.nodes.values() if node.is_open() or node.is_returning()] if banning else []
    for batch in banning:
        if batch.avoided:
            _lift_avoidance(world, batch, open_nodes)
        for line in [line for line in batch.lines.values() if line.not_on != ANYWHERE and line.waiting]:
            others = [node for node in open_nodes if node.id != line.not_on and node.id not in batch.avoided]
            others = [node for node in others if not batch.is_stuck(node.id)]
            able = (node.id for node in others if is_able(world, line, node))
            if open_nodes and not are_enough(line, able):
                home = batch.line(line.shape_id)
                for first, last in line.waiting.take(line.waiting.count):
                    home.waiting.add(first, last)


def _keeps_away(batch: Batch) -> bool:
    # Each pass asks this of every batch: a loop takes half of the time of `any`.
    for _, not_on in batch.lines:  # noqa: SIM110
        if not_on != ANYWHERE:
            return True
    return False


def _lift_avoidance(world: World, batch: Batch, open_nodes: list[Node]) -> None:
    for line in [line for line in batch.lines.values() if line.waiting]:
        able = {node.id for node in open_nodes if is_able(world, line, node)}
        banned = able & batch.avoided
        if banned and not are_enough(line, (node for node in able - banned if not batch.is_stuck(node))):
            batch.avoided -= banned
            for node in banned:
                batch.node_failures.pop(node, None)
            world.keep(batch.standing())
