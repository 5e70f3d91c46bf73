"""When nodes of a cell are expected to have more room: in order, so that a promise looks at few of them.

A promise looks for the first time at which some nodes have room. A node that has none now has none before its first
end, nor before so much of what is scarcest for it (cpus, memory or gpus) is free there as the largest power of two that
is not more than what is asked for. By this time nodes are kept in order, for each such *part* that is asked for; a
promise goes through them until none that is left can be better.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Final, NamedTuple

from lanai.core.nodes import NEVER_US, Node
from lanai.model.ids import NodeId
from lanai.model.vector import CPU, FIELD_BITS, GPU, MEMORY, Vector, field

End = tuple[int, Vector]
"""When it is expected, and what it frees."""
Places = list[tuple[int, NodeId, "Entry"]]
"""(time, number, entry) of nodes in order."""

MANY: Final = 8
"""Where more than one of so many nodes have changed, all are sorted anew."""
UNUSED: Final = 100
"""An order that so many updates have passed since anybody asked for it is made anew when somebody does."""
_ANYTHING: Final = 0


class Entry(NamedTuple):
    """A node, and when what is on it is expected to end."""

    node: Node
    ends: list[End]

    def room_us(self, vector: Vector, guard: int) -> int:
        """From which end on `vector` has room on the node, if nothing is kept there; or NEVER_US."""
        free = self.node.free
        for end_us, freed in self.ends:
            free += freed
            if not (free - vector) & guard:
                return end_us
        return NEVER_US


class Exhausted(Exception):
    """One call has looked anew at so many nodes that the rest is for the next one."""


class Effort:
    """How much one call may look at anew, in times at which a node has room for something: each is about 1 us."""

    UNLIMITED: Final = 1 << 60
    PER_NODE: Final = 16
    """To find out when everything on a node is expected to end."""
    PER_LOOK: Final = 8
    """To find out when one node has room for a request, beside what is kept there."""
    PER_LINE: Final = 100
    """To try a line and to keep what it was promised."""

    def __init__(self) -> None:
        self.left = self.UNLIMITED
        self._is_first = True

    def begin(self, most: int) -> None:
        """From now on so much."""
        self.left, self._is_first = most, True

    def spend(self, amount: int) -> None:
        """So much has been looked at."""
        self.left -= amount

    def spend_on_order(self, amount: int) -> bool:
        """Whether one more order may be made, which takes so much. A call makes one, or more where they are small."""
        if not self._is_first and amount * MANY > self.left:
            return False
        self._is_first = False
        self.left -= amount
        return True


class _Order:
    """All entries by the time at which a part has room."""

    def __init__(self) -> None:
        self.places: Places = []
        self._times: dict[NodeId, int] = {}
        self.asked = 0
        """At which update it was asked for last."""

    def set_all(self, times: dict[NodeId, int], entries: dict[NodeId, Entry]) -> None:
        """These are all there are."""
        self._times = times
        self.places = sorted((at_us, number, entries[number]) for number, at_us in times.items())

    def put(self, at_us: int, entry: Entry) -> None:
        """One more, or one that is known in another place."""
        self.drop(entry.node.id)
        self._times[entry.node.id] = at_us
        insort(self.places, (at_us, entry.node.id, entry))

    def drop(self, number: NodeId) -> None:
        """Without that of this node, if there is one."""
        at_us = self._times.pop(number, None)
        if at_us is not None:
            del self.places[bisect_left(self.places, (at_us, number))]

    def copy(self) -> _Order:
        """Another one that is alike."""
        other = _Order()
        other.places, other._times, other.asked = self.places.copy(), self._times.copy(), self.asked
        return other


class Agenda:
    """The nodes of one cell in the order in which they have more room."""

    def __init__(self, total: Vector) -> None:
        self._total = total
        self.changed: dict[NodeId, Node] = {}
        """Nodes of which something may have changed since `in_order`."""
        self._entries: dict[NodeId, Entry] = {}
        self._orders: dict[Vector, _Order] = {_ANYTHING: _Order()}
        self._updates = 0

    def copy(self) -> Agenda:
        """Another one that is alike, for a while in which nodes are not what they are."""
        other = Agenda(self._total)
        other.changed, other._entries, other._updates = self.changed.copy(), self._entries.copy(), self._updates
        other._orders = {part: order.copy() for part, order in self._orders.items()}
        return other

    def drop(self, node: Node) -> None:
        """The node is not in the cell any more."""
        self.changed.pop(node.id, None)
        if self._entries.pop(node.id, None) is not None:
            for order in self._orders.values():
                order.drop(node.id)

    def in_order(
        self, request: Vector, guard: int, now_us: int, effort: Effort, ends_of: Callable[[Node], list[End]]
    ) -> Places:
        """Nodes by a time before which none that has no room for `request` now has any.

        Args:
            request: what is asked for.
            guard: of the layout.
            now_us: by the hub's clock.
            effort: how much may be looked at anew.
            ends_of: gives a node's expected ends in order, all after now.

        Returns:
            (time, number, entry) of each node, in order. Not to be changed, and to be read at once.

        Raises:
            Exhausted: more nodes have changed than may be looked at. Those that were are not looked at again.
        """
        self.update(guard, now_us, effort, ends_of)
        if self.changed:
            raise Exhausted
        part = _part(request, self._total)
        order = self._orders.get(part)
        if order is None:
            if not effort.spend_on_order(len(self._entries)):
                return self._orders[_ANYTHING].places  # as good, if more of it has to be gone through
            order = self._orders[part] = _Order()
            times = {number: entry.room_us(part, guard) for number, entry in self._entries.items()}
            order.set_all(times, self._entries)
        order.asked = self._updates
        return order.places

    def update(self, guard: int, now_us: int, effort: Effort, ends_of: Callable[[Node], list[End]]) -> None:
        """Look anew at nodes that have changed, and at those of which an expected end has passed; at as many as may be.

        As `in_order`, which does so itself.
        """
        by_first_end = self._orders[_ANYTHING].places
        for _, number, entry in by_first_end[: bisect_left(by_first_end, (now_us + 1,))]:
            self.changed[number] = entry.node
        if not self.changed:
            return
        self._updates += 1
        since = self._updates - UNUSED
        self._orders = {part: order for part, order in self._orders.items() if part == _ANYTHING or order.asked > since}
        looked_at: list[Entry] = []
        while self.changed and effort.left > 0:
            effort.spend(Effort.PER_NODE + len(self._orders))
            number, node = self.changed.popitem()
            entry = self._entries[number] = Entry(node, ends_of(node))
            looked_at.append(entry)
        is_many = len(looked_at) * MANY > len(self._entries)
        for part, order in self._orders.items():
            if is_many:
                times = {number: entry.room_us(part, guard) for number, entry in self._entries.items()}
                order.set_all(times, self._entries)
            else:
                for entry in looked_at:
                    order.put(entry.room_us(part, guard), entry)


def _part(request: Vector, total: Vector) -> Vector:
    """Of what is scarcest for a request (cpus, memory or gpus) the largest power of two that is not more."""
    amount, position = 0, CPU
    for other in (CPU, MEMORY, GPU):
        asked, most = field(request, other), field(total, other)
        if asked and asked * field(total, position) > amount * most:
            amount, position = asked, other
    return 1 << amount.bit_length() - 1 << position * FIELD_BITS if amount else _ANYTHING
