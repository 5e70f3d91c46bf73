"""Whose turn it is: weighted shares over a tree of accounts, users and batches, ranked as Slurm's Fair Tree does.

The measure of what somebody has is the sum, over his attempts at nodes, of their dominant share: the largest fraction
of all capacity that one of them takes of any resource (`Leaf.had`). To that his decayed use is added, which counts the
same over the half-life. Divided by the weight (of a batch 1/priority, as in Parasol; a user's is multiplied by that of
his best batch) it gives the value; of siblings the lowest is next, ties by number. Each start raises it at once, so
that one pass deals slots out like cards.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace

from lanai.core.batches import Batch
from lanai.core.schedule.leaf import WHOLE, Leaf
from lanai.core.schedule.lines import Line
from lanai.model.ids import BatchId
from lanai.model.vector import FIELD_BITS, FIELD_MASK, Vector

Turn = tuple[float, int, Leaf, "Batch | list[Turn]"]
"""Value, number, whose they are, and what hangs there: of an account or user a heap of turns, of a batch itself."""


def dominant_share(request: Vector, total: Vector) -> int:
    """The largest fraction of `total` that `request` takes of any resource, of `WHOLE`; at least 1."""
    largest = 1
    while request:
        part, whole = request & FIELD_MASK, total & FIELD_MASK
        if part:
            largest = max(largest, WHOLE * part // whole if whole else WHOLE)
        request >>= FIELD_BITS
        total >>= FIELD_BITS
    return largest


def price(batches: Iterable[Batch], total: Vector) -> None:
    """Say what an attempt of each line costs where `total` is all capacity."""
    costs: dict[Vector, int] = {}
    for batch in batches:
        for line in batch.lines.values():
            cost = costs.get(line.vector)
            if cost is None:
                cost = costs[line.vector] = dominant_share(line.vector, total)
            if line.cost != cost or line.stacked:
                line.price(cost)  # what waits at nodes costs by its run time, which may be another since


def weigh_users(waiting: Iterable[Batch]) -> None:
    """A user counts by the best priority among those of his batches that have something waiting."""
    best: dict[Leaf, int] = {}
    for batch in waiting:
        user, priority = batch.user_leaf, batch.leaf.priority
        if priority < best.get(user, priority + 1):
            best[user] = priority
    for leaf, priority in best.items():
        leaf.priority = priority


class Turns:
    """Deals turns among the batches that have something to start; made anew for each dealing.

    At each place of the tree the sibling of the lowest value is next, ties by number, down to a batch. What is dealt is
    charged here alone: `Leaf.had` changes when attempts are booked on a node.
    """

    def __init__(self, batches: list[Batch]) -> None:
        self._left: set[int] = set()
        self._top: list[Turn] = []
        below: dict[Leaf, list[Turn]] = {}
        for batch in batches:
            leaf, siblings = batch.leaf, below.get(batch.user_leaf)
            if siblings is None:
                siblings = self._enter(batch.user_leaf, below)
            siblings.append((leaf.value(), leaf.number, leaf, batch))
        for siblings in (self._top, *below.values()):
            heapify(siblings)
        while len(self._top) == 1 and isinstance(only := self._top[0][3], list):
            self._top = only  # whoever is alone is next, whatever he has

    def _enter(self, user: Leaf, below: dict[Leaf, list[Turn]]) -> list[Turn]:
        """What hangs from the user, who is entered with all above him; `below` says what hangs from each so far."""
        siblings = self._top
        for place in user.path:
            found = below.get(place)
            if found is None:
                found = below[place] = []
                siblings.append((place.value(), place.number, place, found))
            siblings = found
        return siblings

    def next(self) -> Batch | None:
        """The batch whose turn it is; None when none is left."""
        siblings = self._top
        while siblings:
            _, number, _, below = siblings[0]
            if isinstance(below, Batch):
                if number not in self._left:
                    return below
            elif below:
                siblings = below
                continue
            heappop(siblings)
            siblings = self._top
        return None

    def charge(self, line: Line, count: int = 1) -> None:
        """The batch whose turn it is gets `count` slots for `line`. To be called after `next` only."""
        share = line.cost * count
        siblings = self._top
        while True:
            value, number, leaf, below = siblings[0]
            heapreplace(siblings, (value + leaf.rise(share), number, leaf, below))
            if isinstance(below, Batch):
                return
            siblings = below

    def leave(self, batch: Batch) -> None:
        """The batch wants nothing more of this pass."""
        self._left.add(batch.leaf.number)


def share_of(batches: Iterable[Batch]) -> dict[BatchId, float]:
    """The factor `share` of each batch: 1 - rank/count, 1 for the one whose turn it is at this moment.

    Fair Tree: siblings by their values, ties by number, depth first.
    """
    of_user: dict[Leaf, list[Batch]] = {}
    for batch in batches:
        own = of_user.get(batch.user_leaf)
        if own is None:
            of_user[batch.user_leaf] = [batch]
        else:
            own.append(batch)
    in_order: list[Batch] = []
    for user in sorted(of_user, key=lambda user: [(place.value(), place.number) for place in user.path]):
        own = of_user[user]
        in_order += sorted(own, key=lambda batch: (batch.leaf.value(), batch.leaf.number)) if len(own) > 1 else own
    count = len(in_order)
    return {batch.id: 1 - rank / count for rank, batch in enumerate(in_order)}
