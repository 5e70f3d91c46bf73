"""The two listening sockets, and what a connection on each of them is: uvicorn's HTTP/1.1 on our own sockets.

A connection learns who its peer is when it is made. A stranger on the TLS door has `FIRST_REQUEST_S` to shake hands and
send the head of a request, and holds nothing else of us. uvicorn's own server object is not used: it wakes up ten times
a second, and takes over the signals.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Iterable
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

FIRST_REQUEST_S: Final = 10.0
KEEP_ALIVE_S: Final = 75
BACKLOG: Final = 128
PEER: Final = "peer"
"""Where (pid, uid) of a Unix peer stand in a request's `scope["state"]`; absent on TLS."""

_CREDENTIALS: Final = struct.Struct("3i")


class Connection(H11Protocol):
    """One client's connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who it is, or start the stranger's clock."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self.app_state[PEER] = _CREDENTIALS.unpack(raw)[:2]
        else:
            self.loop.call_later(FIRST_REQUEST_S, self._drop_if_silent)

    def _drop_if_silent(self) -> None:
        if not (self.cycle or self.transport.is_closing()):
            self.transport.abort()


class Doors:
    """Serves one ASGI application on any number of listening sockets."""

    def __init__(self, app: Any) -> None:
        self._state = ServerState()
        self._config = Config(
            app,
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
        self._servers: list[asyncio.Server] = []

    async def open(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a listening socket."""
        handshake_s = None if tls is None else FIRST_REQUEST_S
        self._servers.append(
            await asyncio.get_running_loop().create_server(
                self._connection, sock=sock, ssl=tls, ssl_handshake_timeout=handshake_s, backlog=BACKLOG
            )
        )

    async def close(self, grace_s: float) -> None:
        """Take nobody in any more, let answers under way finish for `grace_s`, and drop the rest."""
        for server in self._servers:
            server.close()
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

    def _connection(self) -> Connection:
        return Connection(config=self._config, server_state=self._state, app_state={})


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
    made.bind((host, port))
    made.listen(BACKLOG)
    return made
