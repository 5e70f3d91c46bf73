"""Preemption: attempts of a low service make way for the head of a line of an urgent one, and never for nothing."""

from __future__ import annotations

import pytest

from core_recorder import GIB, SECOND, Recorder, capacity, grant
from lanai.core.effects import ClaimRoom, ForgetResults, KillAttempts, RecallJobs, StartAttempts, UnclaimRoom
from lanai.core.events import (
    AttemptsEnded,
    AttemptsStarted,
    JobsCancelled,
    JobsReturned,
    NodeDisconnected,
    NodeHeard,
    NodeJoined,
    NodeTookStock,
    PolicyChanged,
    RoomClaimed,
)
from lanai.model.ids import BatchId, Index, NodeId
from lanai.model.job import AttemptResult
from lanai.model.policy import BackfillKind, Policy, PreemptBy, ServicePolicy
from lanai.model.records import DropOverrides, SaveAttempts, SaveEvent, SaveOverride
from lanai.model.resources import Shape

A, B = NodeId(1), NodeId(2)
URGENT = ServicePolicy(tier=1, is_preemptor=True)
LOW = ServicePolicy(is_preemptee=True)


def settle(hub: Recorder, **services: ServicePolicy) -> None:
    """This policy is in force."""
    made = {"urgent": URGENT, "low": LOW, **services}
    hub.feed(PolicyChanged(1, Policy(services=made), hub.now_us))
    hub.take_all()


@pytest.fixture
def one(hub: Recorder) -> Recorder:
    """A hub with one node of two cpus and an urgent and a low service."""
    hub.join("a")
    settle(hub)
    return hub


def low(hub: Recorder, jobs: int = 2, **settings: object) -> BatchId:
    """A batch of the low service whose first jobs run."""
    batch = hub.submit(jobs, service="low", **settings)
    for start in hub.start():
        items = [(start.grant, Index(i), hub.now_us) for first, last in start.spans for i in range(first, last + 1)]
        hub.feed(AttemptsStarted(start.node, items))
    hub.take_all()
    return batch


def urgent(hub: Recorder, jobs: int = 1, **settings: object) -> BatchId:
    """A batch of the urgent service, planned for."""
    batch = hub.submit(jobs, service="urgent", **settings)
    hub.decide()
    return batch


def after_a_moment(hub: Recorder) -> list[KillAttempts]:
    """What was planned is confirmed."""
    hub.wait(0.1)
    hub.decide()
    return hub.take(KillAttempts)


def later(hub: Recorder, seconds: int) -> None:
    """So much later all nodes are still there."""
    hub.now_us += seconds * SECOND
    hub.feed(*(NodeHeard(node, "", hub.now_us) for node in hub.core.world.nodes))


def killed(hub: Recorder, kill: KillAttempts, outcome: str = "cancelled") -> None:
    """The node does as it was told."""
    results = [AttemptResult(number, index, outcome, started_at_us=1, wall_us=SECOND) for number, index in kill.items]
    hub.feed(AttemptsEnded(kill.node, 1, results, hub.now_us))


def test_one_of_least_work_lost_makes_way_and_is_queued_again_at_its_old_place(one: Recorder) -> None:
    victim = low(one, 3)
    one.end(A, 1, 1, wall_us=100 * SECOND)
    later(one, 60)
    one.decide()
    one.take_all()
    first = urgent(one)
    assert one.take(KillAttempts) == [], "what is only planned ends nothing"
    (kill,) = after_a_moment(one)
    assert kill == KillAttempts(A, [(grant(2), Index(3))], one.batch(victim).settings.grace_us, "preempted by batch 2")
    assert one.take_kept(SaveOverride)[-1] == SaveOverride(victim, 3, 3, "preempted requeue", first, one.now_us)
    told = [event for event in one.take_kept(SaveEvent) if event.kind == "job_preempted"]
    assert [(event.subject, event.text) for event in told] == [
        ("1/3", "on a: queued again, preempted by batch 2")
    ]
    assert one.core.why(first, Index(1))["verdict"] == "needs 1 cpu; 1/3 on a has been told to make way for it"
    killed(one, kill)
    (start,) = one.take(StartAttempts)
    assert start.batch == first, "the end of the victim is followed at once"
    (row,) = one.take_kept(SaveAttempts)[-1].rows
    assert (row[2], row[3], row[6], row[7], row[-1]) == (3, 1, "queued", "preempted", "preempted by batch 2")
    assert DropOverrides(victim, 3, 3, "preempted requeue") in one.take_kept(DropOverrides)
    assert one.batch(victim).tries[Index(3)].charges == {}
    one.decide()
    assert one.counts(victim) == {"queued": 1, "running": 1, "done": 1}
    facts = one.core.why(victim, Index(3))["facts"]
    assert "1 of these made way for jobs of a more urgent service, which is no charge" in facts
    one.take_all()
    one.end(A, 3, 1)
    (start,) = one.take(StartAttempts)
    assert (start.batch, start.attempt, start.spans) == (victim, 2, ((3, 3),))
    one.take_all()


