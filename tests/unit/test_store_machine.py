"""SQLite against the in-memory store: whatever is committed, both recover the same, after every restart."""

import tempfile
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lanai.model.batch import BatchSettings, Counts
from lanai.model.job import FINAL
from lanai.model.ranges import canonical, contains, from_indices, intersect
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
    SaveGrant,
    SaveMeta,
    SaveOverride,
    SaveProgress,
    SaveReason,
    SaveShape,
    SaveTail,
    SetBatch,
)
from lanai.model.resources import Shape
from lanai.store.memory import MemoryStore, Tables
from lanai.store.reader import SqliteReader
from lanai.store.sqlite import SqliteWriter

JOBS = 12
TAILS_BYTES = 60
STATES = ("held", "queued", "locked", "done", "failed", "cancelled")

indices = st.integers(1, JOBS)
spans = st.tuples(indices, indices).map(lambda pair: (min(pair), max(pair)))
sets_of_jobs = st.lists(spans, max_size=4).map(canonical)
BATCHES = (1, 2)
batches = st.sampled_from(BATCHES)
outcomes = st.sampled_from(
    [("ok", "done"), ("exit", "failed"), ("exit", "queued"), ("lost", "queued"), ("cancelled", "cancelled")]
)
ends_of_attempts = st.lists(st.tuples(indices, st.integers(1, 3), outcomes), min_size=1, max_size=9)


