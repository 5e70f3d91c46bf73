"""The outputs of attempts on this node: who reads them now, and their tails for the hub.

It opens no output and sends nothing: what it needs it has read by the starter that the output belongs to, with the
rights of that starter's user; the loop brings the answers, and sends `messages` when the link has room.

Theory of operation. An attempt is asked for by name as long as it is here, and from its end on by the record in the
index. The starter tells the end of an attempt before it answers that it is not there any more, so that the second way
is open when the first one closes. What is on its way is bounded: for each reader one piece, for the tails of each
starter one portion, for each starter `ON_THE_WAY_BYTES`; nothing is asked for while messages wait for the link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from lanai.agent.events import Member
from lanai.agent.output_index import Noted, OutputIndex, Where
from lanai.agent.reads import PIECE_BYTES, Answer, Ask, Record, Source
from lanai.model.job import Outcome
from lanai.wire.messages import Fetch, Output, Tail

FAILED_TAIL_BYTES: Final = 64 << 10
OK_TAIL_BYTES: Final = 4 << 10
KEEP_S: Final = 7 * 24 * 3600
CAP_BYTES: Final = 16 << 30
TAILS_AT_MOST: Final = 100_000
TAILS_AT_ONCE: Final = 256
ON_THE_WAY_BYTES: Final = 512 << 10
MESSAGES_BYTES: Final = 1 << 20
LOOK_US: Final = 50_000
NEVER_US: Final = 1 << 62
NOT_KEPT: Final = "this output is not kept here any more"


class Here(NamedTuple):
    """What is known here of an attempt: whether it has not ended, its name at the starter, and that starter's user."""

    is_here: bool
    member: Member | None
    user: str = ""


class Port(Protocol):
    """To a starter; each `Ask` is answered exactly once."""

    def read(self, asks: list[Ask]) -> None:
        """Have these read, as soon as there is a starter."""


Find = Callable[[Where], Here]
PortOf = Callable[[str], Port | None]
"""The port to the starter of a user, "" for the agent's own; None if there cannot be one."""


class Reader:
    """Somebody who reads one output of one attempt."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        self.where: Where = (fetch.batch, fetch.index, fetch.attempt)
        self.offset = fetch.offset
        self.credit = fetch.credit
        self.record: Record | None = None
        self.user = ""
        self.look_us = 0
        self.is_asked = False

    def output(self, data: bytes, *, is_end: bool = False, problem: str = "") -> Output:
        """The next piece for this reader, as it is sent."""
        offset = self.offset
        self.offset += len(data)
        self.credit -= len(data)
        return Output(self.fetch.stream, self.fetch.which, offset, data, is_end, problem)


class _Ends:
    """The two ends of an attempt's outputs, as they come."""

    def __init__(self, noted: Noted) -> None:
        self.noted = noted
        self.is_failed = noted.outcome != Outcome.OK
        self.data = [b"", b""]
        self.lengths = [0, 0]
        self.missing = 0

    def asks(self) -> list[tuple[int, Record, int]]:
        """(which, record, how much) of those that can be read."""
        limit = FAILED_TAIL_BYTES if self.is_failed else OK_TAIL_BYTES
        return [
            (which, record, limit if record[0] == "user" else min(limit, record[-1]))
            for which, record in enumerate(self.noted.records)
            if record is not None and record[0] != "lost" and record[-1]
        ]

    def tail(self) -> Tail:
        """As it is sent."""
        (out, err), (out_bytes, err_bytes) = self.data, self.lengths
        return Tail(*self.noted.where, out, err, out_bytes, err_bytes, self.is_failed)


class _Asked(NamedTuple):
    """A question on its way; `which` counts from 0."""

    asker: Reader | _Ends
    which: int
    user: str
    limit: int


