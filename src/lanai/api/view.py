"""The store as the API reads it: in threads of its own, each with its own connection, off the event loop.

Each question is one of `lanai.store.reader`, in short transactions. It must not write. Whoever asks much at once waits
for his own: a thread is always left for others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final, TypeVar

from lanai.store.reader import SqliteReader

THREADS: Final = 3
EACH: Final = THREADS - 1
"""So many of them may be at work for one user at a time."""

asker: ContextVar[str] = ContextVar("asker", default="")
"""For which user the task at hand asks; empty for nobody's sake."""

T = TypeVar("T")


class _Turns:
    """Of one user: how many he has or waits for, and those that are free."""

    def __init__(self) -> None:
        self.wanted = 0
        self.free = asyncio.Semaphore(EACH)


class View:
    """Answers from the store in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="view")
        self._own = threading.local()
        self._readers: list[SqliteReader] = []
        self._turns: dict[str, _Turns] = {}

    async def ask(self, question: Callable[[SqliteReader], T]) -> T:
        """What a reader answers. Raises what it raises."""
        return await self.compute(lambda: self._answer(question))

    async def compute(self, work: Callable[[], T]) -> T:
        """The result of work that takes longer than the event loop should be held."""
        async with self._turn(asker.get()):
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Let go of the store once what is being read has been."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()

    @asynccontextmanager
    async def _turn(self, user: str) -> AsyncIterator[None]:
        turns = self._turns.setdefault(user, _Turns())
        turns.wanted += 1
        try:
            async with turns.free:
                yield
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                self._turns.pop(user, None)

    def _answer(self, question: Callable[[SqliteReader], T]) -> T:
        reader: SqliteReader | None = getattr(self._own, "reader", None)
        if reader is None:
            reader = self._own.reader = SqliteReader(self._directory)
            self._readers.append(reader)
        return question(reader)
