"""POST /v1/batches: a list streams in, is parsed piece by piece, and streams on to the hub as chunks.

Nothing is held but the piece at hand and at most `WINDOW` chunks that the hub has not committed yet; while that many
are on their way the client's body is not read. Parsing goes on past a bad line, to list all of them; the batch is then
abandoned, as it is on any other error and when the client goes away. A list is small work at a time (a piece of at most
a quarter MiB takes a millisecond), so other requests get their turn between two pieces.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from lanai.api.hublink import HubLink
from lanai.api.submission import HEAD_BYTES, KEY_CHARACTERS, Head, head_from
from lanai.model.access import Caller
from lanai.model.batch import RESOURCES_EACH, BatchSettings
from lanai.model.errors import ImpossibleRequest, LanaiError, ListErrors, OtherEnd, Refusal, UserError
from lanai.model.ids import BatchId, ShapeId
from lanai.model.joblist import BLOCK_BYTES, JobBlock, JobListParser
from lanai.model.request import AS_BATCH, JobRequest
from lanai.model.resources import Shape
from lanai.wire import messages

WINDOW: Final = 16
CHUNK_TIMEOUT_S: Final = 60.0
PIECE_BYTES: Final = 1 << 18
SHAPES_SHOWN: Final = 20
SHAPES_ASKED: Final = 1_000
"""How many the hub is asked about at once: a list may ask for something else in every line."""

KEY_ARRIVING: Final = "key_arriving"
SAME_KEY_WAIT_S: Final = 30.0
SAME_KEY_PAUSE_S: Final = 0.1


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a submission. `existed` where the key was used before for the very same."""

    version: int = 1
    batch: int
    jobs: int
    existed: bool


async def submit(link: HubLink, caller: Caller, key: str, body: AsyncIterator[bytes]) -> Submitted:
    """Take one submission to its end. Reads the body to its end on errors too, so that the client hears of them.

    Raises:
        UserError: settings, list or requests that cannot be; nothing was submitted.
        Refusal: the key belongs to another list.
    """
    if len(key) > KEY_CHARACTERS or "\0" in key:
        raise UserError(f"a key has at most {KEY_CHARACTERS} characters and no NUL", code="bad_key")
    pieces = aiter(body)
    try:
        return await _submit(link, caller, key, pieces)
    except LanaiError:
        async for _ in pieces:
            pass
        raise


async def _submit(link: HubLink, caller: Caller, key: str, pieces: AsyncIterator[bytes]) -> Submitted:
    line, rest = await _first_line(pieces)
    arrival = _Arrival(link, caller, key, head_from(line))
    try:
        await arrival.take(rest)
        async for piece in pieces:
            await arrival.take(piece)
        return await arrival.finish()
    except BaseException:
        arrival.abandon()
        raise
    finally:
        arrival.let_go()


async def _first_line(pieces: AsyncIterator[bytes]) -> tuple[bytes, bytes]:
    gathered = b""
    async for piece in pieces:
        gathered += piece
        line, newline, rest = gathered.partition(b"\n")
        if len(line) > HEAD_BYTES:
            raise UserError(f"the submission's first line passes {HEAD_BYTES} bytes", code="bad_submission")
        if newline:
            return line, rest
    return gathered, b""


