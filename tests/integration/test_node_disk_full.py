"""An agent's own disk is full, while jobs run, while they write, and over a kill of it; and there is room again.

A real small tmpfs for the agent's directory.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site

SIZE_MIB = 24
TROUBLE = "disk full"

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    directory = made.home / "agents" / "n1"
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", directory], check=True)
    try:
        made.start_hub()
        made.start_agent("n1")
        yield made
    finally:
        made.close()
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(site: Site) -> Path:
    """Take every byte that is left, as soon as the agent's reserve is used it finds no other."""
    path = site.home / "agents" / "n1" / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


def trouble(site: Site) -> str:
    return str(json.loads(site.lanai("node", "show", "n1", "--format", "json").stdout)["node"]["trouble"])


def test_results_and_jobs_survive_it_and_it_goes_on_with_space(site: Site) -> None:
    """The spool's reserve holds what runs; what was granted goes back, and one attempt a job is all there is.

    Once nothing new began only when the spool was full, and jobs failed for want of room for their outputs until then.
    """
    batch = site.submit([f"sleep 0.02; echo {number} >> ran" for number in range(300)])
    site.await_lines("ran", 50)
    filler = fill(site)
    eventually(lambda: TROUBLE in trouble(site), what="the node to say so")
    why = json.loads(site.lanai("why", str(batch), "--format", "json").stdout)
    assert f"n1 takes nothing new: {TROUBLE}" in (why["verdict"], *why["facts"])
    assert TROUBLE in site.lanai("node", "list").stdout
    os.unlink(filler)
    eventually(lambda: not trouble(site), what="the node to go on")
    site.wait(batch)
    assert sorted(map(int, site.lines_of("ran"))) == list(range(300))
    assert {(job["state"], job["attempts"]) for job in site.jobs(batch)} == {("done", 1)}


def test_output_that_finds_no_room_is_the_jobs_to_see_and_its_result_is_kept(site: Site) -> None:
    """The command gets ENOSPC as from any full disk, and says what it likes; nothing of the node's is lost by it."""
    batch = site.submit(
        ["echo >> began; while [ ! -e go ]; do sleep 0.02; done; head -c 1M /dev/zero || exit 9", "sleep 0.1"],
        "--cpus",
        "1",
    )
    site.await_lines("began", 1)
    filler = fill(site)
    (site.work / "go").touch()
    eventually(lambda: site.counts(batch).get("failed") == 1, what="the command to end")
    os.unlink(filler)
    site.wait(batch, ok=False)
    wrote, silent = site.jobs(batch)
    assert (wrote["state"], wrote["exit_code"], wrote["attempts"]) == ("failed", 9, 1)
    assert (silent["state"], silent["attempts"]) == ("done", 1)
    after = site.submit(["echo out"])
    site.wait(after)
    assert site.lanai("logs", str(after)).stdout == "out\n"


def test_killed_with_a_full_disk_the_next_agent_goes_on(site: Site) -> None:
    """And the one after it, although the first has taken the spool's reserve. What runs is taken over each time.

    The starter ended where it could not write to its log that its agent was gone, and all it ran had to run again.
    """
    batch = site.submit([f"sleep 0.02; echo {number} >> ran" for number in range(300)])
    site.await_lines("ran", 50)
    filler = fill(site)
    eventually(lambda: TROUBLE in trouble(site), what="the node to say so")
    for _ in range(3):
        site.agents["n1"].kill()
        site.start_agent("n1")
        eventually(lambda: TROUBLE in trouble(site), what="the next agent to say so too")
    os.unlink(filler)
    site.wait(batch)
    assert sorted(map(int, site.lines_of("ran"))) == list(range(300))
    assert {(job["state"], job["attempts"]) for job in site.jobs(batch)} == {("done", 1)}
