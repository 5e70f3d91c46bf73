"""Nodes of a cell in the order in which the first of what each runs is expected to end.

A promise looks for the first time at which some nodes have room. A node that has none now has none before its first
end; so nodes are looked at in the order of their first ends, until none that is left can be better. What is found of a
node is remembered until something on it changes: `changed` says where it has.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Final

from lanai.core.nodes import NEVER_US, Node
from lanai.model.ids import NodeId
from lanai.model.vector import Vector

End = tuple[int, Vector]
"""When it is expected, and what it frees."""

MANY: Final = 8
"""Where more than one of so many nodes have changed, they are sorted anew."""
REMEMBERED: Final = 64
"""For so many requests it is remembered when a node has room for them."""


class Entry:
    """What is known of a node since it has changed last."""

    __slots__ = ("_ends", "_rooms", "first_us", "node")

    def __init__(self, node: Node, ends: list[End]) -> None:
        self.node = node
        self.first_us = ends[0][0] if ends else NEVER_US
        self._ends = ends
        self._rooms: dict[Vector, int] = {}
        """When requests have room; minus a time up to which one has none."""

    def room_us(self, vector: Vector, guard: int, until_us: int) -> int:
        """When `vector` has room on the node, which has none for it now, if nothing is kept there.

        Where it has none until then, some time after `until_us`; or NEVER_US.
        """
        known_us = self._rooms.get(vector, 0)
        if known_us > 0:
            return known_us
        if -known_us > until_us:
            return -known_us
        if len(self._rooms) >= REMEMBERED:
            self._rooms.clear()
        free = self.node.free
        for end_us, freed in self._ends:
            if end_us > until_us:
                self._rooms[vector] = -end_us
                return end_us
            free += freed
            if not (free - vector) & guard:
                self._rooms[vector] = end_us
                return end_us
        self._rooms[vector] = NEVER_US
        return NEVER_US


class Agenda:
    """The first ends of a cell's nodes."""

    def __init__(self) -> None:
        self.changed: dict[NodeId, Node] = {}
        """Nodes of which something may have changed since `update`."""
        self._order: list[tuple[int, NodeId, Entry]] = []
        self._entries: dict[NodeId, Entry] = {}

    def drop(self, node: Node) -> None:
        """The node is not in the cell any more."""
        self.changed.pop(node.id, None)
        if node.id in self._entries:
            self._take_out(node.id)

    def update(self, now_us: int, ends_of: Callable[[Node], list[End]]) -> list[tuple[int, NodeId, Entry]]:
        """Look anew at nodes that have changed, and at those of which an expected end has passed.

        Args:
            now_us: by the hub's clock.
            ends_of: gives a node's expected ends in order, all after now.

        Returns:
            (first end, number, entry) of each node, in order. Not to be changed, and to be read at once.
        """
        for _, number, entry in self._order[: bisect_left(self._order, (now_us + 1,))]:
            self.changed[number] = entry.node
        is_many = len(self.changed) * MANY > len(self._entries)
        for number, node in self.changed.items():
            if not is_many and number in self._entries:
                self._take_out(number)
            entry = self._entries[number] = Entry(node, ends_of(node))
            if not is_many:
                insort(self._order, (entry.first_us, number, entry))
        if is_many:
            self._order = sorted((entry.first_us, number, entry) for number, entry in self._entries.items())
        self.changed.clear()
        return self._order

    def _take_out(self, number: NodeId) -> None:
        entry = self._entries.pop(number)
        del self._order[bisect_left(self._order, (entry.first_us, number))]
