"""Reservations as they are made and changed: on which nodes, for how long, and what a dry run says of them."""

from __future__ import annotations

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.effects import Answer
from lanai.core.nodes import Node
from lanai.core.reserved_shown import of_node, standings
from lanai.core.reserving_tried import rehearse
from lanai.model.errors import Refusal
from lanai.model.ids import NodeId
from lanai.model.policy import AccountPolicy, GroupPolicy, Policy, ServicePolicy
from lanai.model.records import SaveAudit
from lanai.model.reservation import Access, Period, Reservation, Rule
from lanai.model.resources import Shape
from reservation_scenes import BOSS, MINUTE, job, later, refused, reserve, started, told, wish


@pytest.fixture
def hub() -> Recorder:
    made = Recorder()
    made.feed(ev.TimePassed(made.now_us))
    return made


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


def test_it_keeps_its_node_though_another_is_free_by_now(hub: Recorder) -> None:
    node = hub.join("a")
    hub.submit(1, user="bob", shape=job(2, 60))
    hub.start()
    hub.join("b")
    assert reserve(hub, 10, 20, count=1) == ["b"]
    hub.end(node, 1, 1)
    hub.take_all()
    assert reserve(hub, 10, 30, count=1, is_change=True) == ["b"]


def test_what_it_is_short_of_is_told_once(hub: Recorder) -> None:
    hub.join("a")
    hub.join("b")
    rule = Rule(on=(0, 1, 2, 3, 4, 5, 6), from_minute=0, to_minute=10, timezone="UTC")
    periods = tuple(Period(hub.now_us + n * 60 * MINUTE, hub.now_us + (n * 60 + 10) * MINUTE) for n in range(1, 4))
    reserve(hub, 0, 0, count=2, rule=rule, periods=periods[:2])
    hub.feed(ev.NodeWished(3, "b", "remove", hub.now_us))
    hub.take_all()
    hub.feed(ev.ReservationRenewed("r", rule, periods))
    assert standings(hub.core.world)[0].short == ("b is gone, or without its features",)
    assert told(hub) == ["reservation_made", "reservation_short"]


def test_thousands_of_nodes_may_have_long_names(hub: Recorder) -> None:
    """Their names together are longer than any expression may be."""
    template = hub.node(hub.join("x" * 250))
    for number in range(2, 500):
        node = Node(NodeId(number), f"{number}" + "x" * 240, b"")
        node.state, node.total, node.free = template.state, template.total, template.free
        hub.core.world.nodes[node.id] = node
        hub.core.world.names[node.name] = node.id
    wish(hub, 10, 20, count=450)
    hub.decide()
    answer = hub.answer()
    assert answer is not None and answer["count"] == 450


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
