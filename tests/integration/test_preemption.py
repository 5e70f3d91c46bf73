"""Preemption by a real hub and a real agent: a long job of a low service makes way for an urgent one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.processes import eventually
from services.site import Site

POLICY = """\
[services.urgent]
tier = 1
preemptor = true
[services.low]
preemptee = true
[services.doomed]
preemptee = true
preempt_by = "cancel"
"""
LONG = 'echo $LANAI_ATTEMPT >> begun; test "$LANAI_ATTEMPT" -gt 1 || sleep 600'
STUBBORN = 'trap "" TERM; echo $LANAI_ATTEMPT >> begun; while [ "$LANAI_ATTEMPT" -eq 1 ]; do sleep 0.1; done'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    made.start_agent("n1")
    (made.work / "site.toml").write_text(POLICY)
    made.lanai("policy", "apply", "site.toml")
    yield made
    made.close()


def attempts(site: Site, job: str) -> list[dict[str, Any]]:
    """All attempts of a job that have ended."""
    shown = json.loads(site.lanai("job", "show", job, "--format", "json").stdout)
    found: list[dict[str, Any]] = shown["job"]["attempts_list"]
    return found


def told(site: Site) -> list[tuple[str, str]]:
    """What the log says of jobs that made way."""
    words = ("events", "--filter", "kind=job_preempted", "--format", "json")
    return [(each["subject"], each["text"]) for each in json.loads(site.lanai(*words).stdout)["events"]]


def test_a_long_job_makes_way_for_an_urgent_one_and_succeeds_later(site: Site) -> None:
    low = site.submit([LONG], "--service", "low", "--cpus", "2")
    site.await_lines("begun", 1)
    urgent = site.submit(["echo done >> urgent"], "--service", "urgent")
    site.wait(urgent)
    site.wait(low)
    assert site.lines_of("urgent") == ["done"] and site.lines_of("begun") == ["1", "2"]
    first, second = attempts(site, f"{low}/1")
    assert (first["outcome"], first["reason"]) == ("preempted", f"preempted by batch {urgent}")
    assert second["outcome"] == "ok"
    assert told(site) == [(f"{low}/1", f"on n1: queued again, preempted by batch {urgent}")]


def test_the_hub_may_be_killed_while_a_job_is_on_its_way_out(site: Site) -> None:
    """The end that the agent reports as a cancel is nobody's cancel, for the new hub too."""
    low = site.submit([STUBBORN], "--service", "low", "--cpus", "2")
    site.await_lines("begun", 1)
    urgent = site.submit(["true"], "--service", "urgent")
    eventually(lambda: told(site), what="the job to be told to make way")
    why = json.loads(site.lanai("why", str(urgent), "--format", "json").stdout)
    assert f"{low}/1 on n1 has been told to make way for it" in json.dumps(why)
    assert site.hub is not None
    site.hub.kill()
    site.start_hub()
    site.wait(urgent)
    site.wait(low)
    assert [each["outcome"] for each in attempts(site, f"{low}/1")] == ["preempted", "ok"]
    assert len(told(site)) == 1


def test_a_job_of_a_service_that_makes_way_by_cancel_is_cancelled(site: Site) -> None:
    doomed = site.submit([LONG], "--service", "doomed", "--cpus", "2")
    site.await_lines("begun", 1)
    site.wait(site.submit(["true"], "--service", "urgent"))
    site.wait(doomed, ok=False)
    (job,) = site.jobs(doomed)
    assert (job["state"], job["outcome"], job["attempts"]) == ("cancelled", "preempted", 1)
