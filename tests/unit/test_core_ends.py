"""Attempts end: who is charged, whether the job is tried again, and what the store is told."""

import pytest

from core_recorder import GIB, SECOND, Recorder, capacity, grant
from lanai.core.effects import Answer, BatchMoved, ForgetResults, KillAttempts, RecallJobs, StartAttempts
from lanai.core.ends import SICK_BATCH_FAILURES
from lanai.core.events import (
    AttemptsEnded,
    AttemptsStarted,
    JobsCancelled,
    JobsHeld,
    JobsReleased,
    NodeJoined,
    NodeTookStock,
)
from lanai.model.batch import Retries
from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.job import AttemptResult
from lanai.model.records import DropGrant, SaveAttempts, SaveEvent, SaveOverride, SaveShape
from lanai.model.resources import Shape


def rows(hub: Recorder) -> list[tuple[object, ...]]:
    """(index, attempt, state, outcome) of the attempt rows since the last look."""
    kept = hub.take_kept(SaveAttempts)
    return [(row[2], row[3], row[6], row[7]) for record in kept for row in record.rows]


def test_a_batch_runs_to_its_end(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.end(node, 1, 1, 2)
    assert hub.take_all() == [ForgetResults(node, 2), BatchMoved(batch, has_ended=True)]
    assert hub.counts(batch) == {"done": 2}
    assert hub.store.kept.settings[batch].state == "ended"
    assert rows(hub) == [(1, 1, "done", "ok"), (2, 1, "done", "ok")]
    assert hub.store.kept.grants == {}


def test_a_result_that_arrives_twice_counts_once(hub: Recorder) -> None:
    """The connection broke after Ended and before Forget: the agent sends it again."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(2)
    hub.start()
    hub.end(node, 1, 1)
    hub.take_all()
    hub.end(node, 1, 1)
    assert hub.take_all() == [ForgetResults(node, 2)]
    assert hub.counts(batch) == {"locked": 1, "done": 1}
    assert [event.kind for event in hub.take_kept(SaveEvent)][-1] == "stale_result"


def test_a_message_of_results_that_are_not_the_nodes_leaves_a_few_lines(hub: Recorder) -> None:
    """They would fill the log of events, and the disk, as fast as an agent can make them up."""
    node = hub.join("n")
    hub.take_kept(SaveEvent)
    hub.feed(AttemptsEnded(node, 1, [AttemptResult(GrantId(9), Index(number), "ok") for number in range(1, 1001)], 5))
    hub.take_all()
    told = [event for event in hub.take_kept(SaveEvent) if event.kind == "stale_result"]
    assert [event.subject for event in told] == [f"9/{number}" for number in range(1, 21)] + ["n"]
    assert told[-1].text == "980 more results of that message, ignored"


def test_the_same_result_twice_in_one_message_counts_once(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(3)
    hub.start()
    hub.end(node, 1, 1, 1)
    hub.take_all()
    assert hub.counts(batch) == {"locked": 2, "done": 1}


def test_a_result_from_a_node_that_was_given_up_changes_nothing(hub: Recorder) -> None:
    """Fencing: the lease ran out, the job went to another node, and then the first node's result arrives."""
    one = hub.join("one", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    hub.wait(70)
    hub.take_all()
    two = hub.join("two", capacity(cpus=1))
    assert [(start.node, start.attempt) for start in hub.start()] == [(two, 2)]
    hub.end(one, 1, 1)
    assert hub.take_all() == [ForgetResults(one, 1)]
    assert hub.counts(batch) == {"locked": 1}


@pytest.mark.parametrize("cause", ["exit", "signal", "time", "check"])
@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_each_cause_has_its_own_retries(hub: Recorder, cause: str, allowed: int) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1, retries=Retries(**{cause: allowed}))
    hub.start()
    for attempt in range(1, allowed + 1):
        hub.end(node, attempt, 1, outcome=cause)
        hub.decide()
        assert [start.attempt for start in hub.take(StartAttempts)] == [attempt + 1]
    hub.end(node, allowed + 1, 1, outcome=cause)
    hub.take_all()
    assert hub.counts(batch) == {"failed": 1}
    assert [row[2] for row in rows(hub)] == ["queued"] * allowed + ["failed"]


def test_a_command_not_found_is_tried_on_one_other_node(hub: Recorder) -> None:
    one, two = hub.join("one", capacity(cpus=1)), hub.join("two", capacity(cpus=4))
    batch = hub.submit(1)
    (first,) = hub.start()
    assert first.node == one
    hub.end(one, 1, 1, outcome="notfound")
    hub.decide()
    assert [start.node for start in hub.take(StartAttempts)] == [two]
    hub.end(two, 2, 1, outcome="notfound")
    hub.take_all()
    assert hub.counts(batch) == {"failed": 1}


def test_a_command_not_found_on_the_only_node_fails_at_once(hub: Recorder) -> None:
    node = hub.join("n")
    batch = hub.submit(1)
    hub.start()
    hub.end(node, 1, 1, outcome="notfound")
    hub.take_all()
    assert hub.counts(batch) == {"failed": 1}


def test_out_of_memory_is_tried_with_twice_as_much(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4, gib=8))
    batch = hub.submit(1, shape=Shape(memory_bytes=3 * GIB))
    hub.start()
    hub.end(node, 1, 1, outcome="memory")
    hub.decide()
    (again,) = hub.take(StartAttempts)
    assert (again.shape, again.attempt) == (1, 2)
    assert hub.take_kept(SaveShape)[-1].request == Shape(memory_bytes=6 * GIB)
    assert hub.take_kept(SaveOverride) == [SaveOverride(batch, 1, 1, "shape", 1, hub.now_us)]
    hub.take_all()


