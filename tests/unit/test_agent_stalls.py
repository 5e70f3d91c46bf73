"""What the agent's machine does with jobs that its starter cannot begin now: back to the hub, with the reason."""

from __future__ import annotations

from agent_world import G1, G2, World, grant, hand, members, spec, world
from lanai.agent import events as ev
from lanai.wire import messages as wire

WHY = "/bin/sh: Resource temporarily unavailable"


def joined() -> World:
    made = world()
    made.tell(ev.StarterUp([], [], []))
    made.connect()
    made.tell(spec())
    return made


def test_they_go_back_with_those_alike_and_others_begin() -> None:
    """The lane's pending jobs would meet the same; those of another batch have the room."""
    made = joined()
    made.tell(grant(G1, (1, 5)), spec(2, batch=8))
    made.tell(grant(G2, (1, 2), of=2))
    effects = made.tell(ev.JobsGivenBack(members(G1, 1, 2), why=WHY))
    assert effects == [
        ev.NoteGone(members(G1, 1, 2)),
        ev.Send(wire.Returned(members(G1, 1, 2, 3, 4, 5), WHY)),
        ev.OpenLane(2, spec(2, batch=8)),
        ev.Widen(2, 2),
        hand(2, G2, 1, 2, batch=8),
        ev.Widen(1, 0),
    ]


def test_what_a_recall_brings_back_takes_nothing_else_along() -> None:
    made = joined()
    made.tell(grant(G1, (1, 5)))
    effects = made.tell(ev.JobsGivenBack(members(G1, 2)))
    assert ev.Send(wire.Returned(members(G1, 2))) in effects
    assert hand(1, G1, 3) in effects


def test_they_can_be_granted_again() -> None:
    made = joined()
    made.tell(grant(G1, (1, 2)), ev.JobsGivenBack(members(G1, 1, 2), why=WHY))
    assert hand(1, G2, 1, 2) in made.tell(grant(G2, (1, 2)))


def test_a_starter_that_cannot_be_started_for_lack_of_something_has_its_jobs_go_back() -> None:
    """A user who is not known here is another matter: his jobs have failed here."""
    made = world(serves_users=True)
    made.connect()
    made.tell(spec(user="ann"), grant(G1, (1, 3)))
    effects = made.tell(ev.StarterMissing("cannot start commands: no memory", "ann", is_passing=True))
    assert effects == [ev.Send(wire.Returned(members(G1, 1, 2, 3), "cannot start commands: no memory"))]