class _Arrival:
    """One batch on its way to the hub."""

    def __init__(self, link: HubLink, caller: Caller, key: str, head: Head) -> None:
        self._link = link
        self._caller = caller
        self._key = key
        self._head = head
        self._digest = head.digest()
        self._parser = _SingleParser(head.file) if head.single else JobListParser(head.file)
        self._opened: messages.Opened | None = None
        self._is_closed = False
        self._jobs = 0
        self._shapes: dict[Shape, ShapeId] = {}
        self._new_shapes: list[tuple[ShapeId, Shape]] = []
        self._first_lines: list[int] = []
        self._unacknowledged: set[int] = set()
        self._acknowledged = asyncio.Event()

    async def take(self, piece: bytes) -> None:
        """The next bytes of the list."""
        for start in range(0, len(piece), PIECE_BYTES):
            part = piece[start : start + PIECE_BYTES]
            self._digest.update(part)
            await self._send(self._parser.feed(part))

    async def finish(self) -> Submitted:
        """The list has ended: check it as a whole and close the batch."""
        await self._send(self._parser.finish())
        if self._parser.problem_count:
            raise _list_errors(self._head.file, self._parser)
        if self._opened is None:
            problem = "holds no job; a job list has one command a line"
            raise UserError(f"{self._head.file} {problem}", code="empty_list", facts={"file": self._head.file})
        digest = self._digest.digest()
        if self._opened.known:
            return self._repeated(digest, self._opened)
        await self._refuse_impossible()
        await self._link.close(self._caller, self._opened.batch, self._jobs, digest)
        self._is_closed = True
        return Submitted(batch=self._opened.batch, jobs=self._jobs, existed=False)

    def abandon(self) -> None:
        """Have the hub drop what has arrived."""
        if self._opened is not None and not self._opened.known and not self._is_closed:
            self._link.send(messages.Abandon(batch=self._opened.batch))

    def let_go(self) -> None:
        """No more acknowledgements are of interest."""
        if self._opened is not None and not self._opened.known:
            self._link.on_chunk_taken(self._opened.batch, None)

    async def _send(self, blocks: list[JobBlock]) -> None:
        for block in blocks:
            if self._parser.problem_count:
                return
            if self._opened is None:
                self._opened = await self._open(block)
            if not self._opened.known:
                await self._room()
                self._send_chunk(self._opened.batch, block)
            self._jobs += block.count

    async def _open(self, block: JobBlock) -> messages.Opened:
        settings = self._head.with_first_line(block.commands.partition(b"\0")[0])
        deadline_s = time.monotonic() + SAME_KEY_WAIT_S
        while True:
            try:
                opened = await self._open_once(settings)
                break
            except Refusal as refusal:
                # Once the other submission under this key has arrived, or was given up, there is an answer.
                if refusal.code != KEY_ARRIVING or time.monotonic() >= deadline_s:
                    raise
            await asyncio.sleep(SAME_KEY_PAUSE_S)
        if not opened.known:
            self._link.on_chunk_taken(opened.batch, self._taken)
        return opened

    async def _open_once(self, settings: BatchSettings) -> messages.Opened:
        opened = await self._link.open(self._caller.user, self._key, settings, self._head.env)
        if opened.known and not opened.digest:
            raise Refusal(
                f"batch {opened.batch} is being submitted with this key at this moment",
                code=KEY_ARRIVING,
                hint="try again in a moment",
            )
        return opened

    def _send_chunk(self, batch: BatchId, block: JobBlock) -> None:
        runs: list[tuple[int, ShapeId]] = []
        position = 0
        for count, request in block.runs:
            runs.append((count, self._shape_id(request, block, position)))
            position += count
        first = self._jobs + 1
        chunk = messages.Chunk(
            batch=batch,
            first=first,
            count=block.count,
            runs=runs,
            shapes=self._new_shapes,
            lines=block.commands,
            checks=block.checks,
        )
        self._new_shapes = []
        self._unacknowledged.add(first)
        self._link.send(chunk)

    def _shape_id(self, request: JobRequest, block: JobBlock, position: int) -> ShapeId:
        shape = self._head.settings.shape if request is AS_BATCH else request.over(self._head.settings.shape)
        shape_id = self._shapes.get(shape)
        if shape_id is None:
            if len(shape.named) > RESOURCES_EACH:
                where = f"{self._head.file}:{block.line_of(position)}"
                raise UserError(f"{where}: a job asks for at most {RESOURCES_EACH} named resources", code="bad_list")
            shape_id = self._shapes[shape] = ShapeId(len(self._shapes))
            self._new_shapes.append((shape_id, shape))
            self._first_lines.append(block.line_of(position))
        return shape_id

    async def _room(self) -> None:
        await self._link.room()
        while len(self._unacknowledged) >= WINDOW:
            self._acknowledged.clear()
            try:
                async with asyncio.timeout(CHUNK_TIMEOUT_S):
                    await self._acknowledged.wait()
            except TimeoutError:
                raise OtherEnd(
                    f"the hub has taken none of the list for {CHUNK_TIMEOUT_S:.0f} s",
                    code="hub_silent",
                    hint="lanai hub status",
                ) from None

    def _taken(self, first: int) -> None:
        self._unacknowledged.discard(first)
        self._acknowledged.set()

    def _repeated(self, digest: bytes, opened: messages.Opened) -> Submitted:
        if opened.digest != digest:
            raise Refusal(
                f"key {self._key!r} was used for batch {opened.batch} with another list or other settings",
                code="key_reused",
                hint="choose another --key, or submit the same list",
                facts={"batch": opened.batch},
            )
        return Submitted(batch=opened.batch, jobs=self._jobs, existed=True)

    async def _refuse_impossible(self) -> None:
        reasons: list[str] = []
        asked = list(self._shapes)
        for first in range(0, len(asked), SHAPES_ASKED):
            shapes = asked[first : first + SHAPES_ASKED]
            reasons += (await self._link.command(self._caller, "fits", shapes=shapes))["reasons"]
        places = [f"{self._head.file}:{line}" for line in self._first_lines]
        problems = [f"{place}: {reason}" for place, reason in zip(places, reasons, strict=True) if reason]
        if problems:
            raise ImpossibleRequest("; ".join(problems[:3]), facts={"problems": problems[:SHAPES_SHOWN]})


class _SingleParser:
    """Stands in for the list's parser where the body is one command, newlines and all."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self.problem_count = 0

    def feed(self, data: bytes) -> list[JobBlock]:
        self._size_bytes += len(data)
        if self._size_bytes <= BLOCK_BYTES:
            self._pieces.append(data)
        return []

    def finish(self) -> list[JobBlock]:
        command = b"".join(self._pieces)
        if self._size_bytes > BLOCK_BYTES or b"\0" in command:
            raise UserError("a command has at most 1 MiB and no NUL", code="bad_command")
        if not command.strip():
            raise UserError("no command was given", code="empty_list")
        return [JobBlock(first_line=1, count=1, commands=command, runs=((1, AS_BATCH),))]


def _list_errors(file: str, parser: JobListParser | _SingleParser) -> ListErrors:
    assert isinstance(parser, JobListParser)
    texts = [problem.text for problem in parser.problems]
    problems = "1 problem" if parser.problem_count == 1 else f"{parser.problem_count:,} problems"
    message = f"{file} has {problems}; nothing was submitted"
    return ListErrors(message, facts={"problems": texts, "count": parser.problem_count})
