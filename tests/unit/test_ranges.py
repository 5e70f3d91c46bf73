"""Sets of indices against Python's own sets, and the selectors that people type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanai.model.job import JobState
from lanai.model.ranges import (
    RangeError,
    Ranges,
    Selector,
    canonical,
    contains,
    count,
    format_ranges,
    format_selector,
    from_indices,
    intersect,
    iterate,
    parse_ranges,
    parse_selector,
    subtract,
    union,
)

INDICES = st.sets(st.integers(0, 60), max_size=40)


def is_canonical(ranges: Ranges) -> bool:
    return all(first <= last for first, last in ranges) and all(
        ranges[at][1] + 1 < ranges[at + 1][0] for at in range(len(ranges) - 1)
    )


@given(INDICES, INDICES)
def test_the_operations_agree_with_sets(a: set[int], b: set[int]) -> None:
    ranges_a, ranges_b = from_indices(a), from_indices(b)
    for made, expected in [
        (ranges_a, a),
        (union(ranges_a, ranges_b), a | b),
        (intersect(ranges_a, ranges_b), a & b),
        (subtract(ranges_a, ranges_b), a - b),
    ]:
        assert is_canonical(made)
        assert list(iterate(made)) == sorted(expected)
        assert count(made) == len(expected)
        assert [index for index in range(-1, 62) if contains(made, index)] == sorted(expected)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20))
def test_any_pairs_become_canonical(pairs: list[tuple[int, int]]) -> None:
    ranges = canonical(pairs)
    assert is_canonical(ranges)
    assert set(iterate(ranges)) == {index for first, last in pairs for index in range(first, last + 1)}


@given(INDICES)
def test_what_is_written_is_read_back(indices: set[int]) -> None:
    ranges = from_indices(indices)
    if ranges:
        assert parse_ranges(format_ranges(ranges)) == ranges
    else:
        assert format_ranges(ranges) == ""


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9))
def test_a_step_means_every_so_many(first: int, more: int, step: int) -> None:
    ranges = parse_ranges(f"{first}-{first + more}:{step}")
    assert list(iterate(ranges)) == list(range(first, first + more + 1, step))


def test_ranges_as_people_write_them() -> None:
    assert parse_ranges("12-40") == ((12, 40),)
    assert parse_ranges("50, 12-16:2,13") == ((12, 14), (16, 16), (50, 50))
    assert format_ranges(((1, 1), (3, 3), (5, 5), (9, 12), (20, 20), (30, 30))) == "1-5:2,9-12,20,30"
    assert count(parse_ranges("0-9223372036854775807")) == 2**63


@pytest.mark.parametrize("text", ["", ",", "a", "5-3", "1-", "-1", "1-9:0", "1:2", "1-2000001:2", "9" * 19, "²"])
def test_other_ranges_are_refused(text: str) -> None:
    with pytest.raises(RangeError) as caught:
        parse_ranges(text)
    assert caught.value.found in text and caught.value.accepted


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("417", Selector(417)),
        ("417/12-16:2", Selector(417, ((12, 12), (14, 14), (16, 16)))),
        ("last", Selector("last")),
        ("last/3", Selector("last", ((3, 3),))),
        ("@failed", Selector(None, None, ("failed",))),
        ("417@failed", Selector(417, None, ("failed",))),
        ("last/1-50@failed,cancelled", Selector("last", ((1, 50),), ("failed", "cancelled"))),
    ],
)
def test_selectors(text: str, selector: Selector) -> None:
    assert parse_selector(text) == selector
    assert parse_selector(format_selector(selector)) == selector


@pytest.mark.parametrize(
    "text", ["", " ", "-", "0", "latest", "417/", "417/x", "/3", "@", "@fail", "417@", "417@failed,", "1/2/3", "@a@b"]
)
def test_other_selectors_are_refused(text: str) -> None:
    with pytest.raises(RangeError) as caught:
        parse_selector(text)
    assert caught.value.accepted


def test_every_state_can_be_selected() -> None:
    for state in JobState:
        assert parse_selector(f"@{state}").states == (state,)