class StoreMachine(RuleBasedStateMachine):
    """Records are gathered into a group, as the hub does, and committed to both stores."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="lanai-store-")
        self.memory = MemoryStore(tails_bytes=TAILS_BYTES)
        self.sqlite = self._open()
        self.reader = SqliteReader(Path(self.directory.name))
        self.group: list[Record] = []
        self.opened: dict[int, bool] = {}
        self.rows = 0
        self.grants = 0
        self.submit(1, [0, 0, 1, 0])
        self.close_batch(1)
        self.commit()

    def _open(self) -> SqliteWriter:
        return SqliteWriter(Path(self.directory.name), durability="normal", tails_bytes=TAILS_BYTES)

    def teardown(self) -> None:
        self.reader.close()
        self.sqlite.close()
        self.directory.cleanup()

    # -- what goes into a group

    @rule(batch=batches, first_shapes=st.lists(st.integers(0, 1), min_size=JOBS // 3, max_size=JOBS // 3))
    def submit(self, batch: int, first_shapes: list[int]) -> None:
        if batch in self.opened:
            return
        self.opened[batch] = False
        self.group += [
            SaveEnv(b"d", b"env"),
            OpenBatch(batch, "ada", f"k{batch}", BatchSettings(name=str(batch)), b"d", 1),
            SaveShape(batch, 0, Shape()),
            SaveShape(batch, 1, Shape(cpu_milli=2000)),
        ]
        for at, shape in enumerate(first_shapes):
            lines = b"\0".join(b"job %d" % (at * 3 + n) for n in (1, 2, 3))
            self.group.append(SaveChunk(batch, at * 3 + 1, 3, ((2, shape), (1, 0)), lines))

    @rule(batch=batches)
    def close_batch(self, batch: int) -> None:
        if self.opened.get(batch) is False:
            self.opened[batch] = True
            self.group.append(CloseBatch(batch, JOBS, b"list", 2))

    @rule(batch=batches)
    def abandon(self, batch: int) -> None:
        if self.opened.get(batch) is False:
            del self.opened[batch]
            self.group.append(DropBatch(batch))

    @rule(batch=batches, state=st.sampled_from(["open", "held", "paused", "ended"]), avoided=st.sets(st.integers(1, 3)))
    def set_batch(self, batch: int, state: str, avoided: set[int]) -> None:
        if self.opened.get(batch):
            self.group.append(SetBatch(batch, state, 5, 2, "why", tuple(sorted(avoided)), 9 if state == "ended" else 0))

    @rule(batch=batches, retried=sets_of_jobs, held=sets_of_jobs)
    def progress(self, batch: int, retried: tuple[tuple[int, int], ...], held: tuple[tuple[int, int], ...]) -> None:
        """As the hub would write it: all that waits, and now and then what somebody has asked to retry."""
        if not self.opened.get(batch):
            return
        self.commit()
        states = {index: naive_state(self.memory.kept, batch, index) for index in range(1, JOBS + 1)}
        waiting = [index for index, state in states.items() if state in ("queued", "held")]
        again = [index for index, state in states.items() if state == "failed" and contains(retried, index)]
        pending = from_indices(waiting + again)
        self.group.append(SaveProgress(batch, self.rows, pending, intersect(pending, held), Counts(queued=JOBS)))
        self.commit()

    @rule(batch=batches, what=st.sampled_from(["cancelled", "shape"]), span=spans, value=st.integers(0, 1))
    def override(self, batch: int, what: str, span: tuple[int, int], value: int) -> None:
        if self.opened.get(batch):
            self.group.append(SaveOverride(batch, *span, what, 0 if what == "cancelled" else value, 7))

    @rule(batch=batches, what=st.sampled_from(["cancelled", "shape"]), span=spans)
    def drop_overrides(self, batch: int, what: str, span: tuple[int, int]) -> None:
        if self.opened.get(batch):
            self.group.append(DropOverrides(batch, *span, what))
            self.progress(batch, (), ())

    @rule(batch=batches, members=sets_of_jobs, attempt=st.integers(1, 3))
    def grant(self, batch: int, members: tuple[tuple[int, int], ...], attempt: int) -> None:
        if self.opened.get(batch) and members:
            self.grants += 1
            self.group.append(SaveGrant(self.grants, 1, batch, attempt, members))

    @rule(back=st.integers(0, 2))
    def drop_grant(self, back: int) -> None:
        self.group.append(DropGrant(max(1, self.grants - back)))
        for batch in BATCHES:
            self.progress(batch, (), ())

    @rule(back=st.integers(0, 2), batch=batches, ended=ends_of_attempts)
    def end_attempts(self, back: int, batch: int, ended: list[tuple[int, int, tuple[str, str]]]) -> None:
        if not self.opened.get(batch):
            return
        grant = max(1, self.grants - back)
        rows: list[AttemptRow] = []
        for index, attempt, (outcome, state) in ended:
            self.rows += 1
            code = 1 if outcome == "exit" else None
            rows.append((self.rows, batch, index, attempt, grant, 1, state, outcome, code, 0, 1, 2, 3, 4, 5, None, "r"))
        self.group.append(SaveAttempts(rows))

    @rule(batch=batches, index=indices, is_failed=st.booleans(), size=st.integers(0, 40))
    def tail(self, batch: int, index: int, is_failed: bool, size: int) -> None:
        if self.opened.get(batch):
            self.group.append(SaveTail(batch, index, 1, is_failed, b"o" * size, b"e", size, 1))

    @rule(batch=batches, shape=st.integers(0, 1), code=st.sampled_from(["", "full", "none"]))
    def reason(self, batch: int, shape: int, code: str) -> None:
        if self.opened.get(batch):
            self.group.append(SaveReason(batch, shape, code, "text", 4))

    @rule(value=st.integers(0, 3))
    def meta(self, value: int) -> None:
        self.group.append(SaveMeta("value", str(value)))

    # -- what happens to it

    @rule()
    def commit(self) -> None:
        self.memory.commit(self.group)
        self.sqlite.commit(self.group)
        self.group = []

    @rule(truncate=st.booleans())
    def checkpoint(self, truncate: bool) -> None:
        self.sqlite.checkpoint(truncate=truncate)

    @rule()
    def restart(self) -> None:
        """The open group is lost, and with it what it was to open. A start knows what waits, and says so."""
        self.group = []
        self.sqlite.close()
        self.sqlite = self._open()
        assert self.sqlite.recover() == self.memory.recover()
        kept = self.memory.kept
        self.opened = dict.fromkeys(kept.closed, True)
        self.rows = max(kept.attempts, default=0)
        for batch in BATCHES:
            self.progress(batch, (), ())

    @invariant()
    def both_say_the_same(self) -> None:
        for batch in BATCHES:
            assert self.sqlite.recover_batch(batch) == self.memory.recover_batch(batch)
            assert self.sqlite.key("ada", f"k{batch}") == self.memory.key("ada", f"k{batch}")
            for index in (1, JOBS):
                assert self.sqlite.node_of(batch, index, 0) == self.memory.node_of(batch, index, 0)

    @rule(states=st.sets(st.sampled_from(STATES)), ranges=st.none() | sets_of_jobs, limit=st.integers(1, JOBS))
    def readers_see_every_job_where_it_stands(
        self, states: set[str], ranges: tuple[tuple[int, int], ...] | None, limit: int
    ) -> None:
        self.commit()
        for batch in self.memory.kept.closed:
            stands = {index: naive_state(self.memory.kept, batch, index) for index in range(1, JOBS + 1)}
            for wanted in (states, set[str](), *({state} for state in STATES)):
                expected = {
                    index: state
                    for index, state in stands.items()
                    if state in (wanted or STATES) and (ranges is None or contains(ranges, index))
                }
                assert paged(self.reader, batch, wanted, ranges, limit) == expected

    @rule()
    def readers_see_tails_and_reasons(self) -> None:
        self.commit()
        kept = self.memory.kept
        for batch in kept.closed:
            for index in range(1, JOBS + 1):
                assert self.reader.tail(batch, index, 1) == kept.tails.get((batch, index, 1))
            assert self.reader.reasons(batch) == [kept.reasons[key] for key in sorted(kept.reasons) if key[0] == batch]


def paged(
    reader: SqliteReader, batch: int, states: set[str], ranges: tuple[tuple[int, int], ...] | None, limit: int
) -> dict[int, str]:
    found: dict[int, str] = {}
    after: int | None = 0
    while after is not None:
        jobs, after = reader.jobs(batch, after=after, limit=limit, states=states, ranges=ranges)
        assert len(jobs) <= limit
        assert all(job["command"] == f"job {job['index']}" for job in jobs)
        found |= {job["index"]: job["state"] for job in jobs}
    assert list(found) == sorted(found)
    return found


def naive_state(kept: Tables, batch: int, index: int) -> str:
    rows = [row for number, row in sorted(kept.attempts.items()) if row[1:3] == (batch, index)]
    progress = kept.progress.get(batch)
    last = rows[-1] if rows else None
    for grant in kept.grants.values():
        if grant.batch == batch and contains(grant.ranges, index) and (last is None or grant.attempt > last[3]):
            return "locked"
    waits = progress is not None and (contains(progress.pending, index) or contains(progress.held, index))
    if last is not None and last[6] in FINAL and not (waits and progress is not None and last[0] <= progress.upto):
        return last[6]
    if any(each.first <= index <= each.last for each in kept.overrides.get((batch, "cancelled"), [])):
        return "cancelled"
    return "held" if progress is not None and contains(progress.held, index) else "queued"


# Explaining a failure traces every line and takes minutes here.
StoreMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.explain}
)
TestStoreMachine = StoreMachine.TestCase


def test_the_naive_reference_tells_states_apart() -> None:
    kept = Tables()
    kept.attempts[1] = (1, 1, 2, 1, 1, 1, "failed", "exit", 1, 0, 0, 0, 0, 0, 0, None, "")
    kept.progress[1] = SaveProgress(1, 1, ((3, 3),), from_indices([4]), Counts())
    kept.overrides[1, "cancelled"] = [SaveOverride(1, 5, 5, "cancelled")]
    kept.grants[2] = SaveGrant(2, 1, 1, 1, ((6, 6),))
    states = [naive_state(kept, 1, index) for index in range(1, 7)]
    assert states == ["queued", "failed", "queued", "held", "cancelled", "locked"]
