"""Reservations made by people: who may use what when, and that nobody else does."""

from __future__ import annotations

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core import advice
from lanai.core import events as ev
from lanai.core.effects import Answer, RecallJobs, StartAttempts
from lanai.core.reserved_shown import of_node, standings
from lanai.core.reserving_tried import rehearse
from lanai.core.schedule.forecast import earliest_of_job
from lanai.model.access import Caller, Role
from lanai.model.batch import BatchSettings
from lanai.model.errors import Refusal
from lanai.model.ids import BatchId, Index, NodeId
from lanai.model.policy import AccountPolicy, GroupPolicy, Policy, ServicePolicy
from lanai.model.records import SaveAudit, SaveEvent
from lanai.model.reservation import Access, Period, Reservation, Rule
from lanai.model.resources import Shape

MINUTE = 60 * SECOND
BOSS = Caller("boss", Role.OPERATOR)


@pytest.fixture
def hub() -> Recorder:
    made = Recorder()
    made.feed(ev.TimePassed(made.now_us))
    return made


def job(cpus: int, minutes: float, **more: object) -> Shape:
    return Shape(cpu_milli=1000 * cpus, time_limit_us=round(minutes * MINUTE), **more)  # type: ignore[arg-type]


def wish(hub: Recorder, begin: float, end: float, *, name: str = "r", is_change: bool = False, **more: object) -> None:
    """In minutes from now; nodes `*` and owner `ann` where nothing else is said."""
    period = Period(hub.now_us + round(begin * MINUTE), hub.now_us + round(end * MINUTE))
    about: dict[str, object] = {"owner": "ann", "periods": (period,)}
    if not ("count" in more or "nodes" in more):
        about["nodes"] = "*"
    made = Reservation(name=name, **(about | more))  # type: ignore[arg-type]
    hub.feed(ev.ReservationWished(7, made, is_change, hub.now_us, BOSS))


def reserve(hub: Recorder, begin: float, end: float, **more: object) -> list[str]:
    """Make a reservation; the names of its nodes."""
    wish(hub, begin, end, **more)  # type: ignore[arg-type]
    answer = hub.answer()
    assert answer is not None
    nodes = answer["nodes"]
    assert isinstance(nodes, list)
    return nodes


def refused(hub: Recorder, begin: float, end: float, **more: object) -> str:
    before = hub.core.world.reservations.copy(), [list(node.steps) for node in hub.core.world.nodes.values()]
    wish(hub, begin, end, **more)  # type: ignore[arg-type]
    after = hub.core.world.reservations.copy(), [list(node.steps) for node in hub.core.world.nodes.values()]
    assert before == after, "nothing is half-applied"
    return hub.refusal()


def later(hub: Recorder, minutes: float) -> None:
    """So much time passes, and all nodes are still heard."""
    hub.now_us += round(minutes * MINUTE)
    nodes = [node for node in hub.core.world.nodes.values() if node.is_in_step]
    hub.feed(*(ev.NodeHeard(node.id, "", hub.now_us) for node in nodes), ev.TimePassed(hub.now_us))
    hub.take_all()


def started_after(hub: Recorder, minutes: float) -> list[BatchId]:
    later(hub, minutes)
    return started(hub)


def started(hub: Recorder) -> list[BatchId]:
    hub.core.world.needs_pass = True
    return [start.batch for start in hub.start()]


def reason(hub: Recorder, batch: BatchId) -> tuple[object, object]:
    why = hub.core.why(batch, None)
    assert why is not None
    return why["code"], why["verdict"]


def told(hub: Recorder) -> list[str]:
    return [each.kind for each in hub.take_kept(SaveEvent) if each.kind.startswith("reservation")]


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
    assert [type(effect) for effect in hub.take_all()] == [RecallJobs, Answer]


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


# -- nodes


def test_a_node_that_comes_later_belongs_to_it_by_its_name(hub: Recorder) -> None:
    hub.join("gpu-1")
    assert reserve(hub, 10, 20, nodes="gpu-*") == ["gpu-1"]
    node = hub.node(hub.join("gpu-2"))
    assert [step.begin_us for step in node.steps] == [hub.now_us + 10 * MINUTE] and node.until_us < 1 << 62


def test_nodes_by_number_are_those_that_are_free_first(hub: Recorder) -> None:
    """Of three one has an hour to go, and one is another's at that time."""
    hub.join("a")
    hub.submit(1, user="bob", shape=job(2, 60))
    hub.start()
    hub.join("b")
    hub.join("c")
    reserve(hub, 15, 25, name="other", nodes="b")
    assert reserve(hub, 10, 20, count=1) == ["c"]
    assert reserve(hub, 12, 20, name="more", count=1) == ["a"]
    assert refused(hub, 12, 20, name="most", count=1) == "not_enough_nodes"
    assert reserve(hub, 25, 30, name="later", count=3) == ["a", "b", "c"]


