"""The agent's machine with a starter for each user: whose word counts for what, and when there is a starter at all."""

from __future__ import annotations

import pytest

from agent_world import G1, G2, LEASE, S, World, grant, hand, members, ok, spec, world
from lanai.agent import events as ev
from lanai.agent.endings import PATIENCE_US
from lanai.agent.spool import Handed, Remembered
from lanai.agent.starters import RETIRE_US
from lanai.model.ids import BatchId, Index
from lanai.model.job import AttemptResult
from lanai.model.resources import Shape
from lanai.wire import messages as wire

ANNS, BOBS = spec(1, batch=7, user="ann"), spec(2, batch=8, user="bob")


def up(owner: str) -> ev.StarterUp:
    return ev.StarterUp([], [], [], 0, owner)


@pytest.fixture
def serving() -> World:
    """Two cpus, a hub that has named a spec of each of two users, and no starter yet."""
    made = world(serves_users=True)
    made.connect()
    made.tell(ANNS, BOBS)
    return made


def busy(made: World) -> World:
    """Ann has job 1 of G1 running, Bob job 1 of G2."""
    made.tell(grant(G1, (1, 1)), up("ann"), grant(G2, (1, 1), of=2), up("bob"))
    return made


def test_a_starter_is_woken_when_its_user_has_a_job(serving: World) -> None:
    """Once, however many jobs come meanwhile; they are handed over when it is there."""
    assert serving.tell(grant(G1, (1, 1))) == [ev.WakeStarter("ann")]
    assert serving.tell(grant(G1, (2, 2))) == []
    lease = ev.SetLease(serving.machine.lease.good_until_us)
    handed = [ev.OpenLane(1, ANNS), ev.Widen(1, 2), hand(1, G1, 1, 2, owner="ann")]
    assert serving.tell(up("ann")) == [lease, *handed]


def test_nobody_waits_for_another_users_starter(serving: World) -> None:
    """Ann's job came first and her starter is not there yet: Bob's begins."""
    serving.tell(up("bob"), grant(G1, (1, 1)))
    assert serving.tell(grant(G2, (1, 1), of=2)) == [
        ev.OpenLane(2, BOBS),
        ev.Widen(2, 1),
        hand(2, G2, 1, batch=8, owner="bob"),
    ]


def test_a_starter_speaks_of_its_own_attempts_only(serving: World) -> None:
    """Bob's says that Ann's job has ended, has begun and comes back. Nothing of it is so."""
    busy(serving)
    assert serving.tell(ev.AttemptsEnded(ok(G1, 1), 9, "bob")) == [ev.Release(9, "bob")]
    assert serving.tell(ev.AttemptsBegan([(G1, Index(1), 5)], "bob")) == []
    assert serving.tell(ev.JobsGivenBack(members(G1, 1), "bob")) == []
    assert serving.tell(ev.AttemptsEnded(ok(G1, 1), 1, "ann")) == [ev.Widen(1, 0), ev.Keep(ok(G1, 1), 1, "ann")]


def test_a_starter_that_is_gone_takes_its_own_attempts_along(serving: World) -> None:
    busy(serving)
    lost = [AttemptResult(G2, Index(1), "node", reason="the starter ended unexpectedly")]
    assert serving.tell(ev.StarterDied("bob")) == [ev.Keep(lost, 0, "bob")]
    assert serving.tell(ev.AttemptsEnded(ok(G1, 1), 1, "ann"))[-1] == ev.Keep(ok(G1, 1), 1, "ann")


def test_a_user_who_has_no_starter_has_his_jobs_failed_with_the_reason(serving: World) -> None:
    """As the node's fault, and at once: elsewhere they may run. The node itself is well."""
    serving.tell(grant(G1, (1, 2)), grant(G2, (1, 1), of=2), up("bob"))
    failed = [AttemptResult(G1, Index(i), "node", reason="there is no such user") for i in (1, 2)]
    assert serving.tell(ev.StarterMissing("there is no such user", "ann")) == [ev.Keep(failed, 0, "ann")]
    assert serving.pass_s(3) == [ev.Send(wire.Heartbeat(1, serving.now_us, 1, 0, "", 0))]
    assert serving.tell(grant(G1, (3, 3))) == [ev.WakeStarter("ann")]


