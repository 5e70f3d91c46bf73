"""What is believed against the time: every belief about a node has a deadline.

A node's end comes before the hub's: an agent's lease runs from when it *sent* its last acknowledged heartbeat, the
hub's from when it *received* one, and the hub adds max(5 s, a tenth) to it. When the hub's has passed, the attempts
are void. A node that was told of a planned stop has no end of its own until it is welcomed again, and so none here:
its attempts are held for alive until it has joined or a person has removed it.
"""

from __future__ import annotations

from typing import Final

from lanai.core import ends
from lanai.core.effects import DismissNode
from lanai.core.recall import recall
from lanai.core.world import SECOND_US, World
from lanai.model.node import SILENT_AFTER_S, NodeState

SLACK_US: Final = 5 * SECOND_US
STUCK_US: Final = 2 * SECOND_US
"""Where nothing has ended for so long, the surplus is asked back: what runs now takes longer than what ran before."""


def hub_lease_us(lease_us: int) -> int:
    """How long after the last word the hub holds a node's attempts for alive."""
    return lease_us + max(SLACK_US, lease_us // 10)


def look_at_deadlines(world: World) -> None:
    """Nodes past a deadline fall silent, then away; their attempts go to others, and so does what is stuck at one."""
    deadline_us = hub_lease_us(world.lease_us)
    for node in world.nodes.values():
        quiet_us = world.now_us - node.heard_us
        if node.is_expected and quiet_us > SILENT_AFTER_S * SECOND_US:
            node.is_expected = False
            world.needs_pass = True
        if node.state is NodeState.UP and quiet_us > SILENT_AFTER_S * SECOND_US:
            node.become(NodeState.SILENT)
            world.tell("node_silent", node.name, f"not heard for {quiet_us // SECOND_US} s")
            world.reindex(node)
            world.keep(node.record())
            world.needs_pass = True
        if node.surplus_count and node.is_in_step and world.now_us - node.ended_us > STUCK_US:
            node.ended_us = world.now_us
            for batch in dict.fromkeys(line.batch for line in node.surplus):
                recall(world, world.batches[batch], node=node)
        if node.state is NodeState.SILENT and quiet_us > deadline_us and node.id not in world.suspended:
            node.become(NodeState.AWAY)
            world.tell("node_away", node.name, f"its lease ran out; not heard for {quiet_us // SECOND_US} s")
            if node.connection:
                world.do(DismissNode(node.id))
                node.connection = 0
            world.step_out(node)
            world.reindex(node)
            ends.lose_everything(world, node, "the node's lease ran out")
            world.keep(node.record())
