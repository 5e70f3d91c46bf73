"""What an agent makes of the control groups of a computer: mounts and trees as they were recorded elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lanai.agent.cgroup_mounts import SUBGROUP, Mounted, find
from lanai.agent.cgroups import RECORD, Cgroups, Wishes, _name_of
from lanai.model.errors import UserError

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:30 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:12 - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:13 - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/cpuset rw,nosuid shared:14 - cgroup cgroup rw,cpuset
"""
HYBRID_OWN = """\
12:cpuset:/
11:memory:/system.slice/lanai-agent.service
10:cpu,cpuacct:/system.slice/lanai-agent.service
1:name=systemd:/system.slice/lanai-agent.service
0::/system.slice/lanai-agent.service
"""


def _find(tmp_path: Path, mountinfo: str, cgroup: str) -> list[Mounted]:
    (tmp_path / "mountinfo").write_text(mountinfo)
    (tmp_path / "cgroup").write_text(cgroup)
    return find(mountinfo=tmp_path / "mountinfo", cgroup=tmp_path / "cgroup")


def test_both_versions_at_once(tmp_path: Path) -> None:
    """Named hierarchies and those of other controllers are left out; version 2 comes first."""
    found = _find(tmp_path, HYBRID, HYBRID_OWN)
    own = "system.slice/lanai-agent.service"
    assert [(one.version, one.controllers, str(one.own)) for one in found] == [
        (2, (), f"/sys/fs/cgroup/unified/{own}"),
        (1, ("memory",), f"/sys/fs/cgroup/memory/{own}"),
        (1, ("cpu",), f"/sys/fs/cgroup/cpu,cpuacct/{own}"),
    ]


def test_in_a_container_the_mount_begins_at_its_own_group(tmp_path: Path) -> None:
    line = r"30 29 0:26 /docker/4f /sys/fs/a\040place rw - cgroup cgroup rw,memory"
    (inside,) = _find(tmp_path, line, "4:memory:/docker/4f/lanai\n")
    assert inside.own == Path("/sys/fs/a place/lanai")
    (outside,) = _find(tmp_path, line, "4:memory:/docker/others\n")
    assert outside.own is None
    assert _find(tmp_path, line, "") == [Mounted(version=1, controllers=("memory",), point=inside.point, own=None)]


@pytest.mark.parametrize("said", ["jobs.service", "/jobs.service", "/sys/fs/cgroup/memory/jobs.service"])
def test_another_group_is_used_where_it_is_there(tmp_path: Path, said: str) -> None:
    """Below every mount point. One of version 1 that lacks it keeps to our own: there that does no harm."""
    lines = HYBRID.replace("/sys/fs/cgroup", str(tmp_path))
    (tmp_path / "memory" / "jobs.service").mkdir(parents=True)
    (tmp_path / "mountinfo").write_text(lines)
    (tmp_path / "cgroup").write_text(HYBRID_OWN)
    base = said.replace("/sys/fs/cgroup", str(tmp_path))
    found = find(base, mountinfo=tmp_path / "mountinfo", cgroup=tmp_path / "cgroup")
    agents = "system.slice/lanai-agent.service"
    assert [(str(one.own), str(one.inside)) for one in found] == [
        (f"{tmp_path}/unified/jobs.service", f"{tmp_path}/unified/{agents}"),
        (f"{tmp_path}/memory/jobs.service", f"{tmp_path}/memory/{agents}"),
        (f"{tmp_path}/cpu,cpuacct/{agents}", f"{tmp_path}/cpu,cpuacct/{agents}"),
    ]


