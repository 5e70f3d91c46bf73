"""The store in one SQLite file: the hub's side.

Three connections: one commits, one checkpoints (so that moving pages never holds up a commit for long), one reads lines
for the hub's loop while the other two work. It must not decide anything about jobs, and it must not read on behalf of
users: that is `lanai.store.reader`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from lanai.model.errors import NothingThere, StoreError, StoreFull
from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.records import DropBatch, DropGrant, Record, Recovered, RecoveredBatch, SaveChunk
from lanai.store.applying import apply
from lanai.store.ground import has_no_room, refuse_network_filesystem, release_ballast, restore_ballast
from lanai.store.packing import unpack_checks, unpack_runs
from lanai.store.port import TAILS_PER_BATCH_BYTES
from lanai.store.queries import migrations, schema
from lanai.store.recovering import SQL, read_batch, read_nodes, read_tokens, used_up_grants

FILE: Final = "hub.db"
BALLAST: Final = "ballast"
SYNCHRONOUS: Final = {"full": "FULL", "normal": "NORMAL"}
CACHE_KIB: Final = 8 * 1024
BUSY_S: Final = 30.0
STATEMENTS_KEPT: Final = 512
LONG_LOG_PAGES: Final = 32 * 1024


class SqliteWriter:
    """`port.Writer` and `port.Lines` on the file `hub.db` in a directory.

    Args:
        directory: exists, on a local file system, and is held by this process (`ground.StateLock`).
        durability: `full`: a commit survives a power cut; `normal`: it survives the end of the process only.
        tails_bytes: what the tails of one batch may take together.

    Raises:
        Refusal: the directory is on a network file system.
        StoreFull: no room even to open it.
        StoreError: the file is damaged, or was made by a newer version.
    """

    def __init__(self, directory: Path, *, durability: str = "full", tails_bytes: int = TAILS_PER_BATCH_BYTES) -> None:
        refuse_network_filesystem(directory)
        self._directory = directory
        self._tails_bytes = tails_bytes
        self._broken: StoreError | None = None
        self._open_files: list[sqlite3.Connection] = []
        try:
            self._open(SYNCHRONOUS[durability])
        except StoreFull:
            # Opening takes some blocks itself (shared memory, the log's first page).
            self.release_ballast()
            self._open(SYNCHRONOUS[durability])

    def _open(self, synchronous: str) -> None:
        try:
            with self._errors("open"):
                os.close(os.open(self._directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self._db = self._connect(synchronous)
                _migrate(self._db)
                self._checkpoints = self._connect(synchronous)
                self._checkpoints.execute("PRAGMA busy_timeout = 0")
                self._lines = self._connect(synchronous)
                self._lines.execute("PRAGMA query_only = 1")
        except StoreError:
            self.close()
            raise

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._directory / FILE,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_KEPT,
        )
        self._open_files.append(db)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute("PRAGMA temp_store = MEMORY")
        return db

    # -- port.Writer

    def commit(self, records: Sequence[Record]) -> None:
        """See `port.Writer`."""
        if self._broken is not None:
            raise self._broken
        with self._errors("commit"):
            self._db.execute("BEGIN IMMEDIATE")
            apply(self._db, records, tails_bytes=self._tails_bytes)
            self._db.execute("COMMIT")

    def checkpoint(self, *, truncate: bool) -> None:
        """See `port.Writer`. Never waits for a reader; what a reader still needs is moved by a later call."""
        with self._errors("checkpoint"):
            mode = "TRUNCATE" if truncate else "PASSIVE"
            (_, log_pages, _) = self._checkpoints.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            if log_pages > LONG_LOG_PAGES and not truncate:
                # Commits that never pause leave no moment at which the log starts over by itself.
                self._checkpoints.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def recover(self) -> Recovered:
        """See `port.Writer`. Drops batches that were arriving and grants of which nothing is left."""
        with self._errors("recover"):
            self._clear_leftovers()
            rows = self._db.execute(SQL["unfinished"]).fetchall()
            found = [read_batch(self._db, batch) for (batch,) in rows]
            return Recovered(
                meta=dict(self._db.execute(SQL["meta"]).fetchall()),
                last_batch=(self._db.execute(SQL["last_batch"]).fetchone() or (0,))[0],
                last_row=self._db.execute(SQL["last_row"]).fetchone()[0] or 0,
                batches=[batch for batch in found if batch is not None],
                nodes=read_nodes(self._db),
                tokens=read_tokens(self._db),
                last_audit=self._db.execute(SQL["last_audit"]).fetchone()[0] or 0,
            )

    def recover_batch(self, batch: BatchId) -> RecoveredBatch | None:
        """See `port.Writer`."""
        with self._errors("read"), closing(sqlite3.connect(self._directory / FILE, timeout=BUSY_S)) as db:
            db.execute("BEGIN")
            return read_batch(db, batch)

    def close(self) -> None:
        """See `port.Writer`. A repeat is harmless."""
        while self._open_files:
            self._open_files.pop().close()

    def _clear_leftovers(self) -> None:
        leftovers: list[Record] = [DropBatch(batch) for (batch,) in self._db.execute(SQL["arriving"]).fetchall()]
        leftovers += [DropGrant(grant) for grant in used_up_grants(self._db)]
        if leftovers:
            self._db.execute("BEGIN IMMEDIATE")
            apply(self._db, leftovers)
            self._db.execute(SQL["drop_unused_envs"])
            self._db.execute("COMMIT")

    # -- the reserve for a full disk

    def release_ballast(self) -> None:
        """Gives 16 MiB back to the file system, so that results still go in; a repeat is harmless."""
        release_ballast(self._directory / BALLAST)

    def restore_ballast(self) -> bool:
        """Takes the 16 MiB back, harmless to repeat; False where there is no room for them."""
        return restore_ballast(self._directory / BALLAST)

    # -- port.Lines

    def chunk(self, batch: BatchId, index: Index) -> SaveChunk:
        """See `port.Lines`."""
        with self._errors("read"):
            found = self._lines.execute(SQL["chunk_of"], (batch, index)).fetchall()
        if not found or index >= found[0][0] + found[0][1]:
            raise NothingThere(f"there is no job {batch}/{index}", code="no_such_job")
        first, count, runs, lines, checks = found[0]
        return SaveChunk(batch, first, count, unpack_runs(runs), lines, unpack_checks(checks))

    def env(self, digest: bytes) -> bytes:
        """See `port.Lines`."""
        with self._errors("read"):
            found = self._lines.execute(SQL["env"], (digest,)).fetchall()
        if not found:
            raise NothingThere(f"there is no environment {digest.hex()}", code="no_such_env")
        return bytes(found[0][0])

    def old(self, ended_before_us: int, told_before_us: int) -> tuple[BatchId | None, bool]:
        """See `port.History`."""
        with self._errors("read"):
            ended = self._lines.execute(SQL["ended_first"], (ended_before_us,)).fetchone()
            has_rows = self._lines.execute(SQL["has_old_rows"], {"before": told_before_us}).fetchone()[0]
        return (ended[0] if ended else None), bool(has_rows)

    def has_batch(self, batch: BatchId) -> bool:
        """See `port.Lines`."""
        with self._errors("read"):
            return bool(self._lines.execute(SQL["has_batch"], (batch,)).fetchall())

    def key(self, user: str, key: str) -> tuple[BatchId, bytes] | None:
        """See `port.Lines`."""
        with self._errors("read"):
            found = self._lines.execute(SQL["key"], (user, key)).fetchall()
        return (found[0][0], found[0][1]) if found else None

    def node_of(self, batch: BatchId, index: Index, attempt: int) -> tuple[int, int, GrantId] | None:
        """See `port.Lines`."""
        with self._errors("read"):
            if attempt:
                found = self._lines.execute(SQL["attempt_of"], (batch, index, attempt)).fetchall()
            else:
                found = self._lines.execute(SQL["last_attempt_of"], (batch, index)).fetchall()
        return (found[0][0], found[0][1], found[0][2]) if found else None

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Rolls back and turns SQLite's errors into the port's; after any but a full disk, commits are refused."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            is_full = _is_full(error, self._directory)
            kind = StoreFull if is_full else StoreError
            raised = kind(
                f"cannot {doing} {self._directory / FILE}: {error}",
                hint=f"make room on the disk of {self._directory}" if is_full else "",
                facts={"path": str(self._directory / FILE), "sqlite": getattr(error, "sqlite_errorname", "")},
            )
            if doing == "commit" and not is_full:
                self._broken = raised
            raise raised from error
        finally:
            if doing in ("commit", "recover") and self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _is_full(error: sqlite3.Error | OSError, directory: Path) -> bool:
    """Whether lack of room is the cause. SQLite says so of writes, but not of its shared memory, quotas and syncs."""
    if isinstance(error, OSError):
        return has_no_room(directory)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code == sqlite3.SQLITE_FULL or (
        code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and has_no_room(directory)
    )


def _migrate(db: sqlite3.Connection) -> None:
    """Brings the store to the newest version; each step is a transaction of its own."""
    steps = migrations()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise sqlite3.DatabaseError(f"made by a newer version of lanai (schema {version}, this one knows {len(steps)})")
    if version == 0:
        steps = [(len(steps), schema())]
    for leads_to, script in steps:
        if leads_to > version:
            db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {leads_to};\nCOMMIT;")
