"""What nobody has submitted is answered as if it had been: by each option, compared with what submitting then does."""

from __future__ import annotations

from typing import Any

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.free import free
from lanai.core.schedule.forecast import Forecast, earliest_if_submitted, earliest_of_job
from lanai.model.access import Caller, Role
from lanai.model.batch import BatchSettings
from lanai.model.ids import Index
from lanai.model.policy import AccountPolicy, Bound, Limits, Policy, ServicePolicy, UserPolicy
from lanai.model.reservation import Access, Period, Reservation
from lanai.model.resources import Shape

MINUTE = 60 * SECOND
SHORT = Shape(time_limit_us=10 * MINUTE)


@pytest.fixture
def hub() -> Recorder:
    """Two nodes of four cpus: n1, and n2 with the feature ssd."""
    made = Recorder()
    made.feed(ev.TimePassed(made.now_us))
    made.join("n1", capacity(cpus=4))
    node = made.core.world.nodes[made.join("n2", capacity(cpus=4))]
    made.core.world.unindex(node)
    node.features = ("ssd",)
    made.core.world.reindex(node)
    return made


def settle(hub: Recorder, **about: Any) -> None:
    """The policy is this from now on."""
    hub.feed(ev.PolicyChanged(1, Policy(**about), 0))
    hub.answer()
    hub.take_all()


def expected(hub: Recorder, shape: Shape = SHORT, **about: Any) -> Forecast:
    """What is said of ann's job before it is submitted; after that the same is said of the one that waits."""
    found = earliest_if_submitted(hub.core.world, "ann", BatchSettings(shape=shape, **about))
    free_now = free(hub.core.world, "ann", BatchSettings(shape=shape, **about)).jobs
    world = hub.core.world
    batch = hub.submit(1, user="ann", shape=shape, **about)
    same = earliest_of_job(world, hub.batch(batch), None)
    assert (same.certainty, same.at_us, same.why) == (found.certainty, found.at_us, found.why)
    hub.start()
    has_started = hub.counts(batch) == {"locked": 1}
    assert has_started == (found.certainty == "now"), "what the pass does"
    assert not has_started or free_now, "what starts was free"
    return found


def seconds_ahead(hub: Recorder, found: Forecast) -> float:
    return (found.at_us - hub.core.world.wall_us) / SECOND


# -- --on and --features


def test_on_names_of_nodes(hub: Recorder) -> None:
    hub.submit(1, shape=Shape(cpu_milli=4000, time_limit_us=5 * MINUTE, on="n1"))
    hub.start()
    assert seconds_ahead(hub, expected(hub, Shape(on="n1"))) == 300
    assert expected(hub, Shape(on="n[2-3]")).certainty == "now"
    rooms = free(hub.core.world, "ann", BatchSettings(shape=Shape(on="n2"))).rooms
    assert [(room.names, room.jobs) for room in rooms] == [(("n2",), 3)]


def test_features(hub: Recorder) -> None:
    hub.submit(1, shape=Shape(cpu_milli=4000, time_limit_us=5 * MINUTE, features=("ssd",)))
    hub.start()
    assert seconds_ahead(hub, expected(hub, Shape(features=("ssd",)))) == 300


def test_jobs_in_front_of_its_own_line_count_on_its_nodes_only(hub: Recorder) -> None:
    """The third has to wait, although the other node has room for four."""
    batch = hub.submit(3, shape=Shape(cpu_milli=2000, time_limit_us=10 * MINUTE, on="n1"))
    third = earliest_of_job(hub.core.world, hub.batch(batch), Index(3))
    assert (third.certainty, seconds_ahead(hub, third)) == ("if nothing comes before it", 600)


# -- --service


def test_the_limits_are_those_of_the_service(hub: Recorder) -> None:
    """What the service says of jobs counts instead of what is said of the user."""
    small = ServicePolicy(limits=Limits(jobs=Bound(1, 1)))
    settle(hub, services={"small": small}, users={"ann": UserPolicy(limits=Limits(jobs=Bound(0, 0)))})
    assert expected(hub, service="small").certainty == "now"
    second = expected(hub, service="small")
    assert second.why == "service small runs 1 of at most 1 jobs (soft 1, hard 1); the first of what counts ends then"
    assert seconds_ahead(hub, second) == 600


def test_what_its_limits_never_let_start(hub: Recorder) -> None:
    """Submitting it is refused in the same words."""
    settle(hub, services={"brief": ServicePolicy(limits=Limits(cpu_seconds=Bound(600, 600)))})
    long = BatchSettings(shape=Shape(cpu_milli=2000, time_limit_us=10 * MINUTE), service="brief")
    never = "a job needs 1200 cpu-seconds, and service brief may have at most 600"
    found, room = earliest_if_submitted(hub.core.world, "ann", long), free(hub.core.world, "ann", long)
    assert (found.certainty, found.why, room.jobs, room.limit) == ("unknown", never, 0, never)
    assert expected(hub, service="brief").certainty == "now"


def test_what_no_batch_may_have(hub: Recorder) -> None:
    """It has no number yet that could be named."""
    settle(hub, batch_limits=Limits(cpus=Bound(2000, 2000)))
    assert when(hub).certainty == "now"
    large = BatchSettings(shape=Shape(cpu_milli=3000))
    found = earliest_if_submitted(hub.core.world, "ann", large)
    assert found.why == "a job needs 3 cpus, and each batch may have at most 2"


def test_a_dedicated_service_needs_a_node_where_nobody_is(hub: Recorder) -> None:
    settle(hub, services={"alone": ServicePolicy(is_dedicated=True)})
    for name in ("n1", "n2"):
        hub.submit(1, shape=Shape(time_limit_us=5 * MINUTE, on=name))
    hub.start()
    assert seconds_ahead(hub, expected(hub, service="alone")) == 300
    assert expected(hub).certainty == "now"


