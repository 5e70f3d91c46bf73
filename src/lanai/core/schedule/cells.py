"""Cells: nodes of equal capacity and features, indexed by what is free on them.

Within a cell the nodes stand in buckets by free gpus and then by free cpus (a quarter of a cpu each, or some quarters
where there are very many; a bit mask of those not empty), each bucket sorted by (free memory, node id). The smallest
node that fits is found by walking up from the request: least gpus, then least cpus, least memory, lowest id. The index
says where to look; `fits` on the whole vector decides.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from lanai.core.nodes import Node
from lanai.core.schedule.agenda import Agenda
from lanai.core.schedule.lines import Line
from lanai.model.vector import CPU, GPU, MEMORY, Vector, field

_BUCKETS: Final = 512
_STEP_MILLI: Final = 250
"""What divides a whole cpu: else the nodes that have just less free than is asked for stand with those that have it."""


class Cell:
    """Nodes that are alike. A node is in the index exactly while it is open."""

    def __init__(self, total: Vector, features: tuple[str, ...]) -> None:
        self.total = total
        self.features = features
        self.agenda = Agenda(total)
        self.tickets: dict[Line, int] = {}
        """Turns that the last pass has left each line here, in the order of their first; 0 or less where used up."""
        self.ended = 0
        """Attempts that ended here since the last pass: how many tickets to leave."""
        self._step_milli = _STEP_MILLI * -(-max(1, field(total, CPU)) // (_STEP_MILLI * _BUCKETS))
        self._levels: dict[int, _Level] = {}
        self._places: dict[int, tuple[int, int, tuple[int, int]]] = {}
        self._indexed: dict[int, Vector] = {}
        """The free amount by which a node has its place."""
        self._nodes: dict[int, Node] = {}
        self._by_id: list[Node] | None = None
        """The same in order; None where that has to be made anew, and with it"""
        self._takers = 0
        """how many of them take claims."""

    @property
    def is_empty(self) -> bool:
        """No node is in it."""
        return not self._nodes

    def put(self, node: Node, guard: int) -> None:
        """Index the node by what is free on it now; also when it is indexed already. An overfull one is left out."""
        free = node.free
        if free & guard:
            self.drop(node)
            return
        self.agenda.changed[node.id] = node
        if self._indexed.get(node.id) == free and self._nodes[node.id] is node:
            return
        entry = (field(free, MEMORY), int(node.id))
        place = field(free, GPU), field(free, CPU) // self._step_milli, entry
        self._unplace(node)
        gpus, bucket, _ = place
        level = self._levels.get(gpus)
        if level is None:
            level = self._levels[gpus] = _Level()
        level.insert(bucket, entry)
        self._places[node.id] = place
        self._indexed[node.id] = free
        if self._nodes.get(node.id) is not node:
            self._nodes[node.id] = node
            self._by_id = None

    def drop(self, node: Node) -> None:
        """Take the node out of the index; harmless where it is not there."""
        if self._unplace(node):
            del self._nodes[node.id], self._indexed[node.id]
            self.agenda.drop(node)
            self._by_id = None

    def _unplace(self, node: Node) -> bool:
        """Take the node from where it stands; False where it stands nowhere."""
        place = self._places.pop(node.id, None)
        if place is None:
            return False
        gpus, bucket, entry = place
        level = self._levels[gpus]
        level.remove(bucket, entry)
        if not level.mask:
            del self._levels[gpus]
        return True

    def find(self, request: Vector, guard: int, allows: Callable[[Node], bool]) -> Node | None:
        """The smallest node on which `request` fits and that `allows` says yes to."""
        return next(self._upwards(request, guard, allows), None)

    def smallest(self, request: Vector, guard: int, allows: Callable[[Node], bool], most: int) -> list[Node]:
        """The smallest nodes of that kind, up to so many, smallest first."""
        return list(islice(self._upwards(request, guard, allows), most))

    def having_room(self, request: Vector, guard: int) -> Iterator[Node]:
        """The nodes on which `request` fits, smallest first."""
        return self._upwards(request, guard, _anyone)

    def most(self, request: Vector) -> int:
        """No more nodes than so many have room for `request`: what the index alone can tell."""
        low, gpus_asked = field(request, CPU) // self._step_milli, field(request, GPU)
        return sum(level.count_from(low) for gpus, level in self._levels.items() if gpus >= gpus_asked)

    def may_hold(self, request: Vector) -> bool:
        """False where no node has room for `request`, which the index tells for less than `find` does."""
        low, gpus_asked = field(request, CPU) // self._step_milli, field(request, GPU)
        return any(gpus >= gpus_asked and level.mask >> low for gpus, level in self._levels.items())

    def fitting(self, request: Vector, guard: int, allows: Callable[[Node], bool]) -> list[Node]:
        """All nodes on which `request` fits and that `allows` says yes to, in any order."""
        return [node for node in self._nodes.values() if not (node.free - request) & guard and allows(node)]

    def nodes(self) -> list[Node]:
        """Those in the index, by id. Not to be changed, and to be read at once."""
        if self._by_id is None:
            self._by_id = [self._nodes[node] for node in sorted(self._nodes)]
            self._takers = sum(node.takes_claims for node in self._by_id)
        return self._by_id

    def takers(self) -> int:
        """How many of them may be one of several that a job has."""
        self.nodes()
        return self._takers

    def _upwards(self, request: Vector, guard: int, allows: Callable[[Node], bool]) -> Iterator[Node]:
        memory, low = field(request, MEMORY), field(request, CPU) // self._step_milli
        nodes = self._nodes
        for gpus in sorted(self._levels):
            if gpus < field(request, GPU):
                continue
            for entry in self._levels[gpus].upwards(low, memory):
                node = nodes[entry[1]]
                if not (node.free - request) & guard and allows(node):
                    yield node


def _anyone(node: Node) -> bool:
    return True


class _Level:
    """The nodes with one number of free gpus."""

    __slots__ = ("buckets", "mask")

    def __init__(self) -> None:
        self.buckets: dict[int, list[tuple[int, int]]] = {}
        self.mask = 0

    def insert(self, bucket: int, entry: tuple[int, int]) -> None:
        insort(self.buckets.setdefault(bucket, []), entry)
        self.mask |= 1 << bucket

    def remove(self, bucket: int, entry: tuple[int, int]) -> None:
        entries = self.buckets[bucket]
        del entries[bisect_left(entries, entry)]
        if not entries:
            self.mask &= ~(1 << bucket)

    def count_from(self, low: int) -> int:
        """How many nodes stand in bucket `low` or above."""
        count, mask = 0, self.mask >> low << low
        while mask:
            count += len(self.buckets[(mask & -mask).bit_length() - 1])
            mask &= mask - 1
        return count

    def upwards(self, low: int, memory: int) -> Iterator[tuple[int, int]]:
        """Entries from bucket `low` on with at least `memory`, smallest first. The level must not change meanwhile."""
        mask = self.mask >> low << low
        while mask:
            entries = self.buckets[(mask & -mask).bit_length() - 1]
            yield from islice(entries, bisect_left(entries, (memory, 0)), None)
            mask &= mask - 1
