"""Waiting jobs as ranges of indices: a few bytes for a million of them, never an object per waiting job.

A `Spans` is a set of job indices, kept as disjoint ascending [first, last] pairs in two parallel lists. A list of a
million jobs is one pair; a requeued job returns to its old place because the place is its index.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Self

Span = tuple[int, int]


class Spans:
    """A mutable set of indices. All operations cost by the number of spans touched, not of indices."""

    __slots__ = ("_firsts", "_lasts", "count")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.count = 0
        for first, last in spans:
            self.add(first, last)

    @classmethod
    def of(cls, spans: Iterable[Span]) -> Self:
        """A set of spans in any order. Costs little more than sorting them, where adding each may move all others."""
        made = cls()
        firsts, lasts = made._firsts, made._lasts
        for first, last in sorted(spans):
            if not firsts or first > lasts[-1] + 1:
                firsts.append(first)
                lasts.append(last)
            elif last > lasts[-1]:
                lasts[-1] = last
        made.count = sum(lasts) - sum(firsts) + len(firsts)
        return made

    @property
    def pieces(self) -> int:
        """How many spans it takes."""
        return len(self._firsts)

    def __bool__(self) -> bool:
        return self.count > 0

    def __iter__(self) -> Iterator[Span]:
        return iter(zip(self._firsts, self._lasts, strict=True))

    def __contains__(self, index: int) -> bool:
        place = bisect_right(self._firsts, index) - 1
        return place >= 0 and self._lasts[place] >= index

    def head(self) -> int:
        """The lowest index. Raises IndexError where there is none."""
        return self._firsts[0]

    def spans(self) -> tuple[Span, ...]:
        """All of it, ascending."""
        return tuple(self)

    def add(self, first: int, last: int) -> int:
        """Put indices first..last in; returns how many were not there before."""
        firsts, lasts = self._firsts, self._lasts
        low = bisect_left(lasts, first - 1)
        high = bisect_right(firsts, last + 1)
        had = sum(lasts[at] - firsts[at] + 1 for at in range(low, high))
        if low < high:
            first, last = min(first, firsts[low]), max(last, lasts[high - 1])
        firsts[low:high] = [first]
        lasts[low:high] = [last]
        added = last - first + 1 - had
        self.count += added
        return added

    def merge(self, spans: list[Span]) -> None:
        """Put in what is not there yet: disjoint spans, ascending. Many cost little more than one does."""
        if not spans:
            return
        low = bisect_left(self._lasts, spans[0][0] - 1)
        high = bisect_right(self._firsts, spans[-1][1] + 1)
        there = zip(self._firsts[low:high], self._lasts[low:high], strict=True)
        merged = Spans.of([*there, *spans])
        self._firsts[low:high] = merged._firsts
        self._lasts[low:high] = merged._lasts
        self.count += size(spans)

    def take(self, most: int) -> list[Span]:
        """Remove and return the lowest `most` indices (fewer where there are fewer)."""
        firsts, lasts = self._firsts, self._lasts
        if firsts and 0 < most <= lasts[0] - firsts[0]:  # as it is nearly always
            first = firsts[0]
            firsts[0] = first + most
            self.count -= most
            return [(first, first + most - 1)]
        taken: list[Span] = []
        whole = 0
        while most > 0 and whole < len(firsts):
            first, last = firsts[whole], lasts[whole]
            size = last - first + 1
            if size > most:
                taken.append((first, first + most - 1))
                firsts[whole] = first + most
                self.count -= most
                break
            taken.append((first, last))
            self.count -= size
            most -= size
            whole += 1
        del firsts[:whole], lasts[:whole]
        return taken

    def remove(self, first: int, last: int) -> list[Span]:
        """Take first..last out; returns the part that was there."""
        firsts, lasts = self._firsts, self._lasts
        low = bisect_left(lasts, first)
        high = bisect_right(firsts, last)
        if low >= high:
            return []
        removed = [(max(first, firsts[at]), min(last, lasts[at])) for at in range(low, high)]
        left: list[Span] = []
        if firsts[low] < first:
            left.append((firsts[low], first - 1))
        if lasts[high - 1] > last:
            left.append((last + 1, lasts[high - 1]))
        firsts[low:high] = [span[0] for span in left]
        lasts[low:high] = [span[1] for span in left]
        self.count -= sum(b - a + 1 for a, b in removed)
        return removed

    def within(self, first: int, last: int) -> list[Span]:
        """The part of first..last that is in the set."""
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        return [(max(first, self._firsts[at]), min(last, self._lasts[at])) for at in range(low, high)]

    def before(self, index: int) -> int:
        """How many indices in the set are lower than `index`."""
        below = bisect_left(self._firsts, index)
        if not below:
            return 0
        whole = sum(self._lasts[: below - 1]) - sum(self._firsts[:below]) + below - 1
        return whole + min(self._lasts[below - 1], index - 1) + 1


def size(spans: Iterable[Span]) -> int:
    """How many indices the spans hold."""
    return sum(last - first + 1 for first, last in spans)


def spans_of(indices: Iterable[int]) -> tuple[Span, ...]:
    """Any indices as ascending spans."""
    found: list[Span] = []
    for index in sorted(indices):
        if found and found[-1][1] + 1 == index:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return tuple(found)
