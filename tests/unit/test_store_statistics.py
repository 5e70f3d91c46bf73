"""How jobs fared: sums that SQL makes, against the same counted by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.model.batch import BatchSettings
from lanai.model.records import (
    CloseBatch,
    OpenBatch,
    PruneBatch,
    Record,
    SaveAccount,
    SaveAttempts,
    SaveChunk,
    SaveShape,
)
from lanai.model.resources import Shape
from lanai.store import statistics
from lanai.store.reader import SqliteReader
from lanai.store.sqlite import SqliteWriter
from lanai.store.statistics import Fared, percentile

S = 1_000_000
GIB = 1 << 30
SUBMITTED_US = 1000 * S
Runs = tuple[tuple[int, Shape], ...]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SqliteWriter]:
    writer = SqliteWriter(tmp_path, durability="normal")
    yield writer
    writer.close()


@pytest.fixture
def reader(writer: SqliteWriter, tmp_path: Path) -> Iterator[SqliteReader]:
    reader = SqliteReader(tmp_path)
    yield reader
    reader.close()


def batch(number: int, runs: Runs, user: str = "ann", **settings: str) -> list[Record]:
    jobs = sum(count for count, _ in runs)
    made = BatchSettings(**settings)  # type: ignore[arg-type]
    listed = tuple((count, at) for at, (count, _) in enumerate(runs))
    return [
        OpenBatch(number, user, f"{number}", made, b"d", 1),
        *(SaveShape(number, at, shape) for at, (_, shape) in enumerate(runs)),
        SaveChunk(number, 1, jobs, listed, b"\0" * (jobs - 1)),  # type: ignore[arg-type]
        CloseBatch(number, jobs, b"d", SUBMITTED_US),
    ]


def ended(
    row: int, job: tuple[int, int], *, waited_s: int = 0, wall_s: int = 10, state: str = "done", attempt: int = 1,
    cpu_s: int = 0, peak: int | None = None,
) -> tuple[object, ...]:  # fmt: skip
    began = SUBMITTED_US + waited_s * S if waited_s >= 0 else 0
    end = began + wall_s * S
    outcome = "ok" if state == "done" else "exit"
    return (row, *job, attempt, 1, 1, state, outcome, 0, 0, began, end, wall_s * S, cpu_s * S, 0, peak, "")


def keep(writer: SqliteWriter, *rows: tuple[object, ...]) -> None:
    writer.commit([SaveAttempts(list(rows))])  # type: ignore[arg-type]


def test_sums_of_one_batch(writer: SqliteWriter, reader: SqliteReader) -> None:
    shape = Shape(cpu_milli=2000, memory_bytes=4 * GIB, time_limit_us=100 * S)
    writer.commit(batch(1, ((4, shape),)))
    keep(
        writer,
        ended(1, (1, 1), waited_s=20, wall_s=50, cpu_s=80, peak=GIB),
        ended(2, (1, 2), waited_s=40, wall_s=10, state="queued"),
        ended(3, (1, 2), waited_s=60, wall_s=10, cpu_s=10, peak=3 * GIB, attempt=2),
        ended(4, (1, 3), waited_s=-1, wall_s=0, state="failed"),
    )
    found = reader.statistics(by="user")
    assert found.groups == [
        Fared(
            group="ann",
            attempts=4,
            jobs=3,
            done=2,
            failed=1,
            wall_us=70 * S,
            allotted_us=140 * S,
            used_us=90 * S,
            waits=2,
            wait_us=60 * S,
            wait_max_us=40 * S,
            wait_p95_us=40 * S,
            slowdowns=2,
            slowdown=70 / 50 + 70 / 10,
            timed=2,
            time_ratio=0.6,
            measured=2,
            memory_ratio=1.0,
        )
    ]
    assert found.total.allotted_us == 140 * S and (found.more, found.sampled) == (0, 1)


def test_an_account_is_the_one_that_is_charged(writer: SqliteWriter, reader: SqliteReader) -> None:
    """Whatever the batch has asked for; of a batch of an older version nothing else is known."""
    one = ((1, Shape()),)
    writer.commit([*batch(1, one), *batch(2, one), *batch(3, one, account="chem"), *batch(4, one, account="chem")])
    writer.commit([SaveAccount(1, "physics"), SaveAccount(3, "bio")])
    keep(writer, *(ended(number, (number, 1), wall_s=10 * number) for number in (1, 2, 3, 4)))
    assert [each.group for each in reader.statistics(by="account").groups] == ["chem", "bio", "default", "physics"]


def test_groups_by_user_account_service_and_batch(writer: SqliteWriter, reader: SqliteReader) -> None:
    one: Runs = ((1, Shape()),)
    writer.commit([*batch(1, one), *batch(2, one, "bob", account="chem"), *batch(3, one, "bob", service="long")])
    keep(writer, *(ended(row, (row, 1), wall_s=row) for row in (1, 2, 3)))

    def groups(**asked: object) -> list[str]:
        return [fared.group for fared in reader.statistics(**asked).groups]  # type: ignore[arg-type]

    assert groups(by="user") == ["bob", "ann"]
    assert groups(by="account") == ["default", "chem"]
    assert groups(by="service") == ["long", "normal"] or groups(by="service") == ["normal", "long"]
    assert groups(by="batch") == ["3", "2", "1"]
    assert groups(by="batch", most=2) == ["3", "2"] and reader.statistics(by="batch", most=2).more == 1
    mine = reader.statistics(by="user", only="ann")
    assert [fared.group for fared in mine.groups] == ["ann"] and mine.total.jobs == 3


def test_jobs_of_one_batch_that_ask_for_different_things(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit(batch(1, ((2, Shape(cpu_milli=1000)), (1, Shape(cpu_milli=8000)))))
    keep(writer, *(ended(index, (1, index), wall_s=10) for index in (1, 2, 3)))
    assert reader.statistics(by="user").total.allotted_us == (10 + 10 + 80) * S


def test_many_pieces_count_with_their_mean(writer: SqliteWriter, reader: SqliteReader) -> None:
    runs = tuple((1, Shape(cpu_milli=1000 * (1 + at % 2))) for at in range(40))
    writer.commit(batch(1, runs))
    keep(writer, *(ended(index, (1, index), wall_s=10) for index in range(1, 41)))
    assert reader.statistics(by="user").total.allotted_us == 40 * 15 * S


def test_in_pieces_it_comes_to_the_same(
    writer: SqliteWriter, reader: SqliteReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.commit(batch(1, ((100, Shape()),)))
    keep(writer, *(ended(index, (1, index), waited_s=index, wall_s=5) for index in range(1, 101)))
    whole = reader.statistics(by="user")
    monkeypatch.setattr(statistics, "PIECE_ROWS", 7)
    assert reader.statistics(by="user") == whole
    assert whole.total.wait_p95_us == 95 * S
    monkeypatch.setattr(statistics, "SAMPLED", 10)
    sampled = reader.statistics(by="user")
    assert (sampled.sampled, sampled.total.wait_p95_us, sampled.total.wait_us) == (10, 100 * S, whole.total.wait_us)


def test_since_when_and_what_is_gone(writer: SqliteWriter, reader: SqliteReader) -> None:
    assert reader.statistics(by="user").groups == []
    writer.commit([*batch(1, ((2, Shape()),)), *batch(2, ((1, Shape()),), "bob")])
    keep(writer, ended(1, (1, 1), waited_s=1), ended(2, (1, 2), waited_s=100), ended(3, (2, 1), waited_s=100))
    assert reader.statistics(by="user", since_us=SUBMITTED_US + 100 * S).total.jobs == 2
    writer.commit([PruneBatch(2)])
    assert [(fared.group, fared.jobs) for fared in reader.statistics(by="user").groups] == [("ann", 2)]


def test_percentiles() -> None:
    assert (percentile([], 95), percentile([5], 95), percentile(list(range(1, 21)), 95)) == (0, 5, 19)
