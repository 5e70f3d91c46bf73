"""When nodes of a cell are expected to have more room: in order, so that a promise looks at few of them.

A promise looks for the first time at which some nodes have room. A node that has none now has none before its first
end, nor before so many cpus (or gpus) are free there: that is, as many as the largest power of two that is not more
than what is asked for. By this time nodes are kept in order, for each such *part* that is asked for; a promise goes
through them until none that is left can be better.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Final

from lanai.core.nodes import NEVER_US, Node
from lanai.model.ids import NodeId
from lanai.model.vector import CPU, FIELD_BITS, GPU, Vector, field

End = tuple[int, Vector]
"""When it is expected, and what it frees."""
Order = list[tuple[int, NodeId, "Entry"]]

MANY: Final = 8
"""Where more than one of so many nodes have changed, all are sorted anew."""
UNUSED: Final = 100
"""An order that so many updates have passed since anybody asked for it is made anew when somebody does."""
_ANYTHING: Final = 0


class Entry:
    """What is known of a node since it has changed last."""

    __slots__ = ("_ends", "node", "times")

    def __init__(self, node: Node, ends: list[End]) -> None:
        self.node = node
        self._ends = ends
        self.times: dict[Vector, int] = {}
        """When each part has room after the first end."""

    def room_us(self, vector: Vector, guard: int) -> int:
        """From which end on `vector` has room on the node, if nothing is kept there; or NEVER_US."""
        free = self.node.free
        for end_us, freed in self._ends:
            free += freed
            if not (free - vector) & guard:
                return end_us
        return NEVER_US


class Agenda:
    """The nodes of one cell in the order in which they have more room."""

    def __init__(self) -> None:
        self.changed: dict[NodeId, Node] = {}
        """Nodes of which something may have changed since `in_order`."""
        self._entries: dict[NodeId, Entry] = {}
        self._orders: dict[Vector, Order] = {_ANYTHING: []}
        self._asked: dict[Vector, int] = {}
        """At which update each was asked for last."""
        self._updates = 0

    def drop(self, node: Node) -> None:
        """The node is not in the cell any more."""
        self.changed.pop(node.id, None)
        entry = self._entries.pop(node.id, None)
        if entry is not None:
            self._take_out(entry)

    def in_order(self, request: Vector, guard: int, now_us: int, ends_of: Callable[[Node], list[End]]) -> Order:
        """Nodes by a time before which none that has no room for `request` now has any.

        Args:
            request: what is asked for.
            guard: of the layout.
            now_us: by the hub's clock.
            ends_of: gives a node's expected ends in order, all after now.

        Returns:
            (time, number, entry) of each node, in order. Not to be changed, and to be read at once.
        """
        self._update(guard, now_us, ends_of)
        part = _part(request)
        self._asked[part] = self._updates
        if part not in self._orders:
            for entry in self._entries.values():
                entry.times[part] = entry.room_us(part, guard)
            self._orders[part] = self._sorted(part)
        return self._orders[part]

    def _update(self, guard: int, now_us: int, ends_of: Callable[[Node], list[End]]) -> None:
        by_first_end = self._orders[_ANYTHING]
        for _, number, entry in by_first_end[: bisect_left(by_first_end, (now_us + 1,))]:
            self.changed[number] = entry.node
        if not self.changed:
            return
        self._updates += 1
        self._forget()
        is_many = len(self.changed) * MANY > len(self._entries)
        for number, node in self.changed.items():
            before = self._entries.get(number)
            if before is not None and not is_many:
                self._take_out(before)
            entry = self._entries[number] = Entry(node, ends_of(node))
            for part, order in self._orders.items():
                at_us = entry.times[part] = entry.room_us(part, guard)
                if not is_many:
                    insort(order, (at_us, number, entry))
        if is_many:
            self._orders = {part: self._sorted(part) for part in self._orders}
        self.changed.clear()

    def _sorted(self, part: Vector) -> Order:
        return sorted((entry.times[part], number, entry) for number, entry in self._entries.items())

    def _forget(self) -> None:
        for part, asked in list(self._asked.items()):
            if asked + UNUSED < self._updates:
                del self._asked[part]
                if part != _ANYTHING:
                    del self._orders[part]

    def _take_out(self, entry: Entry) -> None:
        for part, order in self._orders.items():
            del order[bisect_left(order, (entry.times[part], entry.node.id))]


def _part(request: Vector) -> Vector:
    """Of the gpus or, where it asks for none, cpus of a request the largest power of two that is not more."""
    position = GPU if field(request, GPU) else CPU
    amount = field(request, position)
    return 1 << amount.bit_length() - 1 << position * FIELD_BITS if amount else _ANYTHING
