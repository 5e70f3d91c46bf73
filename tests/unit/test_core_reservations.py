"""Reservations made by people: who may use what when, and that nobody else does."""

from __future__ import annotations

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core import advice
from lanai.core import events as ev
from lanai.core.effects import Answer, RecallJobs, StartAttempts
from lanai.core.schedule.forecast import earliest_of_job
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, Index
from lanai.model.records import SaveAudit
from lanai.model.reservation import Access
from lanai.model.resources import Shape
from reservation_scenes import BOSS, MINUTE, job, later, reason, reserve, started, started_after, told, wish


@pytest.fixture
def hub() -> Recorder:
    made = Recorder()
    made.feed(ev.TimePassed(made.now_us))
    return made


# -- who may use it


def test_others_start_only_what_is_over_before_it_begins(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=2))
    assert reserve(hub, 30, 60) == ["n"]
    short = hub.submit(1, user="bob", shape=job(1, 30))
    long = hub.submit(1, user="carl", shape=job(1, 31))
    own = hub.submit(1, user="ann", shape=job(1, 90))
    assert sorted(started(hub)) == [short, own]
    assert reason(hub, long)[0] == "reserved"
    assert "n has room, but is reserved by r from 1970-01-01 00:46:40 UTC until 1970-01-01 01:16:40 UTC" in str(
        reason(hub, long)[1]
    )


def test_it_is_theirs_while_it_lasts_and_everybodys_afterwards(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=2))
    reserve(hub, 10, 20)
    later(hub, 10)
    other = hub.submit(1, user="bob", shape=job(1, 1))
    assert started(hub) == []
    assert told(hub) == ["reservation_made", "reservation_begun"]
    later(hub, 9.99)
    assert started(hub) == []
    later(hub, 0.01)
    assert started(hub) == [other]
    assert told(hub) == ["reservation_ended", "reservation_dropped"]
    assert hub.core.world.reservations == {}


def test_the_beginning_and_the_end_wake_the_hub(hub: Recorder) -> None:
    hub.join("n")
    reserve(hub, 10, 20)
    hub.decide()
    assert hub.core.next_due_us() == hub.now_us + 10 * MINUTE
    later(hub, 10)
    assert hub.core.needs_pass
    hub.decide()
    assert hub.core.next_due_us() == hub.now_us + 10 * MINUTE
    later(hub, 10)
    assert hub.core.needs_pass


@pytest.mark.parametrize(
    ("access", "users"),
    [
        (Access(), ["ann"]),
        (Access(users=("bob",)), ["bob"]),
        (Access(services=("normal",)), ["ann", "bob", "carl"]),
        (Access(batches=(3,)), ["carl"]),
        (Access(max_time_us=5 * MINUTE), ["ann", "bob", "carl"]),
        (Access(max_time_us=4 * MINUTE), []),
        (Access(users=("ann",), max_time_us=4 * MINUTE), []),
        (Access(accounts=("default",)), ["ann", "bob", "carl"]),
    ],
)
def test_the_access_list_says_whose_jobs_may_use_it(hub: Recorder, access: Access, users: list[str]) -> None:
    hub.join("n", capacity(cpus=4))
    reserve(hub, 0, 60, access=access)
    batches = {hub.submit(1, user=user, shape=job(1, 5)): user for user in ("ann", "bob", "carl")}
    assert sorted(batches[batch] for batch in started(hub)) == users


def test_maintenance_is_nobodys(hub: Recorder) -> None:
    """The node drains by itself: what would run into it does not start, not even its owner's."""
    hub.join("n")
    reserve(hub, 10, 20, kind="maintenance")
    own = hub.submit(1, user="ann", shape=job(1, 11))
    assert started(hub) == []
    code, text = reason(hub, own)
    assert code == "reserved" and "kept for maintenance by r" in str(text)
    assert started_after(hub, 20) == [own]


def test_a_preferring_one_takes_others_in_that_are_over_by_its_end(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=3))
    reserve(hub, 10, 60, kind="preferring")
    short = hub.submit(1, user="bob", shape=job(1, 50))
    long = hub.submit(1, user="carl", shape=job(1, 51))
    assert started(hub) == [], "before it begins they would have to be over by then"
    assert started_after(hub, 10) == [short]
    hub.submit(2, user="ann", shape=job(2, 20), reservation="r")
    more = hub.submit(1, user="dora", shape=job(1, 5))
    assert more not in started(hub), "somebody waits who has named it"
    assert reason(hub, long)[0] == "reserved"


# -- those that run in it only


def test_a_job_that_names_it_runs_in_it_only(hub: Recorder) -> None:
    hub.join("a")
    hub.join("b")
    assert reserve(hub, 10, 60, nodes="b") == ["b"]
    bound = hub.submit(1, user="ann", shape=job(1, 40), reservation="r")
    assert started(hub) == []
    code, text = reason(hub, bound)
    assert code == "reservation" and "which begins at" in str(text)
    forecast = earliest_of_job(hub.core.world, hub.batch(bound), Index(1))
    assert forecast.at_us == hub.now_us + 10 * MINUTE
    later(hub, 10)
    hub.core.world.needs_pass = True
    assert [(start.batch, start.node) for start in hub.start()] == [(bound, hub.core.world.names["b"])]


