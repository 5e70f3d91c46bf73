"""What an agent gives a starter of control groups, and what one that lies gets: with the kernel's own groups."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent import starter_link as link
from lanai.agent.cgroups import Cgroups, Wishes, left_in
from lanai.agent.leaves import LITTERED, RESERVE, Leaves, Words
from lanai.model.resources import Shape
from services.cgroups import needs_cgroups

HELLO = link.Hello(1, 1, "mark", frozenset({"leaves"}))
LIMITED = Shape(memory_bytes=64 << 20)


class Given:
    """The leaves of one starter, which is a process that sleeps; what is said to it is counted, not sent."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.log: list[str] = []
        self.cgroups = Cgroups(state, Wishes())
        self.leaves = Leaves(self.cgroups, "somebody", self.log.append)
        self.starter = subprocess.Popen(["sleep", "600"])
        self.leaves.start(self.starter.pid)

    def greet(self) -> None:
        assert self.count(self.leaves.greeted(HELLO)) == 1

    def count(self, some: Iterator[Words]) -> int:
        """How many words were said; their descriptors are closed, as after sending."""
        said = list(some)
        for words in said:
            for descriptor in words.descriptors:
                os.close(descriptor)
        return len(said)

    def made(self) -> int:
        """How many leaves there are."""
        return len({path.name for path in self.cgroups.left() if path.name.isdigit()})

    def close(self) -> None:
        self.leaves.kill()
        self.starter.wait(20)
        self.cgroups.close()
        assert not self.cgroups.left()


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    needs_cgroups()
    made = Given(tmp_path)
    yield made
    made.close()


def test_it_has_as_many_as_may_run_at_once_and_a_few_more(given: Given) -> None:
    """Before they may run, and not again when that is said again; what runs without a limit needs none."""
    assert given.leaves.needed_by(LIMITED) is None, "it has not said that it can"
    given.greet()
    assert left_in(given.state) == {given.starter.pid}
    assert given.leaves.needed_by(Shape()) is None
    assert given.leaves.needed_by(LIMITED) == {"cpu": None}
    assert given.count(given.leaves.widen(1, 4)) == 4 + RESERVE == given.made()
    assert given.count(given.leaves.widen(1, 4)) == given.count(given.leaves.widen(1, 2)) == 0
    assert given.count(given.leaves.widen(2, 3)) == 1


def test_one_that_wants_more_than_it_was_given_jobs_for_gets_no_more(given: Given) -> None:
    given.greet()
    given.count(given.leaves.widen(1, 2))
    assert given.count(given.leaves.asked(link.Leaves(1 << 40, []))) == 0
    given.leaves.promise(3)
    assert given.count(given.leaves.asked(link.Leaves(1 << 40, []))) == 3
    assert given.count(given.leaves.asked(link.Leaves(1 << 40, []))) == 0
    assert given.count(given.leaves.asked(link.Leaves(-5, []))) == 0


def test_there_is_an_end_to_what_is_littered(given: Given) -> None:
    """However many jobs it was given: then it is told to do without."""
    given.greet()
    given.leaves.promise(10_000)
    said = given.count(given.leaves.asked(link.Leaves(10_000, [])))
    assert said == RESERVE + LITTERED + 1 and given.made() == RESERVE + LITTERED
    assert given.log == [f"no more cgroups for somebody: {RESERVE + LITTERED} are in use"]


def test_what_is_given_back_is_removed_and_what_was_never_given_is_not_looked_for(given: Given) -> None:
    given.greet()
    given.count(given.leaves.widen(1, 2))
    before = given.made()
    assert given.count(given.leaves.asked(link.Leaves(0, [1, 1, -3, 1 << 70]))) == 0
    assert given.made() == before - 1


def test_what_nobody_holds_any_more_is_removed_when_a_new_agent_comes(given: Given) -> None:
    """One that claims what is not there gets nothing by it."""
    given.greet()
    given.count(given.leaves.widen(1, 2))
    after = Leaves(given.cgroups, "somebody", given.log.append)
    after.start(given.starter.pid)
    given.count(after.greeted(HELLO))
    after.found(link.Inventory([], [], 0, (2, 5, 999)))
    assert given.made() == 2 and given.log == []


@pytest.mark.parametrize("wanted", ["Infinity", "NaN", "[]", "null", '"x"'])
def test_numbers_that_are_none_are_a_broken_protocol(wanted: str) -> None:
    payload = b'{"m":"leaves","wanted":%s,"returned":[]}' % wanted.encode()
    with pytest.raises(link.LinkError, match="malformed report"):
        list(link.StarterLink().feed(len(payload).to_bytes(4, "big") + payload))
