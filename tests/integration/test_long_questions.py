"""Long questions in a real hub: a copy answers, the hub goes on, and whatever becomes of the copy leaves nothing."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lanai.model.batch import BatchSettings
from lanai.model.errors import ErrorBody
from lanai.model.ids import ShapeId
from lanai.model.reservation import PERIODS_MOST, Period, Reservation
from lanai.model.resources import Shape
from lanai.wire import messages
from services.processes import Process, eventually, start_hub
from services.site import descendants, is_alive
from services.wirepeer import WirePeer, join_token

LINES = 1_000
"""As many as make a hub a large one."""
HOUR_US = 3_600_000_000
MOVING = ("at_us", "facts", "factors", "left_us", "score")
"""What of an answer moves with the clock."""
QUESTIONS: tuple[tuple[str, dict[str, object]], ...] = (
    ("queue", {"most": 1000}),
    ("priority", {"most": 1000}),
    ("why", {"batch": 1, "index": 700}),
    ("when", {"batch": 1, "index": 700}),
    ("free", {"settings": BatchSettings()}),
    ("plan", {}),
    ("in_flight", {"batch": 1, "first": 1, "last": LINES}),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def hub(home: Path) -> Iterator[Process]:
    started = start_hub(home)
    yield started
    for pid in copies(started):
        os.kill(pid, signal.SIGKILL)
    started.kill()


@pytest.fixture
def asker(hub: Process, home: Path) -> Iterator[WirePeer]:
    """Somebody at a hub with one node, which is full, and a thousand lines that wait for it."""
    with closing(WirePeer.local(home / "hub")) as made, closing(WirePeer.tls(home)) as agent:
        made.hello_api()
        agent.hello_agent("n1", token=join_token(home), cpu_milli=2000)
        submit_lines(made)
        agent.expect(messages.Grant)
        eventually(lambda: reasons(made) == LINES - 2, what="a pass to have looked at all of them")
        yield made


def submit_lines(api: WirePeer) -> None:
    api.send(messages.Open(1, "", "tester", BatchSettings(cwd="/"), {}))
    batch = api.expect(messages.Opened).batch
    shapes = [(ShapeId(n), Shape(time_limit_us=2 * HOUR_US + n * 1_000_000)) for n in range(LINES)]
    runs = [(1, ShapeId(n)) for n in range(LINES)]
    api.send(messages.Chunk(batch, 1, LINES, runs, shapes, b"\0".join([b"true"] * LINES)))
    api.expect(messages.ChunkTaken)
    api.send(messages.Close(2, batch, LINES, b""))
    api.expect(messages.Reply, request=2)


def reasons(api: WirePeer) -> int:
    return len(api.command("in_flight", batch=1, first=1, last=LINES)["waiting"])


def dry_run() -> dict[str, object]:
    """A reservation of which it takes long to say what it would do: no job fits between its periods."""
    first_us = time.time_ns() // 1000 + HOUR_US
    begins = range(first_us, first_us + 2 * PERIODS_MOST * HOUR_US, 2 * HOUR_US)
    periods = tuple(Period(at, at + HOUR_US) for at in begins)
    return {"reservation": Reservation(name="r", nodes="*", periods=periods)}


def begin(asker: WirePeer, number: int, verb: str, arguments: dict[str, object]) -> None:
    asker.send(messages.Command(number, "tester", verb, msgspec.Raw(msgspec.msgpack.encode(arguments))))


def stopped_copy(asker: WirePeer, hub: Process, number: int = 100) -> int:
    """Have a copy at work on a dry run, stopped in the middle of it; returns its process id."""
    others = set(descendants(hub.pid))
    begin(asker, number, "reservation_try", dry_run())
    (copy,) = eventually(lambda: set(descendants(hub.pid)) - others, what="a copy of the hub")
    os.kill(copy, signal.SIGSTOP)
    return int(copy)


def copies(hub: Process) -> list[int]:
    """Children of the hub, zombies included, but for the API process."""
    if not is_alive(hub.pid):
        return []
    command = Path(f"/proc/{hub.pid}/cmdline").read_bytes()
    return [pid for pid in descendants(hub.pid)[1:] if Path(f"/proc/{pid}/cmdline").read_bytes() in (command, b"")]


def descriptors(hub: Process) -> list[str]:
    return sorted(os.listdir(f"/proc/{hub.pid}/fd"))


def log_of(hub: Process) -> str:
    return hub.log.read_text()


def test_a_copy_says_what_the_loop_says(hub: Process, asker: WirePeer) -> None:
    """And where there can be no copy, for want of a descriptor, the loop answers."""
    by_copy = [asker.command(verb, **arguments) for verb, arguments in QUESTIONS]
    assert "there can be no child" not in log_of(hub)
    limits = resource.prlimit(hub.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(hub.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    by_loop = [asker.command(verb, **arguments) for verb, arguments in QUESTIONS]
    assert log_of(hub).count("there can be no child: Too many open files") == len(QUESTIONS)
    resource.prlimit(hub.pid, resource.RLIMIT_NOFILE, limits)
    for (verb, _), copied, looped in zip(QUESTIONS, by_copy, by_loop, strict=True):
        assert without_times(copied) == without_times(looped), verb
    assert copies(hub) == []


def without_times(answer: Any) -> Any:
    """An answer but for what moves."""
    if isinstance(answer, dict):
        return {name: without_times(value) for name, value in answer.items() if name not in MOVING}
    if isinstance(answer, list):
        return [without_times(each) for each in answer]
    return answer if not isinstance(answer, float) else round(answer, 2)


def test_the_hub_goes_on_while_a_copy_is_at_work(hub: Process, asker: WirePeer) -> None:
    """Quick questions, long ones and wishes of others have their answers; then the first has its own."""
    copy = stopped_copy(asker, hub)
    assert asker.command("queue", most=10)["eligible"]["jobs"] == LINES - 2
    assert asker.command("hold", batch=1, ranges=[[900, 1000]]) == {"changed": 101}
    assert asker.command("queue", most=10)["eligible"]["jobs"] == LINES - 2 - 101
    assert copies(hub) == [copy]
    os.kill(copy, signal.SIGCONT)
    answer = asker.expect(messages.Reply, request=100)
    assert answer.error is None
    assert msgspec.msgpack.decode(answer.result)["rehearsal"]["nodes"] == ["n1"]
    assert copies(hub) == []


def test_a_copy_that_is_killed_is_an_error_for_its_asker_alone(hub: Process, asker: WirePeer) -> None:
    before = descriptors(hub)
    os.kill(stopped_copy(asker, hub), signal.SIGKILL)
    error: ErrorBody = asker.expect(messages.Reply, request=100).error
    assert (error.code, error.message) == ("answer_lost", "the process that was to answer ended with signal 9")
    assert error.exit_code == 70
    assert "which was to answer a question, ended with signal 9" in log_of(hub)
    assert copies(hub) == []
    assert descriptors(hub) == before
    assert asker.command("reservation_try", **dry_run())["rehearsal"]["nodes"] == ["n1"]


def test_a_hub_reaps_its_children_though_whoever_started_it_ignored_his(home: Path) -> None:
    """What is ignored stays ignored in what is started: the API process and the copies would be nobody's."""
    ignoring = "import signal as s, os, sys; s.signal(s.SIGCHLD, s.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    hub = start_hub(home, prefix=(sys.executable, "-c", ignoring))
    try:
        with closing(WirePeer.local(home / "hub")) as api, closing(WirePeer.tls(home)) as agent:
            api.hello_api()
            agent.hello_agent("n1", token=join_token(home), cpu_milli=2000)
            assert api.command("reservation_try", **dry_run())["rehearsal"]["nodes"] == ["n1"]
        assert hub.stop() == 0
    finally:
        hub.kill()