class Outputs:
    """All outputs of this node.

    Attributes:
        readers: those who read now, by stream.
    """

    def __init__(self, index: OutputIndex, find: Find, port_of: PortOf) -> None:
        self._index = index
        self._find = find
        self._port_of = port_of
        self._tails: dict[str, deque[Noted]] = {}
        self._tail_count = 0
        self._asked: dict[int, _Asked] = {}
        self._count = 0
        self._bytes_asked: dict[str, int] = {}
        self._tails_asked: dict[str, int] = {}
        self._ready: deque[Output | Tail] = deque()
        self.readers: dict[int, Reader] = {}

    # -- what ended, and who reads

    def note(self, written: list[Noted]) -> None:
        """Remember where attempts wrote. Beyond `TAILS_AT_MOST` the oldest of whoever has most go without a tail."""
        self._index.note(written)
        for one in written:
            self._tails.setdefault(one.user, deque()).append(one)
        self._tail_count += len(written)
        while self._tail_count > TAILS_AT_MOST:
            max(self._tails.values(), key=len).popleft()
            self._tail_count -= 1

    def fetch(self, fetch: Fetch) -> None:
        """Somebody wants to read."""
        self.readers[fetch.stream] = Reader(fetch)

    def credit(self, stream: int, count: int) -> None:
        """He has room for this much more."""
        if stream in self.readers:
            self.readers[stream].credit += count

    def unfetch(self, stream: int) -> None:
        """He has gone."""
        self.readers.pop(stream, None)

    def unfetch_all(self) -> None:
        """The hub has gone, and with it all readers."""
        self.readers.clear()
        self._ready = deque(message for message in self._ready if isinstance(message, Tail))

    def sweep(self, wall_s: float) -> None:
        """Forget where old outputs were; the starters remove the outputs themselves."""
        self._index.sweep(wall_s - KEEP_S, CAP_BYTES)

    # -- what goes to the hub

    def messages(self) -> list[Output | Tail]:
        """What is ready to be sent, a bounded amount."""
        found: list[Output | Tail] = []
        size = 0
        while self._ready and size < MESSAGES_BYTES:
            message = self._ready.popleft()
            size += len(message.data) if isinstance(message, Output) else len(message.out) + len(message.err)
            found.append(message)
        return found

    def due_us(self, now_us: int) -> int:
        """When there is something to send or to ask again, if nothing is heard before."""
        if self._ready:
            return now_us
        waiting = (reader.look_us for reader in self.readers.values() if reader.credit > 0 and not reader.is_asked)
        return min((look_us for look_us in waiting if look_us > now_us), default=NEVER_US)

    def is_reading(self) -> bool:
        """Whether somebody waits for what a starter was asked."""
        return any(reader.is_asked for reader in self.readers.values())

    # -- what the starters are asked

    def ask(self, now_us: int) -> None:
        """Ask for what readers have room for and for tails, as far as it may be on its way."""
        if self._ready:
            return
        asks: dict[str, list[Ask]] = {}
        for reader in list(self.readers.values()):
            if reader.credit > 0 and not reader.is_asked and now_us >= reader.look_us:
                self._ask_for_reader(now_us, reader, asks)
        for user in [user for user in self._tails if not self._tails_asked.get(user)]:
            self._ask_for_tails(user, asks)
        for user, some in asks.items():
            port = self._port_of(user)
            if port is not None:
                port.read(some)
            else:
                problem = f"the node cannot read it now: nothing can run as {user} there"
                self.hear(now_us, [Answer(ask.number, problem=problem) for ask in some])

    def _ask_for_reader(self, now_us: int, reader: Reader, asks: dict[str, list[Ask]]) -> None:
        limit = min(reader.credit, PIECE_BYTES)
        if reader.record is None:
            here = self._find(reader.where)
            if here.member is not None:
                self._ask(reader, here.user, (*here.member, reader.fetch.which), reader.offset, limit, asks)
                return
            if here.is_here and reader.fetch.follow:
                reader.look_us = now_us + LOOK_US
                return
            if here.is_here or not self._look_up(reader):
                self._end(reader)
                return
        assert reader.record is not None
        self._ask(reader, reader.user, reader.record, reader.offset, limit, asks)

    def _look_up(self, reader: Reader) -> bool:
        """Find the record of an attempt that has ended; False where there is nothing to be read."""
        found = self._index.find(reader.where)
        if found is not None:
            reader.record, reader.user = found[0][reader.fetch.which - 1], found[1]
        return reader.record is not None

    def _ask(
        self, reader: Reader, user: str, source: Source, offset: int, limit: int, asks: dict[str, list[Ask]]
    ) -> None:
        if self._bytes_asked.get(user, 0) + limit > ON_THE_WAY_BYTES:
            return
        if source[0] == "lost":
            self._end(reader, f"this output was lost: {source[1]}")
            return
        reader.is_asked = True
        # To the end of the line: whoever has had a piece lets others go first when not all can be asked for.
        self.readers[reader.fetch.stream] = self.readers.pop(reader.fetch.stream)
        asked = _Asked(reader, reader.fetch.which - 1, user, limit)
        asks.setdefault(user, []).append(Ask(self._number(asked), source, offset, limit))

    def _ask_for_tails(self, user: str, asks: dict[str, list[Ask]]) -> None:
        tails = self._tails[user]
        some = asks.setdefault(user, [])
        for _ in range(TAILS_AT_ONCE):
            if not tails or self._bytes_asked.get(user, 0) > ON_THE_WAY_BYTES - 2 * FAILED_TAIL_BYTES:
                break
            ends = _Ends(tails.popleft())
            self._tail_count -= 1
            for which, record, limit in ends.asks():
                ends.missing += 1
                self._tails_asked[user] = self._tails_asked.get(user, 0) + 1
                some.append(Ask(self._number(_Asked(ends, which, user, limit)), record, None, limit))
        if not tails:
            del self._tails[user]
        if not some:
            del asks[user]

    def _number(self, asked: _Asked) -> int:
        self._count += 1
        self._asked[self._count] = asked
        self._bytes_asked[asked.user] = self._bytes_asked.get(asked.user, 0) + asked.limit
        return self._count

    # -- what they answer

    def hear(self, now_us: int, answers: list[Answer]) -> None:
        """Take the answers; the machine must know by now of the ends that were told before them."""
        for answer in answers:
            asked = self._asked.pop(answer.number)
            self._bytes_asked[asked.user] -= asked.limit
            if isinstance(asked.asker, _Ends):
                self._hear_tail(asked.asker, asked, answer)
            else:
                asked.asker.is_asked = False
                if self.readers.get(asked.asker.fetch.stream) is asked.asker:
                    self._hear_reader(now_us, asked.asker, answer)

    def _hear_tail(self, ends: _Ends, asked: _Asked, answer: Answer) -> None:
        self._tails_asked[asked.user] -= 1
        ends.data[asked.which], ends.lengths[asked.which] = answer.data, answer.length
        ends.missing -= 1
        if not ends.missing and any(ends.lengths):
            self._ready.append(ends.tail())

    def _hear_reader(self, now_us: int, reader: Reader, answer: Answer) -> None:
        reader.offset += answer.left_out
        at_end = reader.offset + len(answer.data) >= answer.length
        reader.look_us = 0
        if reader.record is not None:
            problem = answer.problem or ("" if answer.data or at_end else NOT_KEPT)
            is_end = at_end or bool(problem)
        elif answer.is_gone or (reader.fetch.follow and (answer.problem or not answer.data)):
            # Ended meanwhile, or nothing new. What it is that cannot be read is said when the attempt has ended.
            is_gone = answer.is_gone and not self._find(reader.where).is_here
            reader.look_us = 0 if is_gone else now_us + LOOK_US
            return
        else:
            problem, is_end = answer.problem, not reader.fetch.follow and (at_end or not answer.data)
            is_end = is_end or bool(problem)
        if is_end:
            self._end(reader, problem, answer.data)
        else:
            self._ready.append(reader.output(answer.data))

    def _end(self, reader: Reader, problem: str = "", data: bytes = b"") -> None:
        self._ready.append(reader.output(data, is_end=True, problem=problem))
        del self.readers[reader.fetch.stream]
