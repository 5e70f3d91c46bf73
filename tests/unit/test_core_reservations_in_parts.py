"""Reservations over so many nodes that more than one call is needed, and what may happen between two of these.

Each call does the smallest part of the work here, so that a few nodes are many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from core_recorder import Recorder, capacity
from lanai.core import events as ev
from lanai.core import long_work
from lanai.core.effects import AcceptNode, Answer, RecallJobs, StartAttempts
from lanai.core.nodes import Node
from lanai.core.reserved import Live
from lanai.core.reserved_shown import of_node, standings
from lanai.core.schedule import future
from lanai.model.ids import BatchId
from lanai.model.records import SaveAudit, SaveMeta
from lanai.model.reservation import Period, Reservation, Rule
from reservation_scenes import BOSS, MINUTE, job, later, reserve, started, told, wish

PARTS_MOST = 200
BEFORE = range(16)
"""Before which part something happens; the work of three nodes has about so many."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    made.feed(ev.TimePassed(made.now_us))
    for name in ("a", "b", "c"):
        made.join(name)
    monkeypatch.setattr(long_work, "MOST", 1)
    return made


def parts(hub: Recorder) -> Iterator[int]:
    """Does the work that is left, one part in each turn; yields their numbers before them."""
    for number in range(PARTS_MOST):
        if not hub.core.world.work:
            return
        yield number
        hub.core.world.needs_pass = False
        hub.decide_once()
    raise AssertionError("it comes to no end")


def done(hub: Recorder, at: int = -1, happens: Callable[[], None] = lambda: None) -> list[Answer]:
    """The answers to what was wished; before part `at`, or after all, something happens."""
    for number in parts(hub):
        if number == at:
            happens()
            at = -1
    if at >= 0:
        happens()
        for _ in parts(hub):
            pass
    return hub.take(Answer)


def names(answer: Answer) -> object:
    assert answer.error is None and answer.result is not None
    return answer.result.get("nodes")


def reserved(hub: Recorder) -> dict[str, list[str]]:
    """Which reservations there are on each node, by what lies on it."""
    assert not hub.core.world.work
    return {
        node.name: [step.owner.made.name for step in node.steps if isinstance(step.owner, Live)]
        for node in hub.core.world.nodes.values()
    }


def nodes(hub: Recorder) -> list[Node]:
    return list(hub.core.world.nodes.values())


def test_it_takes_many_calls_and_a_pass_has_its_turn(hub: Recorder) -> None:
    other = hub.submit(1, user="bob", shape=job(1, 60))
    wish(hub, 10, 20)
    assert hub.core.needs_pass and hub.take(Answer) == []
    hub.core.world.needs_pass = True
    hub.decide_once()
    hub.decide_once()
    assert [start.batch for start in hub.take(StartAttempts)] == [other], "of two calls one is a pass"
    assert hub.take(Answer) == []
    assert [names(answer) for answer in done(hub)] == [["a", "b", "c"]]
    hub.decide()
    assert not hub.core.needs_pass


def test_passes_that_are_always_wanted_do_not_keep_it_from_being_done(hub: Recorder) -> None:
    wish(hub, 10, 20)
    for _ in range(PARTS_MOST):
        hub.core.world.needs_pass = True
        hub.decide_once()
    assert [names(answer) for answer in hub.take(Answer)] == [["a", "b", "c"]]


@pytest.mark.parametrize("is_change", [False, True])
def test_it_keeps_all_of_its_nodes_from_others_from_one_moment_on(hub: Recorder, is_change: bool) -> None:
    """A long job of somebody else finds room on every node, or, once it is answered, on none."""
    if is_change:
        wish(hub, 100, 110)
        done(hub)
    batch = hub.batch(hub.submit(1, user="bob", shape=job(1, 60)))
    (line,) = batch.lines.values()

    def is_kept(node: Node) -> bool:
        return not future.fits(hub.core.world, node, line, line.vector, 60 * MINUTE)

    wish(hub, 10, 20, is_change=is_change)
    for _ in parts(hub):
        is_answered = any(isinstance(effect, Answer) for effect in hub.effects)
        assert [is_kept(node) for node in nodes(hub)] == [is_answered] * 3
        assert [bool(of_node(hub.core.world, node)) for node in nodes(hub)] == [is_change or is_answered] * 3
    assert reserved(hub) == {"a": ["r"], "b": ["r"], "c": ["r"]}


