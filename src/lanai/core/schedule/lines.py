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
        "_recent_us",
        "batch",
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
        self._recent: deque[int] = deque()
        self._recent_us = 0

    def observe(self, wall_us: int) -> None:
        """One more job of this line ran for so long."""
        self._recent.append(wall_us)
        self._recent_us += wall_us
        if len(self._recent) > RECENT:
            self._recent_us -= self._recent.popleft()

    def mean_run_us(self) -> int:
        """Mean of the last run times, at least 1; 0 while there are none."""
        return max(1, self._recent_us // len(self._recent)) if self._recent else 0
