"""When something can start at the earliest, and how sure that is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_recorder import GIB, SECOND, Recorder, capacity, grant
from lanai.core.events import AttemptsStarted, JobsHeld, NodeHeard, PolicyChanged
from lanai.core.nodes import Step
from lanai.core.schedule.forecast import Forecast, earliest_if_submitted, earliest_of_job, fit_number
from lanai.core.schedule.promises import lift_all
from lanai.core.world import World
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, Index
from lanai.model.policy import Bound, Limits, Policy, ServicePolicy
from lanai.model.resources import Shape
from lanai.model.vector import Layout

MINUTE = 60 * SECOND
LIMITED = Shape(time_limit_us=10 * MINUTE)


def of_job(hub: Recorder, batch: BatchId, index: int | None = None) -> Forecast:
    return earliest_of_job(hub.core.world, hub.batch(batch), None if index is None else Index(index))


def of_shape(world: World, user: str, shape: Shape) -> Forecast:
    return earliest_if_submitted(world, user, BatchSettings(shape=shape))


def pass_time(hub: Recorder, seconds: int) -> None:
    """Time passes, and all nodes go on beating."""
    for _ in range(seconds // 10):
        hub.wait(10)
        hub.feed(*(NodeHeard(node, "", 0) for node in hub.core.world.nodes))


def seconds_ahead(hub: Recorder, found: Forecast) -> float:
    return (found.at_us - hub.core.world.wall_us) / SECOND


def test_what_has_room_could_start_now(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    hub.wait(1)
    found = of_shape(hub.core.world, "ann", Shape(cpu_milli=4000))
    assert (found.certainty, seconds_ahead(hub, found), found.why) == ("now", 0, "one node has room")


def test_where_a_service_predicts_what_runs_ends_as_predicted(hub: Recorder) -> None:
    """The pass went by the prediction, and the answer by the limit, which was said to be the earliest start."""
    hub.join("n", capacity(cpus=4))
    hub.core.world.policy = Policy(services={"normal": ServicePolicy(estimates="predicted")})
    hub.core.world.observe("ann", [50 * SECOND, 70 * SECOND])
    hub.submit(1, user="ann", shape=Shape(cpu_milli=4000, time_limit_us=10 * MINUTE))
    hub.start()
    found = of_shape(hub.core.world, "bob", Shape())
    assert (found.certainty, seconds_ahead(hub, found)) == ("if nothing comes before it", 60)
    pass_time(hub, 70)
    found = of_shape(hub.core.world, "bob", Shape())
    assert seconds_ahead(hub, found) == 50, "it is predicted anew: 60 s more"


def test_what_no_node_can_hold_never_starts(hub: Recorder) -> None:
    assert of_shape(hub.core.world, "ann", Shape()).certainty == "unknown"
    hub.join("n", capacity(cpus=4))
    found = of_shape(hub.core.world, "ann", Shape(cpu_milli=5000))
    assert (found.at_us, found.certainty) == (0, "unknown")
    assert found.why == "needs 5 cpus, the largest node has 4 cpus"
    particular = of_shape(hub.core.world, "ann", Shape(features=("ssd",)))
    assert particular.why == "needs the feature ssd, no node has it"
    named = of_shape(hub.core.world, "ann", Shape(on="m*"))
    assert named.why == "needs one of the nodes m*, there is none"


def test_after_the_ends_that_make_room_for_it(hub: Recorder) -> None:
    """Two attempts of 10 minutes, the second a minute later: one cpu is free after the first, two after both."""
    hub.join("n", capacity(cpus=2))
    hub.submit(1, shape=LIMITED)
    hub.start()
    pass_time(hub, 60)
    hub.submit(1, shape=LIMITED)
    hub.start()
    one, two = (of_shape(hub.core.world, "ann", Shape(cpu_milli=cpus)) for cpus in (1000, 2000))
    assert one.certainty == two.certainty == "if nothing comes before it"
    assert (seconds_ahead(hub, one), seconds_ahead(hub, two)) == (540, 600)
    assert one.why == "what runs on n is expected to have ended by then"


def test_the_start_that_the_node_reported_counts(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    hub.submit(1, shape=LIMITED)
    hub.start()
    pass_time(hub, 100)
    world = hub.core.world
    hub.feed(AttemptsStarted(node, [(grant(1), Index(1), world.wall_us - 40 * SECOND)]))
    assert seconds_ahead(hub, of_shape(world, "ann", Shape())) == 560


def test_without_a_time_limit_nothing_is_known(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=1))
    batch = hub.submit(2)
    hub.start()
    found = of_job(hub, batch, 2)
    assert (found.at_us, found.certainty) == (0, "unknown")
    assert "no time limit" in found.why


def test_run_times_that_were_measured_stand_in_for_a_limit(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(3)
    hub.start()
    hub.end(node, 1, 1, wall_us=100 * SECOND)
    hub.take_all()
    assert seconds_ahead(hub, of_job(hub, batch)) == 100
    # Longer than expected: as in the pass, expected after 160 s when 100 were over, and after 240 s when these were.
    pass_time(hub, 200)
    assert seconds_ahead(hub, of_job(hub, batch)) == 40


def test_several_nodes_are_free_when_the_last_of_them_is(hub: Recorder) -> None:
    hub.join("n1", capacity(cpus=1))
    hub.join("n2", capacity(cpus=1))
    hub.submit(1, shape=LIMITED)
    hub.start()
    wide = Shape(nodes=2)
    assert seconds_ahead(hub, of_shape(hub.core.world, "ann", wide)) == 600
    assert of_shape(hub.core.world, "ann", Shape(nodes=3)).why == "needs 3 nodes with 1 cpu, 2 could take it"


def test_all_nodes_of_a_job_over_several_are_free_when_it_has_ended(hub: Recorder) -> None:
    hub.join("n1", capacity(cpus=1))
    hub.join("n2", capacity(cpus=1))
    hub.submit(1, shape=Shape(nodes=2, time_limit_us=10 * MINUTE))
    hub.decide()
    hub.take_all()
    assert seconds_ahead(hub, of_shape(hub.core.world, "ann", Shape(nodes=2))) == 600


def test_jobs_of_its_own_line_come_first(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=2))
    batch = hub.submit(10, shape=LIMITED)
    hub.start()
    assert seconds_ahead(hub, of_job(hub, batch, 3)) == 600
    fourth = of_job(hub, batch, 5)
    assert seconds_ahead(hub, fourth) == 600 + 2 * 600 / 2
    assert fourth.why == "2 jobs of its own line are in front of it: 2 at once, 10m each"


def test_the_limit_of_its_batch_and_its_date(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=8))
    batch = hub.submit(3, shape=LIMITED, max_running=1)
    hub.start()
    found = of_job(hub, batch)
    assert seconds_ahead(hub, found) == 600
    assert found.why == "its batch runs its limit of 1 jobs, one of which is to end then"
    unlimited = hub.submit(2, max_running=1)
    hub.start()
    assert of_job(hub, unlimited).certainty == "unknown"


def test_a_limit_of_the_policy_holds_although_there_is_room(hub: Recorder) -> None:
    """It starts when something that counts there has ended: not now, and not when somebody else's job ends."""
    hub.feed(PolicyChanged(1, Policy(batch_limits=Limits(jobs=Bound(1, 1))), 0))
    hub.answer()
    hub.take_all()
    hub.join("n", capacity(cpus=8))
    hub.submit(1, shape=Shape(time_limit_us=MINUTE))
    batch, other = hub.submit(2, shape=LIMITED), hub.submit(2)
    hub.start()
    found = of_job(hub, batch)
    assert (seconds_ahead(hub, found), found.certainty) == (600, "if nothing comes before it")
    assert found.why == (f"batch {batch} runs 1 of at most 1 jobs (soft 1, hard 1); the first of what counts ends then")
    assert of_job(hub, other).certainty == "unknown"
    assert "nothing says when that changes" in of_job(hub, other).why


