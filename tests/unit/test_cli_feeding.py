"""Passing standard input on: what is kept of it, and what a further attempt is given."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lanai.cli import feeding
from lanai.cli.feeding import KEPT_BYTES, PIECE_BYTES, Feeder, Source
from lanai.client.client import Client
from lanai.model.errors import OtherEnd, Refusal

WITHIN_S = 20.0
ENDED = Refusal("attempt 1 has ended", code="input_refused")


class Pipe:
    """Both ends of one. A number is closed once: it may be another's right after."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()

    def write(self, data: bytes) -> None:
        os.write(self._write_fd, data)

    def end(self) -> None:
        """Its reader comes to the end; harmless if repeated."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.end()
    os.close(made.fd)


# -- the source


def test_of_a_pipe_the_last_bytes_can_be_read_again(pipe: Pipe) -> None:
    source = Source(pipe.fd)
    data = os.urandom(KEPT_BYTES + 3 * PIECE_BYTES)
    for at in range(0, len(data), PIECE_BYTES):
        assert source.has(0) == (at <= KEPT_BYTES)
        pipe.write(data[at : at + PIECE_BYTES])
        assert source.read(at) == data[at : at + PIECE_BYTES]
    first = len(data) - KEPT_BYTES
    assert source.has(first) and not source.has(first - 1)
    assert source.read(first + 5) == data[first + 5 :][:PIECE_BYTES]
    pipe.end()
    assert source.read(len(data)) == b""
    assert source.read(len(data) - 7) == data[-7:]


def test_of_a_file_everything_from_where_it_stood_can_be_read_again(tmp_path: Path) -> None:
    data = os.urandom(3 * KEPT_BYTES)
    (tmp_path / "file").write_bytes(b"before" + data)
    with open(tmp_path / "file", "rb", buffering=0) as file:
        file.seek(len(b"before"))
        source = Source(file.fileno())
        for at in (0, 2 * KEPT_BYTES, 5, len(data)):
            assert source.has(at)
            assert source.read(at) == data[at : at + PIECE_BYTES]
        source.read(0)
        assert file.read(10) == data[PIECE_BYTES : PIECE_BYTES + 10]  # whoever has the file next


def test_a_wait_for_input_ends_with_the_attempt(pipe: Pipe) -> None:
    source = Source(pipe.fd)
    wake, waker = os.pipe()
    try:
        pipe.write(b"abc")
        assert source.await_readable(0, wake)
        source.read(0)
        assert source.await_readable(1, wake)
        os.write(waker, b"+")
        assert not source.await_readable(3, wake)
    finally:
        os.close(wake)
        os.close(waker)


# -- the feeder


class Far:
    """A client whose hub does what `answers` say, one a call; later calls succeed.

    `calls` has (attempt, offset, data, is_end) of each piece, and "cancel" and "close". `is_over` is set once the
    feeder reads no more.
    """

    def __init__(self, *answers: Exception | None) -> None:
        self.calls: queue.Queue[Any] = queue.Queue()
        self.is_over = threading.Event()
        self._answers = list(answers)

    def send_input(self, batch: int, index: int, data: bytes, *, offset: int, is_end: bool, attempt: int) -> int:
        assert (batch, index) == (7, 1)
        self.calls.put((attempt, offset, data, is_end))
        answer = self._answers.pop(0) if self._answers else None
        if is_end:
            self.is_over.set()
        if answer is not None:
            raise answer
        return offset + len(data)

    def job(self, batch: int, index: int) -> dict[str, Any]:
        return {}

    def cancel(self, batch: int) -> int:
        self.calls.put("cancel")
        return 1

    def close(self) -> None:
        self.is_over.set()
        self.calls.put("close")

    def next(self) -> Any:
        return self.calls.get(timeout=WITHIN_S)


Fed = Callable[[Far, int], Feeder]


@pytest.fixture
def fed(pipe: Pipe) -> Iterator[Fed]:
    """Makes feeders. Each has read its last when the pipe is closed, or it would read what gets the number next."""
    fars: list[Far] = []

    def make(far: Far, fd: int) -> Feeder:
        fars.append(far)
        return Feeder(cast(Client, far), 7, 1, Source(fd))

    yield make
    pipe.end()
    for far in fars:
        assert far.is_over.wait(WITHIN_S)


def test_a_piece_is_sent_until_it_is_taken(fed: Fed, pipe: Pipe) -> None:
    far = Far(None, OtherEnd("gone"), OtherEnd("gone"))
    fed(far, pipe.fd)
    pipe.write(b"abc")
    assert far.next() == (1, 0, b"abc", False)
    pipe.write(b"de")
    assert [far.next() for _ in range(3)] == [(1, 3, b"de", False)] * 3
    pipe.end()
    assert far.next() == (1, 5, b"", True)


def test_a_further_attempt_is_given_everything_again(fed: Fed, pipe: Pipe) -> None:
    """The first had ended before all was there; what is read meanwhile comes in its place."""
    far = Far(None, ENDED)
    feeder = fed(far, pipe.fd)
    pipe.write(b"abc")
    assert far.next() == (1, 0, b"abc", False)
    pipe.write(b"de")
    assert far.next() == (1, 3, b"de", False)
    feeder.turn_to(3)
    assert far.next() == (3, 0, b"abcde", False)
    pipe.end()
    assert far.next() == (3, 5, b"", True)
    feeder.turn_to(4)
    assert [far.next(), far.next()] == [(4, 0, b"abcde", False), (4, 5, b"", True)]


def test_an_attempt_that_follows_while_nothing_comes_has_what_came_at_once(fed: Fed, pipe: Pipe) -> None:
    far = Far()
    feeder = fed(far, pipe.fd)
    pipe.write(b"abc")
    assert far.next() == (1, 0, b"abc", False)
    feeder.turn_to(2)
    assert far.next() == (2, 0, b"abc", False)


def test_what_is_not_kept_any_more_cancels_the_job(
    fed: Fed, pipe: Pipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(feeding, "KEPT_BYTES", 4)
    far = Far()
    feeder = fed(far, pipe.fd)
    for piece in (b"abc", b"de"):
        pipe.write(piece)
        assert far.next()[2] == piece
    feeder.turn_to(2)
    assert [far.next(), far.next()] == ["cancel", "close"]
    assert "input of job 7/1: attempt 2 needs the input from its beginning" in capsys.readouterr().err


@pytest.mark.parametrize("error", [Refusal("byte 3 is missing", code="input_missing"), Refusal("no", code="not_yours")])
def test_a_refusal_that_is_not_about_an_end_cancels_the_job(
    fed: Fed, pipe: Pipe, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    far = Far(error)
    fed(far, pipe.fd)
    pipe.write(b"abc")
    assert [far.next() for _ in range(3)] == [(1, 0, b"abc", False), "cancel", "close"]
    assert str(error) in capsys.readouterr().err


def test_an_input_that_cannot_be_read_cancels_the_job(
    fed: Fed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fd = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)
    far = Far()
    try:
        fed(far, fd)
        assert [far.next(), far.next()] == ["cancel", "close"]
    finally:
        os.close(fd)
    assert "standard input cannot be read: Bad file descriptor" in capsys.readouterr().err
