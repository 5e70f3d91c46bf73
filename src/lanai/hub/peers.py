"""Connections to the hub: agents and the API process. Bytes to messages, messages to the switchboard; nothing decided.

A stranger has ten seconds and one frame of at most 1 MiB to say Hello. On the Unix socket he is who the kernel says; on
TLS an agent shows the join token. A peer that sends what no protocol allows, or leaves 16 MiB unread, is dropped and
logged; nobody else notices.

What may be large, such as the command lines of hundreds of jobs, is made piece by piece as the peer reads: at most 2
MiB are on their way, and what follows waits its turn as messages that are not made yet.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from lanai.model.errors import LanaiError, NotAllowed, VersionMismatch
from lanai.model.ids import NodeId, TokenId
from lanai.wire import messages
from lanai.wire.framing import UNREAD_BYTES, FrameReader, ProtocolViolation, frame
from lanai.wire.logs import about

HELLO_S: Final = 10.0
RECEIVE_BYTES: Final = 1 << 18
AHEAD_BYTES: Final = 2 << 20
"""With more than this unread by a peer, what may wait is not made yet; once a quarter of it is left, it goes on."""
STALLED_S: Final = 60.0
"""A peer for which something waits and that has read next to nothing for so long is dropped."""
_CREDENTIALS: Final = struct.Struct("3i")
_log = logging.getLogger(__name__)
_numbers = itertools.count(1)
_received: Final = memoryview(bytearray(RECEIVE_BYTES))
"""One for all peers: what the loop reads into it is taken out before it reads again."""


class Outbox:
    """Frames of one turn of the loop: each peer's are written together when the turn is over."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []

    def add(self, peer: Peer) -> None:
        """This peer has frames to be written."""
        if not self._peers:
            asyncio.get_running_loop().call_soon(self._flush)
        self._peers.append(peer)

    def _flush(self) -> None:
        peers, self._peers = self._peers, []
        for peer in peers:
            peer.flush()


class Switchboard(Protocol):
    """Who takes what peers say."""

    outbox: Outbox

    def admit(self, hello: messages.Hello, address: str) -> TokenId:
        """The token by which an agent of another machine may come in. Raises NotAllowed."""

    def on_hello(self, peer: Peer, hello: messages.Hello) -> None:
        """A peer has shown that it may speak. Raises LanaiError to refuse it."""

    def on_message(self, peer: Peer, message: messages.ToHub) -> None:
        """One message after the Hello."""

    def on_lost(self, peer: Peer) -> None:
        """The connection of a peer that had said Hello has ended."""


