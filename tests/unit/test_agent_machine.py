"""The agent's machine: events in, the whole list of effects out."""

from __future__ import annotations

import pytest

from agent_world import (
    G1,
    G2,
    G3,
    LEASE,
    ONE_CPU,
    S,
    World,
    grant,
    hand,
    members,
    ok,
    spec,
    world,
)  # fmt: skip
from lanai.agent import events as ev
from lanai.agent.lease import SUSPENDED, Lease
from lanai.agent.machine import Machine
from lanai.agent.spool import Handed, Remembered
from lanai.model.errors import ErrorBody
from lanai.model.ids import BatchId, Index, grant_id
from lanai.model.job import AttemptResult, Outcome
from lanai.model.resources import MIB, Capacity, Shape
from lanai.wire import messages as wire


def joined(gpus: tuple[str, ...] = (), end_with_hub_us: int = 0) -> World:
    """A world whose starter is up and whose hub has said Welcome and named spec 1."""
    made = world(gpus=gpus, end_with_hub_us=end_with_hub_us)
    made.tell(ev.StarterUp([], [], []))
    made.connect()
    made.tell(spec())
    return made


def test_a_grant_is_handed_out_as_far_as_it_fits() -> None:
    made = joined()
    assert made.tell(grant(G1, (1, 3))) == [ev.OpenLane(1, spec()), ev.Widen(1, 2), hand(1, G1, 1, 2)]
    assert made.end(ok(G1, 1), 1, 1) == [
        hand(1, G1, 3),
        ev.Keep(ok(G1, 1), 1),
        ev.Release(1),
        ev.Send(wire.Ended(1, ok(G1, 1))),
    ]


def test_a_repeated_grant_changes_nothing() -> None:
    """A hub that was restarted sends grants again; the jobs run, wait or have ended here already."""
    made = joined()
    made.tell(grant(G1, (1, 3)))
    assert made.tell(grant(G1, (1, 3))) == []
    made.end(ok(G1, 1, 2), 2, 2)
    made.end(ok(G1, 3), 3, 3)
    assert made.tell(grant(G1, (1, 3))) == []


def test_of_a_grant_that_is_sent_again_after_a_reconnect_only_what_is_missing_is_taken() -> None:
    made = joined()
    made.tell(grant(G1, (1, 2)))
    made.end(ok(G1, 1), 1, 1)
    made.tell(ev.HubLost())
    made.connect()
    made.tell(spec(4))
    assert made.tell(grant(G1, (1, 3), of=4)) == [ev.Widen(1, 2), hand(1, G1, 3)]


def test_the_rest_of_a_grant_is_taken_although_what_came_of_it_has_ended() -> None:
    """A grant of more than 1 MiB comes in several messages; the jobs of the first may end before the second."""
    made = joined()
    made.tell(grant(G1, (1, 2)))
    made.end(ok(G1, 1, 2), 2, 2)
    assert made.tell(grant(G1, (3, 4))) == [ev.Widen(1, 2), hand(1, G1, 3, 4)]
    made.end(ok(G1, 3, 4), 4, 4)
    assert made.tell(grant(G1, (1, 5))) == [ev.Widen(1, 1), hand(1, G1, 5)]


def test_what_an_agent_lost_of_a_grant_is_taken_again_although_the_rest_has_ended() -> None:
    """The agent was killed while 1 and 2 ran and 3 and 4 waited; 1 and 2 end before the hub grants 3 and 4 again."""
    made = world(remembered=Remembered([], [Handed(G1, BatchId(7), 1, ONE_CPU, [Index(1), Index(2)])]))
    made.tell(ev.StarterUp([(*member, 5) for member in members(G1, 1, 2)], [], []))
    made.connect()
    made.end(ok(G1, 1, 2), 2, 2)
    made.tell(spec())
    assert hand(2, G1, 3, 4) in made.tell(grant(G1, (3, 4)))


