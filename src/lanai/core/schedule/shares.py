"""Whose turn it is: weighted max-min shares, first between users, then between a user's batches.

The measure of what somebody has is the sum, over his attempts at nodes, of their dominant share: the largest fraction
of all capacity that one of them takes of any resource (`Leaf.had`). Multiplied by the priority (the weight is
1/priority, as in Parasol; a user's priority is that of his best batch) it gives his claim; the lowest is next, ties by
name and number. Each start raises it at once, so that one pass deals slots out like cards. Decayed use will be added
to it; the order of the dealing stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from lanai.core.batches import Batch
from lanai.core.schedule.leaf import WHOLE, Leaf
from lanai.core.schedule.lines import Line
from lanai.model.ids import BatchId
from lanai.model.vector import FIELD_BITS, FIELD_MASK, Vector


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
            line.price(cost)


def weigh_users(waiting: Iterable[Batch]) -> None:
    """A user counts by the best priority among those of his batches that have something waiting."""
    best: dict[Leaf, int] = {}
    for batch in waiting:
        best[batch.user_leaf] = min(batch.priority, best.get(batch.user_leaf, batch.priority))
    for leaf, priority in best.items():
        leaf.priority = priority


def share_of(waiting: list[Batch]) -> dict[BatchId, float]:
    """The factor `share` of each batch: 1 - rank / batches, in the order of their claims."""
    ranked = sorted(waiting, key=lambda batch: (batch.leaf.claim(), batch.id))
    return {batch.id: 1 - rank / len(ranked) for rank, batch in enumerate(ranked)}


class Turns:
    """Deals turns among the batches that have something to start; made anew for each dealing.

    What is dealt is charged here alone: `Leaf.had` changes when attempts are booked on a node.
    """

    def __init__(self, batches: list[Batch]) -> None:
        self._left: set[int] = set()
        users: dict[str, list[Batch]] = {}
        for batch in batches:
            users.setdefault(batch.user, []).append(batch)
        self._had = {batch.id: batch.leaf.had for batch in batches}
        self._user_had: dict[str, int] = {}
        self._user_priority: dict[str, int] = {}
        self._batches: dict[str, list[tuple[int, int, Batch]]] = {}
        for user, own in users.items():
            leaf = own[0].user_leaf
            self._user_had[user], self._user_priority[user] = leaf.had, leaf.priority
            heap = [(batch.leaf.had * batch.priority, int(batch.id), batch) for batch in own]
            heapify(heap)
            self._batches[user] = heap
        self._users = [(had * self._user_priority[user], user) for user, had in self._user_had.items()]
        heapify(self._users)

    def next(self) -> Batch | None:
        """The batch whose turn it is; None when none is left."""
        while self._users:
            heap = self._batches[self._users[0][1]]
            while heap and heap[0][1] in self._left:
                heappop(heap)
            if heap:
                return heap[0][2]
            heappop(self._users)
        return None

    def charge(self, line: Line, count: int = 1) -> None:
        """The batch whose turn it is gets `count` slots for `line`. To be called after `next` only."""
        _, user = heappop(self._users)
        heap = self._batches[user]
        _, number, batch = heappop(heap)
        cost = line.cost * count
        had = self._had[batch.id] = self._had[batch.id] + cost
        heappush(heap, (had * batch.priority, number, batch))
        user_had = self._user_had[user] = self._user_had[user] + cost
        heappush(self._users, (user_had * self._user_priority[user], user))

    def leave(self, batch: Batch) -> None:
        """The batch wants nothing more of this pass."""
        self._left.add(int(batch.id))
