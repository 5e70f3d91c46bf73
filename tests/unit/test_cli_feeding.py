"""Passing standard input on: what is kept of it, and what a further attempt is given."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lanai.cli import feeding
from lanai.cli.feeding import KEPT_BYTES, PIECE_BYTES, Feeder, Source
from lanai.client.client import Client
from lanai.model.errors import OtherEnd, Refusal

WITHIN_S = 20.0
ENDED = Refusal("attempt 1 has ended", code="input_refused")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    made = os.pipe()
    yield made
    for fd in made:
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


# -- the source


def test_of_a_pipe_the_last_bytes_can_be_read_again(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0])
    data = os.urandom(KEPT_BYTES + 3 * PIECE_BYTES)
    for at in range(0, len(data), PIECE_BYTES):
        assert source.has(0) == (at <= KEPT_BYTES)
        os.write(pipe[1], data[at : at + PIECE_BYTES])
        assert source.read(at) == data[at : at + PIECE_BYTES]
    first = len(data) - KEPT_BYTES
    assert source.has(first) and not source.has(first - 1)
    assert source.read(first + 5) == data[first + 5 :][:PIECE_BYTES]
    os.close(pipe[1])
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


def test_a_wait_for_input_ends_with_the_attempt(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0])
    wake, waker = os.pipe()
    try:
        os.write(pipe[1], b"abc")
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

    `calls` has (attempt, offset, data, is_end) of each piece, and "cancel" and "close".
    """

    def __init__(self, *answers: Exception | None) -> None:
        self.calls: queue.Queue[Any] = queue.Queue()
        self._answers = list(answers)

    def send_input(self, batch: int, index: int, data: bytes, *, offset: int, is_end: bool, attempt: int) -> int:
        assert (batch, index) == (7, 1)
        self.calls.put((attempt, offset, data, is_end))
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            raise answer
        return offset + len(data)

    def job(self, batch: int, index: int) -> dict[str, Any]:
        return {}

    def cancel(self, batch: int) -> int:
        self.calls.put("cancel")
        return 1

    def close(self) -> None:
        self.calls.put("close")

    def next(self) -> Any:
        return self.calls.get(timeout=WITHIN_S)


def fed(far: Far, fd: int) -> Feeder:
    return Feeder(cast(Client, far), 7, 1, Source(fd))


def test_a_piece_is_sent_until_it_is_taken(pipe: tuple[int, int]) -> None:
    far = Far(None, OtherEnd("gone"), OtherEnd("gone"))
    fed(far, pipe[0])
    os.write(pipe[1], b"abc")
    assert far.next() == (1, 0, b"abc", False)
    os.write(pipe[1], b"de")
    assert [far.next() for _ in range(3)] == [(1, 3, b"de", False)] * 3
    os.close(pipe[1])
    assert far.next() == (1, 5, b"", True)


def test_a_further_attempt_is_given_everything_again(pipe: tuple[int, int]) -> None:
    """The first had ended before all was there; what is read meanwhile comes in its place."""
    far = Far(None, ENDED)
    feeder = fed(far, pipe[0])
    os.write(pipe[1], b"abc")
    assert far.next() == (1, 0, b"abc", False)
    os.write(pipe[1], b"de")
    assert far.next() == (1, 3, b"de", False)
    feeder.turn_to(3)
    assert far.next() == (3, 0, b"abcde", False)
    os.close(pipe[1])
    assert far.next() == (3, 5, b"", True)
    feeder.turn_to(4)
    assert [far.next(), far.next()] == [(4, 0, b"abcde", False), (4, 5, b"", True)]


def test_an_attempt_that_follows_while_nothing_comes_has_what_came_at_once(pipe: tuple[int, int]) -> None:
    far = Far()
    feeder = fed(far, pipe[0])
    os.write(pipe[1], b"abc")
    assert far.next() == (1, 0, b"abc", False)
    feeder.turn_to(2)
    assert far.next() == (2, 0, b"abc", False)


def test_what_is_not_kept_any_more_cancels_the_job(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(feeding, "KEPT_BYTES", 4)
    far = Far()
    feeder = fed(far, pipe[0])
    for piece in (b"abc", b"de"):
        os.write(pipe[1], piece)
        assert far.next()[2] == piece
    feeder.turn_to(2)
    assert [far.next(), far.next()] == ["cancel", "close"]
    assert "input of job 7/1: attempt 2 needs the input from its beginning" in capsys.readouterr().err


@pytest.mark.parametrize("error", [Refusal("byte 3 is missing", code="input_missing"), Refusal("no", code="not_yours")])
def test_a_refusal_that_is_not_about_an_end_cancels_the_job(
    pipe: tuple[int, int], error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    far = Far(error)
    fed(far, pipe[0])
    os.write(pipe[1], b"abc")
    assert [far.next() for _ in range(3)] == [(1, 0, b"abc", False), "cancel", "close"]
    assert str(error) in capsys.readouterr().err


def test_an_input_that_cannot_be_read_cancels_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fd = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)
    far = Far()
    try:
        fed(far, fd)
        assert [far.next(), far.next()] == ["cancel", "close"]
    finally:
        os.close(fd)
    assert "standard input cannot be read: Bad file descriptor" in capsys.readouterr().err