def test_out_of_memory_fails_where_twice_as_much_fits_nowhere(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4, gib=4))
    batch = hub.submit(1, shape=Shape(memory_bytes=3 * GIB))
    hub.start()
    hub.end(node, 1, 1, outcome="memory")
    hub.take_all()
    assert hub.counts(batch) == {"failed": 1}


def test_a_fault_of_the_only_node_is_tried_again_after_a_while_and_ever_later(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    hub.submit(1)
    hub.start()
    waited = []
    for attempt in (1, 2, 3):
        hub.end(node, attempt, 1, outcome="node")
        due_us = hub.core.next_due_us()
        assert due_us is not None
        waited.append(due_us - hub.now_us)
        hub.wait(3)
        hub.decide()
        hub.take_all()
    assert waited == [200_000, 400_000, 800_000]


def test_a_hundred_faults_of_a_node_do_not_wait_for_centuries(hub: Recorder) -> None:
    """The delay doubled without end: with many retries allowed, the number was too large for any clock."""
    node = hub.join("n", capacity(cpus=1))
    hub.submit(1, retries=Retries(node=100))
    for attempt in range(1, 40):
        hub.decide()
        hub.end(node, attempt, 1, outcome="node")
        due_us = hub.core.next_due_us()
        assert due_us is not None and due_us - hub.now_us <= 60 * SECOND
        hub.wait(61)
        hub.feed(NodeJoined(attempt, "n", b"key", "boot", capacity(cpus=1), (), "ann", hub.now_us))
        hub.feed(NodeTookStock(node, []))
        hub.take_all()


def test_an_outcome_nobody_knows_is_the_nodes_fault(hub: Recorder) -> None:
    """A newer agent may have a word that this hub has not; it must not end the hub."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    hub.end(node, 1, 1, outcome="eaten by mice")
    hub.take_all()
    assert hub.counts(batch) == {"queued": 1}


def test_a_lost_node_uses_up_no_retry_of_the_jobs_own(hub: Recorder) -> None:
    """Power cuts come to all; only the batch's five for nodes are counted."""
    batch = hub.submit(1)
    for boot in range(5):
        hub.wait(6)
        hub.join("n", capacity(cpus=1), boot=f"boot {boot}", take=False)
        hub.decide()
        assert [start.attempt for start in hub.take(StartAttempts)] == [boot + 1]
        hub.take_all()
    assert hub.batch(batch).tries[1].charges == {"lost": 4}
    hub.end(hub.core.world.names["n"], 5, 1, outcome="exit")
    hub.take_all()
    assert hub.counts(batch) == {"failed": 1}


def test_a_node_that_fails_a_batch_three_times_in_a_row_is_avoided(hub: Recorder) -> None:
    """And is asked to give back what it has not begun."""
    sick, well = hub.join("sick", capacity(cpus=4)), hub.join("well", capacity(cpus=8))
    batch = hub.submit(12)
    hub.start()
    hub.end(sick, 1, 1, 2, outcome="exit")
    assert hub.batch(batch).avoided == set()
    hub.end(sick, 1, 3, outcome="exit")
    assert hub.batch(batch).avoided == {sick}
    assert [recall.node for recall in hub.take(RecallJobs)] == [sick]
    assert hub.store.kept.settings[batch].avoided == (sick,)
    hub.take_all()
    hub.end(well, 2, 5)
    hub.take_all()


def test_a_success_in_between_clears_a_node(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4))
    hub.join("other", capacity(cpus=8))
    batch = hub.submit(12)
    hub.start()
    for index, outcome in ((1, "exit"), (2, "exit"), (3, "ok"), (4, "exit")):
        hub.end(node, 1, index, outcome=outcome)
    hub.take_all()
    assert hub.batch(batch).avoided == set()


