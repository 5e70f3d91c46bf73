"""Reads from SQLite what a hub needs at its start, and a single batch again when it is revived.

It reads heads of chunks, progress, the few attempts after it, grants; never a command line and never history, so that
a start takes as long with a million waiting jobs as with none. It must not write.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId
from lanai.model.records import (
    Ranges,
    RecoveredBatch,
    SaveGrant,
    SaveNode,
    SaveProgress,
    SaveReason,
    SaveToken,
    SetBatch,
)
from lanai.store.packing import (
    unpack_capacity,
    unpack_counts,
    unpack_features,
    unpack_nodes,
    unpack_ranges,
    unpack_runs,
    unpack_settings,
    unpack_shape,
)
from lanai.store.port import WALLS_AMONG, WALLS_MOST
from lanai.store.queries import statements

SQL: Final = statements("recover")


def read_batch(db: sqlite3.Connection, batch: BatchId) -> RecoveredBatch | None:
    """The batch as a start would find it, whatever its state; None where it is unknown or still arriving."""
    found = db.execute(SQL["batch"], (batch,)).fetchone()
    if found is None:
        return None
    user, key, settings, env, total, submitted_at_us, is_set, *wish, account = found
    progress = _progress(db, batch)
    return RecoveredBatch(
        batch=batch,
        user=user,
        key=key,
        settings=unpack_settings(settings),
        env=env,
        total=total,
        submitted_at_us=submitted_at_us,
        state=set_batch(batch, *wish) if is_set else None,
        shapes={shape: unpack_shape(request) for shape, request in db.execute(SQL["shapes"], (batch,))},
        runs=_runs(db, batch),
        progress=progress,
        attempts=_fresh_attempts(db, batch, progress.upto if progress else 0),
        charged=db.execute(SQL["charged"], (batch,)).fetchall(),
        grants=[grant for grant in _grants(db, batch) if grant.ranges],
        cancelled=tuple((first, last) for first, last, _ in _overrides(db, batch, "cancelled")),
        reshaped=[(first, last, ShapeId(value)) for first, last, value in _overrides(db, batch, "shape")],
        holds=db.execute(SQL["holds"], (batch,)).fetchall(),
        preempted=db.execute(SQL["preempted"], (batch,)).fetchall(),
        account=account,
        walls=_walls(db, batch),
        reasons=[SaveReason(*row) for row in db.execute(SQL["reasons"], (batch,))],
    )


def set_batch(
    batch: BatchId, state: str, priority: int, max_running: int, reason: str, avoided: bytes, ended_at_us: int
) -> SetBatch:
    """The columns of a batch that may change, as the record that was saved."""
    return SetBatch(
        batch=batch,
        state=state,
        priority=priority,
        max_running=max_running,
        reason=reason,
        avoided=unpack_nodes(avoided),
        ended_at_us=ended_at_us,
    )


def used_up_grants(db: sqlite3.Connection) -> list[GrantId]:
    """Grants all of whose members have an attempt row of that grant."""
    batches = db.execute(SQL["granted_batches"]).fetchall()
    return [grant.grant for (batch,) in batches for grant in _grants(db, batch) if not grant.ranges]


def read_nodes(db: sqlite3.Connection) -> list[SaveNode]:
    """Every node that ever joined, by id."""
    return [_node(*row) for row in db.execute(SQL["nodes"])]


def read_tokens(db: sqlite3.Connection) -> list[SaveToken]:
    """Every token, by number."""
    return [SaveToken(*row) for row in db.execute(SQL["tokens"])]


def _node(
    node: NodeId,
    name: str,
    key_hash: bytes,
    boot_id: str,
    state: str,
    is_drained: int,
    capacity: bytes,
    features: bytes,
    started_by: str,
    joined_at_us: int,
    seen_at_us: int,
) -> SaveNode:
    return SaveNode(
        node=node,
        name=name,
        key_hash=key_hash,
        boot_id=boot_id,
        state=state,
        is_drained=bool(is_drained),
        capacity=unpack_capacity(capacity),
        features=unpack_features(features),
        started_by=started_by,
        joined_at_us=joined_at_us,
        seen_at_us=seen_at_us,
    )


def _runs(db: sqlite3.Connection, batch: BatchId) -> list[tuple[int, int, ShapeId]]:
    """(first, count, shape) of all chunks; neighbours of one shape as one."""
    merged: list[tuple[int, int, ShapeId]] = []
    first, count, shape = 0, 0, ShapeId(-1)
    for chunk_first, packed in db.execute(SQL["chunk_heads"], (batch,)):
        at = chunk_first
        for run_count, run_shape in unpack_runs(packed):
            if run_shape == shape and at == first + count:
                count += run_count
            else:
                if count:
                    merged.append((first, count, shape))
                first, count, shape = at, run_count, run_shape
            at += run_count
    if count:
        merged.append((first, count, shape))
    return merged


def _progress(db: sqlite3.Connection, batch: BatchId) -> SaveProgress | None:
    found = db.execute(SQL["progress"], (batch,)).fetchone()
    if found is None:
        return None
    upto, pending, held, counts = found
    return SaveProgress(batch, upto, unpack_ranges(pending), unpack_ranges(held), unpack_counts(counts))


def _fresh_attempts(
    db: sqlite3.Connection, batch: BatchId, upto: int
) -> list[tuple[int, Index, int, GrantId, NodeId, str, str, int]]:
    fresh_row, last_row = db.execute(SQL["tally"], (batch,)).fetchone() or (0, 0)
    if not fresh_row or last_row <= upto:
        return []
    return db.execute(SQL["fresh_attempts"], (max(fresh_row, upto + 1), last_row, batch)).fetchall()


def _walls(db: sqlite3.Connection, batch: BatchId) -> list[tuple[int, Index, int]]:
    _, last_row = db.execute(SQL["tally"], (batch,)).fetchone() or (0, 0)
    wanted = {"batch": batch, "first": last_row - WALLS_AMONG + 1, "last": last_row, "most": WALLS_MOST}
    return db.execute(SQL["walls"], wanted).fetchall()[::-1] if last_row else []


def _grants(db: sqlite3.Connection, batch: BatchId) -> list[SaveGrant]:
    found: list[SaveGrant] = []
    for grant, node, attempt, packed, others, broken in db.execute(SQL["grants"], (batch,)).fetchall():
        members = _open_members(db, batch, grant, unpack_ranges(packed))
        wide = () if others is None else (unpack_nodes(others), broken)
        found.append(SaveGrant(grant, node, batch, attempt, members, *wide))
    return found


def _open_members(db: sqlite3.Connection, batch: BatchId, grant: GrantId, ranges: Ranges) -> Ranges:
    """The grant's ranges without the jobs that have an attempt row of this grant."""
    left: list[tuple[int, int]] = []
    for first, last in ranges:
        for (ended,) in db.execute(SQL["ended_members"], (batch, first, last, grant)):
            if first < ended:
                left.append((first, ended - 1))
            first = ended + 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def _overrides(db: sqlite3.Connection, batch: BatchId, what: str) -> list[tuple[int, int, int]]:
    """(first, last, value) in order; neighbours of one value as one."""
    merged: list[tuple[int, int, int]] = []
    for first, last, value in db.execute(SQL["overrides"], (batch, what)):
        if merged and merged[-1][1] + 1 == first and merged[-1][2] == value:
            merged[-1] = (merged[-1][0], last, value)
        else:
            merged.append((first, last, value))
    return merged
