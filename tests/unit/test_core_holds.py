"""Holds: by whom, since when, until when; and a start date, account or service that is changed later."""

from __future__ import annotations

from random import Random

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.asking import QueueAsked, queue
from lanai.core.events import BatchChanged, JobsCancelled, JobsHeld, JobsReleased, JobsRetried
from lanai.core.holds import OPERATOR, of_job
from lanai.model.access import Caller, Role
from lanai.model.ids import BatchId, Index
from lanai.model.moments import format_moment
from lanai.model.policy import AccountPolicy, Bound, Limits, Policy, ServicePolicy, UserPolicy
from lanai.model.records import SaveEvent

ANN = Caller("ann", Role.USER)
OLGA = Caller("olga", Role.OPERATOR)


def hold(hub: Recorder, batch: BatchId, *spans: tuple[int, int], by: Caller = ANN, until_s: float = 0) -> int:
    until_us = hub.now_us + round(until_s * SECOND) if until_s else 0
    hub.feed(JobsHeld(1, batch, spans or None, hub.now_us, caller=by, until_us=until_us))
    changed = (hub.answer() or {})["changed"]
    assert isinstance(changed, int)
    hub.take_all()
    return changed


def release(hub: Recorder, batch: BatchId, *spans: tuple[int, int], by: Caller = ANN) -> dict[str, object] | None:
    hub.feed(JobsReleased(1, batch, spans or None, hub.now_us, caller=by))
    return hub.answer()


def why(hub: Recorder, batch: BatchId, index: int | None = None) -> str:
    found = hub.core.why(batch, None if index is None else Index(index))
    assert found is not None
    return f"{found['code']}: {found['verdict']}"


def test_who_holds_it_and_since_when(hub: Recorder) -> None:
    batch = hub.submit(5)
    assert hold(hub, batch, (1, 2)) == 2
    assert hold(hub, batch, (4, 5), by=OLGA) == 2
    now = format_moment(hub.now_us)
    assert why(hub, batch, 1) == f"held: held by ann since {now}; `lanai release {batch}` lets it run"
    assert why(hub, batch, 4) == (
        f"held: held by the operator olga since {now}; an operator lets it run: `lanai release {batch}`"
    )
    facts = hub.core.why(batch, None)
    assert facts is not None and isinstance(facts["facts"], list)
    assert [fact for fact in facts["facts"] if " held by " in fact] == [
        f"2 held by ann since {now}",
        f"2 held by the operator olga since {now}",
    ]
    assert [span[:2] for span in hub.core.reasons(batch, 1, 9, 9)] == [(1, 2), (4, 5)]


def test_a_batch_is_held_from_its_submission_until_it_is_released(hub: Recorder) -> None:
    """Also by the user alone, some of it, and across the hub's death."""
    hub.join("n", capacity(cpus=8))
    now = format_moment(hub.now_us)
    batch = hub.submit(5, is_held=True)
    assert hub.counts(batch) == {"held": 5} and hub.start() == []
    assert why(hub, batch, 1) == f"held: held by ann since {now}; `lanai release {batch}` lets it run"
    assert release(hub, batch, (2, 3)) == {"changed": 2}
    (started,) = hub.start()
    assert started.spans == ((2, 3),)
    hub.restart()
    assert (hub.counts(batch), hub.take_all()) == ({"held": 3, "locked": 2}, [])
    assert why(hub, batch, 1) == f"held: held by ann since {now}; `lanai release {batch}` lets it run"
    assert release(hub, batch) == {"changed": 3}
    hub.take_all()


def test_the_queue_says_who_holds_it(hub: Recorder) -> None:
    """It said of an operator's hold that `lanai release` lets it run, which its user may not do."""
    batch = hub.submit(5)
    hold(hub, batch, (4, 5), by=OLGA)
    (row,) = queue(hub.core.world, QueueAsked(blocks=("blocked",))).blocked.rows
    assert f"held: {row.reason}" == why(hub, batch, 4)
    hold(hub, batch, (1, 2))
    (row,) = queue(hub.core.world, QueueAsked(blocks=("blocked",))).blocked.rows
    assert row.jobs == 4
    assert row.reason == f"held in 2 parts, by different people or until different times: `lanai why {batch}/N`"


def test_a_user_cannot_release_what_an_operator_holds(hub: Recorder) -> None:
    batch = hub.submit(5)
    hold(hub, batch, (1, 2))
    hold(hub, batch, (4, 5), by=OLGA)
    assert release(hub, batch) == {"changed": 2, "stay": 2}
    assert release(hub, batch) == {"changed": 0, "stay": 2}
    assert release(hub, batch, by=OLGA) == {"changed": 2}
    assert hub.counts(batch) == {"queued": 5}


