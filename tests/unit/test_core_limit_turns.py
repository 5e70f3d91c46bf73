"""Whose turn it is where the counter of a limit falls: not always that of the line whose attempt has ended."""

from __future__ import annotations

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.events import NodeHeard, NodeWished, PolicyChanged, ReservationWished, TimePassed
from lanai.model.ids import BatchId
from lanai.model.policy import Bound, Limits, Policy, ServicePolicy, Sharing, UserPolicy, Weights
from lanai.model.reservation import Access, Period, Reservation
from lanai.model.resources import Shape

MINUTE = 60 * SECOND
URGENT = {"urgent": ServicePolicy(tier=1)}
FOUR_JOBS = Limits(jobs=Bound(4, 4))
ONE = Shape(cpu_milli=1000, time_limit_us=MINUTE)


def ends_until_urgent_begins(hub: Recorder, policy: Policy, shape: Shape) -> int | None:
    """Two nodes of 8 cpus; small jobs of ann are at her limit, and end one by one; one of hers is of a higher tier."""
    hub.feed(PolicyChanged(1, policy, hub.now_us))
    hub.take_all()
    for name in "ab":
        hub.join(name, capacity(cpus=8))
    for minutes in (3, 4, 5, 7):
        hub.submit(50, shape=Shape(cpu_milli=1000, time_limit_us=minutes * MINUTE))
    hub.decide()
    hub.take_all()
    urgent = hub.submit(1, service="urgent", shape=shape)
    hub.decide()
    ends = 0
    for _ in range(60):
        hub.now_us += MINUTE
        hub.feed(*[NodeHeard(node, "", hub.now_us) for node in hub.core.world.nodes], TimePassed(hub.now_us))
        for grant in list(hub.core.world.grants.values()):
            if hub.now_us >= grant.granted_at_us + grant.line.shape.time_limit_us:
                ends += len(grant.members)
                hub.end(grant.node.id, grant.id & 0xFFFFFF, *sorted(grant.members))
        hub.decide()
        hub.take_all()
        if urgent not in hub.core.world.batches or hub.counts(urgent) == {"locked": 1}:
            return ends
    return None


def test_of_the_same_shape_it_is_next(hub: Recorder) -> None:
    policy = Policy(users={"ann": UserPolicy(limits=FOUR_JOBS)}, services=URGENT)
    assert ends_until_urgent_begins(hub, policy, ONE) == 1


def test_also_where_the_policy_has_a_dedicated_service(hub: Recorder) -> None:
    """No tickets are dealt then, and only the line of the ended attempt is looked at: what falls is not for that."""
    services = {**URGENT, "alone": ServicePolicy(is_dedicated=True)}
    policy = Policy(users={"ann": UserPolicy(limits=FOUR_JOBS)}, services=services)
    assert ends_until_urgent_begins(hub, policy, ONE) is not None


@pytest.mark.parametrize("sharing", ["single_user", "single_job"])
def test_also_where_nodes_are_not_shared(hub: Recorder, sharing: Sharing) -> None:
    users = {"ann": UserPolicy(limits=Limits(jobs=Bound(2, 2)) if sharing == "single_job" else FOUR_JOBS)}
    policy = Policy(users=users, services=URGENT, sharing=sharing)
    assert ends_until_urgent_begins(hub, policy, ONE) is not None


@pytest.mark.parametrize("shape", [Shape(cpu_milli=8000, time_limit_us=MINUTE), Shape(nodes=2, time_limit_us=MINUTE)])
def test_also_where_it_does_not_fit_where_the_attempt_has_ended(hub: Recorder, shape: Shape) -> None:
    """One node is empty all the time. What follows at an end must not take what falls, or every pass finds it full."""
    policy = Policy(users={"ann": UserPolicy(limits=FOUR_JOBS)}, services=URGENT)
    assert ends_until_urgent_begins(hub, policy, shape) is not None


@pytest.mark.parametrize(
    ("limits", "shape"),
    [
        (Limits(cpus=Bound(4000, 4000)), Shape(cpu_milli=4000, time_limit_us=MINUTE)),
        (Limits(nodes=Bound(4, 4)), Shape(nodes=2, time_limit_us=MINUTE)),
    ],
)
def test_also_where_it_needs_more_of_the_limit_than_one_end_gives(hub: Recorder, limits: Limits, shape: Shape) -> None:
    """What falls is kept for the first that the limit holds, until there is enough."""
    policy = Policy(users={"ann": UserPolicy(limits=limits)}, services=URGENT)
    assert ends_until_urgent_begins(hub, policy, shape) is not None


# -- nothing is kept for who could not start all the same


def limited(hub: Recorder, policy: Policy, nodes: str = "n") -> None:
    """Empty nodes of 8 cpus."""
    hub.feed(PolicyChanged(1, policy, hub.now_us))
    hub.take_all()
    for name in nodes:
        hub.join(name, capacity(cpus=8))


