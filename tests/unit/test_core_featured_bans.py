"""Who is kept from a node because he failed there, where no other node has the feature that he asks for."""

from __future__ import annotations

from core_recorder import Recorder, capacity
from lanai.core.effects import StartAttempts
from lanai.core.events import NodeJoined, NodeTookStock
from lanai.model.batch import Retries
from lanai.model.ids import BatchId, NodeId
from lanai.model.resources import Shape

A = NodeId(1)


def scene(hub: Recorder, jobs: int, **settings: object) -> BatchId:
    """Of two nodes one is fast, and jobs that need that run there."""
    hub.feed(NodeJoined(9, "a", b"key", "boot", capacity(cpus=1), ("fast",), "ann", hub.now_us))
    hub.feed(NodeTookStock(A, []))
    hub.take_all()
    hub.join("b")
    return hub.submit(jobs, shape=Shape(cpu_milli=1000, features=("fast",)), **settings)


def fail(hub: Recorder, times: int) -> int:
    """Attempts meet a fault of their node, so many times at most; how many there were."""
    found = 0
    for _ in range(times):
        hub.core.world.needs_pass = True
        hub.decide()
        for start in hub.take(StartAttempts):
            found += 1
            hub.end(A, start.grant & 0xFFFFFF, start.spans[0][0], outcome="node")
        hub.take_all()
        hub.wait(2)
    hub.take_all()
    return found


def test_a_fault_of_the_only_node_with_the_feature_does_not_keep_its_jobs_from_it(hub: Recorder) -> None:
    batch = scene(hub, 1, retries=Retries(node=9))
    assert fail(hub, 5) == 5
    assert not hub.batch(batch).avoided


def test_who_is_kept_from_the_only_node_with_the_feature_is_let_back(hub: Recorder) -> None:
    """As when the other one that has it is gone."""
    batch = scene(hub, 1)
    held = hub.batch(batch)
    shape = next(iter(held.shapes))
    for first, last in held.line(shape).waiting.take(1):
        held.line(shape, A).waiting.add(first, last)
    hub.core.world.needs_pass = True
    hub.decide()
    assert len(hub.take(StartAttempts)) == 1
    hub.take_all()
