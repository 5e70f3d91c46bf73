"""The pass: what it starts where, and what it says of the rest."""

import pytest

from core_recorder import GIB, Recorder, capacity, grant
from lanai.core.effects import RecallJobs, StartAttempts
from lanai.core.events import NodeTookStock
from lanai.core.schedule.decide import MOST_STARTS
from lanai.model.ids import BatchId
from lanai.model.records import SaveReason
from lanai.model.resources import Shape


def reason(hub: Recorder, batch: BatchId) -> str:
    why = hub.core.why(batch, None)
    assert why is not None
    return f"{why['code']}: {why['verdict']}"


def test_what_fits_is_started_in_one_grant_a_node_and_line(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=3))
    batch = hub.submit(5)
    assert hub.start() == [StartAttempts(node, grant(1), batch, 0, 1, ((1, 3),))]
    assert hub.counts(batch) == {"queued": 2, "locked": 3}


def test_the_smallest_node_that_fits_is_taken(hub: Recorder) -> None:
    """A large node is kept for those that need it."""
    large, small = hub.join("large", capacity(cpus=8)), hub.join("small", capacity(cpus=2))
    hub.submit(1, shape=Shape(cpu_milli=2000))
    hub.submit(1, shape=Shape(cpu_milli=4000))
    assert [start.node for start in hub.start()] == [small, large]


def test_a_small_job_passes_a_large_one_that_has_no_room(hub: Recorder) -> None:
    """It leaves room enough for the large one at the time that is promised to that; which says why with numbers."""
    node = hub.join("n", capacity(cpus=4))
    hub.submit(1, shape=Shape(cpu_milli=3000))
    hub.start()
    large, small = hub.submit(1, shape=Shape(cpu_milli=2000)), hub.submit(1)
    (started,) = hub.start()
    assert (started.batch, started.node) == (small, node)
    assert reason(hub, large) == (
        "no_room: needs 2 cpus; the one node that could take it is busy with 2 attempts; most free on n: 0 cpus, "
        "8 GiB memory"
    )


