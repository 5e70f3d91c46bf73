"""Nodes come, take stock, fall silent, go."""

import pytest

from core_recorder import SECOND, Recorder, capacity, grant
from lanai.core import fleet
from lanai.core.effects import (
    AcceptNode,
    Answer,
    BatchMoved,
    DismissNode,
    DrainNode,
    ForgetResults,
    KillAttempts,
    RecallJobs,
    RejectNode,
    StartAttempts,
)
from lanai.core.events import JobsCancelled, JobsHeld, NodeDisconnected, NodeHeard, NodeTookStock, NodeWished
from lanai.model.ids import BatchId, Index, NodeId
from lanai.model.node import NodeState
from lanai.model.records import SaveEvent
from lanai.model.resources import Shape


def wish(hub: Recorder, name: str, what: str) -> None:
    hub.feed(NodeWished(1, name, what, hub.now_us))


def test_a_new_agent_is_welcomed_and_gets_nothing_before_it_has_taken_stock(hub: Recorder) -> None:
    hub.submit(1)
    connection = hub.hello("n")
    node = hub.core.world.names["n"]
    assert hub.take_all() == [AcceptNode(connection, node)]
    assert hub.start() == []
    hub.feed(NodeTookStock(node, []))
    assert hub.take_all() == [DrainNode(node, is_draining=False)]
    assert len(hub.start()) == 1


def test_a_second_agent_of_that_name_with_another_key_is_turned_away(hub: Recorder) -> None:
    hub.join("n")
    connection = hub.hello("n", key=b"another")
    (rejected,) = hub.take_all()
    assert isinstance(rejected, RejectNode)
    assert (rejected.connection, rejected.error.code) == (connection, "name_taken")


def test_a_removed_name_may_be_taken_by_another(hub: Recorder) -> None:
    node = hub.join("n")
    wish(hub, "n", "remove")
    assert [type(effect) for effect in hub.take_all()] == [DismissNode, Answer]
    connection = hub.hello("n", key=b"another")
    assert hub.take_all() == [AcceptNode(connection, node)]


def test_the_same_agent_on_a_new_connection_ends_the_old_one(hub: Recorder) -> None:
    """Its host changed networks: the hub has not noticed yet that the old connection is dead."""
    node = hub.join("n")
    hub.wait(6)
    connection = hub.hello("n")
    assert hub.take_all() == [DismissNode(node), AcceptNode(connection, node)]


