"""What a store must do, whatever engine is behind it.

One writer, in the hub; any number of readers, in the API process. `commit` is one transaction: after it returns, and
with `durability = "full"` after the disk has said so, every record of it is kept, and before that none is. The writer's
methods are called from one thread at a time; readers see whole transactions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.records import Record, Recovered, RecoveredBatch, SaveChunk

REASONS_KEPT: Final = 20
"""So many reasons of a line are kept, the present one among them."""

WALLS_MOST: Final = 20
WALLS_AMONG: Final = 100
"""A start learns so many run times of a batch, from so many rows of attempts, others' among them."""

TAIL_FAILED_BYTES: Final = 64 * 1024
TAIL_OK_BYTES: Final = 4 * 1024
"""What is kept of each of the two outputs of an attempt that failed, and of one that succeeded."""

TAILS_PER_BATCH_BYTES: Final = 256 * 1024 * 1024


class Writer(Protocol):
    """The hub's side."""

    def commit(self, records: Sequence[Record]) -> None:
        """Apply all records in their order, in one transaction.

        Raises:
            StoreFull: there is no space. Nothing of it was kept; the same records may be given again later.
            StoreError: anything else; the store is not to be trusted until it is opened anew.
        """

    def checkpoint(self, *, truncate: bool) -> None:
        """Move what was committed to its final place; may be called from a thread of its own while others commit."""

    def recover(self) -> Recovered:
        """What the hub needs at its start.

        What a stop left half done is dropped on the way: arriving batches, and grants of which no member is left.
        """

    def recover_batch(self, batch: BatchId) -> RecoveredBatch | None:
        """One batch as a start would find it, ended or not, to be revived; None where it is unknown or arriving.

        May be called from any thread while others commit.
        """

    def close(self) -> None:
        """Let go of the files."""


class History(Protocol):
    """Where the hub asks for what is too old, on its own loop: a few indexed rows a call."""

    def old(self, ended_before_us: int, told_before_us: int) -> tuple[BatchId | None, bool]:
        """(the batch that ended longest ago, None where none ended before that time, whether there are other rows).

        Other rows are events and rows of the audit trail from before `told_before_us`, and what is left of batches that
        were pruned.
        """


class Lines(Protocol):
    """Where the hub reads command lines from, on its own loop: one indexed row a call."""

    def chunk(self, batch: BatchId, index: Index) -> SaveChunk:
        """The chunk that holds this job. Raises NothingThere."""

    def env(self, digest: bytes) -> bytes:
        """The blob saved under `digest`. Raises NothingThere."""

    def has_batch(self, batch: BatchId) -> bool:
        """Whether this batch has arrived whole, ended or not."""

    def key(self, user: str, key: str) -> tuple[BatchId, bytes] | None:
        """The batch submitted by `user` under `key` and its digest (empty while it is arriving)."""

    def node_of(self, batch: BatchId, index: Index, attempt: int) -> tuple[int, int, GrantId] | None:
        """(node, attempt, grant) of an attempt that ended; attempt 0 is the last one."""
