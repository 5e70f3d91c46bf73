"""What only the SQLite store has: files, versions, a log to move, disks that fill up, processes that are killed."""

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lanai.model.batch import BatchSettings
from lanai.model.errors import Refusal, StoreError, StoreFull
from lanai.model.records import (
    CloseBatch,
    OpenBatch,
    PruneBatch,
    PruneRows,
    Record,
    SaveAttempts,
    SaveChunk,
    SaveEnv,
    SaveMeta,
    SaveShape,
    SaveTail,
)
from lanai.model.resources import Shape
from lanai.store import sqlite
from lanai.store.queries import migrations, schema, statements
from lanai.store.reader import SqliteReader
from lanai.store.sqlite import SqliteWriter
from lanai.store.widening import execute_rows

CHUNK = 50_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteWriter]:
    store = SqliteWriter(tmp_path)
    yield store
    store.close()


def batch(number: int = 1) -> list[Record]:
    return [
        SaveEnv(b"d", b"env"),
        OpenBatch(number, "ada", f"k{number}", BatchSettings(), b"d", 1),
        SaveShape(number, 0, Shape()),
        SaveChunk(number, 1, 1000, ((1000, 0),), b"\0".join([b"true"] * 1000)),
        CloseBatch(number, 1000, b"list", 2),
    ]


def schema_of(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    """What there is, whatever the white space: a column that was added later stands on the line of the one before."""
    found = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    return [(*which, "".join((sql or "").split())) for *which, sql in found]


def test_the_schema_equals_the_migrated_one() -> None:
    fresh, migrated = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    fresh.executescript(schema())
    steps = migrations()
    assert [version for version, _ in steps] == list(range(1, len(steps) + 1))
    for _, script in steps:
        migrated.executescript(script)
    assert schema_of(fresh) == schema_of(migrated)
    fresh.close()
    migrated.close()


@pytest.mark.parametrize("file", ["write", "recover", "read", "statistics"])
def test_every_statement_fits_the_schema(file: str) -> None:
    db = sqlite3.connect(":memory:")
    db.text_factory = bytes
    db.executescript(schema())
    assert statements(file)
    for name, sql in statements(file).items():
        names = re.findall(r":(\w+)", sql)
        given = dict.fromkeys(names) if names else (None,) * sql.count("?")
        try:
            db.execute("EXPLAIN " + sql, given).fetchall()
        except sqlite3.Error as error:
            pytest.fail(f"{name}: {error}")
    db.close()


def test_an_older_store_is_brought_up_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqliteWriter(tmp_path).close()
    newest = len(migrations())
    added = [(newest + 1, "CREATE TABLE later (a);"), (newest + 2, "ALTER TABLE later ADD COLUMN b;")]
    steps = [*migrations(), *added]
    monkeypatch.setattr(sqlite, "migrations", lambda: steps)
    SqliteWriter(tmp_path).close()
    db = sqlite3.connect(tmp_path / "hub.db")
    assert db.execute("PRAGMA user_version").fetchone() == (newest + 2,)
    db.execute("INSERT INTO later (a, b) VALUES (1, 2)")
    db.close()


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    SqliteWriter(tmp_path).close()
    db = sqlite3.connect(tmp_path / "hub.db")
    db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        SqliteWriter(tmp_path)


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError) as raised:
        SqliteWriter(tmp_path)
    assert not isinstance(raised.value, StoreFull)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanai.store.ground.network_filesystem", lambda _: "nfs")
    with pytest.raises(Refusal):
        SqliteWriter(tmp_path)


def test_durability_is_what_was_asked_for(tmp_path: Path) -> None:
    for durability, level in (("full", 2), ("normal", 1)):
        store = SqliteWriter(tmp_path, durability=durability)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (level,)
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._db.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        store.close()


def test_the_files_are_for_their_owner_only(store: SqliteWriter, tmp_path: Path) -> None:
    store.commit(batch())
    assert store.restore_ballast()
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {
        "hub.db": "0o600",
        "hub.db-wal": "0o600",
        "hub.db-shm": "0o600",
        "ballast": "0o600",
    }