def test_what_comes_free_meanwhile_spares_the_victims(one: Recorder) -> None:
    victim = low(one)
    first = urgent(one)
    one.end(A, 1, 1)
    assert [start.batch for start in one.take(StartAttempts)] == [first]
    assert after_a_moment(one) == []
    assert one.counts(victim) == {"running": 1, "done": 1}
    assert not one.core.world.giving
    one.take_all()


def test_nobody_makes_way_for_a_job_that_has_room(one: Recorder) -> None:
    low(one, 1)
    urgent(one)
    assert [start.batch for start in one.take(StartAttempts)] == [2]
    assert after_a_moment(one) == []
    one.take_all()


@pytest.mark.parametrize(
    ("services", "why"),
    [
        ({"low": ServicePolicy(is_preemptee=False)}, "it is no preemptee"),
        ({"low": ServicePolicy(is_preemptee=True, preempt_by="none")}, "it makes way by nothing"),
        ({"low": ServicePolicy(is_preemptee=True, tier=1)}, "it is of the same tier"),
        ({"urgent": ServicePolicy(tier=1)}, "the other is no preemptor"),
    ],
)
def test_who_need_not_make_way(one: Recorder, services: dict[str, ServicePolicy], why: str) -> None:
    settle(one, **services)
    low(one)
    urgent(one)
    assert after_a_moment(one) == [], why
    one.take_all()


def test_nothing_ends_where_even_all_of_it_would_make_too_little_room(one: Recorder) -> None:
    """Half of the node is somebody's who need not make way."""
    one.submit(1, service="normal")
    one.start()
    low(one)
    urgent(one, shape=Shape(cpu_milli=2000))
    assert after_a_moment(one) == []
    assert not one.core.world.giving
    one.take_all()


def test_no_more_end_than_make_room(hub: Recorder) -> None:
    """Three short attempts would make room, and so does one that has lost less than they together."""
    hub.join("a", capacity(cpus=8))
    settle(hub)
    large = low(hub, 1, shape=Shape(cpu_milli=5000))
    later(hub, 10)
    small = low(hub, 3)
    later(hub, 90)
    urgent(hub, shape=Shape(cpu_milli=2000))
    (kill,) = after_a_moment(hub)
    assert kill.items == [(grant(2), Index(1)), (grant(2), Index(2))], (large, small)
    hub.take_all()


def test_one_that_would_lose_least_is_spared_where_others_have_to_end_anyway(hub: Recorder) -> None:
    hub.join("a", capacity(cpus=5))
    settle(hub)
    low(hub, 2, shape=Shape(cpu_milli=2000))
    later(hub, 10)
    small = low(hub, 1)
    urgent(hub, shape=Shape(cpu_milli=4000))
    (kill,) = after_a_moment(hub)
    assert kill.items == [(grant(1), Index(1)), (grant(1), Index(2))]
    assert hub.counts(small) == {"running": 1}
    hub.take_all()


def test_of_equals_the_one_granted_last_makes_way(one: Recorder) -> None:
    low(one, 1)
    last = low(one, 1)
    urgent(one)
    (kill,) = after_a_moment(one)
    assert kill.items == [(grant(2), Index(1))]
    assert one.batch(last).ways
    one.take_all()


@pytest.mark.parametrize("backfill", ["none", "easy", "conservative"])
def test_jobs_make_way_whatever_the_backfill(hub: Recorder, backfill: BackfillKind) -> None:
    hub.join("a")
    hub.feed(PolicyChanged(1, Policy(services={"urgent": URGENT, "low": LOW}, backfill=backfill), hub.now_us))
    hub.take_all()
    low(hub)
    first = urgent(hub, 2)
    for _ in range(2):
        (kill,) = after_a_moment(hub)
        killed(hub, kill)
        hub.decide()
    assert hub.counts(first) == {"locked": 2}
    hub.take_all()


