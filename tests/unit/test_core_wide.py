"""Jobs over several nodes in the core: claimed together, freed together, ended everywhere when one node is lost."""

from __future__ import annotations

import pytest

from core_recorder import LEASE_US, SECOND, Recorder, capacity, grant
from lanai.core.effects import (
    AcceptNode,
    Answer,
    ClaimRoom,
    DismissNode,
    DrainNode,
    ForgetResults,
    KillAttempts,
    RecallJobs,
    StartAttempts,
    UnclaimRoom,
)
from lanai.core.events import (
    AttemptsEnded,
    JobsCancelled,
    JobsHeld,
    NodeDisconnected,
    NodeHeard,
    NodeJoined,
    NodeTookStock,
    NodeWished,
    RoomClaimed,
    TimePassed,
)
from lanai.model.ids import Index, NodeId
from lanai.model.job import AttemptResult
from lanai.model.records import DropGrant, SaveGrant
from lanai.model.resources import Shape

WIDE = Shape(nodes=3)


@pytest.fixture
def three(hub: Recorder) -> Recorder:
    """A hub with three nodes of two cpus: a, b and c, numbered from 1."""
    for name in "abc":
        hub.join(name)
    return hub


def give(hub: Recorder, jobs: int = 1, **settings: object) -> int:
    """A batch of jobs over three nodes, the first of which has been sent."""
    batch = hub.submit(jobs, shape=WIDE, **settings)
    hub.decide()
    for claim in hub.take(ClaimRoom):
        hub.feed(RoomClaimed(claim.node, [claim.grant]))
    assert hub.take(StartAttempts)
    hub.take_all()
    return batch