def submitted(hub: Recorder, jobs: int, cpus: int, limit_us: int = MINUTE, **settings: object) -> BatchId:
    batch = hub.submit(jobs, shape=Shape(cpu_milli=1000 * cpus, time_limit_us=limit_us), **settings)  # type: ignore[arg-type]
    hub.decide()
    hub.take_all()
    return batch


def pass_time(hub: Recorder, us: int) -> None:
    hub.now_us += us
    hub.feed(*[NodeHeard(node, "", hub.now_us) for node in hub.core.world.nodes], TimePassed(hub.now_us))


def overtaken(hub: Recorder, running: int) -> BatchId:
    """All may have 4 cpus, and of bob's waiting jobs one is considered. He has one of 4 cpus, and then this, which is
    more urgent; so many jobs of 2 cpus run."""
    users = {"bob": UserPolicy(limits=Limits(waiting=Bound(1, 1)))}
    weights, limits = Weights(own=1.0), Limits(cpus=Bound(4000, 4000))
    limited(hub, Policy(preset="tight", weights=weights, users=users, limits=limits))
    submitted(hub, running, cpus=2, user="carl")
    submitted(hub, 1, cpus=4, user="bob")
    return submitted(hub, 1, cpus=1, user="bob", priority=1)


def test_not_for_a_batch_at_its_own_limit(hub: Recorder) -> None:
    limited(hub, Policy(users={"ann": UserPolicy(limits=Limits(jobs=Bound(2, 2)))}))
    submitted(hub, 5, cpus=1, max_running=1)
    other = submitted(hub, 5, cpus=1)
    assert hub.counts(other) == {"queued": 4, "locked": 1}


def test_not_for_one_that_is_not_considered_any_more(hub: Recorder) -> None:
    """Of bob's waiting jobs one is considered. Were anything kept for the other, both would wait for ever."""
    first = overtaken(hub, 2)
    hub.end(hub.core.world.names["n"], 1, 1, 2)
    hub.decide()
    hub.take_all()
    assert hub.counts(first) == {"locked": 1}


def test_not_for_one_whose_reservation_is_over(hub: Recorder) -> None:
    limited(hub, Policy(users={"bob": UserPolicy(limits=Limits(cpus=Bound(4000, 4000)))}), "nm")
    submitted(hub, 3, cpus=1, limit_us=60 * MINUTE, user="bob")
    period = Period(hub.now_us, hub.now_us + 10 * MINUTE)
    made = Reservation(name="r", owner="bob", nodes="m", periods=(period,), access=Access(users=("bob",)))
    hub.feed(ReservationWished(9, made, False, hub.now_us))
    hub.take_all()
    submitted(hub, 1, cpus=4, user="bob", reservation="r")
    pass_time(hub, 11 * MINUTE)
    other = submitted(hub, 1, cpus=1, user="bob")
    assert hub.counts(other) == {"locked": 1}


def test_not_for_one_that_no_open_node_could_take(hub: Recorder) -> None:
    """It would be kept until there is enough, found to be of no use, and kept again."""
    limited(hub, Policy(users={"bob": UserPolicy(limits=Limits(cpus=Bound(4000, 4000)))}))
    hub.join("large", capacity(cpus=8, gib=64))
    hub.feed(NodeWished(5, "large", "drain", hub.now_us))
    hub.take_all()
    running = submitted(hub, 4, cpus=1, user="bob")
    hub.submit(1, shape=Shape(cpu_milli=4000, memory_bytes=32 << 30), user="bob")
    hub.decide()
    hub.take_all()
    other = submitted(hub, 50, cpus=1, user="bob")
    hub.end(hub.core.world.names["n"], 1, 1)
    hub.decide()
    hub.take_all()
    assert hub.counts(running)["locked"] == 3 and hub.counts(other)["locked"] == 1


def test_not_for_one_that_is_found_to_take_more_than_the_limit(hub: Recorder) -> None:
    """Its jobs run for longer than was thought."""
    limited(hub, Policy(users={"bob": UserPolicy(limits=Limits(cpu_seconds=Bound(5000, 5000)))}))
    submitted(hub, 5, cpus=1, limit_us=0, user="bob")
    other = submitted(hub, 50, cpus=1, limit_us=30 * MINUTE, user="bob")
    pass_time(hub, 100 * MINUTE)
    hub.end(hub.core.world.names["n"], 1, 1, wall_us=100 * MINUTE)
    hub.decide()
    hub.take_all()
    assert hub.counts(other) == {"queued": 48, "locked": 2}


def test_what_is_kept_no_more_is_others_at_once(hub: Recorder) -> None:
    """Also of those whom the pass looks at before it finds that out."""
    first = overtaken(hub, 1)
    assert hub.counts(first) == {"locked": 1}
