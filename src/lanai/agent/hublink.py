"""The agent's one connection to its hub: dials out, for ever, and turns bytes into messages and back.

It decides nothing about jobs. It never blocks: the loop that owns it calls `on_ready` when the descriptor is ready and
`on_time` when `due_us` has come. Times are microseconds of CLOCK_BOOTTIME and are handed in, and so is the jitter.

A name may have several addresses: they are tried one after the other, each for its time.

Where the hub is is asked for again before each connect: the join file may have been replaced.

A connect that is *refused* is told apart from one that fails otherwise, because it proves that no hub is up; but only
where every address refuses: the hub may well be at the one that does not answer. TLS trusts
the SHA-256 of the hub's certificate, or of the one that it will have, and nothing else; nothing is sent to a hub that
shows another.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from lanai.agent.lookup import Lookup, Place, numeric
from lanai.model.errors import UserError
from lanai.wire import messages
from lanai.wire.framing import UNREAD_BYTES, FrameReader, ProtocolViolation, frame

CONNECT_TIMEOUT_US: Final = 5_000_000
BACKOFF_FIRST_US: Final = 100_000
BACKOFF_LAST_US: Final = 2_000_000
FETCH_AGAIN: Final = "if the hub has a new certificate, fetch its join file again: put it where the old one lies"
# Below the size from which malloc asks the kernel for memory each time and gives it back.
_READ_BYTES: Final = 64 << 10


class Address(msgspec.Struct, frozen=True):
    """Where the hub is: a Unix socket, or a host and port whose certificate has one of these SHA-256."""

    path: Path | None = None
    host: str = ""
    port: int = 0
    pins: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """As `address` reads it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path is not None else f"lanai://{host}:{self.port}"


def address(url: str, pin: str, next_pin: str = "") -> Address:
    """Read `unix:PATH` or `lanai://HOST:PORT`. Raises UserError where it is neither, or TLS has no pin."""
    if url.startswith("unix:"):
        return Address(path=Path(url.removeprefix("unix:")))
    parts = urlsplit(url)
    if parts.scheme != "lanai" or not parts.hostname or not parts.port:
        raise UserError(f"found the hub address {url!r}, accepted are unix:PATH and lanai://HOST:PORT", code="bad_url")
    if len(pin) != 64:
        hint = "give the join file that the hub wrote: --join FILE"
        raise UserError(f"the certificate of {url} is not known here", code="no_pin", hint=hint)
    pins = (pin.lower(), next_pin.lower()) if next_pin else (pin.lower(),)
    return Address(host=parts.hostname, port=parts.port, pins=pins)


class Up(msgspec.Struct, frozen=True):
    """Connected, and the hub is who it should be. Send Hello."""


class Refused(msgspec.Struct, frozen=True):
    """Nobody listens there: the connect that began then was refused, at each address."""

    began_us: int


class Down(msgspec.Struct, frozen=True):
    """The connection ended, or could not be made for another reason than that nobody listens."""

    problem: str


class WrongPin(msgspec.Struct, frozen=True):
    """Somebody answers there whose certificate is not the hub's. Down follows."""

    problem: str


LinkEvent = Up | WrongPin | Refused | Down | messages.ToAgent