def test_who_may_not_backfill_has_nobody_end_behind_a_promise(hub: Recorder) -> None:
    hub.join("a")
    settle(
        hub,
        first=ServicePolicy(tier=2),
        urgent=ServicePolicy(tier=1, is_preemptor=True, may_backfill=False),
    )
    low(hub)
    hub.submit(1, service="first", shape=Shape(cpu_milli=2000))
    urgent(hub)
    assert after_a_moment(hub) == []
    hub.take_all()


def test_a_job_that_a_limit_keeps_back_has_nobody_end(one: Recorder) -> None:
    low(one)
    first = urgent(one, 2, max_running=1)
    (kill,) = after_a_moment(one)
    killed(one, kill)
    one.decide()
    assert one.counts(first) == {"queued": 1, "locked": 1}
    assert after_a_moment(one) == []
    assert not one.core.world.giving
    one.take_all()


def test_who_waits_no_more_needs_no_room(one: Recorder) -> None:
    """It was planned, and then its batch was cancelled: nobody is told."""
    low(one)
    first = urgent(one)
    one.feed(JobsCancelled(9, first, None, (), one.now_us))
    assert after_a_moment(one) == []
    assert not one.core.world.giving and not one.core.world.promises
    one.take_all()


def test_the_node_with_least_to_lose_is_taken(hub: Recorder) -> None:
    hub.join("a")
    settle(hub)
    low(hub)
    later(hub, 60)
    hub.join("b")
    low(hub)
    urgent(hub, shape=Shape(cpu_milli=2000))
    (kill,) = after_a_moment(hub)
    assert (kill.node, len(kill.items)) == (B, 2)
    hub.take_all()


def test_one_set_of_victims_at_a_time_for_a_line(one: Recorder) -> None:
    """What has been told to end is not joined by more while it does, however often a pass comes."""
    low(one)
    first = urgent(one, 2)
    (kill,) = after_a_moment(one)
    assert len(kill.items) == 1
    for _ in range(3):
        assert after_a_moment(one) == []
    killed(one, kill)
    assert [start.batch for start in one.take(StartAttempts)] == [first]
    one.decide()
    (kill,) = after_a_moment(one)
    assert len(kill.items) == 1
    one.take_all()


def test_the_room_is_kept_for_whom_it_was_made(hub: Recorder) -> None:
    """A third waits whose job would fit into what is free, and into what the first victim leaves."""
    hub.join("a", capacity(cpus=3))
    settle(hub)
    low(hub, 2)
    other = hub.submit(2, shape=Shape(cpu_milli=1000))
    first = hub.submit(1, service="urgent", shape=Shape(cpu_milli=3000))
    hub.decide()
    (kill,) = after_a_moment(hub)
    assert hub.take(StartAttempts) == []
    assert len(kill.items) == 2
    killed(hub, KillAttempts(kill.node, kill.items[:1], kill.grace_us, kill.why))
    hub.decide()
    assert hub.take(StartAttempts) == []
    killed(hub, KillAttempts(kill.node, kill.items[1:], kill.grace_us, kill.why))
    assert [start.batch for start in hub.take(StartAttempts)] == [first]
    hub.decide()
    assert hub.counts(other) == {"queued": 2}
    hub.take_all()


def test_who_is_to_be_cancelled_by_it_is(one: Recorder) -> None:
    settle(one, low=ServicePolicy(is_preemptee=True, preempt_by="cancel"))
    victim = low(one)
    urgent(one)
    (kill,) = after_a_moment(one)
    killed(one, kill)
    assert one.counts(victim) == {"running": 1, "cancelled": 1}
    (row,) = one.take_kept(SaveAttempts)[-1].rows
    assert row[6:8] == ("cancelled", "preempted")
    one.take_all()


@pytest.mark.parametrize("outcome", ["ok", "exit", "node"])
def test_what_ended_by_itself_counts_as_what_it_was(one: Recorder, outcome: str) -> None:
    victim = low(one)
    urgent(one)
    (kill,) = after_a_moment(one)
    killed(one, kill, outcome)
    (row,) = one.take_kept(SaveAttempts)[-1].rows
    assert row[7] == outcome
    assert not one.batch(victim).ways
    assert not one.store.kept.overrides[victim, "preempted requeue"]
    one.take_all()


