"""What the starter tells: reports are encoded once, gathered into frames, and ends are kept until told to forget.

Standard library only, part of the starter. It knows neither sockets nor processes. An end has a sequence number from 1
on, in the order in which the ends were noticed; numbers mean nothing beyond this starter's life.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

Key = tuple[int, int]
Figures = tuple[int, int, int, int, int | None]
"""Of an attempt that began: started_wall_us, wall_us, user_us, system_us, memory_peak_bytes."""
_FRAME_TEXT = 256 << 10
_REASON_CHARACTERS = 2_000
_CHECKS_SHOWN = 64


class End(NamedTuple):
    """How an attempt ended. Times in microseconds; ``started_wall_us`` None means that it never began."""

    grant: int
    index: int  # type: ignore[assignment]  # it hides the method of tuples, which nobody needs here
    attempt: int
    outcome: str
    exit_code: int | None = None
    signal: int | None = None
    started_wall_us: int | None = None
    wall_us: int = 0
    user_us: int = 0
    system_us: int = 0
    memory_peak_bytes: int | None = None
    reason: str | None = None
    output: list[list[object] | None] | None = None
    checks: list[list[str | None]] | None = None
    escaped: int = 0


class Reports:
    """Reports not yet sent, and ends not yet forgotten. One owner, the loop; nothing is dropped but by `forget`."""

    def __init__(self) -> None:
        self._sequence = 0
        self._kept: dict[Key, str] = {}
        self._order: deque[Key] = deque()
        self._ended: list[str] = []
        self._started: list[str] = []
        self._given_back: list[tuple[list[Key], str]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    @property
    def last_sequence(self) -> int:
        """The number of the newest end; 0 if there was none."""
        return self._sequence

    @property
    def has_unsent(self) -> bool:
        """Whether anything is queued for sending."""
        return bool(self._ended or self._started or self._given_back)

    def ended(self, end: End) -> None:
        """Keeps an end and queues it for sending."""
        self._keep((end.grant, end.index), _encode(self._sequence + 1, end))

    def succeeded(self, key: Key, name: str, figures: Figures) -> None:
        """The same for the commonest end: exit code 0, nothing written, nothing to be said of it.

        Formatted by hand: json.dumps takes twice as long, and there is one for every job.

        Args:
            key: the attempt's.
            name: grant, index and attempt as they stand in the row.
            figures: what it took.
        """
        started, wall, user, system, peak = figures
        told_peak = "null" if peak is None else peak
        row = f'[{self._sequence + 1},{name},"ok",0,null,{started},{wall},{user},{system},{told_peak},null,null,null,0]'
        self._keep(key, row)

    def _keep(self, key: Key, row: str) -> None:
        self._sequence += 1
        self._kept[key] = row
        self._order.append(key)
        self._ended.append(row)

    def started(self, key: Key, attempt: int, pid: int, wall_us: int, slot: int | None) -> None:
        """Queues the news that an attempt has been running for a while."""
        self._started.append(json.dumps([*key, attempt, pid, wall_us, slot], separators=(",", ":")))

    def given_back(self, keys: list[Key], why: str) -> None:
        """Queues the news that these cannot begin now, and are not here any more."""
        self._given_back.append((keys, why[:_REASON_CHARACTERS]))

    def take(self) -> Iterator[bytes]:
        """Yields the payloads of the frames that hold everything queued, and empties the queue."""
        if self._started:
            yield from _frames("started", self._started)
            self._started = []
        if self._ended:
            yield from _frames("ended", self._ended)
            self._ended = []
        for keys, why in self._given_back:
            yield _json({"m": "unbegun", "items": keys, "why": why}).encode("ascii")
        self._given_back = []

    def repeat(self) -> Iterator[bytes]:
        """Yields the payloads for a new agent: every end kept, the queued ones included; empties the queue."""
        self._ended = []
        yield from _frames("ended", self._kept.values())

    def discard_unsent(self) -> None:
        """Forgets what was queued for an agent that is gone; the ends themselves are kept."""
        self._ended = []
        self._started = []
        self._given_back = []

    def forget(self, upto: int) -> None:
        """Lets go of the ends up to a sequence number, itself included."""
        order = self._order
        for _ in range(upto - (self._sequence - len(order))):
            if not order:
                return
            del self._kept[order.popleft()]


def _frames(name: str, texts: Iterable[str]) -> Iterator[bytes]:
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= _FRAME_TEXT or len(gathered) >= 1_000:
            yield _frame(name, gathered)
            gathered = []
            size = 0
    if gathered:
        yield _frame(name, gathered)


def _frame(name: str, texts: list[str]) -> bytes:
    return f'{{"m":"{name}","items":[{",".join(texts)}]}}'.encode("ascii")


def _encode(sequence: int, end: End) -> str:
    reason = None if end.reason is None else end.reason[:_REASON_CHARACTERS]
    checks = None if end.checks is None else end.checks[-_CHECKS_SHOWN:]
    return _json([sequence, *end._replace(reason=reason, checks=checks)])


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
