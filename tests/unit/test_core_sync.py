"""Whose lease ends first."""

import pytest

from core_recorder import LEASE_US, SECOND, Recorder, capacity
from lanai.agent.lease import Lease
from lanai.core.effects import DismissNode
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


def test_a_node_that_is_away_is_dismissed_once(hub: Recorder) -> None:
    node = hub.join("n")
    hub.wait(300)
    assert hub.take_all() == [DismissNode(node)]
