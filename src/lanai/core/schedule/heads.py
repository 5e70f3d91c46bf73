"""In which order the heads of lines are looked at in a pass: the two presets.

`fair`: by service tier, then by turns in the order of shares, and within a batch by score. Each start counts at once,
so that slots are dealt out like cards. `tight`: by service tier, then by score, in which the share is one factor among
others, as of the beginning of the pass. Ties go by (submission, batch, index).
"""

from __future__ import annotations

from functools import partial
from heapq import heapify, heappop, heapreplace
from typing import Protocol

from lanai.core.batches import Batch
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.score import Scorer
from lanai.core.schedule.shares import Turns, share_of
from lanai.core.world import World
from lanai.model.vector import Vector

Place = tuple[int, float, int, int, int]
"""Minus the tier, minus the score, when submitted, the batch, the head's index."""


class Order(Protocol):
    """The lines that a pass has not done with, one head at a time."""

    def next(self) -> tuple[Batch, Line] | None:
        """The line whose head is to be looked at; None when none is left."""

    def started(self) -> None:
        """The head that `next` gave has started; the line's next head stands somewhere among the others."""

    def done(self) -> None:
        """The line that `next` gave is done with for this pass."""

    def rest(self) -> list[tuple[Batch, Line]]:
        """All lines that are left, in order."""

    def unsorted(self) -> list[tuple[Batch, Line]]:
        """The same in any order, for less."""


def in_order(world: World, waiting: list[Batch], left: dict[Line, int], total: Vector) -> Order:
    """The order of the policy's preset.

    Args:
        world: whose policy it is.
        waiting: batches of which something may start.
        left: how many of each line's jobs may, which the pass counts down; lines that are not in it are left out.
        total: all capacity.
    """
    shares = share_of(waiting) if world.policy.weights.share and world.policy.preset == "tight" else {}
    scorer = Scorer(world, shares, total)
    if world.policy.preset == "tight":
        return Tight(world, scorer, waiting, left)
    return Fair(world, scorer, waiting, left)


def tier(world: World, batch: Batch) -> int:
    """The tier of the batch's service: a higher one is looked at first."""
    policy = world.policy
    return policy.service(batch.settings.service).tier if policy.services else 0


def is_strict(world: World) -> bool:
    """Whether there is no backfill: the first that finds no room blocks all behind it."""
    return not depth(world)


def depth(world: World) -> int:
    """How many lines that find no room a pass promises a time, 0 or more: then the rest is backfill."""
    match world.policy.backfill:
        case "none":
            return 0
        case "easy":
            return world.policy.depth
        case "conservative":
            return 1 << 30


class Tight:
    """The order of `tight`: see above."""

    def __init__(self, world: World, scorer: Scorer, waiting: list[Batch], left: dict[Line, int]) -> None:
        self._left = left
        self._heads: list[tuple[Place, int, Batch, Line]] = []
        has_tiers = bool(world.policy.services)
        for batch in waiting:
            rank = -tier(world, batch) if has_tiers else 0
            for line in batch.lines.values():
                if line in left:
                    place = rank, -scorer.score(batch, line), batch.submitted_at_us, batch.id, line.waiting.head()
                    self._heads.append((place, len(self._heads), batch, line))
        heapify(self._heads)

    def next(self) -> tuple[Batch, Line] | None:
        """See `Order`."""
        return (self._heads[0][2], self._heads[0][3]) if self._heads else None

    def started(self) -> None:
        """See `Order`. The next head of a line has the score of the one before: it was submitted with it."""
        place, number, batch, line = self._heads[0]
        if self._left[line]:
            heapreplace(self._heads, ((*place[:-1], place[-1] + 1), number, batch, line))
        else:
            heappop(self._heads)

    def done(self) -> None:
        """See `Order`."""
        heappop(self._heads)

    def rest(self) -> list[tuple[Batch, Line]]:
        """See `Order`."""
        return [(batch, line) for _, _, batch, line in sorted(self._heads)]

    def unsorted(self) -> list[tuple[Batch, Line]]:
        """See `Order`."""
        return [(batch, line) for _, _, batch, line in self._heads]


class Fair:
    """The order of `fair`: see above."""

    def __init__(self, world: World, scorer: Scorer, waiting: list[Batch], left: dict[Line, int]) -> None:
        self._left = left
        self._scorer = scorer
        self._lines: dict[Batch, list[Line]] = {}
        self._sorted: set[Batch] = set()
        """Batches whose lines are in order: few have a turn where little starts."""
        tiers: dict[int, list[Batch]] = {}
        has_tiers = bool(world.policy.services)
        for batch in waiting:
            own = [line for line in batch.lines.values() if line in left]
            if own:
                tiers.setdefault(tier(world, batch) if has_tiers else 0, []).append(batch)
                self._lines[batch] = own
        self._tiers = [tiers[each] for each in sorted(tiers)]
        self._turns: Turns | None = None
        self._batch: Batch | None = None
        self._own: list[Line] = []
        """The batch whose turn it is, and its lines that are left."""

    def next(self) -> tuple[Batch, Line] | None:
        """See `Order`."""
        while True:
            if self._turns is None:
                if not self._tiers:
                    return None
                self._turns = Turns(self._tiers.pop())
            self._batch = batch = self._turns.next()
            if batch is not None:
                self._own = lines = self._lines[batch]
                if len(lines) > 1 and batch not in self._sorted:
                    self._sorted.add(batch)
                    lines.sort(key=partial(self._place, batch))
                return batch, lines[0]
            self._turns = None

    def _place(self, batch: Batch, line: Line) -> tuple[float, int]:
        return -self._scorer.score(batch, line), line.waiting.head()

    def started(self) -> None:
        """See `Order`."""
        assert self._turns is not None
        line = self._own[0]
        self._turns.charge(line, line.shape.nodes)
        if not self._left[line]:
            self.done()

    def done(self) -> None:
        """See `Order`."""
        assert self._batch is not None and self._turns is not None
        del self._own[0]
        if not self._own:
            self._turns.leave(self._batch)

    def rest(self) -> list[tuple[Batch, Line]]:
        """See `Order`. As it stands now: whoever is looked at first among them is not charged for what he gets."""
        found: list[tuple[Batch, Line]] = []
        while (each := self.next()) is not None:
            found.append(each)
            self.done()
        return found

    def unsorted(self) -> list[tuple[Batch, Line]]:
        """See `Order`."""
        return [(batch, line) for batch, lines in self._lines.items() for line in lines]


def by_length(world: World, lines: list[tuple[Batch, Line]]) -> list[tuple[Batch, Line]]:
    """The order of backfill `shortest`: by estimate, then by submission."""

    def place(each: tuple[Batch, Line]) -> tuple[int, int, int, int]:
        batch, line = each
        return estimate_us(world, line), batch.submitted_at_us, int(batch.id), line.waiting.head()

    return sorted(lines, key=place)
