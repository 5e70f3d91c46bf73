"""What the flags of a service do in a pass: tiers, dedicated nodes, no backfill, reservations beyond the depth."""

from __future__ import annotations

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.events import PolicyChanged
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.score import Scorer
from lanai.model.ids import BatchId, NodeId
from lanai.model.policy import Policy, Preset, ServicePolicy, Weights
from lanai.model.resources import Shape

A = NodeId(1)
MINUTE = 60 * SECOND


def settle(hub: Recorder, policy: Policy) -> None:
    """It is in force."""
    hub.feed(PolicyChanged(1, policy, hub.now_us))
    hub.take_all()


def shape(cpus: int, minutes: int = 0) -> Shape:
    return Shape(cpu_milli=1000 * cpus, time_limit_us=minutes * MINUTE)


def started(hub: Recorder) -> list[BatchId]:
    """The batches of what a pass starts, in order."""
    return [start.batch for start in hub.start()]


@pytest.mark.parametrize("preset", ["fair", "tight"])
def test_a_higher_tier_goes_first_whatever_was_there_before(hub: Recorder, preset: Preset) -> None:
    settle(hub, Policy(preset=preset, services={"high": ServicePolicy(tier=2), "low": ServicePolicy(tier=-1)}))
    hub.join("a", capacity(cpus=2))
    low = hub.submit(2, service="low")
    normal = hub.submit(2)
    high = hub.submit(2, service="high")
    assert started(hub) == [high]
    hub.end(A, 1, 1, 2)
    hub.take_all()
    assert hub.counts(normal) == {"locked": 2}, "by the fast path too"
    assert hub.counts(low) == {"queued": 2}


def test_a_dedicated_job_has_its_node_to_itself(hub: Recorder) -> None:
    settle(hub, Policy(services={"alone": ServicePolicy(is_dedicated=True)}))
    hub.join("a", capacity(cpus=4))
    hub.join("b", capacity(cpus=4))
    shared = hub.submit(1)
    assert started(hub) == [shared]
    alone = hub.submit(2, service="alone")
    assert started(hub) == [alone], "on the node where nobody is, and on no other"
    more = hub.submit(4)
    assert started(hub) == [more]
    assert [sum(node.active.values()) for node in hub.core.world.nodes.values()] == [4, 1]
    assert hub.counts(more) == {"queued": 1, "locked": 3}


def test_whose_service_may_not_backfill_waits_behind_a_promise(hub: Recorder) -> None:
    """Two short jobs would both end before the large one can start; only one of them may go before it."""
    settle(hub, Policy(services={"patient": ServicePolicy(may_backfill=False), "first": ServicePolicy(tier=1)}))
    hub.join("a", capacity(cpus=4))
    hub.submit(1, shape=shape(2, 60))
    started(hub)
    hub.submit(1, service="first", shape=shape(4, 10))
    patient = hub.submit(1, service="patient", shape=shape(1, 1))
    usual = hub.submit(1, shape=shape(1, 1))
    assert started(hub) == [usual]
    assert hub.counts(patient) == {"queued": 1}
    why = hub.core.why(patient, None)
    assert why is not None and why["code"] == "behind"
    assert "start before nobody" in why["verdict"]


@pytest.mark.parametrize(("reserves", "begun"), [(False, True), (True, False)])
def test_a_service_that_always_reserves_has_a_promise_beyond_the_depth(
    hub: Recorder, reserves: bool, begun: bool
) -> None:
    """The third would be in the way of the second, which is behind the depth of one."""
    services = {
        "first": ServicePolicy(tier=2),
        "second": ServicePolicy(tier=1, reserves_always=reserves),
    }
    settle(hub, Policy(services=services, backfill_order="same"))
    hub.join("a", capacity(cpus=4))
    hub.join("b", capacity(cpus=4))
    hub.submit(2, shape=shape(3, 60))
    started(hub)
    hub.submit(1, service="first", shape=shape(4, 10))
    hub.submit(1, service="second", shape=shape(4, 10))
    third = hub.submit(2, shape=shape(1, 600))
    found = started(hub)
    assert (found == [third]) is begun
    assert len(hub.core.world.promises) == 1 + reserves


def test_the_target_presses_more_the_nearer_it_is(hub: Recorder) -> None:
    policy = Policy(
        preset="tight",
        weights=Weights(target=1.0),
        services={"prompt": ServicePolicy(target_wait_us=30 * MINUTE)},
    )
    settle(hub, policy)
    batch = hub.submit(1, service="prompt")
    line = next(iter(hub.batch(batch).lines.values()))

    def score(minutes: float) -> float:
        hub.core.world.wall_us = hub.batch(batch).submitted_at_us + round(minutes * MINUTE)
        return Scorer(hub.core.world, {}, 1).score(hub.batch(batch), line)

    assert [score(minutes) for minutes in (0, 20, 28, 29, 29.5, 30, 500)] == [1 / 30, 1 / 10, 1 / 2, 1, 1, 1, 1]
    usual = hub.submit(1)
    assert Scorer(hub.core.world, {}, 1).score(hub.batch(usual), next(iter(hub.batch(usual).lines.values()))) == 0


def test_a_predicted_estimate_decides_what_is_backfilled(hub: Recorder) -> None:
    """Ann asks for an hour, and her jobs never run for more than a minute."""
    settle(hub, Policy(services={"guess": ServicePolicy(estimates="predicted"), "first": ServicePolicy(tier=1)}))
    hub.join("a", capacity(cpus=4))
    hub.submit(1, user="bob", shape=shape(2, 30))
    started(hub)
    hub.submit(1, user="cid", service="first", shape=shape(4, 10))
    guess = hub.submit(1, service="guess", shape=shape(1, 60))
    assert started(hub) == []
    hub.core.world.observe("ann", [MINUTE, MINUTE])
    line = next(iter(hub.batch(guess).lines.values()))
    assert estimate_us(hub.core.world, line) == MINUTE
    assert started(hub) == [guess]
