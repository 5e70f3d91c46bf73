"""Preemption beside what people have reserved: nobody ends for nothing, and nothing reserved is run into."""

from __future__ import annotations

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.effects import KillAttempts
from lanai.model.access import Caller, Role
from lanai.model.ids import NodeId
from lanai.model.policy import Policy, ServicePolicy
from lanai.model.reservation import Period, Reservation
from lanai.model.resources import Shape

A, B = NodeId(1), NodeId(2)
MINUTE = 60 * SECOND
BOSS = Caller("boss", Role.OPERATOR)


@pytest.fixture
def two(hub: Recorder) -> Recorder:
    """A hub with two nodes of two cpus and an urgent and a low service."""
    hub.feed(ev.TimePassed(hub.now_us))
    hub.join("a")
    hub.join("b")
    services = {"urgent": ServicePolicy(tier=1, is_preemptor=True), "low": ServicePolicy(is_preemptee=True)}
    hub.feed(ev.PolicyChanged(1, Policy(services=services), hub.now_us))
    hub.take_all()
    return hub


def shape(cpus: int, minutes: int) -> Shape:
    return Shape(cpu_milli=1000 * cpus, time_limit_us=minutes * MINUTE)


def reserve(hub: Recorder, begin: float, end: float, nodes: str) -> None:
    period = Period(hub.now_us + round(begin * MINUTE), hub.now_us + round(end * MINUTE))
    made = Reservation(name="r", owner="ann", nodes=nodes, periods=(period,))
    hub.feed(ev.ReservationWished(7, made, False, hub.now_us, BOSS))
    assert hub.answer() is not None


def told(hub: Recorder) -> list[KillAttempts]:
    """Who is to make way after what was planned is confirmed."""
    hub.decide()
    hub.wait(0.1)
    hub.decide()
    return hub.take(KillAttempts)


def test_nobody_makes_way_outside_of_the_reservation_that_the_job_runs_in(two: Recorder) -> None:
    reserve(two, 0, 60, "a")
    two.submit(2, user="bob", service="low", shape=shape(1, 30))
    two.start()
    two.submit(2, user="ann", shape=shape(1, 30), reservation="r")
    two.start()
    assert sum(two.node(A).active.values()) == sum(two.node(B).active.values()) == 2
    two.submit(1, user="ann", service="urgent", reservation="r", shape=shape(1, 5))
    assert told(two) == []


def test_who_waits_long_for_others_to_make_way_does_not_run_into_what_is_reserved(two: Recorder) -> None:
    """What was late used to be taken off the time for which the job must have room, on whatever node."""
    two.submit(1, user="bob", service="low", shape=shape(2, 300))
    two.start()
    two.submit(1, user="bob", shape=shape(2, 10))
    two.start()
    reserve(two, 40, 100, "b")
    urgent = two.submit(1, user="carl", service="urgent", shape=shape(2, 30))
    assert len(told(two)) == 1
    for _ in range(20):
        two.now_us += MINUTE
        two.feed(ev.NodeHeard(A, "", two.now_us), ev.NodeHeard(B, "", two.now_us), ev.TimePassed(two.now_us))
        two.decide()
    two.end(B, 2, 1)
    two.decide()
    assert two.counts(urgent) == {"queued": 1}, "30 minutes are needed, 20 are left"
    two.end(A, 1, 1, outcome="cancelled")
    two.decide()
    assert two.counts(urgent) == {"locked": 1}
    two.take_all()


def test_nobody_makes_way_where_the_job_could_not_begin_in_time(two: Recorder) -> None:
    """The node is reserved in ten minutes; by the time that those there have ended it is too late for a job of ten."""
    two.join("c", capacity(cpus=1))
    reserve(two, 10.05, 60, "a,b")
    two.submit(4, user="bob", service="low", shape=shape(1, 5))
    two.start()
    two.submit(1, user="carl", service="urgent", shape=shape(2, 10))
    assert told(two) == []
