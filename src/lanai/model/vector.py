"""Amounts of several resources as one integer, so that "does it fit" is one subtraction and one mask.

A vector is a row of 44-bit fields: milli-cpus, memory in MiB, milli-gpus, then the named resources in the order in
which nodes first offered them. The top bit of each field is a guard and always 0 in a valid amount. `r` fits into `f`
if and only if no field of `f - r` borrows, that is, if and only if `(f - r) & guard == 0`: a borrow leaves the field
at 2^44 minus something under 2^43, whose guard bit is set; and a borrow out of the last field makes the number
negative, whose guard bits are all set. Counts only, never floats.

A request for what no node has ever offered asks for more cpus than any node can have. Had each name that somebody
thinks up a field of its own, he could make all vectors as long as he likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lanai.model.resources import Amounts, Capacity, Shape, mebibytes

FIELD_BITS: Final = 44
FIELD_MASK: Final = (1 << FIELD_BITS) - 1
CPU, MEMORY, GPU, NAMED = 0, 1, 2, 3
_CEILING: Final = (1 << (FIELD_BITS - 1)) - 1

Vector = int


def field(vector: Vector, position: int) -> int:
    """The amount in one field."""
    return vector >> position * FIELD_BITS & FIELD_MASK


def fit_count(free: Vector, request: Vector, guard: int, most: int) -> int:
    """How often `request` fits into `free` at the same time, at most `most`."""
    count = 0
    while count < most:
        free -= request
        if free & guard:
            break
        count += 1
    return count


class Layout:
    """Which named resource lives in which field. Grows with what nodes offer; never forgets a name."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self.guard = 0
        self._widen()

    @property
    def names(self) -> tuple[str, ...]:
        """Named resources in the order of their fields, which begin at `NAMED`."""
        return tuple(self._positions)

    def request(self, shape: Shape) -> Vector:
        """What one job of `shape` takes. Where it names what no node has offered, no node has room for it."""
        known = tuple((name, count) for name, count in shape.named if name in self._positions)
        is_possible = all(name in self._positions or not count for name, count in shape.named)
        cpu_milli = min(shape.cpu_milli, _CEILING) if is_possible else _CEILING
        return self._pack(cpu_milli, mebibytes(shape.memory_bytes), shape.gpu_milli, known)

    def capacity(self, capacity: Capacity) -> Vector:
        """What a node offers in all, which makes its resources known."""
        self.meet(name for name, _ in capacity.named)
        cpu_milli = min(capacity.cpu_milli, _CEILING - 1)
        return self._pack(cpu_milli, capacity.memory_bytes >> 20, 1000 * len(capacity.gpus), capacity.named)

    def meet(self, names: Iterable[str]) -> None:
        """These are resources that a node offers or has offered."""
        for name in names:
            if name not in self._positions:
                self._positions[name] = NAMED + len(self._positions)
                self._widen()

    def left(self, total: Vector, used: Vector) -> Amounts:
        """What `used` leaves of `total`: nothing where more is used than there is, as on a node that has shrunk.

        Of the named resources those of which `total` has any.
        """

        def of(position: int) -> int:
            return max(0, field(total, position) - field(used, position))

        named = ((name, position) for name, position in self._positions.items() if field(total, position))
        return Amounts(
            cpu_milli=of(CPU),
            memory_bytes=of(MEMORY) << 20,
            gpu_milli=of(GPU),
            named=tuple(sorted((name, of(position)) for name, position in named)),
        )

    def _pack(self, cpu_milli: int, memory_mib: int, gpu_milli: int, named: tuple[tuple[str, int], ...]) -> Vector:
        vector = cpu_milli
        vector |= min(memory_mib, _CEILING) << MEMORY * FIELD_BITS
        vector |= min(gpu_milli, _CEILING) << GPU * FIELD_BITS
        for name, count in named:
            vector |= min(count, _CEILING) << self._positions[name] * FIELD_BITS
        return vector

    def _widen(self) -> None:
        fields = NAMED + len(self._positions)
        self.guard = sum(1 << (position + 1) * FIELD_BITS - 1 for position in range(fields))
