"""The store in one SQLite file: the API process's side.

Every call is one short read transaction, at most 10,000 rows, or 50 ms and what was begun by then (a thousand at most),
and goes on where the last one ended by a key; so no list, however long, keeps the hub from moving its log. It never
writes and makes nothing up that the store does not say: which granted jobs have begun is the hub's knowledge.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypedDict

import msgspec

from lanai.model.access import Caller, Role
from lanai.model.batch import BatchSettings, Counts
from lanai.model.errors import NothingThere, StoreError
from lanai.model.ids import BatchId, Index, NodeId, ShapeId
from lanai.model.job import JobState
from lanai.model.ranges import Ranges
from lanai.model.records import SaveAudit, SaveChunk, SaveEvent, SaveNode, SaveReason, SaveTail, SaveToken
from lanai.model.resources import Shape
from lanai.store import history, statistics
from lanai.store.failures import Failures, FailuresFound
from lanai.store.packing import (
    unpack_checks,
    unpack_counts,
    unpack_facts,
    unpack_nodes,
    unpack_origin,
    unpack_runs,
    unpack_settings,
    unpack_shape,
)
from lanai.store.port import REASONS_KEPT
from lanai.store.queries import statements
from lanai.store.recovering import read_nodes, read_tokens
from lanai.store.sqlite import FILE
from lanai.store.standing import Job, LastAttempt, Standing
from lanai.store.statistics import GroupBy, Statistics

SQL: Final = statements("read")
PAGE_ROWS: Final = 10_000
PAGE_S: Final = 0.050
BUSY_S: Final = 5.0
CHUNKS_KEPT: Final = 16


class BatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that has arrived whole.

    Attributes:
        env: digest of its environment.
        digest: of its list.
        state: `open`, `held`, `paused` or `ended`.
        counts: as of its last progress, at most a second old while it runs; before the first all are queued.
        ended_at_us: 0 while it has not ended.
        account: that its use is charged to; of a batch that ended under an older version what it asked for.
    """

    batch: BatchId
    user: str
    key: str
    settings: BatchSettings
    env: bytes
    total: int
    digest: bytes
    submitted_at_us: int
    state: str
    priority: int
    max_running: int
    reason: str
    avoided: tuple[NodeId, ...]
    ended_at_us: int
    account: str
    counts: Counts


class AttemptView(TypedDict):
    """An attempt that ended. Times are microseconds, None where there is none; `node` is a name.

    `others` are those of its further nodes, where it had several.
    """

    attempt: int
    grant: int
    state: str
    outcome: str
    exit_code: int | None
    signal: int | None
    node: str
    started_at_us: int | None
    ended_at_us: int | None
    wall_us: int
    cpu_user_us: int
    cpu_system_us: int
    memory_peak_bytes: int | None
    reason: str
    others: list[str]


class JobView(TypedDict):
    """A job as lists show it. What an attempt left is None before the first one ended and while another is granted.

    `id` is BATCH/INDEX; `command` holds raw bytes as lone surrogates; `attempts` counts the granted one; `grant` is
    None unless the state is `locked`; `node` is the name of the granted node, else of the last one.
    """

    id: str
    batch: int
    index: int
    state: str
    command: str
    attempts: int
    exit_code: int | None
    signal: int | None
    outcome: str | None
    node: str | None
    submitted_at_us: int
    started_at_us: int | None
    ended_at_us: int | None
    wall_us: int | None
    cpu_user_us: int | None
    cpu_system_us: int | None
    memory_peak_bytes: int | None
    reason: str
    grant: int | None


