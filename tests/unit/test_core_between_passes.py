"""What an end is followed by before any pass has come: no rule of the pass is broken meanwhile."""

from __future__ import annotations

import msgspec
import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.effects import StartAttempts
from lanai.core.events import (
    NodeDisconnected,
    NodeHeard,
    NodeJoined,
    NodeTookStock,
    NodeWished,
    PolicyChanged,
    TimePassed,
)
from lanai.model.access import Caller, Role
from lanai.model.ids import BatchId, Index, NodeId
from lanai.model.policy import Bound, Limits, Policy, Preset, ServicePolicy, UserPolicy
from lanai.model.resources import Shape

A = NodeId(1)
BOSS = Caller("boss", Role.OPERATOR)
MINUTE = 60 * SECOND


def settle(hub: Recorder, policy: Policy) -> None:
    """It is in force."""
    hub.feed(PolicyChanged(1, policy, hub.now_us))
    hub.take_all()


def shape(cpus: int, minutes: int = 0) -> Shape:
    return Shape(cpu_milli=1000 * cpus, time_limit_us=minutes * MINUTE)


def followed(hub: Recorder, number: int, *indices: int) -> list[BatchId]:
    """Attempts of a grant end on the first node; whose jobs start there at once."""
    hub.end(A, number, *indices)
    found = [start.batch for start in hub.take(StartAttempts)]
    hub.take_all()
    return found


def test_a_job_that_is_alone_is_followed_by_one_of_its_own_line_at_most(hub: Recorder) -> None:
    settle(hub, Policy(sharing="single_job"))
    hub.join("a", capacity(cpus=4))
    hub.submit(6, shape=shape(1, 5))
    hub.start()
    followed(hub, 1, 1)
    assert sum(hub.node(A).active.values()) <= 1
    hub.decide()
    hub.take_all()
    assert sum(hub.node(A).active.values()) == 1


def test_a_dedicated_job_is_followed_by_one_of_its_own_line_at_most(hub: Recorder) -> None:
    settle(hub, Policy(services={"alone": ServicePolicy(is_dedicated=True)}))
    hub.join("a", capacity(cpus=4))
    hub.submit(6, shape=shape(1, 5), service="alone")
    hub.start()
    followed(hub, 1, 1)
    assert sum(hub.node(A).active.values()) <= 1
    hub.decide()
    hub.take_all()
    assert sum(hub.node(A).active.values()) == 1


@pytest.mark.parametrize("preset", ["fair", "tight"])
def test_without_backfill_nothing_overtakes_the_first(hub: Recorder, preset: Preset) -> None:
    """Small jobs that follow each other without a pass would keep a large one out for ever."""
    settle(hub, Policy(backfill="none", preset=preset))
    hub.join("a", capacity(cpus=2))
    hub.submit(1, shape=shape(1, 5))
    hub.submit(1, shape=shape(1, 10))
    hub.start()
    hub.now_us += MINUTE
    large = hub.submit(1, shape=shape(2, 60), user="bob")
    hub.now_us += MINUTE
    hub.submit(50, shape=shape(1, 5))
    hub.decide()
    hub.take_all()
    for number in (1, 2):
        hub.now_us += 4 * MINUTE
        assert followed(hub, number, 1) in ([], [large])
    hub.decide()
    hub.take_all()
    assert hub.counts(large) == {"locked": 1}


def test_without_backfill_equals_still_follow_each_other_at_once(hub: Recorder) -> None:
    settle(hub, Policy(backfill="none"))
    hub.join("a", capacity(cpus=2))
    hub.submit(10, shape=shape(1, 5))
    hub.submit(10, shape=shape(1, 5), user="bob")
    hub.start()
    assert len(followed(hub, 1, 1)) == 1


def test_who_may_not_backfill_does_not_do_so_where_an_attempt_ends(hub: Recorder) -> None:
    settle(hub, Policy(services={"patient": ServicePolicy(may_backfill=False), "first": ServicePolicy(tier=1)}))
    hub.join("a", capacity(cpus=2))
    hub.submit(1, shape=shape(1, 5))
    hub.submit(1, shape=shape(1, 30), user="eve")
    hub.start()
    large = hub.submit(1, shape=shape(2, 60), user="bob", service="first")
    patient = hub.submit(5, shape=shape(1, 1), user="carl", service="patient")
    hub.decide()
    hub.take_all()
    assert followed(hub, 1, 1) == []
    hub.decide()
    hub.take_all()
    assert hub.counts(patient) == {"queued": 5}
    assert hub.counts(large) == {"queued": 1}


