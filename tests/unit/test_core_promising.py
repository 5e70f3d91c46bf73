"""Promises of one pass are spread over its calls, and lasting ones are bettered and renewed in their turn."""

from __future__ import annotations

import msgspec
import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.events import JobsCancelled, NodeWished, PolicyChanged
from lanai.core.nodes import Node
from lanai.core.rehearsal import rehearse
from lanai.core.schedule import decide
from lanai.core.schedule.lines import Line
from lanai.core.world import Promise
from lanai.model.ids import BatchId, NodeId
from lanai.model.policy import BackfillKind, Policy, ServicePolicy, UserPolicy, Weights
from lanai.model.resources import Shape

MINUTE = 60 * SECOND
BY_AGE = Weights(age=1.0, xfactor=0.0)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of the core may look for no more than one promise."""
    monkeypatch.setattr(decide, "LOOKED_AT_MOST", 1)


def full(hub: Recorder, backfill: BackfillKind, minutes: tuple[int, ...] = (10, 20, 30, 40)) -> list[NodeId]:
    """Nodes of 2 cpus on each of which one attempt of so many minutes runs that takes all."""
    hub.core.world.policy = Policy(preset="tight", weights=BY_AGE, backfill=backfill, depth=8)
    nodes = [hub.join(f"n{each}", capacity(cpus=2)) for each in minutes]
    for each in minutes:
        hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=each * MINUTE))
    hub.start()
    return nodes


def nodes(hub: Recorder) -> list[Node]:
    return list(hub.core.world.nodes.values())


def wide(hub: Recorder, user: str, minutes: int, nodes: int = 1) -> BatchId:
    return hub.submit(1, user=user, shape=Shape(cpu_milli=2000, nodes=nodes, time_limit_us=minutes * MINUTE))


def small(hub: Recorder) -> None:
    """One who asks for less than all others, and is the last: but for him nobody could be in anybody's way."""
    hub.submit(1, user="zoe", shape=Shape(time_limit_us=999 * MINUTE))


def minutes_promised(hub: Recorder) -> dict[BatchId, float]:
    """What each batch was promised, from now, but for that of `small`."""
    return {
        line.batch: (each.at_us - hub.now_us) / MINUTE
        for line, each in hub.core.world.promises.items()
        if hub.core.world.batches[line.batch].user != "zoe"
    }


def calls_of_one_pass(hub: Recorder) -> int:
    hub.core.world.needs_pass = True
    calls = 0
    while hub.core.needs_pass:
        hub.core.decide(hub.now_us)
        calls += 1
    return calls


def ended(hub: Recorder, node: NodeId, minutes: int) -> None:
    """What runs on the node ends after so many minutes, and is not followed at once."""
    hub.now_us += minutes * MINUTE
    (grant,) = hub.core.world.nodes[node].grants.values()
    hub.end(node, grant.id & 0xFFFFFF, *grant.members)


@pytest.mark.parametrize("backfill", ["easy", "conservative"])
def test_each_call_makes_one_promise_more_and_the_pass_all_of_them(
    hub: Recorder, little: None, backfill: BackfillKind
) -> None:
    full(hub, backfill)
    batches = [wide(hub, user, 60) for user in ("ann", "bob", "carl", "dora")]
    small(hub)
    hub.core.world.needs_pass = True
    known: dict[Line, Promise] = {}
    calls = 0
    while hub.core.needs_pass:
        hub.core.decide(hub.now_us)
        calls += 1
        found = hub.core.world.promises
        assert known.items() <= found.items()
        assert len(found) <= len(known) + 1
        known = dict(found)
    assert calls >= 5
    assert minutes_promised(hub) == dict(zip(batches, (10, 20, 30, 40), strict=True))
    assert not hub.core.world.renewed


def test_lasting_promises_are_bettered_one_after_the_other(hub: Recorder, little: None) -> None:
    """One in each pass here: the next pass goes on where the last one had to leave off."""
    full(hub, "conservative")
    batches = [wide(hub, user, 60) for user in ("ann", "bob", "carl", "dora")]
    small(hub)
    hub.start()
    assert minutes_promised(hub) == dict(zip(batches, (10, 20, 30, 40), strict=True))
    hub.feed(JobsCancelled(1, batches[0], None, (), hub.now_us))
    seen = []
    for _ in range(5):
        calls_of_one_pass(hub)
        seen.append(tuple(minutes_promised(hub).values()))
    hub.take_all()
    assert list(dict.fromkeys(seen)) == [(10, 30, 40), (10, 20, 40), (10, 20, 30)]


def test_where_a_promise_breaks_those_that_were_made_first_are_renewed_first(hub: Recorder, little: None) -> None:
    """What is on the node outlives what was expected. Whose turn is first now was promised something later."""
    hub.core.world.policy = Policy(backfill="conservative")
    node = hub.join("n", capacity(cpus=2))
    hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=10 * MINUTE), user="ann")
    hub.start()
    first = wide(hub, "ann", 20)
    small(hub)
    hub.start()
    hub.now_us += MINUTE
    second = wide(hub, "bob", 20)  # who has used nothing
    hub.start()
    before = minutes_promised(hub)
    assert before[first] == 9 and before[second] >= 29
    hub.now_us += 11 * MINUTE  # past the minute for which it is held on to
    calls_of_one_pass(hub)
    found = minutes_promised(hub)
    assert found[first] > 0 and found[second] >= found[first] + 20
    assert not hub.core.world.is_renewing
    hub.core.world.has_fast_path = False
    ended(hub, node, 1)
    hub.decide()
    hub.take_all()
    assert hub.counts(first) == {"locked": 1}