@pytest.mark.parametrize("ask", [wire.Recall([(G1, 3, 4)]), wire.Kill(members(G1, 3, 4), 0, "cancelled")])
def test_what_never_came_of_a_grant_is_returned_although_the_rest_has_ended(ask: wire.ToAgent) -> None:
    made = joined()
    made.tell(grant(G1, (1, 2)))
    made.end(ok(G1, 1, 2), 2, 2)
    made.tell(wire.Forget(2))
    assert made.tell(ask) == [ev.Send(wire.Returned(members(G1, 3, 4)))]


def test_of_what_ended_only_the_last_is_remembered() -> None:
    made = joined()
    for number in range(1, 12):
        made.tell(grant(grant_id(1, number), (1, 10_000)), wire.Recall([(grant_id(1, number), 3, 10_000)]))
        made.end(ok(grant_id(1, number), 1, 2), 2 * number, 2 * number)
    last = grant_id(1, 11)
    assert made.machine.roster.is_known((last, Index(10_000)))
    assert not made.machine.roster.is_known((grant_id(1, 1), Index(10_000)))


def test_short_jobs_get_a_surplus_at_the_starter() -> None:
    """Half a second's worth at most; none while the run time is unknown."""
    made = joined()
    made.tell(grant(G1, (1, 100)))
    effects = made.tell(ev.AttemptsEnded(ok(G1, 1, 2, wall_us=100_000), 2))
    assert effects[0] == hand(1, G1, *range(3, 15))
    assert made.tell(ev.AttemptsEnded(ok(G1, 3, wall_us=100_000), 3)) == [ev.Keep(ok(G1, 3, wall_us=100_000), 3)]


def test_the_surplus_is_never_more_than_256_jobs() -> None:
    made = joined()
    made.tell(grant(G1, (1, 1000)))
    effects = made.tell(ev.AttemptsEnded(ok(G1, 1, 2, wall_us=100), 2))
    assert isinstance(effects[0], ev.Hand)
    assert len(effects[0].items) == 2 + 256


def test_nothing_is_taken_in_surplus_from_behind_an_older_grant_that_waits() -> None:
    """Else a batch of short jobs would hold its place against an older one for half a second, again and again."""
    made = joined()
    wide = Shape(cpu_milli=2000)
    made.tell(spec(2, wide, batch=8))
    made.tell(grant(G1, (1, 2)))
    assert made.tell(grant(G2, (1, 1), of=2)) == []
    assert made.tell(grant(G3, (1, 50))) == []
    assert made.tell(ev.AttemptsEnded(ok(G1, 1, wall_us=1000), 1))[:-1] == [hand(1, G3, 1)]


def test_the_first_that_fits_starts_and_widths_follow() -> None:
    made = joined()
    wide = Shape(cpu_milli=2000)
    made.tell(spec(2, wide, batch=8))
    made.tell(grant(G1, (1, 2)), grant(G2, (1, 1), of=2))
    assert made.tell(ev.AttemptsEnded(ok(G1, 1), 1)) == [ev.Widen(1, 1), ev.Keep(ok(G1, 1), 1)]
    assert made.tell(ev.AttemptsEnded(ok(G1, 2), 2)) == [
        ev.OpenLane(2, spec(2, wide, batch=8)),
        ev.Widen(2, 1),
        hand(2, G2, 1, shape=wide, batch=8),
        ev.Widen(1, 0),
        ev.Keep(ok(G1, 2), 2),
    ]


@pytest.mark.parametrize(
    "shape",
    [
        Shape(cpu_milli=3000),
        Shape(memory_bytes=1025 * MIB),
        Shape(gpu_milli=1000),
        Shape(named=(("licence", 2),)),
        Shape(named=(("other", 1),)),
    ],
)
def test_what_can_never_fit_is_returned(shape: Shape) -> None:
    made = joined()
    made.tell(spec(2, shape))
    assert made.tell(grant(G1, (1, 1), of=2)) == [ev.Send(wire.Returned(members(G1, 1)))]


@pytest.mark.parametrize(
    "shape", [Shape(memory_bytes=600 * MIB), Shape(named=(("licence", 1),)), Shape(cpu_milli=1500)]
)
def test_every_resource_is_counted(shape: Shape) -> None:
    made = joined()
    made.tell(spec(2, shape))
    made.tell(grant(G1, (1, 2), of=2))
    assert list(made.machine.roster.live) == members(G1, 1)


