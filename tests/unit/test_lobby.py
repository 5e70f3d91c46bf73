"""Strangers are counted and bounded, in time, of each address and in all; who is known is not dropped for them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import pytest

from lanai.wire import door as doors
from lanai.wire import lobby as lobbies
from lanai.wire.door import Door
from lanai.wire.lobby import NOTICES_EACH, Bounds, Lobby, NoRoom, Visitor, address_of

LOG = logging.getLogger("test.lobby")
WITHIN_S = 10.0


def bounded(**bounds: int) -> Lobby:
    """A lobby with these bounds, and without bounds otherwise."""
    wide = {"all": 10_000, "each": 10_000, "strangers": 10_000, "strangers_each": 10_000}
    return Lobby(Bounds(**(wide | bounds)), LOG)


class Inside:
    """Visitors that were let in, and who had to go."""

    def __init__(self, lobby: Lobby) -> None:
        self.gone: list[str] = []
        self._lobby = lobby

    def enter(self, address: str, name: str = "") -> Visitor:
        visitor = self._lobby.enter(address, name or address)

        def end() -> None:
            self.gone.append(visitor.where)
            visitor.leave()

        visitor.ends_with(end)
        return visitor


async def until(check: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    for _ in range(round(WITHIN_S / 0.01)):
        if check():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


def live(test: Callable[[], None]) -> None:
    """Run it where a loop runs: the lobby sets a timer."""

    async def within() -> None:
        test()

    asyncio.run(within())


def test_the_oldest_of_an_address_makes_way_once_it_had_its_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        inside = Inside(bounded(strangers_each=2))
        for name in ("first", "second"):
            inside.enter("a", name)
        with pytest.raises(NoRoom, match="2 of one address that have not said who they are"):
            inside.enter("a", "third")
        inside.enter("b")
        monkeypatch.setattr(lobbies, "YOUNG_S", 0.0)
        inside.enter("a", "third")
        assert inside.gone == ["first"]

    live(act)


def test_in_all_the_oldest_of_the_address_with_the_most_makes_way_for_a_newcomer() -> None:
    def act() -> None:
        inside = Inside(bounded(strangers=4))
        inside.enter("a")
        for name in ("b1", "b2", "b3"):
            inside.enter("b", name)
        inside.enter("c")
        inside.enter("d")
        assert inside.gone == ["b1", "b2"]

    live(act)


def test_who_was_admitted_counts_against_the_room_only_and_never_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lobbies, "YOUNG_S", 0.0)

    def act() -> None:
        lobby = bounded(strangers_each=1, strangers=3, each=3, all=4)
        inside = Inside(lobby)
        known = [inside.enter("a") for _ in range(1)]
        known[0].admit()
        known.append(inside.enter("a"))
        known[1].admit()
        inside.enter("a", "stranger")
        with pytest.raises(NoRoom, match="3 connections of one address, which is the most"):
            inside.enter("a")
        inside.enter("b")
        with pytest.raises(NoRoom, match="4 connections in all, which is the most"):
            inside.enter("c")
        assert inside.gone == []
        known[0].leave()
        known[0].leave()
        inside.enter("c")
        assert len(lobby) == 4

    live(act)


def test_the_hubs_own_user_is_bounded_by_nothing_but_time() -> None:
    def act() -> None:
        inside = Inside(bounded(strangers_each=1, strangers=1, each=1, all=1))
        inside.enter("a")
        for _ in range(10):
            inside.enter("")
        assert inside.gone == []

    live(act)


def test_whoever_says_nothing_is_dropped_in_the_order_of_arrival(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lobbies, "STRANGER_S", 0.05)

    async def within() -> None:
        inside = Inside(bounded())
        inside.enter("a").admit()
        inside.enter("a", "one")
        inside.enter("", "two")
        await until(lambda: len(inside.gone) == 2)
        assert inside.gone == ["one", "two"]
        inside.enter("b", "three")
        await until(lambda: len(inside.gone) == 3)

    asyncio.run(within())
    assert "dropped a stranger at one: it has not said who it is within 0.05 s" in caplog.text


def test_the_log_has_so_many_lines_of_an_address_and_counts_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    notices = lobbies.Notices(LOG)
    for _ in range(100):
        notices.of_stranger("a", "refused a")
    notices.of_stranger("b", "refused b")
    notices.of_known("a", "dropped agent at a")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["refused a"] * NOTICES_EACH + ["refused b", "dropped agent at a"]


def test_strangers_from_everywhere_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    notices = lobbies.Notices(LOG)
    for number in range(3000):
        notices.of_stranger(str(number), "refused")
    assert lobbies.NOTICES <= len(caplog.records) < lobbies.NOTICES + 20


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_address_of_ipv6_counts_by_its_site(peer: str, counted: str) -> None:
    assert address_of((peer, 1, 0, 0)) == counted


@pytest.mark.parametrize("descriptors", [64, 256, 1024, 4096, 20_000, 1_048_576])
def test_bounds_leave_descriptors_for_everything_else(descriptors: int) -> None:
    bounds = Bounds.within(descriptors)
    assert bounds.all <= descriptors * 3 // 4 or descriptors - bounds.all >= 512
    assert 2 <= bounds.strangers_each <= bounds.strangers // 2 <= bounds.all // 8
    assert bounds.each <= bounds.all // 2


class Talkative(asyncio.Protocol):
    """Sends far more than any buffer of a kernel holds, and tells when it has lost its connection."""

    def __init__(self, visitor: Visitor, lost: asyncio.Future[Exception | None]) -> None:
        self._visitor = visitor
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._visitor.admit()
        transport.write(bytes(64 << 20))

    def connection_lost(self, exc: Exception | None) -> None:
        self._visitor.leave()
        self._lost.set_result(exc)


def test_a_reader_that_reads_nothing_is_cut_off_by_the_kernel() -> None:
    """Its window is shut: the kernel asks it for a while, and no longer than we say."""

    async def within() -> None:
        lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        listening = socket.create_server(("127.0.0.1", 0))
        door = Door(bounded(), lambda visitor: Talkative(visitor, lost), unread_s=0.5)
        door.open(listening)
        with socket.create_connection(listening.getsockname()):
            error = await asyncio.wait_for(lost, 2 * WITHIN_S)
        assert isinstance(error, TimeoutError)
        door.close()

    asyncio.run(within())


def test_a_door_hangs_up_on_whom_the_lobby_refuses_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def within() -> None:
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        door = Door(bounded(strangers_each=1), Silent)
        door.open(listening)
        first, second = socket.create_connection(listening.getsockname()), socket.socket()
        await asyncio.sleep(0)
        second.setblocking(False)
        await loop.sock_connect(second, listening.getsockname())
        assert await asyncio.wait_for(loop.sock_recv(second, 1), WITHIN_S) == b""
        first.close()
        second.close()
        door.close()

    asyncio.run(within())
    assert "1 of one address that have not said who they are" in caplog.text


class Silent(asyncio.Protocol):
    """Says nothing."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor

    def connection_lost(self, exc: Exception | None) -> None:
        self._visitor.leave()


def test_a_stranger_dropped_before_its_connection_was_begun_leaves_nothing_open() -> None:
    async def within() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        lobby = bounded()
        door = Door(lobby, Silent)
        door.open(listening)
        loop = asyncio.get_running_loop()
        far = socket.socket()
        far.setblocking(False)
        await loop.sock_connect(far, listening.getsockname())
        await until(lambda: len(lobby) == 1)
        lobby.drop_oldest("for a test")
        assert await asyncio.wait_for(loop.sock_recv(far, 1), WITHIN_S) == b""
        await until(lambda: len(lobby) == 0)
        far.close()
        door.close()

    asyncio.run(within())


def test_the_buffers_of_tls_are_small() -> None:
    """A thousand strangers hold a thousand of them; asyncio has them at 256 KiB."""
    assert asyncio.sslproto.SSLProtocol.max_size == doors.TLS_READ_BYTES
