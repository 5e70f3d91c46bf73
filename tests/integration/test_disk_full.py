"""The hub's disk is full: a clear state, nothing lost, and it goes on when there is room again. A real small tmpfs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site

SIZE_MIB = 48

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The hub's directory is a small tmpfs, mounted for the test and gone after it."""
    made = Site(tmp_path / "site")
    directory = made.home / "hub"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", directory], check=True)
    try:
        made.start_hub()
        yield made
    finally:
        made.close()
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(site: Site) -> Path:
    """Take every byte that is left."""
    path = site.home / "hub" / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass
        try:
            while True:
                file.write(b"\0")
        except OSError:
            pass
    return path


def store_state(site: Site) -> str:
    return str(json.loads(site.lanai("hub", "status", "--format", "json").stdout)["store"])


def test_results_go_in_submissions_are_refused_and_all_goes_on_with_space(site: Site) -> None:
    site.start_agent("n1")
    batch = site.submit([f"sleep 0.02; echo {number} >> ran" for number in range(600)])
    site.await_lines("ran", 50)
    filler = fill(site)
    eventually(lambda: store_state(site) == "full", within_s=30, what="the hub to say that its disk is full")
    refused = site.lanai("submit", "-", stdin="true\n", ok=False)
    assert refused.returncode == 7
    assert "full" in refused.stderr
    assert "Traceback" not in refused.stderr
    os.unlink(filler)
    eventually(lambda: store_state(site) == "ok", within_s=60, what="the hub to go on")
    site.wait(batch)
    assert sorted(map(int, site.lines_of("ran"))) == list(range(600))
    assert site.counts(batch) == {"done": 600}
    site.wait(site.submit(["true"]))


def test_killed_with_a_full_disk_it_starts_and_nothing_is_lost(site: Site) -> None:
    """The hub refuses what it cannot keep, so a kill in that state loses nothing that was acknowledged."""
    site.start_agent("n1")
    batch = site.submit([f"sleep 0.02; echo {number} >> ran" for number in range(300)])
    site.await_lines("ran", 30)
    filler = fill(site)
    eventually(lambda: store_state(site) == "full", within_s=30, what="the hub to say that its disk is full")
    assert site.hub is not None
    site.hub.kill()
    os.unlink(filler)
    site.start_hub()
    site.wait(batch)
    assert sorted(map(int, site.lines_of("ran"))) == list(range(300))
    assert site.counts(batch) == {"done": 300}


def test_everybody_who_asks_is_told(site: Site) -> None:
    site.start_agent("n1")
    batch = site.submit(["echo >> began; while [ ! -e go ]; do sleep 0.02; done"] * 5)
    site.await_lines("began", 2)
    filler = fill(site)
    site.lanai("submit", "-", stdin="".join(f"true {number:0200}\n" for number in range(5000)), ok=False)
    eventually(lambda: store_state(site) == "full", within_s=30, what="the hub to say that its disk is full")
    told = f"lanai: the hub's disk is full; it goes on by itself when there is room in {site.home / 'hub'}"
    watching = site.spawn("watch", str(batch))
    assert told in site.lanai("status").stderr
    assert told in site.lanai("hub", "status").stderr
    why = json.loads(site.lanai("why", str(batch), "--format", "json").stdout)
    assert (why["code"], "the hub's disk is full" in why["verdict"]) == ("disk_full", True)
    assert watching.stderr is not None
    assert "the hub's disk is full, it goes on when there is room" in watching.stderr.readline()
    os.unlink(filler)
    eventually(lambda: store_state(site) == "ok", within_s=60, what="the hub to go on")
    (site.work / "go").touch()
    site.wait(batch)
    assert watching.wait(30) == 0
    assert "disk is full" not in site.lanai("status").stderr + site.lanai("hub", "status").stderr
