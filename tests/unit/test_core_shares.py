"""Turns are dealt like cards: evenly between users, then between a user's batches, weighted by 1/priority."""

from collections import Counter

from core_recorder import GIB, Recorder, capacity
from lanai.core.schedule.leaf import WHOLE
from lanai.core.schedule.shares import Turns, dominant_share, price, weigh_users
from lanai.model.ids import BatchId
from lanai.model.resources import Shape
from lanai.model.vector import Layout


def turns_of(hub: Recorder) -> Turns:
    batches = list(hub.core.world.batches.values())
    price(batches, hub.core.world.total)
    weigh_users(batches)
    return Turns(batches)


def deal(hub: Recorder, count: int) -> Counter[BatchId]:
    """Who gets the next `count` turns, if nothing else stood in the way."""
    turns = turns_of(hub)
    dealt: Counter[BatchId] = Counter()
    for _ in range(count):
        batch = turns.next()
        assert batch is not None
        turns.charge(next(iter(batch.lines.values())))
        dealt[batch.id] += 1
    return dealt


def test_two_batches_of_one_user_share_evenly(hub: Recorder) -> None:
    hub.join("n")
    one, two = hub.submit(100), hub.submit(100)
    assert deal(hub, 10) == {one: 5, two: 5}


def test_users_share_before_batches(hub: Recorder) -> None:
    """Ann has three batches and Bob one: splitting one's work gains nothing."""
    hub.join("n")
    anns = [hub.submit(100, user="ann") for _ in range(3)]
    bobs = hub.submit(100, user="bob")
    dealt = deal(hub, 12)
    assert dealt[bobs] == 6 and [dealt[batch] for batch in anns] == [2, 2, 2]


def test_priority_is_a_weight_and_not_an_order(hub: Recorder) -> None:
    """Parasol's priorities: 10 gets ten times what 100 gets, and 100 is not starved."""
    hub.join("n")
    soon, late = hub.submit(1000, priority=10), hub.submit(1000, priority=100)
    assert deal(hub, 110) == {soon: 100, late: 10}


def test_large_jobs_cost_by_their_dominant_share(hub: Recorder) -> None:
    """Half of the memory is half of the machine, however few cpus go with it."""
    hub.join("n", capacity(cpus=8, gib=8))
    small = hub.submit(100, shape=Shape(cpu_milli=1000))
    large = hub.submit(100, shape=Shape(cpu_milli=1000, memory_bytes=4 * GIB))
    assert deal(hub, 10) == {small: 8, large: 2}


def test_what_runs_already_counts(hub: Recorder) -> None:
    """The second batch comes when the first has all slots: the next turns are its own until both have as much."""
    hub.join("n", capacity(cpus=4))
    one = hub.submit(100)
    hub.start()
    two = hub.submit(100)
    assert deal(hub, 4) == {two: 4}
    assert deal(hub, 8) == {two: 6, one: 2}


def test_a_batch_that_leaves_gets_no_turn(hub: Recorder) -> None:
    hub.join("n")
    one, two = hub.submit(9), hub.submit(9)
    turns = turns_of(hub)
    turns.leave(hub.batch(one))
    assert turns.next() is hub.batch(two)
    turns.leave(hub.batch(two))
    assert turns.next() is None


def test_an_empty_request_costs_a_little_so_that_dealing_goes_round() -> None:
    total = Layout().capacity(capacity(4))
    assert dominant_share(0, total) == 1
    assert dominant_share(Layout().request(Shape(cpu_milli=1000)), total) == WHOLE // 4
    assert dominant_share(Layout().request(Shape(gpu_milli=1000)), total) == WHOLE
