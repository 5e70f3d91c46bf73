"""A starter that lies, floods or is silent: the agent's end of it, over a real socket. The starter here is the test."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.agent import events as ev
from lanai.agent import starter_link as link
from lanai.agent.distrust import HANG_US, HURRY_US, LOOK_US
from lanai.agent.reads import Answer, Ask
from lanai.agent.starting import PING_US, REFUSED_US, StarterPort
from lanai.model.ids import Index
from services.lying_starter import SECOND_US, G, Liar

HELLO = {"m": "hello", "protocol": 1, "pid": 1, "mark": "m"}
NOTHING = {"m": "inventory", "running": [], "waiting": [], "ended": 0}
OK = [1, G, 1, 1, "ok", 0, 0, 5, 5, 5, 5, None, None, None, None, 0]


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[Liar]:
    made = Liar(tmp_path)
    yield made
    made.close()


def test_an_honest_one_is_believed(liar: Liar) -> None:
    assert liar.say(HELLO, NOTHING) == [ev.StarterUp([], [], [], 0, "liar")]
    liar.give()
    (ended,) = liar.say({"m": "ended", "items": [OK]})
    assert isinstance(ended, ev.AttemptsEnded)
    assert (ended.owner, ended.upto, ended.results[0].outcome) == ("liar", 1, "ok")


def _row(**changes: Any) -> dict[str, Any]:
    names = ("sequence", "grant", "index", "attempt", "outcome", "code", "signal", "began", "wall", "user", "system",
             "peak", "reason", "output", "checks", "escaped")  # fmt: skip
    return {"m": "ended", "items": [list((dict(zip(names, OK, strict=True)) | changes).values())]}


@pytest.mark.parametrize(
    "lie",
    [
        b"no json",
        b"[" * 60_000,
        b"[]",
        b'"ended"',
        {"m": "nonsense"},
        {"m": "ended"},
        {"m": "ended", "items": 7},
        {"m": "ended", "items": [[1, 2]]},
        {"m": "ended", "items": [OK, OK]},
        _row(sequence="1"),
        _row(grant=[]),
        _row(grant=-1),
        _row(grant=1 << 70),
        _row(index=None),
        _row(index=1.5),
        _row(index=True),
        _row(attempt={}),
        _row(outcome="splendid"),
        _row(outcome=[]),
        _row(code=256),
        _row(code="0"),
        _row(signal=-9),
        _row(began=1 << 63),
        _row(wall=-1),
        _row(user="much"),
        _row(peak=[1]),
        _row(reason=7),
        _row(output="all"),
        _row(output=[None]),
        _row(escaped=-1),
        {"m": "started", "items": [[G, 1, 1, 5, 5, 0], [G, 2, 1, 5, 5, 0]]},
        {"m": "started", "items": [[{}, 1, 1, 5, 5, 0]]},
        {"m": "started", "items": [[G, 1, 1, "pid", 5, 0]]},
        {"m": "recalled", "returned": [], "begun": []},
        {"m": "recalled", "returned": [[G, 1]], "begun": []},
        {"m": "inventory", "running": [], "waiting": [], "ended": 0},
        {"m": "refused", "protocol": 1, "reason": "I am somebody else"},
    ],
)
def test_a_lie_costs_it_everything_that_it_runs(liar: Liar, lie: dict[str, Any] | bytes) -> None:
    """It had one attempt, and was asked nothing. What cannot be is answered by its end, and nothing else happens."""
    liar.say(HELLO, NOTHING)
    liar.give()
    assert liar.say(lie) == [ev.StarterDied("liar")]
    assert liar.port.fileno() == -1


def test_a_frame_without_end_is_no_frame(liar: Liar) -> None:
    liar.say(HELLO, NOTHING)
    liar.connection.sendall(struct.pack(">I", 1 << 30))
    assert liar.port.on_ready(liar.now_us) == [ev.StarterDied("liar")]


def test_more_words_than_jobs_end_it(liar: Liar) -> None:
    """Otherwise it could keep the agent busy for ever, and everybody else waiting."""
    liar.say(HELLO, NOTHING)
    liar.give(3)
    rows = [[number, *OK[1:]] for number in range(1, 5)]
    assert liar.say({"m": "ended", "items": rows[:3]}) != [ev.StarterDied("liar")]
    assert liar.say({"m": "ended", "items": rows[3:]}) == [ev.StarterDied("liar")]


def test_it_cannot_hold_more_than_anybody_could_have_given_it(liar: Liar) -> None:
    """Else the agent would wait for ends that never come before it tells its hub of anything."""
    assert liar.say(HELLO, {**NOTHING, "ended": 1 << 40}) == [ev.StarterDied("liar")]


def test_a_refusal_in_place_of_a_greeting_is_a_reason(liar: Liar) -> None:
    """That is how one tells that it cannot become its user. It is not asked again for a while, and then it is."""
    assert liar.say({"m": "refused", "protocol": 1, "reason": "no such user"}) == [
        ev.StarterMissing("no such user", "liar")
    ]
    liar.port.wake()
    liar.now_us += REFUSED_US // 2
    assert liar.port.on_time(liar.now_us) == [ev.StarterMissing("no such user", "liar")]
    liar.port.wake()
    liar.now_us += REFUSED_US
    assert liar.port.on_time(liar.now_us) == []
    assert liar.port.fileno() >= 0


def test_one_that_never_greets_is_given_up(liar: Liar) -> None:
    assert liar.later(HANG_US - 2 * LOOK_US) == []
    assert liar.later(4 * LOOK_US) == [ev.StarterDied("liar")]


def test_one_that_falls_silent_is_given_up(liar: Liar) -> None:
    """It is asked now and then, and answers; then it is asked and does not."""
    liar.say(HELLO, NOTHING)
    for _ in range(5):
        assert liar.later(PING_US + LOOK_US) == []
        liar.read()
        assert liar.say({"m": "recalled", "returned": [], "begun": []}) == []
    assert liar.later(HANG_US - 2 * LOOK_US) == []
    assert liar.later(PING_US + 4 * LOOK_US) == [ev.StarterDied("liar")]


def test_a_computer_that_slept_is_not_a_silent_starter(liar: Liar) -> None:
    """Ten minutes pass in one step: the starter slept as well as the agent, and is given its time anew."""
    liar.say(HELLO, NOTHING)
    assert liar.later(PING_US + LOOK_US) == []
    liar.now_us += 600 * SECOND_US
    assert liar.port.on_time(liar.now_us) == []
    assert liar.say({"m": "recalled", "returned": [], "begun": []}) == []


def test_when_the_lease_is_over_it_has_to_answer_soon(liar: Liar) -> None:
    liar.say(HELLO, NOTHING)
    liar.port.set_lease(0, liar.now_us)
    assert liar.later(HURRY_US - 2 * LOOK_US) == []
    assert liar.later(4 * LOOK_US) == [ev.StarterDied("liar")]


# -- what it was asked to read

READS = {**HELLO, "features": ["read"]}
ASK = Ask(5, ["segment", 1, 0, 3], 0, 3)


def test_what_it_has_read_is_believed_once(liar: Liar) -> None:
    liar.say(READS, NOTHING)
    liar.port.read([ASK])
    liar.port.flush()
    data = {"m": "data", "id": 1, "items": [["YWJj", 3, False, None]]}
    assert liar.say(data) == []
    assert liar.port.answers() == [Answer(5, b"abc", 3)]
    assert liar.port.answers() == []
    assert liar.say(data) == [ev.StarterDied("liar")]


@pytest.mark.parametrize(
    "lie",
    [
        {"m": "data", "id": 1},
        {"m": "data", "id": 1, "items": 7},
        {"m": "data", "id": 1, "items": [["YWJj", 3]]},
        {"m": "data", "id": 1, "items": [["YWJjZA==", 4, False, None]]},
        {"m": "data", "id": 2, "items": [["YWJj", 3, False, None]]},
    ],
)
def test_what_is_no_answer_to_a_read_ends_it(liar: Liar, lie: dict[str, Any]) -> None:
    """Who reads is told something all the same, and what is the starter's own file is asked of the next first."""
    liar.say(READS, NOTHING)
    liar.port.read([ASK, Ask(6, ["user", "/x"], 0, 3)])
    assert liar.say(lie) == [ev.StarterDied("liar")]
    assert [answer.number for answer in liar.port.answers()] == [6]
    assert not liar.port.is_dormant() and liar.port.due_us <= liar.now_us + SECOND_US


