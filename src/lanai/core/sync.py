"""What is believed against the time: every belief about a node has a deadline.

A node's end comes before the hub's: an agent's lease runs from when it *sent* its last acknowledged heartbeat, the
hub's from when it *received* one, and the hub adds max(5 s, a tenth) to it. When the hub's has passed, the attempts
are void.
"""

from __future__ import annotations

from typing import Final

from lanai.core import ends
from lanai.core.effects import DismissNode
from lanai.core.world import SECOND_US, World
from lanai.model.node import SILENT_AFTER_S, NodeState

SLACK_US: Final = 5 * SECOND_US


def hub_lease_us(lease_us: int) -> int:
    """How long after the last word the hub holds a node's attempts for alive."""
    return lease_us + max(SLACK_US, lease_us // 10)


def look_at_deadlines(world: World) -> None:
    """Nodes past a deadline fall silent, then away; their attempts go to others."""
    deadline_us = hub_lease_us(world.lease_us)
    for node in world.nodes.values():
        quiet_us = world.now_us - node.heard_us
        if node.state is NodeState.UP and quiet_us > SILENT_AFTER_S * SECOND_US:
            node.state = NodeState.SILENT
            world.tell("node_silent", node.name, f"not heard for {quiet_us // SECOND_US} s")
            world.reindex(node)
            world.keep(node.record())
        if node.state is NodeState.SILENT and quiet_us > deadline_us:
            node.state = NodeState.AWAY
            world.tell("node_away", node.name, f"its lease ran out; not heard for {quiet_us // SECOND_US} s")
            if node.connection:
                world.do(DismissNode(node.id))
                node.connection = 0
            node.is_in_step = False
            world.reindex(node)
            ends.lose_everything(world, node, "the node's lease ran out")
            world.keep(node.record())