def test_a_full_store_keeps_nothing_of_a_group_and_takes_it_later(store: SqliteWriter) -> None:
    store.commit(batch(1))
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 20}")
    group: list[Record] = [SaveMeta("group", "1")]
    group += [SaveTail(1, index, 1, True, b"x" * CHUNK, b"", CHUNK, 0) for index in range(1, 11)]
    for _ in range(3):
        with pytest.raises(StoreFull) as raised:
            store.commit(group)
    assert raised.value.code == "store_full"
    assert "make room" in raised.value.hint
    assert store.recover().meta == {}
    store.commit([SaveMeta("small", "1")])
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.commit(group)
    assert store.recover().meta == {"small": "1", "group": "1"}


def test_after_any_other_fault_no_commit_is_taken(store: SqliteWriter) -> None:
    store.commit(batch(1))
    with pytest.raises(StoreError) as raised:
        store.commit([OpenBatch(2, "ada", "k1", BatchSettings(), b"d", 1)])
    with pytest.raises(StoreError) as again:
        store.commit([SaveMeta("a", "b")])
    assert again.value is raised.value
    assert not isinstance(raised.value, StoreFull)


def test_checkpoints_move_the_log_while_others_commit_and_read(store: SqliteWriter, tmp_path: Path) -> None:
    log = tmp_path / "hub.db-wal"
    store.commit(batch())
    reader = SqliteReader(tmp_path)
    stop = threading.Event()

    def keep_moving() -> None:
        while not stop.is_set():
            store.checkpoint(truncate=False)
            store.checkpoint(truncate=True)

    mover = threading.Thread(target=keep_moving)
    mover.start()
    try:
        for number in range(1, 200):
            store.commit([SaveMeta("n", str(number))])
            assert store.chunk(1, 7).count == 1000
            assert len(reader.jobs(1, limit=10)[0]) == 10
    finally:
        stop.set()
        mover.join()
    store.checkpoint(truncate=True)
    assert log.stat().st_size == 0
    assert store.recover().meta == {"n": "199"}
    reader.close()


