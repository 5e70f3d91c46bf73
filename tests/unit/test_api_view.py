"""The store's threads are shared by all who ask: one who asks much at a time leaves one for the others."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from lanai.api.view import EACH, View, asker
from lanai.store.sqlite import SqliteWriter


def test_one_users_long_questions_do_not_keep_another_waiting(tmp_path: Path) -> None:
    SqliteWriter(tmp_path).close()
    may_end = threading.Event()
    begun = threading.Semaphore(0)

    def long() -> str:
        begun.release()
        assert may_end.wait(20.0)
        return "long"

    async def ask(view: View, user: str, question: str) -> object:
        asker.set(user)
        if question == "long":
            return await view.compute(long)
        return await view.ask(lambda reader: reader.tokens())

    async def both() -> None:
        view = View(tmp_path)
        try:
            asked = [asyncio.create_task(ask(view, "ann", "long")) for _ in range(10)]
            for _ in range(EACH):
                await asyncio.to_thread(begun.acquire)
            async with asyncio.timeout(10.0):
                assert await asyncio.create_task(ask(view, "bob", "short")) == []
            assert not any(task.done() for task in asked)
            may_end.set()
            assert await asyncio.gather(*asked) == ["long"] * 10
            assert view._turns == {}
        finally:
            may_end.set()
            view.close()

    asyncio.run(both())
