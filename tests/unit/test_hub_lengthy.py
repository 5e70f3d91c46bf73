"""Which questions a copy of the hub answers: in a large hub those that take long, with the words of the loop."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from commands_shell import Shell
from core_recorder import Recorder, capacity
from lanai.hub import lengthy
from lanai.hub.lengthy import is_long
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId
from lanai.model.reservation import Period, Reservation
from lanai.model.resources import Shape
from lanai.wire import messages

COMING = Reservation(name="r", nodes="*", periods=(Period(10, 20),))
LENGTHY: list[tuple[str, dict[str, object]]] = [
    ("why", {"batch": 1}),
    ("why", {"batch": 99}),
    ("queue", {}),
    ("free", {"settings": BatchSettings()}),
    ("when", {"batch": 1, "index": 2}),
    ("priority", {}),
    ("in_flight", {"batch": 1, "first": 1, "last": 9}),
    ("reservations", {}),
    ("reservations", {"name": "none of that name"}),
    ("plan", {}),
    ("plan", {"most": "a word"}),
]


def command(verb: str, **arguments: object) -> messages.Command:
    return messages.Command(7, "ann", verb, msgspec.Raw(msgspec.msgpack.encode(arguments)))


def busy(hub: Recorder) -> BatchId:
    hub.join("n", capacity(cpus=2))
    batch = hub.submit(5)
    hub.start()
    hub.take_all()
    return batch


@pytest.mark.parametrize(("verb", "arguments"), LENGTHY)
def test_a_copy_answers_with_the_words_of_the_loop(
    hub: Recorder, monkeypatch: pytest.MonkeyPatch, verb: str, arguments: dict[str, Any]
) -> None:
    busy(hub)
    shell = Shell(hub)
    at_once = shell.commands.take(command(verb, **arguments))
    assert at_once is not None
    assert shell.apart == []
    monkeypatch.setattr(lengthy, "_LARGE", 1)
    assert shell.commands.take(command(verb, **arguments)) is None
    ((asked, work),) = shell.apart
    assert asked == command(verb, **arguments)
    assert msgspec.msgpack.decode(work(), type=messages.Reply) == at_once


def test_what_is_said_from_the_head_and_what_is_wished_stays_on_the_loop(
    hub: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = busy(hub)
    monkeypatch.setattr(lengthy, "_LARGE", 1)
    shell = Shell(hub)
    for verb in ("hub", "status", "nodes", "policy", "shares"):
        assert shell.commands.take(command(verb)) is not None, verb
    assert shell.commands.take(command("hold", batch=batch)) is None
    assert len(shell.posted) == 1
    assert shell.apart == []


def test_hubs_are_large_by_their_nodes_lines_and_grants(hub: Recorder) -> None:
    """A dry run of a reservation looks at lines, nodes and periods one by one: it may take long in the smallest hub."""
    busy(hub)
    queue = command("queue")
    assert is_long(hub.core.world, command("reservation_try", reservation=COMING))
    assert not is_long(hub.core.world, queue)
    for number in range(1_000):
        hub.join(f"m{number}", capacity(cpus=2))
    hub.take_all()
    assert is_long(hub.core.world, queue)


def test_requests_are_tried_on_the_loop_while_they_are_few(hub: Recorder) -> None:
    for number in range(100):
        hub.join(f"n{number}", capacity(cpus=2))
    hub.take_all()
    assert not is_long(hub.core.world, command("fits", shapes=[Shape()] * 100))
    assert is_long(hub.core.world, command("fits", shapes=[Shape()] * 200))
    assert not is_long(hub.core.world, command("fits", shapes="none"))