def test_a_job_that_names_it_is_over_by_its_end(hub: Recorder) -> None:
    hub.join("n")
    reserve(hub, 0, 60)
    hub.submit(1, user="ann", shape=job(1, 61), reservation="r")
    fits = hub.submit(1, user="ann", shape=job(1, 60), reservation="r")
    assert started(hub) == [fits]
    code, text = reason(hub, BatchId(1))
    assert code == "reservation" and str(text).endswith("which ends at 1970-01-01 01:16:40 UTC, sooner than in 1h1m")


def test_what_would_change_it_for_a_job_that_names_one(hub: Recorder) -> None:
    """What is free on other nodes is nothing to it; it used to be told to run for at most some million years."""
    hub.join("a")
    hub.join("b")
    reserve(hub, 0, 60, nodes="a")
    long = hub.submit(1, user="ann", shape=job(1, 61), reservation="r")
    wide = hub.submit(1, user="ann", shape=job(1, 5, nodes=2), reservation="r")
    assert started(hub) == []
    world = hub.core.world
    assert advice.changes(world, hub.batch(long), None) == [
        "with --time under 1h it would be over by the end of the reservation r",
        f"`lanai set {long} --reservation none` lets it run anywhere",
    ]
    assert advice.rejections(world, hub.batch(wide), None) == {"not in its reservation": 1, "with room": 1}
    assert reason(hub, wide) == ("reservation", "it runs in the reservation r only, which has 1 node of 2")


def test_a_job_that_names_it_and_may_not_use_it_any_more_says_so(hub: Recorder) -> None:
    hub.join("n")
    reserve(hub, 0, 60, access=Access(users=("ann",), max_time_us=5 * MINUTE))
    long = hub.submit(1, user="ann", shape=job(1, 6), reservation="r")
    short = hub.submit(2, user="ann", shape=job(2, 5), reservation="r")
    assert started(hub) == [short]
    assert reason(hub, long) == (
        "reservation", "it runs in the reservation r only, and is expected to run for 6m, it takes 5m at most"
    )  # fmt: skip
    assert reason(hub, short) == ("no_room", "it runs in the reservation r only, on whose nodes it finds no room")
    reserve(hub, 0, 60, access=Access(users=("bob",)), is_change=True)
    started(hub)
    assert reason(hub, short) == ("reservation", "it runs in the reservation r only, which it may not use any more")


def test_one_that_is_gone_is_named_as_the_reason(hub: Recorder) -> None:
    hub.join("n")
    reserve(hub, 10, 60)
    bound = hub.submit(1, user="ann", reservation="r")
    hub.feed(ev.ReservationDropped(8, "r", hub.now_us, BOSS))
    hub.answer()
    assert started(hub) == []
    assert reason(hub, bound) == ("reservation", "it runs in the reservation r only, which is over or was dropped")


def test_a_batch_is_freed_from_one_that_will_not_come_again(hub: Recorder) -> None:
    hub.join("n")
    reserve(hub, 10, 60)
    bound = hub.submit(1, user="ann", reservation="r")
    hub.feed(ev.ReservationDropped(8, "r", hub.now_us, BOSS))
    hub.answer()
    hub.feed(ev.BatchChanged(9, bound, None, None, hub.now_us, BOSS, reservation="s"))
    assert hub.refusal() == "no_such_reservation"
    hub.feed(ev.BatchChanged(9, bound, None, None, hub.now_us, BOSS, reservation=""))
    hub.answer()
    assert started(hub) == [bound]
    rows = [row for row in hub.take_kept(SaveAudit) if row.action == "batch.set"]
    assert [(row.is_refused, row.before["reservation"]) for row in rows] == [(True, "r"), (False, "r")]


@pytest.mark.parametrize(
    ("user", "name", "code"), [("ann", "s", "no_such_reservation"), ("bob", "r", "not_in_reservation")]
)
def test_a_batch_may_only_name_what_it_may_use(hub: Recorder, user: str, name: str, code: str) -> None:
    hub.join("n")
    reserve(hub, 0, 60)
    hub.feed(ev.BatchOpened(1, user, "", BatchSettings(reservation=name), b"digest", b"blob", hub.now_us))
    assert hub.refusal() == code


