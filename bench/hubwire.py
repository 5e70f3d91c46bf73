"""The API process's side of the wire, without the API process: what it costs to put lists into a hub, and no more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, ShapeId
from lanai.model.resources import Shape
from lanai.wire import messages, unix
from lanai.wire.framing import FrameReader, frame

CHUNK_JOBS = 1000
WINDOW = 16


class HubWire:
    """One blocking connection to a hub's wire socket. For one batch at a time."""

    def __init__(self, directory: Path) -> None:
        self._socket = unix.connect(directory / "hub.sock", timeout_s=120.0)
        self._reader = FrameReader(messages.to_api)
        self._reader.accept_peer()
        self._waiting: Iterator[messages.ToApi] = iter(())
        self._request = 0
        self._send(messages.Hello("api", messages.PROTOCOL_MIN, messages.PROTOCOL_MAX, "bench"))
        self._expect(messages.Welcome)

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def submit(self, line: bytes, jobs: int, *, name: str = "") -> BatchId:
        """Submit `jobs` times the same command; returns once the whole batch is committed."""
        batch = self.open(name=name)
        self.fill(batch, line, jobs)
        self.finish(batch, jobs)
        return batch

    def open(self, *, name: str = "") -> BatchId:
        """Begin a batch."""
        self._request += 1
        settings = BatchSettings(name=name, cwd="/tmp")
        self._send(messages.Open(self._request, "", "bench", settings, {b"PATH": b"/usr/bin:/bin"}))
        return self._expect(messages.Opened).batch

    def fill(self, batch: BatchId, line: bytes, jobs: int) -> None:
        """Send its chunks; returns when all are committed."""
        unacknowledged = 0
        for first in range(1, jobs + 1, CHUNK_JOBS):
            count = min(CHUNK_JOBS, jobs - first + 1)
            shapes = [(ShapeId(0), Shape())] if first == 1 else []
            lines = b"\0".join([line] * count)
            self._send(messages.Chunk(batch, first, count, [(count, ShapeId(0))], shapes, lines))
            unacknowledged += 1
            while unacknowledged >= WINDOW:
                self._expect(messages.ChunkTaken)
                unacknowledged -= 1
        for _ in range(unacknowledged):
            self._expect(messages.ChunkTaken)

    def finish(self, batch: BatchId, jobs: int) -> None:
        """Close it, so that it may run; returns when that is committed."""
        self._request += 1
        self._send(messages.Close(self._request, batch, jobs, bytes(32)))
        self._expect(messages.Reply)

    def wait_until_ended(self, batch: BatchId) -> None:
        """Returns at the commit of the last result."""
        self._send(messages.Watch(batch))
        while self._expect(messages.Progress).state != "ended":
            pass

    def progress(self, batch: BatchId, seconds: float) -> Iterator[messages.Progress]:
        """What the hub says of a batch, for so long."""
        self._send(messages.Watch(batch))
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            yield self._expect(messages.Progress)

    def command(self, verb: str, **arguments: object) -> object:
        """A command's result."""
        self._request += 1
        raw = msgspec.Raw(msgspec.msgpack.encode(arguments))
        self._send(messages.Command(self._request, "bench", verb, raw))
        reply = self._expect(messages.Reply)
        if reply.result is None:
            raise RuntimeError(reply.error)
        return msgspec.msgpack.decode(reply.result)

    def _send(self, message: messages.Message) -> None:
        self._socket.sendall(frame(message))

    def _expect(self, kind: type) -> messages.ToApi:
        """The next message of this kind; others are passed over."""
        while True:
            for message in self._waiting:
                if isinstance(message, kind):
                    if isinstance(message, messages.Reply) and message.error is not None:
                        raise RuntimeError(message.error)
                    return message
            data = self._socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the hub hung up")
            self._waiting = self._reader.feed(data)