def test_a_group_that_is_asked_for_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Whoever has asked for limits by the kernel is not to go without, unnoticed."""
    (tmp_path / "mountinfo").write_text(HYBRID.replace("/sys/fs/cgroup", str(tmp_path)))
    (tmp_path / "cgroup").write_text(HYBRID_OWN)
    with pytest.raises(UserError, match="there is no control group") as error:
        find("jobs.service", mountinfo=tmp_path / "mountinfo", cgroup=tmp_path / "cgroup")
    assert (error.value.code, error.value.exit_code) == ("no_cgroup_base", 2)
    assert "start the unit" in error.value.hint


def test_where_nothing_is_mounted_nothing_is_found(tmp_path: Path) -> None:
    assert find(mountinfo=tmp_path / "none", cgroup=tmp_path / "none") == []
    assert _find(tmp_path, "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "0::/\n") == []
    facts = dict(Cgroups(tmp_path, Wishes(user_processes=5), []).facts())
    assert facts == {
        "cgroups": "none",
        "memory_limit": "by looking at its processes twice a second (no cgroups are mounted)",
        "cpu_limit": "none",
        "process_limit": "none (no cgroups are mounted)",
        "kill": "by the process table (no cgroups are mounted)",
        "freeze": "not possible (no cgroups are mounted)",
    }


class Delegated:
    """A group of version 2 as a service manager hands it over, as files: what the kernel would do with them is not."""

    def __init__(self, top: Path, state: Path, *, inside: tuple[int, ...], group: str = "lanai-agent.service") -> None:
        self.group = top / group
        state.mkdir()
        controllers = "cpuset cpu io memory pids"
        for path in (self.group, self.group / SUBGROUP, self.group / _name_of(state)):
            path.mkdir(exist_ok=True, parents=True)
            for name in ("cgroup.subtree_control", "cgroup.procs", "cgroup.kill", "cgroup.freeze", "cpu.weight"):
                (path / name).touch()
            (path / "cgroup.controllers").write_text(controllers)
            (path / "cgroup.type").write_text("domain")
        (self.group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in inside))
        self.mounted = Mounted(version=2, controllers=("memory", "cpu", "pids"), point=top, own=self.group)
        self.base = self.group / _name_of(state)

    def said(self, path: Path) -> str:
        return (path / "cgroup.subtree_control").read_text()


def test_a_delegated_group_is_divided_and_the_agent_moves_aside(tmp_path: Path) -> None:
    """Version 2 has no processes in a group that shares out memory: the agent alone is in there, and goes first."""
    unit = Delegated(tmp_path / "v2", tmp_path / "state", inside=(os.getpid(),))
    cgroups = Cgroups(tmp_path / "state", Wishes(cpu="weight", user_processes=9), [unit.mounted])
    assert (unit.group / SUBGROUP / "cgroup.procs").read_text() == str(os.getpid())
    # What was written last, over what was before: these are plain files.
    assert unit.said(unit.group).startswith("+pids") and unit.said(unit.base).startswith("+pids")
    assert cgroups.limits_memory and cgroups.limits_cpu and not cgroups.problems
    assert dict(cgroups.facts()) == {
        "cgroups": f"/{unit.group.name}/{unit.base.name} (v2)",
        "memory_limit": "by cgroup v2",
        "cpu_limit": "by cgroup v2 (weight)",
        "process_limit": "by cgroup v2, 9 a user",
        "kill": "by cgroup v2",
        "freeze": "by cgroup v2",
    }


def test_a_group_with_others_in_it_cannot_be_divided(tmp_path: Path) -> None:
    """A login session, say: its shell is in there too. To kill and to freeze, no controller is needed."""
    session = Delegated(tmp_path / "v2", tmp_path / "state", inside=(os.getpid(), 1, 2))
    cgroups = Cgroups(tmp_path / "state", Wishes(), [session.mounted])
    assert (session.group / SUBGROUP / "cgroup.procs").read_text() == ""
    assert not cgroups.limits_memory and cgroups.has_use_for_memory
    facts = dict(cgroups.facts())
    assert facts["memory_limit"] == (
        "by looking at its processes twice a second "
        f"(2 other processes are in {session.group}, which therefore cannot be divided)"
    )
    assert facts["kill"] == facts["freeze"] == "by cgroup v2"


def test_what_was_divided_before_is_used_as_it_is(tmp_path: Path) -> None:
    """The agent is started again, beside what its last one left; the others in there are its starters."""
    unit = Delegated(tmp_path / "v2", tmp_path / "state", inside=())
    (unit.group / "cgroup.subtree_control").write_text("memory pids")
    cgroups = Cgroups(tmp_path / "state", Wishes(), [unit.mounted])
    assert unit.said(unit.group) == "memory pids" and cgroups.limits_memory


def test_the_record_leads_to_the_groups_of_an_earlier_agent(tmp_path: Path) -> None:
    """Started by hand from another session this time: what its starter runs is still where it was."""
    first = Delegated(tmp_path / "v2", tmp_path / "state", inside=(), group="session-1.scope")
    (first.group / "cgroup.subtree_control").write_text("memory")
    Cgroups(tmp_path / "state", Wishes(), [first.mounted])
    elsewhere = first.group.with_name("session-2.scope")
    elsewhere.mkdir()
    moved = Mounted(version=2, controllers=(), point=tmp_path / "v2", own=elsewhere)
    assert Cgroups(tmp_path / "state", Wishes(), [moved]).limits_memory
    assert not list(elsewhere.iterdir())
    assert str(first.base) in (tmp_path / "state" / RECORD).read_text()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "own").touch()
    own = tmp_path / "v1" / "own"  # no directory: even root cannot make one in there
    cgroups = Cgroups(
        tmp_path / "state",
        Wishes(cpu="quota"),
        [
            Mounted(version=1, controllers=("memory",), point=tmp_path / "v1", own=own),
            Mounted(version=1, controllers=("cpu",), point=tmp_path / "v1b", own=None),
        ],
    )
    facts = dict(cgroups.facts())
    assert facts["memory_limit"].endswith(f"(cannot make groups in {own}: Not a directory)")
    assert facts["cpu_limit"] == f"none (this process's group is not below {tmp_path / 'v1b'})"
    assert cgroups.of("anna") is None


@pytest.mark.parametrize(
    ("user", "name"), [("anna", "u-anna"), ("a_b-9", "u-a_b-9"), ("a.b", "u-hex.612e62"), ("..", "u-hex.2e2e")]
)
def test_every_user_has_a_directory_of_his_own(tmp_path: Path, user: str, name: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "own").mkdir()
    mounted = Mounted(version=1, controllers=("memory",), point=tmp_path, own=tmp_path / "own")
    groups = Cgroups(tmp_path / "state", Wishes(), [mounted]).of(user)
    assert groups is not None
    groups.open()
    (base,) = (tmp_path / "own").iterdir()
    assert [path.name for path in base.iterdir()] == [name]
