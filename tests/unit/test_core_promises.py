"""Backfill over nodes: what is promised to whom, who keeps out of the way, what happens when estimates are wrong."""

import msgspec
import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.effects import ClaimRoom, RecallJobs, StartAttempts
from lanai.core.events import JobsCancelled, JobsHeld, NodeHeard, NodeWished, ReservationWished, TimePassed
from lanai.core.schedule import decide
from lanai.core.schedule.estimate import end_of
from lanai.model.ids import BatchId
from lanai.model.policy import Bound, Limits, Policy, Weights
from lanai.model.reservation import Period, Reservation
from lanai.model.resources import Shape

MINUTE = 60 * SECOND


def job(cpus: int, minutes: float, **more: object) -> Shape:
    return Shape(cpu_milli=1000 * cpus, time_limit_us=round(minutes * MINUTE), **more)  # type: ignore[arg-type]


def promised(hub: Recorder) -> dict[BatchId, float]:
    """What each batch's line has been promised, in minutes from now."""
    return {line.batch: (promise.at_us - hub.now_us) / MINUTE for line, promise in hub.core.world.promises.items()}


def started(hub: Recorder) -> list[BatchId]:
    hub.core.world.needs_pass = True
    return [start.batch for start in hub.start()]


def ends(hub: Recorder, node: int, number: int) -> list[BatchId]:
    """The one attempt of a grant ends on the node; what is started by the fast path and by the pass after it."""
    hub.end(node, number, 1)  # type: ignore[arg-type]
    hub.decide()
    found = hub.take(StartAttempts)
    hub.take_all()
    return [start.batch for start in found]


def test_what_is_behind_starts_if_it_ends_in_time_or_leaves_enough(hub: Recorder) -> None:
    """EASY: 4 cpus, 3 of them busy for 10 minutes; 3 are wanted. One is free then besides, and now."""
    hub.join("n", capacity(cpus=4))
    hub.submit(1, shape=job(3, 10))
    hub.start()
    head = hub.submit(1, shape=job(3, 60), user="bob")
    long = hub.submit(1, shape=job(1, 60), user="carl")
    assert started(hub) == [long]
    assert promised(hub) == {head: 10}


def test_what_would_be_in_the_way_waits(hub: Recorder) -> None:
    """All 4 cpus are wanted in 10 minutes: who takes 9 may go first, who takes 11 may not."""
    hub.join("n", capacity(cpus=4))
    hub.submit(1, shape=job(3, 10))
    hub.start()
    head = hub.submit(1, shape=job(4, 60), user="bob")
    hub.submit(1, shape=job(1, 11), user="carl")
    short = hub.submit(1, shape=job(1, 9), user="dora")
    assert started(hub) == [short]
    assert promised(hub) == {head: 10}


def test_the_fast_path_keeps_out_of_the_way_too(hub: Recorder) -> None:
    """Small jobs follow each other without a pass; they used to keep a wide one out for ever."""
    node = hub.join("n", capacity(cpus=2))
    hub.submit(1, shape=job(1, 5))
    hub.submit(1, shape=job(1, 10), user="bob")
    hub.start()
    wide = hub.submit(1, shape=job(2, 60), user="carl")
    hub.submit(50, shape=job(1, 8), user="dora")
    assert started(hub) == []
    hub.now_us += 4 * MINUTE
    hub.end(node, 1, 1)
    assert hub.take(StartAttempts) == []  # 4 + 8 minutes is after the tenth
    hub.decide()
    hub.take_all()
    assert promised(hub) == {wide: 6}
    hub.now_us += 5 * MINUTE
    assert ends(hub, node, 2) == [wide]


def test_an_early_end_moves_a_promise_forward(hub: Recorder) -> None:
    one, two = hub.join("one", capacity(cpus=2)), hub.join("two", capacity(cpus=2))
    hub.submit(2, shape=job(2, 30))
    hub.start()
    wide = hub.submit(1, shape=job(1, 5, nodes=2), user="bob")
    assert started(hub) == []
    assert promised(hub) == {wide: 30}
    hub.now_us += 3 * MINUTE
    assert ends(hub, one, 1) == []
    assert promised(hub) == {wide: 27}
    assert [node.id for promise in hub.core.world.promises.values() for node in promise.nodes] == [one, two]


def test_with_a_greater_depth_more_lines_are_promised_something(hub: Recorder) -> None:
    hub.core.world.policy = msgspec.structs.replace(hub.core.world.policy, depth=2)
    hub.join("n", capacity(cpus=2))
    hub.submit(1, shape=job(2, 10))
    hub.start()
    first = hub.submit(1, shape=job(2, 60), user="bob")
    second = hub.submit(1, shape=job(1, 5), user="carl")
    hub.submit(1, shape=job(1, 6), user="dora")
    assert started(hub) == []
    assert promised(hub) == {first: 10, second: 70}


