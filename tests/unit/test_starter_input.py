"""Standard input in the starter: by offset each byte goes on once, and whoever asks is told how far it is."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from lanai.agent.starter_input import Inputs
from lanai.agent.starter_reports import Key

KEY = (1, 1)
Told = list[tuple[Key, int, bool, int | None]]


class Command:
    """The reading end of an attempt's pipe, and what the agent was told of it."""

    def __init__(self, poller: select.epoll) -> None:
        self.told: Told = []
        self.inputs = Inputs(poller, lambda *said: self.told.append(said))
        self._poller = poller
        self.read_fd = -1

    def begin(self) -> None:
        self.read_fd = self.inputs.open(KEY)

    def feed(self, data: bytes, *, at: int | None, is_end: bool = False) -> Told:
        """What is told of this piece, with all that can be written written."""
        self.told.clear()
        assert self.inputs.feed(KEY, data, is_end, at)
        for fd, _ in self._poller.poll(0):
            self.inputs.write(fd)
        return self.told

    def close(self) -> None:
        self.inputs.forget_all_but(lambda key: False)
        if self.read_fd >= 0:
            os.close(self.read_fd)


@pytest.fixture
def command() -> Iterator[Command]:
    with select.epoll() as poller:
        made = Command(poller)
        yield made
        made.close()


def test_a_piece_sent_again_is_told_and_not_written_again(command: Command) -> None:
    """An agent that took over does not know what its predecessor gave."""
    command.begin()
    assert command.feed(b"abc", at=0) == [(KEY, 3, False, None)]
    assert command.feed(b"abc", at=0) == [(KEY, 3, False, None)]
    assert command.feed(b"", at=3) == [(KEY, 3, False, None)]
    assert command.feed(b"bcde", at=1) == [(KEY, 5, False, None)]
    assert os.read(command.read_fd, 100) == b"abcde"


def test_an_end_sent_again_is_told_as_the_end(command: Command) -> None:
    command.begin()
    assert command.feed(b"abc", at=0, is_end=True) == [(KEY, 3, True, None)]
    assert command.feed(b"abc", at=0, is_end=True) == [(KEY, 3, True, None)]
    assert command.feed(b"", at=3, is_end=True) == [(KEY, 3, True, None)]
    assert os.read(command.read_fd, 100) == b"abc"
    assert os.read(command.read_fd, 100) == b""


def test_before_the_command_begins_a_repeat_is_kept_once(command: Command) -> None:
    assert command.feed(b"abc", at=0) == []
    assert command.feed(b"abcd", at=0, is_end=True) == []
    assert command.feed(b"abcd", at=0, is_end=True) == [(KEY, 0, False, None)]
    command.begin()
    assert command.feed(b"abcd", at=0, is_end=True) == [(KEY, 0, False, None), (KEY, 4, True, None)]
    assert os.read(command.read_fd, 100) == b"abcd"


def test_what_the_pipe_has_no_room_for_is_not_told_as_taken_and_not_taken_twice(command: Command) -> None:
    command.begin()
    whole = os.urandom(1 << 18)
    first = command.feed(whole, at=0)[-1][1]
    assert 0 < first < len(whole)
    assert command.feed(whole, at=0)[0] == (KEY, first, False, None)
    read = bytearray()
    while len(read) < len(whole):
        read += os.read(command.read_fd, 1 << 16)
        command.feed(whole, at=0)
    assert read == whole
    assert command.feed(b"", at=len(whole), is_end=True)[-1] == (KEY, len(whole), True, None)


def test_a_piece_after_a_gap_is_not_kept_and_told_where_it_should_begin(command: Command) -> None:
    command.begin()
    command.feed(b"abc", at=0)
    assert command.feed(b"xyz", at=4, is_end=True) == [(KEY, 3, False, 3)]
    assert command.feed(b"d", at=3, is_end=True) == [(KEY, 4, True, None)]
    assert os.read(command.read_fd, 100) == b"abcd"


def test_a_command_that_reads_no_more_is_told_as_closed_however_often(command: Command) -> None:
    command.begin()
    os.close(command.read_fd)
    command.read_fd = -1
    assert command.feed(b"abc", at=0) == [(KEY, 0, True, None)]
    assert command.feed(b"abc", at=0) == [(KEY, 0, True, None)]
    assert command.feed(b"abc", at=100) == [(KEY, 0, True, None)]


def test_without_an_offset_a_piece_follows_the_last(command: Command) -> None:
    command.begin()
    command.feed(b"abc", at=0)
    assert command.feed(b"abc", at=None) == [(KEY, 6, False, None)]
    assert os.read(command.read_fd, 100) == b"abcabc"
