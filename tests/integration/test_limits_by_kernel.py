"""Control groups through the whole of it: submitted with a limit, run by a real agent, through deaths of its parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent import cgroup_mounts
from lanai.agent.cgroup_mounts import SUBGROUP
from lanai.agent.cgroup_tree import put, remove
from lanai.agent.cgroups import left_in
from services.cgroups import needs_cgroups
from services.processes import NotReady, eventually
from services.site import Site, is_alive, starters

MIB = 1 << 20
WAIT_THEN_GROW = """
import os, sys, time
open("begun", "a").write(f"{os.getpid()}\\n")
while not os.path.exists("grow"):
    time.sleep(0.02)
kept = []
for _ in range(int(sys.argv[1])):
    kept.append(bytearray(b"x") * (1 << 20))
time.sleep(float(sys.argv[2]))
"""
RUN_OFF = """
import os, signal, sys
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with open("pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
os.closerange(0, 100)
os.execve("/bin/sleep", ["sleep", "600"], {})
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    needs_cgroups()
    made = Site(tmp_path / "site")
    (made.work / "grow.py").write_text(WAIT_THEN_GROW)
    (made.work / "off.py").write_text(RUN_OFF)
    made.start_hub()
    yield made
    made.close()


def test_what_is_limited_here_and_how_is_shown(site: Site) -> None:
    site.start_agent("n1", "--cpu-limit", "weight", "--user-processes", "500")
    site.start_agent("n2", "--cgroups", "none")
    with_groups, without = (
        json.loads(site.lanai("node", "show", name, "--format", "json").stdout)["node"]["facts"]
        for name in ("n1", "n2")
    )
    assert with_groups["memory_limit"].startswith("by cgroup v")
    assert with_groups["cpu_limit"].endswith(" (weight)")
    assert with_groups["process_limit"].endswith(", 500 a user")
    assert with_groups["kill"].startswith("by cgroup v") and with_groups["freeze"].startswith("by cgroup v")
    assert without["memory_limit"] == 'by looking at its processes twice a second (cgroups = "none")'
    assert (without["cpu_limit"], without["kill"]) == ("none", 'by the process table (cgroups = "none")')
    lines = site.lanai("node", "show", "n1").stdout.splitlines()
    assert f"memory_limit:      {with_groups['memory_limit']}" in lines


def test_without_cgroups_memory_is_watched_all_the_same(site: Site) -> None:
    site.start_agent("n1", "--cgroups", "none")
    (site.work / "grow").touch()
    batch = site.submit([f"{sys.executable} -S grow.py 200 600"], "--memory", "64M")
    site.wait(batch, ok=False)
    (job,) = site.jobs(batch)
    assert job["outcome"] == "memory" and job["reason"].endswith("in use")
    assert not (site.home / "agents" / "n1" / "cgroups.json").exists()


def test_a_limited_attempt_outlives_its_agent_and_keeps_its_limit(site: Site) -> None:
    """Killed, and started again: the next agent takes over the groups, removes none in use, and makes more.

    What is over its limit is tried once more with twice as much, by the new agent's word.
    """
    agent = site.start_agent("n1", "--cpus", "4")
    lines = [f"{sys.executable} -S grow.py {mib} 0" for mib in (20, 400)]
    first = site.submit(lines, "--memory", "64M")
    pids = [int(pid) for pid in site.await_lines("begun", 2)]
    state = site.home / "agents" / "n1"
    groups = json.loads((state / "cgroups.json").read_text())
    agent.kill()
    site.start_agent("n1", "--cpus", "4")
    second = site.submit([f"{sys.executable} -S grow.py 400 0"], "--memory", "32M")
    pids += [int(pid) for pid in site.await_lines("begun", 3)[2:]]
    assert json.loads((state / "cgroups.json").read_text()) == groups
    assert left_in(state) == {*pids, *starters(site.home)}
    (site.work / "grow").touch()
    site.wait(first, ok=False)
    site.wait(second, ok=False)
    assert [job["outcome"] for job in site.jobs(first)] == ["ok", "memory"]
    (job,) = site.jobs(second)
    assert job["outcome"] == "memory" and f"limit of {64 * MIB} bytes" in job["reason"]


def test_with_its_starter_all_that_it_ran_is_dead(site: Site) -> None:
    """In a leaf or not, and with nothing left that tells whose it was."""
    site.start_agent("n1")
    line = f"{sys.executable} -I -S off.py; exec sleep 600"
    batches = [site.submit([line], "--retries", "node=0", *options) for options in ((), ("--memory", "64M"))]
    pids = [int(pid) for pid in site.await_lines("pids", 2)]
    (starter,) = starters(site.home)
    os.kill(starter, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, pids)), what="the end of what had run off")
    for batch in batches:
        site.wait(batch, ok=False)
        assert [job["outcome"] for job in site.jobs(batch)] == ["node"]


@pytest.mark.parametrize("options", [(), ("--memory", "64M")])
def test_nothing_is_left_of_what_is_cancelled(site: Site, options: tuple[str, ...]) -> None:
    """With a limit it has a group of its own; without, what has run off is found while its starter lives."""
    site.start_agent("n1")
    batch = site.submit([f"{sys.executable} -I -S off.py; exec sleep 600"], *options)
    (pid,) = map(int, site.await_lines("pids", 1))
    site.lanai("cancel", str(batch))
    site.wait(batch, ok=False)
    if options:
        assert not is_alive(pid)
    else:
        (starter,) = starters(site.home)
        assert is_alive(pid) and pid in left_in(site.home / "agents" / "n1")
        os.kill(starter, signal.SIGKILL)
        eventually(lambda: not is_alive(pid), what="the end of what had run off")