def test_who_could_go_to_no_open_node_takes_no_promise_from_others(hub: Recorder) -> None:
    hub.core.world.policy = Policy(preset="tight", weights=Weights(own=1.0))
    hub.join("n", capacity(cpus=4))
    hub.join("large", capacity(cpus=16))
    hub.feed(NodeWished(5, "large", "drain", hub.now_us))
    hub.take_all()
    hub.submit(3, shape=job(1, 10))
    hub.start()
    hub.submit(1, shape=job(16, 10), user="bob", priority=1)
    wide = hub.submit(1, shape=job(4, 10), user="carl", priority=2)
    hub.submit(5, shape=job(1, 90), user="dora")
    assert started(hub) == []
    assert promised(hub) == {wide: 10}


def test_without_backfill_the_first_that_finds_no_room_blocks_all(hub: Recorder) -> None:
    hub.core.world.policy = msgspec.structs.replace(hub.core.world.policy, backfill="none")
    hub.join("n", capacity(cpus=2))
    hub.submit(1, shape=job(1, 10))
    hub.start()
    hub.submit(1, shape=job(2, 60), user="bob")
    hub.submit(1, shape=job(1, 1), user="carl")
    assert started(hub) == []


def test_an_estimate_that_was_wrong_is_held_on_to_for_a_minute(hub: Recorder) -> None:
    """Ten minutes have passed and the attempt runs on. For a minute nobody may go first, then it is promised anew."""
    hub.join("n", capacity(cpus=2))
    hub.submit(1, shape=job(1, 10))
    hub.start()
    wide = hub.submit(1, shape=job(2, 60), user="bob")
    hub.submit(1, shape=job(1, 20), user="carl")
    assert started(hub) == []
    assert promised(hub) == {wide: 10}
    hub.now_us += 10 * MINUTE + SECOND
    small = hub.submit(1, shape=job(1, 0.5), user="dora")
    assert started(hub) == []
    assert promised(hub) == {wide: -1 / 60}
    hub.now_us += MINUTE
    assert started(hub) == [small]
    assert 3 < promised(hub)[wide] < 5