def test_gpus_are_handed_out_by_number() -> None:
    shape = Shape(gpu_milli=1000)
    made = joined(gpus=("0", "1"))
    made.tell(spec(2, shape))
    effects = made.tell(grant(G1, (1, 3), of=2))
    given = [item.gpus for effect in effects if isinstance(effect, ev.Hand) for item in effect.items]
    assert given == [("0",), ("1",)]
    effects = made.tell(ev.AttemptsEnded(ok(G1, 2), 1))
    assert [item.gpus for effect in effects if isinstance(effect, ev.Hand) for item in effect.items] == [("1",)]


def test_a_recall_takes_what_has_not_begun() -> None:
    made = joined()
    made.tell(grant(G1, (1, 4)))
    assert made.tell(wire.Recall([(G1, 2, 4), (G2, 9, 9)])) == [
        ev.Send(wire.Returned([*members(G1, 3, 4), *members(G2, 9)])),
        ev.TakeBack(members(G1, 2)),
    ]
    assert made.tell(ev.JobsGivenBack(members(G1, 2))) == [
        ev.NoteGone(members(G1, 2)),
        ev.Send(wire.Returned(members(G1, 2))),
        ev.Widen(1, 1),
    ]


def test_a_recall_of_what_has_ended_is_answered_by_its_result_alone() -> None:
    made = joined()
    made.tell(grant(G1, (1, 1)))
    made.end(ok(G1, 1), 1, 1)
    assert made.tell(wire.Recall([(G1, 1, 1)])) == []


def test_a_kill_reaches_what_runs_and_returns_what_does_not() -> None:
    made = joined()
    made.tell(grant(G1, (1, 3)))
    kill = wire.Kill([*members(G1, 1, 3), *members(G2, 1)], 2 * S, "cancelled by me")
    assert made.tell(kill) == [
        ev.Send(wire.Returned([*members(G2, 1), *members(G1, 3)])),
        ev.EndAttempts(members(G1, 1), 2 * S, "cancelled by me"),
    ]


def test_results_are_reported_only_from_the_spool_and_again_after_a_reconnect() -> None:
    made = joined()
    made.tell(grant(G1, (1, 2)))
    made.tell(ev.HubLost())
    made.end(ok(G1, 1), 1, 1)
    assert made.connect() == [
        ev.Send(wire.Inventory([(G1, Index(2), "waiting"), (G1, Index(1), "ended")], True)),
        ev.Send(wire.Ended(1, ok(G1, 1))),
    ]
    assert made.tell(wire.Forget(1)) == [ev.ForgetResults(1)]
    made.tell(ev.HubLost())
    assert ev.Send(wire.Inventory([(G1, Index(2), "waiting")], True)) in made.connect()


def test_an_end_told_twice_is_only_acknowledged() -> None:
    made = joined()
    made.tell(grant(G1, (1, 1)))
    made.end(ok(G1, 1), 1, 1)
    assert made.tell(ev.AttemptsEnded(ok(G1, 1), 1)) == [ev.Release(1)]


def test_attempts_that_have_run_for_a_while_are_told() -> None:
    made = joined()
    made.tell(grant(G1, (1, 1)))
    assert made.tell(ev.AttemptsBegan([(G1, Index(1), 55), (G2, Index(1), 66)])) == [
        ev.Send(wire.Started([(G1, Index(1), 55)]))
    ]
    made.tell(ev.HubLost())
    assert ev.Send(wire.Inventory([(G1, Index(1), "running")], True)) in made.connect()


def test_heartbeats_and_the_lease_they_earn() -> None:
    """The lease counts from when the heartbeat was sent, not from when its answer came."""
    made = joined()
    assert made.pass_s(3) == [ev.Send(wire.Heartbeat(1, made.now_us))]
    sent_us = made.now_us
    assert made.machine.due_us == sent_us + 3 * S
    made.now_us += 2 * S
    assert made.tell(wire.Beat(1, 0)) == [ev.SetLease(sent_us + LEASE)]
    assert made.tell(wire.Beat(1, 0), wire.Beat(77, 0)) == []


