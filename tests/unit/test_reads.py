"""What an agent asks a starter to read, and what it makes of the answers: of honest ones, of lies, and of none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lanai.agent import starter_link as link
from lanai.agent.reads import NAME_CHARACTERS, Answer, Ask, Reads, Source, checked
from lanai.model.ids import Index, grant_id

CAN = frozenset({"read"})
RUNNING: Source = (grant_id(1, 1), Index(5), 1)
SEGMENT: Source = ["segment", 1, 100, 10]
NAMED: Source = ["user", "/home/anna/out"]


def piece(data: bytes = b"", length: int = 0, *, is_gone: bool = False, problem: str | None = None) -> link.Piece:
    return link.Piece(base64.b64encode(data).decode(), length, is_gone, problem)


def asked(*asks: Ask) -> Reads:
    """Reads of which all have been said to a starter, as read 1."""
    reads = Reads()
    reads.on_hello(CAN)
    reads.add(list(asks))
    assert said(reads) == [[_json(ask.source), ask.offset, ask.limit] for ask in asks]
    return reads


def said(reads: Reads) -> list[Any]:
    """The items that it has the starter told now."""
    words = reads.words(link.StarterLink())
    items: list[Any] = json.loads(words[4:])["items"] if words else []
    return items


def _json(value: object) -> object:
    return json.loads(json.dumps(value))


def test_nothing_is_said_before_the_starter_has_greeted() -> None:
    reads = Reads()
    reads.add([Ask(1, SEGMENT, 0, 10)])
    assert said(reads) == [] and reads.is_waiting
    reads.on_hello(CAN)
    assert said(reads) == [[SEGMENT, 0, 10]]
    assert said(reads) == [] and not reads.is_waiting


def test_answers_belong_to_the_questions_in_their_order_however_many_messages_they_take() -> None:
    reads = asked(Ask(7, SEGMENT, 0, 10), Ask(8, RUNNING, 5, 10), Ask(9, NAMED, None, 3))
    reads.add([Ask(10, RUNNING, 0, 10)])
    said(reads)
    reads.take(link.Data(1, [piece(b"0123456789", 10), piece(is_gone=True)]))
    reads.take(link.Data(1, [piece(problem="it is a pipe")]))
    reads.take(link.Data(2, [piece(b"x", 1)]))
    assert reads.answers == [
        Answer(7, b"0123456789", 10),
        Answer(8, is_gone=True),
        Answer(9, problem="it is a pipe"),
        Answer(10, b"x", 1),
    ]


@pytest.mark.parametrize(
    "lie",
    [
        link.Data(2, [piece(b"x", 10)]),
        link.Data("1", [piece(b"x", 10)]),  # type: ignore[arg-type]
        link.Data(1, [piece(b"x", 10), piece(b"x", 10)]),
        link.Data(1, [piece(b"01234", 10)]),
        link.Data(1, [piece(b"0123", 8)]),
        link.Data(1, [piece(b"x", 4)]),
        link.Data(1, [piece(b"x", -1)]),
        link.Data(1, [piece(b"x", 1 << 64)]),
        link.Data(1, [piece(b"x", True)]),
        link.Data(1, [link.Piece("%%%", 10, False, None)]),
        link.Data(1, [link.Piece("eA", 10, False, None)]),
        link.Data(1, [link.Piece("\udcff", 10, False, None)]),
        link.Data(1, [link.Piece(7, 10, False, None)]),  # type: ignore[arg-type]
        link.Data(1, [link.Piece("", 10, False, 7)]),  # type: ignore[arg-type]
        link.Data(1, [piece(is_gone=True)]),
        link.Data(1, [piece(b"x", 10, is_gone=True)]),
    ],
)
def test_what_is_no_answer_to_what_was_asked_ends_the_connection(lie: link.Data) -> None:
    """More than was asked for, more than there can be after that offset, other kinds of values, and other reads."""
    reads = asked(Ask(1, SEGMENT, 5, 4))
    with pytest.raises(link.LinkError):
        reads.take(lie)
    numbers = [answer.number for answer in reads.answers]
    reads.on_death()
    reads.on_missing("none")
    assert numbers or [answer.number for answer in reads.answers] == [1]


def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    reads = Reads()
    reads.on_hello(CAN)
    with pytest.raises(link.LinkError):
        reads.take(link.Data(1, []))


def test_a_problem_is_made_fit_to_be_shown() -> None:
    reads = asked(Ask(1, NAMED, 0, 10), Ask(2, NAMED, 0, 10))
    reads.take(link.Data(1, [piece(problem="\udcff" + "x" * 1000), piece(problem="")]))
    first, second = (answer.problem for answer in reads.answers)
    assert len(first) == 500 and first.encode()
    assert second


def test_when_the_starter_dies_its_own_files_are_asked_of_the_next_once() -> None:
    """A file of its user's may be what it has died of; an attempt has died with it."""
    reads = asked(Ask(1, SEGMENT, 0, 10), Ask(2, NAMED, 0, 10), Ask(3, RUNNING, 0, 10))
    reads.on_death()
    died = "the node cannot read it now: what was to read it there has died"
    assert reads.answers == [Answer(2, problem=died), Answer(3, is_gone=True)]
    assert said(reads) == [] and reads.is_waiting
    reads.on_hello(CAN)
    assert said(reads) == [[SEGMENT, 0, 10]]
    reads.on_death()
    assert reads.answers[2:] == [Answer(1, problem=died)] and not reads.is_waiting