def test_a_users_cancel_of_a_victim_is_his(one: Recorder) -> None:
    victim = low(one)
    urgent(one)
    (kill,) = after_a_moment(one)
    one.feed(JobsCancelled(9, victim, None, (), one.now_us))
    killed(one, kill)
    (row,) = one.take_kept(SaveAttempts)[-1].rows
    assert row[6:8] == ("cancelled", "cancelled")
    one.take_all()


def test_what_somebody_has_cancelled_makes_room_enough(one: Recorder) -> None:
    """It runs on for its grace; nobody else has to end for that."""
    victim = low(one)
    one.feed(JobsCancelled(9, victim, ((1, 1),), (), one.now_us))
    one.take_all()
    urgent(one)
    assert after_a_moment(one) == []
    assert not one.batch(victim).ways
    one.take_all()


def test_the_wish_survives_a_start_of_the_hub(one: Recorder) -> None:
    """The kill was lost with it: the node is told again, and nobody else has to go. The result is no cancel."""
    victim = low(one)
    first = urgent(one)
    (kill,) = after_a_moment(one)
    one.take_all()
    one.restart()
    settle(one)
    assert set(one.batch(victim).ways) == {kill.items[0][1]}
    one.feed(NodeJoined(7, "a", b"key", "boot", capacity(), (), "ann", one.now_us))
    has = [(grant(1), Index(1), "running"), (grant(1), Index(2), "running")]
    one.feed(NodeTookStock(A, has))
    assert one.take(KillAttempts) == [kill]
    one.decide()
    assert after_a_moment(one) == []
    assert one.core.why(first, None)["code"] == "making_way"
    killed(one, kill)
    assert one.counts(victim) == {"queued": 1, "running": 1}
    assert [start.batch for start in one.take(StartAttempts)] == [first]
    one.restart()
    assert one.counts(victim) == {"queued": 1, "locked": 1}
    assert one.batch(victim).tries[kill.items[0][1]].charges == {}
    one.take_all()


def test_a_victim_that_never_began_comes_back_uncharged(one: Recorder) -> None:
    victim = one.submit(2, service="low")
    one.start()
    urgent(one)
    (kill,) = after_a_moment(one)
    one.returned(A, 1, int(kill.items[0][1]))
    assert one.counts(victim) == {"queued": 1, "locked": 1}
    assert not one.batch(victim).tries and not one.batch(victim).ways
    one.take_all()


def test_a_node_that_says_preempted_is_not_believed(one: Recorder) -> None:
    victim = low(one)
    one.end(A, 1, 1, outcome="preempted")
    assert one.batch(victim).tries[Index(1)].charges == {"node": 1}
    one.take_all()


def test_surplus_is_asked_back_and_not_ended(one: Recorder) -> None:
    """What waits at the node would begin in the room that is made."""
    victim = low(one, 200)
    for _ in range(4):
        for number, given in list(one.core.world.grants.items()):
            done = [AttemptResult(number, index, "ok", 0, wall_us=1000) for index in sorted(given.members)[:2]]
            one.feed(AttemptsEnded(A, 1, done, one.now_us))
        one.decide()
    assert one.node(A).surplus_count
    one.take_all()
    urgent(one)
    (recall,) = one.take(RecallJobs)
    back = [(number, Index(i)) for number, first, last in recall.items for i in range(first, last + 1)]
    one.feed(JobsReturned(A, [each for each in back if each[1] not in (11, 12)]))
    one.decide()
    (kill,) = after_a_moment(one)
    assert len(kill.items) == 1 and one.batch(victim).ways
    one.take_all()


def test_who_was_not_searched_for_in_one_pass_is_in_the_next(hub: Recorder) -> None:
    hub.join("a", capacity(cpus=12))
    settle(hub)
    low(hub, 12)
    for number in range(6):
        hub.submit(1, service="urgent", user=f"user {number}")
    hub.decide()
    assert len(hub.core.world.giving) == 4
    assert hub.core.next_due_us() == hub.now_us + SECOND // 10
    told = [sum(len(kill.items) for kill in after_a_moment(hub)) for _ in range(3)]
    assert told == [4, 0, 2]
    hub.take_all()


def test_a_search_in_vain_is_made_once_a_second(one: Recorder) -> None:
    """Another who waits has his turn meanwhile, and what comes up later is found."""
    one.submit(1, service="normal")
    one.start()
    low(one, 1)
    urgent(one, shape=Shape(cpu_milli=2000))
    assert after_a_moment(one) == []
    one.end(A, 1, 1)
    one.decide()
    assert not one.core.world.giving
    one.wait(1)
    one.decide()
    (kill,) = after_a_moment(one)
    assert kill.items == [(grant(2), Index(1))]
    one.take_all()


