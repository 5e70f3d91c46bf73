"""A store that keeps everything in dictionaries: for the simulated world, and to hold the real one against.

It is as plain as can be and keeps the same promises, crashes and full disks included; nothing in it is quick. It must
not be used by a hub that people rely on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, assert_never

import msgspec

from lanai.model.errors import NothingThere, StoreError, StoreFull
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId, TokenId
from lanai.model.ranges import Ranges, canonical, from_indices, iterate
from lanai.model.records import (
    AttemptRow,
    CloseBatch,
    DropBatch,
    DropGrant,
    DropOverrides,
    HoldRow,
    OpenBatch,
    PruneBatch,
    PruneRows,
    Record,
    Recovered,
    RecoveredBatch,
    ReopenJobs,
    SaveAccount,
    SaveAttempts,
    SaveAudit,
    SaveChunk,
    SaveEnv,
    SaveEvent,
    SaveGrant,
    SaveMeta,
    SaveNode,
    SaveOverride,
    SaveProgress,
    SaveReason,
    SaveSettings,
    SaveShape,
    SaveTail,
    SaveToken,
    SetBatch,
)
from lanai.store.port import TAIL_FAILED_BYTES, TAIL_OK_BYTES, TAILS_PER_BATCH_BYTES, WALLS_AMONG, WALLS_MOST


class Tables:
    """What is kept, by its key."""

    def __init__(self) -> None:
        self.meta: dict[str, str] = {}
        self.envs: dict[bytes, bytes] = {}
        self.opened: dict[BatchId, OpenBatch] = {}
        self.closed: dict[BatchId, CloseBatch] = {}
        self.settings: dict[BatchId, SetBatch] = {}
        self.shapes: dict[tuple[BatchId, ShapeId], SaveShape] = {}
        self.chunks: dict[tuple[BatchId, int], SaveChunk] = {}
        self.progress: dict[BatchId, SaveProgress] = {}
        self.overrides: dict[tuple[BatchId, str], list[SaveOverride]] = {}
        self.grants: dict[GrantId, SaveGrant] = {}
        self.attempts: dict[int, AttemptRow] = {}
        self.nodes: dict[NodeId, SaveNode] = {}
        self.reasons: dict[tuple[BatchId, ShapeId], SaveReason] = {}
        self.tails: dict[tuple[BatchId, Index, int], SaveTail] = {}
        self.events: set[SaveEvent] = set()
        self.audit: dict[int, SaveAudit] = {}
        self.tokens: dict[TokenId, SaveToken] = {}
        self.last_batch = 0


class MemoryStore:
    """`port.Writer` and `port.Lines` without a file.

    A commit may be taken apart, so that a world can crash between its begin and its end: `stage`, then `land` or
    `crash`. What has landed outlives every crash.

    Attributes:
        kept: the tables as they are on the imagined disk; for looking at.
        is_full: commits raise StoreFull while it is set.
        is_faulty: commits raise StoreError while it is set.
        has_ballast: as `restore_ballast` and `release_ballast` left it.
    """

    def __init__(self, *, tails_bytes: int = TAILS_PER_BATCH_BYTES) -> None:
        self.kept = Tables()
        self.is_full = False
        self.is_faulty = False
        self.has_ballast = False
        self._tails_bytes = tails_bytes
        self._staged: list[Record] = []

    # -- port.Writer

    def commit(self, records: Sequence[Record]) -> None:
        """See `port.Writer`."""
        self.stage(records)
        self.land()

    def checkpoint(self, *, truncate: bool) -> None:
        """See `port.Writer`: there is nothing to move."""

    def recover(self) -> Recovered:
        """See `port.Writer`."""
        kept = self.kept
        _apply(kept, [DropBatch(batch) for batch in sorted(kept.opened) if batch not in kept.closed], self._tails_bytes)
        used_up = [grant.grant for grant in kept.grants.values() if not _open_members(kept, grant)]
        _apply(kept, [DropGrant(grant) for grant in used_up], self._tails_bytes)
        unfinished = [batch for batch in sorted(kept.closed) if not _is_ended(kept, batch)]
        return Recovered(
            meta=dict(sorted(kept.meta.items())),
            last_batch=kept.last_batch,
            last_row=max(kept.attempts, default=0),
            batches=[_recovered(kept, batch) for batch in unfinished],
            nodes=[kept.nodes[node] for node in sorted(kept.nodes)],
            tokens=[kept.tokens[token] for token in sorted(kept.tokens)],
            last_audit=max(kept.audit, default=0),
        )

    def recover_batch(self, batch: BatchId) -> RecoveredBatch | None:
        """See `port.Writer`."""
        return _recovered(self.kept, batch) if batch in self.kept.closed else None

    def close(self) -> None:
        """See `port.Writer`. What was kept stays, for the next hub."""
        self._staged = []

    # -- knobs

    def stage(self, records: Sequence[Record]) -> None:
        """Begins a commit: nothing is kept yet.

        Raises:
            StoreFull: `is_full`.
            StoreError: `is_faulty`.
        """
        if self.is_full:
            raise StoreFull("cannot commit: the simulated disk is full")
        if self.is_faulty:
            raise StoreError("cannot commit: the simulated disk is damaged")
        self._staged = list(records)

    def land(self) -> None:
        """Ends the commit that was begun: all of it is kept.

        Raises:
            StoreError: two batches of one user under one key; nothing of it is kept.
        """
        _refuse_keys_twice(self.kept, self._staged)
        _apply(self.kept, self._staged, self._tails_bytes)
        self._staged = []

    def crash(self) -> None:
        """Ends the hub: of a commit that has only begun nothing is kept."""
        self._staged = []

    def release_ballast(self) -> None:
        """As `SqliteWriter.release_ballast`."""
        self.has_ballast = False

    def restore_ballast(self) -> bool:
        """As `SqliteWriter.restore_ballast`."""
        self.has_ballast = not self.is_full
        return self.has_ballast

    # -- port.Lines

    def chunk(self, batch: BatchId, index: Index) -> SaveChunk:
        """See `port.Lines`."""
        for chunk in self.kept.chunks.values():
            if chunk.batch == batch and chunk.first <= index < chunk.first + chunk.count:
                return chunk
        raise NothingThere(f"there is no job {batch}/{index}", code="no_such_job")

    def env(self, digest: bytes) -> bytes:
        """See `port.Lines`."""
        if digest not in self.kept.envs:
            raise NothingThere(f"there is no environment {digest.hex()}", code="no_such_env")
        return self.kept.envs[digest]

    def old(self, ended_before_us: int, told_before_us: int) -> tuple[BatchId | None, bool]:
        """See `port.History`."""
        ended = [(wish.ended_at_us, batch) for batch, wish in self.kept.settings.items() if wish.state == "ended"]
        batch = next((batch for at_us, batch in sorted(ended) if at_us < ended_before_us), None)
        told = [*(event.at_us for event in self.kept.events), *(each.at_us for each in self.kept.audit.values())]
        return batch, any(at_us < told_before_us for at_us in told)

    def has_batch(self, batch: BatchId) -> bool:
        """See `port.Lines`."""
        return batch in self.kept.closed

    def key(self, user: str, key: str) -> tuple[BatchId, bytes] | None:
        """See `port.Lines`."""
        for batch, opened in self.kept.opened.items():
            if key and (opened.user, opened.key) == (user, key):
                closed = self.kept.closed.get(batch)
                return batch, closed.digest if closed else b""
        return None

    def node_of(self, batch: BatchId, index: Index, attempt: int) -> tuple[int, int, GrantId] | None:
        """See `port.Lines`."""
        for number in sorted(self.kept.attempts, reverse=True):
            row = self.kept.attempts[number]
            if row[1] == batch and row[2] == index and attempt in (0, row[3]):
                return row[5], row[3], row[4]
        return None


def _apply(kept: Tables, records: Iterable[Record], tails_bytes: int) -> None:
    records = list(records)
    for record in records:
        _apply_one(kept, record)  # type: ignore[arg-type]
    for batch in {record.batch for record in records if isinstance(record, SaveTail)}:
        _drop_oldest_tails(kept, batch, tails_bytes)


_AnyRecord = (
    SaveMeta | SaveEnv | OpenBatch | CloseBatch | SetBatch | DropBatch | SaveShape | SaveChunk | SaveProgress
    | SaveOverride | DropOverrides | SaveGrant | DropGrant | SaveAttempts | SaveNode | SaveReason | SaveTail | SaveEvent
    | ReopenJobs | PruneBatch | PruneRows | SaveAudit | SaveToken | SaveSettings | SaveAccount
)  # fmt: skip


def _apply_one(kept: Tables, record: _AnyRecord) -> None:  # noqa: C901
    match record:
        case SaveMeta():
            kept.meta[record.name] = record.value
        case SaveEnv():
            kept.envs.setdefault(record.digest, record.blob)
        case OpenBatch():
            kept.opened[record.batch] = record
            kept.last_batch = max(kept.last_batch, record.batch)
        case CloseBatch():
            kept.closed[record.batch] = record
        case SaveSettings():
            kept.opened[record.batch] = msgspec.structs.replace(kept.opened[record.batch], settings=record.settings)
        case SaveAccount():
            kept.opened[record.batch] = msgspec.structs.replace(kept.opened[record.batch], account=record.account)
        case SetBatch():
            kept.settings[record.batch] = record
        case DropBatch():
            _drop_batch(kept, record.batch)
        case PruneBatch():
            _prune_batch(kept, record.batch)
        case PruneRows():
            kept.events = {event for event in kept.events if event.at_us >= record.told_before_us}
            kept.audit = {row: each for row, each in kept.audit.items() if each.at_us >= record.told_before_us}
        case SaveShape():
            kept.shapes[record.batch, record.shape] = record
        case SaveChunk():
            kept.chunks[record.batch, record.first] = record
        case SaveProgress():
            kept.progress[record.batch] = record
        case SaveOverride():
            _clear_overrides(kept, record.batch, record.what, record.first, record.last)
            kept.overrides[record.batch, record.what].append(record)
        case DropOverrides():
            _clear_overrides(kept, record.batch, record.what, record.first, record.last)
        case SaveGrant():
            kept.grants[record.grant] = record
        case DropGrant():
            kept.grants.pop(record.grant, None)
        case SaveAttempts():
            kept.attempts.update((row[0], row) for row in record.rows)
        case ReopenJobs():
            _reopen(kept, record)
        case SaveNode():
            kept.nodes[record.node] = record
        case SaveReason():
            kept.reasons.pop((record.batch, record.shape), None)
            if record.code:
                kept.reasons[record.batch, record.shape] = record
        case SaveTail():
            name = record.batch, record.index, record.attempt
            if not record.node or record.node == _node_of(kept, *name):
                kept.tails.pop(name, None)
                kept.tails[name] = _capped(record)
        case SaveEvent():
            kept.events.add(record)
        case SaveAudit():
            kept.audit.setdefault(record.row, record)
        case SaveToken():
            kept.tokens[record.token] = record
        case _:
            assert_never(record)


def _reopen(kept: Tables, record: ReopenJobs) -> None:
    for number, row in kept.attempts.items():
        if row[1] == record.batch and record.first <= row[2] <= record.last and row[7] != "ok":
            kept.attempts[number] = (*row[:6], "reopened", *row[7:])


def _refuse_keys_twice(kept: Tables, records: Sequence[Record]) -> None:
    batch_of = {(opened.user, opened.key): batch for batch, opened in kept.opened.items() if opened.key}
    for record in records:
        if isinstance(record, OpenBatch) and record.key:
            name = (record.user, record.key)
            if batch_of.setdefault(name, record.batch) != record.batch:
                raise StoreError(f"batch {batch_of[name]} already has the key {record.key} of {record.user}")
        elif isinstance(record, DropBatch):
            batch_of = {name: batch for name, batch in batch_of.items() if batch != record.batch}


def _drop_batch(kept: Tables, batch: BatchId) -> None:
    for by_batch in (kept.opened, kept.closed, kept.settings, kept.progress):
        by_batch.pop(batch, None)
    for key in [key for key in kept.shapes if key[0] == batch]:
        del kept.shapes[key]
    for at in [at for at in kept.chunks if at[0] == batch]:
        del kept.chunks[at]
    for what in [what for what in kept.overrides if what[0] == batch]:
        del kept.overrides[what]
    for grant in [grant.grant for grant in kept.grants.values() if grant.batch == batch]:
        del kept.grants[grant]
    for number in [number for number, row in kept.attempts.items() if row[1] == batch]:
        del kept.attempts[number]
    for line in [line for line in kept.reasons if line[0] == batch]:
        del kept.reasons[line]
    for name in [name for name in kept.tails if name[0] == batch]:
        del kept.tails[name]


def _prune_batch(kept: Tables, batch: BatchId) -> None:
    """All of it goes at once: nothing here is so large that it would have to wait."""
    opened = kept.opened.get(batch)
    _drop_batch(kept, batch)
    if opened is not None and all(other.env != opened.env for other in kept.opened.values()):
        kept.envs.pop(opened.env, None)


def _node_of(kept: Tables, batch: BatchId, index: Index, attempt: int) -> NodeId | None:
    rows = [row for _, row in sorted(kept.attempts.items()) if row[1:4] == (batch, index, attempt)]
    return rows[-1][5] if rows else None


def _clear_overrides(kept: Tables, batch: BatchId, what: str, first: int, last: int) -> None:
    left: list[SaveOverride] = []
    for old in kept.overrides.get((batch, what), []):
        before, after = (old.first, min(old.last, first - 1)), (max(old.first, last + 1), old.last)
        left += [SaveOverride(batch, a, b, what, old.value, old.at_us) for a, b in (before, after) if a <= b]
    kept.overrides[batch, what] = left


def _capped(tail: SaveTail) -> SaveTail:
    cap = TAIL_FAILED_BYTES if tail.is_failed else TAIL_OK_BYTES
    return SaveTail(
        tail.batch, tail.index, tail.attempt, tail.is_failed, tail.out[-cap:], tail.err[-cap:], tail.out_bytes,
        tail.err_bytes,
    )  # fmt: skip


def _drop_oldest_tails(kept: Tables, batch: BatchId, most_bytes: int) -> None:
    of_batch = [(name, tail) for name, tail in kept.tails.items() if tail.batch == batch]
    excess = sum(len(tail.out) + len(tail.err) for _, tail in of_batch) - most_bytes
    for name, tail in sorted(of_batch, key=lambda item: item[1].is_failed):
        if excess <= 0:
            return
        excess -= len(tail.out) + len(tail.err)
        del kept.tails[name]


# -- what a start reads

_index_of: Final = itemgetter(2)


def _is_ended(kept: Tables, batch: BatchId) -> bool:
    return batch in kept.settings and kept.settings[batch].state == "ended"


def _recovered(kept: Tables, batch: BatchId) -> RecoveredBatch:
    opened, closed, progress = kept.opened[batch], kept.closed[batch], kept.progress.get(batch)
    rows = [kept.attempts[number] for number in sorted(kept.attempts) if kept.attempts[number][1] == batch]
    upto = progress.upto if progress else 0
    left = {grant.grant: _open_members(kept, grant) for grant in kept.grants.values() if grant.batch == batch}
    return RecoveredBatch(
        batch=batch,
        user=opened.user,
        key=opened.key,
        settings=opened.settings,
        env=opened.env,
        total=closed.total,
        submitted_at_us=closed.submitted_at_us,
        state=kept.settings.get(batch),
        shapes={shape: kept.shapes[of, shape].request for of, shape in sorted(kept.shapes) if of == batch},
        runs=_runs(kept, batch),
        progress=progress,
        attempts=[(row[0], row[2], row[3], row[4], row[5], row[6], row[7], row[12]) for row in rows if row[0] > upto],
        charged=[(row[2], row[3], row[7], row[6], row[5]) for row in sorted(rows, key=_index_of) if row[7] != "ok"],
        grants=[_with_ranges(kept.grants[grant], left[grant]) for grant in sorted(left) if left[grant]],
        cancelled=canonical((each.first, each.last) for each in kept.overrides.get((batch, "cancelled"), [])),
        reshaped=_reshaped(kept, batch),
        holds=_of_kind(kept, batch, "hold "),
        preempted=_of_kind(kept, batch, "preempted "),
        account=opened.account,
        walls=_walls(rows),
        reasons=[kept.reasons[line] for line in sorted(kept.reasons) if line[0] == batch],
    )


def _walls(rows: list[AttemptRow]) -> list[tuple[int, Index, int]]:
    """Of all rows of a batch, in order."""
    late = [row for row in rows if row[0] > rows[-1][0] - WALLS_AMONG]
    return [(row[0], row[2], row[12]) for row in late if row[7] == "ok"][-WALLS_MOST:]


def _of_kind(kept: Tables, batch: BatchId, kind: str) -> list[HoldRow]:
    """Overrides whose `what` begins so."""
    of_kind = (some for (of, what), some in kept.overrides.items() if of == batch and what.startswith(kind))
    found = (each for some in of_kind for each in some)
    return sorted((each.what, each.first, each.last, each.value, each.at_us) for each in found)


def _with_ranges(grant: SaveGrant, ranges: Ranges) -> SaveGrant:
    return SaveGrant(grant.grant, grant.node, grant.batch, grant.attempt, ranges, grant.others, grant.broken)


def _open_members(kept: Tables, grant: SaveGrant) -> Ranges:
    ended = {row[2] for row in kept.attempts.values() if row[4] == grant.grant and row[1] == grant.batch}
    return from_indices(index for index in iterate(grant.ranges) if index not in ended)


def _runs(kept: Tables, batch: BatchId) -> list[tuple[int, int, ShapeId]]:
    shape_of: dict[int, int] = {}
    for of, first in sorted(kept.chunks):
        at = first
        for count, shape in kept.chunks[of, first].runs if of == batch else ():
            shape_of.update(dict.fromkeys(range(at, at + count), shape))
            at += count
    return [(first, last - first + 1, ShapeId(shape)) for first, last, shape in _grouped(shape_of)]


def _reshaped(kept: Tables, batch: BatchId) -> list[tuple[int, int, ShapeId]]:
    shape_of: dict[int, int] = {}
    for each in kept.overrides.get((batch, "shape"), []):
        shape_of.update(dict.fromkeys(range(each.first, each.last + 1), each.value))
    return [(first, last, ShapeId(shape)) for first, last, shape in _grouped(shape_of)]


def _grouped(value_of: dict[int, int]) -> list[tuple[int, int, int]]:
    """(first, last, value) of neighbouring indices of one value, in order."""
    grouped: list[tuple[int, int, int]] = []
    for index in sorted(value_of):
        if grouped and grouped[-1][1] == index - 1 and grouped[-1][2] == value_of[index]:
            grouped[-1] = (grouped[-1][0], index, value_of[index])
        else:
            grouped.append((index, index, value_of[index]))
    return grouped
