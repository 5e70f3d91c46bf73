"""Which processes there are, and how to signal them, with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lanai.agent import starter_processes as processes


def _waiting(*environment: str) -> subprocess.Popen[bytes]:
    """A process with these assignments, in this order, as the whole of its environment.

    It becomes no other program once it has said that it is there: while it did, it would have no environment.
    """
    words = ["env", "-i", *environment, "sh", "-c", "echo; read x"]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with _waiting("LANAI_MARK=abc.1.2") as made:
        assert made.stdout is not None
        made.stdout.readline()
        yield made
        made.kill()


def test_a_number_that_is_anothers_by_now_is_not_signalled(victim: subprocess.Popen[bytes]) -> None:
    """Between the look at the table and the signal the process was gone, and its number was given to another."""
    found = processes.read_process(victim.pid)
    assert found is not None
    processes.signal_all([found._replace(started_ticks=found.started_ticks - 1)], signal.SIGKILL)
    assert victim.poll() is None
    processes.signal_all([found], signal.SIGKILL)
    assert victim.wait(20) == -signal.SIGKILL
    processes.signal_all([found], signal.SIGKILL)


@pytest.mark.parametrize(
    ("environment", "mark"),
    [
        (["LANAI_MARK=a.1.2"], "a.1.2"),
        (["A=b", "LANAI_MARK=a.1.2", "C=d"], "a.1.2"),
        (["NOT_LANAI_MARK=a.1.2"], None),
        (["A=LANAI_MARK=a.1.2"], None),
        (["LANAI_MARK="], ""),
        (["LANAI_MARK=" + "x" * 1000], "x" * 255),
        (["A=" + "\n" * 100_000, "LANAI_MARK=a.1.2"], "a.1.2"),
    ],
)
def test_the_mark_of_a_process(environment: list[str], mark: str | None) -> None:
    with _waiting(*environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = processes.read_mark(process.pid)
        process.kill()
    assert found == mark


def test_one_that_is_gone_has_none() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait(20)
    assert processes.read_mark(process.pid) is None
    assert processes.read_process(process.pid) is None
    assert processes.read_process(os.getpid()) is not None


def test_descendants_are_those_of_all_generations() -> None:
    script = "sh -c 'sleep 1000 & echo $$ $!; wait' & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as first:
        assert first.stdout is not None
        below = set(map(int, first.stdout.readline().split()))
        found = {process.pid for process in processes.descendants(first.pid)}
        processes.signal_all(processes.descendants(first.pid), signal.SIGKILL)
        first.kill()
    assert len(below) == 2 and found == below