def test_a_reader_waits_for_a_hanging_starter_no_longer_than_its_jobs_do(liar: Liar) -> None:
    liar.say(READS, NOTHING)
    liar.port.read([Ask(6, ["user", "/x"], 0, 3)])
    assert liar.later(HANG_US + PING_US + 4 * LOOK_US) == [ev.StarterDied("liar")]
    (answer,) = liar.port.answers()
    assert answer.problem == "the node cannot read it now: what was to read it there has died"
    assert liar.port.is_dormant()


def test_a_read_wakes_a_starter_and_hears_why_there_is_none(liar: Liar) -> None:
    liar.say({"m": "refused", "protocol": 1, "reason": "no such user"})
    assert liar.port.is_dormant()
    liar.port.read([ASK])
    assert not liar.port.is_dormant() and liar.port.due_us <= liar.now_us
    assert liar.port.on_time(liar.now_us) == [ev.StarterMissing("no such user", "liar")]
    assert [answer.problem for answer in liar.port.answers()] == ["the node cannot read it now: no such user"]
    assert liar.port.is_dormant()


def test_ends_are_numbered_without_gaps(liar: Liar) -> None:
    """What is kept is released by number: one that leaves out some would forget ends that it has not told."""
    liar.say(HELLO, NOTHING)
    liar.give(3)
    assert liar.say({"m": "ended", "items": [[7, *OK[1:]]]}) != [ev.StarterDied("liar")]
    assert liar.say({"m": "ended", "items": [[8, *OK[1:]]]}) != [ev.StarterDied("liar")]
    assert liar.say({"m": "ended", "items": [[1 << 20, *OK[1:]]]}) == [ev.StarterDied("liar")]


