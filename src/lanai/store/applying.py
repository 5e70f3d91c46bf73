"""Writes the records of one group into an open SQLite transaction.

Records of one kind that follow each other go in one `executemany`; kinds keep their order. Attempts and tails only ever
add rows, so they are gathered from the whole group and written together, before whatever looks back at them. It neither
begins nor ends the transaction, and leaves errors to its caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from lanai.model.records import (
    AttemptRow,
    CloseBatch,
    DropBatch,
    DropGrant,
    DropOverrides,
    OpenBatch,
    Record,
    SaveAttempts,
    SaveChunk,
    SaveEnv,
    SaveEvent,
    SaveGrant,
    SaveMeta,
    SaveNode,
    SaveOverride,
    SaveProgress,
    SaveReason,
    SaveShape,
    SaveTail,
    SetBatch,
)
from lanai.store.packing import pack
from lanai.store.queries import statements

TAIL_FAILED_BYTES: Final = 64 * 1024
TAIL_OK_BYTES: Final = 4 * 1024
"""What is kept of each of the two outputs of an attempt that failed, and of one that succeeded."""

TAILS_PER_BATCH_BYTES: Final = 256 * 1024 * 1024

SQL: Final = statements("write")


def apply(db: sqlite3.Connection, records: Sequence[Record], *, tails_bytes: int = TAILS_PER_BATCH_BYTES) -> None:
    """Makes all records true within the transaction that is open on `db`."""
    rows: list[AttemptRow] = []
    tails: list[SaveTail] = []
    with_tails: set[int] = set()
    for kind, group in groupby(records, key=type):
        if kind is SaveAttempts:
            for record in group:
                rows.extend(record.rows)  # type: ignore[attr-defined]
        elif kind is SaveTail:
            tails.extend(group)  # type: ignore[arg-type]
        else:
            if kind is SaveProgress or kind is DropBatch:
                _add_attempts(db, rows)
                rows = []
            if kind is DropBatch:
                with_tails |= _add_tails(db, tails)
                tails = []
            _APPLY[kind](db, list(group))
    _add_attempts(db, rows)
    with_tails |= _add_tails(db, tails)
    for batch in with_tails:
        _drop_oldest_tails(db, batch, tails_bytes)


def _add_attempts(db: sqlite3.Connection, rows: list[AttemptRow]) -> None:
    if not rows:
        return
    db.executemany(SQL["add_attempt"], rows)
    batch_of, row_of = itemgetter(1), itemgetter(0)
    last = dict(zip(map(batch_of, rows), map(row_of, rows), strict=True))
    rows.reverse()
    first = dict(zip(map(batch_of, rows), map(row_of, rows), strict=True))
    db.executemany(SQL["tally_attempts"], [(batch, first[batch], last[batch]) for batch in last])


def _add_tails(db: sqlite3.Connection, tails: list[SaveTail]) -> set[int]:
    """Returns the batches that got a tail."""
    added: dict[int, int] = {}
    for tail in tails:
        cap = TAIL_FAILED_BYTES if tail.is_failed else TAIL_OK_BYTES
        out, err = tail.out[-cap:], tail.err[-cap:]
        name = (tail.batch, tail.index, tail.attempt)
        size = len(out) + len(err)
        replaced = db.execute(SQL["drop_tail"], name).fetchall()
        db.execute(SQL["add_tail"], (*name, tail.is_failed, tail.out_bytes, tail.err_bytes, size, out, err))
        added[tail.batch] = added.get(tail.batch, 0) + size - sum(kept for (kept,) in replaced)
    db.executemany(SQL["tally_tails"], list(added.items()))
    return set(added)


def _drop_oldest_tails(db: sqlite3.Connection, batch: int, most_bytes: int) -> None:
    kept = db.execute(SQL["tail_bytes"], (batch,)).fetchone()
    excess = kept[0] - most_bytes if kept else 0
    if excess <= 0:
        return
    dropped: list[tuple[int]] = []
    freed = 0
    for tail, size in db.execute(SQL["tails_by_age"], (batch,)):
        if freed >= excess:
            break
        freed += size
        dropped.append((tail,))
    db.executemany(SQL["drop_old_tail"], dropped)
    db.execute(SQL["tally_tails"], (batch, -freed))


def _save_meta(db: sqlite3.Connection, records: list[SaveMeta]) -> None:
    db.executemany(SQL["save_meta"], [(r.name, r.value) for r in records])


def _save_env(db: sqlite3.Connection, records: list[SaveEnv]) -> None:
    db.executemany(SQL["save_env"], [(r.digest, r.blob) for r in records])


def _open_batch(db: sqlite3.Connection, records: list[OpenBatch]) -> None:
    db.executemany(
        SQL["open_batch"], [(r.batch, r.user, r.key, pack(r.settings), r.env, r.opened_at_us) for r in records]
    )


def _close_batch(db: sqlite3.Connection, records: list[CloseBatch]) -> None:
    db.executemany(SQL["close_batch"], [(r.total, r.digest, r.submitted_at_us, r.batch) for r in records])


def _set_batch(db: sqlite3.Connection, records: list[SetBatch]) -> None:
    db.executemany(
        SQL["set_batch"],
        [(r.state, r.priority, r.max_running, r.reason, pack(r.avoided), r.ended_at_us, r.batch) for r in records],
    )


def _drop_batch(db: sqlite3.Connection, records: list[DropBatch]) -> None:
    for name, sql in SQL.items():
        if name.startswith("drop_batch"):
            db.executemany(sql, [(r.batch,) for r in records])


def _save_shape(db: sqlite3.Connection, records: list[SaveShape]) -> None:
    db.executemany(SQL["save_shape"], [(r.batch, r.shape, pack(r.request)) for r in records])


def _save_chunk(db: sqlite3.Connection, records: list[SaveChunk]) -> None:
    db.executemany(SQL["save_chunk"], [(r.batch, r.first, r.count, pack(r.runs)) for r in records])
    db.executemany(SQL["save_lines"], [(r.batch, r.first, pack(r.checks), r.lines) for r in records])


def _save_progress(db: sqlite3.Connection, records: list[SaveProgress]) -> None:
    newest = list({r.batch: r for r in records}.values())
    db.executemany(
        SQL["save_progress"], [(r.batch, r.upto, pack(r.pending), pack(r.held), pack(r.counts)) for r in newest]
    )
    db.executemany(SQL["settle_tally"], [(r.batch, r.upto) for r in newest])


def _save_override(db: sqlite3.Connection, records: list[SaveOverride]) -> None:
    for r in records:
        _clear_overrides(db, r.batch, r.what, r.first, r.last)
        db.execute(SQL["add_override"], (r.batch, r.what, r.first, r.last, r.value, r.at_us))


def _drop_overrides(db: sqlite3.Connection, records: list[DropOverrides]) -> None:
    for r in records:
        _clear_overrides(db, r.batch, r.what, r.first, r.last)


def _clear_overrides(db: sqlite3.Connection, batch: int, what: str, first: int, last: int) -> None:
    """Cuts first .. last out of the batch's overrides, which are disjoint: what sticks out on either side stays."""
    for old_first, old_last, value, at_us in _overlapping(db, batch, what, first, last):
        db.execute(SQL["drop_override"], (batch, what, old_first))
        if old_first < first:
            db.execute(SQL["add_override"], (batch, what, old_first, first - 1, value, at_us))
        if old_last > last:
            db.execute(SQL["add_override"], (batch, what, last + 1, old_last, value, at_us))


