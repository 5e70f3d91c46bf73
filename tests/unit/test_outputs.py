"""The agent's outputs: the index, who reads, credit, tails; and how much is on its way. The starters are the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lanai.agent import output_index
from lanai.agent.output import LOOK_US, NEVER_US, ON_THE_WAY_BYTES, TAILS_AT_MOST, TAILS_AT_ONCE, Here, Outputs
from lanai.agent.output_index import Noted, OutputIndex, Where
from lanai.agent.reads import PIECE_BYTES, Answer, Ask, Record
from lanai.model.ids import BatchId, GrantId, Index
from lanai.wire.messages import Fetch, Output, Tail

G = GrantId(99)


def where(index: int, attempt: int = 1, batch: int = 7) -> Where:
    return BatchId(batch), Index(index), attempt


def fetch(stream: int, index: int = 1, *, which: int = 1, offset: int = 0, follow: bool = False) -> Fetch:
    return Fetch(stream, BatchId(7), Index(index), 1, which, offset, follow, 1 << 20)


class Port:
    """To a starter that answers when the test does."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []

    def read(self, asks: list[Ask]) -> None:
        self.asked.extend(asks)

    def take(self) -> list[Ask]:
        found, self.asked = self.asked, []
        return found


class Bench:
    """Outputs whose agent knows of `here`, with ports to starters of its own and of Anna's and Bert's."""

    def __init__(self, directory: Path) -> None:
        self.index = OutputIndex(directory / "index")
        self.here: dict[Where, Here] = {}
        self.ports = {"": Port(), "anna": Port(), "bert": Port()}
        self.outputs = Outputs(self.index, lambda one: self.here.get(one, Here(False, None)), self.ports.get)
        self.now_us = 1_000_000

    def runs(self, index: int = 1, user: str = "") -> None:
        self.here[where(index)] = Here(True, (G, Index(index)), user)

    def ends(self, index: int, *records: Record | None, outcome: str = "ok", user: str = "") -> None:
        self.here.pop(where(index), None)
        self.outputs.note([Noted(where(index), outcome, list(records), user)])

    def asks(self, user: str = "") -> list[Ask]:
        self.outputs.ask(self.now_us)
        return self.ports[user].take()

    def answer(self, *answers: Answer) -> list[Output | Tail]:
        self.outputs.hear(self.now_us, list(answers))
        return self.outputs.messages()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# -- readers


def test_a_running_attempt_is_asked_for_by_name_and_its_output_passed_on(bench: Bench) -> None:
    bench.runs()
    bench.outputs.fetch(fetch(3, which=2, offset=10))
    (ask,) = bench.asks()
    assert (ask.source, ask.offset, ask.limit) == ((G, 1, 2), 10, PIECE_BYTES)
    assert bench.asks() == []
    assert bench.answer(Answer(ask.number, b"abc", 20)) == [Output(3, 2, 10, b"abc", False, "")]
    (ask,) = bench.asks()
    assert ask.offset == 13
    assert bench.answer(Answer(ask.number, b"defghij", 20)) == [Output(3, 2, 13, b"defghij", True, "")]
    assert bench.outputs.readers == {}


def test_a_follower_looks_again_after_a_while_and_crosses_the_end(bench: Bench) -> None:
    """The starter has told the end before it says that the attempt is not there; the record has the rest."""
    bench.runs()
    bench.outputs.fetch(fetch(3, follow=True))
    (ask,) = bench.asks()
    assert bench.answer(Answer(ask.number, b"one", 3)) == [Output(3, 1, 0, b"one", False, "")]
    (ask,) = bench.asks()
    assert bench.answer(Answer(ask.number, b"", 3)) == []
    assert bench.asks() == [] and bench.outputs.due_us(bench.now_us) == bench.now_us + LOOK_US
    bench.now_us += LOOK_US
    (ask,) = bench.asks()
    bench.ends(1, ["segment", 1, 500, 7], None)
    assert bench.answer(Answer(ask.number, is_gone=True)) == []
    ask, _tail = bench.asks()
    assert (ask.source, ask.offset, ask.limit) == (["segment", 1, 500, 7], 3, PIECE_BYTES)
    assert bench.answer(Answer(ask.number, b"-two", 7)) == [Output(3, 1, 3, b"-two", True, "")]