def test_two_parts_of_one_node_are_reserved_beside_each_other(hub: Recorder) -> None:
    hub.join("a", capacity(cpus=4))
    part = {"is_whole": False, "shape": Shape(cpu_milli=2000)}
    assert reserve(hub, 10, 20, name="one", count=1, **part) == ["a"]
    assert reserve(hub, 15, 25, name="two", count=1, **part) == ["a"]
    assert refused(hub, 19, 25, name="three", count=1, **part) == "not_enough_nodes"
    assert refused(hub, 19, 25, name="three", nodes="a", **part) == "already_reserved"
    assert reserve(hub, 20, 25, name="three", count=1, **part) == ["a"]
    assert reserve(hub, 0, 25, name="repair", kind="maintenance") == ["a"], "which may lie over all others"


def test_who_is_in_the_way_is_named(hub: Recorder) -> None:
    hub.join("a")
    reserve(hub, 100, 200, name="later")
    reserve(hub, 10, 20, name="sooner")
    wish(hub, 15, 25, name="new")
    (answer,) = hub.take(Answer)
    assert answer.error is not None
    assert answer.error.message == "too much of a is reserved at that time, by sooner"


def test_it_keeps_its_nodes_beneath_maintenance(hub: Recorder) -> None:
    """A daily one lost its node for good when its first period was over, because maintenance lay over a later one."""
    hub.join("a")
    days = [hub.now_us + day * 1440 * MINUTE for day in range(3)]
    periods = tuple(Period(day_us, day_us + 60 * MINUTE) for day_us in days)
    assert reserve(hub, 0, 0, periods=periods) == ["a"]
    reserve(hub, 1440, 1470, name="repair", kind="maintenance")
    later(hub, 61)
    daily, repair = standings(hub.core.world)
    assert (daily.made.name, daily.nodes, daily.short, repair.short) == ("r", ["a"], (), ())
    steps = hub.core.world.nodes[NodeId(1)].steps
    assert [step.begin_us for step in steps if step.owner.made.name == "r"] == days[1:]


def test_who_may_use_it_can_be_changed_beneath_maintenance(hub: Recorder) -> None:
    hub.join("a")
    hub.join("b")
    assert reserve(hub, 10, 20, count=1) == ["a"]
    reserve(hub, 15, 25, name="repair", nodes="a", kind="maintenance")
    assert reserve(hub, 10, 20, count=1, access=Access(users=("bob",)), is_change=True) == ["a"]
    assert reserve(hub, 10, 21, count=1, access=Access(users=("bob",)), is_change=True) == ["b"], "at another time"
    assert refused(hub, 10, 20, name="other", nodes="a") == "already_reserved"


@pytest.mark.parametrize(
    ("access", "code", "words"),
    [
        (Access(accounts=("nix",)), "no_such_account", "there is no account nix"),
        (Access(services=("nix", "short")), "no_such_service", "there is no service nix"),
        (Access(groups=("nix",)), "no_such_group", "there is no group nix"),
    ],
)
def test_who_is_not_there_is_let_in_nowhere(hub: Recorder, access: Access, code: str, words: str) -> None:
    """A slip in a name would make a reservation that nobody may use. What a change leaves as it was stays."""
    hub.join("a")
    hub.core.world.policy = Policy(
        accounts={"lab": AccountPolicy()}, services={"short": ServicePolicy()}, groups={"staff": GroupPolicy()}
    )
    wish(hub, 10, 20, access=access)
    (answer,) = hub.take(Answer)
    assert answer.error is not None and (answer.error.code, answer.error.message) == (code, words)
    known = Access(accounts=("default", "lab"), services=("normal", "short"), groups=("staff",), users=("anybody",))
    assert reserve(hub, 10, 20, access=known) == ["a"]
    hub.core.world.policy = Policy()
    assert reserve(hub, 10, 30, access=known, is_change=True) == ["a"]


def test_it_says_when_it_is_short_of_a_node(hub: Recorder) -> None:
    hub.join("a")
    hub.join("b")
    reserve(hub, 10, 20, count=2, is_whole=False, shape=Shape(cpu_milli=2000))
    hub.feed(ev.NodeWished(3, "b", "remove", hub.now_us))
    hub.take_all()
    (standing,) = standings(hub.core.world)
    assert standing.short == ("b is gone, or without its features",)
    assert told(hub) == ["reservation_made", "reservation_short"]
    hub.feed(ev.NodeDisconnected(hub.core.world.names["a"], 1))
    hub.hello("a", capacity(cpus=1))
    hub.take_all()
    assert standings(hub.core.world)[0].short == ("a has less than is reserved", "b is gone, or without its features")
    hub.join("b")
    assert standings(hub.core.world)[0].short == ("a has less than is reserved",)
    assert told(hub) == ["reservation_short"]
    assert len(standings(hub.core.world)[0].nodes) == 2