def test_one_that_was_to_end_has_died_of_nothing_that_was_asked() -> None:
    reads = asked(Ask(1, SEGMENT, 0, 10), Ask(2, NAMED, 0, 10))
    reads.on_death(was_to_end=True)
    reads.on_hello(CAN)
    assert said(reads) == [[SEGMENT, 0, 10], [NAMED, 0, 10]]


def test_where_no_starter_can_be_started_that_is_the_answer() -> None:
    reads = Reads()
    reads.add([Ask(1, SEGMENT, 0, 10)])
    reads.on_missing("cannot start commands: Not a directory")
    assert reads.answers == [
        Answer(1, problem="the node cannot read it now: cannot start commands: Not a directory"),
    ]
    assert not reads.is_waiting


def test_a_starter_of_an_earlier_version_is_not_asked() -> None:
    """It would take the word for garbage and hang up."""
    reads = Reads()
    reads.add([Ask(1, SEGMENT, 0, 10)])
    reads.on_hello(frozenset())
    reads.add([Ask(2, SEGMENT, 0, 10)])
    assert said(reads) == []
    assert [(answer.number, "earlier version" in answer.problem) for answer in reads.answers] == [(1, True), (2, True)]


def test_records_as_a_starter_tells_them() -> None:
    good = [["segment", 1, 0, 5], ["file", "jobs/7/1.1.out", 100_000]]
    assert checked(good) == good
    assert checked([None, ["user", "/x\udcff"]]) == [None, ["user", "/x\udcff"]]
    long = checked([["user", "x" * (NAME_CHARACTERS + 1)], ["lost", "No space left on device", 5]])
    assert long == [["lost", "the name of its file is too long", 0], ["lost", "No space left on device", 5]]


@pytest.mark.parametrize(
    "record",
    [
        "segment",
        7,
        [],
        ["segment", 1, 0],
        ["segment", "1", 0, 5],
        ["segment", 1, -1, 5],
        ["segment", 1, 0, 1 << 64],
        ["segment", True, 0, 5],
        ["file", 7, 5],
        ["file", "x" * (NAME_CHARACTERS + 1), 5],
        ["user", None],
        ["user", "x", 5],
        ["other", "x", 5],
        {"user": "x"},
    ],
)
def test_a_record_that_is_none_ends_the_connection(record: object) -> None:
    with pytest.raises(link.LinkError):
        checked([None, record])


def test_there_are_two_records() -> None:
    for records in ([], [None], [None, None, None], {}, "xy"):
        with pytest.raises(link.LinkError):
            checked(records)