def test_a_hub_that_says_nothing_is_left() -> None:
    made = joined()
    assert ev.Reconnect("the hub is silent") not in made.pass_s(14)
    assert made.pass_s(1) == [ev.Reconnect("the hub is silent")]


def test_a_refused_connect_renews_the_lease_and_one_that_hangs_does_not() -> None:
    made = joined()
    made.now_us += 10 * S
    began_us = made.now_us - 100
    assert made.tell(ev.HubLost()) == []
    assert made.tell(ev.HubRefused(began_us)) == [ev.SetLease(began_us + LEASE)]
    made.now_us += 5 * S
    assert made.tell(ev.HubLost()) == []


def test_a_lease_that_has_run_out_starts_nothing_and_is_not_renewed_by_a_refused_connect() -> None:
    """The hub has given the jobs to others; what waits here must never begin."""
    made = joined()
    made.tell(grant(G1, (1, 3)), ev.HubLost())
    assert made.pass_s(60) == [ev.SetLease(0)]
    assert made.tell(ev.HubRefused(made.now_us)) == []
    assert made.tell(ev.AttemptsEnded(ok(G1, 1), 1)) == [ev.Widen(1, 1), ev.Keep(ok(G1, 1), 1)]
    assert made.machine.roster.inventory() == [(G1, Index(2), "waiting")]


def test_a_hub_that_stops_on_purpose_suspends_the_lease() -> None:
    made = joined()
    made.tell(grant(G1, (1, 3)))
    assert made.tell(wire.Suspend(), ev.HubLost()) == [ev.SetLease(SUSPENDED)]
    assert made.pass_s(1000) == []
    assert made.tell(ev.AttemptsEnded(ok(G1, 1), 1)) == [hand(1, G1, 3), ev.Keep(ok(G1, 1), 1)]
    assert made.connect()[-1] == ev.SetLease(made.now_us + LEASE)


def test_a_starter_that_dies_costs_the_jobs_nothing_but_a_try_of_the_nodes() -> None:
    made = joined()
    made.tell(grant(G1, (1, 2)), ev.AttemptsBegan([(G1, Index(1), 55)]))
    why = "the starter ended unexpectedly"
    lost = [
        AttemptResult(G1, Index(1), Outcome.NODE, started_at_us=55, reason=why),
        AttemptResult(G1, Index(2), Outcome.NODE, reason=why),
    ]
    assert made.tell(ev.StarterDied()) == [ev.Keep(lost, 0)]
    made.tell(ev.ResultsKept(2, lost, 0))
    assert made.tell(grant(G2, (1, 1))) == []
    assert made.tell(ev.StarterUp([], [], [])) == [
        ev.SetLease(made.machine.lease.good_until_us),
        ev.OpenLane(1, spec()),
        ev.Widen(1, 1),
        hand(1, G2, 1),
    ]


def test_a_new_agent_takes_over_what_its_starter_still_has() -> None:
    """The agent was killed; of five jobs that it had handed out, each stands differently now."""
    handed = Handed(G1, BatchId(7), 2, ONE_CPU, [Index(i) for i in range(1, 6)])
    kept = AttemptResult(G1, Index(9), "ok", 0)
    made = world(cpus=4, remembered=Remembered([(41, kept)], [handed]))
    ended = [*ok(G1, 3), AttemptResult(G1, Index(9), "ok", 0)]
    up = ev.StarterUp([(G1, Index(1), 55)], [*members(G1, 2), *members(G2, 8)], ended, 12)
    lost = [AttemptResult(G1, Index(i), Outcome.NODE, reason="the agent and its starter were killed") for i in (4, 5)]
    assert made.tell(up) == [
        ev.EndAttempts(members(G2, 8), 0, "nothing is known of it here"),
        ev.TakeBack(members(G1, 2)),
        ev.Keep(ok(G1, 3), 12),
        ev.Keep(lost, 12),
    ]
    made.tell(ev.ResultsKept(42, ok(G1, 3), 12), ev.ResultsKept(44, lost, 12), ev.JobsGivenBack(members(G1, 2)))
    effects = made.connect()
    inventory = [(G1, Index(1), "running"), *((G1, Index(i), "ended") for i in (9, 3, 4, 5))]
    assert ev.Send(wire.Inventory(inventory, True)) in effects
    assert ev.Send(wire.Ended(44, [kept, *ok(G1, 3), *lost])) in effects
    assert made.machine.about(G1) == (BatchId(7), 2)


