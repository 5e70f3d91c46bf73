"""Batches come in, chunk by chunk, or are found again in the store."""

import pytest

from core_recorder import GIB, Recorder, capacity, grant
from lanai.core import intake
from lanai.core.batches import Tried, Tries
from lanai.core.effects import AckChunk, Answer, StartAttempts
from lanai.core.events import (
    AttemptsStarted,
    BatchAbandoned,
    BatchClosed,
    BatchOpened,
    BatchRevived,
    ChunkArrived,
    JobsCancelled,
    JobsHeld,
    JobsRetried,
)
from lanai.core.intake import tried_of
from lanai.model.batch import BatchSettings, Retries
from lanai.model.ids import BatchId, GrantId, Index, ShapeId
from lanai.model.records import SaveMeta
from lanai.model.resources import Shape


def opened(hub: Recorder) -> BatchId:
    hub.feed(BatchOpened(1, "ann", "key", BatchSettings(), b"digest", b"blob", 0))
    batch = BatchId(hub.core.world.last_batch)
    assert hub.take_all() == [Answer(1, {"batch": batch})]
    return batch


def chunk(
    batch: BatchId, first: int, *runs: tuple[int, int], shapes: int = 0, count: int | None = None
) -> ChunkArrived:
    fresh = tuple((ShapeId(number), Shape(cpu_milli=1000 + number)) for number in range(shapes))
    counted = sum(size for size, _ in runs) if count is None else count
    return ChunkArrived(9, batch, first, counted, tuple((n, ShapeId(s)) for n, s in runs), fresh, b"", {})


def test_chunks_are_acknowledged_and_their_neighbours_are_one_run(hub: Recorder) -> None:
    batch = opened(hub)
    hub.feed(chunk(batch, 1, (3, 0), (2, 1), shapes=2), chunk(batch, 6, (4, 1), (1, 0)))
    assert hub.take_all() == [AckChunk(9, batch, 1), AckChunk(9, batch, 6)]
    hub.feed(BatchClosed(2, batch, 10, b"digest", 0))
    assert hub.take_all() == [Answer(2, {"batch": batch, "jobs": 10})]
    assert hub.batch(batch).runs == [(1, 3, 0), (4, 6, 1), (10, 1, 0)]
    waiting = {line.shape_id: line.waiting.spans() for line in hub.batch(batch).lines.values()}
    assert waiting == {0: ((1, 3), (10, 10)), 1: ((4, 9),)}


@pytest.mark.parametrize(
    "bad",
    [
        chunk(BatchId(1), 2, (3, 0), shapes=1),
        chunk(BatchId(1), 1, (3, 0), shapes=1, count=4),
        chunk(BatchId(1), 1, (3, 5), shapes=1),
    ],
    ids=["out of order", "miscounted", "a shape nobody named"],
)
def test_a_chunk_that_cannot_be_true_ends_the_batch(hub: Recorder, bad: ChunkArrived) -> None:
    batch = opened(hub)
    hub.feed(bad)
    assert hub.take_all() == []
    assert batch not in hub.store.kept.opened
    hub.feed(BatchClosed(2, batch, 3, b"digest", 0))
    assert hub.refusal() == "no_such_batch"


@pytest.mark.parametrize("total", [0, 2, 4])
def test_a_wrong_total_drops_the_batch(hub: Recorder, total: int) -> None:
    batch = opened(hub)
    hub.feed(chunk(batch, 1, (3, 0), shapes=1), BatchClosed(2, batch, total, b"digest", 0))
    assert hub.refusal() == "bad_total"
    assert hub.take_all() == [AckChunk(9, batch, 1)]
    assert batch not in hub.store.kept.opened


def test_an_abandoned_batch_is_dropped_once(hub: Recorder) -> None:
    batch = opened(hub)
    hub.feed(BatchAbandoned(batch), BatchAbandoned(batch))
    assert hub.store.kept.opened == {}
    assert opened(hub) > batch, "its number is not given again"


