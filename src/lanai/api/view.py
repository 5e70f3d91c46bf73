"""The store as the API reads it: in threads of its own, each with its own connection, off the event loop.

Each question is one of `lanai.store.reader`, in short transactions. It must not write.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from lanai.store.reader import SqliteReader

THREADS: Final = 3

T = TypeVar("T")


class View:
    """Answers from the store in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="view")
        self._own = threading.local()
        self._readers: list[SqliteReader] = []

    async def ask(self, question: Callable[[SqliteReader], T]) -> T:
        """What a reader answers. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question)

    async def compute(self, work: Callable[[], T]) -> T:
        """The result of work that takes longer than the event loop should be held."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Let go of the store once what is being read has been."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()

    def _answer(self, question: Callable[[SqliteReader], T]) -> T:
        reader: SqliteReader | None = getattr(self._own, "reader", None)
        if reader is None:
            reader = self._own.reader = SqliteReader(self._directory)
            self._readers.append(reader)
        return question(reader)
