"""HTTP/1.1 as a client of the API needs it: one request at a time on a connected socket, and its answer.

Python's own `http.client` would do, but brings `email` and `ssl` with it, which cost more than the rest of a short
command. This knows requests with a body of known length or in chunks, and answers by Content-Length, in chunks, or up
to the end of the connection (RFC 9112, sections 6 and 7); no redirects, no compression, no trailers that mean anything.

What the other side may not say is a `BadAnswer`, as is an answer that ends early; both are OSErrors like all that can
happen to a socket.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from io import BufferedReader
from typing import Final

LINE_BYTES: Final = 1 << 16
HEADERS: Final = 100
READ_BYTES: Final = 1 << 16


class BadAnswer(OSError):
    """What came is no whole HTTP/1.1 answer."""


class Answer:
    """One answer. Its body is read from the connection, once and in order.

    Attributes:
        status: of the final answer; interim ones are not shown.
        headers: by name in small letters.
        is_read: the whole body has been taken, so that another request may follow.
        is_last: the other side ends the connection after it.
    """

    def __init__(self, reader: BufferedReader) -> None:
        self._reader = reader
        self.status, headers = _head(reader)
        while self.status < 200:
            self.status, headers = _head(reader)
        self.headers = headers
        self._is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._is_open_ended = not self._is_chunked and "content-length" not in headers
        self._left_bytes = 0 if self._is_chunked else _length(headers.get("content-length", "0"), 10)
        self.is_last = self._is_open_ended or headers.get("connection", "").lower() == "close"
        self.is_read = self.status in (204, 304) or not (self._is_chunked or self._is_open_ended or self._left_bytes)

    def read(self, count: int | None = None) -> bytes:
        """The next `count` bytes of the body, fewer only at its end; without `count` all that are left."""
        gathered: list[bytes] = []
        size_bytes = 0
        while not self.is_read and (count is None or size_bytes < count):
            gathered.append(self._piece(READ_BYTES if count is None else count - size_bytes))
            size_bytes += len(gathered[-1])
        return b"".join(gathered)

    def _piece(self, most: int) -> bytes:
        if self._is_open_ended:
            piece = self._reader.read(most)
            self.is_read = len(piece) < most
            return piece
        if self._is_chunked and not self._left_bytes:
            self._left_bytes = _length(_line(self._reader).partition(b";")[0].decode("latin-1").strip(), 16)
            if not self._left_bytes:
                while _line(self._reader):
                    pass
                self.is_read = True
                return b""
        piece = _exactly(self._reader, min(most, self._left_bytes))
        self._left_bytes -= len(piece)
        if self._is_chunked and not self._left_bytes and _line(self._reader):
            raise BadAnswer("a chunk of the answer is longer than it said")
        self.is_read = not self._is_chunked and not self._left_bytes
        return piece


class Exchange:
    """A connection on which requests are made one after the other. It owns the socket."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self._sock = sock
        self._host = host
        self._reader = sock.makefile("rb")
        self._is_fresh = True
        self._answer: Answer | None = None

    def close(self) -> None:
        """Let go of the socket; a repeat is harmless."""
        self._reader.close()
        self._sock.close()

    @property
    def is_reusable(self) -> bool:
        """Whether another request can follow: none was made yet, or its answer is read and was not to be the last."""
        answer = self._answer
        return self._is_fresh or (answer is not None and answer.is_read and not answer.is_last)

    def bound(self, timeout_s: float | None) -> None:
        """How long a single read or write may take from now on."""
        self._sock.settimeout(timeout_s)

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Make a request; its answer has been read up to the body."""
        length = {} if body is None else {"Content-Length": str(len(body))}
        self._sock.sendall(self._request(method, path, {**headers, **length}) + (body or b""))
        return self._answered()

    def send(self, path: str, headers: Mapping[str, str], pieces: Iterable[bytes]) -> Answer:
        """POST a body in chunks, as they come. Where the other side answers before it has all, that is the answer."""
        waiting = self._request("POST", path, {**headers, "Transfer-Encoding": "chunked"})
        try:
            for piece in pieces:
                if piece:
                    self._sock.sendall(b"%s%x\r\n%s\r\n" % (waiting, len(piece), piece))
                    waiting = b""
            self._sock.sendall(waiting + b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # what it said before it turned away counts
        return self._answered()

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        self._is_fresh, self._answer = False, None
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a path or a header holds a line's end")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _answered(self) -> Answer:
        self._answer = Answer(self._reader)
        return self._answer


def _head(reader: BufferedReader) -> tuple[int, dict[str, str]]:
    version, _, rest = _line(reader).partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise BadAnswer("the answer is no HTTP/1.1")
    headers: dict[str, str] = {}
    while line := _line(reader):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
        if len(headers) > HEADERS:
            raise BadAnswer(f"the answer has more than {HEADERS} headers")
    return int(rest[:3]), headers


def _line(reader: BufferedReader) -> bytes:
    try:
        line = reader.readline(LINE_BYTES)
    except ValueError:  # what Python says of a reader that was closed under it
        raise BadAnswer("the connection was closed") from None
    if not line.endswith(b"\n"):
        raise BadAnswer("a line of the answer is too long" if len(line) == LINE_BYTES else "the connection was closed")
    return line.rstrip(b"\r\n")


def _exactly(reader: BufferedReader, count: int) -> bytes:
    try:
        piece = reader.read(count)
    except ValueError:
        raise BadAnswer("the connection was closed") from None
    if len(piece) < count:
        raise BadAnswer("the answer ended in the middle")
    return piece


def _length(text: str, base: int) -> int:
    if not text.isalnum():
        raise BadAnswer(f"the answer says that it has {text[:20]!r} bytes")
    try:
        return int(text, base)
    except ValueError:
        raise BadAnswer(f"the answer says that it has {text[:20]!r} bytes") from None
