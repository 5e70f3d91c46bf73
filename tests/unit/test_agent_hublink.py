"""The agent's way to its hub: which addresses are tried, and what proves that no hub is up."""

from __future__ import annotations

import os
import resource
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lanai.agent.hublink import BACKOFF_LAST_US, CONNECT_TIMEOUT_US, Down, HubLink, LinkEvent, Refused, address

NAME = "hub.test"
WITHIN_MS = 20_000
BEGIN_US = 1_000_000
TLS_HANDSHAKE = b"\x16"


class Names:
    """What stands for the name server: the places of `NAME`. It answers once `may_answer` is set."""

    def __init__(self) -> None:
        self.places: list[tuple[int, tuple[Any, ...]]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = 0
        self._really = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, *rest: Any, **named: Any) -> list[Any]:
        if host != NAME or named.get("flags"):
            return self._really(host, port, *rest, **named)
        self.asked += 1
        assert self.may_answer.wait(20)
        if not self.places:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, socket.SOCK_STREAM, 6, "", where) for family, where in self.places]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.may_answer.set()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def refusing(opened: ExitStack) -> tuple[int, tuple[Any, ...]]:
    """A place where nobody listens, and nobody else will."""
    bound = opened.enter_context(socket.socket())
    bound.bind(("127.0.0.1", 0))
    return socket.AF_INET, bound.getsockname()


def deaf(opened: ExitStack) -> tuple[int, tuple[Any, ...]]:
    """A place that does not answer: its queue of connections is full."""
    listener = opened.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    opened.enter_context(socket.create_connection(listener.getsockname()))
    return socket.AF_INET, listener.getsockname()


def listening(opened: ExitStack) -> tuple[socket.socket, tuple[int, tuple[Any, ...]]]:
    listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.settimeout(20)
    return listener, (socket.AF_INET, listener.getsockname())


def link(opened: ExitStack, url: str = f"lanai://{NAME}:7001") -> HubLink:
    made = HubLink(lambda: address(url, "ab" * 32), lambda: 0.5)
    opened.callback(made.close)
    return made


def is_ready(one: HubLink, within_ms: int = WITHIN_MS) -> bool:
    poll = select.poll()
    poll.register(one.fileno(), select.POLLIN | (select.POLLOUT if one.wants_write() else 0))
    return bool(poll.poll(within_ms))


def go_on(one: HubLink, now_us: int) -> list[LinkEvent]:
    """Until something has come of it, without time passing."""
    found = one.on_time(now_us)
    while not found:
        assert is_ready(one)
        found = one.on_ready(now_us)
    return found


def test_the_next_address_is_tried_where_one_refuses(names: Names, opened: ExitStack) -> None:
    listener, place = listening(opened)
    names.places = [refusing(opened), place]
    made = link(opened)
    assert made.on_time(BEGIN_US) == []
    while not select.select([listener], [], [], 0)[0]:
        assert is_ready(made)
        assert made.on_ready(BEGIN_US) == []
    opened.enter_context(listener.accept()[0])


def test_where_all_refuse_no_hub_is_up(names: Names, opened: ExitStack) -> None:
    names.places = [refusing(opened), refusing(opened)]
    assert go_on(link(opened), BEGIN_US) == [Refused(BEGIN_US)]


def test_an_address_of_a_kind_that_the_computer_lacks_proves_nothing_against_it(
    names: Names, opened: ExitStack
) -> None:
    names.places = [(socket.AF_APPLETALK, ("", 0)), refusing(opened)]
    assert go_on(link(opened), BEGIN_US) == [Refused(BEGIN_US)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_where_one_does_not_answer_the_other_proves_nothing(
    names: Names, opened: ExitStack, order: tuple[int, int]
) -> None:
    """The refusal of ::1 alone renewed the lease, although the hub was up at an address that was cut off."""
    places = [refusing(opened), deaf(opened)]
    names.places = [places[at] for at in order]
    made = link(opened)
    assert made.on_time(BEGIN_US) == []
    found: list[LinkEvent] = []
    while not found:
        assert made.due_us <= BEGIN_US + 2 * CONNECT_TIMEOUT_US
        found = made.on_ready(BEGIN_US) if is_ready(made, 200) else made.on_time(made.due_us)
    assert [type(one) for one in found] == [Down]


def test_a_name_server_that_does_not_answer_holds_nothing_up(names: Names, opened: ExitStack) -> None:
    """The agent stood still for as long as the lookup took: no heartbeat, no result, no start."""
    names.may_answer.clear()
    made = link(opened)
    assert made.on_time(BEGIN_US) == []
    late_us = BEGIN_US + CONNECT_TIMEOUT_US
    assert made.on_time(late_us) == [Down(f"no address of {NAME} was found in time")]
    assert made.fileno() == -1
    later_us = late_us + 2 * BACKOFF_LAST_US
    assert made.on_time(later_us) == []
    names.places = [refusing(opened)]
    names.may_answer.set()
    assert go_on(made, later_us) == [Refused(later_us)]
    assert names.asked == 1


def test_a_name_that_is_unknown_proves_nothing(names: Names, opened: ExitStack) -> None:
    assert go_on(link(opened), BEGIN_US) == [Down("Name or service not known")]


def test_an_address_in_numbers_is_asked_of_nobody(names: Names, opened: ExitStack) -> None:
    names.may_answer.clear()
    _, (host, port) = refusing(opened)
    assert go_on(link(opened, f"lanai://{host}:{port}"), BEGIN_US) == [Refused(BEGIN_US)]


def test_a_hub_that_accepts_and_then_says_nothing_is_waited_for_and_not_polled(names: Names, opened: ExitStack) -> None:
    """A connected socket can always be written: to be woken by that cost a core for as long as the hub was silent."""
    listener, place = listening(opened)
    names.places = [place]
    made = link(opened)
    assert made.on_time(BEGIN_US) == []
    while not select.select([listener], [], [], 0)[0]:
        assert is_ready(made)
        assert made.on_ready(BEGIN_US) == []
    hub = opened.enter_context(listener.accept()[0])
    hub.settimeout(20)
    turns = 0
    while not select.select([hub], [], [], 0)[0]:
        assert is_ready(made)
        assert made.on_ready(BEGIN_US) == []
        turns += 1
    assert turns <= 2
    assert hub.recv(1 << 14)[:1] == TLS_HANDSHAKE
    assert not is_ready(made, 0)
    hub.close()
    assert [type(one) for one in go_on(made, BEGIN_US)] == [Down]


def test_without_a_descriptor_for_the_question_it_is_asked_later(names: Names, opened: ExitStack) -> None:
    """An agent that lost its hub while it was out of descriptors ended by that."""
    names.places = [refusing(opened)]
    made = link(opened)
    names.getaddrinfo("127.0.0.1", 1)  # loads what it needs
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull, "rb") as lowest_free:
        limit = lowest_free.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        found = made.on_time(BEGIN_US)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == [Down("Too many open files")]
    assert names.asked == 0
    assert made.due_us > BEGIN_US
    later_us = made.due_us
    assert go_on(made, later_us) == [Refused(later_us)]
