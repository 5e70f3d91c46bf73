"""A line: jobs alike in everything the scheduler looks at, waiting one behind the other. Only its head is looked at.

A line is keyed by batch, shape and `not_on`, a node its jobs must not go to because they have just failed there.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lanai.core.queue import Spans
from lanai.model.ids import BatchId, NodeId, ShapeId
from lanai.model.resources import Shape
from lanai.model.vector import Vector

RECENT: Final = 20
"""Run times that an estimate is the mean of."""


class Line:
    """One line and what is known of its jobs."""

    __slots__ = (
        "_recent",
        "batch",
        "mean_run_us",
        "not_on",
        "reason",
        "reason_text",
        "sent",
        "shape",
        "shape_id",
        "since_us",
        "vector",
        "waiting",
    )

    def __init__(self, batch: BatchId, shape_id: ShapeId, shape: Shape, vector: Vector, not_on: NodeId) -> None:
        self.batch = batch
        self.shape_id = shape_id
        self.shape = shape
        self.vector = vector
        self.not_on = not_on
        self.waiting = Spans()
        self.sent = 0
        """Attempts at nodes now, the surplus included."""
        self.reason = ""
        self.reason_text = ""
        self.since_us = 0
        self.mean_run_us = 0
        """Mean of the last run times, at least 1; 0 while there are none."""
        self._recent: deque[int] = deque(maxlen=RECENT)

    def observe(self, walls_us: list[int]) -> None:
        """So many more jobs of this line ran for so long. Not for an empty list."""
        recent = self._recent
        recent += walls_us[-RECENT:]
        self.mean_run_us = max(1, sum(recent) // len(recent))
