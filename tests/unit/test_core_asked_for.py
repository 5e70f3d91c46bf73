"""What could start, and when, for somebody in particular: access lists, rules of sharing and limits are his."""

from __future__ import annotations

from typing import Any

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.advice import rejections
from lanai.core.free import Free, free
from lanai.core.schedule.forecast import Forecast, earliest_if_submitted, earliest_of_job
from lanai.model.access import Caller, Role
from lanai.model.batch import BatchSettings
from lanai.model.policy import AccountPolicy, Bound, Limits, Policy, ServicePolicy, UserPolicy
from lanai.model.reservation import Access, Period, Reservation
from lanai.model.resources import Shape

HOUR = 3600 * SECOND
SHORT = Shape(time_limit_us=600 * SECOND)


@pytest.fixture
def hub() -> Recorder:
    """Two nodes of four cpus, n1 and n2."""
    made = Recorder()
    made.feed(ev.TimePassed(made.now_us))
    for name in ("n1", "n2"):
        made.join(name, capacity(cpus=4))
    return made


def settle(hub: Recorder, **about: object) -> None:
    """The policy is this from now on."""
    hub.feed(ev.PolicyChanged(1, Policy(**about), 0))  # type: ignore[arg-type]
    hub.answer()


def reserve(hub: Recorder, **lists: tuple[str, ...]) -> None:
    """n1 for whom the lists name, from now on for an hour."""
    periods = (Period(hub.now_us, hub.now_us + HOUR),)
    made = Reservation(name="r", owner="boss", periods=periods, nodes="n1", access=Access(**lists))  # type: ignore[arg-type]
    hub.feed(ev.ReservationWished(7, made, False, hub.now_us, Caller("boss", Role.OPERATOR)))
    hub.answer()
    hub.take_all()


def now(hub: Recorder, user: str, shape: Shape = SHORT, **about: Any) -> Free:
    """What the user could start now of a batch with these settings."""
    return free(hub.core.world, user, BatchSettings(shape=shape, **about))


def when(hub: Recorder, user: str, shape: Shape = SHORT, **about: Any) -> Forecast:
    """When the job of a batch with these settings could start."""
    return earliest_if_submitted(hub.core.world, user, BatchSettings(shape=shape, **about))


def jobs_on(hub: Recorder, user: str, shape: Shape = SHORT) -> dict[str, int]:
    """How many jobs of the user could start now, by the first node of each kind."""
    return {room.names[0]: room.jobs for room in now(hub, user, shape).rooms}


def certainty(hub: Recorder, user: str, shape: Shape = SHORT) -> str:
    return when(hub, user, shape).certainty


def seconds_ahead(hub: Recorder, user: str, shape: Shape = SHORT) -> float:
    return (when(hub, user, shape).at_us - hub.core.world.wall_us) / SECOND


# -- reservations


def test_what_is_reserved_is_free_for_those_it_admits(hub: Recorder) -> None:
    reserve(hub, users=("ann",))
    assert jobs_on(hub, "ann") == {"n1": 8}
    assert jobs_on(hub, "bob") == {"n2": 4}
    wide = Shape(nodes=2, time_limit_us=600 * SECOND)
    assert certainty(hub, "ann", wide) == "now"
    assert seconds_ahead(hub, "bob", wide) == 3600


def test_the_account_that_is_admitted_is_the_askers_own(hub: Recorder) -> None:
    settle(hub, users={"ann": UserPolicy(account="physics")}, accounts={"physics": AccountPolicy()})
    reserve(hub, accounts=("physics",))
    assert jobs_on(hub, "ann") == {"n1": 8}
    assert jobs_on(hub, "bob") == {"n2": 4}


def test_of_a_job_its_owner_counts(hub: Recorder) -> None:
    """Both nodes are full for ten minutes, one of them is reserved for an hour."""
    hub.submit(2, user="bob", shape=Shape(cpu_milli=4000, time_limit_us=600 * SECOND))
    hub.start()
    reserve(hub, users=("ann",))
    for user, ahead in (("ann", 600), ("bob", 3600)):
        batch = hub.submit(1, user=user, shape=Shape(nodes=2, time_limit_us=600 * SECOND))
        found = earliest_of_job(hub.core.world, hub.batch(batch), None)
        assert (found.at_us - hub.core.world.wall_us) / SECOND == ahead, user