def test_a_node_that_comes_later_belongs_to_the_one_that_was_made_first(hub: Recorder) -> None:
    hub.join("a-x")
    hub.join("y-b")
    reserve(hub, 10, 20, name="one", nodes="a-*")
    reserve(hub, 15, 25, name="two", nodes="*-b")
    node = hub.node(hub.join("a-b"))
    assert [each["name"] for each in of_node(hub.core.world, node)] == ["one"]
    assert standings(hub.core.world)[1].short == ("a-b is reserved by others",)
    hub.feed(ev.TimePassed(hub.now_us + MINUTE))
    assert [each["name"] for each in of_node(hub.core.world, node)] == ["one"]


def test_a_clock_that_is_off_a_little_ends_it_all_the_same(hub: Recorder) -> None:
    """Steps are laid anew only where the clock on the wall is set by a second; less must not leave one for ever."""
    hub.join("n")
    reserve(hub, 1, 2)
    hub.now_us += 2 * MINUTE
    hub.feed(ev.TimePassed(hub.now_us - SECOND // 2))
    assert hub.core.world.reservations == {}
    reserve(hub, 1, 2)
    later(hub, 2)
    assert hub.core.world.reservations == {}


@pytest.mark.parametrize(
    ("begin", "end", "more", "code"),
    [
        (-5, 10, {}, "in_the_past"),
        (-5, -2, {}, "in_the_past"),
        (10, 10, {}, "end_before_begin"),
        (10, 5, {}, "end_before_begin"),
        (1, 2, {"nodes": "n,m"}, "no_such_node"),
        (1, 2, {"nodes": "x*"}, "no_such_node"),
        (1, 2, {"nodes": "n["}, "bad_reservation"),
        (1, 2, {"nodes": ""}, "bad_reservation"),
        (1, 2, {"name": "a b"}, "bad_reservation"),
        (1, 2, {"count": 2}, "not_enough_nodes"),
        (1, 2, {"count": -1}, "bad_reservation"),
        (1, 2, {"is_whole": False}, "bad_reservation"),
        (1, 2, {"is_whole": False, "shape": Shape(cpu_milli=3000)}, "impossible_request"),
        (1, 2, {"name": "taken"}, "reservation_exists"),
        (1, 2, {"name": "none", "is_change": True}, "no_such_reservation"),
    ],
)
def test_what_cannot_be_is_refused(
    hub: Recorder, begin: float, end: float, more: dict[str, object], code: str
) -> None:
    hub.join("n")
    reserve(hub, 100, 110, name="taken")
    assert refused(hub, begin, end, **more) == code


# -- changed, renewed, kept


def test_a_change_is_whole_or_not_at_all(hub: Recorder) -> None:
    hub.join("a")
    hub.join("b")
    reserve(hub, 10, 20, nodes="a")
    reserve(hub, 30, 40, name="other", nodes="a")
    assert refused(hub, 10, 31, nodes="a", is_change=True) == "already_reserved"
    assert reserve(hub, 10, 30, nodes="a,b", is_change=True) == ["a", "b"]
    assert [len(node.steps) for node in hub.core.world.nodes.values()] == [2, 1]


def test_a_change_leaves_what_it_does_not_name(hub: Recorder) -> None:
    """It has begun and is made longer, then wider: the node that it has stays its own, and its beginning past."""
    hub.join("a")
    hub.join("b")
    hub.submit(1, user="bob", shape=job(2, 60))
    hub.start()
    assert reserve(hub, 0, 20, count=1) == ["b"]
    later(hub, 10)
    made = hub.core.world.reservations["r"].made
    longer = Period(made.periods[0].begin_us, hub.now_us + 60 * MINUTE)
    assert reserve(hub, 0, 0, count=1, periods=(longer,), is_change=True) == ["b"]
    assert reserve(hub, 0, 0, count=2, periods=(longer,), is_change=True) == ["a", "b"]
    assert reserve(hub, 0, 0, count=1, periods=(longer,), is_change=True) == ["b"]


def test_a_standing_one_goes_on_from_period_to_period(hub: Recorder) -> None:
    node = hub.node(hub.join("n"))
    rule = Rule(on=(0, 1, 2, 3, 4, 5, 6), from_minute=0, to_minute=10, timezone="UTC")
    day = 24 * 60
    first = Period(hub.now_us + 10 * MINUTE, hub.now_us + 20 * MINUTE)
    periods = tuple(Period(first.begin_us + n * day * MINUTE, first.end_us + n * day * MINUTE) for n in range(3))
    wish(hub, 0, 0, periods=periods[:2], rule=rule)
    hub.answer()
    assert [step.begin_us for step in node.steps] == [period.begin_us for period in periods[:2]]
    later(hub, 20)
    assert [step.begin_us for step in node.steps] == [periods[1].begin_us]
    hub.feed(ev.ReservationRenewed("r", rule, periods[1:]))
    assert [step.begin_us for step in node.steps] == [period.begin_us for period in periods[1:]]
    hub.feed(ev.ReservationRenewed("r", Rule(on=(1,), from_minute=0, to_minute=9, timezone="UTC"), ()))
    hub.feed(ev.ReservationRenewed("gone", rule, periods))
    assert len(node.steps) == 2, "what is said of another rule, or of nothing, is old"


def test_it_outlives_the_hub(hub: Recorder) -> None:
    hub.join("n")
    reserve(hub, 10, 20)
    steps = [(step.begin_us, step.end_us) for step in hub.node(hub.core.world.names["n"]).steps]
    hub.restart()
    node = hub.node(hub.core.world.names["n"])
    assert [(step.begin_us, step.end_us) for step in node.steps] == steps
    hub.now_us += 30 * MINUTE
    hub.restart()
    assert hub.core.world.reservations == {} and hub.node(hub.core.world.names["n"]).steps == []


def test_its_times_are_by_the_clock_on_the_wall(hub: Recorder) -> None:
    """The clock on the wall is set forward by five minutes: it begins so much sooner."""
    node = hub.node(hub.join("n"))
    reserve(hub, 10, 20)
    begin_us = node.until_us
    hub.feed(ev.TimePassed(hub.now_us + 5 * MINUTE))
    assert node.until_us == begin_us - 5 * MINUTE
    assert of_node(hub.core.world, node)[0]["begin_us"] == begin_us


def test_a_wish_leaves_a_row_in_the_audit_trail(hub: Recorder) -> None:
    hub.join("n")
    reserve(hub, 10, 20)
    hub.feed(ev.ReservationDropped(8, "r", hub.now_us, BOSS))
    hub.answer()
    hub.feed(ev.ReservationDropped(8, "r", hub.now_us, BOSS))
    assert hub.refusal() == "no_such_reservation"
    rows = [(row.action, row.subject, row.before.get("nodes"), row.is_refused) for row in hub.take_kept(SaveAudit)]
    about = "reservation.set", "reservation r"
    assert rows == [(*about, None, False), (*about, 1, False), (*about, None, True)]


# -- dry runs


def test_a_dry_run_names_what_is_in_the_way_and_changes_nothing(hub: Recorder) -> None:
    """Two of three cpus run for an hour and for five minutes; a wide job is promised the first of these ends."""
    hub.feed(ev.TimePassed(hub.now_us + 999 * MINUTE))
    hub.join("n", capacity(cpus=3))
    long = hub.submit(1, user="bob", shape=job(2, 60))
    short = hub.submit(1, user="bob", shape=job(1, 5))
    assert started(hub) == [long, short]
    wide = hub.submit(1, user="carl", shape=job(3, 30))
    assert started(hub) == []
    world = hub.core.world
    before = [(list(node.steps), node.until_us) for node in world.nodes.values()], dict(world.promises)
    wall_us = world.wall_us
    period = Period(wall_us + 10 * MINUTE, wall_us + 120 * MINUTE)
    made = Reservation(name="r", owner="ann", nodes="n", periods=(period,))
    told = rehearse(world, made, wall_us, is_change=False)
    assert [(each.batch, each.until_us) for each in told.running] == [(long, wall_us + 60 * MINUTE)]
    assert [(each.batch, each.before_us, each.after_us) for each in told.delayed] == [
        (wide, wall_us + 60 * MINUTE, wall_us + 120 * MINUTE)
    ]
    assert before == ([(list(node.steps), node.until_us) for node in world.nodes.values()], dict(world.promises))
    assert world.reservations == {} and hub.take_all() == []


def test_a_dry_run_of_a_change_is_of_the_change(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=1))
    reserve(hub, 10, 20, access=Access(users=("eve",)))
    hub.submit(1, user="bob", shape=job(1, 15))
    world, at_us = hub.core.world, hub.now_us
    period = Period(at_us + 10 * MINUTE, at_us + 30 * MINUTE)
    made = Reservation(name="r", nodes="n", periods=(period,), access=Access(users=("eve",)))
    (delay,) = rehearse(world, made, at_us, is_change=True).delayed
    assert (delay.before_us, delay.after_us) == (at_us + 20 * MINUTE, at_us + 30 * MINUTE)
    with pytest.raises(Refusal):
        rehearse(world, made, at_us, is_change=False)


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
