"""What a node lacks for a while: its jobs wait, not charged with anything, the reason has a name, and all goes on.

Real shortages: the kernel's limit of processes, of open files, and a real file system that answers with errors.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.processes import eventually
from services.sickfs import SickFs
from services.site import Site, starters
from services.users import needs_root

PIDS = Path("/sys/fs/cgroup/pids")

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    yield made
    made.close()


@pytest.fixture
def shared(site: Site) -> Iterator[SickFs]:
    """A file system that may fall ill, at `work/shared`."""
    needs_root()
    made = SickFs(site.work / "shared")
    yield made
    made.unmount()
    site.close()


@pytest.fixture
def few_processes(site: Site) -> Iterator[Path]:
    """A cgroup that counts processes, empty."""
    needs_root()
    made = PIDS / f"lanai-test-{os.getpid()}"
    made.mkdir()
    yield made
    site.close()
    eventually(lambda: not (made / "cgroup.procs").read_text(), what="the cgroup to be empty")
    made.rmdir()


def why(site: Site, batch: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.lanai("why", str(batch), "--format", "json").stdout)
    return found


def await_stall(site: Site, batch: int, reason: str) -> dict[str, Any]:
    """Until it waits for a shortage to pass, with this reason."""

    def stalled() -> dict[str, Any] | None:
        found = why(site, batch)
        return found if found["code"] == "stalled" and reason in found["verdict"] else None

    found: dict[str, Any] = eventually(stalled, what=f"a stall by {reason}")
    return found


def node(site: Site, name: str = "n1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.lanai("node", "show", name, "--format", "json").stdout)["node"]
    return found


def all_done_at_once(site: Site, batch: int, count: int) -> bool:
    """Whether each of its jobs has had one attempt, which succeeded."""
    return [(job["state"], job["attempts"]) for job in site.jobs(batch)] == [("done", 1)] * count


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EDQUOT])
def test_a_shared_directory_that_is_ill_makes_its_jobs_wait_and_no_others(
    site: Site, shared: SickFs, number: int
) -> None:
    site.start_agent("n1")
    batch = site.submit(["echo x >> ran; sleep 0.05"] * 30, "--dir", str(shared.point))
    eventually(lambda: site.counts(batch).get("done", 0) >= 4, what="the first to end")
    shared.answer(number)
    found = await_stall(site, batch, f"working directory {shared.point}: {os.strerror(number)}")
    assert "n1 cannot begin it now, and is tried again" in found["verdict"]
    eventually(lambda: os.strerror(number) in site.lanai("status", "--columns", "batch,reason").stdout)
    eventually(lambda: node(site)["stalled"] == [batch])
    other = site.submit(["true"] * 20)
    site.wait(other)
    assert all_done_at_once(site, other, 20)
    shared.answer(0)
    site.wait(batch, ok=False)
    ended = site.jobs(batch)
    assert {job["state"] for job in ended} <= {"done", "failed"}
    # One that ran meanwhile could not write, and that is its own exit code; none was charged for not having begun.
    assert all(job["state"] == "done" or job["outcome"] == "exit" for job in ended)
    assert {job["attempts"] for job in ended} == {1}
    assert node(site)["stalled"] == []


def test_a_shared_directory_that_vanishes_and_comes_back(site: Site, shared: SickFs) -> None:
    """Its server dies under a running job, which goes on to its end; what was to begin waits until it is mounted."""
    site.start_agent("n1", "--cpus", "1")
    slow = f"echo > {site.work}/began; while [ ! -e {site.work}/go ]; do sleep 0.05; done"
    batch = site.submit([slow, *["sleep 0.1"] * 10], "--dir", str(shared.point))
    eventually((site.work / "began").exists)
    shared.die()
    (site.work / "go").touch()
    await_stall(site, batch, os.strerror(errno.ENOTCONN))
    shared.mount()
    site.wait(batch, ok=False)
    first, *others = site.jobs(batch)
    assert first["attempts"] == 1
    assert {(job["state"], job["attempts"]) for job in others} == {("done", 1)}


def test_a_quota_that_is_used_up_makes_those_wait_that_write_there(site: Site, shared: SickFs) -> None:
    site.start_agent("n1")
    shared.answer(errno.EDQUOT)
    batch = site.submit(["echo out"] * 8, "--output", f"{shared.point}/%i.out")
    await_stall(site, batch, f"output {shared.point}/")
    assert os.strerror(errno.EDQUOT) in why(site, batch)["verdict"]
    shared.answer(0)
    site.wait(batch)
    assert all_done_at_once(site, batch, 8)
    assert [(shared.point / f"{index}.out").read_text() for index in range(1, 9)] == ["out\n"] * 8


def test_another_node_takes_what_one_cannot_begin(site: Site, shared: SickFs) -> None:
    """In a mount namespace of its own the second node sees what lies below the mount."""
    batch = site.submit(["true"] * 20, "--dir", str(shared.point))
    shared.answer(errno.ESTALE)
    site.start_agent("n1")
    await_stall(site, batch, "n1 cannot begin it now")
    words = f'umount --lazy {shared.point} && exec "$@"'
    site.start_agent("n2", prefix=["unshare", "--mount", "sh", "-c", words, "sh"])
    site.wait(batch)
    assert all_done_at_once(site, batch, 20)
    assert {job["node"] for job in site.jobs(batch)} == {"n2"}


def test_out_of_processes(site: Site, few_processes: Path) -> None:
    """What runs goes on; what does not get a process waits until there is one."""
    site.start_agent("n1", "--cpus", "8")
    site.wait(site.submit(["true"]))
    (starter,) = starters(site.home)
    (few_processes / "cgroup.procs").write_text(str(starter))
    (few_processes / "pids.max").write_text("4")
    os.mkfifo(site.work / "door")
    batch = site.submit(["echo x >> ran; read line < door"] * 8)
    await_stall(site, batch, f"/bin/sh: {os.strerror(errno.EAGAIN)}")
    assert len(site.lines_of("ran")) == 3
    (few_processes / "pids.max").write_text("max")
    site.await_lines("ran", 8)
    door = os.open(site.work / "door", os.O_RDWR)
    os.write(door, b"\n" * 8)
    site.wait(batch)
    os.close(door)
    assert all_done_at_once(site, batch, 8)


def test_out_of_open_files(site: Site) -> None:
    """Of 60 that the node offers the starter can run fewer at once; they all run, and the reason says what to do."""
    site.start_agent("n1", "--cpus", "60", prefix=["prlimit", "--nofile=64:72"])
    os.mkfifo(site.work / "door")
    batch = site.submit(["echo x >> ran; read line < door"] * 60)
    found = await_stall(site, batch, os.strerror(errno.EMFILE))
    assert "start the agent with a higher limit (ulimit -Hn)" in found["verdict"]
    door = os.open(site.work / "door", os.O_RDWR)
    os.write(door, b"\n" * 60)
    site.wait(batch)
    os.close(door)
    assert all_done_at_once(site, batch, 60)
