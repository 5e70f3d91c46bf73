"""Callers of a hub's API as it really is: other users of this machine by the kernel's word, others by their tokens."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

WITHIN_S = 20.0


class Said(NamedTuple):
    """An answer."""

    status: int
    body: bytes

    @property
    def value(self) -> dict[str, Any]:
        """Its JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def code(self) -> str:
        """Of the error it is; empty where it is none."""
        return str(self.value["error"]["code"]) if self.status >= 400 else ""


class Caller:
    """Asks one request a connection, so that each is who he is at that moment.

    Args:
        path: of a Unix socket, which is connected to as `user`.
        token_file: of a hub on TLS, in the place of both.
    """

    def __init__(self, *, path: Path | None = None, user: str = "root", token_file: Path | None = None) -> None:
        self.user = user
        self._path = path
        self._known: dict[str, str] = json.loads(token_file.read_text()) if token_file else {}

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Said:
        """One request and its whole answer."""
        with self.asked(method, path, body, headers) as answer:
            return Said(answer.status, answer.read())

    @contextmanager
    def asked(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """One request and its answer, unread."""
        sent = {"Authorization": f"Bearer {self._known['token']}"} if self._known.get("token") else {}
        sent |= headers or {}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with self._connected() as sock:
            made = http.client.HTTPConnection("localhost")
            made.sock = sock
            made.request(method, path, data, sent)
            yield made.getresponse()

    def _connected(self) -> socket.socket:
        if self._path is not None:
            return unix_as(self.user, self._path)
        parts = urlsplit(self._known["url"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=WITHIN_S)
        return context.wrap_socket(plain)


def unix_as(user: str, path: Path) -> socket.socket:
    """Connected as `user`, a name or a number: the kernel notes who somebody is when he connects."""
    uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(WITHIN_S)
    try:
        with acting_as(uid):
            made.connect(os.fspath(path))
    except BaseException:
        made.close()
        raise
    return made


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """This process's rights are another user's; only root may ask for that."""
    before, groups = os.getegid(), os.getgroups()
    if uid == os.geteuid():
        yield
        return
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before)
        os.setgroups(groups)
