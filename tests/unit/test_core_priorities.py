"""What makes the priority of a line, and its place in the order of the pass."""

import msgspec
import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.events import JobsCancelled, JobsHeld, PolicyChanged
from lanai.core.priorities import Asked, Ranked, priorities
from lanai.core.shares import shares
from lanai.model.ids import Index
from lanai.model.policy import (
    CAPS,
    WEIGHTS,
    AccountPolicy,
    Bound,
    Limits,
    Policy,
    Preset,
    ServicePolicy,
    UserPolicy,
)
from lanai.model.resources import Shape
from reservation_scenes import reserve

TIGHT = Policy(preset="tight")


def rows(hub: Recorder, **asked: object) -> list[Ranked]:
    return priorities(hub.core.world, msgspec.convert(asked, Asked)).rows


def points(row: Ranked) -> dict[str, float]:
    return {factor.name: round(factor.points, 6) for factor in row.factors if factor.points}


def test_each_factor_has_its_value_cap_weight_and_part(hub: Recorder) -> None:
    weights = msgspec.structs.replace(WEIGHTS, user=0.01, nodes=-0.5)
    caps = msgspec.structs.replace(CAPS, age=0.005)
    users = {"ann": UserPolicy(priority=50)}
    hub.core.world.policy = Policy(preset="tight", weights=weights, caps=caps, users=users)
    batch = hub.submit(7, user="ann")
    hub.wait(864)
    (row,) = rows(hub)
    age = row.factors[0]
    assert (age.name, age.value, age.cap, age.weight, age.points) == ("age", 0.01, 0.005, 1.0, 0.005)
    assert row.factors[2].cap is None
    assert points(row) == {"age": 0.005, "xfactor": 0.048, "share": 2.0, "user": 0.5, "nodes": -0.5}
    assert round(row.score, 6) == 2.053
    assert round(sum(factor.part for factor in row.factors), 6) == 1
    assert [factor.name for factor in row.factors] == list(WEIGHTS.__struct_fields__)
    assert (row.batch, row.spans, row.jobs, row.place) == (batch, ((1, 7),), 7, 1)


@pytest.mark.parametrize("policy", [TIGHT, Policy()])
def test_the_places_are_those_of_the_pass(hub: Recorder, policy: Policy) -> None:
    """What the rows say is first is what the pass starts first, in either preset."""
    hub.core.world.policy = policy
    for user in ("ann", "bob", "cid"):
        hub.submit(2, user=user, shape=Shape(time_limit_us=600 * SECOND))
        hub.wait(30)
    first, *_ = rows(hub)
    assert [row.place for row in rows(hub)] == [1, 2, 3]
    hub.join("n", capacity(cpus=1))
    (started,) = hub.start()
    assert started.batch == first.batch


@pytest.mark.parametrize("preset", ["fair", "tight"])
def test_within_a_batch_the_score_decides(hub: Recorder, preset: Preset) -> None:
    """Large jobs of the batch count more than small ones that stand before them in its list."""
    hub.core.world.policy = Policy(preset=preset, weights=msgspec.structs.replace(WEIGHTS, cpus=10))
    small, large = Shape(cpu_milli=1000), Shape(cpu_milli=2000)
    hub.join("n", capacity(cpus=2))
    batch = hub.submit(2, shapes=((1, small), (1, large)))
    assert [row.spans for row in rows(hub)] == [((2, 2),), ((1, 1),)]
    (started,) = hub.start()
    assert (started.batch, started.spans) == (batch, ((2, 2),))


def test_a_tier_goes_before_shares_and_scores(hub: Recorder) -> None:
    hub.core.world.policy = Policy(services={"urgent": ServicePolicy(tier=2), "normal": ServicePolicy()})
    hub.submit(1, user="ann")
    urgent = hub.submit(1, user="ann", service="urgent")
    first, second = rows(hub)
    assert (first.batch, first.tier, first.service, second.tier) == (urgent, 2, "urgent", 0)
    assert {first.turn, second.turn} == {1, 2} and first.turns == second.turns == 2