def test_what_was_promised_one_who_starts_meanwhile_is_not_for_the_next_of_its_line(
    hub: Recorder, little: None
) -> None:
    """Between two calls of a pass a node becomes free, and a head that was promised something starts there."""
    nodes = full(hub, "easy")
    line = hub.submit(2, user="ann", shape=Shape(cpu_milli=2000, time_limit_us=5 * MINUTE))
    wide(hub, "bob", 60, nodes=2)
    small(hub)
    hub.core.world.has_fast_path = False
    hub.core.world.needs_pass = True
    while not hub.core.world.promises:
        hub.core.decide(hub.now_us)
    assert hub.core.needs_pass and minutes_promised(hub) == {line: 10}
    ended(hub, nodes[3], 0)
    hub.decide()
    hub.take_all()
    assert hub.counts(line) == {"locked": 1, "queued": 1}
    assert minutes_promised(hub)[line] == 5  # where the first of them is now


def test_where_there_is_no_time_any_more_nothing_is_promised(hub: Recorder) -> None:
    """The only node that it may go to is drained: others are not put behind what cannot be."""
    a, _, _, _ = full(hub, "conservative")
    named = hub.submit(1, user="ann", shape=Shape(cpu_milli=2000, on="n10", time_limit_us=MINUTE))
    small(hub)
    hub.start()
    assert minutes_promised(hub) == {named: 10}
    hub.feed(NodeWished(1, "n10", "drain", hub.now_us))
    hub.decide()
    hub.take_all()
    assert minutes_promised(hub) == {} and not hub.node(a).steps


@pytest.mark.parametrize("backfill", ["easy", "conservative"])
def test_what_happens_between_two_calls_of_a_pass_is_looked_at(
    hub: Recorder, little: None, backfill: BackfillKind
) -> None:
    """A node goes that was promised by an earlier call: those that it was promised to are promised another one."""
    full(hub, backfill)
    batches = [wide(hub, user, 60) for user in ("ann", "bob", "carl")]
    small(hub)
    hub.core.world.needs_pass = True
    while len(hub.core.world.promises) < 2:
        hub.core.decide(hub.now_us)
    hub.feed(NodeWished(1, "n10", "drain", hub.now_us))
    hub.decide()
    hub.take_all()
    assert minutes_promised(hub) == dict(zip(batches, (20, 30, 40), strict=True))


def test_where_nobody_makes_way_any_more_a_time_is_looked_for(hub: Recorder, little: None) -> None:
    """What was kept where others were to make way was no time that was promised: it does not outlast the pass."""
    urgent = ServicePolicy(tier=2, is_preemptor=True)
    policy = Policy(preset="tight", weights=BY_AGE, backfill="conservative")
    services = {"urgent": urgent, "low": ServicePolicy(is_preemptee=True)}
    hub.core.world.policy = msgspec.structs.replace(policy, services=services)
    for name in "ab":
        hub.join(name, capacity(cpus=2))
    full = Shape(cpu_milli=2000, time_limit_us=60 * MINUTE)
    hub.submit(1, shape=msgspec.structs.replace(full, on="a"))
    hub.submit(1, service="low", shape=msgspec.structs.replace(full, on="b"))
    hub.start()
    batches = [hub.submit(1, service="urgent", shape=msgspec.structs.replace(full, on=name)) for name in "ab"]
    small(hub)
    hub.start()
    assert [line.batch for line in hub.core.world.giving] == batches[1:]
    hub.feed(PolicyChanged(1, msgspec.structs.replace(policy, services={"urgent": urgent}), hub.now_us))
    hub.decide()
    hub.take_all()
    found = minutes_promised(hub)
    assert found[batches[0]] == 60 and found[batches[1]] >= 60


def test_promises_are_not_made_anew_for_a_policy_that_is_back(hub: Recorder, little: None) -> None:
    """Easy backfill is in force while promises that cannot be kept are made anew, and then conservative again."""
    first = full(hub, "conservative")[0]
    for user in ("ann", "bob", "carl"):
        wide(hub, user, 60)
    small(hub)
    hub.start()
    hub.feed(NodeWished(1, "n10", "drain", hub.now_us))
    while not hub.core.world.is_renewing:
        hub.core.decide(hub.now_us)
    for backfill in ("easy", "conservative"):
        hub.core.world.policy = msgspec.structs.replace(hub.core.world.policy, backfill=backfill)
        hub.core.world.needs_pass = True
        hub.decide()
        hub.take_all()
        assert not hub.core.world.is_renewing and not hub.node(first).steps


def test_a_dry_run_of_another_policy_goes_by_that_while_a_pass_goes_on(hub: Recorder, little: None) -> None:
    """What the pass has found until then was found under the policy in force. All of it is there again afterwards."""
    full(hub, "easy")
    batches = [wide(hub, user, 60) for user in ("ann", "bob", "carl")]
    small(hub)
    hub.core.world.needs_pass = True
    while len(hub.core.world.promises) < 2:
        hub.core.decide(hub.now_us)
    world = hub.core.world
    before = dict(world.promises), set(world.renewed), set(world.bettered), [list(each.steps) for each in nodes(hub)]
    other = msgspec.structs.replace(world.policy, weights=Weights(user=1.0), users={"carl": UserPolicy(priority=1.0)})
    found = rehearse(world, policy=other)
    times = {each.batch: (each.at_us - world.wall_us) / MINUTE for each in found.promises}
    assert [times[batch] for batch in batches] == [20, 30, 10]
    after = dict(world.promises), set(world.renewed), set(world.bettered), [list(each.steps) for each in nodes(hub)]
    assert before == after
    hub.decide()
    hub.take_all()
    assert minutes_promised(hub) == dict(zip(batches, (10, 20, 30), strict=True))