def test_gone_at_the_starter_and_here_at_the_agent_is_looked_at_again(bench: Bench) -> None:
    bench.runs()
    bench.outputs.fetch(fetch(3))
    (ask,) = bench.asks()
    assert bench.answer(Answer(ask.number, is_gone=True)) == []
    assert bench.asks() == []
    bench.now_us += LOOK_US
    assert len(bench.asks()) == 1


def test_one_that_has_not_begun_ends_at_once_unless_it_is_followed(bench: Bench) -> None:
    bench.here[where(1)] = Here(True, None)
    bench.outputs.fetch(fetch(3))
    bench.outputs.fetch(fetch(4, follow=True))
    assert bench.asks() == []
    assert bench.outputs.messages() == [Output(3, 1, 0, b"", True, "")]
    assert bench.outputs.due_us(bench.now_us) == bench.now_us + LOOK_US


def test_a_file_that_cannot_be_read_is_told_to_a_follower_when_the_attempt_has_ended(bench: Bench) -> None:
    bench.runs()
    bench.outputs.fetch(fetch(3))
    bench.outputs.fetch(fetch(4, follow=True))
    first, second = bench.asks()
    answers = [Answer(ask.number, problem="it is a pipe") for ask in (first, second)]
    assert bench.answer(*answers) == [Output(3, 1, 0, b"", True, "it is a pipe")]
    bench.ends(1, ["user", "/x"], None)
    bench.now_us += LOOK_US
    ask = next(ask for ask in bench.asks() if ask.offset is not None)
    assert bench.answer(Answer(ask.number, problem="it is a pipe")) == [Output(4, 1, 0, b"", True, "it is a pipe")]


def test_what_ended_without_output_lost_it_or_was_never_here_ends_at_once(bench: Bench) -> None:
    bench.ends(1, ["lost", "No space left on device", 5], None)
    for stream, (index, which) in enumerate([(1, 1), (1, 2), (2, 1)]):
        bench.outputs.fetch(fetch(stream, index, which=which))
    assert bench.asks() == []
    assert [(one.stream, one.is_end, one.problem) for one in bench.outputs.messages() if isinstance(one, Output)] == [
        (0, True, "this output was lost: No space left on device"),
        (1, True, ""),
        (2, True, ""),
    ]


def test_what_the_starter_does_not_find_any_more_is_said_so(bench: Bench) -> None:
    bench.ends(1, ["segment", 1, 0, 10], None)
    bench.asks()
    bench.outputs.fetch(fetch(3))
    (ask,) = bench.asks()
    (end,) = bench.answer(Answer(ask.number, b"", 10))
    assert isinstance(end, Output) and end.is_end and end.problem == "this output is not kept here any more"


def test_credit_bounds_what_is_asked_for(bench: Bench) -> None:
    bench.runs()
    bench.outputs.fetch(Fetch(3, BatchId(7), Index(1), 1, 1, 0, True, 10))
    (ask,) = bench.asks()
    assert ask.limit == 10
    bench.answer(Answer(ask.number, b"0123456789", 30))
    assert bench.asks() == [] and bench.outputs.due_us(bench.now_us) == NEVER_US
    bench.outputs.credit(3, 5)
    (ask,) = bench.asks()
    assert (ask.offset, ask.limit) == (10, 5)


def test_an_answer_to_one_who_has_gone_is_dropped(bench: Bench) -> None:
    bench.runs()
    bench.outputs.fetch(fetch(3))
    bench.outputs.fetch(fetch(4))
    first, second = bench.asks()
    bench.outputs.unfetch(3)
    bench.outputs.fetch(fetch(3, offset=100))
    assert bench.answer(Answer(first.number, b"old", 3)) == []
    bench.outputs.unfetch_all()
    assert bench.answer(Answer(second.number, b"old", 3)) == []


