"""The one connection of the API process to its hub: requests by number, subscriptions, streams of output.

It speaks `lanai.wire` on the hub's Unix socket and keeps no state of the queue but the latest Progress of each batch
that somebody watches. Nothing is tried again here: the process is the hub's child, and ends when the connection does.

Back pressure runs both ways. Towards the hub `room` waits while the transport is full, and a submission bounds its own
unacknowledged chunks. From the hub, an output stream holds at most the credit that its reader has given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

import lanai
from lanai.model.access import Caller
from lanai.model.batch import BatchSettings
from lanai.model.errors import InternalError, OtherEnd, raised_from
from lanai.model.ids import BatchId, Index
from lanai.model.records import Facts
from lanai.wire import messages, unix
from lanai.wire.framing import FrameReader, ProtocolViolation, frame

ANSWER_TIMEOUT_S: Final = 60.0
"""A hub that is up answers within its commit, even with a disk that is slow; after this it is called unreachable."""

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.decode


def hub_has_ended() -> OtherEnd:
    """What everybody is told who waits for a hub that is gone."""
    return OtherEnd("the hub has ended", hint="lanai hub status")


class ProgressBoard:
    """The latest Progress of the batches that somebody watches; one subscription a batch, however many watch it."""

    def __init__(self, send: Callable[[msgspec.Struct], None]) -> None:
        self._send = send
        self._watchers: dict[BatchId, int] = {}
        self._latest: dict[BatchId, messages.Progress] = {}
        self._changed: dict[BatchId, asyncio.Event] = {}
        self._has_ended = False

    def take(self, progress: messages.Progress) -> None:
        """Keep it, and wake everybody who waits for a change of its batch."""
        if progress.batch in self._watchers:
            self._latest[progress.batch] = progress
            self._changed[progress.batch].set()
            self._changed[progress.batch] = asyncio.Event()

    def end(self) -> None:
        """The hub is gone; whoever waits is told."""
        self._has_ended = True
        for event in self._changed.values():
            event.set()

    @asynccontextmanager
    async def watching(self, batch: BatchId) -> AsyncIterator[None]:
        """Hold a subscription to `batch`."""
        self._watchers[batch] = self._watchers.get(batch, 0) + 1
        if self._watchers[batch] == 1:
            self._changed[batch] = asyncio.Event()
            self._send(messages.Watch(batch=batch))
        try:
            yield
        finally:
            self._watchers[batch] -= 1
            if not self._watchers[batch]:
                del self._watchers[batch], self._changed[batch]
                self._latest.pop(batch, None)
                self._send(messages.Watch(batch=batch, is_on=False))

    def version(self, batch: BatchId) -> int:
        """Of the latest Progress of a watched batch; 0 before the first."""
        latest = self._latest.get(batch)
        return 0 if latest is None else latest.version

    async def changed(
        self, batch: BatchId, version: int, timeout_s: float, quiet_s: float = 0.0
    ) -> messages.Progress | None:
        """A Progress of a watched batch whose version is not `version`; None where none came in time.

        One that says no more than that jobs have moved on is held back until `quiet_s` have passed.

        Raises:
            OtherEnd: the hub has ended.
        """
        begin_s = time.monotonic()
        while True:
            if self._has_ended:
                raise hub_has_ended()
            latest = self._latest.get(batch)
            passed_s = time.monotonic() - begin_s
            is_news = latest is not None and latest.version != version
            if is_news and latest is not None and (latest.state != "open" or passed_s >= quiet_s):
                return latest
            until_s = quiet_s if is_news else timeout_s
            try:
                async with asyncio.timeout(until_s - passed_s):
                    await self._changed[batch].wait()
            except TimeoutError:
                if not is_news:
                    return None


class OutputStream:
    """One followed output. The hub sends no more than the credit given; `consumed` gives it back."""

    def __init__(self, send: Callable[[msgspec.Struct], None], stream: int) -> None:
        self._send = send
        self._stream = stream
        self._arrived: asyncio.Queue[messages.Output] = asyncio.Queue()

    def take(self, output: messages.Output) -> None:
        """Called for each Output of this stream."""
        self._arrived.put_nowait(output)

    async def next(self) -> messages.Output:
        """The next piece, in order of each output's offsets; the one with `is_end` is the last."""
        return await self._arrived.get()

    def consumed(self, count: int) -> None:
        """The reader has really taken `count` bytes."""
        if count:
            self._send(messages.Credit(stream=self._stream, count=count))


