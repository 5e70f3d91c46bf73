"""What people want done with their jobs."""

import pytest

from core_recorder import Recorder, capacity, grant
from lanai.core.effects import Answer, BatchMoved, KillAttempts, RecallJobs
from lanai.core.events import (
    AttemptsStarted,
    BatchChanged,
    Event,
    JobsCancelled,
    JobsHeld,
    JobsReleased,
    JobsRetried,
)
from lanai.model.ids import BatchId, NodeId
from lanai.model.records import SaveOverride


def running(hub: Recorder) -> tuple[NodeId, BatchId]:
    """Ten jobs: 1 runs, 2 is granted, the rest waits, 9 and 10 are held."""
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(10)
    hub.feed(JobsHeld(1, batch, ((9, 10),), 0))
    hub.take_all()
    hub.start()
    hub.feed(AttemptsStarted(node, [(grant(1), 1, 5)]))
    hub.take_all()
    hub.take_kept(SaveOverride)
    assert hub.counts(batch) == {"held": 2, "queued": 6, "locked": 1, "running": 1}
    return node, batch


def test_cancel_takes_out_what_waits_and_kills_what_runs(hub: Recorder) -> None:
    node, batch = running(hub)
    hub.feed(JobsCancelled(1, batch, None, (), 0))
    kill = KillAttempts(node, [(grant(1), 1), (grant(1), 2)], 10_000_000, "cancelled")
    assert hub.take_all() == [kill, Answer(1, {"changed": 10, "at_nodes": 2})]
    assert hub.counts(batch) == {"locked": 1, "running": 1, "cancelled": 8}
    kept = [(record.first, record.last) for record in hub.take_kept(SaveOverride)]
    assert kept == [(3, 8), (9, 10), (1, 2)]
    hub.returned(node, 1, 2)
    hub.end(node, 1, 1, outcome="cancelled")
    assert hub.take_all()[-1] == BatchMoved(batch, has_ended=True)
    assert hub.counts(batch) == {"cancelled": 10}


def test_cancel_twice_counts_once(hub: Recorder) -> None:
    _, batch = running(hub)
    hub.feed(JobsCancelled(1, batch, None, (), 0))
    hub.take_all()
    hub.feed(JobsCancelled(2, batch, None, (), 0))
    assert hub.take_all() == [Answer(2, {"changed": 0})]


@pytest.mark.parametrize(
    ("states", "left"),
    [
        (("held",), {"queued": 6, "locked": 1, "running": 1, "cancelled": 2}),
        (("queued",), {"held": 2, "locked": 1, "running": 1, "cancelled": 6}),
        (("locked",), {"held": 2, "queued": 6, "locked": 1, "running": 1}),
        (("running",), {"held": 2, "queued": 6, "locked": 1, "running": 1}),
        (("failed",), {"held": 2, "queued": 6, "locked": 1, "running": 1}),
    ],
)
def test_cancel_of_some_states_leaves_the_others(hub: Recorder, states: tuple[str, ...], left: dict[str, int]) -> None:
    """`cancel --state held` took the queued with them, and `running` what was only granted."""
    _, batch = running(hub)
    hub.feed(JobsCancelled(1, batch, None, states, 0))
    killed = [index for kill in hub.take(KillAttempts) for _, index in kill.items]
    hub.take_all()
    assert hub.counts(batch) == left
    assert killed == {"locked": [2], "running": [1]}.get(states[0], [])


def test_hold_recalls_what_has_not_begun(hub: Recorder) -> None:
    node, batch = running(hub)
    hub.feed(JobsHeld(1, batch, ((1, 5),), 0))
    assert hub.take_all() == [
        RecallJobs(node, [(grant(1), 2, 2)]),
        Answer(1, {"changed": 4, "at_nodes": 1, "running": 1}),
    ]
    hub.returned(node, 1, 2)
    assert hub.counts(batch) == {"held": 6, "queued": 3, "running": 1}
    assert hub.batch(batch).held.spans() == ((2, 5), (9, 10))


def test_release_ends_a_wish_to_hold(hub: Recorder) -> None:
    """Held and released before the Recall was answered: the job waits again, and is not held for ever."""
    node, batch = running(hub)
    hub.feed(JobsHeld(1, batch, ((2, 2),), 0), JobsReleased(2, batch, ((2, 9),), 0))
    assert [answer.result for answer in hub.take(Answer)] == [{"changed": 1, "at_nodes": 1}, {"changed": 1}]
    hub.take_all()
    hub.returned(node, 1, 2)
    assert hub.counts(batch) == {"held": 1, "queued": 8, "running": 1}


