"""A door: accepts connections on one listening socket, and passes them on as the lobby has room for them.

It takes a few connections a turn of the loop, so that those who are inside go first, and hangs up on whom the lobby
refuses before anything was made for it: that costs less than to open a connection. Where the process runs out of
descriptors all the same, it makes one free and waits a moment instead of asking the kernel again and again.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Final

from lanai.wire.lobby import STRANGER_S, Lobby, NoRoom, Visitor, address_of

ACCEPTS_A_TURN: Final = 32
BACKLOG: Final = 1024
OUT_OF_PLACE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_S: Final = 0.5
GOODBYE_S: Final = 5.0
"""How long a connection that we end may take to read the last words."""
DEAD_AFTER_S: Final = 60
"""A host that has gone without a word is noticed by then: the kernel asks four times."""
TLS_READ_BYTES: Final = 64 << 10

# asyncio fills a buffer of this size for each TLS connection when it is made, and reads so much at a time. Its own
# 256 KiB would let strangers hold 256 MiB of us.
asyncio.sslproto.SSLProtocol.max_size = TLS_READ_BYTES

_CREDENTIALS: Final = struct.Struct("3i")


class Door:
    """Makes a protocol of each connection on a listening socket. Give it the socket with `open`.

    Args:
        make: a protocol for a visitor. It calls the visitor's `admit` once it knows who that is, and `leave` when the
            connection is lost.
        unread_s: a peer that leaves what was sent to it unread for so long is cut off by the kernel; 0 is never.
    """

    def __init__(
        self,
        lobby: Lobby,
        make: Callable[[Visitor], asyncio.BaseProtocol],
        *,
        tls: ssl.SSLContext | None = None,
        unread_s: float = 0.0,
    ) -> None:
        self._lobby = lobby
        self._make = make
        self._tls = tls
        self._unread_ms = round(unread_s * 1000)
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._greetings: set[asyncio.Task[None]] = set()

    def open(self, sock: socket.socket) -> None:
        """Listen on a socket that was bound. It is ours from now on."""
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._socket = sock
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Take nobody in any more; connections that there are go on."""
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if self._socket is None:
                return
            try:
                accepted, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_PLACE:
                    raise
                self._rest(error)
                return
            self._receive(accepted, peer)

    def _rest(self, error: OSError) -> None:
        """The one who waits stays in the kernel's queue, which would wake us at once again."""
        assert self._socket is not None
        self._lobby.notices.of_stranger("", f"nobody can come in for a moment: {error.strerror}")
        self._lobby.drop_oldest("there are no descriptors left")
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _receive(self, accepted: socket.socket, peer: tuple[object, ...]) -> None:
        try:
            accepted.setblocking(False)
            address, where = _counted_as(accepted, peer)
            visitor = self._lobby.enter(address, where)
        except NoRoom as refusal:
            self._lobby.notices.of_stranger(address, f"refused a stranger at {where}: {refusal}")
            accepted.close()
            return
        except OSError:
            accepted.close()  # it has gone already
            return
        # What is under way notices by itself that the other end is gone.
        visitor.ends_with(lambda: _shut_down(accepted))
        greeting = self._loop.create_task(self._greet(accepted, visitor))
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, accepted: socket.socket, visitor: Visitor) -> None:
        try:
            if accepted.family != socket.AF_UNIX:
                self._watch_life(accepted)
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: self._make(visitor),
                accepted,
                ssl=self._tls,
                # The lobby's clock runs out first.
                ssl_handshake_timeout=None if self._tls is None else 2 * STRANGER_S,
                ssl_shutdown_timeout=None if self._tls is None else GOODBYE_S,
            )
        except OSError as error:
            visitor.notice(f"dropped a stranger at {visitor.where}: {_said(error)}")
            visitor.leave()
            # Its frames hold all of the connection, and would until cycles are looked for, which the hub does seldom.
            error.__traceback__ = None
        except BaseException:
            visitor.leave()
            raise
        else:
            visitor.ends_with(transport.abort)

    def _watch_life(self, accepted: socket.socket) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, DEAD_AFTER_S // 3)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, DEAD_AFTER_S // 6)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        if self._unread_ms:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unread_ms)


def _shut_down(accepted: socket.socket) -> None:
    try:
        accepted.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other end was quicker


def credentials(sock: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process at the other end of a Unix socket, by the kernel's word."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def _counted_as(accepted: socket.socket, peer: tuple[object, ...]) -> tuple[str, str]:
    """(address, the same for people). The hub's own user and root have none."""
    if accepted.family == socket.AF_UNIX:
        pid, uid = credentials(accepted)
        address = "" if uid in (0, os.geteuid()) else f"uid {uid}"
        return address, f"uid {uid} (process {pid})"
    host, port = str(peer[0]), peer[1]
    return address_of(peer), f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tls_fault(error: Exception | None) -> str:
    """What is wrong with the TLS of a connection that has ended so; empty where nothing is."""
    return (error.reason or "it broke off").replace("_", " ").lower() if isinstance(error, ssl.SSLError) else ""


def _said(error: OSError) -> str:
    if fault := tls_fault(error):
        return f"no TLS handshake ({fault})"
    return error.strerror or str(error) or "it broke off"
