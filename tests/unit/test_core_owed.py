"""Nobody waits without bound: who asks for much is not passed over for ever by small jobs that follow each other."""

from __future__ import annotations

from random import Random

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.events import NodeHeard, PolicyChanged, TimePassed
from lanai.core.schedule import decide
from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.policy import BackfillKind, Bound, Limits, Policy, Preset, ServicePolicy, Weights
from lanai.model.records import SaveReason
from lanai.model.resources import Shape

MINUTE = 60 * SECOND


def minutes_until_begun(hub: Recorder, batch: BatchId, most: int, runs: Random | None = None) -> int | None:
    """Jobs end when their time limit is over, or (`runs`) after 0.6 to 6 minutes. None: not begun after so many."""
    began_us = hub.now_us
    lengths: dict[tuple[GrantId, Index], int] = {}
    while hub.now_us < began_us + most * MINUTE:
        hub.now_us += MINUTE // 2
        hub.feed(*[NodeHeard(node, "", hub.now_us) for node in hub.core.world.nodes], TimePassed(hub.now_us))
        for grant in list(hub.core.world.grants.values()):
            for index in sorted(grant.members):
                limit_us = grant.line.shape.time_limit_us
                if runs is not None and not limit_us:
                    limit_us = int(runs.uniform(0.1, 1) * 6 * MINUTE)
                length_us = lengths.setdefault((grant.id, index), limit_us)
                if hub.now_us >= grant.granted_at_us + length_us and index in grant.members:
                    hub.end(grant.node.id, grant.id & 0xFFFFFF, index, wall_us=length_us)
        hub.decide()
        hub.take_all()
        if batch not in hub.core.world.batches or hub.counts(batch) == {"locked": 1}:
            return (hub.now_us - began_us) // MINUTE
    return None


def busy(hub: Recorder, policy: Policy, users: str, minutes: tuple[int, ...]) -> None:
    """Two nodes of 4 cpus are full of jobs of one cpu, of which thousands more wait."""
    hub.feed(PolicyChanged(1, policy, hub.now_us))
    hub.take_all()
    for name in "ab":
        hub.join(name, capacity(cpus=4))
    for user, limit in zip(users.split(), minutes, strict=True):
        hub.submit(4000, shape=Shape(cpu_milli=1000, time_limit_us=limit * MINUTE), user=user)
    hub.decide()
    hub.take_all()
    hub.now_us += MINUTE // 2


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize(
    ("preset", "users"),
    [
        ("fair", "bob dora bob dora"),
        ("fair", "bob bob bob dora"),
        ("fair", "dora dora dora dora"),
        ("tight", "bob dora bob dora"),
        ("tight", "dora dora dora dora"),
    ],
)
def test_a_large_job_of_somebody_who_has_small_ones_too(hub: Recorder, preset: Preset, nodes: int, users: str) -> None:
    """Turns alternate between the two users, so that the large job is not the first for long. What it was promised when
    it was is kept for it all the same: else its nodes would fill up with small jobs again and again."""
    busy(hub, Policy(preset=preset), users, (3, 4, 5, 7))
    wide = hub.submit(1, user="bob", shape=Shape(cpu_milli=4000, nodes=nodes, time_limit_us=5 * MINUTE))
    hub.decide()
    hub.take_all()
    minutes = minutes_until_begun(hub, wide, 400)
    assert minutes is not None and (minutes < 60 or preset == "tight")


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_same_without_backfill(hub: Recorder, nodes: int) -> None:
    busy(hub, Policy(backfill="none"), "bob dora bob dora", (3, 4, 5, 7))
    wide = hub.submit(1, user="bob", shape=Shape(cpu_milli=4000, nodes=nodes, time_limit_us=5 * MINUTE))
    hub.decide()
    hub.take_all()
    minutes = minutes_until_begun(hub, wide, 400)
    assert minutes is not None and minutes < 60


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("users", ["bob bob bob bob", "bob dora bob dora"])
@pytest.mark.parametrize("preset", ["fair", "tight"])
@pytest.mark.parametrize("backfill", ["easy", "conservative"])
def test_a_large_job_beside_small_ones_of_which_half_outlive_what_is_expected(
    hub: Recorder, backfill: BackfillKind, preset: Preset, users: str, seed: int
) -> None:
    """They have no time limit. Each that runs longer than the mean puts off the large job for which its node is to be
    free; those that were promised something later must not be in front of it then."""
    busy(hub, Policy(preset=preset, backfill=backfill), users, (0, 0, 0, 0))
    wide = hub.submit(1, user="carl", shape=Shape(cpu_milli=4000, nodes=2, time_limit_us=5 * MINUTE))
    hub.decide()
    hub.take_all()
    minutes = minutes_until_begun(hub, wide, 400, Random(seed))
    assert minutes is not None and minutes < 60


@pytest.mark.parametrize("seed", range(4))
def test_the_same_where_one_call_renews_one_promise(hub: Recorder, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "LOOKED_AT_MOST", 1)
    busy(hub, Policy(backfill="conservative"), "bob dora bob dora", (0, 0, 0, 0))
    wide = hub.submit(1, user="carl", shape=Shape(cpu_milli=4000, nodes=2, time_limit_us=5 * MINUTE))
    hub.decide()
    hub.take_all()
    minutes = minutes_until_begun(hub, wide, 400, Random(seed))
    assert minutes is not None and minutes < 60