def test_a_log_that_never_rests_starts_over(
    store: SqliteWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LONG_LOG_PAGES", 10)
    log = tmp_path / "hub.db-wal"
    sizes = []
    for number in range(1, 30):
        store.commit([SaveTail(1, number, 1, True, b"x" * CHUNK, b"", CHUNK, 0)])
        store.checkpoint(truncate=False)
        sizes.append(log.stat().st_size)
    assert sizes[-1] == sizes[2]


def test_oldest_successes_go_first(tmp_path: Path) -> None:
    store = SqliteWriter(tmp_path, tails_bytes=100)
    reader = SqliteReader(tmp_path)
    store.commit(batch())
    store.commit([SaveTail(1, 1, 1, True, b"f" * 40, b"", 40, 0)])
    store.commit([SaveTail(1, index, 1, False, b"s" * 20, b"s" * 10, 20, 10) for index in (2, 3)])
    assert [index for index in range(1, 6) if reader.tail(1, index)] == [1, 2, 3]
    store.commit([SaveTail(1, 4, 1, False, b"s", b"", 1, 0)])
    assert [index for index in range(1, 6) if reader.tail(1, index)] == [1, 3, 4]
    store.commit([SaveTail(1, 5, 1, True, b"f" * 90, b"", 90, 0)])
    assert [index for index in range(1, 6) if reader.tail(1, index)] == [5]
    reader.close()
    store.close()


def test_tails_are_cut_to_what_is_kept_of_them(store: SqliteWriter, tmp_path: Path) -> None:
    store.commit(batch())
    store.commit([SaveTail(1, 1, 1, True, b"a" + b"x" * 65536, b"", 65537, 0)])
    store.commit([SaveTail(1, 2, 1, False, b"", b"a" + b"x" * 4096, 0, 4097)])
    reader = SqliteReader(tmp_path)
    failed, done = reader.tail(1, 1), reader.tail(1, 2)
    assert failed is not None and done is not None
    assert (failed.out, failed.out_bytes) == (b"x" * 65536, 65537)
    assert (done.err, done.err_bytes) == (b"x" * 4096, 4097)
    reader.close()


def test_of_two_tails_of_an_attempt_the_later_is_kept_and_one_of_another_node_is_not(
    store: SqliteWriter, tmp_path: Path
) -> None:
    store.commit(batch())
    rest = ("done", "ok", 0, 0, 1, 2, 3, 4, 5, None, "")
    store.commit([SaveAttempts([(row, 1, row, 1, 1, node, *rest) for row, node in ((1, 7), (2, 7), (3, 8))])])
    first = SaveTail(1, 1, 1, False, b"first", b"", 5, 0, 7)
    later = SaveTail(1, 1, 1, False, b"later one", b"", 9, 0, 7)
    elsewhere = SaveTail(1, 3, 1, False, b"x", b"", 1, 0, 7)
    store.commit([first, SaveTail(1, 2, 1, False, b"two", b"", 3, 0, 7), later, elsewhere])
    store.commit([SaveTail(1, 2, 1, False, b"second", b"", 6, 0, 7), SaveTail(1, 4, 1, False, b"y", b"", 1, 0, 7)])
    reader = SqliteReader(tmp_path)
    told = {index: tail.out for index in range(1, 5) if (tail := reader.tail(1, index)) is not None}
    assert told == {1: b"later one", 2: b"second"}
    assert store._db.execute("SELECT tail_bytes FROM tally WHERE batch = 1").fetchone() == (15,)
    reader.close()


def test_tails_cost_the_same_however_many_there_are(store: SqliteWriter) -> None:
    store.commit(batch(1))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def cost(first: int) -> int:
        nonlocal steps
        steps = 0
        store._db.set_progress_handler(count, 100)
        store.commit([SaveTail(1, index, 1, False, b"x", b"", 1, 0) for index in range(first, first + 64)])
        store._db.set_progress_handler(None, 0)
        return steps

    few = cost(1)
    store.commit([SaveTail(1, index, 1, False, b"x", b"", 1, 0) for index in range(1000, 21_000)])
    assert cost(101) <= few + 5


def test_a_batch_is_recovered_while_another_thread_commits(store: SqliteWriter) -> None:
    """`lanai retry` asks for an ended batch in the middle of somebody's transaction, which must not be disturbed."""
    store.commit(batch(1))
    store._db.execute("BEGIN IMMEDIATE")
    store._db.execute("INSERT INTO meta (name, value) VALUES ('open', '1')")
    found = store.recover_batch(1)
    assert found is not None and found.total == 1000
    store._db.execute("COMMIT")
    assert store.recover().meta == {"open": "1"}


def test_a_restart_reads_no_line_and_no_history(store: SqliteWriter) -> None:
    """An idle batch's progress is old; the rows that others have written since must not be read for it."""
    store.commit([*batch(1), *batch(2)])
    rest = (1, 1, "done", "ok", 0, 0, 1, 2, 3, 4, 5, None, "")
    store.commit([SaveAttempts([(1, 1, 1, 1, *rest)])])
    store.commit([SaveAttempts([(row, 2, row % 1000 + 1, 1, *rest) for row in range(2, 50_000)])])
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store._db.execute("UPDATE tally SET fresh_row = 0 WHERE batch = 2")
    store._db.set_progress_handler(count, 1000)
    found = store.recover()
    assert [len(each.attempts) for each in found.batches] == [1, 0]
    assert steps < 5


@pytest.mark.parametrize("count", [0, 1, 2, 5, 512, 1500])
def test_widened_statements_do_the_same(count: int) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (a, b)")
    rows = [(number, str(number)) for number in range(count)]
    execute_rows(db, "INSERT INTO t (a, b) VALUES (?, ?)", rows)
    assert db.execute("SELECT a, b FROM t ORDER BY rowid").fetchall() == rows
    execute_rows(db, "DELETE FROM t WHERE a IN (VALUES (?))", [(number,) for number in range(1, count)])
    assert db.execute("SELECT count(*) FROM t").fetchone() == (min(count, 1),)
    db.close()


COMMITTER = """
import pathlib, sys
from lanai.model.records import SaveAttempts, SaveMeta
from lanai.store.sqlite import SqliteWriter
store = SqliteWriter(pathlib.Path(sys.argv[1]), durability=sys.argv[2])
row = 0
while True:
    rows = []
    for _ in range(50):
        row += 1
        rows.append((row, 1, row, 1, 1, 1, "done", "ok", 0, 0, 1, 2, 3, 4, 5, None, ""))
    store.commit([SaveAttempts(rows), SaveMeta("row", str(row))])
    if row % 1000 == 0:
        store.checkpoint(truncate=False)
    print(row, flush=True)
"""


@pytest.mark.parametrize(("durability", "groups"), [("full", 3), ("full", 50), ("normal", 200)])
def test_what_a_killed_process_acknowledged_is_there(tmp_path: Path, durability: str, groups: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMITTER, str(tmp_path), durability], stdout=subprocess.PIPE
    ) as committer:
        assert committer.stdout is not None
        for _ in range(groups):
            committer.stdout.readline()
        committer.kill()
        acknowledged = groups * 50 + 50 * len(committer.stdout.read().splitlines())
    store = SqliteWriter(tmp_path)
    found = store.recover()
    assert found.last_row >= acknowledged
    assert found.last_row % 50 == 0
    assert found.meta == {"row": str(found.last_row)}
    assert store._db.execute("SELECT count(*) FROM attempt").fetchone() == (found.last_row,)
    assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


