"""The hub's heart: a mistake of ours ends it at once, with nothing half done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import pytest

from lanai.core.effects import Effect
from lanai.core.events import Event, TimePassed
from lanai.core.hub import Decision, HubCore
from lanai.hub.loop import Heart
from lanai.model.records import Record
from lanai.store.memory import MemoryStore

LEASE_US = 60_000_000


class NotingStore(MemoryStore):
    """A store that remembers how often something was committed, and has no files."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    def commit(self, records: Iterable[Record]) -> None:
        self.commits += 1
        super().commit(list(records))

    def checkpoint(self, *, truncate: bool) -> None:
        """Nothing to move."""

    def release_ballast(self) -> None:
        """None there."""

    def restore_ballast(self) -> bool:
        return True


class BrokenCore(HubCore):
    """A core with a mistake in it."""

    def handle(self, now_us: int, events: Iterable[Event]) -> Decision:
        raise KeyError("a mistake of ours")


def beat_once(core: HubCore) -> tuple[list[BaseException], NotingStore]:
    """Post two events to a heart with this core, and go on until a fault is told or 100 ms have passed."""
    faults: list[BaseException] = []
    store = NotingStore()

    async def live() -> None:
        performed: list[Effect] = []
        heart = Heart(core, store, perform=performed.append, on_fault=faults.append)
        heart.post(TimePassed(1))
        await asyncio.sleep(0.01)
        heart.post(TimePassed(2))
        await asyncio.sleep(0.1)
        heart.stop()
        assert performed == []

    asyncio.run(live())
    return faults, store


def test_a_mistake_in_the_core_is_told_once_and_nothing_is_kept_after_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        faults, store = beat_once(BrokenCore(epoch=1, lease_us=LEASE_US))
    assert [type(fault) for fault in faults] == [KeyError]
    assert store.commits == 0


def test_a_mistake_where_effects_are_carried_out_is_told_too() -> None:
    faults: list[BaseException] = []

    async def live() -> None:
        heart = Heart(
            HubCore(epoch=1, lease_us=LEASE_US), NotingStore(), perform=lambda _: None, on_fault=faults.append
        )
        heart.later(0, lambda: [][1])
        await asyncio.sleep(0.05)
        heart.stop()

    asyncio.run(live())
    assert [type(fault) for fault in faults] == [IndexError]


def test_what_asyncio_says_of_one_connection_does_not_end_the_hub() -> None:
    faults: list[BaseException] = []

    async def live() -> None:
        heart = Heart(
            HubCore(epoch=1, lease_us=LEASE_US), NotingStore(), perform=lambda _: None, on_fault=faults.append
        )
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "accept: too many open files", "exception": OSError(24, "EMFILE")})
        heart.stop()

    asyncio.run(live())
    assert faults == []