def test_no_stock_is_taken_before_the_starter_has_said_what_it_still_runs() -> None:
    """A hub quicker than the starter would hear `waiting` of what runs, could recall it, and would run it twice."""
    handed = Handed(G1, BatchId(7), 1, ONE_CPU, [Index(1), Index(2)])
    made = world(cpus=2, remembered=Remembered([], [handed]))
    effects = made.connect()
    assert not [one for one in effects if isinstance(one, ev.Send) and isinstance(one.message, wire.Inventory)]
    effects = made.tell(ev.StarterUp([(G1, Index(1), 55)], [], [*ok(G1, 2)], 1))
    assert ev.Keep(ok(G1, 2), 1) in effects
    assert not [one for one in effects if isinstance(one, ev.Send)], "a result on its way into the spool counts too"
    assert made.tell(ev.ResultsKept(1, ok(G1, 2), 1))[-3:] == [
        ev.Send(wire.Inventory([(G1, Index(1), "running"), (G1, Index(2), "ended")], True)),
        ev.Send(wire.Started([(G1, Index(1), 55)])),
        ev.Send(wire.Ended(1, ok(G1, 2))),
    ]


def test_what_was_taken_over_is_charged_to_the_node() -> None:
    handed = Handed(G1, BatchId(7), 1, ONE_CPU, [Index(1), Index(2)])
    made = world(cpus=2, remembered=Remembered([], [handed]))
    made.tell(ev.StarterUp([(G1, Index(1), 55), (G1, Index(2), 55)], [], []))
    made.connect()
    made.tell(spec())
    assert made.tell(grant(G2, (1, 1))) == []
    assert made.tell(ev.AttemptsEnded(ok(G1, 1), 1))[:3] == [
        ev.OpenLane(2, spec()),
        ev.Widen(2, 1),
        hand(2, G2, 1),
    ]


def test_gpus_of_what_was_taken_over_are_not_given_out_again() -> None:
    shape = Shape(cpu_milli=0, gpu_milli=1000)
    handed = Handed(G1, BatchId(7), 1, shape, [Index(1), Index(2)], [("1",), ("0",)])
    capacity = Capacity(cpu_milli=1000, memory_bytes=MIB, gpus=("0", "1", "2"))
    made = World(Machine(capacity, Remembered([], [handed])))
    made.tell(ev.StarterUp([(G1, Index(1), 55), (G1, Index(2), 55)], [], []))
    made.connect()
    made.tell(spec(shape=shape))
    assert gpus_in(made.tell(grant(G2, (1, 2)))) == [("2",)]
    assert gpus_in(made.tell(ev.AttemptsEnded(ok(G1, 1), 1))) == [("1",)]


def gpus_in(effects: list[ev.Effect]) -> list[tuple[str, ...]]:
    return [item.gpus for effect in effects if isinstance(effect, ev.Hand) for item in effect.items]


def test_draining_returns_what_has_not_begun_and_takes_nothing_new() -> None:
    made = joined()
    made.tell(grant(G1, (1, 3)))
    assert made.tell(wire.Drain(True)) == [ev.Send(wire.Returned(members(G1, 3)))]
    assert made.tell(grant(G2, (1, 1))) == [ev.Send(wire.Returned(members(G2, 1)))]
    made.end(ok(G1, 1), 1, 1)
    made.tell(wire.Drain(False))
    assert made.tell(grant(G3, (1, 1))) == [ev.Widen(1, 2), hand(1, G3, 1)]


def test_a_drain_ends_with_its_connection() -> None:
    """The node was resumed while its connection was down: nobody could tell it."""
    made = joined()
    made.tell(wire.Drain(True), ev.HubLost())
    made.connect()
    made.tell(spec())
    assert hand(1, G1, 1) in made.tell(grant(G1, (1, 1)))


