"""Dry runs: they say what the next pass does, and leave the world as it was to the last field."""

from __future__ import annotations

from collections import deque
from random import Random

import msgspec
import pytest

from core_recorder import GIB, SECOND, Recorder, capacity
from core_state import state
from lanai.core.effects import RecallJobs, StartAttempts
from lanai.core.events import JobsHeld
from lanai.core.queue import Span
from lanai.core.rehearsal import Rehearsal, rehearse
from lanai.core.schedule.snapshot import Snapshot
from lanai.model.ids import BatchId
from lanai.model.policy import AccountPolicy, Bound, Limits, Policy, ServicePolicy, UserPolicy
from lanai.model.resources import Shape

HOUR = 3600 * SECOND
TEN_MINUTES = Shape(time_limit_us=600 * SECOND)
POLICIES = {
    "fair": Policy(),
    "tight": Policy(preset="tight", backfill="conservative"),
    "limits": Policy(
        limits=Limits(jobs=Bound(3, 4)),
        batch_limits=Limits(cpus=Bound(1000, 2000)),
        users={"ann": UserPolicy(limits=Limits(cpu_seconds=Bound(1000, 4000), waiting=Bound(2, 2)))},
    ),
    "tree": Policy(
        accounts={"chem": AccountPolicy(weight=3), "lab": AccountPolicy(parent="chem")},
        users={"bob": UserPolicy(account="lab", weight=2)},
        half_life_us=HOUR,
    ),
    "services": Policy(
        services={"normal": ServicePolicy(tier=1, reserves_always=True), "lone": ServicePolicy(is_dedicated=True)},
        sharing="single_user",
        node_choice="most_free",
    ),
    "none": Policy(backfill="none", preset="tight"),
}


def peopled(seed: int, policy: Policy) -> Recorder:
    """A hub with nodes, users, jobs that run, wide ones, promises, holds and limits; the last batches are new."""
    hub, random = Recorder(), Random(seed)
    hub.core.world.policy = policy
    hub.join("big", capacity(cpus=4))
    for name in ("a", "b", "c"):
        hub.join(name, capacity(cpus=2))
    for step in range(12):
        if step == 9:
            hub.decide()
            hub.take_all()
        shape = Shape(
            cpu_milli=random.choice((500, 1000, 2000, 3000)),
            time_limit_us=random.choice((0, 60, 600, 7200)) * SECOND,
            nodes=random.choice((1, 1, 1, 2, 3)),
            memory_bytes=random.choice((0, GIB)),
        )
        user = random.choice(("ann", "bob", "cid"))
        wish = {"service": random.choice(("normal", "lone"))} if policy.services else {}
        hub.submit(random.randint(1, 6), user=user, shape=shape, **wish)
        hub.wait(random.randint(1, 4))
        hub.take_all()
    for name in ("d", "e"):
        hub.join(name, capacity(cpus=3))
    return hub


def planned(found: Rehearsal) -> list[tuple[BatchId, tuple[Span, ...], tuple[str, ...]]]:
    return [(start.batch, start.spans, start.nodes) for start in found.starts]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", POLICIES)
def test_a_dry_run_leaves_everything_as_it_was(name: str, seed: int) -> None:
    hub = peopled(seed, POLICIES[name])
    world = hub.core.world
    records, effects = world.records, world.effects
    before = state(hub.core)
    rehearse(world)
    assert state(hub.core) == before
    assert world.records is records and world.effects is effects
    for other in POLICIES.values():
        rehearse(world, policy=other)
        assert state(hub.core) == before
    hub.core.check()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", POLICIES)
def test_the_next_pass_does_what_the_dry_run_says(name: str, seed: int) -> None:
    """A twin that was never asked decides the same, and both do what was said."""
    hub, twin = peopled(seed, POLICIES[name]), peopled(seed, POLICIES[name])
    found = rehearse(hub.core.world)
    for each in (hub, twin):
        each.records.clear()
        each.decide()
    assert hub.records == twin.records and hub.effects == twin.effects
    begun = {
        (grant.batch.id, index, tuple(node.name for node in (grant.node, *grant.others)))
        for grant in hub.core.world.grants.values()
        for index in grant.members
    }
    said = {
        (start.batch, index, start.nodes)
        for start in found.starts
        for first, last in start.spans
        for index in range(first, last + 1)
    }
    assert said <= begun and len(said) == found.starting
    promises = [(line.batch, line.waiting.head(), promise.at_us) for line, promise in hub.core.world.promises.items()]
    assert [(one.batch, one.index, one.at_us) for one in found.promises] == promises
    started = sum(last - first + 1 for one in hub.take(StartAttempts) for first, last in one.spans)
    assert found.starting and started <= found.starting
    hub.effects.clear()