def test_what_is_dropped_keeps_nothing_from_that_moment_on(hub: Recorder) -> None:
    wish(hub, 10, 20)
    done(hub)
    other = hub.submit(6, user="bob", shape=job(1, 60))
    assert started(hub) == []
    hub.feed(ev.ReservationDropped(8, "r", hub.now_us, BOSS))
    while not (answers := hub.take(Answer)):
        hub.decide_once()
    assert answers[0].error is None and any(node.steps for node in nodes(hub)), "they are taken away later"
    hub.core.world.needs_pass = True
    hub.decide_once()
    hub.decide_once()
    assert [start.batch for start in hub.take(StartAttempts)] == [other] * 3
    hub.decide()
    assert reserved(hub) == {"a": [], "b": [], "c": []}


@pytest.mark.parametrize("at", BEFORE)
def test_a_kill_between_leaves_all_of_it_or_nothing(hub: Recorder, at: int) -> None:
    wish(hub, 10, 20, name="old", nodes="a")
    done(hub)
    wish(hub, 10, 30, name="old", nodes="[a-b]", is_change=True)
    wish(hub, 10, 20, name="new", nodes="c")
    known: list[str] = []

    def kill() -> None:
        known.extend("changed" if "b" in str(answer.result) else "made" for answer in hub.take(Answer))
        hub.restart()

    done(hub, at, kill)
    found = reserved(hub)
    assert found["a"] == ["old"]
    assert found["b"] == (["old"] if "changed" in known else [])
    assert found["c"] == (["new"] if "made" in known else [])


@pytest.mark.parametrize("at", BEFORE)
def test_a_node_that_is_removed_is_made_up_for(hub: Recorder, at: int) -> None:
    """Two of three are asked for. One that goes before the answer is none of these; after it is missed."""
    answered: list[Answer] = []

    def remove() -> None:
        answered.extend(hub.take(Answer))
        hub.feed(ev.NodeWished(3, "a", "remove", hub.now_us))
        hub.take_all()

    wish(hub, 10, 20, count=2)
    answers = done(hub, at, remove) + answered
    (standing,) = standings(hub.core.world)
    if answered:
        assert names(answers[0]) == ["a", "b"] and standing.nodes == ["b"] and standing.short
    else:
        assert names(answers[0]) == ["b", "c"] == standing.nodes and not standing.short
    assert reserved(hub) == {"a": [], "b": ["r"], "c": [] if answered else ["r"]}
    assert told(hub) == (["reservation_made", "reservation_short"] if answered else ["reservation_made"])


@pytest.mark.parametrize("at", BEFORE)
def test_where_too_few_are_left_it_is_refused_and_nothing_is_left_of_it(hub: Recorder, at: int) -> None:
    answered: list[Answer] = []

    def remove() -> None:
        answered.extend(hub.take(Answer))
        hub.feed(ev.NodeWished(3, "b", "remove", hub.now_us))
        hub.take_all()

    wish(hub, 10, 20, count=3)
    answers = done(hub, at, remove)
    if answered:
        assert names(answered[0]) == ["a", "b", "c"]
    else:
        assert answers[0].error is not None and answers[0].error.code == "not_enough_nodes"
        assert reserved(hub) == {"a": [], "b": [], "c": []} and hub.core.world.reservations == {}
        assert told(hub) == [] and hub.core.world.coming is None


