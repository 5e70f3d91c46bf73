"""Faults are charged to whom they belong: sick nodes, batches that fail everywhere; and what waits says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    yield made
    made.close()


def nodes(site: Site) -> dict[str, dict[str, object]]:
    listed = site.lanai("node", "list", "--format", "ndjson").stdout.splitlines()
    return {str(node["name"]): node for node in map(json.loads, listed)}


def on_node(site: Site, name: str, then: str, otherwise: str) -> str:
    """A command that does something else on one node: its agent's directory is the sign."""
    return f"if grep -qs agents/{name}/ /proc/$PPID/cmdline; then {then}; else {otherwise}; fi"


def test_a_node_that_fails_three_times_in_a_row_is_avoided_for_that_batch(site: Site) -> None:
    site.start_agent("good", "--cpus", "1")
    site.start_agent("sick", "--cpus", "1")
    job = on_node(site, "sick", "exit 1", "sleep 0.1")
    batch = site.submit([job] * 30, "--retries", "5")
    site.wait(batch)
    jobs = site.jobs(batch)
    assert {job["state"] for job in jobs} == {"done"}
    assert sum(job["attempts"] - 1 for job in jobs) < 6, "the sick node got work after its third failure"


def test_a_batch_that_fails_everywhere_is_paused_and_says_so(site: Site) -> None:
    site.start_agent("n1")
    site.start_agent("n2")
    batch = site.submit(["sleep 0.02; exit 3"] * 400)
    status = eventually(lambda: "paused" in site.lanai("status").stdout and site.lanai("status").stdout, what="a pause")
    assert "paused" in status
    why = site.lanai("why", str(batch)).stdout
    assert "in a row" in why
    assert str(batch) in why
    counts = site.counts(batch)
    assert 25 <= counts["failed"] < 350
    assert counts["queued"] > 0
    run = site.lanai("wait", str(batch), ok=False)
    assert run.returncode == 1, run
    assert site.lanai("release", str(batch)).stderr == f"batch {batch}: goes on\n"
    site.lanai("cancel", str(batch))


def test_one_node_alone_is_used_however_often_it_fails(site: Site) -> None:
    """Parasol's trap: with the only node avoided, the rest of the batch waited for ever."""
    site.start_agent("n1")
    batch = site.submit(["exit 1"] * 60)
    assert site.wait(batch, ok=False).returncode == 1
    assert site.counts(batch) == {"failed": 60}


def test_a_command_not_found_is_tried_on_one_other_node_then_fails_as_127(site: Site) -> None:
    site.start_agent("n1")
    site.start_agent("n2")
    batch = site.submit(["no_such_program_here x"])
    site.wait(batch, ok=False)
    (job,) = site.jobs(batch)
    assert (job["state"], job["attempts"], job["exit_code"], job["outcome"]) == ("failed", 2, 127, "notfound")


def test_a_missing_directory_is_the_nodes_fault(site: Site) -> None:
    site.start_agent("n1")
    gone = site.work / "gone"
    gone.mkdir()
    site.lanai("node", "drain", "n1")
    batch = site.submit(["true"], "--dir", str(gone), "--retries", "node=1")
    gone.rmdir()
    site.lanai("node", "resume", "n1")
    site.wait(batch, ok=False)
    (job,) = site.jobs(batch)
    assert (job["state"], job["outcome"], job["attempts"]) == ("failed", "node", 2)
    assert "gone" in job["reason"]


def test_nobody_has_joined_yet_is_said_and_the_job_waits(site: Site) -> None:
    batch = site.submit(["true"])
    assert "no node has joined yet" in eventually(
        lambda: "joined" in site.lanai("why", str(batch)).stdout and site.lanai("why", str(batch)).stdout
    )
    site.start_agent("n1")
    site.wait(batch)


def test_an_impossible_request_is_refused_with_the_largest_that_fits(site: Site) -> None:
    """Also when the node that was large enough is drained or away: it is known, so it counts."""
    agent = site.start_agent("n1", "--cpus", "2", "--memory", "4G")
    refused = site.lanai("submit", "-", "--memory", "64G", stdin="true\n", ok=False)
    assert refused.returncode == 2
    assert "64" in refused.stderr
    assert "4" in refused.stderr
    site.lanai("node", "drain", "n1")
    agent.stop()
    assert site.lanai("submit", "-", "--cpus", "3", stdin="true\n", ok=False).returncode == 2
    assert site.lanai("submit", "-", "--cpus", "2", stdin="true\n").returncode == 0
    assert len(site.lanai("batch", "list", "--format", "ndjson").stdout.splitlines()) == 1


def test_drain_lets_running_jobs_end_and_starts_no_others(site: Site) -> None:
    site.start_agent("n1")
    batch = site.submit(["echo x >> began; sleep 1.5"] * 6)
    site.await_lines("began", 2)
    site.lanai("node", "drain", "n1")
    eventually(lambda: site.counts(batch).get("done") == 2, what="the running jobs to end")
    assert "drained" in site.lanai("why", str(batch)).stdout
    assert len(site.lines_of("began")) == 2
    site.lanai("node", "resume", "n1")
    site.wait(batch)


def test_a_second_batch_begins_within_a_second(site: Site) -> None:
    """50,000 jobs of 50 ms are under way: the newcomer's first job waits for the surplus, not for the batch."""
    site.start_agent("n1")
    first = site.submit(["echo x >> first; sleep 0.05"] * 50_000)
    site.await_lines("first", 40)
    second = site.submit(["date +%s.%N >> second"] * 10)
    site.await_lines("second", 1)
    submitted = json.loads(site.lanai("batch", "show", str(second), "--format", "json").stdout)
    began = float(site.lines_of("second")[0])
    text = submitted["batch"]["submitted_at"]
    assert began - datetime.fromisoformat(text).timestamp() < 1.0
    site.wait(second)
    site.lanai("cancel", str(first))
    site.wait(first, ok=False)


def test_batches_of_unlike_jobs_have_as_many_slots(site: Site) -> None:
    """A batch of short jobs, whose surplus was filled up again and again, left longer jobs not one slot."""
    site.start_agent("n1", "--cpus", "4")
    short = site.submit(["echo x >> short; sleep 0.05"] * 20_000)
    site.await_lines("short", 40)
    long = site.submit(["echo x >> long; sleep 1; echo x >> long_over"] * 200)
    site.await_lines("long", 2)
    began = len(site.lines_of("short"))
    site.await_lines("long_over", 8)
    ended = len(site.lines_of("short")) - began
    assert 60 < ended < 240, f"{ended} short jobs beside 8 long ones: two slots each would be about 150"
    for batch in (short, long):
        site.lanai("cancel", str(batch))
        site.wait(batch, ok=False)


def test_batches_share_slots_by_priority(site: Site) -> None:
    """Weight 1/priority: of two batches with 10 and 30, the first gets about three slots of four."""
    site.start_agent("n1", "--cpus", "8")
    heavy = site.submit(["sleep 0.3"] * 400, "--priority", "10")
    light = site.submit(["sleep 0.3"] * 400, "--priority", "30")
    eventually(lambda: site.counts(light).get("done", 0) >= 25, within_s=60)
    done = site.counts(heavy).get("done", 0) / max(1, site.counts(light).get("done", 0))
    assert 2.0 < done < 4.5, done
    for batch in (heavy, light):
        site.lanai("cancel", str(batch))
