"""The kernel's control groups of attempts: made by the agent; entered, read and ended here.

Standard library only, part of the starter. A *leaf* is the group of one attempt at a time: a directory of the kernel's
in each hierarchy that is used. The agent makes it and passes descriptors of its files over the socket, since the kernel
looks at the rights of whoever opened a file: commands, which have no such descriptors, can neither leave their leaf nor
change it.

Theory of operation. What is started inherits the groups of who starts it. So this process enters the leaf itself,
spawns as always, and goes back to its own group, *main*: a few short writes, where a fork that could move the child
alone costs more than the whole spawn. While it is in there the leaf has no memory limit; that is set right after.
Otherwise the kernel, looking for something to end in a group that is too small even for an exec, would find us. What a
command takes in those microseconds is counted, and if it is more than its limit, that is noticed when the limit is set.

A leaf is used again once it is empty. One in which an ended attempt has left something alive is kept until that is
gone. One that holds much memory still (files that its attempt has read) goes back to the agent: that memory would count
as the next attempt's.
"""

import errno
import os
import signal
from typing import NamedTuple

from lanai.agent import starter_processes as processes
from lanai.agent.starter_command import CannotStart, Spec

CPU_PERIOD_US = 100_000
ENTER = "enter"
MEMBERS = "members"
DIRECTORY = "directory"
_KEPT_BYTES = (8 << 20) + (256 << 10) * (os.cpu_count() or 1)  # the kernel charges ahead, for each cpu
_NEAR_BYTES = 2 << 20  # one large page
_READ_BYTES = 64 << 10
_UNLIMITED = {"memory.memsw.limit_in_bytes": b"-1", "memory.limit_in_bytes": b"-1", "memory.max": b"max"}
_LEAST_QUOTA_US = 1_000


class LeafGone(Exception):
    """The leaf was removed by somebody; nothing can be started in there."""


class Counted(NamedTuple):
    """What one attempt took, all its processes together; None where the kernel does not say."""

    memory_peak_bytes: int | None
    user_us: int | None
    system_us: int | None