WIDE = Shape(nodes=2, cpu_milli=2000)


def test_a_job_over_several_nodes_has_room_made_on_all(hub: Recorder) -> None:
    hub.join("a")
    hub.join("b")
    settle(hub)
    low(hub, 4)
    first = urgent(hub, shape=WIDE)
    kills = after_a_moment(hub)
    assert sorted((kill.node, len(kill.items)) for kill in kills) == [(A, 2), (B, 2)]
    for kill in kills:
        killed(hub, kill)
    hub.decide()
    assert [(claim.node, claim.shape) for claim in hub.take(ClaimRoom)] == [(B, WIDE)]
    assert hub.counts(first) == {"locked": 1}
    hub.take_all()


def test_a_victim_over_several_nodes_makes_room_on_each(hub: Recorder) -> None:
    hub.join("a")
    hub.join("b")
    settle(hub)
    victim = hub.submit(1, service="low", shape=WIDE)
    hub.decide()
    (claim,) = hub.take(ClaimRoom)
    hub.feed(RoomClaimed(claim.node, [claim.grant]))
    assert hub.take(StartAttempts)
    first = urgent(hub, shape=Shape(nodes=2))
    (kill,) = after_a_moment(hub)
    assert kill.items == [(claim.grant, Index(1))]
    killed(hub, kill)
    assert {type(effect) for effect in hub.take_all()} >= {UnclaimRoom, ForgetResults}
    assert hub.counts(victim) == {"queued": 1}
    hub.decide()
    assert hub.counts(first) == {"locked": 1}
    hub.take_all()


def test_a_job_that_has_its_node_to_itself_has_all_of_it_cleared(hub: Recorder) -> None:
    hub.join("a", capacity(cpus=4))
    settle(hub, urgent=ServicePolicy(tier=1, is_preemptor=True, is_dedicated=True))
    low(hub, 2)
    first = urgent(hub)
    (kill,) = after_a_moment(hub)
    assert len(kill.items) == 2
    killed(hub, kill)
    hub.decide()
    assert [start.batch for start in hub.take(StartAttempts)] == [first]
    hub.take_all()


def test_several_urgent_lines_each_have_room_made(hub: Recorder) -> None:
    """The second stands behind the depth of reservations."""
    hub.join("a", capacity(cpus=4))
    settle(hub)
    low(hub, 4)
    batches = [hub.submit(1, service="urgent", user=user) for user in ("bob", "cid", "dan")]
    hub.decide()
    kills = after_a_moment(hub)
    assert sum(len(kill.items) for kill in kills) == 3
    for kill in kills:
        killed(hub, kill)
    hub.decide()
    assert sorted(start.batch for start in hub.take(StartAttempts)) == batches
    hub.take_all()


def test_a_node_that_is_lost_with_its_victims_is_no_longer_waited_for(hub: Recorder) -> None:
    hub.join("a")
    hub.join("b")
    settle(hub)
    low(hub, 4)
    urgent(hub)
    (kill,) = after_a_moment(hub)
    lost, other = (A, B) if kill.node == A else (B, A)
    hub.feed(NodeDisconnected(lost, hub.node(lost).connection))
    hub.decide()
    (kill,) = after_a_moment(hub)
    assert kill.node == other
    hub.take_all()


def test_memory_makes_room_too(hub: Recorder) -> None:
    hub.join("a", capacity(cpus=8, gib=8))
    settle(hub)
    low(hub, 2, shape=Shape(memory_bytes=3 * GIB))
    urgent(hub, shape=Shape(memory_bytes=4 * GIB))
    (kill,) = after_a_moment(hub)
    assert len(kill.items) == 1
    hub.take_all()


@pytest.mark.parametrize("how", ["requeue", "cancel"])
def test_the_words_of_a_way(one: Recorder, how: PreemptBy) -> None:
    settle(one, low=ServicePolicy(is_preemptee=True, preempt_by=how))
    victim = low(one)
    urgent(one)
    (kill,) = after_a_moment(one)
    facts = one.core.why(victim, kill.items[0][1])["facts"]
    assert f"its attempt is to make way: {how}, for batch 2" in facts
    one.take_all()