def frees(hub: Recorder) -> list[int]:
    """Cpus free on each node."""
    return [(node.free & (1 << 44) - 1) // 1000 for node in hub.core.world.nodes.values()]


def boot_again(hub: Recorder, name: str) -> None:
    node = hub.node(hub.core.world.names[name])
    hub.feed(NodeDisconnected(node.id, node.connection))
    hub.hello(name, boot="another")


def test_the_room_is_claimed_on_all_nodes_before_the_command_is_sent(three: Recorder) -> None:
    batch = three.submit(1, shape=WIDE)
    three.decide()
    assert three.take_all() == [ClaimRoom(NodeId(2), grant(1), WIDE), ClaimRoom(NodeId(3), grant(1), WIDE)]
    assert three.take_kept(SaveGrant) == [SaveGrant(grant(1), NodeId(1), batch, 1, ((1, 1),), (2, 3))]
    assert frees(three) == [1, 1, 1]
    three.feed(RoomClaimed(NodeId(3), [grant(1)]), RoomClaimed(NodeId(3), [grant(1)]))
    assert three.take_all() == []
    three.feed(RoomClaimed(NodeId(2), [grant(1)]))
    assert three.take_all() == [StartAttempts(NodeId(1), grant(1), batch, 0, 1, ((1, 1),), True, (2, 3))]
    three.feed(RoomClaimed(NodeId(2), [grant(1)]))
    assert three.take_all() == []
    assert three.counts(batch) == {"locked": 1}
    assert three.core.in_flight(batch, 1, 1) == [(1, 1, "a", grant(1), 0, ["b", "c"])]
    assert [node.claims for node in three.core.nodes(three.now_us)] == [[], ["1/1"], ["1/1"]]


def test_the_room_is_freed_on_all_nodes_when_the_attempt_ends(three: Recorder) -> None:
    batch = give(three)
    three.end(NodeId(1), 1, 1)
    assert [type(one) for one in three.take_all()][:3] == [UnclaimRoom, UnclaimRoom, ForgetResults]
    assert three.take_kept(DropGrant) == [DropGrant(grant(1))]
    assert frees(three) == [2, 2, 2]
    assert three.counts(batch) == {"done": 1}


def test_as_many_run_at_once_as_have_room_on_enough_nodes(three: Recorder) -> None:
    three.join("d", capacity(cpus=1))
    batch = three.submit(5, shape=WIDE)
    three.decide()
    # The smallest nodes first: of seven cpus on four nodes two threes can be had, the last cpu of c stays.
    claims = [(claim.node, claim.grant) for claim in three.take(ClaimRoom)]
    assert claims == [(2, grant(1)), (4, grant(1)), (2, grant(2)), (3, grant(2))]
    assert frees(three) == [0, 0, 1, 0]
    assert three.counts(batch) == {"queued": 3, "locked": 2}
    assert three.core.why(batch, Index(3))["verdict"] == (
        "needs 3 nodes with 1 cpu; of 4 that could take it, 1 have room now"
    )
    three.take_all()


def test_an_end_elsewhere_starts_no_job_over_several_nodes_between_passes(three: Recorder) -> None:
    """The fast path looks at one node only."""
    narrow = three.submit(6)
    three.start()
    wide = three.submit(1, shape=WIDE)
    three.decide()
    three.take_all()
    first = next(iter(three.core.world.grants.values()))
    three.feed(AttemptsEnded(NodeId(1), 1, [AttemptResult(first.id, min(first.members), "ok")], three.now_us))
    assert three.take(StartAttempts) == three.take(ClaimRoom) == []
    assert three.counts(wide) == {"queued": 1}
    assert three.counts(narrow) == {"locked": 5, "done": 1}
    three.take_all()


@pytest.mark.parametrize("how", ["lease", "boot", "removal"])
def test_a_lost_node_ends_the_attempt_everywhere(three: Recorder, how: str) -> None:
    """It is tried again only when the first node says that it has ended: until then it may run."""
    batch = give(three)
    three.feed(NodeHeard(NodeId(1), "", three.now_us))
    if how == "boot":
        boot_again(three, "b")
    elif how == "lease":
        for _ in range(LEASE_US // SECOND + 10):
            three.now_us += SECOND
            three.feed(
                NodeHeard(NodeId(1), "", three.now_us),
                NodeHeard(NodeId(3), "", three.now_us),
                TimePassed(three.now_us),
            )
    else:
        three.feed(NodeDisconnected(NodeId(2), 2))
        three.core.world.suspended.add(NodeId(2))
        three.feed(NodeWished(1, "b", "remove", three.now_us))
    (kill,) = three.take(KillAttempts)
    assert (kill.node, kill.items) == (1, [(grant(1), 1)])
    assert three.take(StartAttempts) == three.take(ClaimRoom) == []
    assert three.counts(batch) == {"locked": 1}
    three.take_all()
    three.end(NodeId(1), 1, 1, outcome="cancelled")
    assert {one.node for one in three.take(UnclaimRoom)} == {2, 3}
    assert three.counts(batch) == {"queued": 1}
    (row,) = three.store.kept.attempts.values()
    assert row[7] == "lost" and "(b)" in row[16]
    assert three.batch(batch).tries[Index(1)].charges == {"lost": 1}
    assert frees(three)[0] == frees(three)[2] == 2
    three.take_all()


def test_an_attempt_that_ended_well_before_it_was_told_to_is_done(three: Recorder) -> None:
    batch = give(three)
    boot_again(three, "c")
    assert three.take(KillAttempts)
    three.end(NodeId(1), 1, 1)
    assert three.counts(batch) == {"done": 1}
    three.take_all()


def test_the_first_node_is_told_again_when_it_could_not_hear(three: Recorder) -> None:
    """It loses its connection, and a further node is booted again meanwhile."""
    batch = give(three)
    three.feed(NodeDisconnected(NodeId(1), 1))
    boot_again(three, "b")
    assert three.take(KillAttempts) == []
    three.restart()  # and the hub is killed too
    three.hello("a")
    three.take_all()
    three.feed(NodeTookStock(NodeId(1), [(grant(1), Index(1), "running")]))
    (kill,) = three.take(KillAttempts)
    assert kill.items == [(grant(1), 1)] and "booted again" in kill.why
    three.end(NodeId(1), 1, 1, outcome="cancelled")
    assert three.counts(batch) == {"queued": 1}
    three.take_all()


def test_a_lost_first_node_frees_the_others(three: Recorder) -> None:
    batch = give(three)
    boot_again(three, "a")
    assert [one.node for one in three.take(UnclaimRoom)] == [2, 3]
    assert three.counts(batch) == {"queued": 1}
    assert frees(three) == [2, 2, 2]
    three.take_all()


def test_a_node_lost_before_the_command_was_sent_costs_nothing(three: Recorder) -> None:
    batch = three.submit(1, shape=WIDE)
    three.decide()
    three.take_all()
    boot_again(three, "b")
    assert three.take(StartAttempts) == three.take(KillAttempts) == []
    assert [one.node for one in three.take(UnclaimRoom)] == [2, 3]
    assert three.counts(batch) == {"queued": 1} and not three.batch(batch).tries
    three.take_all()


def test_a_node_that_makes_no_room_in_time_is_left_alone_for_a_while(three: Recorder) -> None:
    three.join("d")
    batch = three.submit(1, shape=WIDE)
    three.decide()
    three.take_all()
    three.feed(RoomClaimed(NodeId(2), [grant(1)]))
    three.wait(10)
    assert [one.node for one in three.take(UnclaimRoom)] == [2, 3]
    assert three.counts(batch) == {"queued": 1} and not three.batch(batch).tries
    assert list(three.batch(batch).stalls) == [3]
    three.decide()
    assert [one.node for one in three.take(ClaimRoom)] == [2, 4]
    three.feed(RoomClaimed(NodeId(2), [grant(2)]), RoomClaimed(NodeId(4), [grant(2)]))
    assert three.take(StartAttempts)
    three.take_all()


def test_what_is_asked_back_before_it_was_sent_is_not_sent(three: Recorder) -> None:
    """Its Claimed comes after the recall has left: the grant would overtake the answer to that, and run twice."""
    batch = three.submit(1, shape=WIDE)
    three.decide()
    three.take_all()
    three.feed(JobsHeld(1, batch, None, three.now_us))
    assert [type(one) for one in three.take_all()] == [RecallJobs, Answer]
    three.feed(RoomClaimed(NodeId(2), [grant(1)]), RoomClaimed(NodeId(3), [grant(1)]))
    assert three.take_all() == []
    three.returned(NodeId(1), 1, 1)
    assert [one.node for one in three.take(UnclaimRoom)] == [2, 3]
    assert three.counts(batch) == {"held": 1} and frees(three) == [2, 2, 2]


def test_what_was_asked_back_and_never_answered_comes_back_in_time(three: Recorder) -> None:
    batch = three.submit(1, shape=WIDE)
    three.decide()
    three.take_all()
    three.feed(JobsHeld(1, batch, None, three.now_us))
    three.feed(RoomClaimed(NodeId(2), [grant(1)]), RoomClaimed(NodeId(3), [grant(1)]))
    three.wait(10)
    assert three.counts(batch) == {"held": 1} and not three.batch(batch).stalls
    three.returned(NodeId(1), 1, 1)
    assert three.counts(batch) == {"held": 1}
    three.take_all()


def test_cancel_before_and_after_it_was_sent(three: Recorder) -> None:
    batch = three.submit(2, shape=WIDE)
    three.decide()
    first, *_, last = three.take(ClaimRoom)
    three.feed(RoomClaimed(NodeId(2), [first.grant]), RoomClaimed(NodeId(3), [first.grant]))
    assert len(three.take(StartAttempts)) == 1
    three.feed(JobsCancelled(1, batch, None, (), three.now_us))
    (kill,) = three.take(KillAttempts)
    assert kill.items == [(grant(1), 1), (grant(2), 2)]
    three.take_all()
    three.feed(RoomClaimed(NodeId(2), [last.grant]), RoomClaimed(NodeId(3), [last.grant]))
    assert three.take(StartAttempts) == []
    three.returned(NodeId(1), 2, 2)
    three.end(NodeId(1), 1, 1, outcome="cancelled")
    assert three.counts(batch) == {"cancelled": 2} and frees(three) == [2, 2, 2]
    three.take_all()


def test_a_drained_node_lets_what_was_sent_go_on(three: Recorder) -> None:
    batch = give(three)
    three.feed(NodeWished(1, "b", "drain", three.now_us))
    assert [type(one) for one in three.take_all()] == [DrainNode, Answer]
    assert three.counts(batch) == {"locked": 1}
    three.feed(NodeWished(1, "b", "remove", three.now_us))
    assert three.refusal() == "node_busy"
    three.end(NodeId(1), 1, 1)
    assert three.counts(batch) == {"done": 1}
    three.take_all()


def test_a_drained_node_gives_back_what_waits_for_its_room(three: Recorder) -> None:
    batch = three.submit(1, shape=WIDE)
    three.decide()
    three.take_all()
    three.feed(NodeWished(1, "b", "drain", three.now_us))
    assert [one.node for one in three.take(UnclaimRoom)] == [2, 3]
    assert three.counts(batch) == {"queued": 1}
    three.decide()
    assert "1 of 3 nodes that are large enough are drained" in str(three.core.why(batch, Index(1))["verdict"])
    three.take_all()


def test_a_hub_that_starts_again_adopts_claims(three: Recorder) -> None:
    batch = give(three)
    three.restart()
    assert frees(three) == [2, 1, 1]
    for name, has in (("a", [(grant(1), Index(1), "running")]), ("b", []), ("c", [])):
        three.hello(name)
        claims = (grant(1),) if name == "b" else (grant(9),) if name == "c" else ()
        three.feed(NodeTookStock(three.core.world.names[name], has, claims))
    assert three.take(UnclaimRoom) == [UnclaimRoom(NodeId(3), [grant(9)])]
    assert three.take(ClaimRoom) == [ClaimRoom(NodeId(3), grant(1), WIDE)]
    three.feed(RoomClaimed(NodeId(3), [grant(1)]))
    assert three.take(StartAttempts) == []
    assert frees(three) == [1, 1, 1] and three.counts(batch) == {"running": 1}
    three.take_all()
    three.end(NodeId(1), 1, 1)
    assert three.counts(batch) == {"done": 1} and frees(three) == [2, 2, 2]
    three.take_all()


def test_a_hub_that_was_killed_before_it_had_sent_the_command_gives_it_anew(three: Recorder) -> None:
    batch = three.submit(1, shape=WIDE)
    three.decide()
    three.restart()
    for name in "abc":
        three.hello(name)
        three.feed(NodeTookStock(three.core.world.names[name], [], (grant(1),) if name == "b" else ()))
    assert three.counts(batch) == {"queued": 1} and not three.take(StartAttempts)
    three.take_all()
    three.decide()
    assert [one.grant > grant(1) for one in three.take(ClaimRoom)] == [True, True]
    three.take_all()


def test_an_inventory_that_comes_twice_gives_nothing_back(three: Recorder) -> None:
    """The grant was on its way when the second one left: it was given once more, and ran twice."""
    batch = give(three)
    three.feed(NodeTookStock(NodeId(1), []))
    assert three.take(StartAttempts) == [StartAttempts(NodeId(1), grant(1), batch, 0, 1, ((1, 1),), True, (2, 3))]
    assert three.counts(batch) == {"locked": 1}
    three.take_all()
    late = three.submit(1, shape=WIDE)
    three.decide()
    three.take_all()
    three.feed(NodeTookStock(NodeId(1), [(grant(1), Index(1), "running")]))
    assert three.take(StartAttempts) == [] and three.counts(late) == {"locked": 1}
    three.take_all()


def test_the_command_is_not_sent_to_a_node_that_has_not_taken_stock(three: Recorder) -> None:
    """The last claim is confirmed between its hello and its inventory, which lacks the grant: it is given back."""
    batch = three.submit(1, shape=WIDE)
    three.decide()
    three.take_all()
    three.feed(NodeDisconnected(NodeId(1), 1))
    three.hello("a")
    three.feed(RoomClaimed(NodeId(2), [grant(1)]), RoomClaimed(NodeId(3), [grant(1)]))
    assert three.take(StartAttempts) == []
    three.feed(NodeTookStock(NodeId(1), []))
    assert three.take(StartAttempts) == [] and three.counts(batch) == {"queued": 1}
    three.take_all()


def test_a_job_that_failed_on_its_first_node_needs_as_many_others(three: Recorder) -> None:
    """Three nodes and no fourth: the ban of the one that it failed on would keep it waiting for ever."""
    batch = give(three)
    three.end(NodeId(1), 1, 1, outcome="node")
    three.wait(2)
    three.decide()
    assert [one.node for one in three.take(ClaimRoom)] == [2, 3]
    three.take_all()
    four = three.join("d", take=False)
    three.take_all()
    three.feed(RoomClaimed(NodeId(2), [grant(2)]), RoomClaimed(NodeId(3), [grant(2)]))
    three.end(NodeId(1), 2, 1, outcome="node")
    three.decide()
    assert [one.node for one in three.take(ClaimRoom)] == [3, four]
    assert three.counts(batch) == {"locked": 1}
    three.take_all()


def test_agents_of_before_claims_are_left_out(three: Recorder) -> None:
    three.feed(NodeDisconnected(NodeId(3), 3))
    old = NodeJoined(9, "c", b"key", "boot", capacity(), (), "ann", three.now_us, takes_claims=False)
    three.feed(old, NodeTookStock(NodeId(3), []))
    assert [type(one) for one in three.take_all()] == [AcceptNode, DrainNode]
    batch = three.submit(1, shape=WIDE)
    three.decide()
    assert three.take_all() == [] and three.counts(batch) == {"queued": 1}
    assert "the agent of c is of a version" in str(three.core.why(batch, Index(1))["verdict"])


def test_what_no_nodes_could_ever_hold_is_said_with_numbers(three: Recorder) -> None:
    large = three.core.fits([Shape(nodes=4), Shape(nodes=3), Shape(nodes=2, cpu_milli=4000)])
    assert large == ["needs 4 nodes with 1 cpu, 3 could take it", "", "needs 4 cpus, the largest node has 2 cpus"]
    three.join("d", capacity(cpus=8))
    assert three.core.fits([Shape(nodes=2, cpu_milli=4000)]) == ["needs 2 nodes with 4 cpus, 1 could take it"]


def test_a_dismissed_node_frees_nothing_by_itself(three: Recorder) -> None:
    """Its connection breaks for a moment: the attempt goes on, and the claim is said again."""
    batch = give(three)
    three.feed(NodeDisconnected(NodeId(2), 2))
    three.hello("b")
    three.feed(NodeTookStock(NodeId(2), []))
    assert three.take(ClaimRoom) == [ClaimRoom(NodeId(2), grant(1), WIDE)]
    assert three.take(DismissNode) == [] and three.counts(batch) == {"locked": 1}
    three.take_all()
