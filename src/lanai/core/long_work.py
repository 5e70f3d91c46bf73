"""Work that takes longer than one call of the core may: it is done a part in each call, one piece after the other.

A piece of work is a generator that says now and then what it has cost, in about microseconds. It goes on in the call
that begins it as far as that may go, and then in those of `decide`, which does a part of it and a pass by turns. So
between any two of its parts anything may have happened but other work: whoever writes one looks again at what he knew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Final, TypeVar

T = TypeVar("T")
Part = Generator[int, None, T]
"""What comes to a `T` in the end, and says meanwhile what it has cost."""
Work = Generator[int, None, None]

MOST: Final = 3_000
"""So much one call does."""


class LongWork:
    """What is to be done, in its order."""

    def __init__(self) -> None:
        self._queue: deque[Work] = deque()
        self._left = 0

    def __bool__(self) -> bool:
        """Some is left."""
        return bool(self._queue)

    def begin_call(self) -> None:
        """Another call of the core: so much may be done again."""
        self._left = MOST

    def begin(self, work: Work) -> None:
        """Do the work once what came before it is done; at once, if that and the call allow it."""
        self.add(work)
        self.go_on()

    def add(self, work: Work) -> None:
        """The same from within other work: do it after that, and after all that waits."""
        self._queue.append(work)

    def go_on(self) -> None:
        """Do as much as this call still may."""
        while self._queue and self._left > 0:
            try:
                self._left -= next(self._queue[0])
            except StopIteration:
                self._queue.popleft()


def at_once(part: Part[T]) -> T:
    """All of it in this call, for those who may take as long as that."""
    while True:
        try:
            next(part)
        except StopIteration as end:
            found: T = end.value
            return found