@pytest.mark.parametrize("at", BEFORE)
def test_a_node_that_comes_back_is_still_its_own(hub: Recorder, at: int) -> None:
    """Its agent has lost the connection and joins again while all three are being reserved."""

    def rejoin() -> None:
        node = hub.core.world.names["b"]
        hub.feed(ev.NodeDisconnected(node, 2))
        hub.hello("b")
        hub.feed(ev.NodeTookStock(node, []))
        hub.take(AcceptNode)

    wish(hub, 10, 20, count=3)
    done(hub, at, rejoin)
    assert reserved(hub) == {"a": ["r"], "b": ["r"], "c": ["r"]}
    assert standings(hub.core.world)[0].short == ()


@pytest.mark.parametrize("at", BEFORE)
def test_a_node_that_comes_belongs_to_it_by_its_name(hub: Recorder, at: int) -> None:
    def join() -> None:
        hub.hello("d", capacity(cpus=8))

    wish(hub, 10, 20)
    done(hub, at, join)
    assert reserved(hub) == {"a": ["r"], "b": ["r"], "c": ["r"], "d": ["r"]}
    assert standings(hub.core.world)[0].short == ()


@pytest.mark.parametrize("at", BEFORE)
def test_wishes_are_answered_in_their_order(hub: Recorder, at: int) -> None:
    """Made, changed, refused because of that, dropped, made anew: each sees what came of the one before."""

    def hurry() -> None:
        wish(hub, 10, 30, is_change=True)
        wish(hub, 25, 40, name="other", nodes="b")
        hub.feed(ev.ReservationDropped(7, "r", hub.now_us, BOSS))
        wish(hub, 25, 40, name="other", nodes="b")

    wish(hub, 10, 20)
    codes = [answer.error.code if answer.error else "" for answer in done(hub, at, hurry)]
    assert codes == ["", "", "already_reserved", "", ""]
    assert reserved(hub) == {"a": [], "b": ["other"], "c": []}
    assert told(hub) == ["reservation_made", "reservation_changed", "reservation_dropped", "reservation_made"]
    rows = [(row.subject, row.is_refused, row.after.get("nodes", 0)) for row in hub.take_kept(SaveAudit)]
    r, other = "reservation r", "reservation other"
    assert rows == [(r, False, 3), (r, False, 3), (other, True, 0), (r, False, 0), (other, False, 1)]


def test_a_wish_is_kept_audited_and_answered_in_one_call(hub: Recorder) -> None:
    wish(hub, 10, 20)
    hub.records.clear()
    for _ in parts(hub):
        kept = [type(record) for record in hub.records if isinstance(record, (SaveMeta, SaveAudit))]
        assert kept == ([SaveMeta, SaveAudit] if hub.effects else [])
    assert [type(effect) for effect in hub.take_all()] == [Answer]


@pytest.mark.parametrize("at", BEFORE)
def test_jobs_end_and_start_meanwhile(hub: Recorder, at: int) -> None:
    """What starts before it is made may run into it; nothing that starts afterwards does."""
    first = hub.submit(6, user="bob", shape=job(1, 60))
    assert set(started(hub)) == {first}
    second = hub.submit(6, user="bob", shape=job(1, 60))
    before: list[bool] = []

    def turn_over() -> None:
        before.append(not hub.core.world.reservations)
        for number, node in enumerate(nodes(hub), 1):
            hub.end(node.id, number, *sorted(hub.core.world.grants[next(iter(node.grants))].members))
        hub.core.world.needs_pass = True
        hub.decide_once()
        if hub.core.world.work:
            hub.decide_once()

    wish(hub, 10, 20)
    done(hub, at, turn_over)
    if not before[0]:
        hub.decide()
        assert hub.take(StartAttempts) == [] and hub.batch(second).waiting == 6
    assert reserved(hub) == {"a": ["r"], "b": ["r"], "c": ["r"]}


