"""The control groups of an agent: what can be done with them on this computer, and the tree of them that it makes.

    BASE/u-NAME/main     a user's starter, and what it runs without a limit
    BASE/u-NAME/7        a leaf: what one attempt with a limit has started

There is such a tree in each hierarchy that is used. BASE lies in the agent's own group, or in the one that it is told
to use, and is named after the agent's state directory, so that agents do not meet; a starter outlives its agent, and
the next agent of that directory finds its groups again by the record in there. Where nothing can be made, nothing is
limited by the kernel, and the reasons are among `facts`. Nothing here knows of attempts: the starter takes them in
(`starter_cgroups`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from lanai.agent.cgroup_mounts import Mounted, find
from lanai.agent.cgroup_tree import (
    enable,
    end,
    members,
    move_aside,
    open_as,
    others_in,
    put,
    remove,
    remove_empty,
    share,
    words,
)
from lanai.agent.starter_cgroups import DIRECTORY, ENTER, MEMBERS
from lanai.model.settings import CpuLimit

RECORD: Final = "cgroups.json"
MAIN: Final = "main"
_USER: Final = "u-"
_WRITE, _READ, _BOTH = os.O_WRONLY, os.O_RDONLY, os.O_RDWR
# The kernel's files by controller, "" for those of every group, and how each is to be opened.
_FILES: Final[dict[int, dict[str, tuple[tuple[str, int], ...]]]] = {
    2: {
        "": (
            *(("cgroup.kill", _WRITE), ("cgroup.freeze", _WRITE)),
            *(("cgroup.events", _READ), ("cpu.stat", _READ)),
        ),
        "memory": (
            *(("memory.max", _WRITE), ("memory.peak", _BOTH)),
            *(("memory.events", _READ), ("memory.current", _READ)),
        ),
        "cpu": (("cpu.max", _WRITE), ("cpu.weight", _WRITE)),
    },
    1: {
        "memory": (
            *(("memory.limit_in_bytes", _WRITE), ("memory.memsw.limit_in_bytes", _WRITE)),
            *(("memory.max_usage_in_bytes", _BOTH), ("memory.usage_in_bytes", _READ)),
            ("memory.oom_control", _READ),
        ),
        "cpu": (("cpu.shares", _WRITE), ("cpu.cfs_quota_us", _WRITE)),
        "freezer": (("freezer.state", _BOTH),),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the configuration wants of control groups.

    Attributes:
        are_used: False for none at all.
        cpu: whether an attempt gets a share of the cpus by what it asks for, that and no more, or whatever it takes.
        user_processes: how many processes a user may have here at most; 0 for no limit.
        cpu_milli: what the node offers.
        base: the group that ours are to lie in, as `cgroup_mounts.find` takes it; None for the agent's own.
        for_users: starters are other users' processes: root's agent then gives them no rights of its own.
    """

    are_used: bool = True
    cpu: CpuLimit = "none"
    user_processes: int = 0
    cpu_milli: int = 1000
    base: str | None = None
    for_users: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One hierarchy that is used: where it is mounted, where the agent's groups are in it, and for what."""

    version: int
    point: Path
    base: Path
    controllers: tuple[str, ...]

    @property
    def has_leaves(self) -> bool:
        """Whether attempts have groups of their own in it; processes are counted by user only."""
        return self.version == 2 or self.controllers != ("pids",)


class NewLeaf(NamedTuple):
    """A leaf just made: its number, and the descriptors to be passed to the starter, whose owner is the caller."""

    number: int
    files: list[str]
    descriptors: list[int]