def test_a_start_drops_what_was_arriving(hub: Recorder) -> None:
    """The hub was killed while a list came in: its client submits again under the same key."""
    batch = opened(hub)
    hub.feed(chunk(batch, 1, (3, 0), shapes=1))
    hub.take_all()
    hub.restart()
    assert hub.core.world.batches == {}
    assert opened(hub) == batch + 1


def test_everything_of_a_batch_is_found_again(hub: Recorder) -> None:
    """Killed in the middle: some done, one failed, some granted, some held, some cancelled, one with more memory."""
    node = hub.join("n", capacity(cpus=4, gib=32))
    batch = hub.submit(30, retries=Retries(exit=1), shape=Shape(memory_bytes=GIB))
    hub.start()
    hub.feed(JobsHeld(1, batch, ((20, 22),), 0), JobsCancelled(2, batch, ((25, 30),), (), 0))
    hub.end(node, 1, 1)
    hub.end(node, 1, 2, outcome="signal")
    hub.end(node, 1, 3, outcome="memory")
    hub.end(node, 1, 4, outcome="exit")
    hub.take_all()
    before = hub.batch(batch)
    hub.restart()
    after = hub.batch(batch)
    assert after.counts == before.counts
    for part in ("held", "failed", "cancelled"):
        assert getattr(after, part).spans() == getattr(before, part).spans()
    assert after.pending().spans() == before.pending().spans()
    assert (after.shapes, after.reshaped) == (before.shapes, before.reshaped)
    assert {i: (t.attempts, t.charges) for i, t in after.tries.items()} == {
        i: (t.attempts, t.charges) for i, t in before.tries.items()
    }
    assert set(hub.core.world.grants) == set(hub.store.kept.grants)


def test_the_number_of_a_grant_is_never_given_twice(hub: Recorder) -> None:
    """All grants had ended when the hub was killed, and so the store knew none: the next was the first again.

    A result of the old grant that an agent had kept would have counted for the new one.
    """
    node = hub.join("n", capacity(cpus=1))
    hub.submit(1)
    hub.start()
    hub.end(node, 1, 1)
    hub.take_all()
    hub.restart()
    hub.join("n", capacity(cpus=1), take=False)
    hub.take_all()
    hub.submit(1)
    (started,) = hub.start()
    assert started.grant > grant(1)
    assert started.grant == GrantId(grant(0) + int(hub.store.kept.meta["grant"]) - 999)
    assert len(hub.take_kept(SaveMeta)) == 2, "one word to the store for a thousand grants"


def test_a_wish_to_hold_survives_a_restart(hub: Recorder) -> None:
    """The command was answered; the Recall it had caused was never sent, for the hub was killed."""
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.feed(JobsHeld(1, batch, ((2, 2),), 0))
    hub.take_all()
    hub.restart()
    assert hub.counts(batch) == {"locked": 2}
    hub.hello("n", capacity(cpus=2))
    hub.take_all()
    hub.returned(node, 1, 2)
    assert hub.counts(batch) == {"held": 1, "locked": 1}


