"""Jobs over several nodes: a real hub and three agents on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.processes import eventually
from services.site import Site, starters

LEASE = ("--lease-s", "4")
NAMES = ("n1", "n2", "n3")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub(*LEASE)
    for name in NAMES:
        made.start_agent(name)
    yield made
    made.close()


def node(site: Site, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(site.lanai("node", "show", name, "--format", "json").stdout)["node"]
    return shown


def kill_starter(site: Site, name: str) -> None:
    """Of one agent, with all that it runs."""
    for pid in starters(site.home / "agents" / name):
        os.kill(pid, signal.SIGKILL)


def test_the_command_runs_once_and_finds_all_its_nodes(site: Site) -> None:
    ran = site.lanai("run", "--nodes", "3", "--", "sh", "-c", "cat $LANAI_HOSTFILE; echo $LANAI_NODES $LANAI_NNODES")
    assert ran.stdout == "n1\nn2\nn3\nn1 n2 n3 3\n"
    ran = site.lanai("run", "--nodes", "2+", "--", "sh", "-c", "echo $LANAI_NODES $LANAI_NNODES")
    assert ran.stdout == "n1 n2 n3 3\n"
    ran = site.lanai("run", "--nodes", "2", "--tasks-per-node", "2", "--", "sh", "-c", "cat $LANAI_MPI_HOSTFILE")
    assert ran.stdout == "n1 slots=2\nn2 slots=2\n"
    assert not list(site.home.glob("agents/*/starter/hosts/*"))


def test_one_node_has_its_name_too(site: Site) -> None:
    ran = site.lanai("run", "--tasks-per-node", "2", "--", "sh", "-c", "echo $LANAI_NODES $LANAI_NNODES")
    assert ran.stdout.split() in [[name, "1"] for name in NAMES]
    ran = site.lanai("run", "--tasks-per-node", "2", "--", "sh", "-c", "cat $LANAI_HOSTFILE")
    first, second = ran.stdout.split()
    assert first == second and first in NAMES


def test_what_no_nodes_could_hold_is_refused_with_numbers(site: Site) -> None:
    ran = site.lanai("run", "--nodes", "4", "--", "true", ok=False)
    assert ran.returncode != 0 and "needs 4 nodes with 1 cpu, 3 could take it" in ran.stderr
    ran = site.lanai("submit", "-", stdin="true\ntrue {use nodes 3} {use cpu 3}\n", ok=False)
    assert "2" in ran.stderr and "needs 3 cpus, the largest node has 2 cpus" in ran.stderr


def test_the_room_is_taken_on_all_nodes_until_it_ends(site: Site) -> None:
    """Each node has two cpus, and the job one on each of them."""
    wide = site.submit(["echo $$ > pid; sleep 100 {use nodes 3}"], "--shell")
    site.await_lines("pid", 1)
    (job,) = site.jobs(wide)
    assert (job["node"], job["nodes"]) == ("n1", list(NAMES))
    assert [node(site, name)["free"]["cpus"] for name in NAMES] == [1, 1, 1]
    assert [node(site, name)["claims"] for name in NAMES] == [[], [f"{wide}/1"], [f"{wide}/1"]]
    assert "n1" in site.lanai("job", "show", f"{wide}/1").stdout
    narrow = site.submit(["echo began >> narrow; sleep 100"] * 6, "--shell")
    site.await_lines("narrow", 3)
    assert site.counts(narrow)["queued"] == 3
    site.lanai("cancel", str(wide))
    site.await_lines("narrow", 6)
    assert [node(site, name)["claims"] for name in NAMES] == [[], [], []]
    site.lanai("cancel", str(narrow))


@pytest.mark.timeout(120)
def test_a_killed_node_ends_the_attempt_everywhere_and_it_is_tried_again(site: Site) -> None:
    """kill -9 of a further node's agent and starter: after its lease nothing of the attempt goes on."""
    batch = site.submit(["echo $$ >> began; exec sleep 100"], "--nodes", "3", "--shell")
    (pid,) = site.await_lines("began", 1)
    site.agents["n3"].kill()
    kill_starter(site, "n3")
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 60, "the end of the command on the first node")
    eventually(lambda: site.counts(batch) == {"queued": 1}, what="the job to wait again")
    assert "needs 3 nodes with 1 cpu" in site.lanai("why", f"{batch}/1").stdout
    site.start_agent("n3")
    assert len(site.await_lines("began", 2)) == 2
    shown = json.loads(site.lanai("job", "show", f"{batch}/1", "--format", "json").stdout)["job"]
    first, second = shown["attempts_list"]
    assert first["outcome"] == "lost" and "(n3)" in first["reason"] and first["nodes"] == list(NAMES)
    assert second["state"] in ("locked", "running") and shown["nodes"] == list(NAMES)
    site.lanai("cancel", str(batch))


def test_it_goes_on_while_hub_and_agents_are_killed_and_started_again(site: Site) -> None:
    batch = site.submit(["echo $$ >> began; while ! test -e go; do sleep 0.05; done"], "--nodes", "3", "--shell")
    site.await_lines("began", 1)
    assert site.hub is not None
    site.hub.kill()
    for name in NAMES:
        site.agents[name].kill()
    site.start_hub()
    for name in NAMES:
        site.start_agent(name)
    eventually(lambda: [node(site, name)["claims"] for name in NAMES] == [[], [f"{batch}/1"], [f"{batch}/1"]])
    eventually(lambda: site.counts(batch) == {"running": 1}, what="the attempt to be known to run")
    assert [node(site, name)["free"]["cpus"] for name in NAMES] == [1, 1, 1]
    (site.work / "go").touch()
    site.wait(batch)
    assert len(site.lines_of("began")) == 1
    assert re.search(r"^nodes: +.*n1.*n2.*n3", site.lanai("job", "show", f"{batch}/1").stdout, re.MULTILINE)
    assert [node(site, name)["free"]["cpus"] for name in NAMES] == [2, 2, 2]
