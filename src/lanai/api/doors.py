"""The API's doors, and what a connection on each of them is: uvicorn's HTTP/1.1 on our own sockets.

A connection learns who its peer is when it is made. It is a stranger's (see `wire.lobby`) until the application has
said who asks; a stranger who was refused is hung up on after the answer. Those who are known have as long for the head
of each further request, and for a body that nobody reads any more. uvicorn's own server object is not used: it wakes up
ten times a second, and takes over the signals.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterable
from typing import Final

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from lanai.api.answers import refusal
from lanai.model.errors import UserError
from lanai.wire.door import BACKLOG, Door, credentials, tls_fault
from lanai.wire.lobby import Lobby, Visitor

HEAD_S: Final = 10.0
"""From the first byte of a request to the end of its head."""
REST_S: Final = 5.0
"""For the rest of a body after the answer to it: so the client reads the answer, and is not cut off."""
KEEP_ALIVE_S: Final = 75
UNREAD_S: Final = 900.0
"""A client that reads nothing of an answer for so long is dropped. Somebody may be looking at a pager."""
PEER: Final = "peer"
"""Where (pid, uid) of a Unix peer stand in a request's `scope["state"]`; absent on TLS."""
VISITOR: Final = "visitor"
"""Where in `scope["state"]` stands whom the lobby counts, to be admitted once it is known who asks."""


class Connection(H11Protocol):
    """One client's connection; to the lobby it is `visitor`."""

    def __init__(self, config: Config, state: ServerState, visitor: Visitor) -> None:
        super().__init__(config=config, server_state=state, app_state={VISITOR: visitor})
        self._visitor = visitor
        self._due = ""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who it is."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            self.app_state[PEER] = credentials(sock)

    def data_received(self, data: bytes) -> None:
        """Whoever begins a request has to come to the end of its head."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Hang up on strangers, and on whoever does not come to the end of a body that was answered already."""
        if self._visitor.is_stranger:
            self.transport.close()  # what he has sent besides is not looked at
            return
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """What comes is no HTTP: say so once, and to the log."""
        self._visitor.notice(f"dropped a client at {self._visitor.where}: {msg.rstrip('.').lower()}")
        super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if fault := tls_fault(exc):
            self._visitor.notice(f"dropped a client at {self._visitor.where}: {fault}")
        self._visitor.leave()
        self._forget_deadline()
        super().connection_lost(exc)

    def _watch(self) -> None:
        due, within_s = self._what_is_due()
        if due == self._due:
            return
        self._forget_deadline()
        self._due = due
        if due:
            self._deadline = self.loop.call_later(within_s, self._drop, f"{due} was not whole within {within_s:g} s")

    def _what_is_due(self) -> tuple[str, float]:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            return "the head of a request", HEAD_S
        if self.conn.their_state is h11.SEND_BODY and self.cycle.response_complete:
            return "the body of a request that was answered", REST_S
        return "", 0.0

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _drop(self, why: str) -> None:
        self._visitor.notice(f"dropped a client at {self._visitor.where}: {why}")
        self.transport.abort()


class Doors:
    """Serves one ASGI application on any number of listening sockets. Who comes in is counted in `lobby`."""

    def __init__(self, app: ASGIApp, lobby: Lobby) -> None:
        self._state = ServerState()
        self._lobby = lobby
        self._config = Config(
            _unambiguous(app),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._config.load()
        # Its warnings are about what any stranger sends, have no bound and name no address.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._doors: list[Door] = []

    def open(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a socket that was bound."""
        door = Door(self._lobby, self._connection, tls=tls, unread_s=UNREAD_S)
        door.open(sock)
        self._doors.append(door)

    async def close(self, grace_s: float) -> None:
        """Take nobody in any more, let answers under way finish for `grace_s`, and drop the rest."""
        for door in self._doors:
            door.close()
        for connection in self._connections():
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace_s)
        for connection in self._connections():
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()

    def _connections(self) -> Iterable[Connection]:
        return [each for each in self._state.connections if isinstance(each, Connection)]

    def _connection(self, visitor: Visitor) -> Connection:
        return Connection(self._config, self._state, visitor)


def _unambiguous(app: ASGIApp) -> ASGIApp:
    """The application, but for requests that others than we might end elsewhere: these are refused, and hung up on.

    h11 refuses all others of that kind; of a request with both a length and chunks it believes the chunks.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]}
        if {b"content-length", b"transfer-encoding"} <= names:
            answer = refusal(UserError("a request has a length or comes in chunks, not both", code="two_lengths"))
            answer.headers["connection"] = "close"
            await answer(scope, receive, send)
        else:
            await app(scope, receive, send)

    return served


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """What the TLS door shows: the hub's own certificate, which clients pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket, taking a port that a killed process has just left."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