def test_what_a_job_was_promised_that_has_started_is_not_held_on_to_for_the_next_of_its_line(
    hub: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the pass goes on in the next call: the next job was promised nothing yet, and its node is taken."""
    hub.core.world.policy = Policy(preset="tight", weights=Weights(own=1.0))
    hub.join("n", capacity(cpus=4))
    hub.submit(1, shape=job(3, 10))
    hub.start()
    wide = hub.submit(2, shape=job(4, 5), user="bob", priority=1)
    hub.submit(1, shape=job(1, 60), user="carl")
    assert started(hub) == [] and promised(hub) == {wide: 10}
    monkeypatch.setattr(decide, "MOST_STARTS", 1)
    monkeypatch.setattr(hub.core.world, "has_fast_path", False)
    hub.now_us += 10 * MINUTE
    assert ends(hub, 1, 1) == [wide]
    assert promised(hub) == {wide: 5}


def test_who_has_room_for_what_is_left_of_his_time_has_it_though_others_are_refused_the_whole(hub: Recorder) -> None:
    """The pass comes a moment after the time that was promised, and what is reserved begins where that ends."""
    hub.core.world.policy = Policy(preset="tight", weights=Weights(own=1.0))
    hub.core.world.has_fast_path = False
    node = hub.join("n", capacity(cpus=4))
    hub.submit(1, shape=job(4, 10))
    hub.start()
    period = Period(hub.now_us + 15 * MINUTE, hub.now_us + 100 * MINUTE)
    hub.feed(ReservationWished(9, Reservation(name="r", owner="root", nodes="n", periods=(period,)), False, hub.now_us))
    hub.take_all()
    first = hub.submit(1, shape=job(4, 5), user="bob")
    assert started(hub) == [] and promised(hub) == {first: 10}
    hub.now_us += 10 * MINUTE
    hub.feed(NodeHeard(node, "", hub.now_us), TimePassed(hub.now_us))
    hub.end(node, 1, 1)
    hub.take_all()
    hub.now_us += SECOND // 10
    hub.submit(1, shape=job(4, 5), user="carl", priority=1)
    assert started(hub) == [first]


def test_a_promise_calls_the_surplus_of_others_back(hub: Recorder) -> None:
    """Hundreds of short jobs are stacked at the node: they were to run first, whatever was promised."""
    node = hub.join("n", capacity(cpus=2))
    small = hub.submit(1000)
    hub.start()
    hub.end(node, 1, 1, wall_us=SECOND // 100)
    assert hub.node(node).surplus_count > 10
    hub.take_all()
    hub.batch(small).has_begun = True
    wide = hub.submit(2, shape=job(2, 1), user="bob")
    hub.batch(wide).has_begun = True
    hub.decide()
    (recall,) = hub.take(RecallJobs)
    assert recall.node == node
    assert list(promised(hub)) == [wide]
    hub.take_all()


def test_word_of_an_end_may_come_a_moment_late() -> None:
    """An attempt that has its whole time limit ends then, which is told a little later: it is not overdue by half."""
    whole = 10 * MINUTE
    assert end_of(0, whole, whole - 1) == whole
    assert end_of(0, whole, whole + SECOND // 20) == whole + SECOND // 5
    assert end_of(0, whole, whole + SECOND) == 15 * MINUTE
    assert end_of(0, 1, 10 * SECOND) > 10 * SECOND


def test_nothing_is_promised_where_nobody_could_be_in_the_way(hub: Recorder) -> None:
    """Jobs that are alike come in their turn by themselves: a promise would only keep the fast path from them."""
    hub.join("n", capacity(cpus=2))
    hub.submit(9)
    hub.submit(9, user="bob")
    hub.start()
    assert promised(hub) == {}
    assert hub.core.world.nodes[hub.core.world.names["n"]].steps == []


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("backfill", ["easy", "conservative"])
def test_what_is_cancelled_or_held_keeps_nothing(hub: Recorder, backfill: str, is_held: bool) -> None:
    """A pass is made for those behind; under `conservative` promises outlast it, but not the jobs they were made to."""
    hub.core.world.policy = msgspec.structs.replace(hub.core.world.policy, backfill=backfill)
    node = hub.node(hub.join("n", capacity(cpus=2)))
    hub.submit(1, shape=job(1, 10))
    hub.start()
    wide, small = hub.submit(1, shape=job(2, 60), user="bob"), hub.submit(1, shape=job(1, 20), user="carl")
    assert started(hub) == []
    assert promised(hub)[wide] == 10
    hub.feed(JobsHeld(1, wide, None, hub.now_us) if is_held else JobsCancelled(1, wide, None, (), hub.now_us))
    hub.take_all()
    assert hub.core.needs_pass
    hub.decide()
    assert [start.batch for start in hub.take(StartAttempts)] == [small]
    assert promised(hub) == {}
    assert node.steps == []


def test_a_job_goes_only_to_nodes_that_it_names(hub: Recorder) -> None:
    """In the pass and on the fast path, and its promise is there too."""
    hub.core.world.policy = msgspec.structs.replace(hub.core.world.policy, depth=2)
    one, two = hub.join("n1", capacity(cpus=1)), hub.join("n2", capacity(cpus=1))
    hub.submit(1, shape=job(1, 10))
    named = hub.submit(2, user="bob", shape=job(1, 20, on="n[2-9]"))
    assert [(start.batch, start.node) for start in hub.start()] == [(BatchId(1), one), (named, two)]
    hub.submit(1, user="carl", shape=Shape(cpu_milli=500, time_limit_us=MINUTE))
    hub.core.world.needs_pass = True
    hub.decide()
    assert promised(hub) == {named: 20}
    hub.end(one, 1, 1)
    hub.decide()
    assert {start.batch for start in hub.take(StartAttempts)} == {BatchId(3)}
    assert ends(hub, two, 2) == [named]
    assert hub.core.fits([job(1, 1, on="gpu-*")]) == ["needs one of the nodes gpu-*, there is none"]


def test_a_command_that_is_not_found_is_not_kept_for_a_node_that_it_may_not_have(hub: Recorder) -> None:
    """It would have waited for ever: the other node is large enough, and not among those that the job names."""
    one = hub.join("n1", capacity(cpus=1))
    hub.join("n2", capacity(cpus=1))
    batch = hub.submit(1, shape=job(1, 10, on="n1"))
    hub.start()
    hub.end(one, 1, 1, outcome="notfound")
    hub.take_all()
    assert hub.counts(batch) == {"failed": 1}


def test_a_job_over_at_least_so_many_nodes_has_all_that_have_room(hub: Recorder) -> None:
    """Up to its most; by the least where it counts in a limit, and where it waits."""
    nodes = [hub.join(f"n{number}", capacity(cpus=1)) for number in range(4)]
    first = hub.submit(2, shape=job(1, 10, nodes=2, nodes_most=3))
    hub.decide()
    assert [claim.node for claim in hub.take(ClaimRoom)] == nodes[1:3]
    assert promised(hub) == {first: 10}
    assert [len(promise.nodes) for promise in hub.core.world.promises.values()] == [2]


def test_and_no_more_than_the_least_where_a_limit_counts(hub: Recorder) -> None:
    hub.core.world.policy = Policy(limits=Limits(nodes=Bound(3, 3)))
    for number in range(4):
        hub.join(f"n{number}", capacity(cpus=1))
    hub.submit(1, shape=job(1, 10, nodes=2, nodes_most=4))
    hub.decide()
    assert len(hub.take(ClaimRoom)) == 1
