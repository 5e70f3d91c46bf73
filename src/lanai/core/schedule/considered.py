"""Limits on waiting jobs: of those of each user, group, account or service a pass considers the first so many."""

from __future__ import annotations

from lanai.core.schedule.counters import Counter
from lanai.core.schedule.lines import Line
from lanai.core.world import World


class Considered:
    """Which waiting jobs a pass considers: of each limited credential the first so many, in the order of the pass.

    Made anew for each pass, asked as it comes to each line, and told what it starts: that waits no longer, and the next
    one is considered in its place.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[Counter, int] = {}
        self._admitted: dict[Line, int] = {}
        self._refused: set[Counter] = set()
        self.has_others = False
        """Others than those that were looked at are considered by now: they are to be looked at once more."""

    def admit(self, line: Line, most: int, *, hard: bool = False) -> int:
        """How many of the line's first `most` jobs are considered. What it has said once holds for the whole pass."""
        queues = self._world.batches[line.batch].queues
        if not queues:
            return most
        before = self._admitted.get(line, 0)
        more = most - before
        for counter in queues:
            more = min(more, counter.most(hard=hard) - self._seen.get(counter, 0))
        if more > 0:
            self._admitted[line] = before + more
            for counter in queues:
                self._seen[counter] = self._seen.get(counter, 0) + more
        return min(most, before + max(0, more))

    def refuse(self, line: Line) -> None:
        """The head of the line is not considered."""
        self._refused.update(self._world.batches[line.batch].queues)

    def start(self, line: Line) -> None:
        """A job of the line, which was considered, starts."""
        for counter in self._world.batches[line.batch].queues:
            self._seen[counter] -= 1
            self.has_others = self.has_others or counter in self._refused

    def full(self, line: Line, *, hard: bool) -> Counter | None:
        """The limit that lets no further job of the line be considered; None where there is none."""
        for counter in self._world.batches[line.batch].queues:
            if self._seen.get(counter, 0) >= counter.most(hard=hard):
                return counter
        return None