def test_a_preemptor_has_others_make_way(hub: Recorder) -> None:
    """Of two that may have to, the one that is a preemptee; it is given its ten seconds to end."""
    urgent, low = ServicePolicy(tier=1, is_preemptor=True), ServicePolicy(is_preemptee=True)
    settle(hub, services={"urgent": urgent, "low": low})
    for name, service in (("n1", "normal"), ("n2", "low")):
        hub.submit(1, service=service, shape=Shape(cpu_milli=4000, time_limit_us=60 * MINUTE, on=name))
    hub.start()
    found = expected(hub, service="urgent")
    assert (found.certainty, seconds_ahead(hub, found)) == ("if nothing comes before it", 10.1)
    assert found.why == "one attempt of a lower tier on n2 would make way for it, and has ended by then"
    assert seconds_ahead(hub, expected(hub)) == 3600
    hub.decide()
    assert [giving.nodes[0].name for giving in hub.core.world.giving.values()] == ["n2"], "what the pass has planned"


def test_who_may_not_be_backfilled_starts_in_his_turn_only(hub: Recorder) -> None:
    settle(hub, services={"patient": ServicePolicy(may_backfill=False), "first": ServicePolicy(tier=1)})
    for name in ("n1", "n2"):
        hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=60 * MINUTE, on=name))
    hub.start()
    wide = hub.submit(1, service="first", shape=Shape(cpu_milli=4000, time_limit_us=MINUTE))
    hub.start()
    found = expected(hub, service="patient")
    text = f"batch {wide} is in front of it and finds no room, and its service does not backfill before then"
    assert (found.why, seconds_ahead(hub, found)) == (text, 3600)
    assert expected(hub).certainty == "now"


def test_without_backfill_so_does_everybody(hub: Recorder) -> None:
    settle(hub, backfill="none")
    hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=60 * MINUTE, on="n1"))
    hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=30 * MINUTE, on="n2"))
    hub.start()
    hub.submit(1, shape=Shape(cpu_milli=4000))
    hub.start()
    found = expected(hub)
    assert "there is no backfill" in found.why and seconds_ahead(hub, found) == 1800


def test_the_tier_says_who_is_before_it(hub: Recorder) -> None:
    settle(hub, services={"urgent": ServicePolicy(tier=1), "low": ServicePolicy(tier=-1)})
    hub.submit(2, user="bob", shape=Shape(cpu_milli=4000, time_limit_us=60 * MINUTE))
    hub.start()
    hub.submit(1, user="bob", shape=Shape(cpu_milli=4000))
    hub.submit(1, user="bob", shape=Shape(cpu_milli=4000), service="low")
    hub.start()
    before = {name: expected(hub, service=name).before for name in ("urgent", "normal", "low")}
    assert before == {"urgent": 0, "normal": 1, "low": 3}, "of the last two others, and each of these as it is there"


@pytest.mark.parametrize("who", [{"services": ("urgent",)}, {"accounts": ("physics",)}])
def test_access_lists_of_reservations(hub: Recorder, who: dict[str, tuple[str, ...]]) -> None:
    settle(hub, services={"urgent": ServicePolicy()}, accounts={"physics": AccountPolicy()})
    periods = (Period(hub.now_us, hub.now_us + 60 * MINUTE),)
    made = Reservation(name="r", owner="boss", periods=periods, nodes="*", access=Access(**who))
    hub.feed(ev.ReservationWished(7, made, False, hub.now_us, Caller("boss", Role.OPERATOR)))
    hub.answer()
    hub.take_all()
    about = {"service": "urgent"} if "services" in who else {"account": "physics"}
    assert seconds_ahead(hub, expected(hub)) == 3600
    assert expected(hub, **about).certainty == "now"
    assert free(hub.core.world, "ann", BatchSettings(shape=SHORT)).jobs == 0


# -- --account


def test_the_limits_are_those_of_the_account(hub: Recorder) -> None:
    settle(hub, accounts={"physics": AccountPolicy(limits=Limits(cpus=Bound(1000, 1000)))})
    assert expected(hub, account="physics").certainty == "now"
    assert expected(hub).certainty == "now"
    second = expected(hub, account="physics")
    assert second.why.startswith("account physics has 1 of at most 1 cpus at nodes") and "ends then" in second.why


def test_the_share_of_the_account_says_who_is_before_it(hub: Recorder) -> None:
    """Chemistry has both nodes: bob's job that waits there comes after one of ann's in physics, before one in his."""
    settle(hub, accounts={"physics": AccountPolicy(), "chemistry": AccountPolicy()})
    hub.submit(2, user="bob", account="chemistry", shape=Shape(cpu_milli=4000, time_limit_us=60 * MINUTE))
    hub.start()
    hub.submit(1, user="bob", account="chemistry", shape=Shape(cpu_milli=3000))
    hub.submit(1, user="carl", account="physics", shape=Shape(cpu_milli=3000))
    hub.start()
    before = {name: when(hub, account=name).before for name in ("physics", "chemistry")}
    # In chemistry ann has nothing, bob much: she comes before him, and after all of physics.
    assert before == {"physics": 1, "chemistry": 1}
    assert when(hub, account="chemistry", user="bob").before == 2
    assert [event for event in hub.core.world.tree.users if event[1] == "ann"] == [], "she has no place by that"


def when(hub: Recorder, user: str = "ann", **about: Any) -> Forecast:
    return earliest_if_submitted(hub.core.world, user, BatchSettings(shape=SHORT, **about))
