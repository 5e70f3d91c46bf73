"""What is done to control groups, of either version: the kernel's files written, groups divided, ended and removed.

It knows of no agent and of no users. Everything raises OSError where the kernel refuses.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from lanai.agent.cgroup_mounts import SUBGROUP

_KILL_ROUNDS: Final = 200
_MOVE_ROUNDS: Final = 100
_ROUND_S: Final = 0.01


def enable(group: Path, controllers: Iterable[str]) -> None:
    """Let the groups below this one, of version 2, share these out. Nothing but groups may be in it."""
    for name in controllers:
        put(group / "cgroup.subtree_control", f"+{name}")


def share(group: Path, version: int, cpu_milli: int) -> None:
    """Give a group the weight of so many cpus, as leaves have theirs."""
    if version == 2:
        put(group / "cpu.weight", str(min(max(cpu_milli // 10, 1), 10_000)))
    else:
        put(group / "cpu.shares", str(min(max(cpu_milli * 1024 // 1000, 2), 262_144)))


def end(groups: list[Path]) -> None:
    """End everything in these groups and below, and remove them."""
    for _ in range(_KILL_ROUNDS):
        if not _kill(groups):
            break
        time.sleep(_ROUND_S)
    for group in groups:
        remove(group)


def _kill(groups: list[Path]) -> bool:
    """Ask for the end of everything in these groups and below; False if nothing was there."""
    if not _inside(groups):
        return False
    for file in _there(groups, "cgroup.kill"):
        put(file, "1")
    # What is frozen neither forks nor ends, so that nobody else has got its number when it is signalled.
    freezers = _there(groups, "freezer.state")
    for file in freezers:
        put(file, "FROZEN")
    for pid in _inside(groups):
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    for file in freezers:
        put(file, "THAWED")
    return True


def _inside(groups: list[Path]) -> set[int]:
    return {pid for group in groups for pid in members(group)}


def _there(groups: list[Path], name: str) -> list[Path]:
    below = (Path(directory, name) for group in groups for directory, _, _ in os.walk(group))
    return [file for file in below if file.exists()]


def members(group: Path) -> Iterator[int]:
    """The processes in a group and below it."""
    for directory, _, _ in os.walk(group):
        try:
            yield from (int(word) for word in words(Path(directory, "cgroup.procs")) if word != "0")
        except OSError:
            continue


def remove(group: Path) -> None:
    """Remove a group and those below it, as far as they are empty."""
    for directory, _, _ in os.walk(group, topdown=False):
        remove_empty(Path(directory))


def remove_empty(group: Path) -> None:
    """Remove a group if nothing is in it."""
    try:
        group.rmdir()
    except OSError:
        return  # it is gone, or something is in it: then it stays for whoever looks next


def open_as(path: Path, uid: int) -> int:
    """A descriptor of a group's file for writing, which has the rights of that user, and not root's; the caller's.

    To move a process the kernel asks for the rights of whoever has opened the file, whoever writes. The file is the
    user's for the moment of opening, and can be reached by nobody meanwhile.
    """
    group = path.parent
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    os.chmod(group, 0o700)
    os.chown(path, uid, -1)
    os.seteuid(uid)
    try:
        return os.open(f"/proc/self/fd/{place}", os.O_WRONLY | os.O_CLOEXEC)
    finally:
        os.seteuid(0)
        os.chown(path, 0, -1)
        os.chmod(group, 0o755)
        os.close(place)


def put(path: Path, text: str) -> None:
    """Write to one of the kernel's files, at once."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def words(path: Path) -> list[str]:
    """The words in one of the kernel's files."""
    return path.read_text(encoding="ascii").split()


def others_in(group: Path) -> int:
    """How many processes but ourselves are in a group itself."""
    return len(set(words(group / "cgroup.procs")) - {str(os.getpid())})


def move_aside(group: Path) -> None:
    """Move what is in a group itself to one below: us, or, in a group that was given to us, what keeps its place."""
    for _ in range(_MOVE_ROUNDS):
        inside = [pid for pid in words(group / "cgroup.procs") if pid != "0"]
        if not inside:
            return
        (group / SUBGROUP).mkdir(exist_ok=True)
        for pid in inside:
            try:
                put(group / SUBGROUP / "cgroup.procs", pid)
            except ProcessLookupError:
                continue
