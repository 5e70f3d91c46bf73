"""What would let a waiting job start."""


from core_recorder import GIB, SECOND, Recorder, capacity
from lanai.core import advice
from lanai.core.events import JobsHeld, NodeWished
from lanai.core.nodes import Step
from lanai.model.ids import BatchId, Index
from lanai.model.resources import Shape

MINUTE = 60 * SECOND


def changes(hub: Recorder, batch: BatchId, index: int | None = None) -> list[str]:
    return advice.changes(hub.core.world, hub.batch(batch), None if index is None else Index(index))


def waiting(hub: Recorder, shape: Shape, **settings: object) -> BatchId:
    """A batch of one job that finds no room."""
    batch = hub.submit(1, shape=shape, **settings)
    hub.decide()
    hub.take_all()
    return batch


def test_with_less_of_one_thing(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=8, gib=16))
    hub.submit(1, shape=Shape(cpu_milli=3500, memory_bytes=4 * GIB))
    hub.start()
    assert changes(hub, waiting(hub, Shape(cpu_milli=8000))) == ["would start at once with 4 cpus instead of 8"]
    assert changes(hub, waiting(hub, Shape(memory_bytes=16 * GIB))) == [
        "would start at once with 12 GiB of memory instead of 16 GiB"
    ]
    assert changes(hub, waiting(hub, Shape(cpu_milli=8000, memory_bytes=16 * GIB))) == []


def test_what_is_too_large(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=8, gib=16))
    assert changes(hub, waiting(hub, Shape(memory_bytes=64 * GIB))) == [
        "would start at once with 16 GiB of memory instead of 64 GiB",
        "with at most 16 GiB of memory there is a node for it",
        "a node with 64 GiB of memory could take it",
    ]


def test_without_any_node(hub: Recorder) -> None:
    assert changes(hub, waiting(hub, Shape(cpu_milli=2000))) == ["a node with 2 cpus could take it"]


def test_wishes_that_would_free_it(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    batch = hub.submit(3, max_running=1)
    hub.feed(JobsHeld(1, batch, ((3, 3),), 0))
    hub.answer()
    hub.start()
    assert changes(hub, batch, 3) == [f"`lanai release {batch}/3` lets it run"]
    assert changes(hub, batch, 2) == [f"`lanai set {batch} --max-running 2`, or any more, lets more of it run"]
    assert changes(hub, batch, 1) == []
    hub.batch(batch).state = "paused"
    assert changes(hub, batch, 2) == [f"`lanai release {batch}` lets the batch go on"]
    hub.batch(batch).state = "open"


def test_a_date(hub: Recorder) -> None:
    hub.join("n")
    batch = waiting(hub, Shape(), start_after_us=hub.core.world.wall_us + 60 * MINUTE)
    assert changes(hub, batch) == [f"`lanai set {batch} --start-after now` lets its jobs start"]


def test_drained_and_avoided_nodes(hub: Recorder) -> None:
    node = hub.join("n")
    hub.feed(NodeWished(1, "n", "drain", 0))
    hub.take_all()
    batch = waiting(hub, Shape())
    assert changes(hub, batch) == ["`lanai node resume n` opens a node that is large enough"]
    hub.feed(NodeWished(1, "n", "resume", 0))
    hub.batch(batch).avoided.add(node)
    hub.take_all()
    assert changes(hub, batch) == [f"`lanai release {batch}` lets it use the nodes again on which it failed"]


def test_how_many_nodes_do_not_take_it_and_why(hub: Recorder) -> None:
    hub.join("small", capacity(cpus=1))
    hub.join("busy", capacity(cpus=4))
    hub.join("drained", capacity(cpus=4))
    hub.join("other", capacity(cpus=4))
    hub.hello("new", capacity(cpus=4))
    hub.feed(NodeWished(1, "drained", "drain", 0))
    hub.take_all()
    hub.submit(1, shape=Shape(cpu_milli=4000))
    hub.decide()
    hub.take_all()
    avoided = hub.submit(1, shape=Shape(cpu_milli=3000))
    hub.batch(avoided).avoided.add(hub.core.world.names["other"])
    found = advice.rejections(hub.core.world, hub.batch(avoided), None)
    assert found == {"too small": 1, "away": 1, "drained": 1, "failed it lately": 1, "busy": 1}
    hub.batch(avoided).avoided.clear()
    assert advice.rejections(hub.core.world, hub.batch(avoided), Index(1))["with room"] == 1
    assert advice.rejections(hub.core.world, hub.batch(avoided), Index(2)) == {}
    hub.take_all()


def test_fewer_nodes_and_fewer_features(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    batch = waiting(hub, Shape())
    (line,) = hub.batch(batch).lines.values()
    line.waiting.add(1, 1)
    line.shape = Shape(nodes=2)
    assert changes(hub, batch) == ["would start at once on 1 node instead of 2"]
    line.shape = Shape(features=("ssd",))
    assert changes(hub, batch) == ["would start at once without the feature ssd"]
    line.waiting.remove(1, 1)


def test_a_time_limit_that_ends_before_a_reservation(hub: Recorder) -> None:
    node = hub.node(hub.join("n", capacity(cpus=4)))
    batch = waiting(hub, Shape(time_limit_us=60 * MINUTE))
    (line,) = hub.batch(batch).lines.values()
    line.waiting.add(1, 1)
    until_us = hub.now_us + 20 * MINUTE
    node.lay(Step(until_us, until_us + 60 * MINUTE, node.total, "somebody", lambda line: False))
    assert changes(hub, batch) == ["with --time under 20m it could be backfilled"]
    line.waiting.remove(1, 1)