def test_the_hubs_owner_who_is_an_administrator_holds_his_own_as_its_user(hub: Recorder) -> None:
    batch = hub.submit(2)
    hold(hub, batch, by=Caller("ann", Role.ADMIN))
    assert release(hub, batch, by=ANN) == {"changed": 2}


def test_an_operator_takes_over_what_a_user_holds_but_not_the_other_way_round(hub: Recorder) -> None:
    batch = hub.submit(3)
    hold(hub, batch)
    assert hold(hub, batch, (2, 3), by=OLGA) == 2
    assert hold(hub, batch, by=OLGA) == 1, "the two that she holds already are none of them"
    assert hold(hub, batch) == 0
    assert release(hub, batch) == {"changed": 0, "stay": 3}


def test_a_hold_that_says_nothing_new_leaves_since_when(hub: Recorder) -> None:
    batch = hub.submit(1)
    hold(hub, batch)
    since = why(hub, batch)
    hub.wait(2)
    assert (hold(hub, batch), why(hub, batch)) == (0, since)


def test_what_was_held_by_an_operator_once_is_the_users_again(hub: Recorder) -> None:
    """The job was released and is held anew: who held it before has no say."""
    batch = hub.submit(2)
    hold(hub, batch, by=OLGA)
    release(hub, batch, by=OLGA)
    hold(hub, batch)
    assert release(hub, batch) == {"changed": 2}