def test_what_an_earlier_agent_had_handed_out_is_asked_of_each_starter(serving: World) -> None:
    """The hub hears nothing before all of them have answered. Bob's cannot: what he had is lost."""
    handed = [
        Handed(G1, BatchId(7), 1, Shape(cpu_milli=1000), [Index(1)], [], "ann"),
        Handed(G2, BatchId(8), 1, Shape(cpu_milli=1000), [Index(1)], [], "bob"),
    ]
    made = world(remembered=Remembered([], handed), serves_users=True)
    assert not [effect for effect in made.connect() if isinstance(effect, ev.Send)]
    assert not [e for e in made.tell(ev.StarterUp([(G1, Index(1), 5)], [], [], 0, "ann")) if isinstance(e, ev.Send)]
    lost = [AttemptResult(G2, Index(1), "node", reason="gone")]
    assert made.tell(ev.StarterMissing("gone", "bob")) == [ev.Keep(lost, 0, "bob")]
    kept = made.tell(ev.ResultsKept(1, lost, 0, "bob"))
    assert [e.message for e in kept if isinstance(e, ev.Send)] == [
        wire.Inventory([(G1, Index(1), "running"), (G2, Index(1), "ended")], True),
        wire.Started([(G1, Index(1), 5)]),
        wire.Ended(1, lost),
    ]


def test_a_starter_cannot_claim_what_another_had(serving: World) -> None:
    """After a restart of the agent, Bob's says that it runs Ann's job: it is told to end it, and Ann's is asked."""
    handed = [Handed(G1, BatchId(7), 1, Shape(cpu_milli=1000), [Index(1)], [], "ann")]
    made = world(remembered=Remembered([], handed), serves_users=True)
    made.connect()
    effects = made.tell(ev.StarterUp([(G1, Index(1), 5)], [], [], 0, "bob"))
    assert ev.EndAttempts(members(G1, 1), 0, "nothing is known of it here", "bob") in effects
    assert (G1, Index(1)) not in made.machine.roster.live
    made.tell(ev.StarterUp([(G1, Index(1), 5)], [], [], 0, "ann"))
    assert made.machine.owner_of((G1, Index(1))) == "ann"


def test_what_is_taken_back_is_asked_of_those_who_have_it(serving: World) -> None:
    busy(serving)
    asked = serving.tell(wire.Recall([(G1, 1, 1), (G2, 1, 1)]))
    assert asked == [ev.TakeBack(members(G1, 1), "ann"), ev.TakeBack(members(G2, 1), "bob")]
    ended = serving.tell(wire.Kill([(G1, Index(1)), (G2, Index(1))], 0, "why"))
    assert ended == [ev.EndAttempts(members(G1, 1), 0, "why", "ann"), ev.EndAttempts(members(G2, 1), 0, "why", "bob")]