def test_what_would_start_where_and_what_is_promised(hub: Recorder) -> None:
    hub.join("a", capacity(cpus=2))
    hub.join("b", capacity(cpus=1))
    running = hub.submit(2, shape=TEN_MINUTES)
    hub.start()
    wide = hub.submit(1, user="bob", shape=msgspec.structs.replace(TEN_MINUTES, cpu_milli=2000), name="wide")
    short = hub.submit(9, user="cid", shape=Shape(time_limit_us=SECOND))
    found = rehearse(hub.core.world)
    assert planned(found) == [(short, ((1, 1),), ("a",))]
    (promised,) = found.promises
    assert (promised.batch, promised.index, promised.name, promised.nodes) == (wide, 1, "wide", ("a",))
    assert promised.at_us == hub.now_us + 600 * SECOND
    assert (found.starting, found.promised, found.waiting, found.blocked.jobs) == (1, 1, 9, 0)
    assert found.is_whole and not found.differs
    assert found.starts[0].until_us == hub.now_us + SECOND
    assert hub.counts(running) == {"locked": 2}
    assert hub.counts(short) == {"queued": 9}
    hub.check_nothing_left()


def test_what_would_be_blocked_by_another_policy(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    batch = hub.submit(9, shape=TEN_MINUTES)
    held = hub.submit(2)
    hub.feed(JobsHeld(1, held, None, 0))
    hub.answer()
    world = hub.core.world
    assert rehearse(world).starting == 4
    found = rehearse(world, policy=Policy(limits=Limits(jobs=Bound(1, 2))))
    assert found.differs and planned(found) == [(batch, ((1, 2),), ("n",))]
    limited, other = found.blocked.rows
    assert (limited.batch, limited.spans, limited.code) == (batch, ((3, 9),), "limit_hub_jobs")
    assert limited.reason == "the hub runs 2 of at most 2 jobs (soft 1, hard 2)"
    assert (other.batch, other.code) == (held, "held")
    assert world.policy == Policy() and world.counters == {}


def test_a_user_is_told_of_his_own_and_how_much_others_start(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    anns, bobs = hub.submit(2, user="ann"), hub.submit(9, user="bob")
    found = rehearse(hub.core.world, only="ann")
    assert [start.batch for start in found.starts] == [anns]
    assert (found.starting, found.others, found.waiting, found.promises) == (4, 2, 7, [])
    assert sorted({start.batch for start in rehearse(hub.core.world).starts}) == [anns, bobs]


def test_a_pass_that_is_not_the_last_says_so(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=400))
    hub.submit(300)
    found = rehearse(hub.core.world)
    assert (found.starting, found.waiting, found.is_whole) == (256, 44, False)


def test_surplus_is_not_taken_back_by_a_dry_run(hub: Recorder) -> None:
    """A batch that has had nothing yet makes a pass ask for surplus: here it only would."""
    node = hub.join("n", capacity(cpus=1))
    first = hub.submit(300, user="ann", shape=TEN_MINUTES)
    hub.start()
    hub.end(node, 1, 1, wall_us=1000)
    hub.take_all()
    assert hub.node(node).surplus_count
    other = hub.submit(1, user="bob")
    rehearse(hub.core.world)
    hub.check_nothing_left()
    assert not hub.batch(other).has_begun and hub.batch(first).has_begun
    hub.decide()
    assert hub.take(RecallJobs)


def test_a_snapshot_keeps_containers_and_their_order() -> None:
    class Slotted:
        __slots__ = ("held", "rest", "said")

        def __init__(self) -> None:
            self.held = {"b": 1, "a": 2}
            self.rest = deque([1, 2], maxlen=2)
            self.said = {1}

    thing = Slotted()
    held, rest, said = thing.held, thing.rest, thing.said
    snapshot = Snapshot([thing], frozenset(("said",)))
    del held["b"]
    held["b"], held["c"] = 1, 3
    rest.append(3)
    said.add(2)
    thing.rest = deque()
    snapshot.put_back()
    assert (list(thing.held.items()), list(thing.rest)) == ([("b", 1), ("a", 2)], [1, 2])
    assert thing.held is held and thing.rest is rest
    assert thing.said == {1, 2}, "left out"