class Leaf:
    """The group of one attempt. Owns its descriptors.

    Args:
        number: the agent's name for it.
        names: what each descriptor is: `enter`; `members` (version 2) or `directory`; else a file of the kernel's.
        descriptors: as many.
    """

    def __init__(self, number: int, names: list[str], descriptors: list[int]) -> None:
        self.number = number
        self._descriptors = descriptors
        self._doors = [fd for name, fd in zip(names, descriptors, strict=True) if name == ENTER]
        self._files = {name: fd for name, fd in zip(names, descriptors, strict=True) if name != ENTER}
        if not self._doors or not self._files.keys() & {MEMBERS, DIRECTORY}:
            raise ValueError(f"leaf {number} has no door, or hides who is in it")
        self.has_memory = bool(self._files.keys() & _UNLIMITED.keys())
        self._cpu: tuple[str, int] | None = None
        self._counts_anew = True
        self._time_before: tuple[int, int] | None = None
        self._peak_before = self._kills_before = self._hits_before = 0

    def close(self) -> None:
        """Closes the descriptors; the group itself is the agent's."""
        for descriptor in self._descriptors:
            os.close(descriptor)

    # Being entered

    def enter(self, spec: Spec) -> None:
        """Takes this process in, for the moment of a spawn, and counts anew.

        Raises:
            LeafGone: another is to be taken.
            CannotStart: outcome node. In either case we may be in some of its hierarchies, and have to `go_home`.
        """
        try:
            if self._cpu != (spec.leaf_cpu, spec.cpu_milli):
                self._share_cpu(spec.leaf_cpu, spec.cpu_milli)
            self._begin_count()
            for door in self._doors:
                os.write(door, b"0")
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENOENT):
                raise LeafGone from None
            raise CannotStart("node", None, f"entering its cgroup: {os.strerror(error.errno or 0)}") from None

    def _share_cpu(self, how: str, cpu_milli: int) -> None:
        quota_us = max(_LEAST_QUOTA_US, CPU_PERIOD_US * cpu_milli // 1000) if how == "quota" else 0
        share_milli = cpu_milli if how else 1000
        self._write("cpu.max", b"%d %d" % (quota_us, CPU_PERIOD_US) if quota_us else b"max")
        self._write("cpu.cfs_quota_us", b"%d" % (quota_us or -1))
        self._write("cpu.weight", b"%d" % min(max(share_milli // 10, 1), 10_000))
        self._write("cpu.shares", b"%d" % min(max(share_milli * 1024 // 1000, 2), 262_144))
        self._cpu = how, cpu_milli

    def _begin_count(self) -> None:
        self._time_before = self._time()
        if not self.has_memory:
            return
        for name, value in _UNLIMITED.items():
            self._write(name, value)
        try:
            if not self._write("memory.max_usage_in_bytes", b"0"):
                self._write("memory.peak", b"0")
        except OSError:
            self._counts_anew = False  # before Linux 6.12
        self._peak_before = self.peak_bytes()
        self._kills_before, self._hits_before = self._kills(), self._hits()

    def limit(self, memory_bytes: int) -> tuple[str, str] | None:
        """Sets the memory limit, swap included, of what was started; returns outcome and reason if that cannot be."""
        if not memory_bytes or not self.has_memory:
            return None
        text = b"%d" % memory_bytes
        try:
            if not self._write("memory.max", text):
                self._write("memory.limit_in_bytes", text)
                self._write("memory.memsw.limit_in_bytes", text)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return "memory", f"memory limit of {memory_bytes} bytes: {self.peak_bytes()} in use at once"
            return "node", f"setting a memory limit: {os.strerror(error.errno or 0)}"
        return None

    # Who is in it

    def processes(self) -> list[processes.Process]:
        """Returns the living processes in it."""
        found = (processes.read_process(int(pid)) for pid in self._members().split() if pid != b"0")
        return [process for process in found if process is not None]

    def is_empty(self) -> bool:
        """Whether nothing alive is in it, nor in groups that were made below it."""
        if "cgroup.events" in self._files:
            return self._field("cgroup.events", b"populated") == 0
        return not self._members()

    def _members(self) -> bytes:
        if MEMBERS in self._files:
            return self._read(MEMBERS)
        # Version 1 makes a list when its file is opened, and whoever has it open may read the same list for a second.
        descriptor = os.open("cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._files[DIRECTORY])
        try:
            return _read_all(descriptor)
        finally:
            os.close(descriptor)

    def kill(self) -> None:
        """Ends everything in it with SIGKILL, at once: nothing can fork away. What is to end is gone a little later."""
        if self._write("cgroup.kill", b"1"):
            return
        self.freeze()
        processes.signal_all(self.processes(), signal.SIGKILL)
        self.thaw()

    def freeze(self) -> bool:
        """Stops everything in it until `thaw`, unnoticed by itself; False where the kernel cannot."""
        return self._write("cgroup.freeze", b"1") or self._write("freezer.state", b"FROZEN")

    def thaw(self) -> bool:
        """Lets everything in it go on; False where the kernel cannot."""
        return self._write("cgroup.freeze", b"0") or self._write("freezer.state", b"THAWED")

    # What it has taken

    def counted(self) -> Counted:
        """Returns what was taken since it was entered."""
        peak: int | None = self.peak_bytes() if self.has_memory else None
        if not self._counts_anew and peak == self._peak_before:
            peak = None  # that of an earlier one
        now, before = self._time(), self._time_before
        if now is None or before is None:
            return Counted(peak or None, None, None)
        return Counted(peak or None, max(0, now[0] - before[0]), max(0, now[1] - before[1]))

    def kills(self) -> int:
        """Returns how many of the attempt's processes the kernel has ended for want of memory."""
        return self._kills() - self._kills_before if self.has_memory else 0

    @property
    def ends_as_one(self) -> bool:
        """Whether the kernel, for want of memory, ends all that is in it rather than some."""
        return "memory.events" in self._files

    def is_own_fault(self, limit_bytes: int) -> bool:
        """Whether those were ended because of this group's limit, rather than because the node had no memory left."""
        if "memory.events" in self._files:
            return self._hits() > self._hits_before
        # Version 1 has a counter too, which newer kernels leave at 0.
        return self.peak_bytes() + _NEAR_BYTES >= limit_bytes

    def is_worn(self) -> bool:
        """Whether what it still holds, or has held, would count as the next attempt's."""
        left = self._number("memory.current") + self._number("memory.usage_in_bytes")
        return max(left, 0 if self._counts_anew else self.peak_bytes()) > _KEPT_BYTES

    def peak_bytes(self) -> int:
        """Returns the most memory in use since it was entered, or, before Linux 6.12, ever; 0 where it is not known."""
        return self._number("memory.peak") or self._number("memory.max_usage_in_bytes")

    def _kills(self) -> int:
        return self._field("memory.events", b"oom_kill") + self._field("memory.oom_control", b"oom_kill")

    def _hits(self) -> int:
        return self._field("memory.events", b"oom")

    def _time(self) -> tuple[int, int] | None:
        if "cpu.stat" not in self._files:
            return None
        found = dict(line.split(b" ", 1) for line in self._read("cpu.stat").splitlines())
        return int(found.get(b"user_usec", 0)), int(found.get(b"system_usec", 0))

    # The kernel's files

    def _write(self, name: str, value: bytes) -> bool:
        descriptor = self._files.get(name)
        if descriptor is None:
            return False
        os.write(descriptor, value)
        return True

    def _read(self, name: str) -> bytes:
        descriptor = self._files.get(name)
        return b"" if descriptor is None else _read_all(descriptor)

    def _number(self, name: str) -> int:
        text = self._read(name)
        return int(text) if text.strip().isdigit() else 0

    def _field(self, name: str, key: bytes) -> int:
        for line in self._read(name).splitlines():
            word, _, value = line.partition(b" ")
            if word == key:
                return int(value)
        return 0


def _read_all(descriptor: int) -> bytes:
    text = os.pread(descriptor, _READ_BYTES, 0)
    while len(text) >= _READ_BYTES // 2 and (more := os.pread(descriptor, _READ_BYTES, len(text))):
        text += more
    return text


class Leaves:
    """All leaves that the agent has given: which is free, which has something left in it, what is wanted."""

    def __init__(self) -> None:
        self._home: list[int] = []
        self._held: dict[int, Leaf] = {}
        self._free: list[Leaf] = []
        self._littered: list[Leaf] = []
        self._returned: list[int] = []
        self._asked = 0
        self._to_ask = 0
        self.is_denied = False

    def numbers(self) -> list[int]:
        """Returns the numbers of those that are here."""
        return list(self._held)

    def set_home(self, doors: list[int]) -> None:
        """These descriptors lead back to our own group, one in each hierarchy."""
        for door in self._home:
            os.close(door)
        self._home = doors

    def add(self, leaf: Leaf) -> None:
        """Takes one from the agent. One of a number that is here already is not taken."""
        if leaf.number in self._held:
            leaf.close()
            return
        self._held[leaf.number] = leaf
        self._free.append(leaf)
        self._asked = max(0, self._asked - 1)
        self.is_denied = False

    def deny(self) -> None:
        """There are no more to be had: attempts begin without, until one comes."""
        self._asked = 0
        self.is_denied = True

    def take(self) -> Leaf | None:
        """Returns one that is free; None if there is none."""
        if not self._free and self._littered:
            self.look_after()
        return self._free.pop() if self._free else None

    def give_back(self, leaf: Leaf) -> None:
        """Its attempt is over."""
        if not leaf.is_empty():
            self._littered.append(leaf)
        elif leaf.is_worn():
            self.lose(leaf)
        else:
            self._free.append(leaf)

    def lose(self, leaf: Leaf) -> None:
        """It is no more: the agent is told as of one given back."""
        del self._held[leaf.number]
        self._returned.append(leaf.number)
        leaf.close()

    def look_after(self) -> None:
        """Frees those of which what was left in them has ended."""
        littered, self._littered = self._littered, []
        for leaf in littered:
            self.give_back(leaf)

    def go_home(self) -> None:
        """Leaves whatever leaf was entered. Raises OSError: then we must not go on."""
        for door in self._home:
            os.write(door, b"0")

    # What the agent is to know

    def want(self, count: int) -> None:
        """So many attempts could begin if they had one."""
        self._to_ask = max(0, count - self._asked)

    @property
    def has_news(self) -> bool:
        """Whether the agent is to be told anything."""
        return bool(self._to_ask or self._returned)

    def news(self) -> dict[str, object]:
        """Returns what to tell the agent, once."""
        told: dict[str, object] = {"m": "leaves", "wanted": self._to_ask, "returned": self._returned}
        self._asked += self._to_ask
        self._to_ask, self._returned = 0, []
        return told

    def new_agent(self) -> None:
        """What was asked of an earlier agent has to be asked again, what was given back need not be told."""
        self._asked = self._to_ask = 0
        self._returned = []


def judge(leaf: Leaf, limit_bytes: int, status: int | None) -> tuple[str, str] | None:
    """Says what the kernel's ends for want of memory mean for an attempt: outcome and reason; None if there were none.

    Whatever was ended, and even if the command itself went on, the attempt counts as out of memory: what it made is
    not what it would have made.

    Args:
        leaf: the attempt's.
        limit_bytes: of its memory; 0 for none.
        status: how the command itself ended; None while it runs.
    """
    kills = leaf.kills()
    if not kills:
        return None
    if leaf.ends_as_one:
        which = "its processes"  # of which it may have counted one twice
    else:
        which = "one of its processes" if kills == 1 else f"{kills} of its processes"
    what = f"{leaf.peak_bytes()} in use at most, the kernel ended {which}"
    if status is None:
        what += ", and with that the attempt is over"
    elif os.WIFEXITED(status):
        what += f"; the command itself ended with exit code {os.WEXITSTATUS(status)}"
    if limit_bytes and leaf.is_own_fault(limit_bytes):
        return "memory", f"memory limit of {limit_bytes} bytes: {what}"
    return "node", f"the node had no memory left: {what}"
