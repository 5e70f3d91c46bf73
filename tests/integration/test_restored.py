"""A hub whose state is put back from a backup while its agents run what it has given out since."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_what_was_granted_after_the_backup_is_ended_and_what_it_knew_runs_again(site: Site) -> None:
    """Both batches are running. Of the first the backup knows that it waits, of the second nothing."""
    hub = site.start_hub()
    first = site.submit(["echo first $$ >> log; until [ -e gate ]; do sleep 0.05; done; echo ended >> log"])
    hub.stop()
    shutil.copytree(site.home / "hub", site.home / "backup", ignore=shutil.ignore_patterns("*.sock"))
    hub = site.start_hub()
    site.start_agent("a")
    site.submit(["echo second $$ >> log; sleep 600"])
    lines = site.await_lines("log", 2)
    hub.stop()
    shutil.rmtree(site.home / "hub")
    (site.home / "backup").rename(site.home / "hub")
    told = site.lanai("hub", "restored")
    assert told.stderr == f"lanai: the hub in {site.home}/hub begins epoch 2\n"
    site.start_hub()
    began = {line.split()[0]: int(line.split()[1]) for line in lines}
    for pid in began.values():
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists(), what="what was granted before has ended")
    site.await_lines("log", 3)
    (site.work / "gate").touch()
    site.wait(first)
    assert [line.split()[0] for line in site.lines_of("log")[2:]] == ["first", "ended"]
    assert [job["state"] for job in site.jobs(first)] == ["done"]


def test_a_hub_that_runs_is_not_told_that_it_was_restored(site: Site) -> None:
    site.start_hub()
    told = site.lanai("hub", "restored", ok=False)
    assert told.returncode == 7, told.stderr
    assert "hub is in use by process " in told.stderr


def test_there_has_to_be_something_restored(site: Site) -> None:
    told = site.lanai("hub", "restored", ok=False)
    assert (told.returncode, told.stdout) == (5, "")
    assert told.stderr.startswith("lanai: there is no hub in ")
