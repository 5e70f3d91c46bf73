"""The hub's heart: a mistake of ours ends it at once, with nothing half done."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable

import pytest

from lanai.core.effects import Effect
from lanai.core.events import Event, NodeWished, TailArrived, TimePassed
from lanai.core.hub import Decision, HubCore
from lanai.hub import loop
from lanai.hub.loop import Heart
from lanai.model.errors import StoreFull
from lanai.model.ids import BatchId, Index
from lanai.model.records import Record, SaveTail
from lanai.store.memory import MemoryStore

LEASE_US = 60_000_000
WITHIN_S = 10.0
TURNS = 5


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


class Faults:
    """What a heart says it could not survive."""

    def __init__(self) -> None:
        self.told: list[BaseException] = []
        self._is_told = asyncio.Event()

    def tell(self, fault: BaseException) -> None:
        self.told.append(fault)
        self._is_told.set()

    async def first(self) -> None:
        """Once there is one, and whatever the loop was to do at once has been done."""
        await asyncio.wait_for(self._is_told.wait(), WITHIN_S)
        for _ in range(TURNS):
            await asyncio.sleep(0)


def beat_once(core: HubCore) -> tuple[list[BaseException], NotingStore]:
    """Post an event to a heart with this core, wait for the fault, and post another; returns all faults told."""
    faults = Faults()
    store = NotingStore()

    async def live() -> None:
        performed: list[Effect] = []
        heart = Heart(core, store, perform=performed.append, on_fault=faults.tell)
        heart.post(TimePassed(1))
        await faults.first()
        heart.post(TimePassed(2))
        await faults.first()
        heart.stop()
        assert performed == []

    asyncio.run(live())
    return faults.told, store


def test_a_mistake_in_the_core_is_told_once_and_nothing_is_kept_after_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        faults, store = beat_once(BrokenCore(epoch=1, lease_us=LEASE_US))
    assert [type(fault) for fault in faults] == [KeyError]
    assert store.commits == 0


def test_a_mistake_where_effects_are_carried_out_is_told_too() -> None:
    faults = Faults()

    async def live() -> None:
        heart = Heart(HubCore(epoch=1, lease_us=LEASE_US), NotingStore(), perform=lambda _: None, on_fault=faults.tell)
        heart.later(0, lambda: [][1])
        await faults.first()
        heart.stop()

    asyncio.run(live())
    assert [type(fault) for fault in faults.told] == [IndexError]


class NotingCore(HubCore):
    """A core that notes how many events it was handed."""

    def __init__(self) -> None:
        super().__init__(epoch=1, lease_us=LEASE_US)
        self.handled = 0

    def handle(self, now_us: int, events: Iterable[Event]) -> Decision:
        handed = list(events)
        self.handled += len(handed)
        return super().handle(now_us, handed)


def test_afterwards_is_when_the_core_has_handled_what_was_posted() -> None:
    handled: list[int] = []

    async def live() -> None:
        called = asyncio.Event()
        core = NotingCore()
        heart = Heart(core, NotingStore(), perform=lambda _: None, on_fault=pytest.fail)

        def note() -> None:
            handled.append(core.handled)
            called.set()

        heart.post(TimePassed(1))
        heart.afterwards(note)
        heart.post(TimePassed(2))
        await called.wait()
        heart.stop()

    asyncio.run(live())
    assert handled == [2]


class PlanningCore(HubCore):
    """A core whose first pass plans something for a moment later; `woken` is set as time passes after that."""

    def __init__(self, woken: asyncio.Event) -> None:
        super().__init__(epoch=1, lease_us=LEASE_US)
        self.world.needs_pass = True
        self._woken = woken
        self._due_us: int | None = None

    def handle(self, now_us: int, events: Iterable[Event]) -> Decision:
        handed = list(events)
        if self._due_us is not None and self._due_us <= now_us and any(type(each) is TimePassed for each in handed):
            self._due_us = None
            self._woken.set()
        return super().handle(now_us, handed)

    def decide(self, now_us: int) -> Decision:
        self._due_us = now_us + 20_000
        return super().decide(now_us)

    def next_due_us(self) -> int | None:
        return self._due_us


def test_what_a_pass_has_planned_is_not_left_until_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else happens, and the next tick would be in an hour."""
    monkeypatch.setattr(loop, "TICK_US", 3_600_000_000)

    async def live() -> None:
        woken = asyncio.Event()
        heart = Heart(PlanningCore(woken), NotingStore(), perform=lambda _: None, on_fault=pytest.fail)
        heart.post(NodeWished(1, "no such node", "drain", 1))
        await asyncio.wait_for(woken.wait(), WITHIN_S)
        heart.stop()

    asyncio.run(live())


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


class FullStore(NotingStore):
    """A store whose disk is full until there is `room`."""

    def __init__(self) -> None:
        super().__init__()
        self.room = threading.Event()

    def commit(self, records: Iterable[Record]) -> None:
        if not self.room.is_set():
            raise StoreFull("no room")
        super().commit(records)


def a_tail(index: int, *, is_failed: bool) -> TailArrived:
    out = b"x" * (64 << 10)
    return TailArrived(SaveTail(BatchId(1), Index(index), 1, is_failed, out, b"", len(out), 0))


def test_tails_that_wait_for_a_full_disk_are_bounded_and_those_of_failures_have_room_of_their_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FullStore()

    async def live() -> int:
        kept = asyncio.Event()
        heart = Heart(
            HubCore(epoch=1, lease_us=LEASE_US), store, perform=lambda effect: kept.set(), on_fault=lambda _: None
        )
        for index in range(2000):
            heart.post(a_tail(index, is_failed=False))
            await asyncio.sleep(0)
        failed = range(3000, 3100)
        for index in failed:
            heart.post(a_tail(index, is_failed=True))
        # Results are decided on all the same, and answered once there is room.
        heart.post(NodeWished(1, "no such node", "drain", 1))
        await asyncio.sleep(0)
        assert not kept.is_set()
        store.room.set()
        await asyncio.wait_for(kept.wait(), 10)
        heart.post(a_tail(5000, is_failed=False))
        heart.post(NodeWished(2, "no such node", "drain", 1))
        kept.clear()
        await asyncio.wait_for(kept.wait(), 10)
        heart.stop()
        return heart.tails.dropped

    with caplog.at_level(logging.WARNING):
        dropped = asyncio.run(live())
    tails = store.kept.tails.values()
    assert dropped == 2101 - len(tails) > 0
    assert sum(tail.is_failed for tail in tails) == 100
    assert sum(not tail.is_failed and tail.index < 5000 for tail in tails) < (48 << 20) // (64 << 10)
    assert any(tail.index == 5000 for tail in tails)
    assert f"the ends of {dropped} outputs were dropped" in caplog.text