def test_nothing_is_left_of_an_agent_that_ends_with_nothing_to_do(site: Site) -> None:
    """Its starter would have waited for the next agent, and its groups for ever: only an agent can remove them."""
    agent = site.start_agent("n1")
    site.wait(site.submit(["true"] * 20, "--memory", "64M"))
    state = site.home / "agents" / "n1"
    bases = _bases(state)
    assert bases and all(base.is_dir() for base in bases)
    agent.stop()
    assert not any(base.exists() for base in bases) and not starters(site.home)
    assert not (state / "cgroups.json").exists()


def test_what_runs_keeps_its_groups_when_the_agent_ends_and_loses_them_in_the_end(site: Site) -> None:
    """Ended by a signal or killed, with a limited attempt running: the next one takes it over, and cleans up."""
    agent = site.start_agent("n1")
    batch = site.submit([f"{sys.executable} -S grow.py 20 0"], "--memory", "64M")
    (pid,) = map(int, site.await_lines("begun", 1))
    state = site.home / "agents" / "n1"
    bases = _bases(state)
    agent.stop()
    assert pid in left_in(state)
    agent = site.start_agent("n1")
    agent.kill()
    assert pid in left_in(state)
    agent = site.start_agent("n1")
    (site.work / "grow").touch()
    site.wait(batch)
    assert _bases(state) == bases
    agent.stop()
    assert not any(base.exists() for base in bases) and not starters(site.home)


def test_stopped_now_what_had_run_off_is_ended_too(site: Site) -> None:
    """By its group, since nothing else tells any more whose it was."""
    site.start_agent("n1")
    batch = site.submit([f"{sys.executable} -I -S off.py; exec sleep 600"])
    (pid,) = map(int, site.await_lines("pids", 1))
    state = site.home / "agents" / "n1"
    bases = _bases(state)
    site.lanai("cancel", str(batch))
    site.wait(batch, ok=False)
    assert is_alive(pid) and pid in left_in(state)
    site.lanai("agent", "stop", "--state", str(state), "--now")
    assert not is_alive(pid) and not any(base.exists() for base in bases)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("umount -R /sys/fs/cgroup", "(no cgroups are mounted)"),
        ("mount -o bind,remount,ro {}", "Read-only file system)"),
    ],
)
def test_without_groups_as_in_many_a_container_memory_is_watched_and_that_is_said(
    site: Site, change: str, why: str
) -> None:
    """In a mount namespace of its own, where they are not mounted at all, or may not be written."""
    points = [one.point for one in cgroup_mounts.find()]
    script = "; ".join(dict.fromkeys(change.format(point) for point in points))
    site.start_agent("n1", prefix=("unshare", "--mount", "sh", "-c", f'set -e; {script}; exec "$@"', "sh"))
    facts = json.loads(site.lanai("node", "show", "n1", "--format", "json").stdout)["node"]["facts"]
    assert facts["cgroups"] == "none"
    assert facts["memory_limit"].startswith("by looking at its processes twice a second (")
    assert facts["kill"].startswith("by the process table (") and facts["freeze"].startswith("not possible (")
    assert all(facts[name].endswith(why) for name in ("memory_limit", "kill", "freeze"))
    (site.work / "grow").touch()
    batch = site.submit(
        [f"{sys.executable} -S grow.py 200 600", f"{sys.executable} -S grow.py 20 0"], "--memory", "64M"
    )
    site.wait(batch, ok=False)
    assert [job["outcome"] for job in site.jobs(batch)] == ["memory", "ok"]


@pytest.mark.parametrize(("retries", "attempts"), [("memory=0", 1), ("memory=2", 3)])
def test_out_of_memory_is_retried_as_the_batch_says(site: Site, retries: str, attempts: int) -> None:
    """With twice the memory each time; the last one's limit and peak are in its outcome."""
    site.start_agent("n1", "--memory", "4G")
    (site.work / "grow").touch()
    batch = site.submit([f"{sys.executable} -S grow.py 800 600"], "--memory", "64M", "--retries", retries)
    site.wait(batch, ok=False)
    (job,) = site.jobs(batch)
    limit = (64 * MIB) << (attempts - 1)
    assert (job["outcome"], job["attempts"], len(site.lines_of("begun"))) == ("memory", attempts, attempts)
    assert job["reason"].startswith(f"memory limit of {limit} bytes: ")
    assert limit // 2 < job["memory_peak_bytes"] <= limit


def test_a_group_that_is_given_to_an_agent_holds_its_jobs(site: Site) -> None:
    """One that a service manager keeps, say, with a process of its own in it: that one is moved aside."""
    mounted = cgroup_mounts.find()
    given = [one.point / f"lanai-test-{os.getpid()}.service" for one in mounted]
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        for group in given:
            group.mkdir()
            put(group / "cgroup.procs", str(sleeper.pid))
        agent = site.start_agent("n1", "--cgroup-base", str(given[0]))
        batch = site.submit(["cat /proc/self/cgroup > groups"], "--memory", "64M")
        site.wait(batch)
        inside = [line for line in site.lines_of("groups") if given[0].name in line]
        assert len(inside) >= len({one.version for one in mounted})
        assert all(base.parent in given for base in _bases(site.home / "agents" / "n1"))
        agent.stop()
        assert [path for group in given for path in group.glob("lanai-*") if path.name != SUBGROUP] == []
    finally:
        sleeper.kill()
        sleeper.wait()
        for group in given:
            remove(group)
    assert not any(group.exists() for group in given)


def test_a_group_that_is_not_there_is_said_at_once(site: Site) -> None:
    with pytest.raises(NotReady, match="there is no control group nowhere"):
        site.start_agent("n1", "--cgroup-base", "nowhere")


def _bases(state: Path) -> list[Path]:
    return [Path(base) for base in json.loads((state / "cgroups.json").read_text())]