def test_jobs_of_several_shapes_wait_in_several_lines(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(6, shapes=((2, Shape(cpu_milli=4000)), (4, Shape(cpu_milli=1000))))
    assert hub.start() == [StartAttempts(node, grant(1), batch, 0, 1, ((1, 1),))]
    hub.end(node, 1, 1)
    assert [type(effect).__name__ for effect in hub.take_all()] == ["ForgetResults", "StartAttempts"]
    assert {line.shape.cpu_milli: line.reason for line in hub.batch(batch).lines.values()}[1000] == "no_room"


def test_no_more_than_its_limit_runs(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    batch = hub.submit(9, max_running=2)
    (started,) = hub.start()
    assert started.spans == ((1, 2),)
    assert reason(hub, batch) == "max_running: its batch already runs its limit of 2 jobs at once"


def test_a_pass_stops_after_so_many_starts_and_wants_to_go_on(hub: Recorder) -> None:
    """A thousand nodes join at once: no single call may start everything."""
    hub.join("n", capacity(cpus=MOST_STARTS + 10))
    hub.submit(MOST_STARTS + 10)
    first = hub.core.decide(hub.now_us)
    assert hub.core.needs_pass
    second = hub.core.decide(hub.now_us)
    assert not hub.core.needs_pass
    spans = [e.spans for d in (first, second) for e in d.effects if isinstance(e, StartAttempts)]
    assert spans == [((1, MOST_STARTS),), ((MOST_STARTS + 1, MOST_STARTS + 10),)]


def test_a_reason_is_kept_once_and_forgotten_when_nothing_waits(hub: Recorder) -> None:
    """Numbers change all the time; the store is told only when the kind of reason changes."""
    batch = hub.submit(1)
    hub.decide()
    hub.core.world.needs_pass = True
    hub.decide()
    assert [record.code for record in hub.take_kept(SaveReason)] == ["no_node"]
    hub.join("n")
    hub.start()
    hub.core.world.needs_pass = True
    hub.decide()
    assert [(record.batch, record.code) for record in hub.take_kept(SaveReason)] == [(batch, "")]


def test_a_line_goes_back_to_a_node_it_was_kept_from_when_there_is_no_other(hub: Recorder) -> None:
    """A command was not found on one node and waits for the other, which is drained before it can take it."""
    one, two = hub.join("one", capacity(cpus=1)), hub.join("two", capacity(cpus=1))
    batch = hub.submit(2)
    hub.start()
    hub.end(one, 1, 1, outcome="notfound")
    hub.node(two).is_drained = True
    hub.core.world.reindex(hub.node(two))
    hub.take_all()
    assert [(start.node, start.attempt) for start in hub.start()] == [(one, 2)]
    assert hub.counts(batch) == {"locked": 2}


def test_avoidance_is_lifted_where_it_leaves_a_line_nowhere_to_go(hub: Recorder) -> None:
    """The large node failed three small jobs and is avoided; the large jobs fit nowhere else, and waited for ever."""
    large, small = hub.join("large", capacity(cpus=4)), hub.join("small", capacity(cpus=1))
    batch = hub.submit(9, shapes=((1, Shape(cpu_milli=4000)), (8, Shape(cpu_milli=1000))))
    hub.batch(batch).avoided = {large}
    started = hub.start()
    assert [(start.node, start.spans) for start in started] == [(large, ((1, 1),)), (small, ((2, 2),))]
    assert hub.batch(batch).avoided == set()


def test_a_batch_that_has_had_nothing_yet_gets_the_surplus_of_others_out_of_its_way(hub: Recorder) -> None:
    """50,000 short jobs run with hundreds more stacked at the node: a second batch must not wait behind those."""
    node = hub.join("n", capacity(cpus=1))
    hub.submit(500)
    hub.start()
    hub.end(node, 1, 1, wall_us=10_000)
    starts = hub.take(StartAttempts)
    assert sum(last - first + 1 for start in starts for first, last in start.spans) > 10
    hub.take_all()
    hub.submit(1, user="bob")
    hub.decide()
    (recall,) = hub.take(RecallJobs)
    assert recall.node == node


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Shape(cpu_milli=9000), "too_large: needs 9 cpus, the largest node has 4 cpus"),
        (Shape(memory_bytes=64 * GIB), "too_large: needs 64 GiB memory, the largest node has 8 GiB memory"),
        (Shape(gpu_milli=1000), "too_large: needs 1 gpu, the largest node has 0 gpus"),
        (Shape(named=(("licence", 2),)), "too_large: needs 2 licence, the largest node has 1 licence"),
    ],
)
def test_what_can_never_fit_says_how_large_the_largest_is(hub: Recorder, asked: Shape, text: str) -> None:
    hub.join("n", capacity(cpus=4, licence=1))
    batch = hub.submit(1, shape=asked)
    hub.decide()
    assert reason(hub, batch) == text


def test_way_is_made_on_as_many_nodes_as_jobs_wait_and_once_a_pass(hub: Recorder) -> None:
    """A batch of one job called back the surplus of two hundred nodes, and so did each that came with it."""
    nodes = [hub.join(f"n{number}", capacity(cpus=1)) for number in range(6)]
    hub.submit(5000)
    for start in hub.start():
        hub.end(start.node, int(start.grant) & (1 << 40) - 1, start.spans[0][0], wall_us=10_000)
    hub.take_all()
    assert all(hub.node(node).surplus_count for node in nodes)
    hub.submit(1, user="bob")
    hub.decide()
    assert [recall.node for recall in hub.take(RecallJobs)] == nodes[:1]
    hub.submit(2, user="eve")
    hub.submit(4, user="dan")
    hub.decide()
    assert {recall.node for recall in hub.take(RecallJobs)} == set(nodes[:4])
    hub.take_all()


def test_every_line_has_a_ticket(hub: Recorder) -> None:
    """Turns went to a batch's first line until that was used up, and the lines behind it were not looked at."""
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(90, shapes=((60, Shape(cpu_milli=4000)), (30, Shape(cpu_milli=1000))))
    hub.start()
    hub.decide()
    tickets = hub.core.world.cell_of(hub.node(node)).tickets
    assert [(line.shape_id, count >= 1) for line, count in tickets.items()] == [(0, True), (1, True)]
    assert hub.batch(batch).waiting == 89


def test_a_cell_goes_with_its_last_node(hub: Recorder) -> None:
    """Each capacity that a node ever had left a cell, and passes cost by their number."""
    node = hub.join("n", capacity(gib=8))
    for gib in range(9, 20):
        hub.hello("n", capacity(gib=gib))
        hub.feed(NodeTookStock(node, []))
    assert len(hub.core.world.cells) == 1
    hub.take_all()
