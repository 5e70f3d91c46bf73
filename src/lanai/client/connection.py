"""One HTTP connection to the API process: over the Unix socket, or over TLS with a pinned certificate.

Errors of the other side are raised as what they were there (`model.errors`); a side that does not answer is `OtherEnd`.
What only the TLS door or an error needs is imported there. A connection serves one thread at a time.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lanai.client.exchange import Answer, Exchange
from lanai.model.errors import InternalError, OtherEnd, raised_from
from lanai.wire import unix

CONNECT_TIMEOUT_S: Final = 5.0
REPLACED_WITHIN_S: Final = 3.0
PAUSE_S: Final = 0.05
ANSWER_TIMEOUT_S: Final = 90.0
"""Longer than the API waits for its hub, and than the longest long poll."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a hub's API is reached: either `socket`, or the others.

    Attributes:
        socket: path of api.sock.
        host, port, pin, token: of the TLS door; the pin is the SHA-256 of its certificate in hexadecimal.
        next_pin: of the certificate that it will have, where that is known; it is as good.
    """

    socket: Path | None = None
    host: str = ""
    port: int = 0
    pin: str = ""
    token: str = ""
    next_pin: str = ""

    def __str__(self) -> str:
        return str(self.socket) if self.socket is not None else f"https://{self.host}:{self.port}"


class Connection:
    """Requests to one target, one after the other, on a connection that is kept and made anew when it broke."""

    def __init__(self, target: Target, *, hint: str = "lanai hub status") -> None:
        self._target = target
        self._hint = hint
        self._exchange: Exchange | None = None

    def json(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> dict[str, Any]:
        """Ask, and return the answer's object. Raises what the API answers, or OtherEnd."""
        payload = None if body is None else json.dumps(body).encode()
        return _decoded(self.read(self.ask(method, path, payload, timeout_s=timeout_s)))

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = ANSWER_TIMEOUT_S
    ) -> Answer:
        """Ask, and return the answer unread; its body has to be read, or the connection closed, before the next.

        A kept connection that broke meanwhile is replaced and the question asked once more: all our requests but
        submissions can be repeated. A new one that is cut off has met an API process that was just ending; what only
        asks is asked again for a moment, since another takes its place.
        """
        was_kept = self._exchange is not None
        try:
            return self._ask(method, path, body, timeout_s)
        except _Broken as broken:
            self.close()
            is_cut_off = method == "GET" and isinstance(broken.cause, ConnectionError)
            if not was_kept and not is_cut_off:
                raise self._unreachable(broken.cause) from None
        deadline_s = time.monotonic() + (0.0 if was_kept else REPLACED_WITHIN_S)
        while True:
            try:
                return self._ask(method, path, body, timeout_s)
            except _Broken as broken:
                self.close()
                error = self._unreachable(broken.cause)
            except OtherEnd as unreachable:
                error = unreachable
            if time.monotonic() >= deadline_s:
                raise error from None
            time.sleep(PAUSE_S)

    def page(self, path: str) -> tuple[bytes, str | None]:
        """GET a page as it is, and what to go on after; None where it is the last."""
        answer = self.ask("GET", path)
        return self.read(answer), answer.headers.get("lanai-next")

    def read(self, answer: Answer, count: int | None = None) -> bytes:
        """The next `count` bytes of an answer, fewer only at its end; all that are left without `count`."""
        try:
            return answer.read(count)
        except OSError as fault:
            self.close()
            raise self._unreachable(fault) from None

    def send(self, path: str, pieces: Iterable[bytes], content_type: str) -> dict[str, Any]:
        """POST a body that is made while it is sent, and return the answer's object. Never repeated by itself."""
        self.close()
        exchange = self._connected(ANSWER_TIMEOUT_S)
        try:
            answer = exchange.send(path, {**self._headers(), "Content-Type": content_type}, pieces)
            return _decoded(self.read(self._checked(answer)))
        except OSError as fault:
            self.close()
            raise self._unreachable(fault) from None

    def close(self) -> None:
        """Let go of the socket; the next request opens another."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None

    def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float | None) -> Answer:
        exchange = self._connected(timeout_s)
        headers = self._headers()
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return self._checked(exchange.ask(method, path, headers, body))
        except OSError as fault:
            raise _Broken(fault) from None

    def _checked(self, answer: Answer) -> Answer:
        if answer.status < 400:
            return answer
        raise _error_in(self.read(answer), answer.status)

    def _connected(self, timeout_s: float | None) -> Exchange:
        if self._exchange is not None and not self._exchange.is_reusable:
            self.close()
        if self._exchange is None:
            self._exchange = Exchange(self._socket(), self._target.host or "localhost")
        self._exchange.bound(timeout_s)
        return self._exchange

    def _socket(self) -> socket.socket:
        try:
            if self._target.socket is not None:
                return unix.connect(self._target.socket, timeout_s=CONNECT_TIMEOUT_S)
            return self._tls_socket()
        except OSError as fault:
            raise self._unreachable(fault) from None

    def _tls_socket(self) -> socket.socket:
        import hashlib
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The hub's certificate is its own; what makes it trusted is its pin, compared below before anything is sent.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection((self._target.host, self._target.port), timeout=CONNECT_TIMEOUT_S)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secured = context.wrap_socket(plain, server_hostname=self._target.host)
        except BaseException:
            plain.close()
            raise
        shown = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
        if shown not in (self._target.pin.lower(), self._target.next_pin.lower()):
            secured.close()
            raise OtherEnd(
                f"what answers at {self._target} is not the hub that the token file names",
                code="wrong_pin",
                hint="if the hub has a new certificate, fetch its token file again",
                facts={"found": shown, "expected": self._target.pin},
            )
        return secured

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._target.token}"} if self._target.token else {}

    def _unreachable(self, fault: BaseException) -> OtherEnd:
        why = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
        return OtherEnd(f"the hub at {self._target} does not answer: {why}", hint=self._hint)


class _Broken(Exception):
    """The connection failed before a whole answer had come."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise InternalError(f"the API answered what is no JSON object: {raw[:100]!r}")
    return answer


def _error_in(raw: bytes, status: int) -> Exception:
    import msgspec

    from lanai.model.errors import ErrorBody

    try:
        body = msgspec.convert(json.loads(raw)["error"], ErrorBody)
    except (ValueError, KeyError, TypeError):
        return InternalError(f"the API answered {status} without saying why: {raw[:100]!r}")
    return raised_from(body)
