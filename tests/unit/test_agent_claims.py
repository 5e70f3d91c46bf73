"""Room for attempts that other nodes run: kept in the order of what was granted, and counted as taken."""

from __future__ import annotations

from agent_world import G1, G2, G3, LEASE, ONE_CPU, S, World, grant, hand, members, ok, spec, world
from lanai.agent import events as ev
from lanai.model.ids import grant_id
from lanai.model.resources import Shape
from lanai.wire import messages as wire

TWO_CPUS = Shape(cpu_milli=2000)


def joined(gpus: tuple[str, ...] = (), end_with_hub_us: int = 0) -> World:
    """A world of two cpus whose starter is up and whose hub has said Welcome and named spec 1."""
    made = world(gpus=gpus, end_with_hub_us=end_with_hub_us)
    made.tell(ev.StarterUp([], [], []))
    made.connect()
    made.tell(spec())
    return made


def claimed(*numbers: int) -> ev.Send:
    return ev.Send(wire.Claimed(list(numbers)))  # type: ignore[arg-type]


def test_a_claim_takes_room_until_it_is_given_up() -> None:
    made = joined()
    assert made.tell(wire.Claim(G1, ONE_CPU)) == [claimed(G1)]
    assert made.tell(grant(G2, (1, 2))) == [ev.OpenLane(1, spec()), ev.Widen(1, 1), hand(1, G2, 1)]
    assert made.tell(wire.Unclaim([G1])) == [ev.Widen(1, 2), hand(1, G2, 2)]
    assert made.tell(wire.Unclaim([G1, G3])) == []


def test_a_repeated_claim_is_answered_again_and_takes_no_more() -> None:
    made = joined()
    assert made.tell(wire.Claim(G1, ONE_CPU), wire.Claim(G1, ONE_CPU)) == [claimed(G1), claimed(G1)]
    assert hand(1, G2, 1) in made.tell(grant(G2, (1, 1)))


def test_a_claim_waits_for_what_was_granted_before_it_and_nothing_passes_it() -> None:
    """The surplus got into the room first. What comes after the claim would keep it waiting for ever."""
    made = joined()
    made.tell(grant(G1, (1, 3)))
    assert made.tell(wire.Claim(G2, TWO_CPUS)) == []
    assert made.tell(grant(G3, (1, 1))) == []
    assert hand(1, G1, 3) in made.end(ok(G1, 1), 1, 1)
    assert claimed(G2) not in made.end(ok(G1, 2), 2, 2)
    assert claimed(G2) in made.end(ok(G1, 3), 3, 3)
    assert hand(1, G3, 1) in made.tell(wire.Unclaim([G2]))


def test_a_claim_that_waits_is_given_up_without_an_answer() -> None:
    made = joined()
    made.tell(grant(G1, (1, 2)), wire.Claim(G2, TWO_CPUS), grant(G3, (1, 1)))
    assert made.tell(wire.Unclaim([G2])) == []
    assert hand(1, G3, 1) in made.end(ok(G1, 1), 1, 1)


def test_a_draining_node_keeps_its_claims_and_still_makes_room() -> None:
    """What runs on several nodes is to end well; that this one starts nothing new does not touch it."""
    made = joined()
    made.tell(grant(G1, (1, 2)), wire.Claim(G2, ONE_CPU))
    assert made.tell(wire.Drain(is_draining=True)) == []
    assert claimed(G2) in made.end(ok(G1, 1), 1, 1)
    made.end(ok(G1, 2), 2, 2)
    assert made.tell(wire.Forget(2), wire.Drain(is_draining=True, leave=True)) == [ev.ForgetResults(2)]
    assert made.tell(wire.Unclaim([G2])) == [ev.Leave("drained, and told to leave")]


def test_the_inventory_names_what_room_is_kept_for() -> None:
    made = joined()
    made.tell(wire.Claim(G1, ONE_CPU), grant(G2, (1, 1)), wire.Claim(G3, ONE_CPU))
    made.tell(ev.HubLost())
    effects = made.connect()
    assert ev.Send(wire.Inventory([(G2, 1, "waiting")], True, [G1])) in effects  # type: ignore[list-item]
    assert claimed(G3) in made.end(ok(G2, 1), 1, 1)


def test_claims_of_an_earlier_epoch_are_over() -> None:
    made = joined()
    made.tell(wire.Claim(G1, TWO_CPUS), ev.HubLost())
    assert ev.Send(wire.Inventory([], True)) in made.connect(epoch=2)
    number = grant_id(2, 1)
    assert hand(1, number, 1, 2) in made.tell(spec(), grant(number, (1, 2)))


def test_after_the_lease_nothing_is_kept() -> None:
    """The hub has ended what it was for by then."""
    made = joined()
    made.tell(wire.Claim(G1, TWO_CPUS))
    made.tell(ev.HubLost())
    made.pass_s(LEASE / S + 1)
    assert ev.Send(wire.Inventory([], True)) in made.connect()


def test_a_claim_that_never_fits_keeps_nothing_waiting() -> None:
    """The agent was started anew with fewer cpus, or without a resource, while the job went on."""
    made = joined()
    assert made.tell(wire.Claim(G1, Shape(cpu_milli=3000)), wire.Claim(G3, Shape(named=(("unknown", 1),)))) == []
    assert hand(1, G2, 1, 2) in made.tell(grant(G2, (1, 2)))
    assert made.tell(wire.Unclaim([G1])) == []


def test_a_claim_has_gpus_to_itself() -> None:
    made = joined(gpus=("0", "1"))
    shape = Shape(gpu_milli=1000)
    made.tell(spec(2, shape))
    assert made.tell(wire.Claim(G1, shape)) == [claimed(G1)]
    effects = made.tell(grant(G2, (1, 2), of=2))
    assert [effect.handed.gpus for effect in effects if isinstance(effect, ev.Hand)] == [[("1",)]]
    assert made.tell(wire.Claim(G3, shape)) == []
    assert made.tell(wire.Recall([(G2, 2, 2)])) == [ev.Send(wire.Returned(members(G2, 2)))]
    assert claimed(G3) in made.tell(wire.Unclaim([G1]))


def test_the_job_is_told_of_all_its_nodes() -> None:
    made = joined()
    effects = made.tell(wire.Grant(G1, 1, 1, [(1, 1)], b"true", {}, ("a", "b")))
    (handed,) = [effect for effect in effects if isinstance(effect, ev.Hand)]
    assert [item.nodes for item in handed.items] == [("a", "b")]


def test_an_agent_of_one_hub_leaves_although_that_has_left_a_claim_behind() -> None:
    made = joined(end_with_hub_us=5 * S)
    made.tell(wire.Claim(G1, ONE_CPU), ev.HubLost())
    made.pass_s(6)
    assert ev.Leave("the hub is gone and nothing runs") in made.tell(ev.HubRefused(made.now_us))