class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One job with all its attempts, oldest first, and what it asks for now (after memory retries)."""

    job: JobView
    attempts: list[AttemptView]
    shape: Shape


class SqliteReader:
    """Reads `hub.db` in a directory while a hub writes it. Calls may come from any thread; one is served at a time.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE
        self._turn = threading.Lock()
        self._commands: OrderedDict[tuple[int, int], tuple[int, list[bytes]]] = OrderedDict()
        with self._errors():
            self._db = sqlite3.connect(
                f"{self._file.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._db.execute("PRAGMA query_only = 1")

    def close(self) -> None:
        """Lets go of the file; a repeat is harmless."""
        with self._turn:
            self._db.close()

    # -- batches

    def batch(self, batch: BatchId) -> BatchRow | None:
        """One batch; None where it is unknown or still arriving."""
        with self._reading() as db:
            found = db.execute(SQL["batch"], (batch,)).fetchone()
        return _batch_row(*found) if found else None

    def batches(
        self,
        *,
        before: int | None = None,
        limit: int = 100,
        states: Collection[str] = (),
        user: str | None = None,
    ) -> list[BatchRow]:
        """Batches with an id below `before`, newest first; of `states` and `user` where these are given."""
        wanted = {
            "before": before or 1 << 62,
            "user": user,
            "states": json.dumps(list(states)) if states else None,
            "most": min(limit, PAGE_ROWS),
        }
        with self._reading() as db:
            return [_batch_row(*row) for row in db.execute(SQL["batches"], wanted)]

    def unfinished(self, *, after: int = 0, user: str | None = None) -> list[BatchRow]:
        """A page of batches that have not ended, by number from `after` on; of `user` where one is given.

        Costs by those that have not ended, however many have.
        """
        wanted = {"after": after, "user": user, "most": PAGE_ROWS}
        with self._reading() as db:
            return [_batch_row(*row) for row in db.execute(SQL["unfinished"], wanted)]

    def key(self, user: str, key: str) -> BatchRow | None:
        """The batch that `user` submitted under `key`, once it has arrived whole."""
        with self._reading() as db:
            found = db.execute(SQL["key"], (user, key)).fetchone()
        return self.batch(BatchId(found[0])) if found else None

    def last(self, user: str) -> BatchId | None:
        """The user's newest batch."""
        with self._reading() as db:
            found = db.execute(SQL["last"], (user,)).fetchone()
        return BatchId(found[0]) if found else None

    def reasons(self, batch: BatchId) -> list[SaveReason]:
        """Why its lines wait, by shape."""
        with self._reading() as db:
            return [SaveReason(*row) for row in db.execute(SQL["reasons"], (batch,))]

    def past_reasons(self, batch: BatchId, shape: ShapeId | None = None) -> list[SaveReason]:
        """Why a line waited, or all lines of the batch did, newest first; an empty code: from then on none did."""
        with self._reading() as db:
            wanted = {"batch": batch, "shape": shape, "most": REASONS_KEPT}
            return [SaveReason(*row) for row in db.execute(SQL["reasons_past"], wanted)]

    # -- jobs

    def jobs(
        self,
        batch: BatchId,
        *,
        after: int = 0,
        limit: int = PAGE_ROWS,
        states: Collection[str] = (),
        ranges: Ranges | None = None,
    ) -> tuple[list[JobView], int | None]:
        """A page of jobs, by index, beyond index `after`; of `states` and `ranges` where these are given.

        Granted jobs are `locked` here and are found by `locked` and by `running` alike.

        Returns:
            The jobs, at most `limit`, and the index to go on after, None when there are no more. A page may hold none
            and yet be followed by others.
        """
        wanted = frozenset(states)
        if JobState.RUNNING in wanted:
            wanted |= {JobState.LOCKED}
        most = min(limit, PAGE_ROWS)
        page: list[JobView] = []
        with self._reading() as db:
            submitted = db.execute(SQL["submitted"], (batch,)).fetchone()
            if submitted is None:
                return [], None
            standing, names = Standing(db, batch), _node_names(db)
            # Of a batch in very many pieces that took its time: there is to be something on the page for it.
            until = time.monotonic() + PAGE_S
            following: int | None = after
            while following is not None and len(page) < most and time.monotonic() < until:
                found, following = standing.jobs(following, wanted, ranges)
                for job in found:
                    if len(page) == most:
                        return page, page[-1]["index"]
                    page.append(_job_view(batch, job, self._command(db, batch, job.index), submitted[0], names))
        return page, following

    def job(self, batch: BatchId, index: Index) -> JobDetail:
        """One job. Raises NothingThere."""
        chunk = self.chunk(batch, index)
        with self._reading() as db:
            submitted = db.execute(SQL["submitted"], (batch,)).fetchone()
            if submitted is None:
                raise _no_job(batch, index)
            names = _node_names(db)
            (job,) = Standing(db, batch).of([index])
            view = _job_view(batch, job, self._command(db, batch, index), submitted[0], names)
            attempts = [_attempt_view(row, names) for row in db.execute(SQL["attempts"], (batch, index))]
            reshaped = db.execute(SQL["reshaped"], (batch, index, index)).fetchone()
            shape = reshaped[0] if reshaped else _shape_of(chunk, index)
            (request,) = db.execute(SQL["shape"], (batch, shape)).fetchone()
            asked = unpack_shape(request)
            if asked.nodes > 1:
                for attempt in attempts:
                    attempt["others"] = _others(db, attempt["grant"], names)
        return JobDetail(job=view, attempts=attempts, shape=asked)

    def failures(self, batch: BatchId, *, limit: int = 10) -> FailuresFound:
        """Failed jobs by cause, the commonest first, at most `limit` groups with up to three examples each."""
        failures = Failures()
        after: int | None = 0
        while after is not None:
            with self._reading() as db:
                after = failures.read_page(db, batch, after, PAGE_S)
        with self._reading() as db:
            names = _node_names(db)
            return failures.groups(limit, names, lambda index: self._command(db, batch, index), _tail_of(db, batch))

    def tail(self, batch: BatchId, index: Index, attempt: int = 0) -> SaveTail | None:
        """The ends of an attempt's outputs (attempt 0: of the last one that has any); None where none are kept."""
        with self._reading() as db:
            return _tail_of(db, batch)(index, attempt)

    def chunk(self, batch: BatchId, index: Index) -> SaveChunk:
        """The chunk that holds this job. Raises NothingThere."""
        with self._reading() as db:
            return _read_chunk(db, batch, index)

    def history(self, asked: history.Asked) -> history.Page:
        """The next jobs that have ended, each with its last attempt."""
        with self._reading() as db:
            return history.read_page(db, asked, PAGE_S)

    # -- the rest

    def env(self, digest: bytes) -> bytes:
        """The environment kept under `digest`, as msgpack. Raises NothingThere."""
        with self._reading() as db:
            found = db.execute(SQL["env"], (digest,)).fetchone()
        if found is None:
            raise NothingThere(f"there is no environment {digest.hex()}", code="no_such_env")
        return bytes(found[0])

    def nodes(self) -> list[SaveNode]:
        """Every node that ever joined, by id."""
        with self._reading() as db:
            return read_nodes(db)

    def statistics(self, *, by: GroupBy, since_us: int = 0, only: str | None = None, most: int = 100) -> Statistics:
        """How jobs fared that have ended, in groups; see `store.statistics`. In many short transactions."""
        return statistics.read(self._reading, by=by, since_us=since_us, only=only, most=most)

    def events(
        self, *, before: SaveEvent | None = None, since_us: int = 0, subject: str | None = None, limit: int = 100
    ) -> list[SaveEvent]:
        """What has happened, newest first: before that event, not before that time, about that subject."""
        at = before or SaveEvent(1 << 62, "", "", "")
        wanted = {"at_us": at.at_us, "kind": at.kind, "subject_at": at.subject, "text": at.text}
        wanted |= {"since": since_us, "subject": subject, "most": min(limit, PAGE_ROWS)}
        with self._reading() as db:
            return [SaveEvent(*row) for row in db.execute(SQL["events"], wanted)]

    def audit(
        self, *, before: int | None = None, since_us: int = 0, user: str | None = None, limit: int = 100
    ) -> list[SaveAudit]:
        """The audit trail, newest first: rows below `before`, not before that time, of that user."""
        wanted = {"before": before or 1 << 62, "since": since_us, "user": user, "most": min(limit, PAGE_ROWS)}
        with self._reading() as db:
            return [_audit_row(*row) for row in db.execute(SQL["audit"], wanted)]

    def tokens(self) -> list[SaveToken]:
        """Every token, by number."""
        with self._reading() as db:
            return read_tokens(db)

    # -- within

    def _command(self, db: sqlite3.Connection, batch: BatchId, index: int) -> str:
        at = (batch, (index - 1) // 1000)
        kept = self._commands.get(at)
        if kept is None or not kept[0] <= index < kept[0] + len(kept[1]):
            chunk = _read_chunk(db, batch, index)
            kept = self._commands[at] = (chunk.first, chunk.lines.split(b"\0"))
            if len(self._commands) > CHUNKS_KEPT:
                self._commands.popitem(last=False)
        return kept[1][index - kept[0]].decode(errors="surrogateescape")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all that is read in it is of one moment."""
        with self._turn, self._errors():
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self._file}: {error}", facts={"path": str(self._file)}) from error


def _audit_row(
    row: int,
    at_us: int,
    user: str,
    role: str,
    origin: bytes,
    action: str,
    subject: str,
    before: bytes,
    after: bytes,
    is_refused: int,
    why: str,
    left_out: int,
) -> SaveAudit:
    caller = Caller(user, Role(role) if role else None, unpack_origin(origin))
    facts = unpack_facts(before), unpack_facts(after)
    return SaveAudit(row, at_us, caller, action, subject, *facts, bool(is_refused), why, left_out)


def _batch_row(
    batch: BatchId,
    user: str,
    key: str,
    settings_pack: bytes,
    env: bytes,
    total: int,
    digest: bytes,
    submitted_at_us: int,
    is_set: int,
    state: str,
    priority: int,
    max_running: int,
    reason: str,
    avoided: bytes,
    ended_at_us: int,
    account: str,
    counts: bytes | None,
) -> BatchRow:
    settings = unpack_settings(settings_pack)
    return BatchRow(
        batch=batch,
        user=user,
        key=key,
        settings=settings,
        env=env,
        total=total,
        digest=digest,
        submitted_at_us=submitted_at_us,
        state=state,
        priority=priority if is_set else settings.priority,
        max_running=max_running if is_set else settings.max_running,
        reason=reason,
        avoided=unpack_nodes(avoided),
        ended_at_us=ended_at_us,
        account=account or settings.account,
        counts=unpack_counts(counts) if counts is not None else Counts(queued=total),
    )


def _node_names(db: sqlite3.Connection) -> dict[int, str]:
    return dict(db.execute(SQL["node_names"]).fetchall())


def _job_view(batch: BatchId, job: Job, command: str, submitted_at_us: int, names: dict[int, str]) -> JobView:
    view = JobView(
        id=f"{batch}/{job.index}",
        batch=batch,
        index=job.index,
        state=job.state,
        command=command,
        attempts=0,
        exit_code=None,
        signal=None,
        outcome=None,
        node=None,
        submitted_at_us=submitted_at_us,
        started_at_us=None,
        ended_at_us=job.cancelled_at_us or None,
        wall_us=None,
        cpu_user_us=None,
        cpu_system_us=None,
        memory_peak_bytes=None,
        reason="",
        grant=None,
    )
    if job.granted is not None:
        view["grant"], node, view["attempts"] = job.granted
        view["node"] = names.get(node)
    elif job.last is not None:
        last = _attempt_view(job.last, names)
        view["attempts"], view["outcome"], view["node"] = last["attempt"], last["outcome"], last["node"]
        view["exit_code"], view["signal"], view["reason"] = last["exit_code"], last["signal"], last["reason"]
        view["started_at_us"], view["wall_us"] = last["started_at_us"], last["wall_us"]
        view["ended_at_us"] = view["ended_at_us"] or last["ended_at_us"]
        view["cpu_user_us"], view["cpu_system_us"] = last["cpu_user_us"], last["cpu_system_us"]
        view["memory_peak_bytes"] = last["memory_peak_bytes"]
    return view


def _attempt_view(row: LastAttempt, names: dict[int, str]) -> AttemptView:
    return AttemptView(
        attempt=row[2],
        grant=row[3],
        state=row[5],
        outcome=row[6],
        exit_code=row[7],
        signal=row[8] or None,
        node=names.get(row[4], ""),
        started_at_us=row[9] or None,
        ended_at_us=row[10] or None,
        wall_us=row[11],
        cpu_user_us=row[12],
        cpu_system_us=row[13],
        memory_peak_bytes=row[14],
        reason=row[15],
        others=[],
    )


def _others(db: sqlite3.Connection, grant: int, names: dict[int, str]) -> list[str]:
    found = db.execute(SQL["others"], (grant,)).fetchone()
    return [names.get(node, "") for node in unpack_nodes(found[0])] if found else []


def _tail_of(db: sqlite3.Connection, batch: BatchId) -> Callable[[int, int], SaveTail | None]:
    def tail_of(index: int, attempt: int) -> SaveTail | None:
        found = db.execute(SQL["tail"], {"batch": batch, "index": index, "attempt": attempt}).fetchone()
        if found is None:
            return None
        _, _, number, is_failed, *rest = found
        return SaveTail(batch, Index(index), number, bool(is_failed), *rest)

    return tail_of


def _read_chunk(db: sqlite3.Connection, batch: BatchId, index: int) -> SaveChunk:
    found = db.execute(SQL["chunk_of"], (batch, index)).fetchone()
    if found is None or index >= found[0] + found[1]:
        raise _no_job(batch, index)
    first, count, runs, lines, checks = found
    return SaveChunk(batch, first, count, unpack_runs(runs), lines, unpack_checks(checks))


def _no_job(batch: BatchId, index: int) -> NothingThere:
    return NothingThere(f"there is no job {batch}/{index}", code="no_such_job", hint=f"lanai job list {batch}")


def _shape_of(chunk: SaveChunk, index: int) -> ShapeId:
    first = chunk.first
    for count, shape in chunk.runs:
        if index < first + count:
            return shape
        first += count
    raise _no_job(chunk.batch, index)