def test_readers_take_turns_where_not_all_can_be_asked_for(bench: Bench) -> None:
    bench.runs()
    count = 3 * ON_THE_WAY_BYTES // PIECE_BYTES
    for stream in range(count):
        bench.outputs.fetch(fetch(stream, follow=True))
    served: set[int] = set()
    for _ in range(3):
        asks = bench.asks()
        assert sum(ask.limit for ask in asks) == ON_THE_WAY_BYTES
        messages = bench.answer(*[Answer(ask.number, b"x", 1 << 40) for ask in asks])
        served |= {one.stream for one in messages if isinstance(one, Output)}
    assert served == set(range(count))


def test_nothing_is_asked_for_while_messages_wait_for_the_link(bench: Bench) -> None:
    bench.runs()
    bench.outputs.fetch(fetch(3, follow=True))
    (ask,) = bench.asks()
    bench.outputs.hear(bench.now_us, [Answer(ask.number, b"x", 9)])
    assert bench.asks() == [] and bench.outputs.due_us(bench.now_us) == bench.now_us
    bench.outputs.messages()
    assert len(bench.asks()) == 1


# -- tails


def test_a_tail_has_the_ends_of_both_outputs(bench: Bench) -> None:
    bench.ends(1, ["segment", 1, 0, 5], ["file", "jobs/7/1.1.err", 100_000], outcome="exit")
    bench.ends(2, ["segment", 1, 5, 50_000], None)
    bench.ends(3, ["user", "/x"], ["lost", "No space left on device", 9])
    asks = bench.asks()
    assert [(ask.offset, ask.limit) for ask in asks] == [(None, 5), (None, 65536), (None, 4096), (None, 4096)]
    out, err, second, third = asks
    assert bench.answer(Answer(err.number, b"e" * 65536, 100_000)) == []
    assert bench.answer(Answer(out.number, b"hello", 5), Answer(second.number, b"s" * 4096, 50_000)) == [
        Tail(*where(1), b"hello", b"e" * 65536, 5, 100_000, True),
        Tail(*where(2), b"s" * 4096, b"", 50_000, 0, False),
    ]
    assert bench.answer(Answer(third.number, problem="it is a pipe")) == []


def test_tails_come_in_portions_that_are_bounded(bench: Bench) -> None:
    for index in range(1, 3 * TAILS_AT_ONCE):
        bench.ends(index, ["segment", 1, index, 1], None)
    first = bench.asks()
    assert len(first) == TAILS_AT_ONCE and bench.asks() == []
    assert len(bench.answer(*[Answer(ask.number, b"x", 1) for ask in first])) == TAILS_AT_ONCE
    assert len(bench.asks()) == TAILS_AT_ONCE


def test_large_tails_are_bounded_by_their_size(bench: Bench) -> None:
    for index in range(1, 50):
        bench.ends(index, ["file", "jobs/7/1.1.out", 1 << 30], ["file", "jobs/7/1.1.err", 1 << 30], outcome="exit")
    count = 0
    while asks := bench.asks():
        assert sum(ask.limit for ask in asks) <= ON_THE_WAY_BYTES
        bench.outputs.hear(bench.now_us, [Answer(ask.number, b"x" * ask.limit, 1 << 30) for ask in asks])
        while messages := bench.outputs.messages():
            count += len(messages)
    assert count == 49


