"""Why something waits, in words with numbers."""

from core_recorder import GIB, SECOND, Recorder, capacity
from lanai.core.effects import AcceptNode, Answer
from lanai.core.events import JobsHeld, NodeHeard, NodeTookStock, NodeWished
from lanai.core.explain import describe
from lanai.model.ids import BatchId, Index, ShapeId
from lanai.model.moments import format_moment
from lanai.model.policy import Policy, ServicePolicy
from lanai.model.resources import Shape


def verdict(hub: Recorder, batch: BatchId, index: int | None = None) -> str:
    found = hub.core.why(batch, None if index is None else Index(index))
    assert found is not None
    return f"{found['code']}: {found['verdict']}"


def test_no_node(hub: Recorder) -> None:
    batch = hub.submit(1)
    assert verdict(hub, batch) == "next: the next pass of the scheduler looks at it"
    hub.decide()
    assert verdict(hub, batch) == "no_node: no node has joined yet"


def test_nodes_that_are_drained_troubled_or_away(hub: Recorder) -> None:
    node = hub.join("n")
    batch = hub.submit(1)
    hub.feed(NodeWished(1, "n", "drain", 0))
    hub.decide()
    assert verdict(hub, batch) == "no_open_node: needs 1 cpu; 1 of 1 nodes that are large enough are drained"
    hub.feed(NodeWished(1, "n", "resume", 0), NodeHeard(node, "disk full", 0))
    hub.decide()
    assert verdict(hub, batch) == "no_open_node: needs 1 cpu; n takes nothing new: disk full"
    hub.feed(NodeHeard(node, "", 0))
    hub.wait(100)
    hub.decide()
    assert verdict(hub, batch) == "no_open_node: needs 1 cpu; 1 of 1 nodes that are large enough are away"
    assert {type(effect).__name__ for effect in hub.take_all()} == {"Answer", "DrainNode", "DismissNode"}


def test_a_node_that_goes_is_the_reason_also_of_who_asks_for_more_than_others_that_find_no_room(hub: Recorder) -> None:
    for name, cpus in ("s", 2), ("m", 4), ("l", 8):
        hub.join(name, capacity(cpus=cpus))
    hub.submit(14, shape=Shape(time_limit_us=3600 * SECOND), user="bob")
    hub.start()
    hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=600 * SECOND), user="dora")
    large = hub.submit(1, shape=Shape(cpu_milli=8000, time_limit_us=600 * SECOND), user="carl")
    assert hub.start() == []
    assert hub.batch(large).line(ShapeId(0)).reason == "no_room"
    hub.feed(NodeWished(5, "l", "drain", hub.now_us))
    hub.take_all()
    assert hub.start() == []
    assert hub.batch(large).line(ShapeId(0)).reason == "no_open_node"


def test_who_finds_no_room_is_told_of_the_node_that_has_most_of_what_is_scarce(hub: Recorder) -> None:
    """It was the one with most gpus, then most memory, whatever was asked for; and gpus were not told of."""
    hub.join("a", capacity(cpus=4, gpus=2))
    hub.join("b", capacity(cpus=4, gpus=2, tape=1))
    hub.submit(1, shape=Shape(cpu_milli=4000))
    hub.submit(1, shape=Shape(cpu_milli=3000, memory_bytes=GIB, gpu_milli=2000, named=(("tape", 1),)))
    hub.start()
    wide, gpu = hub.submit(1, shape=Shape(cpu_milli=2000)), hub.submit(1, shape=Shape(gpu_milli=1000, cpu_milli=3000))
    named = hub.submit(1, shape=Shape(named=(("tape", 1),)))
    assert hub.start() == []
    busy = "all 2 nodes that could take it are busy with 2 attempts; most free on"
    assert verdict(hub, wide) == f"no_room: needs 2 cpus; {busy} b: 1 cpu, 7 GiB memory"
    assert verdict(hub, gpu) == f"no_room: needs 3 cpus, 1 gpu; {busy} b: 1 cpu, 7 GiB memory, 0 gpus"
    one = "the one node that could take it is busy with 1 attempt; most free on"
    assert verdict(hub, named) == f"no_room: needs 1 cpu, 1 tape; {one} b: 1 cpu, 7 GiB memory, 0 tape"


def test_who_would_be_in_the_way_of_what_was_promised_is_told_of_that(hub: Recorder) -> None:
    """It was told that all nodes were busy, and that one of them had all its cpus free."""
    for name in "ab":
        hub.join(name)
    hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=60 * SECOND))
    hub.start()
    wide = hub.submit(1, shape=Shape(nodes=2, cpu_milli=2000, time_limit_us=60 * SECOND))
    long = hub.submit(1, shape=Shape(time_limit_us=1200 * SECOND))
    assert hub.start() == []
    at = format_moment(hub.core.world.wall_us + 60 * SECOND)
    assert verdict(hub, long) == (
        f"no_room: needs 1 cpu; b has room, but is kept for {wide}/1 from {at} on, and it may take 20m"
    )
    assert verdict(hub, wide) == "no_room: needs 2 nodes with 2 cpus; of 2 that could take it, 1 have room now"


