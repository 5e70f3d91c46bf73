import io
from collections.abc import Iterable

import click
import pytest

from lanai.cli.choose import Chosen, choose, choose_batch
from lanai.model.ranges import Ranges, canonical


def test_nothing_named_is_the_newest_batch() -> None:
    assert choose([]) == [Chosen(batch="last")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("417", Chosen(batch=417)),
        ("last", Chosen(batch="last")),
        ("@failed", Chosen(batch="last", states=("failed",))),
        ("417/3", Chosen(batch=417, ranges=((3, 3),))),
        ("417/12-40:14", Chosen(batch=417, ranges=((12, 12), (26, 26), (40, 40)))),
        ("417/1-5@failed", Chosen(batch=417, ranges=((1, 5),), states=("failed",))),
    ],
)
def test_selectors(text: str, expected: Chosen) -> None:
    assert choose([text]) == [expected]


def test_jobs_of_one_batch_are_gathered() -> None:
    assert choose(["7/1", "8/4", "7/2", "7/9"]) == [
        Chosen(batch=7, ranges=((1, 2), (9, 9))),
        Chosen(batch=8, ranges=((4, 4),)),
    ]


def test_a_whole_batch_holds_its_jobs() -> None:
    assert choose(["7/1", "7", "7/2"]) == [Chosen(batch=7)]


def test_a_dash_is_more_of_them_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("7/1\n7/2 7/5\n\n"))
    assert choose(["-"]) == [Chosen(batch=7, ranges=((1, 2), (5, 5)))]


def test_a_long_list_of_single_jobs_costs_by_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A union with what was gathered so far, for each of 66,667 jobs, took five minutes."""
    joined = []

    def counted(pairs: Iterable[tuple[int, int]]) -> Ranges:
        given = list(pairs)
        joined.append(len(given))
        return canonical(given)

    monkeypatch.setattr("lanai.model.ranges.canonical", counted)
    monkeypatch.setattr("lanai.cli.choose.canonical", counted)
    indices = range(1, 3000, 3)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"14/{index}\n" for index in indices)))
    assert choose(["-"]) == [Chosen(batch=14, ranges=tuple((index, index) for index in indices))]
    assert sum(joined) == 2 * len(indices)


@pytest.mark.parametrize("text", ["", "x", "7/", "7/5-1", "7@nostate", "/3"])
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError):
        choose([text])


def test_one_job_is_told_from_several() -> None:
    assert choose(["7/3"])[0].single() == 3
    assert choose(["7/3-4"])[0].single() is None
    assert choose(["7/3@failed"])[0].single() is None
    assert choose(["7"])[0].single() is None


def test_where_a_batch_is_wanted_jobs_are_refused() -> None:
    assert choose_batch(["7"]) == 7
    assert choose_batch([]) == "last"
    for texts in (["7/1"], ["7@failed"], ["7", "8"]):
        with pytest.raises(click.UsageError):
            choose_batch(texts)