@pytest.mark.parametrize("boot", ["boot", "another"])
def test_a_second_agent_with_the_key_of_one_that_lives_is_turned_away(hub: Recorder, boot: str) -> None:
    """A copied directory, or a recorded Hello: both would be given the same jobs, or one take them from the other."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    hub.wait(5)
    connection = hub.hello("n", boot=boot)
    (rejected,) = hub.take_all()
    assert isinstance(rejected, RejectNode)
    assert (rejected.connection, rejected.error.code) == (connection, "name_in_use")
    hub.feed(NodeHeard(node, "", hub.now_us))
    hub.wait(5)
    hub.hello("n", boot=boot)
    assert isinstance(hub.take_all()[0], RejectNode)
    assert hub.counts(batch) == {"locked": 1}


def test_the_end_of_an_old_connection_does_not_touch_the_new_one(hub: Recorder) -> None:
    """Reordering: the loss of the first connection is noticed after the second has been made."""
    node = hub.join("n")
    old = hub.node(node).connection
    hub.wait(6)
    hub.join("n", take=False)
    hub.take_all()
    hub.feed(NodeDisconnected(node, old))
    assert hub.node(node).is_open()


def test_an_inventory_from_a_connection_given_up_changes_nothing(hub: Recorder) -> None:
    """Inventory was under way when the lease ran out; a node that is away must not count as in step."""
    hub.hello("n")
    node = hub.core.world.names["n"]
    hub.wait(70)
    hub.feed(NodeTookStock(node, []))
    assert not hub.node(node).is_in_step
    assert [type(effect) for effect in hub.take_all()] == [AcceptNode, DismissNode]


def test_after_a_short_cut_nothing_runs_twice_and_what_was_lost_is_sent_again(hub: Recorder) -> None:
    """The Grant was cut off on its way: two jobs the agent never heard of, one runs, one has ended."""
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(4)
    hub.start()
    hub.feed(NodeDisconnected(node, hub.node(node).connection))
    hub.hello("n", capacity(cpus=4))
    hub.take_all()
    hub.feed(NodeTookStock(node, [(grant(1), 1, "running"), (grant(1), 2, "ended")]))
    assert hub.take_all() == [DrainNode(node, is_draining=False), StartAttempts(node, grant(1), batch, 0, 1, ((3, 4),))]
    assert hub.counts(batch) == {"locked": 3, "running": 1}


def test_attempts_that_are_no_longer_its_own_are_killed_at_once(hub: Recorder) -> None:
    """A frozen host thaws after its lease: it still runs what others have been given. What has ended is not killed."""
    node = hub.join("n", capacity(cpus=2))
    hub.submit(2)
    hub.start()
    hub.wait(70)
    assert hub.take_all() == [DismissNode(node)]
    hub.hello("n", capacity(cpus=2))
    hub.take_all()
    hub.feed(NodeTookStock(node, [(grant(1), 1, "running"), (grant(1), 2, "ended")]))
    kill = KillAttempts(node, [(grant(1), 1)], 0, "no longer granted to this node")
    assert hub.take_all() == [kill, DrainNode(node, is_draining=False)]


def test_a_cancel_that_was_cut_off_is_said_again(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.feed(NodeDisconnected(node, hub.node(node).connection))
    hub.feed(JobsCancelled(1, batch, ((1, 1),), (), 0))
    assert hub.take_all() == [Answer(1, {"changed": 1, "at_nodes": 1})]
    hub.hello("n", capacity(cpus=2))
    hub.take_all()
    hub.feed(NodeTookStock(node, [(grant(1), 1, "running"), (grant(1), 2, "running")]))
    kill = KillAttempts(node, [(grant(1), 1)], 10_000_000, "cancelled")
    assert hub.take_all() == [DrainNode(node, is_draining=False), kill]


def test_a_host_that_was_booted_again_has_lost_everything_at_once(hub: Recorder) -> None:
    """No lease is waited for: a new boot id proves the old attempts dead."""
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.wait(6)
    hub.join("n", capacity(cpus=2), boot="another", take=False)
    hub.take_all()
    assert hub.counts(batch) == {"queued": 2}
    assert [(start.node, start.attempt) for start in hub.start()] == [(node, 2)]


def test_a_node_that_came_back_smaller_is_not_overbooked(hub: Recorder) -> None:
    """Half of its cpus were taken away while four jobs ran: two of them are surplus now, and nothing new comes."""
    node = hub.join("n", capacity(cpus=4))
    hub.submit(9)
    hub.start()
    hub.wait(6)
    hub.hello("n", capacity(cpus=2))
    hub.feed(NodeTookStock(node, [(grant(1), index, "running") for index in range(1, 5)]))
    hub.take_all()
    assert (sum(hub.node(node).active.values()), hub.node(node).surplus_count) == (2, 2)
    assert hub.start() == []


def test_silence_then_gone_then_back(hub: Recorder) -> None:
    """15 s without a word: nothing new. The lease and its slack: the attempts are void. Back: useful at once."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(2)
    hub.start()
    hub.wait(15)
    assert hub.node(node).state is NodeState.UP
    hub.wait(1)
    assert hub.node(node).state is NodeState.SILENT
    hub.wait(50)
    assert (hub.node(node).state, hub.counts(batch)) == (NodeState.SILENT, {"queued": 1, "locked": 1})
    hub.wait(1)
    assert (hub.node(node).state, hub.counts(batch)) == (NodeState.AWAY, {"queued": 2})
    assert hub.take_all() == [DismissNode(node)]
    hub.join("n", capacity(cpus=1))
    assert [start.attempt for start in hub.start()] == [2]
    kinds = [event.kind for event in hub.take_kept(SaveEvent)]
    assert kinds == ["node_joined", "node_silent", "node_away", "attempts_lost"]