def test_last_words_say_what_has_begun(liar: Liar) -> None:
    liar.say(HELLO, NOTHING)
    liar.give(2)
    ended = liar.say({"m": "ended", "items": [OK]}, {"m": "ended", "items": [], "left": [[G, 2]]})
    assert [event.upto for event in ended if isinstance(event, ev.AttemptsEnded)] == [1]
    liar.connection.close()
    assert liar.port.on_ready(liar.now_us) == [ev.StarterDied("liar", ((G, Index(2)),))]


def test_last_words_of_what_cannot_be_are_none(liar: Liar) -> None:
    liar.say(HELLO, NOTHING)
    liar.give(2)
    assert liar.say({"m": "ended", "items": [], "left": [["all", 2]]}) == [ev.StarterDied("liar")]


def test_a_shortage_of_the_agents_own_ends_no_starter(tmp_path: Path) -> None:
    """It has no descriptor left to connect with: what runs there goes on, and it is tried again."""
    door = tmp_path / "door"
    door.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, subprocess.Popen(["sleep", "1000"]) as starter:
        listener.bind(str(door / link.SOCKET_NAME))
        listener.listen()
        ticks = Path(f"/proc/{starter.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (door / link.PID_NAME).write_text(f"{starter.pid} {ticks}")
        port = StarterPort(link.Place(tmp_path / "users", door), link.Account("liar"))
        port.wake()
        with _no_descriptors_left():
            (told,) = port.on_time(SECOND_US)
        assert told == ev.StarterMissing("cannot start commands: Too many open files", "liar", True, True)
        assert starter.poll() is None and port.due_us == 2 * SECOND_US
        assert port.on_time(2 * SECOND_US) == [] and port.fileno() >= 0
        port.close()
        starter.kill()


@contextlib.contextmanager
def _no_descriptors_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_endless_words_about_inputs_end_it(liar: Liar) -> None:
    """Each would go to the hub. Nobody has given it any input; an agent before may have, which is bounded."""
    liar.say(HELLO, NOTHING)
    liar.give()
    told = {"m": "input", "grant": G, "index": 1, "taken_bytes": 1, "closed": False}
    for _ in range(64):
        assert liar.say(*[told] * 128) == []
    assert liar.say(told) == [ev.StarterDied("liar")]
    assert len(liar.port.taken) == 64 * 128