def test_of_too_many_the_oldest_of_whoever_has_most_go_without(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanai.agent.output.TAILS_AT_MOST", 10)
    assert TAILS_AT_MOST > 10
    bench.ends(1, ["segment", 1, 1, 1], None, user="bert")
    for index in range(2, 20):
        bench.ends(index, ["segment", 1, index, 1], None, user="anna")
    bench.outputs.ask(bench.now_us)
    assert len(bench.ports["bert"].take()) == 1
    assert [ask.source[2] for ask in bench.ports["anna"].take()] == list(range(11, 20))


# -- several starters


def test_each_output_is_asked_of_the_starter_of_its_user(bench: Bench) -> None:
    bench.runs(1, user="anna")
    bench.ends(2, ["segment", 1, 0, 5], None, user="bert")
    bench.outputs.fetch(fetch(3, 1, follow=True))
    bench.outputs.fetch(fetch(4, 2))
    bench.outputs.ask(bench.now_us)
    assert [ask.source for ask in bench.ports["anna"].take()] == [(G, 1, 1)]
    assert [ask.source for ask in bench.ports["bert"].take()] == [["segment", 1, 0, 5]] * 2
    assert bench.ports[""].take() == []


def test_a_starter_that_does_not_answer_delays_nobody_elses(bench: Bench) -> None:
    for index in range(1, 100):
        bench.ends(index, ["file", "jobs/7/1.1.out", 1 << 20], None, outcome="exit", user="bert")
    assert bench.asks("bert") and bench.asks("bert") == []
    bench.ends(200, ["segment", 1, 0, 5], None, user="anna")
    assert len(bench.asks("anna")) == 1


def test_where_there_can_be_no_starter_a_reader_is_told(bench: Bench) -> None:
    bench.ends(2, ["segment", 1, 0, 5], None, user="gone")
    bench.outputs.fetch(fetch(4, 2))
    bench.outputs.ask(bench.now_us)
    (end,) = bench.outputs.messages()
    assert isinstance(end, Output) and end.is_end
    assert end.problem == "the node cannot read it now: nothing can run as gone there"


# -- the index


def test_the_index_finds_the_last_line_of_an_attempt(bench: Bench) -> None:
    bench.ends(1, ["segment", 1, 0, 5], None)
    bench.ends(11, ["user", "/x\n[1,1,\udcff"], None, user="anna")
    bench.ends(1, None, ["segment", 2, 0, 5])
    assert bench.index.find(where(1)) == ([None, ["segment", 2, 0, 5]], "")
    assert bench.index.find(where(11)) == ([["user", "/x\n[1,1,\udcff"], None], "anna")
    assert bench.index.find(where(1, 2)) is None
    assert bench.index.find(where(1, batch=8)) is None


@pytest.mark.parametrize("line", ["[1,1,", "[1,1,[7,null]]", "[1,1,7]", "[1,1,[[],null]]", "[1,1]"])
def test_a_torn_or_foreign_line_is_none(bench: Bench, tmp_path: Path, line: str) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "7").write_text(f"\n{line}\n")
    assert bench.index.find(where(1)) is None


def test_an_index_of_an_earlier_version_is_taken_along(tmp_path: Path) -> None:
    """Twice, since somebody may have gone back to it in between; what both have of a batch is put together."""
    former, to = tmp_path / "starter" / "index", tmp_path / "index"
    former.mkdir(parents=True)
    (former / "7").write_text('\n[1,1,[["segment",1,0,5],null]]\n')
    index = output_index.moved(former, to)
    assert not former.exists()
    assert index.find(where(1)) == ([["segment", 1, 0, 5], None], "")
    former.mkdir()
    (former / "7").write_text('\n[2,1,[["segment",1,5,5],null]]\n')
    (former / "8").write_text('\n[1,1,[["segment",1,9,5],null]]\n')
    index = output_index.moved(former, to)
    found = [index.find(one) for one in (where(1), where(2), where(1, batch=8))]
    assert [one and one[0][0] for one in found] == [["segment", 1, at, 5] for at in (0, 5, 9)]
    assert output_index.moved(former, to).find(where(2)) == found[1]


def test_batches_that_ended_long_ago_are_forgotten(bench: Bench, tmp_path: Path) -> None:
    bench.ends(1, ["segment", 1, 0, 5], None)
    os.utime(tmp_path / "index" / "7", (1000, 1000))
    bench.index.sweep(1000, 1 << 30)
    assert bench.index.find(where(1)) is not None
    bench.index.sweep(1001, 1 << 30)
    assert bench.index.find(where(1)) is None