def test_without_backfill_who_is_at_his_soft_limit_does_not_overtake_either(hub: Recorder) -> None:
    limits = Limits(jobs=Bound(1, 9))
    settle(hub, Policy(backfill="none", preset="tight", users={"ann": UserPolicy(limits=limits)}))
    hub.join("a", capacity(cpus=2))
    hub.submit(20, shape=shape(1, 5))
    hub.decide()
    hub.take_all()
    assert sum(hub.node(A).active.values()) == 2, "nobody else waits"
    large = hub.submit(1, shape=shape(2, 60), user="bob")
    for number in (1, 2):
        hub.now_us += MINUTE
        hub.end(A, 1, number)
        hub.decide()
        hub.take_all()
    assert hub.counts(large) == {"locked": 1}


def stream(hub: Recorder, policy: Policy, waits: dict[str, object], rounds: int = 12) -> BatchId:
    """One node is full of small jobs of which many wait; the batch that should have its turn among them."""
    settle(hub, policy)
    hub.join("a", capacity(cpus=4))
    for minutes in (3, 4, 5, 6):
        hub.submit(50, shape=shape(1, minutes), user="bob")
    hub.decide()
    hub.take_all()
    batch = hub.submit(1, **waits)  # type: ignore[arg-type]
    hub.decide()
    for _ in range(rounds):
        hub.now_us += MINUTE
        hub.feed(NodeHeard(A, "", hub.now_us), TimePassed(hub.now_us))
        for grant in list(hub.core.world.grants.values()):
            if hub.now_us >= grant.granted_at_us + grant.line.shape.time_limit_us:
                hub.end(A, grant.id & 0xFFFFFF, *sorted(grant.members))
        hub.decide()
    hub.take_all()
    return batch


def test_a_dedicated_job_gets_a_node_that_jobs_of_its_own_size_would_keep_busy(hub: Recorder) -> None:
    policy = Policy(services={"alone": ServicePolicy(is_dedicated=True, tier=1)})
    batch = stream(hub, policy, {"shape": shape(1, 5), "service": "alone"})
    assert batch not in hub.core.world.batches or hub.counts(batch) == {"locked": 1}


def test_another_user_gets_a_node_that_one_user_would_keep_busy(hub: Recorder) -> None:
    policy = Policy(sharing="single_user")
    batch = stream(hub, policy, {"shape": shape(1, 5), "user": "carl"})
    assert batch not in hub.core.world.batches or hub.counts(batch) == {"locked": 1}


def test_a_node_that_is_drained_leaves_no_kind_of_node_behind(hub: Recorder) -> None:
    """What ends there used to bring its kind back, of which no node was left: jobs seemed to wait for busy ones."""
    hub.join("a", capacity(cpus=2))
    hub.submit(1, shape=shape(1, 5))
    hub.start()
    hub.feed(NodeWished(1, "a", "drain", BOSS))
    hub.end(A, 1, 1)
    hub.take_all()
    assert hub.core.world.cells == {}


def test_a_node_that_has_lost_a_feature_is_given_no_more_of_who_asks_for_it(hub: Recorder) -> None:
    hub.feed(NodeJoined(9, "a", b"key", "boot", capacity(cpus=2), ("fast",), "ann", hub.now_us))
    hub.feed(NodeTookStock(A, []))
    hub.take_all()
    hub.submit(10, shape=Shape(cpu_milli=2000, features=("fast",), time_limit_us=MINUTE))
    hub.decide()
    (start,) = hub.take(StartAttempts)
    hub.feed(NodeDisconnected(A, 9))
    hub.feed(NodeJoined(10, "a", b"key", "boot", capacity(cpus=2), (), "ann", hub.now_us))
    hub.feed(NodeTookStock(A, [(start.grant, Index(1), "running")]))
    hub.decide()
    hub.take_all()
    assert followed(hub, 1, 1) == []


def test_nothing_is_kept_for_who_is_at_a_limit_meanwhile(hub: Recorder) -> None:
    """Under `conservative` promises outlast the pass; that of a line which a limit holds would keep others out."""
    settle(hub, Policy(backfill="conservative", users={"ann": UserPolicy(limits=Limits(jobs=Bound(1, 1)))}))
    hub.join("a", capacity(cpus=2))
    hub.submit(1, shape=shape(2, 10), user="bob")
    hub.start()
    hub.submit(1, shape=shape(1, 60))
    hub.submit(1, shape=shape(1, 60))
    other = hub.submit(1, shape=shape(1, 60), user="carl")
    last = hub.submit(1, shape=Shape(cpu_milli=500, time_limit_us=60 * MINUTE), user="dora")
    hub.core.world.policy = msgspec.structs.replace(hub.core.world.policy, preset="tight")
    hub.decide()
    hub.take_all()
    assert len(hub.core.world.promises) == 4
    hub.now_us += 5 * MINUTE
    hub.end(A, 1, 1)
    hub.decide()
    hub.take_all()
    assert hub.counts(other) == {"locked": 1}
    assert [line.batch for line in hub.core.world.promises] == [last]
