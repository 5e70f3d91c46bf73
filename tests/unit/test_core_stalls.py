"""Nodes that cannot begin a batch's jobs now: nothing is charged, others go on, and it is tried again by itself."""

from __future__ import annotations

from core_recorder import SECOND, Recorder, capacity
from lanai.core.batches import STUCK_US
from lanai.core.effects import StartAttempts
from lanai.core.events import JobsCancelled, NodeHeard
from lanai.core.stalls import LONGEST_US
from lanai.model.batch import Retries
from lanai.model.ids import NodeId
from lanai.model.records import SaveAttempts, SaveEvent

WHY = "/bin/sh: Resource temporarily unavailable"


def events(hub: Recorder) -> list[tuple[str, str, str]]:
    return [(one.kind, one.subject, one.text) for one in hub.take_kept(SaveEvent) if one.kind.startswith("batch")]


def starts(hub: Recorder) -> list[StartAttempts]:
    hub.decide()
    return hub.take(StartAttempts)


def test_nothing_is_charged_and_the_same_attempt_is_granted_again(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(3)
    (given,) = hub.start()
    hub.returned(node, 1, 1, 2, 3, why=WHY)
    assert starts(hub) == []
    assert hub.core.world.batches[batch].tries == {}
    assert hub.core.next_due_us() == hub.now_us + SECOND
    hub.wait(1)
    (again,) = starts(hub)
    assert (again.attempt, again.spans) == (given.attempt, given.spans)
    assert hub.take_kept(SaveAttempts) == []
    assert events(hub)[-1] == ("batch_stalled", str(batch), f"n cannot begin its jobs now: {WHY}")


def test_why_says_what_the_node_lacks_and_the_node_who_lacks_it(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(3)
    hub.start()
    hub.returned(node, 1, 1, 2, 3, why=WHY)
    hub.decide()
    why = hub.core.why(batch, None)
    assert why is not None
    assert why["code"] == "stalled"
    assert why["verdict"] == f"n cannot begin it now, and is tried again: {WHY}"
    standing = hub.core.standing(batch)
    assert standing is not None and standing.reason == why["verdict"]
    assert hub.core.nodes(hub.now_us)[0].stalled == [batch]
    hub.take_all()


def test_other_batches_have_the_node_meanwhile(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    ill = hub.submit(2)
    hub.start()
    well = hub.submit(4, user="bob")
    hub.returned(node, 1, 1, 2, why=WHY)
    assert [(one.batch, one.spans) for one in starts(hub)] == [(well, ((1, 2),))]
    hub.end(node, 2, 1)
    assert {one.batch for one in hub.take(StartAttempts)} == {well}
    hub.take_all()
    assert hub.counts(ill) == {"queued": 2}


def test_another_node_takes_them_at_once(hub: Recorder) -> None:
    ill, well = hub.join("ill", capacity(cpus=2)), hub.join("well", capacity(cpus=4))
    hub.submit(2)
    (given,) = hub.start()
    assert given.node == ill
    hub.returned(ill, 1, 1, 2, why=WHY)
    assert [one.node for one in starts(hub)] == [well]


def test_the_longer_it_lasts_the_seldomer_it_is_tried(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(2)
    hub.decide()
    waits_s = []
    for number in range(1, 9):
        assert len(hub.take(StartAttempts)) == 1
        hub.returned(node, number, 1, why=WHY)
        waits_s.append(next(second for second in range(40) if starts_after(hub, node, second)))
    assert waits_s == [1, 2, 4, 8, 16, 30, 30, 30]
    assert max(waits_s) * SECOND == LONGEST_US
    assert [kind for kind, *_ in events(hub) if kind == "batch_stalled"] == ["batch_stalled"]
    hub.end(node, 9, 1)
    assert events(hub)[-1] == ("batch_goes_on", str(batch), "n begins its jobs again")
    assert [one.spans for one in hub.take(StartAttempts)] == [((1, 1),), ((2, 2),)]
    hub.returned(node, 10, 2, why=WHY)
    assert hub.core.next_due_us() == hub.now_us + SECOND
    hub.take_all()


def starts_after(hub: Recorder, node: NodeId, second: int) -> bool:
    """A pass, a second after the last but for the first; whether it starts something, which stays to be taken."""
    if second:
        hub.wait(1)
        hub.feed(NodeHeard(node, "", hub.now_us, 0))
    hub.decide()
    return any(isinstance(effect, StartAttempts) for effect in hub.effects)


def test_a_batch_that_is_cancelled_meanwhile_ends(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(3)
    hub.start()
    hub.returned(node, 1, 1, 2, 3, why=WHY)
    hub.feed(JobsCancelled(1, batch, None, (), 0))
    assert batch not in hub.core.world.batches
    hub.wait(2)
    hub.take_all()
    assert hub.core.next_due_us() is None


def test_a_restart_tries_the_node_again(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4))
    hub.submit(3)
    hub.start()
    hub.returned(node, 1, 1, 2, 3, why=WHY)
    hub.restart()
    hub.join("n", capacity(cpus=4))
    assert len(starts(hub)) == 1


def test_what_a_node_says_of_grants_of_others_stalls_nobody(hub: Recorder) -> None:
    one, other = hub.join("one", capacity(cpus=2)), hub.join("other", capacity(cpus=4))
    batch = hub.submit(1)
    hub.start()
    hub.returned(other, 1, 1, why=WHY)
    hub.returned(other, 99, 1, why=WHY)
    assert hub.batch(batch).stalls == {}
    hub.end(one, 1, 1)
    hub.take_all()


def test_a_node_that_is_stuck_is_not_waited_for_by_those_that_another_failed(hub: Recorder) -> None:
    """One failed a job once, the other cannot begin it, for ever: it goes to the one again."""
    one, stuck = hub.join("one", capacity(cpus=2)), hub.join("stuck", capacity(cpus=4))
    batch = hub.submit(1)
    hub.start()
    hub.end(one, 1, 1, outcome="node")
    for number in range(2, 40):
        hub.decide()
        (given,) = hub.take(StartAttempts)
        if given.node == one:
            break
        hub.returned(stuck, number, 1, why=WHY)
        hub.decide()
        assert hub.core.world.nodes[one].is_open()
        next(second for second in range(40) if starts_after_all(hub, (one, stuck), second))
    assert given.node == one
    assert hub.batch(batch).is_stuck(stuck)
    hub.end(one, number, 1)
    hub.take_all()


def test_a_node_that_is_stuck_lifts_the_ban_of_the_last_other(hub: Recorder) -> None:
    """Three failures in a row kept the batch from one; the other cannot begin it."""
    sick, stuck = hub.join("sick", capacity(cpus=4)), hub.join("stuck", capacity(cpus=8))
    batch = hub.submit(4, retries=Retries(exit=9))
    hub.start()
    hub.end(sick, 1, 1, 2, 3, outcome="exit")
    assert hub.batch(batch).avoided == {sick}
    hub.end(sick, 1, 4)
    hub.batch(batch).stall_waits_us[stuck] = STUCK_US
    hub.take_all()
    hub.core.world.needs_pass = True
    hub.decide()
    assert hub.batch(batch).avoided == set()
    hub.take_all()


def starts_after_all(hub: Recorder, nodes: tuple[NodeId, ...], second: int) -> bool:
    """As `starts_after`, with all of these heard."""
    for node in nodes[1:]:
        hub.feed(NodeHeard(node, "", hub.now_us, 0))
    return starts_after(hub, nodes[0], second)