class Cgroups:
    """What one agent has of control groups.

    Args:
        state: the agent's directory.
        wishes: what is configured.
        mounted: the hierarchies of this computer; None to look.

    Attributes:
        limits_memory: whether the kernel limits the memory of attempts here.
        limits_cpu: whether it shares out the cpus as is wished.
        cpu: how that is.
        ways: what is done by which version of control groups, by the names of `facts`.
        problems: what is not, and why.

    Raises:
        UserError: the group that is to be used is not there.
    """

    def __init__(self, state: Path, wishes: Wishes, mounted: list[Mounted] | None = None) -> None:
        self._record = state / RECORD
        self._wishes = wishes
        self._trees: list[Tree] = []
        self.ways: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self.cpu = wishes.cpu
        if wishes.are_used:
            self._name = _name_of(state)
            self._known = _recorded(self._record)
            self._make(find(wishes.base) if mounted is None else mounted)
        else:
            self.problems = dict.fromkeys(("memory", "cpu", "pids", "kill", "freeze"), 'cgroups = "none"')
        self.limits_memory = "memory" in self.ways
        self.limits_cpu = "cpu" in self.ways

    @property
    def has_use_for_memory(self) -> bool:
        """Whether a group serves an attempt that has a memory limit: where it is not kept by the kernel, to end it."""
        return self.limits_memory or "kill" in self.ways

    def facts(self) -> tuple[tuple[str, str], ...]:
        """What is limited here and how, for people: (name, text)."""
        cpu, most = self.cpu, self._wishes.user_processes
        texts = {
            "cgroups": self._places(),
            "memory_limit": self._way("memory", "by looking at its processes twice a second"),
            "cpu_limit": "none" if cpu == "none" else self._way("cpu", "none", f" ({cpu})"),
            "process_limit": "none" if not most else self._way("pids", "none", f", {most} a user"),
            "kill": self._way("kill", "by the process table"),
            "freeze": self._way("freeze", "not possible"),
        }
        return tuple(texts.items())

    def _places(self) -> str:
        """Where the groups are, below the mount points, and of which version; they may lie apart."""
        kinds: dict[str, list[str]] = {}
        for tree in self._trees:
            kind = "v2" if tree.version == 2 else " ".join(("v1", *tree.controllers))
            kinds.setdefault(f"/{tree.base.relative_to(tree.point)}", []).append(kind)
        return ", ".join(f"{place} ({', '.join(of)})" for place, of in kinds.items()) or "none"

    def _way(self, what: str, else_: str, detail: str = "") -> str:
        if what in self.ways:
            return f"by cgroup {self.ways[what]}{detail}"
        problem = self.problems.get(what, "")
        return f"{else_} ({problem})" if problem else else_

    def of(self, user: str) -> UserGroups | None:
        """The groups of one user, not made yet; None where there are none to be had."""
        return UserGroups(self._trees, user, self._wishes) if self._trees else None

    def close(self) -> None:
        """Remove what is ours where no user has groups any more; else it stays for the next agent of this directory."""
        for tree in self._trees:
            remove_empty(tree.base)
        if not any(tree.base.exists() for tree in self._trees):
            self._record.unlink(missing_ok=True)

    def left(self) -> list[Path]:
        """The directories of all groups that there are."""
        return [Path(directory) for tree in self._trees for directory, _, _ in os.walk(tree.base)]

    # -- finding and making

    def _make(self, mounted: list[Mounted]) -> None:
        if not mounted:
            self.problems = dict.fromkeys(("memory", "cpu", "pids", "kill", "freeze"), "no cgroups are mounted")
            return
        wanted = ["memory"] + ["cpu"] * (self._wishes.cpu != "none") + ["pids"] * bool(self._wishes.user_processes)
        for one in mounted:
            needed = [name for name in wanted if name not in self.ways and name in one.controllers]
            if "freezer" in one.controllers and "freeze" not in self.ways:
                needed.append("freezer")
            try:
                if one.version == 2:
                    self._use_v2(one, wanted)
                elif needed:
                    self._use_v1(one, needed)
            except OSError as error:
                self._miss(needed, f"{error.filename or one.point}: {error.strerror}")
        for name in (*wanted, "kill", "freeze"):
            if name in self.ways:
                self.problems.pop(name, None)
            else:
                self.problems.setdefault(name, "no cgroup controller for it is there")
        self._write_record()

    def _use_v1(self, one: Mounted, needed: list[str]) -> None:
        base = self._base(one, needed)
        if base is None:
            return
        tree = Tree(version=1, point=one.point, base=base, controllers=tuple(needed))
        if "cpu" in needed:
            share(base, tree.version, self._wishes.cpu_milli)
        self._trees.append(tree)
        self.ways.update({"freeze" if name == "freezer" else name: "v1" for name in needed})
        if "freezer" in needed:
            self.ways.setdefault("kill", "v1")

    def _use_v2(self, one: Mounted, wanted: list[str]) -> None:
        base = self._base(one, [*(name for name in wanted if name in one.controllers), "kill", "freeze"])
        if base is None:
            return
        offered = [name for name in wanted if name in words(base.parent / "cgroup.controllers")]
        got = self._divide(base.parent, offered)
        if self._wishes.for_users and not got:
            remove(base)
            self._miss(["kill", "freeze"], "a group of version 2 without a controller does not hold its user")
            return
        tree = Tree(version=2, point=one.point, base=base, controllers=tuple(got))
        enable(base, got)
        if "cpu" in got:
            share(base, tree.version, self._wishes.cpu_milli)
        self._trees.append(tree)
        self.ways.update(dict.fromkeys(got, "v2"))
        for name, file in (("kill", "cgroup.kill"), ("freeze", "cgroup.freeze")):
            if (base / file).exists():
                self.ways[name] = "v2"
            else:
                self.problems[name] = "the kernel is too old for it"

    def _base(self, one: Mounted, needed: Iterable[str]) -> Path | None:
        """Its directory in this hierarchy: the one that an earlier agent had, if it is still there."""
        for path in self._known:
            if path.is_relative_to(one.point) and path.is_dir() and self._is_to_be_kept(path, one):
                return path
        if one.own is None:
            self._miss(needed, f"this process's group is not below {one.point}")
            return None
        if one.version == 2 and (closed := _closed_between(one)) is not None:
            self._miss(needed, f"cannot move processes to {one.own}: {closed} is not ours to write")
            return None
        base = one.own / self._name
        try:
            base.mkdir(exist_ok=True)
        except OSError as error:
            self._miss(needed, f"cannot make groups in {one.own}: {error.strerror}")
            return None
        return base

    def _is_to_be_kept(self, path: Path, one: Mounted) -> bool:
        """Whether an earlier agent's directory serves: unless another is asked for, and nothing runs in this one."""
        if self._wishes.base is None or path.parent == one.own or any(members(path)):
            return True
        remove(path)
        return False

    def _divide(self, group: Path, offered: list[str]) -> list[str]:
        """Let the groups below share out these; returns those for which that can be done."""
        enabled = words(group / "cgroup.subtree_control")
        missing = [name for name in offered if name not in enabled]
        if missing and (group / "cgroup.type").exists():
            if self._wishes.base is None and (others := others_in(group)):
                self._miss(missing, f"{others} other processes are in {group}, which therefore cannot be divided")
                return [name for name in offered if name in enabled]
            move_aside(group)
        got = [name for name in offered if name in enabled]
        for name in missing:
            try:
                put(group / "cgroup.subtree_control", f"+{name}")
                got.append(name)
            except OSError as error:
                self._miss([name], f"{group} cannot be divided: {error.strerror}")
        return got

    def _miss(self, names: Iterable[str], why: str) -> None:
        for name in names:
            self.problems.setdefault("freeze" if name == "freezer" else name, why)

    def _write_record(self) -> None:
        """Where the disk is full the last one stays; without it, the next agent finds those in its own group only."""
        made = self._record.with_suffix(".new")
        try:
            with open(made, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(json.dumps([os.fspath(tree.base) for tree in self._trees]) + "\n")
            made.replace(self._record)
        except OSError:
            made.unlink(missing_ok=True)


class UserGroups:
    """The groups of one user's starter. Everything may be repeated; OSError where the kernel refuses."""

    def __init__(self, trees: list[Tree], user: str, wishes: Wishes) -> None:
        self._trees = trees
        self._user = user
        self._uid = 0
        self._name = _USER + _plain(user)
        self._wishes = wishes
        self._next = 1

    def open(self) -> None:
        """Make them, with what holds for all of the user's. Raises OSError, also where nobody is called so."""
        if self._wishes.for_users:
            self._uid = _uid_of(self._user)
        for tree in self._trees:
            group = tree.base / self._name
            group.mkdir(exist_ok=True)
            if tree.version == 2:
                enable(group, tree.controllers)
                if self._uid:
                    # Who moves a process between two groups has to be allowed to write to the one above both. That
                    # takes no processes itself, since it shares out controllers.
                    os.chown(group / "cgroup.procs", self._uid, -1)
            if "pids" in tree.controllers:
                put(group / "pids.max", str(self._wishes.user_processes or "max"))
            if tree.has_leaves:
                (group / MAIN).mkdir(exist_ok=True)
            if "cpu" in tree.controllers:
                share(group, tree.version, self._wishes.cpu_milli)
                share(group / MAIN, tree.version, self._wishes.cpu_milli)
        self._next = 1 + max(map(int, self._leaves()), default=0)

    def admit(self, pid: int) -> None:
        """Take a process in: the starter, before it has started anything."""
        for tree in self._trees:
            group = tree.base / self._name
            put((group / MAIN if tree.has_leaves else group) / "cgroup.procs", str(pid))

    def doors(self) -> list[int]:
        """Descriptors by which a process gets back into `main` from a leaf, one for each hierarchy; the caller's."""
        opened: list[int] = []
        for tree in self._with_leaves():
            self._open_door(opened, tree.base / self._name / MAIN / _door(tree))
        return opened

    def _open_door(self, opened: list[int], path: Path) -> None:
        """By this a starter moves itself. If it were root's, whoever got hold of a starter could move anybody."""
        if self._uid:
            opened.append(open_as(path, self._uid))
        else:
            _open(opened, path, _WRITE)

    def make_leaf(self) -> NewLeaf:
        """A new leaf, without limits. Raises OSError, with nothing left of it."""
        number = self._next
        self._next += 1
        files: list[str] = []
        opened: list[int] = []
        try:
            for tree in self._with_leaves():
                leaf = tree.base / self._name / str(number)
                leaf.mkdir()
                self._open_leaf(tree, leaf, files, opened)
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            self.drop_leaves([number])
            raise
        return NewLeaf(number, files, opened)

    def _open_leaf(self, tree: Tree, leaf: Path, files: list[str], opened: list[int]) -> None:
        if "memory" in tree.controllers and tree.version == 2:
            # The limit includes swap; where one process has to be ended, what the others make of it is of no use.
            for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
                if (leaf / name).exists():
                    put(leaf / name, value)
        self._open_door(opened, leaf / _door(tree))
        files.append(ENTER)
        if not {MEMBERS, DIRECTORY}.intersection(files):
            _open(opened, leaf / "cgroup.procs" if tree.version == 2 else leaf, _READ)
            files.append(MEMBERS if tree.version == 2 else DIRECTORY)
        for controller in ("", *tree.controllers):
            for name, how in _FILES[tree.version].get(controller, ()):
                if (leaf / name).exists():
                    _open(opened, leaf / name, how)
                    files.append(name)

    def drop_leaves(self, numbers: Iterable[int]) -> None:
        """Remove leaves that the starter has given back; what it should not have left in one is ended."""
        for number in numbers:
            end([tree.base / self._name / str(number) for tree in self._with_leaves()])

    def keep_leaves(self, numbers: Iterable[int]) -> set[int]:
        """Remove all leaves but these, which the starter has; returns those of them that there are."""
        there = set(map(int, self._leaves()))
        kept = there.intersection(numbers)
        self.drop_leaves(there - kept)
        return kept

    def kill(self) -> None:
        """End all that the user's starter has started, and the starter itself, and remove their groups."""
        end([tree.base / self._name for tree in self._trees])

    def _with_leaves(self) -> Iterator[Tree]:
        return (tree for tree in self._trees if tree.has_leaves)

    def _leaves(self) -> set[str]:
        groups = [tree.base / self._name for tree in self._with_leaves()]
        return {name for group in groups if group.is_dir() for name in os.listdir(group) if name.isdigit()}


def _closed_between(one: Mounted) -> Path | None:
    """The file that keeps us from moving processes from our own group into `one.own`; None where nothing does."""
    if one.own is None or one.inside is None or one.inside == one.own:
        return None
    door = Path(os.path.commonpath([one.inside, one.own]), "cgroup.procs")
    return None if os.access(door, os.W_OK) else door


def _door(tree: Tree) -> str:
    """By which file a process gets into a group: in version 1 that for a single thread, which holds up nobody."""
    return "cgroup.procs" if tree.version == 2 else "tasks"


def _open(opened: list[int], path: Path, how: int) -> None:
    try:
        opened.append(os.open(path, how | os.O_CLOEXEC))
    except PermissionError:
        if how != _BOTH:
            raise
        opened.append(os.open(path, _READ | os.O_CLOEXEC))


def _uid_of(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no user {user}") from None


def _plain(user: str) -> str:
    """A name that can be a directory's, another one for each user."""
    if user.replace("_", "a").replace("-", "a").isalnum() and user.isascii():
        return user
    return "hex." + user.encode("utf-8", "surrogateescape").hex()


def _name_of(state: Path) -> str:
    status = state.stat()
    told = f"{status.st_dev}:{status.st_ino}:{state.resolve()}"
    return "lanai-" + hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _recorded(record: Path) -> list[Path]:
    try:
        return [Path(path) for path in json.loads(record.read_text())]
    except (OSError, ValueError, TypeError):
        return []


def left_in(state: Path) -> set[int]:
    """The processes in the groups of whatever agent was last in a state directory."""
    return {pid for base in _recorded(state / RECORD) for pid in members(base)}


def remove_left(state: Path) -> None:
    """End what is in those groups, and remove them: for when no agent will come to this state directory any more."""
    end(_recorded(state / RECORD))
    (state / RECORD).unlink(missing_ok=True)
