"""A peer of the hub made of a blocking socket: says whatever a test wants, the allowed and the forbidden."""

from __future__ import annotations

import json
import socket
import ssl
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, ShapeId
from lanai.model.resources import Capacity, Shape
from lanai.wire import messages, unix
from lanai.wire.framing import FrameReader, frame

WAIT_S = 10.0


class WirePeer:
    """One connection to a hub."""

    def __init__(self, sock: socket.socket, decoder: Any) -> None:
        self.sock = sock
        self._reader: FrameReader[Any] = FrameReader(decoder)
        self._reader.accept_peer()
        self._got: deque[Any] = deque()
        sock.settimeout(WAIT_S)

    @classmethod
    def local(cls, hub_dir: Path, decoder: Any = messages.to_api) -> WirePeer:
        """On the hub's Unix socket."""
        return cls(unix.connect(hub_dir / "hub.sock"), decoder)

    @classmethod
    def tls(cls, home: Path, decoder: Any = messages.to_agent) -> WirePeer:
        """On the hub's TLS door, with nothing said yet."""
        return cls(tls_socket(home), decoder)

    def send(self, *said: msgspec.Struct) -> None:
        """Send messages in one write."""
        self.sock.sendall(b"".join(frame(message) for message in said))

    def receive(self) -> Any:
        """The next message. Raises ConnectionError where the hub has ended the connection."""
        while not self._got:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the hub ended the connection")
            self._got.extend(self._reader.feed(data))
        return self._got.popleft()

    def expect(self, kind: type[Any], **fields: object) -> Any:
        """Receive until a message of `kind` with these fields comes; what came before is dropped."""
        while True:
            message = self.receive()
            if isinstance(message, kind) and all(getattr(message, name) == value for name, value in fields.items()):
                return message

    def is_ended_by_hub(self) -> bool:
        """Reads until the hub ends the connection. Raises TimeoutError where it does not."""
        try:
            while self.sock.recv(1 << 16):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        return True

    def close(self) -> None:
        """End the connection."""
        self.sock.close()

    # -- conversations

    def hello_api(self) -> messages.Welcome:
        """Introduce oneself as the API process."""
        self.send(messages.Hello("api", 1, 1, "test"))
        return self.expect(messages.Welcome)

    def hello_agent(
        self,
        name: str,
        *,
        token: str = "",
        key: str = "k",
        boot_id: str = "b1",
        cpu_milli: int = 2000,
        protocol: int = 1,
    ) -> messages.Welcome:
        """Join as an agent with an empty inventory."""
        capacity = Capacity(cpu_milli=cpu_milli, memory_bytes=8 << 30)
        self.send(messages.Hello("agent", 1, protocol, "test", token, name, key, boot_id, 1, 0, capacity))
        welcome: messages.Welcome = self.expect(messages.Welcome)
        self.send(messages.Inventory([], is_last=True))
        return welcome

    def command(self, verb: str, **arguments: object) -> Any:
        """Ask and return the decoded result; AssertionError with the error where it is one."""
        self.send(messages.Command(7, "tester", verb, msgspec.Raw(msgspec.msgpack.encode(arguments))))
        reply = self.expect(messages.Reply, request=7)
        assert reply.error is None, reply.error
        return msgspec.msgpack.decode(reply.result)

    def submit(
        self, lines: list[bytes], *, key: str = "", settings: BatchSettings | None = None, shape: Shape | None = None
    ) -> BatchId:
        """A whole batch of lines of one shape."""
        settings = settings or BatchSettings(cwd="/")
        self.send(messages.Open(1, key, "tester", settings, {b"PATH": b"/usr/bin:/bin"}))
        batch: BatchId = self.expect(messages.Opened).batch
        for first in range(0, len(lines), 1000):
            part = lines[first : first + 1000]
            shapes = [] if first else [(ShapeId(0), shape or Shape())]
            runs = [(len(part), ShapeId(0))]
            self.send(messages.Chunk(batch, first + 1, len(part), runs, shapes, b"\0".join(part)))
            self.expect(messages.ChunkTaken, batch=batch)
        self.send(messages.Close(2, batch, len(lines), b"digest"))
        reply = self.expect(messages.Reply, request=2)
        assert reply.error is None, reply.error
        return batch


def tls_socket(home: Path) -> ssl.SSLSocket:
    """A TLS connection to the wire door of the hub in `home`."""
    parts = urlsplit(json.loads((home / "join").read_text())["url"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=WAIT_S)
    return context.wrap_socket(plain)


def join_token(home: Path) -> str:
    """The token that agents of the hub in `home` show."""
    return str(json.loads((home / "join").read_text())["token"])
