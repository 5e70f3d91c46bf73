"""Jobs that print without end: no disk is filled, nobody else's output is lost, and what is missing is said.

The node's disk is a small tmpfs, so that one that is too late is noticed.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site

DISK_BYTES = 384 << 20
GONE = re.compile(r"lanai: (\d+) bytes of its standard (output|error) are missing here")

pytestmark = [pytest.mark.netns, pytest.mark.timeout(180)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    yield made
    made.close()


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """The directory of the node n1, which has a disk of its own."""
    directory = site.home / "agents" / "n1"
    directory.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", os.fspath(directory)]
    subprocess.run(words, check=True)
    yield directory
    site.close()
    subprocess.run(["umount", "--lazy", directory], check=True)


def free_bytes(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def test_ten_gigabytes_leave_room_for_everybody_else(site: Site, small_disk: Path) -> None:
    """They come in two streams and end well; another job's output beside them is whole."""
    site.start_agent("n1", "--cpus", "2")
    other = site.submit(["echo before; while [ ! -e go ]; do sleep 0.05; done; seq 20000"])
    eventually(lambda: "before" in site.lanai("logs", str(other)).stdout, what="the other to begin")
    flood = site.submit(["echo first; head -c 10G /dev/zero | tr '\\0' x; echo; echo last; echo err >&2"])
    site.wait(flood, timeout_s=120)
    assert free_bytes(small_disk) > DISK_BYTES // 2
    (site.work / "go").touch()
    site.wait(other)
    assert site.lanai("logs", str(other)).stdout == "before\n" + "".join(f"{n}\n" for n in range(1, 20001))
    shown = site.lanai("logs", str(flood))
    found = GONE.search(shown.stderr)
    assert found is not None, shown.stderr
    whole = len("first\n") + (10 << 30) + len("\nlast\n")
    assert int(found[1]) + len(shown.stdout) == whole
    assert shown.stdout.startswith("first\nxxxx")
    assert shown.stdout.endswith("xxxx\nlast\n")
    assert set(shown.stdout[6:-6]) == {"x"}
    assert "err" in shown.stderr
    assert site.jobs(flood)[0]["outcome"] == "ok"


def test_the_bound_is_a_setting_and_a_follower_is_told_too(site: Site) -> None:
    """While it runs the first and the last part are there; who follows it misses what was let go before it came."""
    site.start_agent("n1", "--cpus", "1", "--output-limit", "4M")
    line = "echo first; head -c 64M /dev/zero | tr '\\0' x; echo; echo middle"
    batch = site.submit([f"{line}; while [ ! -e go ]; do sleep 0.05; done; echo last"])
    taken = site.home / "agents" / "n1" / "starter" / "slot0.out"
    eventually(
        lambda: taken.stat().st_size > 64 << 20 and taken.stat().st_blocks * 512 <= 4 << 20, what="the hole in it"
    )
    running = site.lanai("logs", str(batch))
    follower = site.spawn("logs", "-f", str(batch))
    (site.work / "go").touch()
    followed, told = follower.communicate(timeout=30)
    site.wait(batch)
    ended = site.lanai("logs", str(batch))
    for out, err, end in (
        (running.stdout, running.stderr, "middle\n"),
        (followed, told, "last\n"),
        (ended.stdout, ended.stderr, "last\n"),
    ):
        missing = sum(int(found[1]) for found in GONE.finditer(err))
        assert missing > 56 << 20
        assert out.startswith("first\nxxx")
        assert out.endswith("xxx\nmiddle\n" + end.replace("middle\n", ""))
        assert missing + len(out) == len("first\n") + (64 << 20) + len("\nmiddle\n" + end.replace("middle\n", ""))


def test_without_a_bound_all_is_kept(site: Site) -> None:
    site.start_agent("n1", "--output-limit", "0")
    batch = site.submit(["head -c 8M /dev/zero | tr '\\0' x"])
    site.wait(batch)
    shown = site.lanai("logs", str(batch))
    assert (len(shown.stdout), shown.stderr) == (8 << 20, "")