def test_not_before_the_date_of_its_batch(hub: Recorder) -> None:
    hub.join("n")
    hub.wait(1)
    at_us = hub.core.world.wall_us + 600 * SECOND
    found = of_job(hub, hub.submit(1, start_after_us=at_us))
    assert (found.at_us, found.certainty) == (at_us, "if nothing comes before it")
    assert found.why == "its batch is not to start before"
    assert of_job(hub, hub.submit(1, start_after_us=1)).certainty == "now"


def test_held_jobs_wait_for_a_person(hub: Recorder) -> None:
    batch = hub.submit(2)
    hub.feed(JobsHeld(1, batch, ((1, 2),), 0))
    hub.answer()
    hub.take_all()
    assert of_job(hub, batch, 1).why == f"it is held; `lanai release {batch}/1` lets it run"
    assert of_job(hub, batch).why == f"it is held; `lanai release {batch}` lets it run"


def test_a_hold_that_ends_by_itself_says_when(hub: Recorder) -> None:
    """It used to be unknown; and of a batch that is held as a whole, nothing was said to wait."""
    hub.join("n")
    batch = hub.submit(2)
    until_us = hub.now_us + 600 * SECOND
    hub.feed(JobsHeld(1, batch, ((1, 2),), hub.now_us, until_us=until_us))
    hub.take_all()
    for index in (2, None):
        found = of_job(hub, batch, index)
        assert (found.at_us, found.certainty) == (until_us, "if nothing comes before it")
        assert found.why.startswith("it is held until 1970-01-01 00:26:40 UTC; `lanai release")