def test_a_hub_that_ends_takes_its_copies_with_it(hub: Process, asker: WirePeer) -> None:
    copy = stopped_copy(asker, hub)
    assert hub.stop() == 0
    assert not is_alive(copy)


def test_a_hub_that_is_killed_leaves_nothing_that_its_successor_needs(
    hub: Process, asker: WirePeer, home: Path
) -> None:
    """Neither the lock nor the doors: what the copy had of them it has closed."""
    port = hub.facts["url"]
    copy = stopped_copy(asker, hub)
    hub.kill()
    successor = start_hub(home)
    try:
        assert is_alive(copy)
        assert successor.facts["url"] == port
        again = WirePeer.local(home / "hub")
        again.hello_api()
        assert again.command("status")["batches"][0]["batch"] == 1
        again.close()
    finally:
        assert successor.stop() == 0
        os.kill(copy, signal.SIGKILL)


def test_a_connection_ends_at_once_though_a_copy_was_made_while_it_lasted(
    hub: Process, asker: WirePeer, home: Path
) -> None:
    """The end of a connection is told when the last process closes it."""
    stranger = WirePeer.tls(home)
    copy = stopped_copy(asker, hub)
    stranger.send(messages.Hello("agent", 1, 1, "test", "no token", "n2", "k", "b", 1, 0))
    assert stranger.is_ended_by_hub()
    stranger.close()
    assert is_alive(copy)
    os.kill(copy, signal.SIGKILL)