def test_who_is_of_a_higher_tier_goes_before_who_is_owed(hub: Recorder) -> None:
    policy = Policy(services={"urgent": ServicePolicy(tier=1)})
    busy(hub, policy, "bob dora bob dora", (3, 4, 5, 7))
    wide = hub.submit(1, user="bob", shape=Shape(cpu_milli=4000, time_limit_us=5 * MINUTE))
    hub.decide()
    hub.take_all()
    assert hub.core.world.owed is not None and hub.core.world.owed.batch == wide
    urgent = hub.submit(1, user="dora", service="urgent", shape=Shape(cpu_milli=4000, time_limit_us=5 * MINUTE))
    hub.decide()
    hub.take_all()
    assert [line.batch for line in hub.core.world.promises] == [urgent]
    assert minutes_until_begun(hub, urgent, 60) is not None
    assert minutes_until_begun(hub, wide, 60) is not None


def test_who_is_owed_stays_so_where_one_call_cannot_find_out_what_to_promise_him(
    hub: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else he would lose it in a busy hub, where most calls look anew at more nodes than they may."""
    busy(hub, Policy(), "bob dora bob dora", (3, 4, 5, 7))
    wide = hub.submit(1, user="bob", shape=Shape(cpu_milli=4000, time_limit_us=5 * MINUTE))
    hub.decide()
    owed = hub.core.world.owed
    assert owed is not None and owed.batch == wide
    for node in hub.core.world.nodes.values():
        hub.core.world.reindex(node)  # as after any change on it
    monkeypatch.setattr(decide, "LOOKED_AT_MOST", 1)
    hub.core.decide(hub.now_us)
    assert hub.core.needs_pass and hub.core.world.owed is owed
    hub.decide()
    assert hub.core.world.owed is owed and owed in hub.core.world.promises
    hub.take_all()


def test_who_is_owed_and_starts_is_not_said_to_wait_behind_others(hub: Recorder) -> None:
    hub.core.world.policy = Policy(backfill="none")
    hub.core.world.has_fast_path = False
    node = hub.join("n", capacity(cpus=4))
    hub.submit(4, shape=Shape(time_limit_us=10 * MINUTE), user="bob")
    hub.start()
    wide = hub.submit(1, shape=Shape(cpu_milli=4000, time_limit_us=5 * MINUTE), user="bob")
    hub.decide()
    hub.take_all()
    hub.submit(3, shape=Shape(cpu_milli=2000, time_limit_us=5 * MINUTE), user="carl")
    hub.take_kept(SaveReason)
    hub.end(node, 1, 1, 2, 3, 4)
    hub.decide()
    hub.take_all()
    assert hub.counts(wide) == {"locked": 1}
    assert wide not in [reason.batch for reason in hub.take_kept(SaveReason)]


def test_at_an_end_nobody_who_is_owed_goes_before_a_higher_tier(hub: Recorder) -> None:
    """There is no backfill. What ends has room for the one who is owed first, and he would start without a pass."""
    hub.core.world.policy = Policy(backfill="none", services={"urgent": ServicePolicy(tier=1)})
    node = hub.join("n", capacity(cpus=4))
    hub.submit(4, shape=Shape(time_limit_us=10 * MINUTE), user="bob")
    hub.start()
    owed = hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=5 * MINUTE), user="bob")
    hub.start()
    assert hub.core.world.owed is not None and hub.core.world.owed.batch == owed
    urgent = hub.submit(1, service="urgent", shape=Shape(cpu_milli=3000, time_limit_us=5 * MINUTE), user="carl")
    hub.start()
    hub.end(node, 1, 1, 2)
    hub.decide()
    hub.take_all()
    assert hub.counts(owed) == {"queued": 1}
    hub.end(node, 1, 3)
    hub.decide()
    hub.take_all()
    assert hub.counts(urgent) == {"locked": 1}


@pytest.mark.parametrize("users", ["bob dora bob dora", "bob bob bob dora"])
def test_a_higher_tier_that_is_at_its_limit_does_not_go_before_him(hub: Recorder, users: str) -> None:
    """More of its jobs wait all the time: he would be owed something for ever, and not have it."""
    urgent = ServicePolicy(tier=1, limits=Limits(jobs=Bound(1, 1)))
    busy(hub, Policy(services={"urgent": urgent}), users, (3, 4, 5, 7))
    hub.submit(4000, service="urgent", shape=Shape(cpu_milli=1000, time_limit_us=3 * MINUTE), user="carl")
    wide = hub.submit(1, user="bob", shape=Shape(cpu_milli=3000, nodes=2, time_limit_us=5 * MINUTE))
    hub.decide()
    hub.take_all()
    minutes = minutes_until_begun(hub, wide, 400)
    assert minutes is not None and minutes < 60


def test_nobody_is_owed_anything_once_the_order_is_another_one(hub: Recorder) -> None:
    busy(hub, Policy(), "bob dora bob dora", (3, 4, 5, 7))
    wide = hub.submit(1, user="bob", shape=Shape(cpu_milli=4000, time_limit_us=5 * MINUTE))
    hub.decide()
    assert hub.core.world.owed is not None and hub.core.world.owed.batch == wide
    hub.feed(PolicyChanged(1, Policy(preset="tight", weights=Weights(own=1.0)), hub.now_us))
    hub.take_all()
    first = hub.submit(1, user="bob", shape=Shape(cpu_milli=3000, time_limit_us=5 * MINUTE), priority=1)
    hub.decide()
    hub.take_all()
    assert [line.batch for line in hub.core.world.promises] == [first]