def _overlapping(
    db: sqlite3.Connection, batch: int, what: str, first: int, last: int
) -> list[tuple[int, int, int, int]]:
    found = []
    for row in db.execute(SQL["overrides_down_from"], (batch, what, last)):
        if row[1] < first:
            break
        found.append(row)
    return found


def _save_grant(db: sqlite3.Connection, records: list[SaveGrant]) -> None:
    db.executemany(SQL["save_grant"], [(r.grant, r.node, r.batch, r.attempt, pack(r.ranges)) for r in records])


def _drop_grant(db: sqlite3.Connection, records: list[DropGrant]) -> None:
    db.executemany(SQL["drop_grant"], [(r.grant,) for r in records])


def _save_node(db: sqlite3.Connection, records: list[SaveNode]) -> None:
    db.executemany(SQL["save_node"], map(_node_row, records))


def _node_row(r: SaveNode) -> tuple[object, ...]:
    wish = (r.state, r.is_drained, pack(r.capacity), pack(r.features))
    return (r.node, r.name, r.key_hash, r.boot_id, *wish, r.started_by, r.joined_at_us, r.seen_at_us)


def _save_reason(db: sqlite3.Connection, records: list[SaveReason]) -> None:
    for r in records:
        if r.code:
            db.execute(SQL["save_reason"], (r.batch, r.shape, r.code, r.text, r.since_us))
        else:
            db.execute(SQL["drop_reason"], (r.batch, r.shape))


def _save_event(db: sqlite3.Connection, records: Iterable[SaveEvent]) -> None:
    db.executemany(SQL["save_event"], [(r.at_us, r.kind, r.subject, r.text) for r in records])


_APPLY: Final[dict[type[Record], Callable[[sqlite3.Connection, list[Any]], None]]] = {
    SaveMeta: _save_meta,
    SaveEnv: _save_env,
    OpenBatch: _open_batch,
    CloseBatch: _close_batch,
    SetBatch: _set_batch,
    DropBatch: _drop_batch,
    SaveShape: _save_shape,
    SaveChunk: _save_chunk,
    SaveProgress: _save_progress,
    SaveOverride: _save_override,
    DropOverrides: _drop_overrides,
    SaveGrant: _save_grant,
    DropGrant: _drop_grant,
    SaveNode: _save_node,
    SaveReason: _save_reason,
    SaveEvent: _save_event,
}
