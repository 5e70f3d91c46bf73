"""A node's states."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class NodeState(StrEnum):
    """What the hub believes of a node.

    `up` answers heartbeats; `silent` has not for 15 s and gets nothing new; `away` is silent past its lease or has
    disconnected, and everything it ran has been given to others; `removed` was taken out by a person.
    Draining is a person's wish and stands beside the state.
    """

    UP = "up"
    SILENT = "silent"
    AWAY = "away"
    REMOVED = "removed"


TRANSITIONS: Final[dict[NodeState, tuple[NodeState, ...]]] = {
    NodeState.UP: (NodeState.SILENT, NodeState.AWAY, NodeState.REMOVED),
    NodeState.SILENT: (NodeState.UP, NodeState.AWAY, NodeState.REMOVED),
    NodeState.AWAY: (NodeState.UP, NodeState.REMOVED),
    NodeState.REMOVED: (NodeState.UP,),
}

HEARTBEAT_S: Final = 3
SILENT_AFTER_S: Final = 15
LEASE_S: Final = 60
