"""Whether tests can make control groups here, and what a job may try to get out of its own."""

from __future__ import annotations

import atexit
import functools
import os
from pathlib import Path

import pytest

from lanai.agent import cgroup_mounts
from lanai.agent.cgroup_tree import enable, others_in, put, remove, words

ESCAPES = """
import os, sys
def tries(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        return error.strerror
    return "done"
points = {}
for line in open("/proc/self/mounts"):
    _, point, kind, options, *_ = line.split()
    if kind in ("cgroup", "cgroup2"):
        points[point] = [""] if kind == "cgroup2" else options.split(",")
for line in open("/proc/self/cgroup"):
    _, names, path = line.strip().split(":", 2)
    root = next(point for point, of in points.items() if names.split(",")[0] in of)
    group = root + path
    if "/u-" in path and os.path.isdir(group):
        above = os.path.dirname(group)
        for target in (group, above, above + "/main", root):
            print(tries(target + "/cgroup.procs", str(os.getpid())))
        for name in ("memory.limit_in_bytes", "memory.max", "cgroup.kill", "cgroup.freeze", "cpu.cfs_quota_us"):
            if os.path.exists(f"{group}/{name}"):
                print(tries(f"{group}/{name}", "1"))
        try:
            os.mkdir(group + "/mine")
            print("done")
        except OSError as error:
            print(error.strerror)
starter = os.getppid()
try:
    print(os.listdir(f"/proc/{starter}/fd") and "done")
except OSError as error:
    print(error.strerror)
print(tries(f"/proc/{starter}/mem", "x"))
open_ = os.listdir("/proc/self/fd")
print(sorted(int(number) for number in open_ if os.path.exists(f"/proc/self/fd/{number}")))
print("as", os.getuid())
"""


def assert_kept_in(said: str, uid: int) -> None:
    """What `ESCAPES` said, run as that user by a starter that is not his to look into."""
    *tried, descriptors, as_ = said.splitlines()
    assert len(tried) > 8 and set(tried) == {"Permission denied"}, said
    assert (descriptors, as_) == ("[0, 1, 2]", f"as {uid}")


def needs_cgroups() -> None:
    """Fail in CI, and leave the test out aloud elsewhere, where none can be made that limit memory."""
    _make_room()
    if any("memory" in one.controllers and _can_divide(one) for one in cgroup_mounts.find()):
        return
    if os.environ.get("CI"):
        pytest.fail("this test makes cgroups, for which it has to be root where they are mounted writable")
    pytest.skip("makes cgroups: run it as root, where they are mounted writable")


def _can_divide(one: cgroup_mounts.Mounted) -> bool:
    if one.own is None or not os.access(one.own, os.W_OK):
        return False
    return one.version == 1 or "memory" in words(one.own / "cgroup.subtree_control") or not others_in(one.own)


@functools.cache
def _make_room() -> None:
    """Version 2 divides no group that has processes in it: where there is nothing else, pytest gets one for itself."""
    mounted = cgroup_mounts.find()
    if os.geteuid() != 0 or any(map(_can_divide, mounted)):
        return
    for one in mounted:
        if one.version == 2 and "memory" in words(one.point / "cgroup.controllers"):
            home = one.point / Path("/proc/self/cgroup").read_text().rpartition("::/")[2].strip()
            group = one.point / f"lanai-test-{os.getpid()}"
            try:
                enable(one.point, ("memory", "cpu", "pids"))
                (group / cgroup_mounts.SUBGROUP).mkdir(parents=True)
                put(group / cgroup_mounts.SUBGROUP / "cgroup.procs", str(os.getpid()))
            except OSError:
                return  # a container's topmost group cannot be divided either
            atexit.register(_leave, home, group)


def _leave(home: Path, group: Path) -> None:
    put(home / "cgroup.procs", str(os.getpid()))
    remove(group)