def test_a_starter_without_work_is_let_go_and_comes_again(serving: World) -> None:
    """Between the wish and its end nothing is handed to it: it could end with a job in its hands."""
    serving.tell(grant(G1, (1, 1)), up("ann"))
    serving.tell(ev.AttemptsEnded(ok(G1, 1), 1, "ann"), ev.ResultsKept(1, ok(G1, 1), 1, "ann"))
    found: list[ev.Effect] = []
    for _ in range(RETIRE_US // S // 3 + 2):
        serving.tell(*[wire.Beat(e.message.number, 0) for e in found
                       if isinstance(e, ev.Send) and isinstance(e.message, wire.Heartbeat)])  # fmt: skip
        found = serving.pass_s(3)
        if ev.RetireStarter("ann") in found:
            break
    assert ev.RetireStarter("ann") in found
    assert serving.tell(grant(G1, (2, 2))) == []
    assert serving.tell(ev.StarterDied("ann")) == [ev.WakeStarter("ann")]


def test_results_that_could_not_be_kept_stay_with_their_starter(serving: World) -> None:
    """Until they are in the spool, their starter is not told to forget them, nor another one in its place."""
    busy(serving)
    serving.tell(ev.AttemptsEnded(ok(G1, 1), 4, "ann"), ev.ResultsNotKept(ok(G1, 1), "ann"))
    serving.tell(ev.AttemptsEnded(ok(G2, 1), 6, "bob"))
    again = [effect for effect in serving.pass_s(1) if isinstance(effect, ev.Keep)]
    assert again == [ev.Keep(ok(G1, 1), 4, "ann")]
    assert ev.Release(4, "ann") in serving.tell(ev.ResultsKept(2, ok(G1, 1), 4, "ann"))


def test_when_the_lease_is_over_every_starter_hears_of_it(serving: World) -> None:
    """The hub has not answered for as long as the lease: what waits is given back, and what runs is ended by them."""
    busy(serving)
    serving.tell(ev.HubLost())
    serving.now_us += LEASE
    assert ev.SetLease(0) in serving.tell(ev.Ticked(serving.now_us))


def test_what_a_starter_had_not_taken_goes_back(serving: World) -> None:
    """It was asked to end: it said what it had begun, and jobs were still on their way to it."""
    serving.tell(grant(G1, (1, 4)), up("ann"), ev.AttemptsBegan([(G1, Index(1), 55)], "ann"))
    serving.tell(ev.AttemptsEnded(ok(G1, 1), 1, "ann"))
    lost = [AttemptResult(G1, Index(2), "node", reason="the starter ended unexpectedly")]
    back = members(G1, 3)
    assert serving.tell(ev.StarterDied("ann", (*members(G1, 2),))) == [
        ev.NoteGone(back),
        ev.Send(wire.Returned(back)),
        ev.Keep(lost, 0, "ann"),
        ev.WakeStarter("ann"),
    ]


def test_a_starter_that_says_the_same_twice_says_it_once(serving: World) -> None:
    """Of two jobs it may say two ends, and of the same one, together."""
    busy(serving)
    kept = serving.tell(ev.AttemptsEnded(ok(G2, 1) * 2, 2, "bob"))
    assert [effect for effect in kept if isinstance(effect, ev.Keep)] == [ev.Keep(ok(G2, 1), 2, "bob")]
    assert serving.tell(ev.JobsGivenBack(members(G1, 1) * 2, "ann"))[:2] == [
        ev.NoteGone(members(G1, 1)),
        ev.Send(wire.Returned(members(G1, 1))),
    ]


def _patience(made: World, seconds: float) -> list[ev.Effect]:
    """What comes of it that time passes in steps, with a hub that answers."""
    found: list[ev.Effect] = []
    for _ in range(round(seconds / 3)):
        for effect in made.pass_s(3):
            found.append(effect)
            if isinstance(effect, ev.Send) and isinstance(effect.message, wire.Heartbeat):
                made.tell(wire.Beat(effect.message.number, 0))
    return [effect for effect in found if isinstance(effect, ev.EndStarter)]


def test_a_starter_that_does_not_end_what_it_is_told_to_is_ended(serving: World) -> None:
    """Else its user would keep what the node has granted him, though it was cancelled. Others are left alone."""
    busy(serving)
    serving.tell(wire.Kill([(G1, Index(1)), (G2, Index(1))], 5 * S, "cancelled"))
    serving.tell(ev.AttemptsEnded(ok(G2, 1), 1, "bob"))
    assert _patience(serving, (PATIENCE_US + 5 * S) / S - 9) == []
    assert _patience(serving, 30) == [ev.EndStarter("ann")]


def test_a_starter_that_takes_no_notice_of_the_lease_is_ended(serving: World) -> None:
    busy(serving)
    serving.tell(ev.HubLost())
    serving.pass_s(LEASE / S + 1)
    assert set(_patience(serving, PATIENCE_US / S + 30)) == {ev.EndStarter("ann"), ev.EndStarter("bob")}


def test_a_pause_of_the_whole_computer_is_not_charged_to_a_starter(serving: World) -> None:
    busy(serving)
    serving.tell(wire.Kill([(G1, Index(1))], 5 * S, "cancelled"))
    assert not [one for one in serving.pass_s(2 * PATIENCE_US / S) if isinstance(one, ev.EndStarter)]


def test_where_nothing_can_be_known_of_a_starter_its_jobs_of_before_are_not_over() -> None:
    """The agent has no descriptor to connect with. What may run there is waited for, and is what that starter says."""
    handed = [Handed(G1, BatchId(7), 1, Shape(cpu_milli=1000), [Index(1)], [], "ann")]
    made = world(remembered=Remembered([], handed), serves_users=True)
    made.connect()
    assert made.tell(ev.StarterMissing("too many open files", "ann", is_passing=True, may_live=True)) == []
    made.tell(ev.StarterUp([(G1, Index(1), 5)], [], [], 0, "ann"))
    assert made.machine.owner_of((G1, Index(1))) == "ann"
    assert (G1, Index(1)) in made.machine.roster.live
