"""Those who mean harm, on real sockets: they come from addresses of their own, dribble, flood, and never read."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lanai.client.connection import Connection, Target
from lanai.model.errors import OtherEnd
from services.processes import eventually

HANDSHAKE: Final = b"\x16"
"""The first byte of whoever begins with TLS."""

WAIT_S = 10.0
STRANGER = "127.0.0.2"


class Doors:
    """Where the two TLS doors of the hub in `home` are."""

    def __init__(self, home: Path) -> None:
        self.wire = _place(json.loads((home / "join").read_text())["url"])
        said = json.loads((home / "hub" / "token").read_text())
        self.api = _place(said["url"])
        self.token = str(said["token"])


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


def hub_facts(target: Target) -> dict[str, Any]:
    """What the hub says of itself, once its API process answers at `target`."""

    def asked() -> dict[str, Any] | None:
        with closing(Connection(target)) as client:
            try:
                return client.json("GET", "/v1/hub")
            except OtherEnd:
                return None

    found: dict[str, Any] = eventually(asked, what="the API process to answer")
    return found


def trusting() -> ssl.SSLContext:
    """TLS that believes anybody."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def connect(place: tuple[str, int], *, source: str = STRANGER) -> socket.socket:
    """A TCP connection from one of this machine's addresses."""
    return socket.create_connection(place, timeout=WAIT_S, source_address=(source, 0))


def connect_tls(place: tuple[str, int], *, source: str = STRANGER) -> ssl.SSLSocket:
    """A TLS connection from one of this machine's addresses."""
    return trusting().wrap_socket(connect(place, source=source))


def client_hello() -> bytes:
    """The first bytes of a TLS handshake."""
    out = ssl.MemoryBIO()
    made = trusting().wrap_bio(ssl.MemoryBIO(), out)
    try:
        made.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


class Dribbler:
    """Sends one byte of `said` whenever it is told to, for as long as the other end bears it."""

    def __init__(self, what: str, sock: socket.socket, said: bytes) -> None:
        self.what = what
        self.sock = sock
        self.heard = b""
        self.ended_s: float | None = None
        self._left = iter(said)
        self._began_s = time.monotonic()
        sock.settimeout(0)

    def go_on(self) -> None:
        """Another byte; notices when it was hung up on, and after how many seconds."""
        if self.ended_s is not None:
            return
        try:
            if self._is_ended():
                raise ConnectionResetError
            self.sock.send(bytes([next(self._left)]))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, StopIteration):
            pass
        except OSError:
            self.ended_s = time.monotonic() - self._began_s

    def _is_ended(self) -> bool:
        try:
            while data := self.sock.recv(1 << 16):
                self.heard += data
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        return True


class Flood:
    """Very many connections from one address, which say one byte and stay.

    The byte shows who is really held: where very many come at once the kernel answers with cookies, and forgets a
    connection whose last word meets a full queue; only who sends something learns of that.
    """

    def __init__(self, place: tuple[str, int], count: int, *, source: str = STRANGER, within_s: float = 15.0) -> None:
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(count)]
        self._poll = select.poll()
        begun_s = time.monotonic()
        for each in self.sockets:
            # Many ports for one source address, as a host has; else the kernel looks for each one for long.
            each.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            each.bind((source, 0))
            each.connect_ex(place)
        for each in self.sockets:
            self._poll.register(each, select.POLLOUT)
        of_fd = {each.fileno(): each for each in self.sockets}
        waiting = set(of_fd)
        while waiting and time.monotonic() < begun_s + within_s:
            for fd, _ in self._poll.poll(100):
                waiting.discard(fd)
                self._poll.unregister(fd)
                with suppress(OSError):
                    of_fd[fd].send(HANDSHAKE)
        self.never_answered = len(waiting)
        self.took_s = time.monotonic() - begun_s
        for fd in waiting:
            self._poll.unregister(fd)

    def held(self) -> int:
        """How many of them the other end still holds open."""
        poll = select.poll()
        for each in self.sockets:
            poll.register(each, select.POLLIN | select.POLLRDHUP)
        return len(self.sockets) - len(poll.poll(0))

    def close(self) -> None:
        """All go."""
        for each in self.sockets:
            each.close()


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid: int) -> int:
    """How much memory a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """How much processor time a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def took_s(act: Callable[[], object]) -> float:
    """How long something took."""
    begun_s = time.monotonic()
    act()
    return time.monotonic() - begun_s


def lines_about(log: Path, pattern: str) -> list[str]:
    """The lines of a log that match."""
    return [line for line in log.read_text(errors="replace").splitlines() if re.search(pattern, line)]


def close_all(sockets: Iterable[socket.socket]) -> None:
    """End these connections."""
    for each in sockets:
        each.close()