def test_a_silent_node_that_is_heard_again_has_lost_nothing(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    hub.wait(40)
    hub.feed(NodeHeard(node, "", hub.now_us))
    assert hub.node(node).is_open()
    assert hub.counts(batch) == {"locked": 1}


def test_a_clock_set_back_an_hour_changes_nothing(hub: Recorder) -> None:
    """Leases run by CLOCK_BOOTTIME; wall times are only written down."""
    node = hub.join("n", capacity(cpus=1))
    hub.submit(1)
    hub.start()
    hub.now_us += SECOND
    hub.feed(NodeHeard(node, "", hub.now_us - 3600 * SECOND))
    assert hub.node(node).is_open()


def test_a_node_in_trouble_gets_nothing_new(hub: Recorder) -> None:
    node = hub.join("n")
    hub.submit(1)
    hub.feed(NodeHeard(node, "disk full", hub.now_us))
    assert hub.start() == []
    hub.feed(NodeHeard(node, "", hub.now_us))
    assert [start.node for start in hub.start()] == [node]
    kinds = [(event.kind, event.text) for event in hub.take_kept(SaveEvent)]
    assert kinds[1:] == [("node_trouble", "disk full"), ("node_trouble", "over")]


def test_drain_asks_back_what_has_not_begun_and_lasts_over_a_restart(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    hub.submit(2)
    hub.start()
    wish(hub, "n", "drain")
    drain, recall, answer = hub.take_all()
    assert drain == DrainNode(node, is_draining=True)
    assert recall == RecallJobs(node, [(grant(1), 1, 2)])
    assert answer == Answer(1, {"node": "n", "state": "up", "is_drained": True})
    hub.restart()
    hub.hello("n", capacity(cpus=2))
    hub.feed(NodeTookStock(node, [(grant(1), 1, "running"), (grant(1), 2, "running")]))
    assert hub.take_all()[1:] == [DrainNode(node, is_draining=True)]
    wish(hub, "n", "resume")
    assert hub.take_all()[0] == DrainNode(node, is_draining=False)


def test_a_node_resumed_while_away_is_told_before_it_is_granted_anything(hub: Recorder) -> None:
    node = away_with_two_attempts(hub)
    wish(hub, "n", "drain")
    wish(hub, "n", "resume")
    hub.take_all()
    hub.hello("n")
    hub.feed(NodeTookStock(node, []))
    assert [type(effect) for effect in hub.take_all()] == [AcceptNode, DrainNode, StartAttempts]


def test_a_busy_node_is_not_removed(hub: Recorder) -> None:
    hub.join("n")
    hub.submit(1)
    hub.start()
    wish(hub, "n", "remove")
    assert hub.refusal() == "node_busy"


def test_wishes_about_nodes_that_are_not_there(hub: Recorder) -> None:
    wish(hub, "nobody", "drain")
    assert hub.refusal() == "no_such_node"
    hub.join("n")
    wish(hub, "n", "remove")
    hub.take_all()
    wish(hub, "n", "drain")
    assert hub.refusal() == "no_such_node"


def test_words_from_a_node_nobody_knows_are_not_heard(hub: Recorder) -> None:
    hub.feed(NodeHeard(99, "", 0), NodeTookStock(99, []))
    assert hub.take_all() == []


def test_results_are_forgotten_only_up_to_what_was_told(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=3))
    hub.submit(9, max_running=3)
    hub.start()
    hub.end(node, 1, 1, wall_us=10**9)
    hub.end(node, 1, 2, wall_us=10**9)
    assert hub.take(ForgetResults) == [ForgetResults(node, 1), ForgetResults(node, 2)]
    hub.take_all()


def test_jobs_that_were_to_be_held_while_the_node_could_not_hear_are_asked_back_when_it_is_back(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.feed(NodeDisconnected(node, 1))
    hub.feed(JobsHeld(1, batch, None, 0))
    hub.hello("n", capacity(cpus=2))
    hub.take_all()
    hub.feed(NodeTookStock(node, [(grant(1), 1, "running"), (grant(1), 2, "waiting")]))
    assert hub.take_all() == [DrainNode(node, is_draining=False), RecallJobs(node, [(grant(1), 2, 2)])]


def away_with_two_attempts(hub: Recorder) -> NodeId:
    """A node whose connection is gone before its grant of jobs 1 and 2 has reached it."""
    node = hub.join("n", capacity(cpus=2))
    hub.submit(4)
    hub.start()
    hub.feed(NodeDisconnected(node, 1))
    hub.take_all()
    return node


def test_what_was_cancelled_while_the_node_was_away_is_not_sent_again(hub: Recorder) -> None:
    """It was sent once more, and short jobs had run before the kill that followed."""
    node = away_with_two_attempts(hub)
    hub.feed(JobsCancelled(5, BatchId(1), None, (), hub.now_us))
    hub.take_all()
    hub.hello("n")
    hub.feed(NodeTookStock(node, []))
    assert [type(effect) for effect in hub.take_all()] == [AcceptNode, DrainNode, BatchMoved]
    assert hub.counts(BatchId(1)) == {"cancelled": 4}


def test_what_was_held_while_the_node_was_away_is_held(hub: Recorder) -> None:
    node = away_with_two_attempts(hub)
    hub.feed(JobsHeld(5, BatchId(1), None, hub.now_us))
    hub.take_all()
    hub.hello("n")
    hub.feed(NodeTookStock(node, []))
    assert [type(effect) for effect in hub.take_all()] == [AcceptNode, DrainNode]
    assert hub.counts(BatchId(1)) == {"held": 4}


def test_a_node_drained_while_away_begins_nothing_when_it_is_back(hub: Recorder) -> None:
    node = away_with_two_attempts(hub)
    wish(hub, "n", "drain")
    hub.take_all()
    hub.hello("n")
    hub.feed(NodeTookStock(node, []))
    assert [type(effect) for effect in hub.take_all()] == [AcceptNode, DrainNode]
    assert hub.counts(BatchId(1)) == {"queued": 4}


def test_why_knows_at_once_that_the_node_is_gone(hub: Recorder) -> None:
    """No pass was asked for: for a minute the jobs seemed to wait for room on it."""
    away_with_two_attempts(hub)
    hub.decide()
    found = hub.core.why(BatchId(1), Index(4))
    assert found is not None
    assert found["code"] == "no_open_node", found


def test_nodes_offer_resources_of_so_many_names_together(hub: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "RESOURCES_MOST", 2)
    hub.join("a", capacity(licence=1))
    hub.join("b", capacity(licence=1, scanner=1))
    hub.hello("c", capacity(tape=1))
    (rejected,) = hub.take_all()
    assert isinstance(rejected, RejectNode) and rejected.error.code == "too_many_resources"
    hub.join("c", capacity(scanner=1))


def test_a_node_that_offers_more_than_it_did_gets_what_waits_for_that(hub: Recorder) -> None:
    """Whether a request can be held is found out when it comes, and again when there is something new to hold it."""
    hub.join("n", capacity(2))
    hub.submit(1, shapes=((1, Shape(named=(("licence", 1),))),))
    assert hub.start() == []
    hub.wait(6)
    hub.hello("n", capacity(2, licence=1))
    node = hub.core.world.names["n"]
    hub.feed(NodeTookStock(node, []))
    hub.take_all()
    assert [type(effect) for effect in hub.start()] == [StartAttempts]