def test_a_reservation_ends_what_is_free(hub: Recorder) -> None:
    node = hub.node(hub.join("n", capacity(cpus=2)))
    until_us = hub.now_us + 30 * MINUTE
    node.lay(Step(until_us, until_us + 30 * MINUTE, node.total, "somebody", lambda line: False))
    world = hub.core.world
    assert of_shape(world, "ann", Shape(time_limit_us=30 * MINUTE)).certainty == "now"
    afterwards = of_shape(world, "ann", Shape(time_limit_us=31 * MINUTE))
    assert (seconds_ahead(hub, afterwards), afterwards.certainty) == (3600, "if nothing comes before it")
    assert afterwards.why == "what runs or is kept for others on n is expected to have ended by then"
    assert seconds_ahead(hub, of_shape(world, "ann", Shape())) == 3600


@given(
    cpus=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    jobs=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 50)), max_size=8),
    asked=st.integers(1, 4),
    nodes=st.integers(1, 2),
)
def test_it_is_when_a_naive_look_at_all_ends_says(
    cpus: list[int], jobs: list[tuple[int, int]], asked: int, nodes: int
) -> None:
    """Attempts end by their limits and nothing comes: then so many nodes have room, and no moment before."""
    hub = Recorder()
    for number, count in enumerate(cpus):
        hub.join(f"n{number}", capacity(cpus=count))
    for count, minutes in jobs:
        hub.submit(1, shape=Shape(cpu_milli=1000 * count, time_limit_us=minutes * MINUTE))
    hub.decide()
    world = hub.core.world
    lift_all(world)  # what waits has been promised something, which is left out of account here
    running = [(node, node.grants.values()) for node in world.nodes.values()]
    ends = [(node, grant.line.shape) for node, grants in running for grant in grants]

    def has_room(at_us: int) -> bool:
        free = {node: node.capacity.cpu_milli for node in world.nodes.values()}
        for node, shape in ends:
            if shape.time_limit_us > at_us:
                free[node] -= shape.cpu_milli
        return sum(left >= 1000 * asked for left in free.values()) >= nodes

    moments = sorted({0, *(shape.time_limit_us for _, shape in ends)})
    naive = next((at_us for at_us in moments if has_room(at_us)), None)
    found = of_shape(world, "ann", Shape(cpu_milli=1000 * asked, nodes=nodes))
    assert (found.certainty == "unknown") == (naive is None)
    assert naive is None or found.at_us - world.wall_us == naive
    assert (found.certainty == "now") == (naive == 0)


@pytest.mark.parametrize(
    ("free", "asked", "fits"),
    [
        (Shape(cpu_milli=4000, memory_bytes=3 * GIB), Shape(memory_bytes=GIB), 3),
        (Shape(cpu_milli=2500, memory_bytes=9 * GIB), Shape(memory_bytes=GIB), 2),
        (Shape(cpu_milli=0), Shape(), 0),
    ],
)
def test_how_often_a_request_fits(free: Shape, asked: Shape, fits: int) -> None:
    layout = Layout()
    assert fit_number(layout.request(free), layout.request(asked)) == fits