def test_a_wish_to_cancel_survives_a_restart(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.feed(JobsCancelled(1, batch, ((2, 2),), (), 0))
    hub.take_all()
    hub.restart()
    hub.returned(node, 1, 2)
    assert hub.counts(batch) == {"locked": 1, "cancelled": 1}


def test_what_was_known_to_run_is_known_again_from_the_inventory(hub: Recorder) -> None:
    """Beginnings are not committed one by one."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    hub.feed(AttemptsStarted(node, [(grant(1), 1, 5)]))
    hub.take_all()
    hub.restart()
    assert hub.counts(batch) == {"locked": 1}


def end_one_of_two(hub: Recorder) -> BatchId:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.end(node, 1, 1)
    hub.end(node, 1, 2, outcome="exit")
    hub.take_all()
    return batch


def test_an_ended_batch_is_revived_for_a_retry(hub: Recorder) -> None:
    batch = end_one_of_two(hub)
    found = hub.store.recover_batch(batch)
    assert found is not None
    hub.feed(BatchRevived(found), JobsRetried(1, batch, None, (), 0))
    assert hub.answer() == {"changed": 1}
    assert hub.counts(batch) == {"queued": 1, "done": 1}
    assert [(start.spans, start.attempt) for start in hub.start()] == [(((2, 2),), 2)]


def test_a_retry_of_very_many_failures_costs_by_ranges(hub: Recorder) -> None:
    """What is known of each job that failed is read elsewhere; a million of them once held the hub up for seconds."""

    class Untouched(dict[Index, Tries]):
        def get(self, *_: object) -> Tries:  # type: ignore[override]
            raise AssertionError("one by one")

        __iter__ = items = keys = values = get  # type: ignore[assignment]

    node = hub.join("n", capacity(cpus=10))
    batch = hub.submit(10)
    hub.start()
    hub.end(node, 1, *range(1, 11), outcome="exit")
    hub.take_all()
    found = hub.store.recover_batch(batch)
    assert found is not None
    tried = tried_of(found)
    untouched = Tried(Untouched(tried.tries), tried.failed, tried.cancelled, {})
    found.charged.clear()
    hub.feed(BatchRevived(found, untouched), JobsRetried(1, batch, None, (), 0))
    assert hub.answer() == {"changed": 10}
    assert hub.counts(batch) == {"queued": 10}
    hub.batch(batch).tries = tried.tries
    assert [(start.spans, start.attempt) for start in hub.start()] == [(((1, 10),), 2)]


def test_a_reading_older_than_the_end_does_not_revive(hub: Recorder) -> None:
    """Retry arrives between the end of the batch and its commit: the store says that it still runs.

    Taken for true, the attempts of that reading would have counted a second time.
    """
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    stale = hub.store.recover_batch(batch)
    assert stale is not None
    hub.end(node, 1, 1, 2)
    hub.take_all()
    hub.feed(BatchRevived(stale), JobsRetried(1, batch, None, (), 0))
    assert hub.refusal() == "batch_ended"
    assert hub.core.world.grants == {}


def test_retries_are_fresh_after_a_retry_and_a_restart(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1, retries=Retries(exit=1))
    hub.start()
    hub.end(node, 1, 1, outcome="exit")
    hub.decide()
    hub.take_all()
    hub.feed(JobsCancelled(1, batch, None, (), 0))
    hub.end(node, 2, 1, outcome="exit")
    hub.take_all()
    found = hub.store.recover_batch(batch)
    assert found is not None
    hub.feed(BatchRevived(found), JobsRetried(2, batch, None, (), 0))
    hub.take_all()
    hub.restart()
    assert (hub.batch(batch).tries[1].attempts, hub.batch(batch).tries[1].charges) == (2, {})


def test_a_start_asks_for_a_pass(hub: Recorder) -> None:
    hub.submit(1)
    hub.restart()
    assert hub.core.needs_pass
    hub.join("n", take=False)
    hub.decide()
    assert len(hub.take(StartAttempts)) == 1
    hub.take_all()


def test_so_many_batches_of_one_user_may_be_under_way(hub: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BATCHES_EACH", 2)
    opened(hub)
    hub.submit(1, user="bob")
    ann = BatchOpened(1, "ann", "", BatchSettings(), b"digest", b"blob", 0)
    hub.feed(ann)
    assert [answer.error for answer in hub.take_all()] == [None]
    hub.feed(ann)
    (answer,) = hub.take_all()
    assert isinstance(answer, Answer) and answer.error is not None
    assert (answer.error.code, answer.error.http_status) == ("too_many_batches", 429)
    hub.submit(1, user="bob")
