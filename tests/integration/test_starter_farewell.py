"""A starter that is asked to end: what it says last, and what it does not take any more."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent import starter_link as sl
from services.starter_bench import end_starter

PATIENCE_S = 20.0


class Asked:
    """A starter and its agent's end of the connection, for one job that runs."""

    def __init__(self, directory: Path) -> None:
        self.place = sl.own_place(directory / "starter")
        self.pid = sl.start_starter(self.place)
        self.connection = sl.Connection(self.place)
        link = self.link = self.connection.link
        self.connection.send(link.inventory())
        self.connection.send(link.spec(1, batch=7, cwd="/", env={}) + link.lane(1, 1))
        self.give(1, ["sleep", "1000"])
        while not isinstance(self.connection.receive(PATIENCE_S), sl.Started):
            pass

    def give(self, index: int, words: list[str]) -> None:
        self.connection.send(self.link.run(1, 1, 1, [[index, 1, words]]))

    def last_words(self) -> tuple[list[sl.Ended], list[sl.Key] | None]:
        """All ends from now on, and what is said to be left."""
        ended: list[sl.Ended] = []
        left = None
        with contextlib.suppress(sl.LinkError):
            while isinstance(report := self.connection.receive(PATIENCE_S), sl.EndedMany):
                ended += report.items
                left = report.left
        return ended, left


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    made = Asked(tmp_path)
    yield made
    end_starter(made.connection, made.pid, made.place)


def test_what_waits_is_not_told_as_ended(asked: Asked) -> None:
    """It has not begun, and so may be given to another: only what ran has an end."""
    asked.give(2, ["true"])
    os.kill(asked.pid, signal.SIGTERM)
    ended, left = asked.last_words()
    assert [(end.index, end.outcome, end.reason) for end in ended] == [(1, "node", "starter ended by SIGTERM")]
    assert left == []


def test_what_comes_while_it_ends_does_not_begin(asked: Asked, tmp_path: Path) -> None:
    """It lies unread, or was read together with the signal: nothing of it has begun, and that is said."""
    os.kill(asked.pid, signal.SIGSTOP)
    os.waitpid(asked.pid, os.WUNTRACED)
    asked.connection.send(asked.link.lane(1, 5))
    for index in range(2, 100):
        asked.give(index, ["touch", str(tmp_path / "begun")])
    os.kill(asked.pid, signal.SIGTERM)
    os.kill(asked.pid, signal.SIGCONT)
    ended, left = asked.last_words()
    assert [end.index for end in ended] == [1]
    assert left == []
    assert not (tmp_path / "begun").exists()


def test_an_agent_that_reads_late_loses_none_of_its_words(asked: Asked, tmp_path: Path) -> None:
    """There is more to say than a socket holds when it is asked to end: it waits for its agent, within reason."""
    os.mkfifo(tmp_path / "over")
    asked.connection.send(asked.link.lane(1, 2))
    for index in range(2, 3002):
        asked.give(index, ["/no/such/program/" + "x" * 200])
    asked.give(3002, ["sh", "-c", f"echo > {tmp_path}/over"])
    assert (tmp_path / "over").read_bytes() == b"\n"
    os.kill(asked.pid, signal.SIGTERM)
    ended, left = asked.last_words()
    assert [end.sequence for end in ended] == list(range(1, len(ended) + 1))
    assert {end.index for end in ended} == set(range(1, 3003))
    assert left == []