def test_the_last_node_is_never_avoided(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(4)
    hub.start()
    hub.end(node, 1, 1, 2, 3, 4, outcome="exit")
    hub.take_all()
    assert hub.counts(batch) == {"failed": 4}


def pause(hub: Recorder) -> BatchId:
    one, two = hub.join("one", capacity(cpus=20)), hub.join("two", capacity(cpus=40))
    batch = hub.submit(100)
    hub.start()
    hub.end(one, 1, *range(1, 13), outcome="exit")
    hub.end(two, 2, *range(21, 34), outcome="exit")
    hub.take_all()
    return batch


def test_25_different_jobs_failing_in_a_row_on_two_nodes_pause_the_batch(hub: Recorder) -> None:
    batch = pause(hub)
    assert hub.batch(batch).state == "paused"
    reason = f"25 different jobs in a row failed on 2 nodes; `lanai release {batch}` lets it go on"
    assert hub.batch(batch).reason == reason
    assert hub.start() == []
    hub.restart()
    assert hub.batch(batch).state == "paused"


def test_release_lets_a_paused_batch_go_on(hub: Recorder) -> None:
    batch = pause(hub)
    hub.feed(JobsReleased(1, batch, None, 0))
    assert hub.answer() == {"changed": 0, "resumed": True}
    hub.decide()
    assert hub.take(StartAttempts)


def test_a_million_failures_are_not_remembered_one_by_one(hub: Recorder) -> None:
    """On a single node the batch is not paused; the list of jobs that failed in a row grew without end."""
    node = hub.join("n", capacity(cpus=100))
    batch = hub.submit(100)
    hub.start()
    hub.end(node, 1, *range(1, 100), outcome="exit")
    hub.take_all()
    assert len(hub.batch(batch).failed_in_row) == SICK_BATCH_FAILURES


def test_stop_after_cancels_the_rest(hub: Recorder) -> None:
    """What waits never runs, what has not begun is asked back, what runs may end."""
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(20, stop_after=2)
    hub.start()
    hub.feed(AttemptsStarted(node, [(grant(1), 4, 7)]))
    hub.end(node, 1, 1, 2, outcome="exit")
    assert hub.take_all() == [RecallJobs(node, [(grant(1), 3, 3)]), ForgetResults(node, 2)]
    assert hub.counts(batch) == {"locked": 1, "running": 1, "failed": 2, "cancelled": 16}
    hub.returned(node, 1, 3)
    hub.end(node, 1, 4)
    assert hub.take_all() == [ForgetResults(node, 3), BatchMoved(batch, has_ended=True)]
    assert hub.counts(batch) == {"done": 1, "failed": 2, "cancelled": 17}
    assert hub.store.kept.settings[batch].reason == "stopped after 2 failed jobs"


def test_jobs_that_come_back_unbegun_wait_at_their_old_places(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=3))
    batch = hub.submit(5)
    hub.start()
    hub.returned(node, 1, 1, 2)
    assert hub.batch(batch).pending().spans() == ((1, 2), (4, 5))
    assert hub.store.kept.grants[grant(1)].ranges == ((3, 3),)
    hub.returned(node, 1, 3)
    hub.returned(node, 1, 3)
    assert hub.take_kept(DropGrant) == [DropGrant(grant(1))]
    assert [start.attempt for start in hub.start()] == [1], "it never began, so this is the first attempt still"


