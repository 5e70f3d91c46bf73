"""How far a replay has come is said where it takes long, and only then."""

import io

import pytest

from lanai.cli.verbs import simulate
from lanai.sim.policies import planner_of
from lanai.sim.replay import TOLD_EVERY, replay
from lanai.sim.swf import Trace, TraceJob


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(monkeypatch: pytest.MonkeyPatch, times: list[float], stream: io.StringIO) -> str:
    """What is said when the clock shows `times`: the first is the begin, at each other one more job has started."""
    left = iter(times)
    monkeypatch.setattr(simulate, "monotonic", lambda: next(left))
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with simulate._telling("easy", 5000) as tell:
        for started in range(1001, 1000 + len(times)):
            tell(started)
    return stream.getvalue()


def test_a_quick_replay_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, [50.0, 50.5, 50.9], io.StringIO()) == ""
    assert told(monkeypatch, [50.0, 50.5, 50.9], Terminal()) == ""


def test_off_a_terminal_a_line_is_written_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    said = told(monkeypatch, [50.0, 50.5, 51.1, 52.0, 60.0, 61.2, 62.0], io.StringIO())
    assert said == "easy: 1,002 of 5,000 jobs started\neasy: 1,005 of 5,000 jobs started\n"


def test_on_a_terminal_one_line_is_drawn_over_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    said = told(monkeypatch, [50.0, 50.5, 51.1, 51.2, 51.4], Terminal())
    clear = "\r\x1b[K"
    assert said == f"{clear}easy: 1,002 of 5,000 jobs started{clear}easy: 1,004 of 5,000 jobs started{clear}"


def test_a_replay_tells_of_every_so_many_instants() -> None:
    count = 3 * TOLD_EVERY
    jobs = [TraceJob(str(n), 2 * n, 1, 1, 1, 1) for n in range(count)]  # two instants each: its arrival, its end
    planner = planner_of("easy")
    assert planner is not None
    heard: list[int] = []
    replay(Trace("log", 1, count, jobs, []), planner(1), heard.append)
    assert heard == [TOLD_EVERY // 2 * n for n in range(1, 7)]