def test_an_agent_that_was_to_leave_stays_with_a_hub_that_welcomes_it_again() -> None:
    """A private hub ended while a command ran, and another is up before that has ended."""
    made = joined()
    made.tell(grant(G1, (1, 1)), wire.Drain(True, leave=True), ev.HubLost())
    made.connect()
    assert not any(isinstance(effect, ev.Leave) for effect in [*made.end(ok(G1, 1), 1, 1), *made.tell(wire.Forget(1))])


def test_an_agent_that_is_to_leave_leaves_although_its_node_is_not_drained() -> None:
    """A private hub ended just when the agent joined: that its node is not drained was said after it was to leave."""
    made = world()
    made.connect()
    assert ev.Leave("drained, and told to leave") in made.tell(wire.Drain(True, leave=True), wire.Drain(False))


def test_a_drained_agent_leaves_once_everything_is_committed() -> None:
    made = joined()
    made.tell(grant(G1, (1, 1)), wire.Drain(True, leave=True))
    effects = made.end(ok(G1, 1), 1, 1)
    assert not any(isinstance(effect, ev.Leave) for effect in effects)
    assert made.tell(wire.Forget(1)) == [ev.ForgetResults(1), ev.Leave("drained, and told to leave")]


def test_a_full_disk_starts_nothing_and_loses_no_result() -> None:
    made = joined()
    made.tell(grant(G1, (1, 3)))
    made.tell(ev.Ticked(made.now_us))
    effects = made.tell(ev.DiskFilled())
    assert effects == [
        ev.Send(wire.Heartbeat(2, made.now_us, running=2, waiting=1, trouble="disk full")),
        ev.Send(wire.Returned(members(G1, 3))),
    ]
    assert ev.Keep(ok(G1, 1), 1) in made.tell(ev.AttemptsEnded(ok(G1, 1), 1))
    assert made.tell(ev.ResultsNotKept(ok(G1, 1))) == []
    assert made.tell(ev.AttemptsEnded(ok(G1, 1), 1)) == []
    assert ev.Keep(ok(G1, 1), 1) in made.pass_s(1)
    made.tell(ev.ResultsKept(1, ok(G1, 1), 1))
    assert made.tell(ev.DiskFreed())[0] == ev.Send(wire.Heartbeat(3, made.now_us, running=1))


def test_a_node_that_can_start_no_starter_takes_nothing_and_says_so() -> None:
    made = joined()
    made.tell(grant(G1, (1, 3)))
    made.tell(ev.StarterDied())
    beat, returned = made.tell(ev.StarterMissing("cannot start commands: x"))
    assert isinstance(beat, ev.Send) and isinstance(beat.message, wire.Heartbeat)
    assert beat.message.trouble == "cannot start commands: x"
    assert returned == ev.Send(wire.Returned(members(G1, 3)))
    assert made.tell(ev.StarterMissing("cannot start commands: x")) == []
    assert made.tell(grant(G2, (1, 1))) == [ev.Send(wire.Returned(members(G2, 1)))]
    made.tell(ev.StarterUp([], [], []))
    assert hand(1, G3, 1) in made.tell(grant(G3, (1, 1)))


def test_a_disk_with_room_again_does_not_hide_that_nothing_can_be_started() -> None:
    made = joined()
    made.tell(ev.StarterDied(), ev.DiskFilled(), ev.StarterMissing("no processes"))
    [beat] = made.tell(ev.DiskFreed())
    assert isinstance(beat, ev.Send) and isinstance(beat.message, wire.Heartbeat)
    assert beat.message.trouble == "no processes"


def test_jobs_that_could_not_be_noted_go_back() -> None:
    made = joined()
    made.tell(ev.Ticked(made.now_us), grant(G1, (1, 2)))
    assert made.tell(ev.HandFailed(members(G1, 1, 2))) == [
        ev.Send(wire.Heartbeat(2, made.now_us, trouble="disk full")),
        ev.Send(wire.Returned(members(G1, 1, 2))),
        ev.Widen(1, 0),
    ]


