"""Limits on real attempts: memory with its one retry, time against those that will not go, and what escapes both."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site, is_alive

HOG = """
import os, sys, time
with open("tries", "a") as file:
    file.write(f"{sys.argv[1]} {os.environ['LANAI_ATTEMPT']} {os.environ['LANAI_MEMORY_BYTES']}\\n")
if sys.argv[1] == "child" and (child := os.fork()):
    os.waitpid(child, 0)
    sys.exit(0)
grown = bytearray()
for _ in range(400):
    grown += bytes(1 << 20)
    time.sleep(0.005)
"""

STUBBORN = """
trap '' TERM
(setsid sh -c 'trap "" TERM; echo $$ >> pids; while :; do sleep 1; done' &)
sh -c 'trap "" TERM; echo $$ >> pids; while :; do sleep 1; done' &
echo $$ >> pids
while :; do sleep 1; done
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    made.start_agent("n1", "--cpus", "4")
    yield made
    made.close()


def test_over_its_memory_a_job_is_tried_once_more_with_twice_as_much(site: Site) -> None:
    (site.work / "hog.py").write_text(HOG)
    batch = site.submit([f"{sys.executable} -S hog.py {who}" for who in ("itself", "child")], "--memory", "64M")
    assert site.wait(batch, ok=False).returncode == 1
    for job in site.jobs(batch):
        assert (job["state"], job["outcome"], job["attempts"]) == ("failed", "memory", 2)
        assert "memory limit of 134217728 bytes" in job["reason"]
    tries = {
        who: [line.split()[1:] for line in site.lines_of("tries") if line.startswith(who)]
        for who in ("itself", "child")
    }
    assert tries == {who: [["1", str(64 << 20)], ["2", str(128 << 20)]] for who in ("itself", "child")}
    assert "2 x ran out of memory" in site.lanai("watch", str(batch), ok=False).stderr


def test_over_its_time_nothing_of_a_job_is_left(site: Site) -> None:
    """A child that ignores SIGTERM, and a daemon forked twice into a session of its own."""
    (site.work / "stubborn.sh").write_text(STUBBORN)
    batch = site.submit(["sh stubborn.sh"], "--time", "1")
    assert site.wait(batch, ok=False).returncode == 1
    (job,) = site.jobs(batch)
    assert (job["state"], job["outcome"], job["attempts"], job["signal"]) == ("failed", "time", 1, signal.SIGKILL)
    assert job["reason"] == "time limit of 1 s"
    assert job["wall_s"] >= 1.0
    pids = [int(line) for line in site.lines_of("pids")]
    assert len(pids) == 3
    assert not [pid for pid in pids if is_alive(pid)]


def test_processes_that_escape_are_counted_and_shown(site: Site) -> None:
    daemon = "setsid sh -c 'echo $$ >> pids; exec sleep 600' < /dev/null &"
    batch = site.submit([f"{daemon} while [ ! -s pids ]; do sleep 0.02; done", "true"], "--max-running", "1")
    site.wait(batch)
    assert [job["outcome"] for job in site.jobs(batch)] == ["ok", "ok"]

    def escaped() -> bool:
        shown = json.loads(site.lanai("node", "show", "n1", "--format", "json").stdout)["node"]
        return bool(shown["escaped"] == 1)

    eventually(escaped, what="a heartbeat that tells of it")
    (pid,) = map(int, site.lines_of("pids"))
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)
