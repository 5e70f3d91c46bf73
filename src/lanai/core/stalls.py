"""Nodes that cannot begin a batch's jobs now, through no fault of theirs: out of processes, a shared directory gone.

The node gives such jobs back unbegun, and says why. They are not charged with anything: the batch leaves that node
alone for a while, which doubles as long as nothing of the batch begins there, and then tries again. Other nodes, and
other batches on the same node, go on. Nothing of it is stored: after a restart the node is simply tried again.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from lanai.core.batches import Batch, Stall
from lanai.core.nodes import Node
from lanai.core.world import SECOND_US, World

FIRST_US: Final = SECOND_US
LONGEST_US: Final = 30 * SECOND_US


def stall(world: World, batch: Batch, node: Node, why: str) -> None:
    """The node cannot begin jobs of the batch now: it gets none for a while."""
    before = batch.stall_waits_us.get(node.id, 0)
    if node.id in batch.stalls:
        return  # said already, of others that were given to it before
    if not before:
        world.tell("batch_stalled", str(batch.id), f"{node.name} cannot begin its jobs now: {why}")
    wait_us = batch.stall_waits_us[node.id] = min(2 * before or FIRST_US, LONGEST_US)
    until_us = world.now_us + wait_us
    batch.stalls[node.id] = Stall(until_us, why)
    heappush(world.stalls, (until_us, batch.id, node.id))
    world.needs_pass = True


def lift_stalls(world: World) -> None:
    """Those whose time is over are tried again."""
    while world.stalls and world.stalls[0][0] <= world.now_us:
        _, batch_id, node_id = heappop(world.stalls)
        batch = world.batches.get(batch_id)
        if batch is not None and batch.stalls.pop(node_id, None) is not None:
            world.needs_pass = True


def has_begun(world: World, batch: Batch, node: Node) -> None:
    """Something of the batch has begun on the node: the next stall there is a new one."""
    if batch.stall_waits_us.pop(node.id, 0) and node.id not in batch.stalls:
        world.tell("batch_goes_on", str(batch.id), f"{node.name} begins its jobs again")
