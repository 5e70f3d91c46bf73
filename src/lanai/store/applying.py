"""Writes the records of one group into an open SQLite transaction.

Records of different tables do not see each other, so a group is sorted by table and each table written in a few wide
statements (see `lanai.store.widening`); where only the last word about something counts, only that is written. What
concerns the same rows keeps its order, and `DropBatch` and `ReopenJobs` split a group in two, since they change rows
that others of the group may have written. This neither begins nor ends the transaction, and leaves errors to its
caller.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from lanai.model.records import (
    CloseBatch,
    DropBatch,
    DropGrant,
    DropOverrides,
    OpenBatch,
    PruneBatch,
    PruneRows,
    Record,
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
from lanai.store.packing import pack
from lanai.store.port import REASONS_KEPT, TAIL_FAILED_BYTES, TAIL_OK_BYTES, TAILS_PER_BATCH_BYTES
from lanai.store.queries import statements
from lanai.store.widening import execute_rows

SQL: Final = statements("write")


_LINES_AT_ONCE: Final = 8
_PRUNED: Final = (("attempts", 1), ("wide_grants", 1), ("overrides", 1), ("tails", 20), ("lines", 100))
"""What of a pruned batch goes a few at a time, and how many attempt rows one of it weighs as much as."""


def apply(db: sqlite3.Connection, records: Sequence[Record], *, tails_bytes: int = TAILS_PER_BATCH_BYTES) -> None:
    """Makes all records true within the transaction that is open on `db`."""
    tables: dict[_Write, list[Record]] = {}
    for record in records:
        if isinstance(record, (DropBatch, PruneBatch)):
            _write(db, tables)
            (_drop_batch if isinstance(record, DropBatch) else _prune_batch)(db, record.batch)
            tables = {}
        elif isinstance(record, ReopenJobs):
            _write(db, tables)
            db.execute(SQL["reopen_jobs"], (record.batch, record.first, record.last))
            tables = {}
        else:
            tables.setdefault(_WRITES[type(record)], []).append(record)
    _write(db, tables)
    for batch in {record.batch for record in records if isinstance(record, SaveTail)}:
        _drop_oldest_tails(db, batch, tails_bytes)


_Write = Callable[[sqlite3.Connection, list[Any]], None]


def _write(db: sqlite3.Connection, tables: dict[_Write, list[Record]]) -> None:
    for write in _ORDER:
        if write in tables:
            write(db, tables[write])


def _drop_batch(db: sqlite3.Connection, batch: int) -> None:
    for name, sql in SQL.items():
        if name.startswith("drop_batch"):
            db.execute(sql, (batch,))


def _prune_batch(db: sqlite3.Connection, batch: int) -> None:
    db.execute(SQL["prune_batch_env"], {"batch": batch})
    db.execute(SQL["prune_batch_later"], {"batch": batch})
    later = {f"drop_batch_{what}" for what, _ in _PRUNED}
    for name, sql in SQL.items():
        if name.startswith("drop_batch") and name not in later:
            db.execute(sql, (batch,))


def _prune_rows(db: sqlite3.Connection, records: list[PruneRows]) -> None:
    for r in records:
        db.execute(SQL["prune_events"], {"before": r.told_before_us, "most": r.most})
        db.execute(SQL["prune_audit"], {"before": r.told_before_us, "most": r.most})
        found = db.execute(SQL["prune_rows_of"]).fetchone()
        if found and not _prune_some(db, found[0], r.most):
            db.execute(SQL["prune_rows_done"], {"batch": found[0]})


def _prune_some(db: sqlite3.Connection, batch: int, most: int) -> bool:
    """Drops up to about `most` rows of a pruned batch; whether there may be more of them."""
    for what, weight in _PRUNED:
        at_once = max(1, most // weight)
        dropped = db.execute(SQL[f"prune_rows_{what}"], {"batch": batch, "most": at_once}).rowcount
        if dropped == at_once:
            return True
        most = max(0, most - dropped * weight)
    return False


def _attempts(db: sqlite3.Connection, records: list[SaveAttempts]) -> None:
    rows = [row for record in records for row in record.rows]
    execute_rows(db, SQL["add_attempt"], rows)
    batch_of, row_of = itemgetter(1), itemgetter(0)
    last = dict(zip(map(batch_of, rows), map(row_of, rows), strict=True))
    rows.reverse()
    first = dict(zip(map(batch_of, rows), map(row_of, rows), strict=True))
    execute_rows(db, SQL["tally_attempts"], [(batch, first[batch], last[batch]) for batch in last])


def _tails(db: sqlite3.Connection, records: list[SaveTail]) -> None:
    said = [(tail.batch, tail.index, tail.attempt, tail.node) for tail in records if tail.node]
    others = set(execute_rows(db, SQL["tails_of_others"], said))
    rows: dict[tuple[int, int, int], tuple[object, ...]] = {}
    sizes: dict[tuple[int, int, int], int] = {}
    for tail in records:
        name = tail.batch, tail.index, tail.attempt
        if (*name, tail.node) in others:
            continue
        cap = TAIL_FAILED_BYTES if tail.is_failed else TAIL_OK_BYTES
        out, err = tail.out[-cap:], tail.err[-cap:]
        sizes[name] = size = len(out) + len(err)
        rows.pop(name, None)  # of two the later one is the younger
        rows[name] = (*name, tail.is_failed, tail.out_bytes, tail.err_bytes, size, out, err)
    added: dict[int, int] = {}
    for (batch, _, _), size in sizes.items():
        added[batch] = added.get(batch, 0) + size
    for batch, kept in execute_rows(db, SQL["drop_tails"], list(rows)):
        added[batch] -= kept
    execute_rows(db, SQL["add_tail"], list(rows.values()))
    execute_rows(db, SQL["tally_tails"], list(added.items()))


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
    execute_rows(db, SQL["drop_old_tail"], dropped)
    db.execute(SQL["tally_tails"], (batch, -freed))


def _metas(db: sqlite3.Connection, records: list[SaveMeta]) -> None:
    execute_rows(db, SQL["save_meta"], list({r.name: (r.name, r.value) for r in records}.values()))


def _envs(db: sqlite3.Connection, records: list[SaveEnv]) -> None:
    execute_rows(db, SQL["save_env"], [(r.digest, r.blob) for r in records], at_once_max=_LINES_AT_ONCE)


def _opens(db: sqlite3.Connection, records: list[OpenBatch]) -> None:
    rows = [(r.batch, r.user, r.key, pack(r.settings), r.env, r.opened_at_us, r.account) for r in records]
    execute_rows(db, SQL["open_batch"], rows)


def _closes(db: sqlite3.Connection, records: list[CloseBatch]) -> None:
    for r in records:
        db.execute(SQL["close_batch"], (r.total, r.digest, r.submitted_at_us, r.batch))


def _settings(db: sqlite3.Connection, records: list[SetBatch]) -> None:
    for r in {r.batch: r for r in records}.values():
        values = (r.state, r.priority, r.max_running, r.reason, pack(r.avoided), r.ended_at_us)
        db.execute(SQL["set_batch"], (*values, r.batch))


def _resettings(db: sqlite3.Connection, records: list[SaveSettings]) -> None:
    for r in {r.batch: r for r in records}.values():
        db.execute(SQL["save_settings"], (pack(r.settings), r.batch))


def _accounts(db: sqlite3.Connection, records: list[SaveAccount]) -> None:
    for r in {r.batch: r for r in records}.values():
        db.execute(SQL["save_account"], (r.account, r.batch))


def _shapes(db: sqlite3.Connection, records: list[SaveShape]) -> None:
    execute_rows(db, SQL["save_shape"], [(r.batch, r.shape, pack(r.request)) for r in records])


def _chunks(db: sqlite3.Connection, records: list[SaveChunk]) -> None:
    execute_rows(db, SQL["save_chunk"], [(r.batch, r.first, r.count, pack(r.runs)) for r in records])
    lines = [(r.batch, r.first, pack(r.checks), r.lines) for r in records]
    execute_rows(db, SQL["save_lines"], lines, at_once_max=_LINES_AT_ONCE)


def _progress(db: sqlite3.Connection, records: list[SaveProgress]) -> None:
    newest = {r.batch: r for r in records}.values()
    rows = [(r.batch, r.upto, pack(r.pending), pack(r.held), pack(r.counts)) for r in newest]
    execute_rows(db, SQL["save_progress"], rows)
    for r in newest:
        db.execute(SQL["settle_tally"], (r.batch, r.upto))


def _overrides(db: sqlite3.Connection, records: list[SaveOverride | DropOverrides]) -> None:
    for r in records:
        _clear_overrides(db, r.batch, r.what, r.first, r.last)
        if isinstance(r, SaveOverride):
            db.execute(SQL["add_override"], (r.batch, r.what, r.first, r.last, r.value, r.at_us))


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


def _grants(db: sqlite3.Connection, records: list[SaveGrant | DropGrant]) -> None:
    newest = {r.grant: r for r in records}.values()
    saved = [(r.grant, r.node, r.batch, r.attempt, pack(r.ranges)) for r in newest if isinstance(r, SaveGrant)]
    execute_rows(db, SQL["save_grant"], saved)
    wide = [(r.grant, r.batch, pack(r.others), r.broken) for r in records if isinstance(r, SaveGrant) and r.others]
    execute_rows(db, SQL["save_wide_grant"], wide)
    execute_rows(db, SQL["drop_grant"], [(r.grant,) for r in newest if isinstance(r, DropGrant)])


def _nodes(db: sqlite3.Connection, records: list[SaveNode]) -> None:
    execute_rows(db, SQL["save_node"], [_node_row(r) for r in {r.node: r for r in records}.values()])


def _node_row(r: SaveNode) -> tuple[object, ...]:
    state = (r.state, r.is_drained, pack(r.capacity), pack(r.features))
    return (r.node, r.name, r.key_hash, r.boot_id, *state, r.started_by, r.joined_at_us, r.seen_at_us)


def _reasons(db: sqlite3.Connection, records: list[SaveReason]) -> None:
    newest = {(r.batch, r.shape): r for r in records}.values()
    saved = [(r.batch, r.shape, r.code, r.text, r.since_us) for r in newest if r.code]
    execute_rows(db, SQL["save_reason"], saved)
    for r in newest:
        if not r.code:
            db.execute(SQL["drop_reason"], (r.batch, r.shape))
    execute_rows(db, SQL["add_reason_past"], [(r.batch, r.shape, r.since_us, r.code, r.text) for r in records])
    lines = json.dumps([(r.batch, r.shape) for r in newest])
    db.execute(SQL["drop_reasons_past"], {"lines": lines, "most": REASONS_KEPT})


def _events(db: sqlite3.Connection, records: list[SaveEvent]) -> None:
    execute_rows(db, SQL["save_event"], [(r.at_us, r.kind, r.subject, r.text) for r in records])


def _audit(db: sqlite3.Connection, records: list[SaveAudit]) -> None:
    execute_rows(db, SQL["save_audit"], [_audit_row(r) for r in records])


def _audit_row(r: SaveAudit) -> tuple[object, ...]:
    who = (r.caller.user, r.caller.role or "", pack(r.caller.origin))
    what = (r.action, r.subject, pack(r.before), pack(r.after))
    return (r.row, r.at_us, *who, *what, r.is_refused, r.why, r.left_out)


def _tokens(db: sqlite3.Connection, records: list[SaveToken]) -> None:
    newest = {r.token: r for r in records}.values()
    execute_rows(db, SQL["save_token"], [msgspec.structs.astuple(r) for r in newest])


_WRITES: Final[dict[type[Record], _Write]] = {
    SaveMeta: _metas,
    SaveEnv: _envs,
    OpenBatch: _opens,
    CloseBatch: _closes,
    SetBatch: _settings,
    SaveSettings: _resettings,
    SaveAccount: _accounts,
    SaveShape: _shapes,
    SaveChunk: _chunks,
    SaveAttempts: _attempts,
    SaveProgress: _progress,
    SaveOverride: _overrides,
    DropOverrides: _overrides,
    SaveGrant: _grants,
    DropGrant: _grants,
    SaveTail: _tails,
    SaveNode: _nodes,
    SaveReason: _reasons,
    SaveEvent: _events,
    SaveAudit: _audit,
    SaveToken: _tokens,
    PruneRows: _prune_rows,
}

_ORDER: Final = tuple(dict.fromkeys(_WRITES.values()))
"""A batch is opened before it is closed or set; attempts are counted before the progress that settles them."""