def test_what_is_blocked_has_a_score_and_no_place(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    limited = hub.submit(3, max_running=1)
    hub.start()
    other = hub.submit(5)
    hub.feed(JobsHeld(1, other, ((4, 5),), 0))
    hub.answer()
    hub.decide()
    hub.take_all()
    (row,) = rows(hub, batch=limited)
    assert (row.place, row.code) == (0, "max_running")
    assert "limit of 1 jobs" in row.reason


def test_a_user_sees_his_own_lines_and_their_places_among_all(hub: Recorder) -> None:
    anns, bobs = hub.submit(3, user="ann"), hub.submit(5, user="bob")
    assert [(row.batch, row.place) for row in rows(hub, only="bob")] == [(bobs, 2)]
    assert rows(hub, only="bob", user="ann") == rows(hub, batch=anns, index=Index(9)) == []
    assert [row.batch for row in rows(hub, batch=anns, index=Index(3))] == [anns]
    found = priorities(hub.core.world, Asked(most=1))
    assert ([row.batch for row in found.rows], found.more, found.lines) == ([anns], 1, 2)
    assert [row.batch for row in rows(hub, skip=1)] == [bobs]


@pytest.mark.parametrize("preset", ["fair", "tight"])
def test_shares_and_priorities_agree_on_whose_turn_it_is(hub: Recorder, preset: Preset) -> None:
    """Of batches in every state of waiting. A limit takes nobody's turn: the pass looks at him and goes on."""
    users = {"ann": UserPolicy(account="a"), "bob": UserPolicy(account="b", weight=3)}
    limited = AccountPolicy(limits=Limits(jobs=Bound(1, 1)))
    policy = Policy(preset=preset, users=users, accounts={"a": AccountPolicy(), "b": AccountPolicy(), "c": limited})
    hub.feed(PolicyChanged(1, policy, hub.now_us))
    hub.join("n", capacity(cpus=6), take=False)
    hub.take_all()
    reserve(hub, 60, 120)
    scenes: dict[str, dict[str, object]] = {
        "waits": {"user": "bob"},
        "waits too": {"user": "ann", "priority": 3},
        "date": {"user": "ann", "start_after_us": hub.now_us + SECOND},
        "held": {"user": "bob", "is_held": True},
        "partly held": {"user": "ann", "shape": Shape(cpu_milli=64_000)},
        "paused": {"user": "bob"},
        "max_running": {"user": "cid", "max_running": 1},
        "limit of its account": {"user": "cid", "account": "c"},
        "reservation": {"user": "ann", "reservation": "r"},
        "too large": {"user": "dan", "shape": Shape(cpu_milli=64_000)},
        "all at nodes": {"user": "dan", "priority": 1},
    }
    batches = {scene: hub.submit(2, **about) for scene, about in scenes.items()}  # type: ignore[arg-type]
    hub.feed(JobsHeld(1, batches["partly held"], ((2, 2),), 0))
    hub.feed(JobsCancelled(2, batches["all at nodes"], ((2, 2),), (), 0))
    hub.batch(batches["paused"]).state = "paused"
    hub.decide()
    hub.take_all()
    by_shares = {share.name: share.turn for share in shares(hub.core.world).shares if share.place == "batch"}
    by_priority = {str(row.batch): row.turn or None for row in rows(hub)}
    none_waits = {str(batch): None for batch in batches.values() if not hub.batch(batch).waiting}
    assert by_shares == by_priority | none_waits
    with_turn = {scene for scene, batch in batches.items() if by_shares[str(batch)]}
    assert {by_shares[str(batches[scene])] for scene in with_turn} == set(range(1, len(with_turn) + 1))
    assert not with_turn & {"date", "held", "paused", "reservation"}
    assert with_turn >= {"partly held", "max_running", "limit of its account", "too large"}
    assert {row.turns for row in rows(hub)} == {len(with_turn)}


def test_why_names_the_score_where_the_order_goes_by_it(hub: Recorder) -> None:
    batch = hub.submit(1)
    hub.wait(600)
    fair = hub.core.why(batch, None)
    hub.core.world.policy = TIGHT
    tight = hub.core.why(batch, None)
    assert fair is not None and tight is not None
    said = "its score is 2.04: share 2, xfactor 0.0333, age 0.00694"
    assert said in tight["facts"] and said not in fair["facts"]  # type: ignore[operator]
