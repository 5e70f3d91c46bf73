"""A piece of input that nobody answers: who sent it is told in time how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lanai.api import input as input_
from lanai.api.hublink import HubLink
from lanai.api.input import Sender
from lanai.api.jobs import Jobs
from lanai.model.ids import BatchId, Index
from lanai.store.reader import BatchRow
from lanai.wire import messages


class Progress:
    """Of a batch that never moves."""

    @asynccontextmanager
    async def watching(self, batch: BatchId) -> AsyncIterator[None]:
        yield

    def version(self, batch: BatchId) -> int:
        return 1


class Running:
    """Jobs of which each is at its first attempt."""

    async def one(self, user: str, row: BatchRow, index: Index) -> dict[str, Any]:
        return {"state": "running", "attempts": 1}


def test_a_piece_that_gets_no_answer_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection of whoever sent it may have died unnoticed, and the piece may have been lost without a trace."""
    monkeypatch.setattr(input_, "ANSWER_WITHIN_S", 0.3)
    monkeypatch.setattr(input_, "OFFER_AGAIN_S", 0.1)
    sent: list[Any] = []
    link = cast(HubLink, SimpleNamespace(progress=Progress(), send=sent.append))
    row = cast(BatchRow, SimpleNamespace(batch=BatchId(1)))

    async def live() -> tuple[bool, int]:
        taken: asyncio.Queue[messages.InputTaken] = asyncio.Queue()
        taken.put_nowait(messages.InputTaken(BatchId(1), Index(1), 12, "", 1))
        sender = Sender(link, cast(Jobs, Running()), "ada", row, Index(1), taken, attempt=1, offset=10)
        return await sender.send(b"abcd"), sender.offset

    assert asyncio.run(live()) == (False, 12)
    assert [(one.offset, one.data) for one in sent] == [(10, b"abcd")]