def test_a_hub_restored_from_a_backup_ends_what_came_from_before() -> None:
    made = joined()
    made.tell(grant(G1, (1, 3)))
    made.end(ok(G1, 1), 1, 1)
    made.tell(ev.HubLost())
    effects = made.connect(epoch=2)
    assert ev.EndAttempts(members(G1, 2, 3), 10 * S, "the hub was restored from a backup") in effects
    assert ev.SetApart(ok(G1, 1)) in effects
    assert not any(isinstance(effect, ev.Send) and isinstance(effect.message, wire.Ended) for effect in effects)
    late = made.end(ok(G1, 2), 2, 2)
    assert ev.SetApart(ok(G1, 2)) in late
    assert not any(isinstance(effect, ev.Send) for effect in late)


def test_a_grant_of_an_unnamed_spec_ends_the_connection() -> None:
    made = joined()
    [effect] = made.tell(grant(G1, (1, 1), of=99))
    assert isinstance(effect, ev.Reconnect)


def test_a_refusal_ends_the_connection() -> None:
    made = joined()
    refusal = wire.Refused(ErrorBody(code="not_allowed", message="no such token"))
    assert made.tell(refusal) == [ev.Reconnect("the hub refuses: no such token")]


def test_an_agent_of_a_private_hub_ends_after_it() -> None:
    made = joined(end_with_hub_us=30 * S)
    made.tell(grant(G1, (1, 1)), ev.HubLost())
    effects = made.pass_s(31) + made.tell(ev.HubRefused(made.now_us)) + made.end(ok(G1, 1), 1, 1)
    assert not any(isinstance(effect, ev.Leave) for effect in effects)
    assert made.tell(ev.HubRefused(made.now_us)) == [ev.Leave("the hub is gone and nothing runs")]


def test_an_agent_of_a_private_hub_stays_with_one_that_is_started_again_in_time() -> None:
    made = joined(end_with_hub_us=30 * S)
    made.tell(ev.HubLost())
    made.pass_s(29)
    made.tell(ev.HubRefused(made.now_us))
    made.pass_s(2)
    made.connect()
    made.tell(ev.HubLost())
    made.pass_s(29)
    assert not any(isinstance(effect, ev.Leave) for effect in made.tell(ev.HubRefused(made.now_us)))


def test_a_lane_that_nothing_came_for_is_closed_and_opened_again() -> None:
    made = joined()
    made.tell(grant(G1, (1, 1)))
    made.end(ok(G1, 1), 1, 1)
    made.pass_s(1)
    made.tell(ev.HubLost())
    assert made.pass_s(30) == [ev.CloseLane(1)]
    made.connect()
    made.tell(spec())
    assert made.tell(grant(G2, (1, 1)))[:2] == [ev.OpenLane(1, spec()), ev.Widen(1, 1)]


class TestLease:
    def test_an_old_answer_never_shortens_it(self) -> None:
        lease = Lease()
        lease.begin(1000, 100)
        first, second = lease.beat(1010), lease.beat(1020)
        lease.acknowledge(second)
        lease.acknowledge(first)
        assert lease.good_until_us == 1120

    def test_it_is_not_good_at_its_end(self) -> None:
        lease = Lease()
        lease.begin(1000, 100)
        assert lease.is_good(1099)
        assert not lease.is_good(1100)
        assert lease.has_run_out(1100)

    def test_before_the_first_welcome_there_is_none(self) -> None:
        lease = Lease(100)
        lease.refused(50)
        assert not lease.is_good(0)
        assert not lease.has_run_out(10**18)


def test_what_is_granted_after_the_lease_comes_back() -> None:
    """The host was frozen past its lease with a grant unread. The hub has given the job to others since.

    Kept until there is a lease again it would begin at once, before the hub can take it back, and run twice.
    """
    made = joined()
    made.now_us += LEASE + S
    assert made.tell(grant(G1, (1, 2))) == [ev.Send(wire.Returned(members(G1, 1, 2)))]
    made.tell(ev.HubLost())
    assert ev.Send(wire.Inventory([], True)) in made.connect()