class HubLink:
    """A connection that comes back.

    Attributes:
        due_us: when `on_time` wants to be called next.
        is_up: messages can be sent.
    """

    def __init__(self, where: Callable[[], Address], jitter: Callable[[], float]) -> None:
        """`where` says where the hub is now; `jitter` gives numbers in [0, 1), to spread the attempts of many."""
        self._where = where
        self._to = where()
        self._jitter = jitter
        self._socket: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._is_shaking = False
        self._lookup: Lookup | None = None
        self._is_looking = False
        self._places: deque[Place] = deque()
        self._refusals = self._other_failures = 0
        self._began_us = 0
        self._backoff_us = BACKOFF_FIRST_US
        self._reader = FrameReader(messages.to_agent)
        self._out: deque[bytes] = deque()
        self._out_bytes = 0
        self._wants_write = False
        self.due_us = 0
        self.is_up = False

    @property
    def url(self) -> str:
        """Where it goes, or went last."""
        return self._to.url

    def fileno(self) -> int:
        """The descriptor to watch, or -1 while there is none."""
        if self._is_looking and self._lookup is not None:
            return self._lookup.fileno()
        return -1 if self._socket is None else self._socket.fileno()

    def wants_write(self) -> bool:
        """Whether to wake also when the descriptor can be written.

        A connected one nearly always can be, so it is asked for only while a write waits, or the connect itself.
        """
        is_connecting = not self.is_up and not self._is_shaking
        return self._socket is not None and (is_connecting or bool(self._out) or self._wants_write)

    def is_idle(self) -> bool:
        """Whether everything sent so far has left."""
        return self.is_up and not self._out

    def accept_peer(self) -> None:
        """The hub said Welcome: short back-off next time."""
        self._backoff_us = BACKOFF_FIRST_US

    def send(self, message: messages.ToHub) -> None:
        """Queue a message; `flush` or the next `on_ready` sends it. Dropped while the link is not up."""
        if self.is_up:
            data = frame(message)
            self._out.append(data)
            self._out_bytes += len(data)

    def flush(self, now_us: int) -> list[LinkEvent]:
        """Send what can be sent."""
        try:
            self._write()
        except OSError as error:
            return [self._down(now_us, _said(error))]
        if self._out_bytes > UNREAD_BYTES:
            return [self._down(now_us, "the hub does not read")]
        return []

    def on_time(self, now_us: int) -> list[LinkEvent]:
        """Begin a connect that is due, or give up what takes too long: an address, or the search for one."""
        if now_us < self.due_us or self.is_up:
            return []
        if self._is_looking:
            return [self._down(now_us, f"no address of {self._to.host} was found in time")]
        if self._socket is not None:
            return self._failed(now_us, TimeoutError("no answer in time"))
        return self._find(now_us)

    def on_ready(self, now_us: int) -> list[LinkEvent]:
        """The descriptor is ready: go on connecting, or read and write."""
        if self._is_looking:
            return self._take_places(now_us)
        if self._socket is None:
            return []
        try:
            if not self.is_up:
                return self._go_on(now_us)
            self._write()
            return self._read(now_us)
        except _OtherCertificate as error:
            return [WrongPin(str(error)), *self._failed(now_us, error)]
        except (OSError, ProtocolViolation) as error:
            return self._failed(now_us, error)

    def drop(self, now_us: int, problem: str) -> list[LinkEvent]:
        """End the connection; another is begun after the back-off."""
        return [self._down(now_us, problem)] if self._socket is not None else []

    def close(self) -> None:
        """End it for good, after one attempt to send what is queued."""
        if self._socket is not None:
            try:
                self._write()
            except OSError:
                pass
            self._socket.close()
            self._socket = None
        self.is_up = False

    def _find(self, now_us: int) -> list[LinkEvent]:
        """Find out where to connect to. One lookup goes on for as long as it takes, over any number of connects."""
        self._refusals = self._other_failures = 0
        to = self._where()
        if (to.host, to.port) != (self._to.host, self._to.port):
            self._lookup = None  # its answer would be about another name
        self._to = to
        if self._to.path is not None:
            return self._connect_first(now_us, [(socket.AF_UNIX, self._to.path)])
        if self._lookup is None:
            if places := numeric(self._to.host, self._to.port):
                return self._connect_first(now_us, places)
            try:
                self._lookup = Lookup(self._to.host, self._to.port)
            except OSError as error:
                return [self._down(now_us, _said(error))]
        self._is_looking = True
        self.due_us = now_us + CONNECT_TIMEOUT_US
        return []

    def _take_places(self, now_us: int) -> list[LinkEvent]:
        assert self._lookup is not None
        lookup, self._lookup, self._is_looking = self._lookup, None, False
        try:
            return self._connect_first(now_us, lookup.take())
        except OSError as error:
            return [self._down(now_us, _said(error))]

    def _connect_first(self, now_us: int, places: list[Place]) -> list[LinkEvent]:
        self._places = deque(places)
        self._began_us = now_us
        return self._connect_next(now_us)

    def _connect_next(self, now_us: int) -> list[LinkEvent]:
        family, where = self._places.popleft()
        self.due_us = now_us + CONNECT_TIMEOUT_US
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            problem = _begin_connect(self._socket, where)
            if problem not in (0, errno.EINPROGRESS):
                raise OSError(problem, os.strerror(problem))
            return self._go_on(now_us) if problem == 0 else []
        except OSError as error:
            return self._failed(now_us, error)

    def _go_on(self, now_us: int) -> list[LinkEvent]:
        assert self._socket is not None
        problem = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))
        if self._to.path is None:
            if not self._is_shaking:
                self._socket = _without_trust().wrap_socket(self._socket, do_handshake_on_connect=False)
                self._is_shaking = True
            if not self._handshake(self._socket):
                return []
        self._reader = FrameReader(messages.to_agent)
        self._reader.accept_peer()  # by its certificate, or its place in our file system, it is the hub
        self.is_up = True
        self.due_us = 1 << 62
        return [Up(), *(self._read(now_us) if self._to.path is None else [])]

    def _handshake(self, tls: socket.socket) -> bool:
        assert isinstance(tls, ssl.SSLSocket)
        self._wants_write = False
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._wants_write = True
            return False
        shown = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
        if shown not in self._to.pins:
            raise _OtherCertificate(
                f"what answers at {self.url} is not the hub of the join file: its certificate is {shown},"
                f" expected is {' or '.join(self._to.pins)}"
            )
        return True

    def _read(self, now_us: int) -> list[LinkEvent]:
        assert self._socket is not None
        found: list[LinkEvent] = []
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return found
            except OSError as error:
                return [*found, self._down(now_us, _said(error))]
            if not data:
                return [*found, self._down(now_us, "the hub closed the connection")]
            try:
                found.extend(self._reader.feed(data))
            except ProtocolViolation as error:
                return [*found, self._down(now_us, str(error))]
            if self._to.path is not None and len(data) < _READ_BYTES:
                return found

    def _write(self) -> None:
        if self._socket is None or not self.is_up:
            return
        while self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._out = deque([data])
                return
            self._out_bytes -= sent
            self._out = deque([data[sent:]]) if sent < len(data) else deque()

    def _failed(self, now_us: int, error: Exception) -> list[LinkEvent]:
        """This connection is none; the next address is tried, if one is left."""
        if self.is_up:
            return [self._down(now_us, _said(error))]
        self._count(error)
        self._hang_up()
        if self._places:
            return self._connect_next(now_us)
        down = self._down(now_us, _said(error))
        return [Refused(self._began_us) if self._refusals and not self._other_failures else down]

    def _count(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno == errno.EAFNOSUPPORT:
            return  # this computer has no such addresses, so the hub was never reached at one
        is_refusal = isinstance(error, ConnectionRefusedError) or (
            self._to.path is not None and isinstance(error, FileNotFoundError)
        )
        if is_refusal and not self._is_shaking:
            self._refusals += 1
        else:
            self._other_failures += 1

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._is_shaking = self.is_up = self._wants_write = self._is_looking = False

    def _down(self, now_us: int, problem: str) -> Down:
        self._hang_up()
        self._places.clear()
        self._out.clear()
        self._out_bytes = 0
        self.due_us = now_us + round(self._backoff_us * (0.75 + 0.5 * self._jitter()))
        self._backoff_us = min(BACKOFF_LAST_US, self._backoff_us * 2)
        return Down(problem)


class _OtherCertificate(Exception):
    """The pin does not match."""


def _begin_connect(made: socket.socket, where: object) -> int:
    """Like `connect_ex`; a Unix socket's path may have any length."""
    if isinstance(where, Path):
        return _connect_unix(made, where)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made.connect_ex(where)  # type: ignore[arg-type]


def _connect_unix(made: socket.socket, path: Path) -> int:
    """Like `connect_ex`, at a path of any length."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return made.connect_ex(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def _without_trust() -> ssl.SSLContext:
    """TLS that believes any certificate: the pin is compared by hand, before a byte is sent."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


def _said(error: Exception) -> str:
    if isinstance(error, _OtherCertificate):
        return f"{error}; {FETCH_AGAIN}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