def test_a_timed_hold_ends_by_itself(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    batch = hub.submit(3)
    hold(hub, batch, (1, 2), until_s=5)
    until = format_moment(hub.now_us + 5 * SECOND)
    assert why(hub, batch, 1).endswith(f" until {until}; `lanai release {batch}` lets it run")
    assert hub.core.next_due_us() == hub.now_us + 5 * SECOND
    assert [start.spans for start in hub.start()] == [((3, 3),)]
    hub.wait(4)
    assert hub.counts(batch) == {"held": 2, "locked": 1}
    hub.take_kept(SaveEvent)
    hub.wait(1)
    assert [event.text for event in hub.take_kept(SaveEvent)] == ["2 jobs that ann held until now may start"]
    assert [start.spans for start in hub.start()] == [((1, 2),)]


def test_a_timed_hold_may_be_changed_or_lifted_before(hub: Recorder) -> None:
    batch = hub.submit(3)
    hold(hub, batch, until_s=5)
    assert hold(hub, batch, (1, 1), until_s=9) == 1
    assert hold(hub, batch, (2, 2)) == 1
    hub.wait(6)
    assert hub.counts(batch) == {"held": 2, "queued": 1}
    hub.wait(4)
    assert hub.counts(batch) == {"held": 1, "queued": 2}
    assert release(hub, batch) == {"changed": 1}


def test_a_hold_until_a_moment_that_is_over_is_refused(hub: Recorder) -> None:
    batch = hub.submit(1)
    hub.feed(JobsHeld(1, batch, None, hub.now_us, until_us=hub.now_us))
    assert hub.refusal() == "moment_is_over"
    assert hub.counts(batch) == {"queued": 1}


def test_holds_outlive_the_hub(hub: Recorder) -> None:
    batch = hub.submit(6)
    hold(hub, batch, (1, 2), until_s=5)
    hold(hub, batch, (3, 4), by=OLGA)
    hold(hub, batch, (6, 6))
    before = [why(hub, batch, index) for index in range(1, 7)]
    hub.restart()
    assert [why(hub, batch, index) for index in (1, 2, 3, 4, 6)] == [*before[:4], before[5]]
    assert release(hub, batch, (3, 6)) == {"changed": 1, "stay": 2}
    hub.wait(5)
    assert hub.counts(batch) == {"held": 2, "queued": 4}


def test_a_hold_whose_time_passes_while_the_hub_is_down_ends_with_its_start(hub: Recorder) -> None:
    batch = hub.submit(2)
    hold(hub, batch, until_s=5)
    hub.now_us += 60 * SECOND
    hub.restart()
    hub.wait(1)
    assert hub.counts(batch) == {"queued": 2}


def test_a_timed_hold_of_a_job_at_a_node_ends_too(hub: Recorder) -> None:
    """It is recalled; before it comes back the hold is over, so it waits again."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    hold(hub, batch, until_s=2)
    hub.wait(2)
    hub.returned(node, 1, 1)
    assert hub.counts(batch) == {"queued": 1}


def test_the_hub_holds_what_it_pauses(hub: Recorder) -> None:
    """And says since when, also after a restart; its user lets it go on."""
    one, two = hub.join("n", capacity(cpus=20)), hub.join("m", capacity(cpus=20))
    batch = hub.submit(40)
    hub.wait(3)
    for start in hub.start():
        for first, last in start.spans:
            for index in range(first, min(last, first + 13) + 1):
                hub.end(start.node, start.grant & 0xFFFF, index, outcome="exit")
    assert {one, two} == set(hub.core.world.nodes)
    hub.take_all()
    assert hub.batch(batch).state == "paused"
    found = hub.core.why(batch, None)
    hub.restart()
    again = hub.core.why(batch, None)
    assert found is not None and again is not None
    assert found["code"] == "paused"
    assert found["since_us"] == again["since_us"] == hub.now_us
    assert release(hub, batch) == {"changed": 0, "resumed": True}
    hub.restart()
    assert hub.batch(batch).holds == []
    hub.take_all()


@pytest.mark.parametrize("seed", range(20))
def test_what_an_operator_holds_stays_held_whatever_its_user_wishes(seed: int) -> None:
    """Against a plain model: who holds each job."""
    random, hub = Random(seed), Recorder()
    batch = hub.submit(30)
    model: dict[int, str] = {}
    for _ in range(60):
        first = random.randint(1, 30)
        spans = ((first, random.randint(first, 30)),)
        by = random.choice((ANN, OLGA))
        inside = range(spans[0][0], spans[0][1] + 1)
        match random.choice(("hold", "hold", "release", "restart")):
            case "hold":
                hold(hub, batch, *spans, by=by)
                model.update({i: by.user for i in inside if model.get(i) != "olga" or by is OLGA})
            case "release":
                hub.feed(JobsReleased(1, batch, spans, hub.now_us, caller=by))
                model = {i: who for i, who in model.items() if i not in inside or (who == "olga" and by is ANN)}
            case _:
                hub.restart()
        hub.take_all()
        held = {index for low, high in hub.batch(batch).held for index in range(low, high + 1)}
        assert held == model.keys()
        for index, who in model.items():
            found = of_job(hub.batch(batch), Index(index))
            assert found is not None and found.by == who and (found.kind == OPERATOR) == (who == "olga")


def test_a_cancelled_and_retried_job_is_held_by_nobody(hub: Recorder) -> None:
    batch = hub.submit(2)
    hold(hub, batch, by=OLGA)
    hub.feed(JobsCancelled(1, batch, ((1, 1),), (), hub.now_us))
    hub.take_all()
    assert release(hub, batch, by=OLGA) == {"changed": 1}


def test_to_cancel_and_retry_a_job_does_not_lift_an_operators_hold(hub: Recorder) -> None:
    batch = hub.submit(9)
    hold(hub, batch, (2, 3), (5, 9), by=OLGA)
    hub.feed(JobsCancelled(1, batch, ((1, 6),), (), hub.now_us, ANN))
    hub.take_all()
    hub.feed(JobsRetried(1, batch, None, (), hub.now_us, ANN))
    assert hub.answer() == {"changed": 6}
    assert hub.counts(batch) == {"held": 7, "queued": 2}
    assert [index for index in range(1, 10) if index in hub.batch(batch).held] == [2, 3, 5, 6, 7, 8, 9]
    hub.feed(JobsCancelled(1, batch, ((1, 3),), (), hub.now_us, ANN), JobsRetried(1, batch, None, (), 0, OLGA))
    hub.take_all()
    assert hub.counts(batch) == {"held": 5, "queued": 4}


# -- what may be changed


def change(hub: Recorder, batch: BatchId, **wished: object) -> None:
    hub.feed(BatchChanged(1, batch, None, None, hub.now_us, **wished))  # type: ignore[arg-type]


def test_a_start_date_may_be_set_later_and_lifted(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=1))
    batch = hub.submit(2)
    change(hub, batch, start_after_us=hub.now_us + 9 * SECOND)
    hub.take_all()
    assert hub.start() == []
    hub.restart()
    hub.join("n", capacity(cpus=1), take=False)
    hub.take_all()
    assert hub.start() == []
    change(hub, batch, start_after_us=0)
    hub.take_all()
    assert [start.batch for start in hub.start()] == [batch]


def test_account_and_service_may_change_and_count_elsewhere_then(hub: Recorder) -> None:
    few = Limits(jobs=Bound(1, 1))
    hub.core.world.policy = Policy(
        users={"ann": UserPolicy(account="a")},
        accounts={"a": AccountPolicy(limits=few), "b": AccountPolicy(), "c": AccountPolicy(users=("eve",))},
        services={"short": ServicePolicy(), "closed": ServicePolicy(users=("eve",))},
    )
    hub.join("n", capacity(cpus=8))
    batch = hub.submit(5)
    hub.start()
    assert hub.batch(batch).sent == 1
    change(hub, batch, account="c")
    assert hub.refusal() == "may_not_use_account"
    change(hub, batch, service="closed")
    assert hub.refusal() == "may_not_use_service"
    change(hub, batch, account="b", service="short")
    hub.take_all()
    hub.core.check()
    hub.start()
    assert hub.batch(batch).sent == 5
    hub.restart()
    assert (hub.batch(batch).settings.account, hub.batch(batch).settings.service) == ("b", "short")
