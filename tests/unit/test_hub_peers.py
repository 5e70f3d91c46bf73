"""The hub's end of a connection: what may be large is made as it is read, and order is kept."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from lanai.hub import peers
from lanai.hub.peers import AHEAD_BYTES, Outbox, Peer
from lanai.model.ids import GrantId, TokenId
from lanai.wire import messages
from lanai.wire.framing import FRAME_BYTES, FrameReader, frame
from lanai.wire.lobby import Visitor

PIECE = 1 << 20


class Board:
    """A switchboard that lets everybody in."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.lost = asyncio.Event()

    def admit(self, hello: messages.Hello, address: str) -> TokenId:
        return TokenId(1)

    def on_hello(self, peer: Peer, hello: messages.Hello) -> None:
        peer.send(messages.Suspend())

    def on_message(self, peer: Peer, message: messages.ToHub) -> None:
        """Nothing is asked here."""

    def on_lost(self, peer: Peer) -> None:
        self.lost.set()


class Pieces:
    """So many grants of 1 MiB, and how many were made."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.made = 0

    def __iter__(self) -> Iterator[messages.Grant]:
        while self.made < self.count:
            self.made += 1
            yield messages.Grant(GrantId(self.made), 1, 1, [(1, 1)], b"x" * PIECE)


class Far:
    """The other end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._reader = FrameReader(messages.to_agent)
        self._reader.accept_peer()
        self._got: list[messages.ToAgent] = []

    async def next(self) -> messages.ToAgent:
        while not self._got:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18)
            assert data, "the hub ended the connection"
            self._got += self._reader.feed(data)
        return self._got.pop(0)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Board, Peer, Far]]:
    """A peer that has said Hello and heard the answer."""
    board = Board()
    near, far = socket.socketpair()
    far.setblocking(False)
    transport, peer = await asyncio.get_running_loop().create_connection(lambda: Peer(board, Visitor()), sock=near)
    other = Far(far)
    hello = messages.Hello("agent", 1, 1, "test")
    await asyncio.get_running_loop().sock_sendall(far, frame(hello))
    assert isinstance(await other.next(), messages.Suspend)
    try:
        yield board, peer, other
    finally:
        transport.abort()
        far.close()


def test_what_may_be_large_is_made_as_it_is_read_and_order_is_kept() -> None:
    async def live() -> None:
        async with connected() as (_, peer, far):
            pieces, more = Pieces(40), Pieces(2)
            peer.send_as_read(pieces)
            peer.send(messages.Recall([(GrantId(1), 1, 1)]))
            peer.send_as_read(more)
            peer.send(messages.Unspec([1]))
            peer.send_first(messages.Beat(1, 1))
            assert pieces.made <= AHEAD_BYTES // PIECE + 1
            assert more.made == 0
            got = [await far.next() for _ in range(45)]
            beat = next(place for place, message in enumerate(got) if isinstance(message, messages.Beat))
            assert beat < 5
            del got[beat]
            kinds = [type(message) for message in got]
            assert kinds == [messages.Grant] * 40 + [messages.Recall] + [messages.Grant] * 2 + [messages.Unspec]
            assert [message.grant for message in got[:40] if isinstance(message, messages.Grant)] == list(range(1, 41))

    asyncio.run(live())


def test_a_peer_that_reads_nothing_of_what_waits_for_it_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "STALLED_S", 0.05)

    async def live() -> None:
        async with connected() as (board, peer, _):
            pieces = Pieces(40)
            peer.send_as_read(pieces)
            await asyncio.wait_for(board.lost.wait(), 10)
            assert pieces.made < 5

    asyncio.run(live())


async def dribbled(sock: socket.socket) -> int:
    """A byte, and a moment; how many were sent."""
    try:
        await asyncio.get_running_loop().sock_sendall(sock, b"x")
    except OSError:
        return 0
    finally:
        await asyncio.sleep(0.01)
    return 1


def test_an_agent_that_dribbles_a_frame_and_says_nothing_else_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has announced a frame of 1 MiB, and each byte that comes is one more reason to wait."""
    monkeypatch.setattr(peers, "QUIET_S", 0.1)

    async def live() -> None:
        async with connected() as (board, _, far):
            loop = asyncio.get_running_loop()
            beat = frame(messages.Heartbeat(1, 1))
            begun_s = loop.time()
            while loop.time() < begun_s + 0.5:
                await loop.sock_sendall(far.sock, beat)
                await asyncio.sleep(0.01)
            assert not board.lost.is_set()
            await loop.sock_sendall(far.sock, (PIECE).to_bytes(4, "big"))
            sent = 0
            while not board.lost.is_set():
                sent += await dribbled(far.sock)
            assert sent < PIECE

    asyncio.run(live())


def test_nothing_is_heard_of_a_peer_that_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A second Hello behind the first is no second chance."""

    async def live() -> None:
        board = Board()
        near, far = socket.socketpair()
        far.setblocking(False)
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(lambda: Peer(board, Visitor()), sock=near)
        old, good = messages.Hello("agent", 90, 99, "test"), messages.Hello("agent", 1, 1, "test")
        await loop.sock_sendall(far, frame(old) + frame(good))
        other = Far(far)
        assert isinstance(await other.next(), messages.Refused)
        assert await loop.sock_recv(far, 1) == b""
        assert peer.kind == ""
        far.close()

    asyncio.run(live())


def test_a_peer_that_is_to_be_sent_more_than_a_frame_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """It ended the hub, and again at each start."""

    async def live() -> None:
        async with connected() as (board, peer, _):
            peer.send(messages.Grant(GrantId(1), 1, 1, [(1, 1)], b"x" * FRAME_BYTES))
            peer.send(messages.Beat(1, 1))
            await asyncio.wait_for(board.lost.wait(), 10)

    asyncio.run(live())
    (record,) = caplog.records
    assert "it cannot be sent Grant" in record.getMessage()