@pytest.mark.parametrize("at", BEFORE)
def test_what_is_over_while_it_is_changed_is_what_it_is_changed_to(hub: Recorder, at: int) -> None:
    """The hour ends while it is made longer: that is looked at once it is longer."""
    wish(hub, 10, 20)
    done(hub)
    later(hub, 15)
    done(hub)
    begin_us = hub.core.world.reservations["r"].made.periods[0].begin_us
    wish(hub, 0, 0, periods=(Period(begin_us, hub.now_us + 60 * MINUTE),), is_change=True)

    def pass_time() -> None:
        hub.now_us += 6 * MINUTE
        hub.feed(*(ev.NodeHeard(node.id, "", hub.now_us) for node in nodes(hub)), ev.TimePassed(hub.now_us))
        due_us = hub.core.next_due_us()
        assert due_us is None or due_us > hub.now_us, "nobody calls again and again for what waits its turn"

    assert [answer.error for answer in done(hub, at, pass_time)] == [None]
    assert reserved(hub) == {"a": ["r"], "b": ["r"], "c": ["r"]}
    assert told(hub) == ["reservation_made", "reservation_begun", "reservation_changed"]


@pytest.mark.parametrize("at", BEFORE)
def test_the_clock_is_set_while_one_is_made(hub: Recorder, at: int) -> None:
    wish(hub, 10, 20, name="one", nodes="[a-b]")
    done(hub)
    begin_us = hub.now_us + 10 * MINUTE

    def set_clock() -> None:
        for seconds in (300, 301, 302):
            hub.now_us += 1_000_000
            hub.feed(ev.TimePassed(hub.now_us + seconds * 1_000_000))
        hub.core.check()

    wish(hub, 10, 20, name="two", nodes="c")
    done(hub, at, set_clock)
    assert {node.until_us for node in nodes(hub)} <= {begin_us - 302_000_000, begin_us - 301_000_000}
    assert reserved(hub) == {"a": ["one"], "b": ["one"], "c": ["two"]}


@pytest.mark.parametrize("at", BEFORE)
def test_a_standing_one_is_renewed_and_dropped_meanwhile(hub: Recorder, at: int) -> None:
    rule = Rule(on=(0, 1, 2, 3, 4, 5, 6), from_minute=0, to_minute=10, timezone="UTC")
    periods = tuple(Period(hub.now_us + n * 60 * MINUTE, hub.now_us + (n * 60 + 10) * MINUTE) for n in range(1, 5))
    hub.feed(ev.ReservationWished(7, Reservation(name="r", nodes="*", rule=rule, periods=periods[:3]), False, 0))
    done(hub)
    hub.feed(ev.ReservationRenewed("r", rule, periods))
    done(hub, at, lambda: hub.feed(ev.ReservationDropped(7, "r", hub.now_us)))
    assert reserved(hub) == {"a": [], "b": [], "c": []}
    hub.feed(ev.ReservationRenewed("r", rule, periods))
    done(hub)
    assert hub.core.world.reservations == {}


def test_what_waits_at_nodes_is_asked_back_from_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Recorder()
    hub.feed(ev.TimePassed(hub.now_us))
    ids = [hub.join(name, capacity(cpus=1)) for name in ("a", "b")]
    hub.submit(900, user="bob")
    hub.start()
    for number, node in enumerate(ids, 1):
        hub.end(node, number, min(hub.core.world.grants[next(iter(hub.node(node).grants))].members), wall_us=10_000)
    hub.take_all()
    assert all(hub.node(node).surplus_count for node in ids)
    monkeypatch.setattr(long_work, "MOST", 1)
    wish(hub, 0.5, 20)
    done(hub)
    assert [recall.node for recall in hub.take(RecallJobs)] == ids


def test_a_few_nodes_are_done_at_once() -> None:
    hub = Recorder()
    hub.join("n")
    assert reserve(hub, 10, 20) == ["n"]
    hub.feed(ev.ReservationDropped(8, "r", hub.now_us, BOSS))
    hub.answer()
    assert not hub.core.world.work and hub.node(hub.core.world.names["n"]).steps == []
    assert started(hub) == [] and BatchId(1) not in hub.core.world.batches
