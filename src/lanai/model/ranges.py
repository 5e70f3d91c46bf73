"""Sets of job indices as ranges, and the selectors by which people name batches and jobs.

A set is a tuple of (first, last) pairs, both ends included, ascending, disjoint and not adjacent, so equal sets are
equal tuples. Every function takes and returns this form; `canonical` makes it. Costs go by the number of pairs, never
by the number of indices.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from lanai.model.job import JobState

Ranges = tuple[tuple[int, int], ...]

MAX_INDEX: Final = 2**63 - 1
MAX_STEPPED: Final = 1_000_000
"""A range with a step is kept member by member; so many are allowed in one."""

ACCEPTED_RANGES: Final = "indices such as 12, 12-40, 12-40:2 or a list of these with commas between"
ACCEPTED_SELECTOR: Final = "BATCH, BATCH/INDICES, @STATE or BATCH@STATE, with last for the latest batch"

_RANGE: Final = re.compile(r"(\d{1,19})(?:-(\d{1,19})(?::(\d{1,19}))?)?", re.ASCII)
_SELECTOR: Final = re.compile(r"(?P<batch>\d{1,19}|last)?(?:/(?P<ranges>[^@]*))?(?:@(?P<states>.*))?", re.ASCII)


class RangeError(ValueError):
    """Indices or a selector that are not understood.

    Attributes:
        found: the part that is wrong, as it was given.
        accepted: what would have been understood, as a phrase for people.
    """

    def __init__(self, found: str, accepted: str) -> None:
        super().__init__(f"found {found!r}, accepted is {accepted}")
        self.found = found
        self.accepted = accepted


def canonical(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """The set that (first, last) pairs in any order cover together; pairs with last < first are empty."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if last < first:
            continue
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def from_indices(indices: Iterable[int]) -> Ranges:
    """The set of some indices, in any order, repeats allowed."""
    return canonical((index, index) for index in indices)


def union(a: Ranges, b: Ranges) -> Ranges:
    """What is in either."""
    return canonical((*a, *b)) if a and b else a or b


def intersect(a: Ranges, b: Ranges) -> Ranges:
    """What is in both."""
    common = []
    at_a = at_b = 0
    while at_a < len(a) and at_b < len(b):
        first, last = max(a[at_a][0], b[at_b][0]), min(a[at_a][1], b[at_b][1])
        if first <= last:
            common.append((first, last))
        if a[at_a][1] < b[at_b][1]:
            at_a += 1
        else:
            at_b += 1
    return tuple(common)


def subtract(a: Ranges, b: Ranges) -> Ranges:
    """What is in `a` and not in `b`."""
    left = []
    at_b = 0
    for begin, last in a:
        first = begin
        while at_b < len(b) and b[at_b][1] < first:
            at_b += 1
        at = at_b
        while at < len(b) and b[at][0] <= last:
            if first < b[at][0]:
                left.append((first, b[at][0] - 1))
            first = b[at][1] + 1
            at += 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def count(ranges: Ranges) -> int:
    """How many indices."""
    return sum(last - first + 1 for first, last in ranges)


def iterate(ranges: Ranges) -> Iterator[int]:
    """All indices, ascending."""
    for first, last in ranges:
        yield from range(first, last + 1)


def contains(ranges: Ranges, index: int) -> bool:
    """Whether an index is in the set."""
    at = bisect_right(ranges, index, key=lambda pair: pair[0])
    return at > 0 and index <= ranges[at - 1][1]


def parse_ranges(text: str) -> Ranges:
    """Read `12`, `12-40`, `12-40:2` (12, 14, ... 40) or several with commas between, in any order.

    Raises:
        RangeError: not understood, empty, or a step with more than `MAX_STEPPED` members.
    """
    pairs: list[tuple[int, int]] = []
    for part in text.split(","):
        pairs += _parse_range(part.strip())
    return canonical(pairs)


def _parse_range(text: str) -> list[tuple[int, int]]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise RangeError(text, ACCEPTED_RANGES)
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    step = 1 if match[3] is None else int(match[3])
    if last > MAX_INDEX or first > last:
        raise RangeError(text, ACCEPTED_RANGES + ", the smaller first")
    if step == 1:
        return [(first, last)]
    if step == 0 or (last - first) // step >= MAX_STEPPED:
        raise RangeError(text, f"a step from 1 and at most {MAX_STEPPED:,} members")
    return [(index, index) for index in range(first, last + 1, step)]


def format_ranges(ranges: Ranges) -> str:
    """Write a set so that `parse_ranges` reads it: `1,12-40,50-60:2`. The empty set is the empty text."""
    parts = []
    at = 0
    while at < len(ranges):
        first, last = ranges[at]
        stepped = _stepped(ranges, at)
        if stepped >= 3:
            step = ranges[at + 1][0] - first
            parts.append(f"{first}-{ranges[at + stepped - 1][0]}:{step}")
            at += stepped
        else:
            parts.append(str(first) if first == last else f"{first}-{last}")
            at += 1
    return ",".join(parts)


def _stepped(ranges: Ranges, at: int) -> int:
    """How many pairs from `at` on are single indices at one distance."""
    end = at
    while end < len(ranges) and ranges[end][0] == ranges[end][1] and end - at < MAX_STEPPED:
        if end - at >= 2 and ranges[end][0] - ranges[end - 1][0] != ranges[at + 1][0] - ranges[at][0]:
            break
        end += 1
    return end - at


class Selector(msgspec.Struct, frozen=True):
    """What somebody points at.

    Attributes:
        batch: its id, `last` for the caller's latest, None where only states are named.
        ranges: None: all jobs of the batch.
        states: names of `JobState`, in the order given; empty: any.
    """

    batch: int | Literal["last"] | None
    ranges: Ranges | None = None
    states: tuple[str, ...] = ()


def parse_selector(text: str) -> Selector:
    """Read `417`, `417/12-40:2,50`, `last`, `last/3`, `@failed`, `417@failed`, `417/1-50@failed,cancelled`.

    Raises:
        RangeError: not understood. `-` (from standard input) is for the caller to see to.
    """
    match = _SELECTOR.fullmatch(text.strip())
    if match is None or not text.strip():
        raise RangeError(text, ACCEPTED_SELECTOR)
    batch = _batch(match["batch"])
    if batch is None and match["ranges"] is not None:
        raise RangeError(text, "a batch before the /, e.g. last/3")
    return Selector(
        batch,
        None if match["ranges"] is None else parse_ranges(match["ranges"]),
        () if match["states"] is None else _states(match["states"]),
    )


def format_selector(selector: Selector) -> str:
    """Write a selector so that `parse_selector` reads it."""
    text = "" if selector.batch is None else str(selector.batch)
    if selector.ranges is not None:
        text += "/" + format_ranges(selector.ranges)
    return text + ("@" + ",".join(selector.states) if selector.states else "")


def _batch(text: str | None) -> int | Literal["last"] | None:
    if text is None:
        return None
    if text == "last":
        return "last"
    if not 1 <= int(text) <= MAX_INDEX:
        raise RangeError(text, "a batch's number, from 1")
    return int(text)


def _states(text: str) -> tuple[str, ...]:
    states = text.split(",")
    for state in states:
        if state not in frozenset(JobState):
            raise RangeError(state, "a state: " + ", ".join(JobState))
    return tuple(dict.fromkeys(states))
