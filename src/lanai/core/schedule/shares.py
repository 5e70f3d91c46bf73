"""Whose turn it is: weighted max-min shares, first between users, then between a user's batches.

The measure of what somebody has is the sum, over his attempts at nodes, of their dominant share: the largest fraction
of all capacity that one of them takes of any resource. Divided by the weight (1/priority, as in Parasol; a user's
priority is that of his best batch) it gives v; the lowest v is next, ties by name and number. Each start raises v at
once, so that one pass deals slots out like cards. Decayed use will be added to v; the order of the dealing stays.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from lanai.core.batches import Batch
from lanai.core.schedule.lines import Line
from lanai.model.vector import FIELD_BITS, FIELD_MASK, Vector


def dominant_share(request: Vector, total: Vector) -> float:
    """The largest fraction of `total` that `request` takes of any resource; tiny but not 0 for an empty request."""
    largest = 1e-9
    while request:
        part, whole = request & FIELD_MASK, total & FIELD_MASK
        if part:
            largest = max(largest, part / whole if whole else 1.0)
        request >>= FIELD_BITS
        total >>= FIELD_BITS
    return largest


class Turns:
    """Deals turns among the batches that have something to start.

    `batches` are those with waiting jobs; `total` is all capacity. The object is made anew for each pass.
    """

    def __init__(self, batches: list[Batch], running: list[Batch], total: Vector) -> None:
        self._total = total
        self._costs: dict[int, float] = {}
        self._left: set[int] = set()
        self._had: dict[int, float] = {}
        users: dict[str, list[Batch]] = {}
        for batch in batches:
            users.setdefault(batch.user, []).append(batch)
        self._user_had: dict[str, float] = {}
        for batch in running:
            had = sum(self.cost(line) * line.sent for line in batch.lines.values() if line.sent)
            self._had[batch.id] = had
            self._user_had[batch.user] = self._user_had.get(batch.user, 0.0) + had
        self._user_priority = {user: min(batch.priority for batch in own) for user, own in users.items()}
        self._batches: dict[str, list[tuple[float, int, Batch]]] = {}
        for user, own in users.items():
            heap = [(self._had.get(batch.id, 0.0) * batch.priority, int(batch.id), batch) for batch in own]
            heapify(heap)
            self._batches[user] = heap
        self._users = [(self._user_had.get(user, 0.0) * self._user_priority[user], user) for user in users]
        heapify(self._users)

    def cost(self, line: Line) -> float:
        """The dominant share of one attempt of the line."""
        found = self._costs.get(line.vector)
        if found is None:
            found = self._costs[line.vector] = dominant_share(line.vector, self._total)
        return found

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
        cost = self.cost(line) * count
        had = self._had[number] = self._had.get(number, 0.0) + cost
        heappush(heap, (had * batch.priority, number, batch))
        user_had = self._user_had[user] = self._user_had.get(user, 0.0) + cost
        heappush(self._users, (user_had * self._user_priority[user], user))

    def leave(self, batch: Batch) -> None:
        """The batch wants nothing more of this pass."""
        self._left.add(int(batch.id))