class HubLink(asyncio.Protocol):
    """See the module. Made by `connect`."""

    def __init__(self) -> None:
        self.welcome: messages.Welcome | None = None
        self.progress = ProgressBoard(self.send)
        self.on_tokens_changed: Callable[[], None] = lambda: None
        """Called before the answer to the wish that changed them."""
        self._reader = FrameReader(messages.to_api)
        self._transport: asyncio.Transport | None = None
        self._welcomed: asyncio.Future[messages.Welcome] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last_number = 0
        self._waiting: dict[int, asyncio.Future[messages.Opened | messages.Reply]] = {}
        self._streams: dict[int, OutputStream] = {}
        self._on_chunk_taken: dict[BatchId, Callable[[int], None]] = {}
        self._inputs: dict[tuple[BatchId, Index], asyncio.Queue[messages.InputTaken]] = {}
        self._may_write = asyncio.Event()
        self._may_write.set()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.send(
            messages.Hello(
                kind="api",
                protocol_min=messages.PROTOCOL_MIN,
                protocol_max=messages.PROTOCOL_MAX,
                version=lanai.__version__,
                wall_us=time.time_ns() // 1000,
            )
        )

    def data_received(self, data: bytes) -> None:
        """Take what the hub says; what it may not say ends the connection."""
        try:
            for message in self._reader.feed(data):
                self._take(message)
        except ProtocolViolation as violation:
            self._end(InternalError(f"the hub sent what this version does not know: {violation}"))
            assert self._transport is not None
            self._transport.abort()

    def pause_writing(self) -> None:
        """Submissions wait."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Submissions go on."""
        self._may_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Everybody who waits is told."""
        self._end(hub_has_ended())

    # -- the API's side

    def send(self, message: msgspec.Struct) -> None:
        """Write a message; nothing is said where the connection has ended, since everybody has been told."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(message))

    async def room(self) -> None:
        """Returns once the hub reads fast enough for more."""
        await self._may_write.wait()

    async def command(self, caller: Caller, verb: str, **arguments: object) -> Any:
        """Ask for `verb`; returns the decoded result. Raises what the hub answers, or OtherEnd."""
        number, answer = self._expect()
        raw = msgspec.Raw(_encode(arguments))
        self.send(messages.Command(request=number, user=caller.user, verb=verb, arguments=raw, caller=caller))
        return _result(await self._answer(number, answer))

    async def open(self, user: str, key: str, settings: BatchSettings, env: dict[bytes, bytes]) -> messages.Opened:
        """Begin a batch."""
        number, answer = self._expect()
        self.send(messages.Open(request=number, key=key, user=user, settings=settings, env=env))
        opened = await self._answer(number, answer)
        if isinstance(opened, messages.Reply):
            _result(opened)
            raise InternalError("the hub answered Open with a Reply that holds no error")
        return opened

    async def close(self, caller: Caller, batch: BatchId, total: int, digest: bytes) -> None:
        """Make a whole batch run; returns once that is committed."""
        number, answer = self._expect()
        self.send(messages.Close(request=number, batch=batch, total=total, digest=digest, caller=caller))
        _result(await self._answer(number, answer))

    def note(
        self, caller: Caller, action: str, subject: str, after: Facts, is_refused: bool, why: str, left_out: int
    ) -> None:
        """Have a row in the audit trail about what the hub has no part in."""
        self.send(messages.Noted(caller, action, subject, after, is_refused, why, left_out))

    def on_chunk_taken(self, batch: BatchId, call: Callable[[int], None] | None) -> None:
        """Have `call` told the first index of each chunk that is committed; None ends it."""
        if call is None:
            self._on_chunk_taken.pop(batch, None)
        else:
            self._on_chunk_taken[batch] = call

    @asynccontextmanager
    async def following(self, ask: Callable[[int], messages.Follow]) -> AsyncIterator[OutputStream]:
        """A stream, opened by the Follow that `ask` makes of its number, and closed at the hub at the end."""
        self._last_number += 1
        number = self._last_number
        stream = self._streams[number] = OutputStream(self.send, number)
        self.send(ask(number))
        try:
            yield stream
        finally:
            del self._streams[number]
            self.send(messages.Unfetch(stream=number))

    @asynccontextmanager
    async def giving_input(self, batch: BatchId, index: Index) -> AsyncIterator[asyncio.Queue[messages.InputTaken]]:
        """The queue of InputTaken of one job, of which one caller at a time may hold it."""
        if (batch, index) in self._inputs:
            raise OtherEnd(f"somebody else is sending input to job {batch}/{index}", code="input_busy")
        arrived = self._inputs[batch, index] = asyncio.Queue()
        try:
            yield arrived
        finally:
            del self._inputs[batch, index]

    # -- within

    def _expect(self) -> tuple[int, asyncio.Future[messages.Opened | messages.Reply]]:
        if self.ended.done():
            raise hub_has_ended()
        self._last_number += 1
        answer = self._waiting[self._last_number] = asyncio.get_running_loop().create_future()
        return self._last_number, answer

    async def _answer(
        self, number: int, answer: asyncio.Future[messages.Opened | messages.Reply]
    ) -> messages.Opened | messages.Reply:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise OtherEnd(f"the hub has not answered for {ANSWER_TIMEOUT_S:.0f} s", code="hub_silent") from None
        finally:
            self._waiting.pop(number, None)

    def _take(self, message: messages.ToApi) -> None:
        match message:
            case messages.Reply(request=number) | messages.Opened(request=number):
                answer = self._waiting.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(message)
                elif isinstance(message, messages.Opened) and not message.known:
                    self.send(messages.Abandon(batch=message.batch))  # nobody waits for it any more
            case messages.ChunkTaken(batch=batch, first=first):
                if batch in self._on_chunk_taken:
                    self._on_chunk_taken[batch](first)
            case messages.Progress():
                self.progress.take(message)
            case messages.Output(stream=number):
                if number in self._streams:
                    self._streams[number].take(message)
            case messages.InputTaken(batch=batch, index=index):
                if (batch, index) in self._inputs:
                    self._inputs[batch, index].put_nowait(message)
            case messages.TokensChanged():
                self.on_tokens_changed()
            case messages.Welcome():
                self._reader.accept_peer()
                self.welcome = message
                if not self._welcomed.done():
                    self._welcomed.set_result(message)
            case messages.Refused(error=error):
                self._end(InternalError(f"the hub refused its own API process: {error.message}"))

    def _end(self, error: Exception) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)
        if not self._welcomed.done():
            self._welcomed.set_exception(error)
        if not self.ended.done():
            self.ended.set_result(None)
        self._may_write.set()
        self.progress.end()
        for number, stream in self._streams.items():
            stream.take(messages.Output(stream=number, which=0, offset=0, data=b"", is_end=True, problem=str(error)))

    async def welcomed(self) -> messages.Welcome:
        """The hub's Welcome. Raises where it refuses or ends instead."""
        return await asyncio.shield(self._welcomed)


def _result(reply: messages.Opened | messages.Reply) -> Any:
    if isinstance(reply, messages.Opened):
        raise InternalError("the hub answered a command with Opened")
    if reply.error is not None:
        raise raised_from(reply.error)
    return _decode(reply.result)


async def connect(path: Path) -> HubLink:
    """A link to the hub whose wire socket is at `path`. Raises OtherEnd where none listens or it refuses."""
    try:
        made = unix.connect(path, timeout_s=10)
    except OSError as error:
        raise OtherEnd(f"no hub answers at {path}: {error.strerror}") from None
    made.setblocking(False)
    _, link = await asyncio.get_running_loop().create_connection(HubLink, sock=made)
    await link.welcomed()
    return link