def test_a_cancel_outweighs_a_hold(hub: Recorder) -> None:
    node, batch = running(hub)
    hub.feed(JobsHeld(1, batch, ((2, 2),), 0), JobsCancelled(2, batch, ((2, 2),), (), 0))
    hub.returned(node, 1, 2)
    hub.take_all()
    assert hub.counts(batch) == {"held": 2, "queued": 6, "running": 1, "cancelled": 1}
    hub.feed(JobsRetried(3, batch, ((2, 2),), (), 0))
    hub.take_all()
    hub.decide()
    hub.take_all()
    hub.returned(node, 2, 2)
    assert hub.counts(batch) == {"held": 2, "queued": 7, "running": 1}, "the old wish to hold is gone"


def test_retry_takes_the_states_and_indices_named(hub: Recorder) -> None:
    node, batch = running(hub)
    hub.end(node, 1, 1, outcome="exit")
    hub.feed(JobsCancelled(1, batch, ((4, 8),), (), 0))
    hub.take_all()
    hub.feed(JobsRetried(2, batch, ((1, 5),), ("cancelled",), 0))
    assert hub.answer() == {"changed": 2}
    assert (hub.batch(batch).failed.spans(), hub.batch(batch).cancelled.spans()) == (((1, 1),), ((6, 8),))
    hub.feed(JobsRetried(3, batch, None, (), 0))
    assert hub.answer() == {"changed": 4}
    before = hub.counts(batch)
    hub.take_all()
    hub.restart()
    assert hub.counts(batch).get("failed", 0) == before.get("failed", 0) == 0


def test_a_new_limit_and_priority(hub: Recorder) -> None:
    """Surplus was sent under the old ones, and is asked back."""
    node, batch = running(hub)
    hub.feed(BatchChanged(1, batch, 100, 1))
    assert hub.take_all() == [Answer(1, {}), RecallJobs(node, [(grant(1), 2, 2)])]
    assert (hub.batch(batch).priority, hub.batch(batch).max_running) == (100, 1)
    hub.restart()
    assert (hub.batch(batch).priority, hub.batch(batch).max_running) == (100, 1)


@pytest.mark.parametrize(("priority", "max_running"), [(0, None), (10001, None), (None, -1), (None, 1 << 53)])
def test_limits_that_cannot_be(hub: Recorder, priority: int | None, max_running: int | None) -> None:
    """A limit below 0 was kept, and nothing of the batch ever ran."""
    batch = hub.submit(1)
    hub.feed(BatchChanged(1, batch, priority, max_running))
    hub.refusal()
    assert (hub.batch(batch).priority, hub.batch(batch).max_running) == (10, 0)


@pytest.mark.parametrize(
    "wish",
    [
        JobsCancelled(1, BatchId(9), None, (), 0),
        JobsHeld(1, BatchId(9), None, 0),
        JobsReleased(1, BatchId(9), None, 0),
    ],
    ids=lambda wish: type(wish).__name__,
)
def test_ended_while_the_wish_was_on_its_way_there_is_nothing_to_change(hub: Recorder, wish: Event) -> None:
    hub.feed(wish)
    assert hub.answer() == {"changed": 0}


@pytest.mark.parametrize(
    "wish",
    [JobsRetried(1, BatchId(9), None, (), 0), BatchChanged(1, BatchId(9), None, None)],
    ids=lambda wish: type(wish).__name__,
)
def test_of_an_ended_batch_nothing_can_be_changed(hub: Recorder, wish: Event) -> None:
    hub.feed(wish)
    assert hub.refusal() == "batch_ended"


def test_holding_and_releasing_take_only_the_states_named(hub: Recorder) -> None:
    """`lanai hold last@failed` held every job that waited."""
    batch = hub.submit(3)
    for states, changed in ((("failed",), 0), (("locked",), 0), (("queued", "failed"), 3)):
        hub.feed(JobsHeld(1, batch, None, 0, states))
        assert hub.answer() == {"changed": changed}
    for states, changed in ((("queued",), 0), (("held",), 3)):
        hub.feed(JobsReleased(1, batch, None, 0, states))
        assert hub.answer() == {"changed": changed}


def test_indices_beyond_the_batch_are_nobodys(hub: Recorder) -> None:
    batch = hub.submit(3)
    hub.feed(JobsHeld(1, batch, ((3, 10**9),), 0))
    assert hub.answer() == {"changed": 1}
    hub.feed(JobsCancelled(2, batch, ((4, 10**9),), (), 0))
    assert hub.answer() == {"changed": 0}
    assert hub.counts(batch) == {"queued": 2, "held": 1}
