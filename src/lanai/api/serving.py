"""Puts the API process together: link to the hub, store, application, doors; and takes it apart when the hub ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lanai.api import hublink
from lanai.api.app import application
from lanai.api.doors import Doors, listen_tcp, tls_context
from lanai.api.handlers import Handlers
from lanai.api.identity import Admission, Guests, Identity
from lanai.api.view import View
from lanai.model import places
from lanai.model.errors import LanaiError, UserError
from lanai.wire import logs
from lanai.wire.lobby import Lobby, allow_many_connections

HUB_WITHIN_S: Final = 15.0
PORT_WITHIN_S: Final = 10.0
CONNECT_PAUSE_S: Final = 0.01
CLOSING_GRACE_S: Final = 1.0

_log = logging.getLogger("lanai.api")


def serve(
    directory: Path,
    local: Sequence[socket.socket],
    listen: Sequence[tuple[str, int]],
    admission: Admission,
    *,
    parent: int,
) -> int:
    """Serve the hub in `directory`, process `parent`, on Unix sockets and TLS addresses; returns the exit code."""
    logs.configure("lanai-api", level=logging.WARNING, lines="%(asctime)s api: %(message)s")
    try:
        asyncio.run(_serve(directory, local, listen, admission, parent))
    except LanaiError as error:
        _log.error("%s", error)
        return error.exit_code
    return 0


async def _serve(
    directory: Path,
    local: Sequence[socket.socket],
    listen: Sequence[tuple[str, int]],
    admission: Admission,
    parent: int,
) -> None:
    link = await _link(directory, parent)
    view = View(directory)
    identity = Identity(view, admission)
    guests = Guests(identity)
    link.on_tokens_changed = guests.tokens_changed
    lobby = Lobby(allow_many_connections(), _log)
    doors = Doors(application(identity, guests, Handlers(link, view).routes(), link.note), lobby)
    for sock in local:
        doors.open(sock)
    if listen:
        tls = tls_context(os.fspath(directory / "cert.pem"), os.fspath(directory / "key.pem"))
        for host, port in listen:
            doors.open(await listener(host, port), tls)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    link.ended.add_done_callback(lambda _: stopped.set())
    await stopped.wait()
    await doors.close(CLOSING_GRACE_S)
    view.close()


async def listener(host: str, port: int) -> socket.socket:
    """A listening TCP socket. The API process of a hub that was killed may hold the port for a moment longer.

    Raises:
        UserError: it is somebody else's.
    """
    deadline_s = asyncio.get_running_loop().time() + PORT_WITHIN_S
    while True:
        try:
            return listen_tcp(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() > deadline_s:
                why = error.strerror or str(error)
                raise UserError(f"cannot listen for clients at {host}:{port}: {why}", code="cannot_listen") from None
        await asyncio.sleep(CONNECT_PAUSE_S)


async def _link(directory: Path, parent: int) -> hublink.HubLink:
    """The link to our hub, which may not have got as far as listening. Raises OtherEnd once it surely will not."""
    deadline_s = asyncio.get_running_loop().time() + HUB_WITHIN_S
    while True:
        try:
            return await hublink.connect(places.wire_socket(directory))
        except LanaiError:
            if os.getppid() != parent or asyncio.get_running_loop().time() > deadline_s:
                raise
            await asyncio.sleep(CONNECT_PAUSE_S)
