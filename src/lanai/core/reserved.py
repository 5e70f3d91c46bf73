"""A reservation made by a person, in force: the value, and on which nodes its steps lie."""

from __future__ import annotations

from lanai.core.nodes import Node
from lanai.model.ids import NodeId
from lanai.model.reservation import Reservation


class Live:
    """One reservation. It owns its steps: `node.lift(live)` takes them off a node."""

    __slots__ = ("began_us", "is_wanted", "made", "names", "nodes", "short")

    def __init__(self, made: Reservation) -> None:
        self.made = made
        self.names = made.names()
        self.nodes: dict[NodeId, Node] = {}
        """Those with its steps."""
        self.short: dict[str, str] = {}
        """Nodes on which it cannot be kept, and why, in words."""
        self.began_us = 0
        """The beginning of the period that is told to have begun, by the clock on the wall."""
        self.is_wanted = False
        """Jobs that name it waited at the last pass."""

    def take(self, made: Reservation) -> None:
        """It is another from now on; its steps are the caller's to lay anew."""
        self.made = made
        self.names = made.names()

    def covers(self, node: Node) -> bool:
        """Whether the node belongs to it, by its name and features."""
        return self.names.has(node.name) and set(self.made.shape.features) <= set(node.features)
