"""A line: jobs alike in everything the scheduler looks at, waiting one behind the other. Only its head is looked at.

A line is keyed by batch, shape and `not_on`, a node its jobs must not go to because they have just failed there.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lanai.core.queue import Spans
from lanai.core.schedule.leaf import Leaf
from lanai.model.ids import BatchId, NodeId, ShapeId
from lanai.model.node_names import names_of
from lanai.model.resources import Shape
from lanai.model.vector import Vector

RECENT: Final = 20
"""Run times that an estimate is the mean of."""
SURPLUS_US: Final = 500_000
"""So much work may wait at a node for each of its slots."""


class Line:
    """One line and what is known of its jobs."""

    __slots__ = (
        "_charged",
        "_recent",
        "active",
        "batch",
        "cost",
        "features",
        "names",
        "leaf",
        "mean_run_us",
        "not_on",
        "reason",
        "reason_text",
        "sent",
        "shape",
        "shape_id",
        "since_us",
        "stacked",
        "vector",
        "waiting",
    )

    def __init__(
        self, batch: BatchId, leaf: Leaf, shape_id: ShapeId, shape: Shape, vector: Vector, not_on: NodeId
    ) -> None:
        self.batch = batch
        self.leaf = leaf
        self.shape_id = shape_id
        self.shape = shape
        self.features = frozenset(shape.features)
        self.names = names_of(shape.on) if shape.on else None
        """Of the nodes that its jobs may have; None: all."""
        self.vector = vector
        self.not_on = not_on
        self.waiting = Spans()
        self.sent = 0
        """Attempts at nodes now, the surplus included."""
        self.active = 0
        """Those of them that take room, and"""
        self.stacked = 0
        """those that wait at their node for room."""
        self.cost = 0
        """The dominant share of one attempt, as of the last pass; of `leaf.WHOLE`."""
        self._charged = 0
        self.reason = ""
        self.reason_text = ""
        self.since_us = 0
        self.mean_run_us = 0
        """Mean of the last run times, at least 1; 0 while there are none."""
        self._recent: deque[int] = deque(maxlen=RECENT)

    def may_be_on(self, name: str) -> bool:
        """Whether its jobs may have the node of that name."""
        return self.names is None or self.names.has(name)

    def observe(self, walls_us: list[int]) -> None:
        """So many more jobs of this line ran for so long. Not for an empty list."""
        recent = self._recent
        recent += walls_us[-RECENT:]
        self.mean_run_us = max(1, sum(recent) // len(recent))

    def book(self, active: int, stacked: int) -> None:
        """So many more of its attempts take room, or wait at a node; fewer where negative. Its leaf is charged."""
        self.active += active
        self.stacked += stacked
        self._settle()

    def price(self, cost: int) -> None:
        """One attempt costs so much from now on; what is at nodes is charged anew."""
        self.cost = cost
        self._settle()

    def stack_cost(self) -> int:
        """What one attempt that waits at a node is charged: the part of a slot that it is going to take."""
        return self.cost * min(self.mean_run_us, SURPLUS_US) // SURPLUS_US

    def _settle(self) -> None:
        owed = self.cost * self.active
        if self.stacked:
            owed += self.stack_cost() * self.stacked
        if owed != self._charged:
            self.leaf.charge(owed - self._charged)
            self._charged = owed
