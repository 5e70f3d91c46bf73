"""The writer thread: one group of records, one transaction, and only then the group's effects.

While a group is on its way to disk the loop goes on gathering the next one. A full disk keeps the group and tries it
again; nothing of it is done meanwhile. Any other fault of the store ends the hub, which recovers at its next start.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Final, Protocol

from lanai.core.effects import Effect
from lanai.model.errors import StoreFull
from lanai.model.records import Record

FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 5.0
CHECKPOINT_S: Final = 1.0
IDLE_S: Final = 1.0


class Store(Protocol):
    """What the writer thread needs of a store."""

    def commit(self, records: list[Record]) -> None: ...
    def checkpoint(self, *, truncate: bool) -> None: ...
    def release_ballast(self) -> None: ...
    def restore_ballast(self) -> bool: ...


class Group:
    """Records for one transaction and the effects that wait for it. `tail_bytes` is what the tails among them take."""

    __slots__ = ("effects", "is_urgent", "records", "tail_bytes")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.effects: list[Effect] = []
        self.is_urgent = False
        self.tail_bytes = 0


class CommitLine:
    """Carries one group at a time.

    Args:
        on_committed: called on the loop after the group's transaction.
        on_full: called on the loop when the disk turns out to be full (True) and when there is room again (False).
        on_fault: called on the loop with what ended the writer.
    """

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        *,
        on_committed: Callable[[Group], None],
        on_full: Callable[[bool], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._loop = loop
        self._on_committed = on_committed
        self._on_full = on_full
        self._on_fault = on_fault
        self._groups: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._has_committed = threading.Event()
        self._is_closing = threading.Event()
        self.is_busy = False
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        self._checkpointer = threading.Thread(target=self._checkpoint, name="checkpointer", daemon=True)
        self._writer.start()
        self._checkpointer.start()

    def send(self, group: Group) -> None:
        """Commit this group; the line must not be busy."""
        assert not self.is_busy
        self.is_busy = True
        self._groups.put(group)

    def close(self) -> None:
        """Returns once both threads have ended. The group under way is finished first."""
        self._is_closing.set()
        self._has_committed.set()
        self._groups.put(None)
        self._writer.join()
        self._checkpointer.join()

    def _write(self) -> None:
        try:
            while (group := self._groups.get()) is not None:
                if group.records and not self._commit(group):
                    return
                self._has_committed.set()
                self._loop.call_soon_threadsafe(self._committed, group)
        except BaseException as fault:
            self._loop.call_soon_threadsafe(self._on_fault, fault)

    def _committed(self, group: Group) -> None:
        self.is_busy = False
        self._on_committed(group)

    def _commit(self, group: Group) -> bool:
        """True once it is kept; False where the hub closes with the disk still full."""
        delay_s = 0.0
        while True:
            try:
                self._store.commit(group.records)
            except StoreFull:
                if not delay_s:
                    self._store.release_ballast()
                    self._loop.call_soon_threadsafe(self._on_full, True)
                delay_s = min(LAST_RETRY_S, delay_s * 2 or FIRST_RETRY_S)
                if self._is_closing.wait(delay_s):
                    return False
            else:
                if delay_s and self._store.restore_ballast():
                    self._loop.call_soon_threadsafe(self._on_full, False)
                elif delay_s:
                    self._loop.call_soon_threadsafe(self._restore_later)
                return True

    def _restore_later(self) -> None:
        """Room for results, but not yet for more: submissions stay refused until the ballast is back."""
        if self._is_closing.is_set():
            return
        if self._store.restore_ballast():
            self._on_full(False)
        else:
            self._loop.call_later(LAST_RETRY_S, self._restore_later)

    def _checkpoint(self) -> None:
        while not self._is_closing.is_set():
            if self._has_committed.wait(timeout=IDLE_S):
                self._has_committed.clear()
                self._move(truncate=False)
                self._is_closing.wait(CHECKPOINT_S)
            else:
                self._move(truncate=True)
                self._has_committed.wait()

    def _move(self, *, truncate: bool) -> None:
        try:
            self._store.checkpoint(truncate=truncate)
        except StoreFull:
            self._is_closing.wait(IDLE_S)  # the log simply grows a little longer
        except BaseException as fault:
            self._loop.call_soon_threadsafe(self._on_fault, fault)
