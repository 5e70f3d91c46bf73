"""A hub's past, read a page at a time: whose, since when, with what each job asked for in the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.model.batch import BatchSettings
from lanai.model.records import (
    AttemptRow,
    CloseBatch,
    OpenBatch,
    Record,
    SaveAttempts,
    SaveChunk,
    SaveEnv,
    SaveNode,
    SaveOverride,
    SaveShape,
)
from lanai.model.resources import Capacity, Shape
from lanai.store import reader as reader_module
from lanai.store.history import Asked, PastJob
from lanai.store.reader import SqliteReader
from lanai.store.sqlite import SqliteWriter

SMALL, BIG, BIGGER = Shape(cpu_milli=500), Shape(cpu_milli=4000, nodes=2), Shape(cpu_milli=4000, memory_bytes=8)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SqliteWriter]:
    writer = SqliteWriter(tmp_path, durability="normal")
    node = SaveNode(2, "n2", b"h", "boot", "up", False, Capacity(cpu_milli=1, memory_bytes=1), (), "ada", 1, 1)
    writer.commit([SaveEnv(b"d", b"env"), node])
    yield writer
    writer.close()


@pytest.fixture
def reader(writer: SqliteWriter, tmp_path: Path) -> Iterator[SqliteReader]:
    reader = SqliteReader(tmp_path)
    yield reader
    reader.close()


def batch(number: int, jobs: int, *, user: str = "ada", at_us: int = 2000) -> list[Record]:
    """Every second job of a batch is big; chunks are of four."""
    runs = tuple((1, index % 2) for index in range(4))
    chunks = [SaveChunk(number, first, 4, runs, b"\0".join([b"run"] * 4)) for first in range(1, jobs + 1, 4)]
    settings = BatchSettings(account="physics", service="" if number == 1 else "quick")
    shapes = [SaveShape(number, at, shape) for at, shape in enumerate((SMALL, BIG, BIGGER))]
    opened = OpenBatch(number, user, f"k{number}", settings, b"d", 1)
    return [opened, *shapes, *chunks, CloseBatch(number, jobs, b"list", at_us)]


def attempt(row: int, of: int, index: int, state: str = "done", *, started: bool = True, number: int = 1) -> AttemptRow:
    outcome = "ok" if state == "done" else "exit"
    times = (3000 + row if started else 0, 4000 + row, 1000, 10, 20)
    return (row, of, index, number, 1 << 40, 2, state, outcome, 0, 0, *times, 1 << 20, "")


def ids(jobs: list[PastJob]) -> list[tuple[int, int]]:
    return [(job.of.batch, job.index) for job in jobs]


def test_a_job_comes_with_its_last_attempt_and_what_it_asked_for_then(
    writer: SqliteWriter, reader: SqliteReader
) -> None:
    tries = [attempt(1, 1, 2, "queued"), attempt(2, 1, 1), attempt(3, 1, 2, "failed", number=2), attempt(4, 1, 6)]
    writer.commit([*batch(1, 8), SaveAttempts(tries), SaveOverride(1, 6, 6, "shape", 2)])
    page = reader.history(Asked())
    assert (ids(page.jobs), page.never_started, page.following) == ([(1, 1), (1, 2), (1, 6)], 0, None)
    assert [job.state for job in page.jobs] == ["done", "failed", "done"]
    assert [job.shape for job in page.jobs] == [SMALL, BIG, BIGGER]
    assert [job.started_at_us for job in page.jobs] == [3002, 3003, 3004]
    job = page.jobs[0]
    assert (job.of.user, job.of.account, job.of.service, job.of.submitted_at_us) == ("ada", "physics", "", 2000)
    assert (job.node, job.wall_us, job.cpu_us, job.memory_peak_bytes) == ("n2", 1000, 30, 1 << 20)


def test_what_waits_is_no_past_and_what_never_began_is_counted(writer: SqliteWriter, reader: SqliteReader) -> None:
    lost = attempt(1, 1, 3, "failed", started=False)
    writer.commit([*batch(1, 8), SaveAttempts([lost, attempt(2, 1, 4)]), SaveOverride(1, 1, 2, "cancelled", at_us=9)])
    page = reader.history(Asked())
    assert (ids(page.jobs), page.never_started) == ([(1, 4)], 3)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_pages_follow_one_another_without_a_gap(writer: SqliteWriter, reader: SqliteReader, limit: int) -> None:
    tries = [attempt(10 * of + index, of, index) for of in (1, 2, 3) for index in (1, 2, 4, 5)]
    writer.commit([*batch(1, 8), *batch(2, 8), *batch(3, 8), SaveAttempts(tries)])
    writer.commit([SaveOverride(2, 6, 8, "cancelled", at_us=9)])
    found, never_started = [], 0
    at: tuple[int, int] | None = (0, 0)
    while at is not None:
        page = reader.history(Asked(after=at, limit=limit))
        assert len(page.jobs) <= limit
        found += ids(page.jobs)
        never_started += page.never_started
        at = page.following
    assert found == [(of, index) for of in (1, 2, 3) for index in (1, 2, 4, 5)]
    assert never_started == 3


def test_a_page_that_has_no_time_comes_on_all_the_same(
    writer: SqliteWriter, reader: SqliteReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.commit([*batch(1, 8), *batch(2, 8), SaveAttempts([attempt(1, 2, 3)])])
    monkeypatch.setattr(reader_module, "PAGE_S", 0.0)
    first = reader.history(Asked())
    assert (first.jobs, first.following) == ([], (2, 0))
    assert ids(reader.history(Asked(after=(2, 0))).jobs) == [(2, 3)]


def test_only_what_was_asked_for_is_read(writer: SqliteWriter, reader: SqliteReader) -> None:
    tries = [attempt(of, of, 1) for of in (1, 2, 3)]
    batches = [*batch(1, 4, at_us=1000), *batch(2, 4, user="bob", at_us=2000), *batch(3, 4, at_us=3000)]
    writer.commit([*batches, SaveAttempts(tries)])
    assert ids(reader.history(Asked(user="ada")).jobs) == [(1, 1), (3, 1)]
    assert ids(reader.history(Asked(since_us=2000)).jobs) == [(2, 1), (3, 1)]
    assert ids(reader.history(Asked(since_us=2000, user="ada")).jobs) == [(3, 1)]
    assert reader.history(Asked(user="nobody")).jobs == []