# -- sharing


def test_nobody_else_is_on_a_node_of_a_single_user(hub: Recorder) -> None:
    settle(hub, sharing="single_user")
    hub.submit(1, user="ann", shape=SHORT)
    hub.submit(1, user="bob", shape=SHORT)
    hub.start()
    assert [now(hub, user, SHORT).jobs for user in ("ann", "bob", "carl")] == [3, 3, 0]
    assert (certainty(hub, "ann"), seconds_ahead(hub, "carl")) == ("now", 600)


def test_each_job_has_its_node_to_itself(hub: Recorder) -> None:
    settle(hub, sharing="single_job")
    assert now(hub, "ann", SHORT).jobs == 2
    batch = hub.submit(3, user="ann", shape=SHORT)
    hub.start()
    assert now(hub, "ann", SHORT).jobs == 0
    assert seconds_ahead(hub, "ann") == 600
    assert rejections(hub.core.world, hub.batch(batch), None) == {"not to be shared": 2}


def test_nothing_is_beside_a_job_of_a_dedicated_service(hub: Recorder) -> None:
    settle(hub, services={"alone": ServicePolicy(is_dedicated=True)})
    hub.submit(1, shape=SHORT, service="alone")
    hub.start()
    assert now(hub, "ann", SHORT).jobs == 4
    own = hub.submit(1, shape=SHORT, service="alone")
    assert earliest_of_job(hub.core.world, hub.batch(own), None).certainty == "now"
    hub.submit(1, shape=SHORT)
    hub.start()
    another = hub.submit(1, shape=SHORT, service="alone")
    ahead_us = earliest_of_job(hub.core.world, hub.batch(another), None).at_us - hub.core.world.wall_us
    assert ahead_us == 600 * SECOND, "the other node has room, but is somebody's"


# -- limits


def test_hard_limits_of_the_asker_hold(hub: Recorder) -> None:
    settle(hub, users={"ann": UserPolicy(limits=Limits(jobs=Bound(1, 3)))})
    found = now(hub, "ann", SHORT)
    assert (found.jobs, found.limit) == (3, "user ann runs 0 of at most 3 jobs (soft 1, hard 3)")
    assert (now(hub, "bob", SHORT).jobs, now(hub, "bob", SHORT).limit) == (8, "")
    hub.submit(3, user="ann", shape=SHORT)
    hub.start()
    assert now(hub, "ann", SHORT).jobs == 0
    held = when(hub, "ann", SHORT)
    assert held.why == "user ann runs 3 of at most 3 jobs (soft 1, hard 3); the first of what counts ends then"
    assert certainty(hub, "bob") == "now"


def test_what_a_hard_limit_can_never_let_start(hub: Recorder) -> None:
    settle(hub, users={"ann": UserPolicy(limits=Limits(cpus=Bound(2000, 2000)))})
    large = Shape(cpu_milli=3000)
    never = "a job needs 3 cpus, and user ann may have at most 2"
    found = when(hub, "ann", large)
    assert (found.certainty, found.why) == ("unknown", never)
    assert (now(hub, "ann", large).jobs, now(hub, "ann", large).limit) == (0, never)
    assert certainty(hub, "bob", large) == "now"


def test_asking_leaves_nothing_behind(hub: Recorder) -> None:
    settle(hub, users={"ann": UserPolicy(limits=Limits(jobs=Bound(1, 3), cpu_seconds=Bound(9, 9000)))})
    world = hub.core.world
    before = dict(world.batches), dict(world.counters), dict(world.tree.users), dict(world.tree.accounts)
    now(hub, "ann", SHORT)
    when(hub, "ann", SHORT)
    assert (world.batches, world.counters, world.tree.users, world.tree.accounts) == before
    assert hub.submit(1) == 1 and hub.batch(hub.submit(1)).settings == BatchSettings()