def test_a_node_that_has_not_taken_stock_is_not_away(hub: Recorder) -> None:
    """Just connected: the reason said that 0 of 1 nodes were away."""
    batch = hub.submit(1)
    hub.hello("n")
    hub.decide()
    assert verdict(hub, batch) == "no_open_node: needs 1 cpu; n is connecting"
    hub.feed(NodeTookStock(hub.core.world.names["n"], []))
    assert isinstance(hub.take_all()[0], AcceptNode)


def test_held_position_and_history(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(5)
    hub.feed(JobsHeld(1, batch, ((5, 5),), 0))
    hub.take(Answer)
    hub.start()
    hub.end(node, 1, 1, outcome="memory", wall_us=10**9)
    hub.decide()
    hub.take_all()
    assert verdict(hub, batch, 5) == f"held: held by ann; `lanai release {batch}` lets it run"
    found = hub.core.why(batch, Index(4))
    assert found is not None and found["position"] == 2
    assert hub.core.why(BatchId(99), None) is None


def test_the_facts_name_the_batch_the_request_and_the_nodes(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=1))
    batch = hub.submit(3)
    hub.start()
    found = hub.core.why(batch, Index(2))
    assert found is not None
    assert found["facts"] == [
        f"batch {batch}: 2 queued, 0 held, 1 granted, 0 running, 0 done, 0 failed, 0 cancelled of 3",
        "asks for 1 cpu",
        "1 of 1 nodes are up",
        "number 1 of 2 in its line",
    ]


def test_a_request_in_words() -> None:
    shape = Shape(cpu_milli=1500, memory_bytes=2 * GIB, gpu_milli=1000, named=(("licence", 2),))
    assert describe(shape) == "1.5 cpus, 2 GiB memory, 1 gpu, 2 licence"


def test_what_fits_nowhere_names_the_largest(hub: Recorder) -> None:
    """Nodes that are away or drained count: they may come back. Without any node nothing is impossible."""
    large = Shape(cpu_milli=8000)
    assert hub.core.fits([large]) == [""]
    hub.join("small", capacity(cpus=4, gib=64))
    hub.join("wide", capacity(cpus=16, gib=4))
    assert hub.core.fits([large, Shape(cpu_milli=32000), Shape(cpu_milli=16000, memory_bytes=8 * GIB)]) == [
        "",
        "needs 32 cpus, the largest node has 16 cpus",
        "needs 16 cpus, 8 GiB memory, no single node has all of it",
    ]
    hub.feed(NodeWished(1, "wide", "drain", 0))
    hub.take_all()
    assert hub.core.fits([large]) == [""]


def test_a_removed_node_is_no_room_that_may_come_back(hub: Recorder) -> None:
    """A job that only the removed node could have held was accepted, and waited for it for ever."""
    hub.join("large", capacity(cpus=8))
    hub.join("small", capacity(cpus=1))
    wide = Shape(cpu_milli=4000)
    assert hub.core.fits([wide]) == [""]
    hub.feed(NodeWished(1, "large", "remove", 0))
    assert hub.core.fits([wide]) == ["needs 4 cpus, the largest node has 1 cpu"]
    hub.feed(NodeWished(1, "small", "remove", 0))
    assert hub.core.fits([wide]) == [""], "no node at all: anything may join"
    hub.take_all()
    batch = hub.submit(1)
    hub.decide()
    assert verdict(hub, batch) == "no_node: all nodes have been removed"


def test_room_that_is_not_to_be_shared_is_said_to_be_so(hub: Recorder) -> None:
    """The nodes were all said to be busy, with most of their cpus free."""
    hub.core.world.policy = Policy(services={"alone": ServicePolicy(is_dedicated=True)})
    hub.join("a", capacity(cpus=4))
    hub.join("b", capacity(cpus=4))
    hub.submit(2, service="alone")
    hub.start()
    other, alone = hub.submit(1), hub.submit(1, service="alone")
    hub.decide()
    assert verdict(hub, other) == (
        "no_room: needs 1 cpu; a (and 1 more) have room, but what runs there has its node to itself"
    )
    hub.take_all()
    assert verdict(hub, alone) == (
        "no_room: needs 1 cpu; it has its nodes to itself, and 0 of 2 that could take it are empty"
    )
    hub.core.world.policy = Policy(sharing="single_user")
    hub.batch(alone).user = "bob"
    hub.core.world.needs_pass = True
    hub.decide()
    room = "no_room: needs 1 cpu; a (and 1 more) have room"
    assert verdict(hub, alone) == f"{room}, but another user's jobs are there, and users do not share nodes"
    hub.batch(alone).user = "ann"
    hub.take_all()
