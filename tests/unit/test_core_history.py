"""What is too old goes, and nothing else."""

from itertools import pairwise

from core_recorder import SECOND, Recorder, capacity
from lanai.core.effects import BatchMoved, DismissNode, ForgetResults, LookForOld
from lanai.core.events import BatchRevived, JobsRetried, OldFound
from lanai.core.history import LOOK_US, STEP_US
from lanai.core.world import Kept
from lanai.model.ids import BatchId
from lanai.model.records import PruneBatch, PruneRows

HOUR = 3600 * SECOND


def keeping(hub: Recorder, *, batches_us: int = 0, events_us: int = 0) -> None:
    hub.core.world.kept = Kept(batches_us=batches_us, events_us=events_us)


def ended(hub: Recorder, *, outcome: str = "ok") -> BatchId:
    """A batch whose one job has ended."""
    node = hub.core.world.names.get("n") or hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    (start,) = hub.start()
    hub.end(node, start.grant & 0xFFFF, 1, outcome=outcome)
    assert {type(effect) for effect in hub.take_all()} == {ForgetResults, BatchMoved}
    assert batch not in hub.core.world.batches
    return batch


def look(hub: Recorder) -> OldFound:
    """Wait for the next look; returns what the store finds."""
    while not (looks := hub.take(LookForOld)):
        hub.wait(1)
    (asked,) = looks
    hub.take(DismissNode)  # after hours the node is away
    return OldFound(*hub.store.old(asked.ended_before_us, asked.told_before_us), asked.told_before_us)


def test_an_ended_batch_goes_after_its_time_and_one_that_waits_stays(hub: Recorder) -> None:
    keeping(hub, batches_us=HOUR)
    first = ended(hub)
    waiting = hub.submit(1, max_running=1)
    hub.feed(look(hub))
    assert hub.take_kept(PruneBatch) == []
    hub.now_us += HOUR
    found = look(hub)
    assert found.batch == first
    hub.feed(found)
    assert hub.take_kept(PruneBatch) == [PruneBatch(first)]
    assert not hub.store.has_batch(first)
    assert hub.store.has_batch(waiting)


def test_while_something_is_found_it_looks_every_second_and_else_once_a_minute(hub: Recorder) -> None:
    keeping(hub, batches_us=HOUR)
    batches = [ended(hub), ended(hub)]
    hub.now_us += 2 * HOUR
    at_us = []
    for _ in range(3):
        found = look(hub)
        at_us.append(hub.now_us)
        hub.feed(found)
    assert [record.batch for record in hub.take_kept(PruneBatch)] == batches
    assert [later - sooner for sooner, later in pairwise(at_us)] == [STEP_US, STEP_US]
    look(hub)
    assert hub.now_us - at_us[-1] == LOOK_US


def test_events_go_by_a_time_of_their_own(hub: Recorder) -> None:
    keeping(hub, events_us=HOUR)
    batch = ended(hub)
    assert hub.store.kept.events
    hub.now_us += 2 * HOUR
    found = look(hub)
    assert (found.batch, found.has_rows) == (None, True)
    hub.feed(found)
    assert [record.told_before_us for record in hub.take_kept(PruneRows)] == [found.told_before_us]
    assert all(event.at_us >= found.told_before_us for event in hub.store.kept.events)
    assert hub.store.has_batch(batch)


def test_for_ever_is_for_ever(hub: Recorder) -> None:
    ended(hub)
    hub.now_us += 1_000_000 * HOUR
    hub.wait(120)
    assert [type(effect) for effect in hub.take_all()] == [DismissNode]


def test_a_batch_revived_between_look_and_find_stays(hub: Recorder) -> None:
    keeping(hub, batches_us=HOUR)
    batch = ended(hub, outcome="exit")
    hub.now_us += 2 * HOUR
    found = look(hub)
    revived = hub.store.recover_batch(batch)
    assert found.batch == batch and revived is not None
    hub.feed(BatchRevived(revived), JobsRetried(1, batch, None, (), hub.now_us), found)
    assert hub.answer() == {"changed": 1}
    assert hub.take_kept(PruneBatch) == []
    assert hub.store.has_batch(batch)


def test_a_batch_read_to_be_revived_before_it_was_pruned_is_gone(hub: Recorder) -> None:
    keeping(hub, batches_us=HOUR)
    batch = ended(hub, outcome="exit")
    hub.now_us += 2 * HOUR
    found = look(hub)
    revived = hub.store.recover_batch(batch)
    assert revived is not None
    hub.feed(found)
    hub.feed(BatchRevived(revived), JobsRetried(1, batch, None, (), hub.now_us))
    assert hub.refusal() == "no_such_batch"
    assert batch not in hub.core.world.batches


def test_attempt_rows_get_new_numbers_although_the_last_ones_went(hub: Recorder) -> None:
    """What a batch has recorded up to row 1 counts as known: a second row 1 after a start would never be read."""
    keeping(hub, batches_us=HOUR)
    ended(hub)
    last_row = hub.core.world.last_row
    assert last_row
    hub.now_us += 2 * HOUR
    hub.feed(look(hub))
    assert hub.store.recover().last_row == 0
    hub.restart()
    assert hub.core.world.last_row == last_row
    hub.take_all()