def test_a_job_done_before_its_cancel_is_done_after_a_restart_too(hub: Recorder) -> None:
    """The wish was kept, the job was quicker; the wish stayed in the store and cancelled the job at the next start."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(2)
    hub.start()
    hub.feed(JobsCancelled(1, batch, ((1, 1),), (), 0))
    answer = Answer(1, {"changed": 1, "at_nodes": 1})
    assert hub.take_all() == [KillAttempts(node, [(grant(1), 1)], 10_000_000, "cancelled"), answer]
    hub.end(node, 1, 1)
    hub.take_all()
    before = hub.counts(batch)
    hub.restart()
    assert hub.counts(batch) == before == {"done": 1, "locked": 1}


def test_a_killed_job_that_fails_is_cancelled(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1, retries=Retries(exit=3))
    hub.start()
    hub.feed(JobsCancelled(1, batch, None, (), 0))
    hub.end(node, 1, 1, outcome="signal")
    hub.take_all()
    assert hub.counts(batch) == {"cancelled": 1}


def test_a_job_that_fails_while_it_is_to_be_held_is_held_before_its_next_attempt(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1, retries=Retries(exit=3))
    hub.start()
    hub.feed(JobsHeld(1, batch, None, 0))
    hub.end(node, 1, 1, outcome="exit")
    hub.take_all()
    assert hub.counts(batch) == {"held": 1}
    hub.restart()
    assert hub.counts(batch) == {"held": 1}


def test_running_is_shown_once_it_is_known(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.feed(AttemptsStarted(node, [(grant(1), 1, 5), (grant(1), 1, 5), (grant(1), 9, 5), (grant(7), 1, 5)]))
    assert hub.counts(batch) == {"locked": 1, "running": 1}
    assert hub.core.in_flight(batch, 1, 9) == [(1, 1, "n", grant(1), 5, []), (2, 1, "n", grant(1), 0, [])]


def test_a_stopped_batch_tries_nothing_again(hub: Recorder) -> None:
    """--stop-after 1, and a retry left: what ran when the batch stopped was tried once more when it failed too."""
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(5, stop_after=1, retries=Retries(exit=1))
    hub.start()
    hub.feed(AttemptsStarted(node, [(grant(1), Index(1), 5), (grant(1), Index(2), 5)]))
    hub.end(node, 1, 1, outcome="exit")
    hub.decide()
    hub.end(node, 2, 1, outcome="exit")
    hub.end(node, 1, 2, outcome="exit")
    hub.decide()
    assert [(start.attempt, start.spans) for start in hub.take(StartAttempts)] == [(2, ((1, 1),))], "before the stop"
    hub.take_all()
    assert hub.counts(batch) == {"failed": 2, "cancelled": 3}


def test_a_job_recalled_elsewhere_still_keeps_off_the_node_that_lacks_its_command(hub: Recorder) -> None:
    one, other = hub.join("a", capacity(cpus=1)), hub.join("b", capacity(cpus=1))
    batch = hub.submit(1)
    (start,) = hub.start()
    hub.end(start.node, 1, 1, outcome="notfound")
    hub.take_all()
    (again,) = hub.start()
    assert {start.node, again.node} == {one, other}
    hub.returned(again.node, 2, 1)
    (third,) = hub.start()
    assert third.node == again.node
    assert hub.batch(batch).tries[Index(1)].attempts == 1
