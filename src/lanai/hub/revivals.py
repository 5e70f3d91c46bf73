"""Wishes to try jobs again, also of an ended batch: that is read from the store first, aside, for the core to take.

The core may take a batch once only for each time it has ended, so there is one reading of a batch at a time, and none
between that and the moment at which the core has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from lanai.core.events import BatchRevived, Event, JobsRetried
from lanai.core.hub import HubCore
from lanai.core.intake import tried_of
from lanai.model.errors import ErrorBody, NothingThere, StoreError
from lanai.model.ids import BatchId
from lanai.model.records import RecoveredBatch

FREED_AT_ONCE: Final = 10_000

Revival: TypeAlias = BatchRevived | ErrorBody
"""An ended batch as it was read, or why it could not be."""


class Batches(Protocol):
    """Where ended batches are looked up; `recover_batch` from any thread."""

    def recover_batch(self, batch: BatchId) -> RecoveredBatch | None: ...
    def has_batch(self, batch: BatchId) -> bool: ...


class Revivals:
    """Passes wishes to try again on to the core, with the batches they are about. For the arguments see `Commands`."""

    def __init__(
        self,
        core: HubCore,
        batches: Batches,
        *,
        post: Callable[[Event], None],
        aside: Callable[[Callable[[], Revival], Callable[[Revival], None]], None],
        afterwards: Callable[[Callable[[], None]], None],
        answer: Callable[[int, ErrorBody], None],
    ) -> None:
        self._core = core
        self._batches = batches
        self._post = post
        self._aside = aside
        self._afterwards = afterwards
        self._answer = answer
        self._reviving: dict[BatchId, list[JobsRetried]] = {}
        """Ended batches that are being read, and the wishes that wait for it."""
        self._revived_now: set[BatchId] = set()
        """Batches that were read and that the core is about to take: what is wished of them comes after that."""

    def knows(self, batch: BatchId) -> bool:
        """Whether there is such a batch, ended or not."""
        return self._is_with_core(batch) or self._batches.has_batch(batch)

    def retry(self, wish: JobsRetried) -> None:
        """Have the core take the wish, after its batch where that has ended. Of a batch that `knows` knows."""
        batch = wish.batch
        if self._is_with_core(batch):
            self._post(wish)
        elif batch in self._reviving:
            # Read twice at a time it could be revived, end, and be revived again by what was read before.
            self._reviving[batch].append(wish)
        else:
            self._reviving[batch] = [wish]
            self._aside(lambda: self._read(batch), lambda revival: self._revived(batch, revival))

    # -- within

    def _is_with_core(self, batch: BatchId) -> bool:
        return batch in self._core.world.batches or batch in self._revived_now

    def _read(self, batch: BatchId) -> Revival:
        try:
            found = self._batches.recover_batch(batch)
        except StoreError as error:
            return error.body()
        if found is None:
            return no_batch(batch).body()
        tried = tried_of(found)
        # Let go of here, and in pieces: to free a million rows at once takes a tenth of a second, wherever it is done.
        while found.charged:
            del found.charged[-FREED_AT_ONCE:]
        return BatchRevived(found, tried)

    def _revived(self, batch: BatchId, revival: Revival) -> None:
        wishes = self._reviving.pop(batch)
        if isinstance(revival, BatchRevived):
            # Read again before the core has it, it could be revived a second time by what was on disk before the first.
            self._revived_now.add(batch)
            self._post(revival)
            self._afterwards(lambda: self._revived_now.discard(batch))
            for wish in wishes:
                self._post(wish)
        else:
            for wish in wishes:
                self._answer(wish.request, revival)


def no_batch(batch: BatchId) -> NothingThere:
    """That there is none of that number, nor has been."""
    return NothingThere(f"there is no batch {batch}", code="no_such_batch", hint="lanai batch list")