SMALL_DISK = """
import pathlib, subprocess, sys
from lanai.model.batch import BatchSettings
from lanai.model.errors import StoreFull
from lanai.model.records import CloseBatch, OpenBatch, SaveMeta, SaveTail
from lanai.store.sqlite import SqliteWriter

where = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", where], check=True)

def group(number):
    return [SaveMeta("number", str(number)), SaveTail(1, number, 1, True, bytes(60000), b"", 60000, 0)]

def fill(store, number):
    while True:
        try:
            store.commit(group(number))
        except StoreFull:
            return number
        number += 1

store = SqliteWriter(where)
assert store.restore_ballast()
store.commit([OpenBatch(1, "ada", "k", BatchSettings(), b"d", 1), CloseBatch(1, 1000, b"list", 2)])
refused = fill(store, 1)
assert not (where / "probe").exists()
assert store.recover().meta == {"number": str(refused - 1)}
store.release_ballast()
store.commit(group(refused))
assert not store.restore_ballast(), "there was room all the time"
store.close()

filler = where / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
try:
    store = SqliteWriter(where)
    fill(store, refused + 1)
    store.close()
except StoreFull:
    pass
filler.unlink()
store = SqliteWriter(where)
assert int(store.recover().meta["number"]) >= refused
store.commit(group(999))
assert store.restore_ballast()
store.close()
print("kept")
"""


@pytest.mark.netns
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """On a file system of 24 MiB in a mount namespace of its own, gone with the process."""
    script = ["unshare", "--mount", sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr


def test_a_pruned_batch_goes_in_steps_of_a_bounded_size(store: SqliteWriter, tmp_path: Path) -> None:
    rows = [(i, 1, i, 1, 1 << 40, 7, "done", "ok", 0, 0, 1, 2, 3, 4, 5, None, "") for i in range(1, 2001)]
    store.commit([*batch(), SaveAttempts(rows)])
    store.commit([SaveTail(1, i, 1, False, b"x", b"", 1, 0) for i in range(1, 101)])
    store.commit([PruneBatch(1)])
    sizes = []
    with closing(sqlite3.connect(tmp_path / "hub.db")) as db:
        while store.old(0, 0)[1]:
            counted = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("attempt", "tail")]
            sizes.append(tuple(counted))
            store.commit([PruneRows(0, 1000)])
    assert sizes == [(2000, 100), (1000, 100), (0, 100), (0, 50), (0, 0)]
