"""Connections to the hub: agents and the API process. Bytes to messages, messages to the switchboard; nothing decided.

A stranger has ten seconds (see `wire.lobby`) and one frame of at most 64 KiB to say Hello. On the Unix socket he is who
the kernel says; on TLS an agent shows the join token. A peer that sends what no protocol allows, or leaves 16 MiB
unread, is dropped and logged; so is an agent that says nothing whole for half a minute. Nobody else notices.

What may be large, such as the command lines of hundreds of jobs, is made piece by piece as the peer reads: at most 2
MiB are on their way, and what follows waits its turn as messages that are not made yet.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from lanai.model.errors import ErrorBody, LanaiError, NotAllowed, VersionMismatch
from lanai.model.ids import NodeId, TokenId
from lanai.wire import messages
from lanai.wire.door import credentials, tls_fault
from lanai.wire.framing import UNREAD_BYTES, FrameReader, ProtocolViolation, frame
from lanai.wire.lobby import Visitor
from lanai.wire.logs import about

RECEIVE_BYTES: Final = 1 << 18
AHEAD_BYTES: Final = 2 << 20
"""With more than this unread by a peer, what may wait is not made yet; once a quarter of it is left, it goes on."""
STALLED_S: Final = 60.0
"""A peer for which something waits and that has read next to nothing for so long is dropped."""
QUIET_S: Final = 30.0
"""An agent that has said nothing whole for so long, ten heartbeats, is dropped: it may be dribbling a frame."""
NAME_CHARACTERS: Final = 256
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
    """One connection; to the lobby it is `visitor`."""

    def __init__(self, switchboard: Switchboard, visitor: Visitor) -> None:
        self.number = next(_numbers)
        self.kind = ""
        self.name = ""
        self.node: NodeId | None = None
        self.token = TokenId(0)
        self.protocol = messages.PROTOCOL_MIN
        self.inventory: list[tuple[int, int, str]] = []
        self.specs: set[int] = set()
        self._switchboard = switchboard
        self._reader = FrameReader(messages.to_hub)
        self._transport: asyncio.Transport | None = None
        self._visitor = visitor
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._has_spoken = False
        self._is_over = False
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._waiting: deque[Iterator[messages.Message]] = deque()
        self._made = 0
        self._stall_timer: asyncio.TimerHandle | None = None

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """What it says is heard from now on."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=AHEAD_BYTES, low=AHEAD_BYTES // 4)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts what it reads: bytes of its own for each read would cost more than the read."""
        return _received

    def buffer_updated(self, nbytes: int) -> None:
        """Pass messages on; drop whoever sends anything else."""
        try:
            for message in self._reader.feed(_received[:nbytes]):
                if self._is_over:
                    return
                self._has_spoken = True
                if self.kind:
                    self._switchboard.on_message(self, message)
                else:
                    self._greet(message)
        except ProtocolViolation as violation:
            self.drop_for(str(violation))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the switchboard, once."""
        if fault := tls_fault(error):
            self._visitor.notice(f"dropped {self.describe()}: {fault}", self.about())
        self._visitor.leave()
        self._transport = None  # which holds us: a cycle, and the hub looks for those seldom
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
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
        return f"{self.kind or 'stranger'} {ascii(self.name)[1:-1]} at {self._visitor.where}"

    def about(self) -> dict[str, str | int]:
        """The peer as fields of a log line."""
        return about(peer=self._visitor.where, **{"node" if self.kind == "agent" else "name": self.name})

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
            self.drop_for(f"it has left {transport.get_write_buffer_size()} bytes unread")
        if self._waiting:
            self._make_waiting()

    def pause(self) -> None:
        """Read nothing more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def drop(self) -> None:
        """End the connection at once."""
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def drop_for(self, why: str) -> None:
        """End the connection at once, and say so in the log."""
        self._visitor.notice(f"dropped {self.describe()}: {why}", self.about())
        self.drop()

    def leave(self) -> None:
        """End the connection after what was written; what waits is lost."""
        self._is_over = True
        self._forget_waiting()
        if self._transport is not None:
            self.flush()
            self._transport.close()

    def refuse(self, error: ErrorBody) -> None:
        """Say why not, and end."""
        self._visitor.notice(f"refused {self.describe()}: {error.message}", self.about())
        self.send(messages.Refused(error))
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
            self.drop_for(f"it has read nothing for {STALLED_S:g} s")
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
        self.name = message.name[:NAME_CHARACTERS]
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
            self.refuse(error.body())
            return
        self.kind = message.kind
        self._reader.accept_peer()
        self._visitor.admit()
        if self.kind == "agent":
            self._await_word()

    def _authenticate(self, hello: messages.Hello) -> None:
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            _, uid = credentials(sock)
            if uid not in (0, os.geteuid()):
                raise NotAllowed(f"uid {uid} may not use this hub")
            return
        host, *_ = self._transport.get_extra_info("peername")
        self.token = self._switchboard.admit(hello, str(host))


    def _await_word(self) -> None:
        self._has_spoken = False
        self._quiet_timer = asyncio.get_running_loop().call_later(QUIET_S, self._look_whether_quiet)

    def _look_whether_quiet(self) -> None:
        if self._has_spoken:
            self._await_word()
        else:
            self.drop_for(f"it has said nothing whole for {QUIET_S:g} s")
