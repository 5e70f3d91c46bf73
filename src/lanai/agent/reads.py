"""What one starter is asked to read of outputs, and its answers put to the questions. Sans-IO, a part of its port.

What a starter says is not trusted: it answers what it was asked, in that order, and gives no more than was asked for;
else its connection is to end. Each question gets exactly one answer, also where the starter dies, cannot be started or
is too old to read; so an asker never waits for ever, and needs no clock.
"""

from __future__ import annotations

import binascii
from collections import deque
from typing import Any, Final, NamedTuple

from lanai.agent import starter_link as link
from lanai.model.ids import GrantId, Index

PIECE_BYTES: Final = 64 << 10
PROBLEM_CHARACTERS: Final = 500
LENGTH_AT_MOST: Final = 1 << 62
NAME_CHARACTERS: Final = 8192
FEATURE: Final = "read"

Record = list[Any]
Source = tuple[GrantId, Index, int] | Record
"""Output 1 or 2 of an attempt that is at the starter, or where an output that is over lies, in the starter's words."""


class Ask(NamedTuple):
    """A question; `number` is the asker's own. `offset` None is for the last `limit` bytes, which are at most 64 KiB.

    `is_repeatable`: it may be asked once more if the starter dies with it.
    """

    number: int
    source: Source
    offset: int | None
    limit: int
    is_repeatable: bool = True


class Answer(NamedTuple):
    """At most `limit` bytes, and the length of the whole output so far.

    `is_gone`: it is not with the starter, or not any more; asked about are attempts then. `problem`: why nothing was
    read. `left_out`: so many bytes from the offset on are not kept, and `data` follows them.
    """

    number: int
    data: bytes = b""
    length: int = 0
    is_gone: bool = False
    problem: str = ""
    left_out: int = 0


class Reads:
    """The questions to one starter.

    Attributes:
        answers: those that have come since the owner last emptied it.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._unasked: list[Ask] = []
        self._asked: deque[tuple[int, deque[Ask]]] = deque()
        self._count = 0
        self._can_read: bool | None = None

    def add(self, asks: list[Ask]) -> None:
        """Have these asked as soon as there is a starter that reads."""
        self._unasked.extend(asks)
        self._refuse_what_cannot_be()

    def on_hello(self, features: frozenset[str]) -> None:
        """There is a starter that understands these."""
        self._can_read = FEATURE in features
        self._refuse_what_cannot_be()

    def on_missing(self, problem: str) -> None:
        """No starter can be started."""
        self._refuse(problem)

    def on_death(self, *, was_to_end: bool = False) -> None:
        """The starter is gone. What it may have died of is not asked again of the next.

        Args:
            was_to_end: it had been told to, and then it died of nothing that was asked.
        """
        self._can_read = None
        lost = [ask for _, asks in self._asked for ask in asks]
        self._asked.clear()
        again = [ask for ask in lost if ask.is_repeatable and _may_be_repeated(ask.source, was_to_end)]
        self._unasked[:0] = [ask._replace(is_repeatable=False) for ask in again]
        for ask in lost:
            if isinstance(ask.source, tuple):
                self.answers.append(Answer(ask.number, is_gone=True))
            elif ask not in again:
                self.answers.append(_cannot(ask, "what was to read it there has died"))

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything that a starter is still to be asked."""
        return bool(self._unasked)

    def words(self, words: link.StarterLink) -> bytes:
        """What is to be said to the starter now; nothing before its hello."""
        if not self._can_read or not self._unasked:
            return b""
        asks, self._unasked = self._unasked, []
        self._count += 1
        self._asked.append((self._count, deque(asks)))
        return words.read(self._count, [(ask.source, ask.offset, ask.limit) for ask in asks])

    def take(self, data: link.Data) -> None:
        """Put its pieces to what was asked.

        Raises:
            LinkError: that was not asked, or it is not an answer.
        """
        if not self._asked or self._asked[0][0] != data.read:
            raise link.LinkError("an answer to what nobody asked")
        asks = self._asked[0][1]
        for piece in data.items:
            if not asks:
                raise link.LinkError("more answers than were asked for")
            self.answers.append(_answer(asks[0], piece))
            asks.popleft()  # only now: after a lie it is still to be answered
        if not asks:
            self._asked.popleft()

    def _refuse_what_cannot_be(self) -> None:
        if self._can_read is False:
            self._refuse("the starter there is of an earlier version, and ends when the node is drained and leaves")

    def _refuse(self, problem: str) -> None:
        self.answers.extend(_cannot(ask, problem) for ask in self._unasked)
        self._unasked.clear()


def _may_be_repeated(source: Source, was_to_end: bool) -> bool:
    """An attempt has died with its starter; and at a file of its user's that may have hung, until it was killed."""
    return not isinstance(source, tuple) and (was_to_end or source[0] != "user")


def _cannot(ask: Ask, problem: str) -> Answer:
    return Answer(ask.number, problem=f"the node cannot read it now: {problem}")


def _answer(ask: Ask, piece: link.Piece) -> Answer:
    try:
        data = binascii.a2b_base64(piece.data, strict_mode=True) if piece.data else b""
    except (ValueError, TypeError):
        raise link.LinkError("an output that is not base64") from None
    length = piece.length
    if not is_amount(length):
        raise link.LinkError(f"an output of {length!r} bytes")
    left_out = piece.left_out
    if not is_amount(left_out) or (left_out and (ask.offset is None or not data)):
        raise link.LinkError("bytes left out where there are none")
    left = length if ask.offset is None else length - ask.offset - left_out
    if len(data) > min(ask.limit, max(0, left)):
        raise link.LinkError("more of an output than was asked for, or than there is")
    if piece.is_gone and (data or not isinstance(ask.source, tuple)):
        raise link.LinkError("an output that is there and is not")
    return Answer(ask.number, data, length, bool(piece.is_gone), _shown(piece.problem), left_out)


def _shown(problem: object) -> str:
    if problem is None:
        return ""
    if not isinstance(problem, str):
        raise link.LinkError("a problem that is no text")
    return problem[:PROBLEM_CHARACTERS].encode("utf-8", "replace").decode() or "for an unknown reason"


def is_amount(value: object) -> bool:
    """Whether it is a number of bytes that fits everywhere."""
    return type(value) is int and 0 <= value < LENGTH_AT_MOST


def checked(records: object) -> list[Record | None]:
    """The records of an end, as a starter tells them: of standard output and error.

    Raises:
        LinkError: they are none.
    """
    if not isinstance(records, list) or len(records) != 2:
        raise link.LinkError(f"records that are none: {str(records)[:100]}")
    return [None if record is None else _checked(record) for record in records]


def _checked(record: object) -> Record:
    if not isinstance(record, list):
        raise link.LinkError(f"a record that is none: {str(record)[:100]}")
    match record:
        case ["segment", number, offset, length] if is_amount(number) and is_amount(offset) and is_amount(length):
            return record
        case ["file" | "lost", str(name), length] if len(name) <= NAME_CHARACTERS and is_amount(length):
            return record
        case ["user", str(name)]:
            return record if len(name) <= NAME_CHARACTERS else ["lost", "the name of its file is too long", 0]
    raise link.LinkError(f"a record that is none: {str(record)[:100]}")
