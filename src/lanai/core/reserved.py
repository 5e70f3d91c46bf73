"""A reservation made by a person: the value, and on which nodes its steps lie."""

from __future__ import annotations

from lanai.core.nodes import Node, Step
from lanai.model.ids import NodeId
from lanai.model.reservation import Reservation
from lanai.model.vector import Vector


class Live:
    """One reservation as it was made, changed or renewed last. It owns its steps: `node.lift(live)` takes them off.

    When it changes, another one follows it.
    """

    __slots__ = ("_features", "began_us", "is_in_force", "is_wanted", "laid", "made", "names", "nodes", "short")

    def __init__(self, made: Reservation, *, is_in_force: bool = True) -> None:
        self.made = made
        self.is_in_force = is_in_force
        """Else its steps keep nothing from anybody: it is on its way, or it is no more."""
        self.names = made.names()
        self._features = frozenset(made.shape.features)
        self.nodes: dict[NodeId, Node] = {}
        """Those with its steps."""
        self.laid: dict[Vector, tuple[Step, ...]] = {}
        """The steps by what they take of a node, made when first needed: nodes have them in common."""
        self.short: dict[str, str] = {}
        """Nodes on which it cannot be kept, and why, in words."""
        self.began_us = 0
        """The beginning of the period that is told to have begun, by the clock on the wall."""
        self.is_wanted = False
        """Jobs that name it waited at the last pass."""

    def leave(self, made: Reservation) -> None:
        """Periods of it are over: this is what is left. Steps of those may lie on for a while."""
        self.made = made
        self.laid.clear()

    def covers(self, node: Node) -> bool:
        """Whether the node belongs to it, by its name and features."""
        return self.names.has(node.name) and (not self._features or self._features.issubset(node.features))
