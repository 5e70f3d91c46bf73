"""What people are shown of the store: jobs by state, failures by cause, pages, single things."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lanai.model.access import Caller, Origin, Role
from lanai.model.batch import BatchSettings, Counts
from lanai.model.errors import NothingThere, StoreError
from lanai.model.ids import Index
from lanai.model.records import (
    AttemptRow,
    CloseBatch,
    DropGrant,
    OpenBatch,
    PruneBatch,
    PruneRows,
    Record,
    SaveAttempts,
    SaveAudit,
    SaveChunk,
    SaveEnv,
    SaveEvent,
    SaveGrant,
    SaveNode,
    SaveOverride,
    SaveProgress,
    SaveReason,
    SaveShape,
    SaveTail,
    SetBatch,
)
from lanai.model.resources import Capacity, Shape
from lanai.store.failures import Cause, cause_of, reason_class
from lanai.store.memory import MemoryStore
from lanai.store.queries import statements
from lanai.store.reader import SqliteReader
from lanai.store.sqlite import SqliteWriter

GRANT = 1 << 40
BIG = Shape(memory_bytes=1 << 30)


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


def batch(number: int, jobs: int, *, user: str = "ada") -> list[Record]:
    chunks: list[Record] = []
    for first in range(1, jobs + 1, 1000):
        count = min(1000, jobs - first + 1)
        lines = b"\0".join(b"run %d \xff" % index for index in range(first, first + count))
        chunks.append(SaveChunk(number, first, count, ((count, 0),), lines))
    settings = BatchSettings(priority=4, max_running=6)
    return [
        SaveEnv(b"d", b"env"),
        OpenBatch(number, user, f"k{number}", settings, b"d", 1),
        SaveShape(number, 0, Shape()),
        SaveShape(number, 1, BIG),
        *chunks,
        CloseBatch(number, jobs, b"list", 2000),
    ]


def row(
    number: int,
    index: int,
    state: str,
    outcome: str = "exit",
    *,
    attempt: int = 1,
    exit_code: int | None = 1,
    signal: int = 0,
    reason: str = "",
    grant: int = GRANT,
) -> AttemptRow:
    times = (3000 + number, 4000 + number, 1000, 10, 20)
    return (number, 1, index, attempt, grant, 2, state, outcome, exit_code, signal, *times, 1 << 20, reason)


def node(number: int, name: str) -> SaveNode:
    return SaveNode(number, name, b"h", "boot", "up", False, Capacity(cpu_milli=1, memory_bytes=1), (), "ada", 1, 1)


def states(reader: SqliteReader, wanted: tuple[str, ...] = ()) -> dict[int, str]:
    jobs, following = reader.jobs(1, states=wanted)
    assert following is None
    return {job["index"]: job["state"] for job in jobs}


def test_a_job_is_shown_with_all_its_fields(writer: SqliteWriter, reader: SqliteReader) -> None:
    ended = row(1, 2, "failed", "signal", exit_code=None, signal=9)
    writer.commit([*batch(1, 2), node(2, "n2"), SaveAttempts([ended])])
    jobs, following = reader.jobs(1)
    assert following is None
    assert jobs[1] == {
        "id": "1/2",
        "batch": 1,
        "index": 2,
        "state": "failed",
        "command": "run 2 \udcff",
        "attempts": 1,
        "exit_code": None,
        "signal": 9,
        "outcome": "signal",
        "node": "n2",
        "submitted_at_us": 2000,
        "started_at_us": 3001,
        "ended_at_us": 4001,
        "wall_us": 1000,
        "cpu_user_us": 10,
        "cpu_system_us": 20,
        "memory_peak_bytes": 1 << 20,
        "reason": "",
        "grant": None,
    }
    unset = {name for name, value in jobs[0].items() if value is None}
    assert jobs[0]["attempts"] == 0
    assert unset == set(jobs[0]) - {"id", "batch", "index", "state", "command", "attempts", "submitted_at_us", "reason"}


def test_an_attempt_over_several_nodes_names_them_when_it_has_ended(
    writer: SqliteWriter, reader: SqliteReader
) -> None:
    wide = SaveShape(1, 0, Shape(nodes=3))
    names = [node(2, "n2"), node(3, "n3"), node(4, "n4")]
    writer.commit([*batch(1, 2), wide, *names, SaveGrant(GRANT, 2, 1, 1, ((1, 1),), (3, 4))])
    ended = [row(1, 1, "queued", "lost"), row(2, 1, "done", attempt=2, grant=7)]
    writer.commit([DropGrant(GRANT), SaveAttempts(ended)])
    attempts = reader.job(1, Index(1)).attempts
    assert [(attempt["node"], attempt["others"]) for attempt in attempts] == [("n2", ["n3", "n4"]), ("n2", [])]
    writer.commit([PruneBatch(1), PruneRows(0, 1000)])
    with closing(sqlite3.connect(f"file:{reader._file}?mode=ro", uri=True)) as db:
        assert db.execute("SELECT count(*) FROM wide_grant").fetchone() == (0,)


def test_a_granted_job_is_locked_on_its_node(writer: SqliteWriter, reader: SqliteReader) -> None:
    """Its last attempt's outcome would be taken for the running one's, so it is not shown."""
    writer.commit([*batch(1, 3), node(2, "n2"), node(3, "n3")])
    writer.commit([SaveAttempts([row(1, 2, "queued")]), SaveGrant(GRANT + 1, 3, 1, 2, ((2, 2),))])
    jobs, _ = reader.jobs(1, states=("running",))
    assert [(job["index"], job["state"], job["attempts"], job["node"], job["outcome"]) for job in jobs] == [
        (2, "locked", 2, "n3", None)
    ]
    assert jobs[0]["grant"] == GRANT + 1


def test_a_grant_whose_attempt_ended_locks_nothing(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit([*batch(1, 2), SaveGrant(GRANT, 3, 1, 1, ((1, 2),)), SaveAttempts([row(1, 1, "done", "ok")])])
    assert states(reader) == {1: "done", 2: "locked"}
    assert states(reader, ("locked",)) == {2: "locked"}


def test_the_last_attempt_counts(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit(batch(1, 3))
    writer.commit([SaveAttempts([row(1, 1, "queued"), row(2, 2, "queued"), row(3, 1, "done", "ok", attempt=2)])])
    assert states(reader) == {1: "done", 2: "queued", 3: "queued"}
    assert states(reader, ("failed",)) == {}
    (job,) = reader.jobs(1, states=("done",))[0]
    assert (job["attempts"], job["outcome"]) == (2, "ok")


def test_jobs_sent_back_since_the_progress_are_found_as_queued(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit([*batch(1, 5), SaveGrant(GRANT, 2, 1, 1, ((1, 2),))])
    writer.commit([SaveProgress(1, 0, ((3, 5),), ((5, 5),), Counts(queued=2, held=1, locked=2))])
    writer.commit([SaveAttempts([row(1, 1, "queued"), row(2, 2, "done", "ok")])])
    assert states(reader, ("queued",)) == {1: "queued", 3: "queued", 4: "queued"}
    assert states(reader, ("held",)) == {5: "held"}


def test_a_retried_job_waits_again(writer: SqliteWriter, reader: SqliteReader) -> None:
    """`lanai retry` writes a progress in which a job that had failed is pending."""
    writer.commit([*batch(1, 2), SaveAttempts([row(1, 1, "failed"), row(2, 2, "failed")])])
    writer.commit([SaveProgress(1, 2, ((2, 2),), (), Counts(queued=1, failed=1))])
    assert states(reader) == {1: "failed", 2: "queued"}
    assert states(reader, ("failed",)) == {1: "failed"}
    assert states(reader, ("queued",)) == {2: "queued"}
    assert [group.count for group in reader.failures(1).groups] == [1]
    writer.commit([SaveAttempts([row(3, 2, "failed", attempt=2)])])
    assert states(reader, ("failed",)) == {1: "failed", 2: "failed"}


def test_cancelled_while_waiting_and_while_running(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit([*batch(1, 4), SaveAttempts([row(1, 4, "cancelled", "cancelled", exit_code=None)])])
    writer.commit([SaveOverride(1, 1, 2, "cancelled", at_us=77), SaveProgress(1, 1, ((3, 3),), (), Counts())])
    jobs, _ = reader.jobs(1, states=("cancelled",))
    assert [(job["index"], job["ended_at_us"], job["outcome"]) for job in jobs] == [
        (1, 77, None),
        (2, 77, None),
        (4, 4001, "cancelled"),
    ]


def test_pages_follow_each_other_without_gap_or_repeat(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit(batch(1, 3500))
    rows = [row(n, n, "failed" if n % 3 == 0 else "done", "exit" if n % 3 == 0 else "ok") for n in range(1, 3000)]
    writer.commit([SaveAttempts(rows), SaveProgress(1, 2999, ((3000, 3500),), (), Counts())])
    for wanted, ranges, expected in (
        ((), None, list(range(1, 3501))),
        (("failed",), None, list(range(3, 3000, 3))),
        (("done",), ((10, 20), (2990, 3200)), [n for n in (*range(10, 21), *range(2990, 3000)) if n % 3]),
        (("queued", "failed"), ((2995, 3010),), [2997, *range(3000, 3011)]),
        ((), ((3499, 9999),), [3499, 3500]),
        (("failed",), (), []),
    ):
        found: list[int] = []
        after: int | None = 0
        while after is not None:
            jobs, after = reader.jobs(1, after=after, limit=700, states=wanted, ranges=ranges)
            assert len(jobs) <= 700
            found += [job["index"] for job in jobs]
        assert found == expected


def test_the_failed_few_of_many_are_found_without_reading_the_others(
    writer: SqliteWriter, reader: SqliteReader
) -> None:
    writer.commit(batch(1, 20_000))
    rows = [row(n, n, "done", "ok", exit_code=0) for n in range(1, 20_000)]
    writer.commit([SaveAttempts([*rows, row(20_000, 20_000, "failed")])])
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    reader._db.set_progress_handler(count, 1000)
    assert states(reader, ("failed",)) == {20_000: "failed"}
    assert steps < 5


def test_one_job_with_all_its_attempts(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit([*batch(1, 9), node(2, "n2"), SaveOverride(1, 4, 4, "shape", 1)])
    writer.commit([SaveAttempts([row(1, 4, "queued", "memory"), row(2, 4, "done", "ok", attempt=2, exit_code=0)])])
    found = reader.job(1, 4)
    assert (found.job["state"], found.job["attempts"], found.shape) == ("done", 2, BIG)
    assert [(each["attempt"], each["outcome"], each["node"]) for each in found.attempts] == [
        (1, "memory", "n2"),
        (2, "ok", "n2"),
    ]
    assert reader.job(1, 5).shape == Shape()
    for unknown in (0, 10):
        with pytest.raises(NothingThere):
            reader.job(1, unknown)


def test_failures_are_grouped_by_cause(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit([*batch(1, 20), node(2, "n2")])
    missing = [row(n, n, "failed", "check", exit_code=0, reason=f"/data/{n}.gz is not there") for n in range(1, 6)]
    others = [row(6, 6, "failed"), row(7, 7, "failed", exit_code=2), row(8, 8, "queued"), row(9, 9, "done", "ok")]
    writer.commit([SaveAttempts([*missing, *others]), SaveTail(1, 2, 1, True, b"", b"oh no\n", 0, 6)])
    groups = reader.failures(1).groups
    assert [(group.outcome, group.exit_code, group.count) for group in groups] == [
        ("check", 0, 5),
        ("exit", 1, 1),
        ("exit", 2, 1),
    ]
    assert groups[0].reason == "/data/1.gz is not there"
    assert [(each.index, each.node, each.command) for each in groups[0].examples] == [
        (n, "n2", f"run {n} \udcff") for n in (1, 2, 3)
    ]
    assert [each.tail.err if each.tail else None for each in groups[0].examples] == [None, b"oh no\n", None]
    some = reader.failures(1, limit=1)
    assert (len(some.groups), some.more_groups, some.more_jobs) == (1, 2, 2)


def test_checks_are_grouped_by_their_kind_and_what_ran_out_of_time_is_one_group() -> None:
    """Sixteen lines with `{check out exists outX}` gave sixteen groups, and two signals two groups of late jobs."""

    def check(reason: str) -> Cause:
        return cause_of("check", 0, 0, reason)

    assert check("output check exists: outA does not exist") == check("output check exists: b c is empty")
    assert check("output check line+: a is empty") != check("output check line: a does not end with a newline")
    assert check("input check exists: a does not exist") != check("output check exists: a does not exist")
    both = "output check exists: a does not exist; output check line: b does not end with a newline"
    assert check(both) == check(both.replace("a does", "other does")) != check("output check exists: a does not exist")
    assert cause_of("time", None, 15, "over 1s") == cause_of("time", 1, 9, "over 2s")
    assert cause_of("notfound", 127, 0, "abc: no such file") == cause_of("notfound", 127, 0, "xyz: no such file")
    assert cause_of("exit", 1, 0, "") != cause_of("exit", 2, 0, "")
    assert cause_of("signal", None, 9, "") != cause_of("signal", None, 11, "")


def test_reasons_that_differ_in_numbers_and_files_are_one() -> None:
    assert reason_class("used 12.5 GiB of 8") == reason_class("used 9 GiB of 16")
    assert reason_class("no /a/b.gz here") == reason_class("no ../c here")
    assert reason_class("timed out") != reason_class("no such directory")


def test_batches_newest_first_and_by_state_user_and_key(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit([*batch(1, 3), *batch(2, 4, user="bob"), *batch(3, 5), *batch(4, 1)[:-1]])
    writer.commit([SetBatch(1, "ended", 9, 8, "stopped", (5,), 99), SaveProgress(1, 0, (), (), Counts(done=3))])
    assert [each.batch for each in reader.batches()] == [3, 2, 1]
    assert [each.batch for each in reader.batches(before=3, limit=1)] == [2]
    assert [each.batch for each in reader.batches(states=("open",), user="ada")] == [3]
    first, third = reader.batch(1), reader.batch(3)
    assert first is not None and third is not None
    assert (first.state, first.priority, first.max_running, first.avoided) == ("ended", 9, 8, (5,))
    assert (first.counts, first.ended_at_us, first.reason) == (Counts(done=3), 99, "stopped")
    assert (third.state, third.priority, third.max_running, third.counts) == ("open", 4, 6, Counts(queued=5))
    assert (reader.last("ada"), reader.last("bob"), reader.last("eve")) == (3, 2, None)
    assert reader.key("ada", "k3") == third
    assert reader.key("ada", "k4") is None
    assert reader.batch(4) is None


def test_an_arriving_batch_has_no_jobs_to_show(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit(batch(1, 3)[:-1])
    assert reader.jobs(1) == ([], None)
    with pytest.raises(NothingThere):
        reader.job(1, 1)


def test_tails_env_nodes_reasons_events(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit([*batch(1, 3), node(2, "b"), node(1, "a"), SaveReason(1, 0, "full", "8 of 8 cpus", 5)])
    writer.commit([SaveTail(1, 1, 1, True, b"1", b"", 1, 0), SaveTail(1, 1, 2, False, b"2", b"", 1, 0)])
    writer.commit([SaveEvent(at, "joined", subject, "text") for at, subject in ((1, "a"), (2, "b"), (3, "a"))])
    assert reader.tail(1, 1) == SaveTail(1, 1, 2, False, b"2", b"", 1, 0)
    assert reader.tail(1, 1, 1) == SaveTail(1, 1, 1, True, b"1", b"", 1, 0)
    assert reader.tail(1, 2) is None
    assert reader.env(b"d") == b"env"
    assert [each.name for each in reader.nodes()] == ["a", "b"]
    assert reader.reasons(1) == [SaveReason(1, 0, "full", "8 of 8 cpus", 5)]
    writer.commit([SaveReason(1, 0, "", "", 6)])
    assert reader.reasons(1) == []
    assert reader.past_reasons(1) == [SaveReason(1, 0, "", "", 6), SaveReason(1, 0, "full", "8 of 8 cpus", 5)]
    assert [(each.at_us, each.subject) for each in reader.events(limit=2)] == [(3, "a"), (2, "b")]
    newest = reader.events(limit=1)[0]
    assert [each.at_us for each in reader.events(before=newest, subject="a")] == [1]
    assert [each.at_us for each in reader.events(since_us=2)] == [3, 2]


def test_the_last_reasons_of_each_line_are_kept(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit([*batch(1, 3), *batch(2, 3)])
    for at in range(1, 100, 3):
        writer.commit([SaveReason(1, 0, "full", f"{at}", at), SaveReason(1, 0, "", "", at + 1)])
        writer.commit([SaveReason(1, 1, "held", "", at), SaveReason(2, 0, "full", "", 7)])
    past = reader.past_reasons(1, 0)
    assert [(each.since_us, each.code) for each in past[:2]] == [(98, ""), (97, "full")] and len(past) == 20
    assert {each.shape for each in reader.past_reasons(1)} == {0, 1}
    assert len(reader.past_reasons(1, 1)) == 20 and len(reader.past_reasons(2)) == 1
    writer.commit([PruneBatch(1)])
    assert reader.past_reasons(1) == []


def test_events_and_the_trail_page_by_page(writer: SqliteWriter, reader: SqliteReader) -> None:
    """Many events are of one moment: a page must neither repeat nor lose any."""
    events = [SaveEvent(at, kind, subject, "text") for at in (1, 2) for kind in "ab" for subject in "xyz"]
    writer.commit(events)
    found: list[SaveEvent] = []
    while page := reader.events(before=found[-1] if found else None, limit=5):
        found += page
    assert len(found) == 12 and set(found) == set(events)
    assert [event.at_us for event in found] == [2] * 6 + [1] * 6
    users = ("ann", "bob", "ann", "")
    trail = [
        SaveAudit(n, 10 * n, Caller(user, Role.USER if user else None, Origin("unix", 7, n)), "batch.set", f"batch {n}")
        for n, user in enumerate(users, 1)
    ]
    writer.commit(trail)
    assert reader.audit() == trail[::-1]
    assert reader.audit(limit=1) == trail[3:]
    assert reader.audit(before=4, limit=2) == [trail[2], trail[1]]
    assert reader.audit(user="ann") == [trail[2], trail[0]]
    assert reader.audit(since_us=20, before=4) == [trail[2], trail[1]]
    assert reader.tokens() == []


def test_a_page_is_of_one_moment_and_holds_nothing_up(writer: SqliteWriter, reader: SqliteReader) -> None:
    writer.commit(batch(1, 3))
    with reader._reading() as db:
        db.execute("SELECT count(*) FROM attempt").fetchall()
        writer.commit([SaveAttempts([row(1, 1, "done", "ok")])])
        writer.checkpoint(truncate=True)
        assert db.execute("SELECT count(*) FROM attempt").fetchall() == [(0,)]
    assert states(reader, ("done",)) == {1: "done"}


def test_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        SqliteReader(tmp_path / "nowhere")


def test_what_has_not_ended_is_found_among_what_has(
    writer: SqliteWriter, reader: SqliteReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lanai.store.reader.PAGE_ROWS", 2)
    for number in range(1, 6):
        writer.commit(batch(number, 3))
    writer.commit(batch(6, 3)[:-1])  # arriving
    writer.commit([SetBatch(2, "ended", 0, 0, "", (), 50), SetBatch(3, "held", 0, 0)])
    assert [row.batch for row in reader.unfinished()] == [1, 3]
    assert [row.batch for row in reader.unfinished(after=3)] == [4, 5]
    assert reader.unfinished(after=5) == [] == reader.unfinished(user="nobody")
    assert [row.batch for row in reader.unfinished(user=reader.batch(1).user)] == [1, 3]
    plan = " ".join(str(row[3]) for row in writer._db.execute(
        "EXPLAIN QUERY PLAN " + statements("read")["unfinished"], {"after": 0, "user": None, "most": 9}
    ))
    assert "batch_unfinished" in plan


def test_a_tail_is_kept_where_its_attempt_has_ended_on_the_node_that_sends_it(
    writer: SqliteWriter, reader: SqliteReader
) -> None:
    memory = MemoryStore()
    group = [*batch(1, 3), SaveAttempts([row(1, 1, "done", "ok")])]
    node = group[-1].rows[0][5]
    for store in (writer, memory):
        store.commit(group)
        for sender, out in ((node, b"true"), (node + 1, b"forged")):
            store.commit([SaveTail(1, index, 1, False, out, b"", 9, 0, sender) for index in (1, 2)])
    assert reader.tail(1, 1) == SaveTail(1, 1, 1, False, b"true", b"", 9, 0)
    assert reader.tail(1, 2) is None
    assert list(memory.kept.tails.values()) == [SaveTail(1, 1, 1, False, b"true", b"", 9, 0)]
