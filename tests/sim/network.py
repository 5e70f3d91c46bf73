"""Connections between agents and the hub: ordered streams that are late, cut, half open or stopped by a partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from lanai.wire import messages
from sim.virtual import Loop

REPEATABLE = (
    messages.Ended, messages.Returned, messages.Started, messages.Heartbeat, messages.Grant, messages.Recall,
    messages.Kill, messages.Forget,
)  # fmt: skip


class Line(Protocol):
    """What a stream asks of the network between its two ends."""

    loop: Loop
    rng: Random

    def delay_us(self) -> int: ...
    def blocked_until_us(self) -> int: ...
    def is_repeated(self) -> bool: ...


class Stream:
    """One direction of a connection. Delivers in order; `cut` loses some tail of what is under way."""

    def __init__(self, line: Line, deliver: Callable[[messages.Message], None], ended: Callable[[], None]) -> None:
        self._line = line
        self._deliver = deliver
        self._ended = ended
        self._queue: deque[messages.Message | None] = deque()
        self._is_pumping = False
        self.is_closed = False

    def send(self, message: messages.Message) -> None:
        if self.is_closed:
            return
        self._queue.append(message)
        if isinstance(message, REPEATABLE) and self._line.is_repeated():
            self._queue.append(message)
        self._pump()

    def close(self, *, is_cut: bool, notice_us: int = 0) -> None:
        """The sender is gone. What is under way arrives, or with `is_cut` only a part of it; the end after that."""
        if self.is_closed:
            return
        self.is_closed = True
        if is_cut:
            for _ in range(self._line.rng.randint(0, len(self._queue))):
                self._queue.pop()
        if notice_us:
            self._line.loop.later(notice_us, self._finish)
        else:
            self._finish()

    def silence(self) -> None:
        """The receiver is gone."""
        self.is_closed = True
        self._queue.clear()
        self._deliver = lambda message: None
        self._ended = lambda: None

    def _finish(self) -> None:
        self._queue.append(None)
        self._pump()

    def _pump(self) -> None:
        if not self._is_pumping and self._queue:
            self._is_pumping = True
            self._line.loop.later(self._line.delay_us(), self._arrive)

    def _arrive(self) -> None:
        wait_us = self._line.blocked_until_us() - self._line.loop.now_us
        if wait_us > 0:
            self._line.loop.later(wait_us, self._arrive)
            return
        self._is_pumping = False
        # What was sent together mostly arrives together.
        for _ in range(self._line.rng.randint(1, 4)):
            if self._queue:
                message = self._queue.popleft()
                if message is None:
                    self._ended()
                else:
                    self._deliver(message)
        self._pump()