def test_a_batch_that_is_admitted_by_its_number_may_be_bound_to_the_reservation(hub: Recorder) -> None:
    """Once it has one: nobody else's is let in by that."""
    hub.join("n")
    reserve(hub, 0, 60)
    one, other = hub.submit(1, user="bob"), hub.submit(1, user="bob")

    def bind(batch: BatchId) -> None:
        hub.feed(ev.BatchChanged(9, batch, None, None, hub.now_us, BOSS, reservation="r"))

    bind(one)
    assert (hub.refusal(), started(hub)) == ("not_in_reservation", [])
    hub.take_all()
    reserve(hub, 0, 60, is_change=True, access=Access(batches=(one,)))
    bind(other)
    assert hub.refusal() == "not_in_reservation"
    bind(one)
    hub.answer()
    assert started(hub) == [one]


def test_those_bound_to_a_part_of_a_node_have_no_more_than_that(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=8))
    reserve(hub, 0, 60, is_whole=False, shape=Shape(cpu_milli=3000))
    bound = hub.submit(9, user="ann", shape=job(1, 5), reservation="r")
    assert {*started(hub)} == {bound}
    assert hub.batch(bound).sent == 3


def test_others_have_the_rest_of_a_node_of_which_a_part_is_reserved(hub: Recorder) -> None:
    """What those have of it whom it is for is not kept from others a second time."""
    node = hub.join("n", capacity(cpus=8))
    reserve(hub, 0, 60, is_whole=False, shape=Shape(cpu_milli=3000))
    hub.submit(2, user="ann", shape=job(1, 5), reservation="r")
    hub.start()
    hub.submit(9, user="bob", shape=job(1, 5))
    started(hub)
    assert sorted(hub.node(node).active.values()) == [2, 5]


# -- the fast path, and what waits at nodes


def test_an_end_is_not_followed_by_what_would_run_into_it(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    hub.submit(1, user="bob", shape=job(1, 5))
    hub.submit(5, user="bob", shape=job(1, 8))
    hub.start()
    reserve(hub, 10, 20, access=Access(users=("ann",)))
    hub.decide()
    later(hub, 3)
    hub.end(node, 1, 1)
    assert hub.take(StartAttempts) == []
    hub.take_all()
    own = hub.submit(1, user="ann", shape=job(1, 15))
    assert started(hub) == [own]


def test_what_waits_at_a_node_is_asked_back_when_it_is_reserved_soon(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    hub.submit(300, user="bob")
    hub.start()
    hub.end(node, 1, 1, wall_us=SECOND // 100)
    hub.take_all()
    assert hub.node(node).surplus_count
    wish(hub, 0.5, 20)
    assert [type(effect) for effect in hub.take_all()] == [Answer, RecallJobs]


def test_a_promise_makes_way_for_what_is_reserved_after_it(hub: Recorder) -> None:
    """A wide job has been promised the tenth minute; then somebody reserves the node from the fifteenth on."""
    hub.join("n", capacity(cpus=2))
    hub.submit(1, user="bob", shape=job(1, 10))
    started(hub)
    wide = hub.submit(1, user="carl", shape=job(2, 30))
    hub.submit(1, user="dora", shape=job(1, 60))
    started(hub)
    assert [promise.at_us - hub.now_us for promise in hub.core.world.promises.values()] == [10 * MINUTE]
    reserve(hub, 15, 25)
    started(hub)
    assert earliest_of_job(hub.core.world, hub.batch(wide), Index(1)).at_us == hub.now_us + 25 * MINUTE


# -- promises that could not be kept at their time


def overrun(hub: Recorder, reservation: str = "") -> tuple[BatchId, list[BatchId]]:
    """The node is full for a minute, after which a job of ten is promised to follow; half a minute after it is.

    Returns that one, and what starts then, in a pass that is the first for a quarter of a minute.
    """
    first = hub.submit(1, user="ann", shape=job(2, 1), reservation=reservation)
    assert started(hub) == [first]
    second = hub.submit(1, user="ann", shape=job(2, 10), reservation=reservation)
    assert started(hub) == [] and [line.batch for line in hub.core.world.promises] == [second]
    assert started_after(hub, 1.25) == []
    later(hub, 0.25)
    hub.end(hub.core.world.names["n"], 1, 1)
    hub.core.world.needs_pass = True
    hub.decide()
    begun = [start.batch for start in hub.take(StartAttempts)]
    hub.take_all()
    return second, begun


def test_what_was_promised_long_ago_does_not_run_into_a_reservation(hub: Recorder) -> None:
    """When the last pass held on to the promise there was time; a quarter of a minute later there is none."""
    hub.join("n", capacity(cpus=2))
    reserve(hub, 11.4, 60, owner="boss")
    second, begun = overrun(hub)
    assert begun == [] and reason(hub, second)[0] == "reserved"


def test_what_was_promised_long_ago_starts_where_there_is_time(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=2))
    reserve(hub, 11.5, 60, owner="boss")
    second, begun = overrun(hub)
    assert begun == [second]


def test_who_runs_in_a_reservation_only_is_over_by_its_end_however_long_ago_he_was_promised(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=2))
    reserve(hub, 0, 11.2)
    second, begun = overrun(hub, "r")
    assert begun == [] and second not in [line.batch for line in hub.core.world.promises]
