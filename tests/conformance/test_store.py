"""What every store promises, whatever engine is behind it; the simulated world's in-memory one is held to it too."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from lanai.model.access import Caller, Origin, Role
from lanai.model.batch import BatchSettings, Counts, Retries
from lanai.model.errors import NothingThere, StoreError
from lanai.model.records import (
    AttemptRow,
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
from lanai.model.request import Check
from lanai.model.resources import Capacity, Shape
from lanai.store.memory import MemoryStore
from lanai.store.port import History, Lines, Writer
from lanai.store.sqlite import SqliteWriter

GRANT = 1 << 40


class Store(Writer, Lines, History, Protocol):
    """Both sides of the hub's store."""


@pytest.fixture(params=["sqlite", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the store; a second call ends the first one's owner without a word and opens it again."""
    current: list[Store] = []
    memory = MemoryStore()

    def reopen() -> Store:
        for store in current:
            store.close()
        current[:] = [SqliteWriter(tmp_path) if request.param == "sqlite" else memory]
        return current[0]

    yield reopen
    for store in current:
        store.close()


@pytest.fixture
def store(opened: Callable[[], Store]) -> Store:
    return opened()


def row(
    number: int,
    batch: int,
    index: int,
    *,
    attempt: int = 1,
    grant: int = GRANT,
    outcome: str = "ok",
    state: str = "done",
) -> AttemptRow:
    code = {"ok": 0, "exit": 1}.get(outcome)
    return (number, batch, index, attempt, grant, 7, state, outcome, code, 0, 100, 200, 50 + number, 3, 4, None, "")


def arriving(batch: int = 1, *, user: str = "ada", key: str = "", jobs: int = 10) -> list[Record]:
    lines = b"\0".join(b"echo %d" % index for index in range(1, jobs + 1))
    return [
        SaveEnv(b"digest", b"blob"),
        OpenBatch(batch, user, key or f"key{batch}", BatchSettings(name=f"b{batch}"), b"digest", 1000),
        SaveShape(batch, 0, Shape()),
        SaveChunk(batch, 1, jobs, ((jobs, 0),), lines),
    ]


def whole(batch: int = 1, *, user: str = "ada", key: str = "", jobs: int = 10) -> list[Record]:
    return [*arriving(batch, user=user, key=key, jobs=jobs), CloseBatch(batch, jobs, b"list", 2000)]


def test_a_new_store_is_empty(store: Store) -> None:
    found = store.recover()
    assert (found.meta, found.last_batch, found.last_row, found.batches, found.nodes) == ({}, 0, 0, [], [])
    assert store.key("ada", "k") is None
    assert store.node_of(1, 1, 0) is None
    assert store.recover_batch(1) is None


def test_everything_of_a_batch_comes_back(opened: Callable[[], Store]) -> None:
    settings = BatchSettings(
        name="n", labels={"a": "b"}, priority=3, retries=Retries(exit=2), output="%b.%i", shape=Shape(cpu_milli=500)
    )
    wide = Shape(cpu_milli=4000, named=(("license", 2),), time_limit_us=5)
    checks = {2: (Check("in", "exists+", b"/tmp/\xff"),)}
    state = SetBatch(5, "paused", 3, 8, "25 in a row failed", (4, 9), 0)
    progress = SaveProgress(5, 0, ((3, 4),), ((4, 4),), Counts(queued=1, held=1, done=2))
    store = opened()
    store.commit(
        [
            SaveEnv(b"d", b"environment"),
            OpenBatch(5, "ada", "k", settings, b"d", 11),
            SaveShape(5, 0, Shape()),
            SaveShape(5, 1, wide),
            SaveChunk(5, 1, 3, ((1, 0), (2, 1)), b"a\0b\0\xff", checks),
            SaveChunk(5, 4, 1, ((1, 1),), b"d"),
            CloseBatch(5, 4, b"list", 22),
            state,
            progress,
        ]
    )
    store = opened()
    (batch,) = store.recover().batches
    assert (batch.batch, batch.user, batch.key, batch.settings, batch.env) == (5, "ada", "k", settings, b"d")
    assert (batch.total, batch.submitted_at_us, batch.state, batch.progress) == (4, 22, state, progress)
    assert batch.shapes == {0: Shape(), 1: wide}
    assert batch.runs == [(1, 1, 0), (2, 3, 1)]
    assert store.chunk(5, 2) == SaveChunk(5, 1, 3, ((1, 0), (2, 1)), b"a\0b\0\xff", checks)
    assert store.chunk(5, 4).lines == b"d"
    assert store.env(b"d") == b"environment"
    assert store.key("ada", "k") == (5, b"list")


def test_what_is_not_there_is_said(store: Store) -> None:
    store.commit(whole(jobs=3))
    for index in (0, 4):
        with pytest.raises(NothingThere):
            store.chunk(1, index)
    with pytest.raises(NothingThere):
        store.chunk(2, 1)
    with pytest.raises(NothingThere):
        store.env(b"other")


def test_arriving_batches_are_dropped_at_start_and_their_numbers_not_given_again(
    opened: Callable[[], Store],
) -> None:
    """The hub is killed in the middle of a submission: the client's repeat under the same key must be free to begin."""
    store = opened()
    store.commit([*whole(1), *arriving(2, key="again")])
    assert store.key("ada", "again") == (2, b"")
    found = opened().recover()
    assert [batch.batch for batch in found.batches] == [1]
    assert found.last_batch == 2
    store = opened()
    assert store.key("ada", "again") is None
    assert store.recover().last_batch == 2
    store.commit(whole(3, key="again"))
    assert store.key("ada", "again") == (3, b"list")


def test_a_dropped_batch_leaves_nothing_and_others_alone(store: Store) -> None:
    store.commit([*whole(1), *arriving(2, key="k")])
    store.commit([DropBatch(2)])
    assert store.key("ada", "k") is None
    with pytest.raises(NothingThere):
        store.chunk(2, 1)
    assert store.chunk(1, 1).count == 10


def test_within_one_group_a_batch_can_be_dropped_and_its_key_taken_again(store: Store) -> None:
    store.commit([*arriving(1, key="k"), DropBatch(1), *whole(2, key="k")])
    assert store.key("ada", "k") == (2, b"list")


def test_one_key_is_one_batch(store: Store) -> None:
    store.commit(whole(1, key="k"))
    store.commit(whole(2, user="bob", key="k"))
    with pytest.raises(StoreError):
        store.commit([SaveMeta("x", "1"), *whole(3, key="k")])
    assert store.key("ada", "k") == (1, b"list")


def test_of_a_refused_group_nothing_is_kept(opened: Callable[[], Store]) -> None:
    store = opened()
    store.commit(whole(1, key="k"))
    with pytest.raises(StoreError):
        store.commit([SaveMeta("x", "1"), *whole(2, key="k")])
    found = opened().recover()
    assert found.meta == {}
    assert [batch.batch for batch in found.batches] == [1]


def test_ended_batches_are_not_recovered_but_can_be_revived(opened: Callable[[], Store]) -> None:
    ended = SetBatch(1, "ended", 10, 0, "", (), 99)
    store = opened()
    store.commit([*whole(1, jobs=2), *whole(2)])
    store.commit([SaveAttempts([row(1, 1, 1), row(2, 1, 2, outcome="exit", state="failed")])])
    store.commit([SaveProgress(1, 2, (), (), Counts(done=1, failed=1)), ended])
    store = opened()
    assert [batch.batch for batch in store.recover().batches] == [2]
    revived = store.recover_batch(1)
    assert revived is not None
    assert store.has_batch(1) and not store.has_batch(3)
    assert (revived.state, revived.attempts, revived.charged) == (ended, [], [(2, 1, "exit", "failed", 7)])
    assert revived.runs == [(1, 2, 0)]


def test_what_is_too_old_is_found_and_goes_a_few_rows_at_a_time(opened: Callable[[], Store]) -> None:
    store = opened()
    store.commit([*whole(1, key="k", jobs=9), *whole(2), *whole(3), SaveOverride(1, 8, 8, "cancelled", 0, 5)])
    store.commit([SaveAttempts([row(number, 1, number) for number in range(1, 8)] + [row(8, 2, 1)])])
    store.commit([SaveTail(1, 1, 1, False, b"out", b"", 3, 0), SaveTail(2, 1, 1, False, b"out", b"", 3, 0)])
    store.commit([SaveEvent(at_us, "kind", "subject", "") for at_us in (10, 20, 30)])
    assert store.old(100, 10) == (None, False)
    store.commit([SetBatch(1, "ended", 0, 0, "", (), 50), SetBatch(2, "ended", 0, 0, "", (), 40)])
    assert store.old(40, 10) == (None, False)
    assert store.old(100, 11) == (2, True)
    store.commit([SetBatch(2, "open", 0, 0)])
    assert store.old(100, 0) == (1, False)
    store.commit([PruneBatch(1)])
    assert not store.has_batch(1)
    assert store.key("ada", "k") is None
    assert store.recover_batch(1) is None
    store = opened()
    assert [batch.batch for batch in store.recover().batches] == [2, 3]
    for _ in range(20):
        store.commit([PruneRows(30, 2)])
    assert store.old(100, 30) == (None, False)
    assert store.old(100, 31) == (None, True)
    assert store.node_of(1, 1, 0) is None
    assert store.node_of(2, 1, 0) is not None
    assert store.env(b"digest") == b"blob"
    store.commit(whole(4, key="k"))
    assert store.key("ada", "k") == (4, b"list")


def test_an_environment_goes_with_the_last_batch_that_has_it(store: Store) -> None:
    store.commit([*whole(1), *whole(2), *(SetBatch(batch, "ended", 0, 0, "", (), 5) for batch in (1, 2))])
    store.commit([PruneBatch(1)])
    assert store.env(b"digest") == b"blob"
    store.commit([PruneBatch(2)])
    with pytest.raises(NothingThere):
        store.env(b"digest")


def test_an_arriving_batch_cannot_be_revived(store: Store) -> None:
    store.commit(arriving(1))
    assert store.recover_batch(1) is None
    assert not store.has_batch(1)


def test_attempts_after_the_progress_come_back_in_order(store: Store) -> None:
    store.commit([*whole(1), *whole(2)])
    store.commit([SaveAttempts([row(1, 1, 1), row(2, 2, 1), row(3, 1, 2, outcome="exit", state="queued")])])
    store.commit([SaveProgress(1, 3, ((2, 10),), (), Counts(queued=9, done=1))])
    store.commit([SaveAttempts([row(4, 1, 2, attempt=2, outcome="lost", state="queued"), row(5, 2, 2)])])
    first, second = store.recover().batches
    assert first.attempts == [(4, 2, 2, GRANT, 7, "queued", "lost", 54)]
    assert first.charged == [(2, 1, "exit", "queued", 7), (2, 2, "lost", "queued", 7)]
    assert [attempt[:2] for attempt in second.attempts] == [(2, 1), (5, 2)]
    assert store.recover().last_row == 5


def test_reopened_jobs_are_charged_for_nothing_but_what_comes_after(store: Store) -> None:
    """Jobs are retried in the group that holds their last failures, and one of them fails again in it."""
    store.commit(whole(1))
    failed = {"outcome": "exit", "state": "failed"}
    store.commit([SaveAttempts([row(1, 1, 1, **failed), row(2, 1, 5, **failed)])])
    again = row(4, 1, 2, attempt=2, grant=GRANT + 1, **failed)
    store.commit([SaveAttempts([row(3, 1, 2, **failed)]), ReopenJobs(1, 1, 3), SaveAttempts([again])])
    (batch,) = store.recover().batches
    assert [(index, attempt, state) for index, attempt, _, state, _ in batch.charged] == [
        (1, 1, "reopened"),
        (2, 1, "reopened"),
        (2, 2, "failed"),
        (5, 1, "failed"),
    ]


def test_progress_and_the_attempts_it_covers_in_one_group(store: Store) -> None:
    store.commit(whole(1))
    progress = SaveProgress(1, 1, ((2, 10),), (), Counts(queued=9, done=1))
    store.commit([SaveAttempts([row(1, 1, 1)]), progress, SaveAttempts([row(2, 1, 2)])])
    (batch,) = store.recover().batches
    assert [attempt[:2] for attempt in batch.attempts] == [(2, 2)]


def test_the_last_progress_of_a_group_counts(store: Store) -> None:
    store.commit(whole(1))
    last = SaveProgress(1, 0, ((3, 10),), (), Counts(queued=10))
    store.commit([SaveProgress(1, 0, ((1, 10),), (), Counts(queued=10)), last])
    assert store.recover().batches[0].progress == last


def test_grants_come_back_without_members_that_ended_under_them(store: Store) -> None:
    """Killed between the results' commit and the grant's: the restart must not wait for results it has."""
    store.commit(whole(1, jobs=30))
    store.commit(
        [
            SaveGrant(GRANT + 1, 7, 1, 1, ((1, 5), (9, 9))),
            SaveGrant(GRANT + 2, 8, 1, 1, ((10, 11),)),
            SaveGrant(GRANT + 3, 8, 1, 2, ((6, 6),)),
        ]
    )
    ended = [row(index, 1, index, grant=GRANT + 1) for index in (1, 3, 9)]
    store.commit([SaveAttempts([*ended, row(20, 1, 10, grant=GRANT + 2), row(21, 1, 11, grant=GRANT + 2)])])
    store.commit([SaveAttempts([row(22, 1, 6, grant=GRANT, outcome="lost", state="queued")])])
    (batch,) = store.recover().batches
    assert batch.grants == [
        SaveGrant(GRANT + 1, 7, 1, 1, ((2, 2), (4, 5))),
        SaveGrant(GRANT + 3, 8, 1, 2, ((6, 6),)),
    ]


def test_a_grant_over_several_nodes_comes_back_with_all_of_them(store: Store) -> None:
    store.commit(whole(1))
    wide = SaveGrant(GRANT, 7, 1, 1, ((4, 4),), (8, 9))
    broken = SaveGrant(GRANT + 1, 7, 1, 1, ((5, 5),), (8,), "n8 was removed")
    store.commit([wide, SaveGrant(GRANT + 1, 7, 1, 1, ((5, 5),), (8,)), SaveGrant(GRANT + 2, 7, 1, 1, ((6, 6),))])
    store.commit([broken])
    assert store.recover().batches[0].grants == [wide, broken, SaveGrant(GRANT + 2, 7, 1, 1, ((6, 6),))]
    store.commit([DropGrant(GRANT), SaveAttempts([row(1, 1, 5, grant=GRANT + 1)])])
    assert [grant.grant for grant in store.recover().batches[0].grants] == [GRANT + 2]


def test_the_last_word_about_a_grant_counts(store: Store) -> None:
    store.commit(whole(1))
    store.commit([SaveGrant(GRANT, 7, 1, 1, ((1, 9),)), SaveGrant(GRANT, 7, 1, 1, ((2, 3),)), DropGrant(GRANT + 1)])
    assert store.recover().batches[0].grants == [SaveGrant(GRANT, 7, 1, 1, ((2, 3),))]
    store.commit([DropGrant(GRANT), SaveGrant(GRANT + 1, 7, 1, 2, ((4, 4),))])
    assert store.recover().batches[0].grants == [SaveGrant(GRANT + 1, 7, 1, 2, ((4, 4),))]


def test_overrides_replace_each_other_where_they_overlap(store: Store) -> None:
    store.commit(whole(1, jobs=100))
    store.commit([SaveOverride(1, 10, 50, "shape", 1), SaveOverride(1, 20, 29, "shape", 2)])
    store.commit([SaveOverride(1, 5, 12, "shape", 3), SaveOverride(1, 40, 60, "cancelled", at_us=9)])
    store.commit([DropOverrides(1, 45, 46, "shape"), DropOverrides(1, 50, 55, "cancelled")])
    (batch,) = store.recover().batches
    assert batch.reshaped == [(5, 12, 3), (13, 19, 1), (20, 29, 2), (30, 44, 1), (47, 50, 1)]
    assert batch.cancelled == ((40, 49), (56, 60))


def test_neighbouring_overrides_of_one_value_are_one(store: Store) -> None:
    store.commit(whole(1, jobs=100))
    store.commit([SaveOverride(1, index, index, "cancelled", at_us=index) for index in (3, 1, 2, 7)])
    assert store.recover().batches[0].cancelled == ((1, 3), (7, 7))


def test_an_override_can_be_dropped_and_set_again_in_one_group(store: Store) -> None:
    store.commit(whole(1))
    store.commit([SaveOverride(1, 1, 5, "cancelled"), DropOverrides(1, 1, 9, "cancelled")])
    store.commit([DropOverrides(1, 1, 9, "cancelled"), SaveOverride(1, 4, 4, "cancelled")])
    assert store.recover().batches[0].cancelled == ((4, 4),)


def test_who_holds_jobs_comes_back(store: Store) -> None:
    store.commit(whole(1, jobs=100))
    store.commit([SaveOverride(1, 5, 9, "hold user ann", 0, 3), SaveOverride(1, 20, 29, "hold operator olga", 50, 4)])
    store.commit([SaveOverride(1, 1, 1, "holding", 0, 3), SaveOverride(1, 7, 7, "hold user ann", 80, 6)])
    store.commit([SaveOverride(1, 1, 100, "hold system ", 0, 7), DropOverrides(1, 25, 40, "hold operator olga")])
    assert store.recover().batches[0].holds == [
        ("hold operator olga", 20, 24, 50, 4),
        ("hold system ", 1, 100, 0, 7),
        ("hold user ann", 5, 6, 0, 3),
        ("hold user ann", 7, 7, 80, 6),
        ("hold user ann", 8, 9, 0, 3),
    ]


def test_what_is_to_make_way_comes_back(store: Store) -> None:
    store.commit(whole(1, jobs=100))
    gone = SaveOverride(1, 5, 5, "preempted requeue", 417, 3)
    store.commit([gone, SaveOverride(1, 7, 7, "preempted cancel", 418, 4)])
    store.commit([SaveOverride(1, 8, 8, "preempted requeue", 419, 5), DropOverrides(1, 5, 5, "preempted requeue")])
    batch = store.recover().batches[0]
    assert batch.preempted == [("preempted cancel", 7, 7, 418, 4), ("preempted requeue", 8, 8, 419, 5)]
    assert batch.holds == []


def test_settings_may_change(opened: Callable[[], Store]) -> None:
    store = opened()
    store.commit([*whole(1), *whole(2)])
    changed = BatchSettings(name="n", account="a", service="s", start_after_us=9)
    store.commit([SaveSettings(1, BatchSettings()), SaveSettings(1, changed)])
    first, second = opened().recover().batches
    assert (first.settings, first.key) == (changed, "key1")
    assert second.settings.name == "b2"


def test_the_account_that_is_charged_may_change(opened: Callable[[], Store]) -> None:
    store = opened()
    opening = OpenBatch(1, "ada", "key1", BatchSettings(), b"digest", 1000, account="physics")
    rest = (record for record in whole(1) if not isinstance(record, OpenBatch))
    store.commit([opening, *rest, *whole(2), *whole(3)])
    store.commit([SaveAccount(2, "physics"), SaveAccount(2, "biology"), SaveSettings(2, BatchSettings(name="n"))])
    assert [batch.account for batch in opened().recover().batches] == ["physics", "biology", ""]


def test_who_ran_an_attempt(store: Store) -> None:
    store.commit(whole(1))
    store.commit([SaveAttempts([row(1, 1, 4, grant=GRANT), row(2, 1, 4, attempt=2, grant=GRANT + 5)])])
    assert store.node_of(1, 4, 1) == (7, 1, GRANT)
    assert store.node_of(1, 4, 0) == (7, 2, GRANT + 5)
    assert store.node_of(1, 4, 3) is None


def test_nodes_and_meta_keep_their_last_value(opened: Callable[[], Store]) -> None:
    def node(name: str, state: str) -> SaveNode:
        capacity = Capacity(cpu_milli=8000, memory_bytes=1 << 33, gpus=("0", "1"), named=(("license", 3),))
        return SaveNode(2, name, b"hash", "boot", state, True, capacity, ("cgroup",), "ada", 5, 6)

    store = opened()
    store.commit([SaveMeta("epoch", "1"), node("n", "up"), SaveMeta("epoch", "2")])
    store.commit([SaveMeta("port", "9"), node("k", "up"), node("m", "away")])
    found = opened().recover()
    assert found.meta == {"epoch": "2", "port": "9"}
    assert found.nodes == [node("m", "away")]


def test_tokens_keep_their_last_value(opened: Callable[[], Store]) -> None:
    store = opened()
    one = SaveToken(1, "user", "ann", b"1" * 32, 5, 9, 0, "laptop")
    store.commit([one, SaveToken(2, "agent", "bob", b"2" * 32, 6)])
    store.commit([SaveToken(2, "agent", "bob", b"2" * 32, 6, 0, 7), SaveToken(3, "admin", "eve", b"3" * 32, 8)])
    assert opened().recover().tokens == [
        one,
        SaveToken(2, "agent", "bob", b"2" * 32, 6, 0, 7),
        SaveToken(3, "admin", "eve", b"3" * 32, 8),
    ]


def test_the_audit_trail_goes_when_it_is_too_old(opened: Callable[[], Store]) -> None:
    def audit(number: int) -> SaveAudit:
        caller = Caller("ann", Role.USER, Origin("unix", 1000, 42))
        return SaveAudit(number, 10 * number, caller, "batch.hold", "batch 1", {"held": 1}, {"is_drained": True})

    store = opened()
    assert store.recover().last_audit == 0
    store.commit([audit(1), audit(2), audit(3)])
    assert opened().recover().last_audit == 3
    store = opened()
    assert store.old(0, 10) == (None, False)
    assert store.old(0, 21) == (None, True)
    store.commit([PruneRows(21, 100)])
    assert store.old(0, 21) == (None, False)
    assert store.old(0, 31) == (None, True)
    assert store.recover().last_audit == 3


def test_the_present_reasons_of_an_unfinished_batch_are_recovered(store: Store) -> None:
    """Only the last one of each line, by shape; an empty code takes it away."""
    store.commit([*whole(1), *whole(2), SaveReason(1, 1, "no_room", "all are busy", 5)])
    store.commit([SaveReason(1, 0, "next", "soon", 6), SaveReason(1, 1, "reserved", "for ada", 7)])
    store.commit([SaveReason(2, 0, "no_room", "all are busy", 8), SaveReason(2, 0, "", "", 9)])
    first, second = store.recover().batches
    assert first.reasons == [SaveReason(1, 0, "next", "soon", 6), SaveReason(1, 1, "reserved", "for ada", 7)]
    assert second.reasons == []
    assert store.recover_batch(1) == first


def test_the_last_run_times_of_a_batch_are_recovered(store: Store) -> None:
    """Of its successes, as far as they are among its last rows or near them; others' rows between do not count."""
    store.commit([*whole(1, jobs=200), *whole(2, jobs=200)])
    store.commit([SaveAttempts([row(n, 1, n) for n in range(1, 31)])])
    store.commit([SaveAttempts([row(31, 1, 31, outcome="exit", state="failed"), row(32, 2, 1)])])
    store.commit([SaveAttempts([row(n, 1, n) for n in range(33, 131)])])
    first, second = store.recover().batches
    assert first.walls == [(n, n, row(n, 1, n)[12]) for n in range(111, 131)]
    assert second.walls == [(32, 1, row(32, 2, 1)[12])]
    store.commit([SaveAttempts([row(n, 2, n, outcome="exit", state="failed") for n in range(131, 241)])])
    assert [each.walls for each in store.recover().batches] == [first.walls, []]


def test_giving_records_twice_changes_nothing(store: Store) -> None:
    """A group whose commit was not known to have happened is given again after a restart."""
    groups: list[list[Record]] = [
        whole(1),
        [SaveGrant(GRANT, 7, 1, 1, ((1, 3),)), SaveReason(1, 0, "full", "8 of 8 cpus are taken", 5)],
        [SaveAttempts([row(1, 1, 1), row(2, 1, 2, outcome="exit", state="failed")])],
        [SaveOverride(1, 9, 10, "cancelled"), SaveTail(1, 2, 1, True, b"o", b"e", 1, 1), SaveEvent(1, "a", "b", "c")],
        [SaveToken(1, "user", "ann", b"1", 5), SaveAudit(1, 5, Caller(), "agent.join", "node n", is_refused=True)],
    ]
    for group in groups:
        store.commit(group)
    once = store.recover()
    for group in groups:
        store.commit([*group, *group])
    assert store.recover() == once


def test_many_records_of_every_size_of_group(store: Store) -> None:
    store.commit(whole(1, jobs=5000))
    written = 0
    for size in (1, 2, 3, 7, 64, 511, 512, 513, 1300):
        store.commit([SaveAttempts([row(written + n, 1, written + n) for n in range(1, size + 1)])])
        written += size
    (batch,) = store.recover().batches
    assert [attempt[:2] for attempt in batch.attempts] == [(n, n) for n in range(1, written + 1)]
