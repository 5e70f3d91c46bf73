"""Where the kernel's control groups are on this computer, and in which of them this process is. It reads, only.

Both versions may be mounted at once, the controllers divided between them: a controller that is bound to a hierarchy of
version 1 is missing from version 2, which is of use all the same, to kill and to freeze.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lanai.model.errors import UserError

CONTROLLERS: Final = ("memory", "cpu", "pids", "freezer")
SUBGROUP: Final = "lanai-agent"
"""Where agents move themselves to, since version 2 wants no processes in a group that shares out memory and cpus."""

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """One hierarchy, and this process's group in it.

    Attributes:
        version: 1 or 2.
        controllers: those of `CONTROLLERS` that it has; with version 2 those that are delegated to the group.
        point: where it is mounted.
        own: the group that is ours to divide: this process's, or the one above it where that is `SUBGROUP`, or the one
            that was asked for. None where it lies outside of what is mounted here.
        inside: this process's own group, the one above where it is `SUBGROUP`; None as above.
    """

    version: int
    controllers: tuple[str, ...]
    point: Path
    own: Path | None
    inside: Path | None = None


def find(
    base: str | None = None,
    *,
    mountinfo: Path = Path("/proc/self/mountinfo"),
    cgroup: Path = Path("/proc/self/cgroup"),
) -> list[Mounted]:
    """All hierarchies that have anything to offer here, version 2 first; none where the kernel says nothing.

    Args:
        base: the group to divide instead of our own: a path below every mount point, or below one of them with that
            mount point before it. A hierarchy of version 1 that has no such group keeps to our own.
        mountinfo: the kernel's list of mounts.
        cgroup: the kernel's list of the groups that this process is in.

    Raises:
        UserError: no hierarchy has the group `base`.
    """
    paths = dict(_paths(_text(cgroup)))
    mounts = list(_mounts(_text(mountinfo)))
    wanted = None if base is None else _within(base, [Path(point) for _, point, _, _ in mounts])
    if wanted is not None and not any((Path(point) / wanted).is_dir() for _, point, _, _ in mounts):
        raise UserError(
            f"there is no control group {base}",
            code="no_cgroup_base",
            hint="start the unit that it belongs to, or leave cgroup_base away: then the agent's own group is used",
        )
    found: dict[tuple[int, tuple[str, ...]], Mounted] = {}
    for root, point, kind, options in mounts:
        version = 2 if kind == "cgroup2" else 1
        bound = tuple(name for name in CONTROLLERS if name in options) if version == 1 else ()
        if version == 1 and not bound:
            continue
        names = next((each for each in paths if bound[0] in each.split(",")), None) if bound else ""
        path = None if names is None else paths.get(names)
        own = None if path is None else _below(Path(point), root, path)
        if own is not None and own.name == SUBGROUP:
            own = own.parent
        inside = own
        if wanted is not None and (version == 2 or (Path(point) / wanted).is_dir()):
            own = Path(point) / wanted
        if version == 2 and own is not None:
            bound = tuple(name for name in CONTROLLERS if name in _text(own / "cgroup.controllers").split())
        one = Mounted(version=version, controllers=bound, point=Path(point), own=own, inside=inside)
        found.setdefault((version, bound), one)
    return sorted(found.values(), key=lambda one: -one.version)


def _within(base: str, points: list[Path]) -> Path:
    """A group as a path below a mount point, whichever of them it was given below."""
    path = Path(os.path.normpath("/" + base.lstrip("/")))
    above = [point for point in points if path.is_relative_to(point)]
    return path.relative_to(max(above, key=lambda point: len(point.parts), default=Path("/")))


def _paths(text: str) -> Iterator[tuple[str, str]]:
    """(controllers, path) of each hierarchy; no controllers is version 2."""
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        yield names, path


def _mounts(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """(root, mount point, kind, options of the file system) of each hierarchy of either version."""
    for line in text.splitlines():
        words = line.split(" ")
        after = words[words.index("-") + 1 :] if "-" in words else []
        if len(after) >= 3 and after[0] in ("cgroup", "cgroup2"):
            yield _plain(words[3]), _plain(words[4]), after[0], after[2].split(",")


def _below(point: Path, root: str, path: str) -> Path | None:
    """The directory of a group, where `root` of its hierarchy is what is mounted at `point`."""
    within = os.path.relpath(path, root)
    return None if within.startswith("..") else point / within


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
