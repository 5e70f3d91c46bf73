"""Virtual time: calls that wait for their moment, and nothing that ever waits for real."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

SECOND_US = 1_000_000


class Timer:
    """A call that may be taken back."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """The one clock of the world, in microseconds; hosts read it with an offset of their own."""

    def __init__(self) -> None:
        self.now_us = 1_000 * SECOND_US
        self._heap: list[tuple[int, int, Timer]] = []
        self._numbers = count()

    def later(self, delay_us: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heappush(self._heap, (self.now_us + max(0, round(delay_us)), next(self._numbers), timer))
        return timer

    def run(self, until_us: int, is_over: Callable[[], bool] = lambda: False) -> None:
        """Run until that moment, or until `is_over` says so between two calls."""
        while self._heap and self._heap[0][0] <= until_us and not is_over():
            at_us, _, timer = heappop(self._heap)
            self.now_us = at_us
            if timer.call is not None:
                timer.call()
        if not is_over():
            self.now_us = max(self.now_us, until_us)
