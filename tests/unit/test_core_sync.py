"""Whose lease ends first."""

import pytest

from core_recorder import LEASE_US, SECOND, Recorder, capacity
from lanai.agent.lease import Lease
from lanai.core.effects import DismissNode
from lanai.core.events import NodeDisconnected, NodeWished
from lanai.core.sync import hub_lease_us


@pytest.mark.parametrize("lease_us", [SECOND, 60 * SECOND, 3600 * SECOND])
def test_the_nodes_end_comes_before_the_hubs(lease_us: int) -> None:
    """The hub has heard the last heartbeat later than the node sent it, and adds to it: never both at once."""
    lease = Lease()
    lease.begin(0, lease_us)
    lease.acknowledge(lease.beat(10))
    heard_us = 11
    assert lease.good_until_us < heard_us + hub_lease_us(lease_us)
    assert hub_lease_us(lease_us) - lease_us == max(5 * SECOND, lease_us // 10)


def test_after_a_start_every_lease_begins_anew(hub: Recorder) -> None:
    """The hub was down for three minutes with its host up: nothing is ended for that."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    hub.now_us += 180 * SECOND
    hub.restart()
    hub.wait(60)
    assert hub.counts(batch) == {"locked": 1}
    assert hub.take_all() == []
    hub.wait((hub_lease_us(LEASE_US) - LEASE_US) / SECOND + 1)
    assert hub.counts(batch) == {"queued": 1}
    assert hub.node(node).state == "away"


def stopped_on_purpose(hub: Recorder) -> None:
    """The hub says Suspend to whoever is connected, ends, and comes back."""
    hub.store.commit(hub.core.suspend())
    hub.now_us += 180 * SECOND
    hub.restart()


def test_a_node_told_of_a_planned_stop_keeps_its_jobs_until_it_is_back(hub: Recorder) -> None:
    """It runs on without an end. If it cannot reach the hub after the start, its jobs must not begin elsewhere."""
    hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    stopped_on_purpose(hub)
    hub.wait(3600)
    hub.restart()
    hub.wait(3600)
    assert hub.counts(batch) == {"locked": 1}
    assert hub.take_all() == []


def test_a_node_whose_welcome_after_a_planned_stop_was_lost_keeps_its_jobs(hub: Recorder) -> None:
    """It said hello, and the network went away again: it still runs on without an end, as it was told to.

    A hello was taken for the end of the suspension. A minute later the jobs began elsewhere, and ran twice.
    """
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    stopped_on_purpose(hub)
    connection = hub.hello("n", capacity(cpus=1))
    hub.feed(NodeDisconnected(node, connection))
    hub.take_all()
    hub.wait(3600)
    assert hub.counts(batch) == {"locked": 1}
    assert hub.take_all() == []


def test_a_node_that_is_back_after_a_planned_stop_has_a_lease_again(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    stopped_on_purpose(hub)
    hub.join("n", capacity(cpus=1), take=False)
    hub.take_all()
    hub.restart()
    hub.wait(hub_lease_us(LEASE_US) / SECOND + 2)
    assert hub.counts(batch) == {"queued": 1}
    assert hub.node(node).state == "away"


def test_a_person_may_give_up_a_node_that_does_not_come_back_after_a_planned_stop(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    hub.start()
    stopped_on_purpose(hub)
    hub.wait(120)
    hub.feed(NodeWished(1, "n", "remove", 0))
    hub.take_all()
    assert hub.counts(batch) == {"queued": 1}
    assert hub.node(node).state == "removed"


def test_only_nodes_with_attempts_have_anything_to_suspend(hub: Recorder) -> None:
    hub.join("n")
    assert hub.core.suspend() == []


def test_a_node_that_is_away_is_dismissed_once(hub: Recorder) -> None:
    node = hub.join("n")
    hub.wait(300)
    assert hub.take_all() == [DismissNode(node)]


def test_a_start_leaves_out_numbers_of_grants_that_a_power_cut_may_have_taken_with_it(hub: Recorder) -> None:
    """With durability = normal the store may forget what it had set aside; agents may still run under such numbers."""
    hub.join("n", capacity(cpus=2))
    hub.submit(1)
    (before,) = hub.start()
    hub.restart()
    hub.join("n", capacity(cpus=2), take=False)
    hub.take_all()
    hub.submit(1)
    (after,) = hub.start()
    assert after.grant - before.grant > 1_000_000
