"""A stand-in for the hub: speaks the wire on a Unix socket, keeps batches in a real store, and does as it is scripted.

It runs nothing. What it was asked is in `asked`, what it was sent is in `messages`; `verbs` maps a verb to what answers
it. With `is_taking` False it acknowledges no chunk.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lanai.model.batch import Counts
from lanai.model.errors import LanaiError
from lanai.model.ids import BatchId
from lanai.model.records import CloseBatch, DropBatch, OpenBatch, Record, SaveChunk, SaveEnv, SaveProgress, SaveShape
from lanai.store.sqlite import SqliteWriter
from lanai.wire import messages, unix
from lanai.wire.framing import FrameReader, frame

WALL_US = 1_790_000_000_000_000


class ScriptedHub:
    """Use as a context; `stop` ends it as a killed hub would."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.store = SqliteWriter(directory)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.messages: list[Any] = []
        self.progress: dict[int, messages.Progress] = {}
        self.is_taking = True
        self.on_message: Callable[[Any], None] = lambda message: None
        self.verbs: dict[str, Callable[[dict[str, Any]], Any]] = {
            "hub": lambda _: {"version": "0.1.0", "hub": "h", "epoch": 1, "pid": 1, "url": "", "started_at_us": 1,
                              "durability": "full", "is_private": True, "store": "ok", "nodes_up": 0, "nodes": 0,
                              "batches_open": len(self.progress)},
            "status": lambda _: {"batches": [_map(p) for p in self.progress.values()], "next": None},
            "progress": lambda said: {
                "progress": _map(self.progress[said["batch"]]) if said["batch"] in self.progress else None
            },
            "in_flight": lambda _: {"items": [], "waiting": []},
            "fits": lambda said: {"reasons": [""] * len(said["shapes"])},
            "nodes": lambda _: {"nodes": [], "next": None},
        }  # fmt: skip
        self._last_batch = 0
        self._keys: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.new_event_loop()
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "ScriptedHub":
        self._thread.start()
        self._is_listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self.store.close()

    def say(self, message: Any) -> None:
        """Send a message to the API process, from any thread."""
        self._loop.call_soon_threadsafe(self._send, message)

    def commit(self, *records: Record) -> None:
        """Keep records, from any thread, before anything said afterwards."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (self.store.commit(records), done.set()))
        done.wait()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()
        self._server.close()
        if self._transport is not None:
            self._transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self) -> None:
        sock = unix.listen(self.directory / "hub.sock")
        self._server = await asyncio.get_running_loop().create_server(lambda: _Peer(self), sock=sock)
        self._is_listening.set()

    def _send(self, message: Any) -> None:
        if self._transport is not None:
            self._transport.write(frame(message))

    def _take(self, message: Any) -> None:
        self.messages.append(message)
        self.on_message(message)
        match message:
            case messages.Hello():
                self._send(messages.Welcome(1, "0.1.0", "h", 1, 0, 60_000_000, 3_000_000, WALL_US))
            case messages.Open():
                self._open(message)
            case messages.Chunk():
                shapes = [SaveShape(message.batch, shape, request) for shape, request in message.shapes]
                chunk = SaveChunk(
                    message.batch, message.first, message.count, tuple(message.runs), message.lines, message.checks
                )
                self.store.commit([*shapes, chunk])
                if self.is_taking:
                    self._send(messages.ChunkTaken(message.batch, message.first))
            case messages.Close(request=request, batch=batch, total=total, digest=digest):
                self._close(request, batch, total, digest)
            case messages.Abandon(batch=batch):
                self.store.commit([DropBatch(batch)])
                self._keys = {key: known for key, known in self._keys.items() if known[0] != batch}
            case messages.Command(request=request, verb=verb, arguments=arguments):
                self._answer(request, verb, msgspec.msgpack.decode(arguments))

    def _open(self, message: messages.Open) -> None:
        known = self._keys.get((message.user, message.key))
        if known is not None:
            self._send(messages.Opened(message.request, BatchId(known[0]), True, known[1]))
            return
        self._last_batch += 1
        batch = BatchId(self._last_batch)
        self._keys[message.user, message.key] = (batch, b"")
        env = SaveEnv(b"e%d" % batch, msgspec.msgpack.encode(message.env))
        self.store.commit([env, OpenBatch(batch, message.user, message.key, message.settings, env.digest, WALL_US)])
        self._send(messages.Opened(message.request, batch))

    def _close(self, request: int, batch: BatchId, total: int, digest: bytes) -> None:
        counts = Counts(queued=total)
        self.store.commit(
            [CloseBatch(batch, total, digest, WALL_US), SaveProgress(batch, 0, ((1, total),), (), counts)]
        )
        self._keys = {k: (b, digest if b == batch else d) for k, (b, d) in self._keys.items()}
        self.progress[batch] = messages.Progress(batch, 1, "open", counts)
        self._send(messages.Reply(request, msgspec.Raw(msgspec.msgpack.encode({}))))

    def _answer(self, request: int, verb: str, said: dict[str, Any]) -> None:
        self.asked.append((verb, said))
        try:
            result = self.verbs[verb](said)
        except LanaiError as error:
            self._send(messages.Reply(request, error=error.body()))
        else:
            self._send(messages.Reply(request, msgspec.Raw(msgspec.msgpack.encode(result))))


class _Peer(asyncio.Protocol):
    def __init__(self, hub: ScriptedHub) -> None:
        self._hub = hub
        self._reader = FrameReader(messages.to_hub)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._hub._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if isinstance(message, messages.Hello):
                self._reader.accept_peer()
            self._hub._take(message)


def _map(progress: messages.Progress) -> dict[str, Any]:
    return {name: msgspec.to_builtins(getattr(progress, name)) for name in progress.__struct_fields__}
