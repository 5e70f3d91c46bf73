"""Files that a user named for a job: none of them can make his other jobs wait."""

from __future__ import annotations

import os
import pty
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.agent import starter_link as sl
from services.starter_bench import end_starter

PATIENCE_S = 20.0


class Files:
    """A starter whose jobs have the test's directory for theirs."""

    def __init__(self, directory: Path) -> None:
        self.work = directory
        self.place = sl.own_place(directory / "starter")
        self.pid = sl.start_starter(self.place)
        self.connection = sl.Connection(self.place)
        link = self.link = self.connection.link
        self.ended: dict[int, sl.Ended] = {}
        self._given = 0
        self.connection.send(link.inventory() + link.lane(1, 9))

    def give(self, words: list[str] | str, **settings: Any) -> int:
        """Gives it a job with these settings; returns its index."""
        self._given += 1
        environment = {"PATH": "/usr/bin:/bin"}
        self.connection.send(self.link.spec(1, batch=7, cwd=str(self.work), env=environment, **settings))
        self.connection.send(self.link.run(1, 1, 1, [[self._given, 1, words]]))
        return self._given

    def end(self, index: int) -> sl.Ended:
        """How it ended."""
        while index not in self.ended:
            report = self.connection.receive(PATIENCE_S)
            assert report is not None, f"{index} does not end"
            if isinstance(report, sl.EndedMany):
                self.ended.update((end.index, end) for end in report.items)
        return self.ended[index]

    def others_go_on(self) -> bool:
        """Whether another job runs meanwhile."""
        return self.end(self.give(["true"])).outcome == "ok"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path)
    yield made
    end_starter(made.connection, made.pid, made.place)


@pytest.mark.parametrize("both", [False, True])
def test_a_pipe_as_output_waits_for_its_reader(files: Files, both: bool) -> None:
    """As on a command line; other jobs do not. What the job writes comes, and then the end."""
    pipe = files.work / "it's a pipe"
    os.mkfifo(pipe)
    named = {"stdout": pipe.name, "stderr": pipe.name} if both else {"stdout": pipe.name}
    index = files.give("echo out; echo err >&2", **named)
    assert files.others_go_on()
    assert index not in files.ended
    assert pipe.read_bytes() == (b"out\nerr\n" if both else b"out\n")
    end = files.end(index)
    assert (end.outcome, end.output[0]) == ("ok", ["user", str(pipe)])


def test_a_pipe_that_is_read_already_is_just_opened(files: Files) -> None:
    """And what writes to it waits where the reader is slow: it is no pipe that does not wait."""
    pipe = files.work / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    index = files.give(["head", "-c", "1000000", "/dev/zero"], stdout="pipe")
    assert select.select([reader], [], [], PATIENCE_S)[0]
    with open(reader, "rb") as file:
        assert len(file.read()) == 1_000_000
    assert files.end(index).outcome == "ok"


def test_a_pipe_as_input_waits_for_its_writer(files: Files) -> None:
    """It is not taken for empty, and the words of the command come through the shell that waits."""
    pipe = files.work / "pipe"
    os.mkfifo(pipe)
    index = files.give(["sh", "-c", 'cat; printf "%s." "$@"', "sh", "a b", "$HOME", "*"], stdin="./pipe", stdout="copy")
    assert files.others_go_on()
    assert index not in files.ended
    pipe.write_bytes(b"written\n")
    assert files.end(index).outcome == "ok"
    assert (files.work / "copy").read_bytes() == b"written\na b.$HOME.*."


def test_waiting_for_a_pipe_can_be_cancelled_and_is_limited(files: Files) -> None:
    os.mkfifo(files.work / "pipe")
    limited = files.give(["true"], stdout="pipe", time_limit_us=300_000)
    cancelled = files.give(["true"], stdout="pipe")
    files.connection.send(files.link.kill(1, cancelled, grace_us=1_000_000))
    assert files.end(cancelled).outcome == "cancelled"
    assert files.end(limited).outcome == "time"


def test_a_program_that_is_nowhere_is_not_found_also_there(files: Files) -> None:
    os.mkfifo(files.work / "pipe")
    assert files.end(files.give(["no-such-program"], stdout="pipe")).outcome == "notfound"


def test_no_terminal_becomes_that_of_the_starter(files: Files) -> None:
    """It is in a session of its own, and the first terminal that is opened in one is its terminal from then on."""
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    try:
        assert files.end(files.give(["echo", "hello"], stdout=name)).outcome == "ok"
        assert os.read(ours, 100).strip() == b"hello"
        assert Path(f"/proc/{files.pid}/stat").read_text().rpartition(")")[2].split()[4] == "0"
    finally:
        os.close(ours)
        os.close(theirs)
