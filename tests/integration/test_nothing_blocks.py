"""Nobody waits on a slow thing: long lists, deaf readers and dead agents do not delay another user's short job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site
from services.wirepeer import WirePeer, join_token

QUICK_S = 5.0
"""Far more than a short job takes, far less than any of the slow things here."""

LONG = 200_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    made.start_agent("n1")
    yield made
    made.close()


def quick_job_s(site: Site) -> float:
    """How long a job of one line takes from submission to its end."""
    begin_s = time.monotonic()
    site.wait(site.submit(["true"]))
    return time.monotonic() - begin_s


def test_a_long_list_and_its_reading_delay_nobody(site: Site) -> None:
    long = site.submit(["true"] * LONG, "--max-running", "1")
    reading = [site.spawn("job", "list", str(long), "--format", "ndjson") for _ in range(2)]
    assert quick_job_s(site) < QUICK_S
    assert all(reader.poll() is None for reader in reading), "the lists were too short to show anything"
    for reader in reading:
        out, err = reader.communicate(timeout=100)
        assert len(out.splitlines()) == LONG, err
    site.lanai("cancel", str(long))
    site.wait(long, ok=False)


def test_a_reader_that_stops_reading_holds_up_only_itself(site: Site) -> None:
    """`logs -f` of a job that prints without end, stopped in mid-reading: the job and its node go on."""
    loud = site.submit(["echo begun >> begun; while [ ! -e enough ]; do echo 0123456789012345678901234567890; done"])
    site.await_lines("begun", 1)
    follower = site.spawn("logs", "-f", f"{loud}/1")
    assert follower.stdout is not None
    assert follower.stdout.read(1000)
    os.kill(follower.pid, signal.SIGSTOP)
    assert quick_job_s(site) < QUICK_S
    (site.work / "enough").touch()
    site.wait(loud)
    os.kill(follower.pid, signal.SIGCONT)


def test_a_hundred_agents_that_say_nothing_delay_nobody(site: Site) -> None:
    silent = [WirePeer.tls(site.home) for _ in range(100)]
    for number, peer in enumerate(silent):
        peer.hello_agent(f"dead{number}", token=join_token(site.home), cpu_milli=1)
    assert quick_job_s(site) < QUICK_S
    for peer in silent:
        peer.close()
    eventually(lambda: quick_job_s(site) < QUICK_S)


def test_status_and_job_list_agree_while_a_batch_runs(site: Site) -> None:
    """Both are taken at one moment's distance, so only what cannot move meanwhile is compared exactly."""
    batch = site.submit(["sleep 1"] * 8 + ["false"] * 2)
    site.lanai("hold", f"{batch}/7-8")
    eventually(lambda: site.counts(batch).get("running") == 2, what="two jobs to run")
    shown = json.loads(site.lanai("batch", "show", str(batch), "--format", "json").stdout)["batch"]["counts"]
    listed = site.counts(batch)
    assert shown["held"] == listed["held"] == 2
    assert sum(shown.values()) == sum(listed.values()) == 10
    site.lanai("release", str(batch))
    site.wait(batch, ok=False)
    shown = json.loads(site.lanai("batch", "show", str(batch), "--format", "json").stdout)["batch"]["counts"]
    assert {state: count for state, count in shown.items() if count} == site.counts(batch) == {"done": 8, "failed": 2}


def test_every_waiting_job_says_why_in_the_list(site: Site) -> None:
    batch = site.submit(["sleep 2"] * 6)
    eventually(lambda: site.counts(batch).get("running") == 2, what="two jobs to run")
    waiting = [job for job in site.jobs(batch) if job["state"] == "queued"]
    assert waiting
    assert all("busy" in job["reason"] for job in waiting), waiting
    limited = site.submit(["sleep 2"] * 3, "--max-running", "1", "--priority", "1")
    eventually(
        lambda: any("limit of 1" in (job["reason"] or "") for job in site.jobs(limited)), what="the limit to be named"
    )
    for each in (batch, limited):
        site.lanai("cancel", str(each))


def test_slow_submission_does_not_hold_others_up(site: Site) -> None:
    """Somebody types his job list by hand: the body of his request comes line by line."""
    slow = subprocess.Popen(
        ["lanai", "submit", "-", "--format", "quiet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=site.work,
        env={**site.environ(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert slow.stdin is not None
    slow.stdin.write("true\n")
    slow.stdin.flush()
    assert quick_job_s(site) < QUICK_S
    out, _ = slow.communicate("true\n", timeout=30)
    site.wait(int(out))
    assert site.counts(int(out)) == {"done": 2}