class Peer(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, switchboard: Switchboard) -> None:
        self.number = next(_numbers)
        self.kind = ""
        self.name = ""
        self.node: NodeId | None = None
        self.token = TokenId(0)
        self.inventory: list[tuple[int, int, str]] = []
        self.specs: set[int] = set()
        self._switchboard = switchboard
        self._reader = FrameReader(messages.to_hub)
        self._transport: asyncio.Transport | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._waiting: deque[Iterator[messages.Message]] = deque()
        self._made = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self._where = "?"
        self._address = ""

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the stranger's clock."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=AHEAD_BYTES, low=AHEAD_BYTES // 4)
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = transport.get_extra_info("peername") or ("?",)
            self._where, self._address = str(name), str(name[0])
        self._hello_timer = asyncio.get_running_loop().call_later(HELLO_S, self._say_nothing)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts what it reads: bytes of its own for each read would cost more than the read."""
        return _received

    def buffer_updated(self, nbytes: int) -> None:
        """Pass messages on; drop whoever sends anything else."""
        try:
            for message in self._reader.feed(_received[:nbytes]):
                if self.kind:
                    self._switchboard.on_message(self, message)
                else:
                    self._greet(message)
        except ProtocolViolation as violation:
            _log.warning("dropped %s: %s", self.describe(), violation, extra=self.about())
            self.drop()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the switchboard, once."""
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._forget_waiting()
        if self.kind:
            self._switchboard.on_lost(self)

    def resume_writing(self) -> None:
        """Most of what was written has been read: make more."""
        if self._waiting:
            # On a turn of its own, where a mistake of ours ends the hub as it does everywhere else.
            asyncio.get_running_loop().call_soon(self._make_waiting)

    # -- the hub's side

    def describe(self) -> str:
        """The peer in words, for the log."""
        return f"{self.kind or 'stranger'} {self.name} at {self._where}"

    def about(self) -> dict[str, str | int]:
        """The peer as fields of a log line."""
        return about(peer=self._where, **{"node" if self.kind == "agent" else "name": self.name})

    def send(self, message: messages.Message) -> None:
        """Write a message, after all that was given before. What is sent to a closed peer is lost."""
        if self._waiting:
            self._waiting.append(iter((message,)))
        else:
            self.send_first(message)

    def send_as_read(self, made: Iterable[messages.Message]) -> None:
        """Write messages, after all that was given before; each is asked of `made` once the peer has read enough."""
        self._waiting.append(iter(made))
        self._make_waiting()

    def send_first(self, message: messages.Message) -> None:
        """Write a message before all that waits. For what means the same in any order; else as `send`.

        One that no frame can hold costs its peer the connection, and not the hub its life.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            data = frame(message)
        except ValueError as error:
            _log.error(
                "dropped %s: it cannot be sent %s: %s",
                self.describe(),
                type(message).__name__,
                error,
                extra=self.about(),
            )
            self.drop()
            return
        if not self._unsent:
            self._switchboard.outbox.add(self)
        self._unsent.append(data)
        self._unsent_bytes += len(data)

    def flush(self) -> None:
        """Write what was sent since the last time. A peer that has left too much unread is dropped."""
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        transport = self._transport
        if not unsent or transport is None or transport.is_closing():
            return
        transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))
        if transport.get_write_buffer_size() > UNREAD_BYTES:
            unread = transport.get_write_buffer_size()
            _log.warning("dropped %s: it has left %d bytes unread", self.describe(), unread, extra=self.about())
            self.drop()
        if self._waiting:
            self._make_waiting()

    def pause(self) -> None:
        """Read nothing more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def drop(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """End the connection after what was written; what waits is lost."""
        self._forget_waiting()
        if self._transport is not None:
            self.flush()
            self._transport.close()

    def refuse(self, error: LanaiError) -> None:
        """Say why not, and end."""
        _log.warning("refused %s: %s", self.describe(), error.message, extra=self.about())
        self.send(messages.Refused(error.body()))
        self.leave()

    # -- within

    def _make_waiting(self) -> None:
        """Make what waits, as far as there is room. More room comes with `flush` or with `resume_writing`."""
        while self._waiting and self._has_room():
            message = next(self._waiting[0], None)
            if message is None:
                self._waiting.popleft()
            else:
                self._made += 1
                self.send_first(message)
        if self._waiting and self._stall_timer is None:
            self._await_reading()

    def _has_room(self) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            self._waiting.clear()
            return False
        return self._unsent_bytes + transport.get_write_buffer_size() <= AHEAD_BYTES

    def _await_reading(self) -> None:
        self._stall_timer = asyncio.get_running_loop().call_later(STALLED_S, self._look_whether_stalled, self._made)

    def _look_whether_stalled(self, made: int) -> None:
        self._stall_timer = None
        if self._waiting and self._made == made:
            _log.warning("dropped %s: it has read nothing for %d s", self.describe(), STALLED_S, extra=self.about())
            self.drop()
        elif self._waiting:
            self._await_reading()

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _greet(self, message: messages.ToHub) -> None:
        if not isinstance(message, messages.Hello):
            raise ProtocolViolation(f"{type(message).__name__} before Hello")
        self.name = message.name[:256]
        try:
            self._authenticate(message)
            if message.protocol_max < messages.PROTOCOL_MIN or message.protocol_min > messages.PROTOCOL_MAX:
                raise VersionMismatch(
                    f"the hub speaks protocols {messages.PROTOCOL_MIN} to {messages.PROTOCOL_MAX}, "
                    f"the other end {message.protocol_min} to {message.protocol_max}",
                    hint="bring both to the same version of lanai",
                )
            self._switchboard.on_hello(self, message)
        except LanaiError as error:
            self.refuse(error)
            return
        self.kind = message.kind
        self._reader.accept_peer()
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None

    def _authenticate(self, hello: messages.Hello) -> None:
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            _, uid, _ = _CREDENTIALS.unpack(raw)
            if uid not in (0, os.geteuid()):
                raise NotAllowed(f"uid {uid} may not use this hub")
            return
        self.token = self._switchboard.admit(hello, self._address)

    def _say_nothing(self) -> None:
        _log.warning("dropped %s: no Hello within %d s", self.describe(), HELLO_S, extra=self.about())
        self.drop()
