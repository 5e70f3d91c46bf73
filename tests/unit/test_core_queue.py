"""Spans against a naive set of numbers."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lanai.core.queue import Spans, size, spans_of

spans = st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda pair: (pair[0], sum(pair)))


def members(pairs: object) -> set[int]:
    return {index for first, last in pairs for index in range(first, last + 1)}  # type: ignore[attr-defined]


class SpansAgainstASet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.spans = Spans()
        self.naive: set[int] = set()

    @rule(span=spans)
    def add(self, span: tuple[int, int]) -> None:
        fresh = members([span]) - self.naive
        assert self.spans.add(*span) == len(fresh)
        self.naive |= fresh

    @rule(span=spans)
    def remove(self, span: tuple[int, int]) -> None:
        gone = members([span]) & self.naive
        assert members(self.spans.remove(*span)) == gone
        self.naive -= gone

    @rule(wanted=st.sets(st.integers(1, 60)))
    def merge(self, wanted: set[int]) -> None:
        fresh = wanted - self.naive
        self.spans.merge(list(spans_of(fresh)))
        self.naive |= fresh

    @rule(most=st.integers(0, 20))
    def take(self, most: int) -> None:
        taken = self.spans.take(most)
        lowest = set(sorted(self.naive)[:most])
        assert members(taken) == lowest
        self.naive -= lowest

    @rule(span=spans)
    def look(self, span: tuple[int, int]) -> None:
        assert members(self.spans.within(*span)) == members([span]) & self.naive
        assert (span[0] in self.spans) == (span[0] in self.naive)
        assert self.spans.before(span[0]) == len([index for index in self.naive if index < span[0]])

    @invariant()
    def is_the_same_set(self) -> None:
        pairs = self.spans.spans()
        assert members(pairs) == self.naive
        assert self.spans.count == len(self.naive) == size(pairs)
        assert bool(self.spans) == bool(self.naive)
        assert all(a[1] + 1 < b[0] for a, b in pairwise(pairs)), "neighbours are one span"
        if self.naive:
            assert self.spans.head() == min(self.naive)


TestSpansAgainstASet = SpansAgainstASet.TestCase
TestSpansAgainstASet.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.lists(spans))
def test_spans_in_any_order_make_the_same_set_as_one_after_the_other(pairs: list[tuple[int, int]]) -> None:
    made, added = Spans.of(pairs), Spans(pairs)
    assert (made.spans(), made.count) == (added.spans(), added.count)


@given(st.sets(st.integers(0, 200)))
def test_any_indices_as_spans(indices: set[int]) -> None:
    pairs = spans_of(indices)
    assert members(pairs) == indices
    assert pairs == Spans(pairs).spans()
