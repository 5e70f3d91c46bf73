"""The cable between hub and node is cut in both directions, for less and for more than a lease. Needs namespaces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.netns import TwoHosts
from services.processes import eventually
from services.site import Site

LEASE_S = 20
"""Longer than the 15 s after which a node counts as silent, so that both can be seen."""

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    made = TwoHosts()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, hosts: TwoHosts) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub(*("--listen", f"{hosts.hub_address}:0", "--lease-s", str(LEASE_S)), prefix=hosts.prefix(hosts.hub))
    made.start_agent("far", prefix=hosts.prefix(hosts.node))
    yield made
    made.close()


def node_state(site: Site, name: str) -> str:
    """What the hub believes of a node."""
    listed = site.lanai("node", "list", "--format", "ndjson").stdout.splitlines()
    return next(str(node["state"]) for node in map(json.loads, listed) if node["name"] == name)


def test_cut_for_less_than_the_lease_runs_nothing_twice(site: Site, hosts: TwoHosts) -> None:
    """Silent after 15 s, but leased: the attempt is waited for, its result comes when the cable is whole again."""
    batch = site.submit(["echo x >> began; sleep 12; echo $LANAI_ATTEMPT >> ran", "sleep 0.2"])
    site.await_lines("began", 1)
    hosts.cut()
    eventually(lambda: node_state(site, "far") == "silent", within_s=30, what="the node to be silent")
    hosts.mend()
    eventually(lambda: node_state(site, "far") == "up", within_s=15, what="the node to be back")
    site.wait(batch)
    assert site.lines_of("began") == ["x"]
    assert site.lines_of("ran") == ["1"]
    assert [job["attempts"] for job in site.jobs(batch)] == [1, 1]


def test_cut_for_more_than_the_lease_fences_and_runs_elsewhere(site: Site, hosts: TwoHosts) -> None:
    """The node ends its attempt before the hub gives the job away, so the two never run at the same time."""
    clock = "$(cut -d' ' -f1 /proc/uptime)"
    job = f"trap 'echo end {clock} >> log; exit 1' TERM; echo begin $LANAI_ATTEMPT {clock} >> log; "
    job += f"[ $LANAI_ATTEMPT = 2 ] && exit 0; while :; do sleep 0.1; echo alive {clock} >> log; done"
    batch = site.submit([job])
    site.await_lines("log", 3)
    hosts.cut()
    site.start_agent("near", prefix=hosts.prefix(hosts.hub))
    eventually(lambda: "begin 2" in "\n".join(site.lines_of("log")), within_s=90, what="a second attempt")
    site.wait(batch)
    log = site.lines_of("log")
    second = next(at for at, line in enumerate(log) if line.startswith("begin 2"))
    assert not [line for line in log[second + 1 :] if line.startswith("alive")], log[second - 3 :]
    hosts.mend()
    eventually(lambda: node_state(site, "far") == "up", within_s=30, what="the node to be back")
    (ended,) = site.jobs(batch)
    assert (ended["state"], ended["attempts"], ended["node"]) == ("done", 2, "near")
    again = site.submit(["true"] * 20)
    site.wait(again)
    assert {job["node"] for job in site.jobs(again)} == {"far", "near"}
