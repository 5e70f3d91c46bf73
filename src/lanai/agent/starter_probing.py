"""Directories on file systems that may not answer: a child looks into them first, so that only the child waits.

Standard library only, part of the starter. A server that is down, or a program behind a mount that hangs, keeps
whoever asks waiting, without an error and without end; this process would, and with it all that its user runs. So
before a directory on a mount of such a kind is entered, or an output opened there, a child has been there and come
back, not long ago. Where it does not come back in time its lane is told so, and nobody has waited but the child.

What it does not cover: a mount that falls silent in the moment between the look and the entering, a directory that
leads there by a symbolic link, programs and checked files that lie there, and outputs that are read there. Then the
starter waits until it answers again, or its agent ends it.
"""

import os
import re
import signal
from collections.abc import Callable, Iterable

from lanai.agent.starter_exec import Environment, Streams, Words, spawn

NEVER = 1 << 62
GOOD_US = 200_000
PATIENCE_US = 5_000_000
_KINDS = frozenset(
    "9p afs autofs beegfs ceph cifs coda fuse gfs2 gpfs lustre nfs nfs4 ocfs2 orangefs panfs smb3 smbfs".split()
)
# Space, tab, newline and backslash stand so in the table of mounts.
_ESCAPED = re.compile(r"\\([0-7]{3})")
# It comes back whatever it finds: that there is nothing is seen by whoever goes there next.
_LOOK = b'exec 2>/dev/null; for place; do test -e "$place/."; done; true'

Places = tuple[str, ...]


def silent_places(paths: Iterable[str]) -> Places:
    """Returns those of these directories that lie on a mount that may not answer, by their names, asking nobody."""
    mounts = _mounts()
    return tuple(sorted({path for path in map(os.path.normpath, paths) if _may_be_silent(path, mounts)}))


def _mounts() -> list[tuple[str, bool]]:
    """Mount points, the longest first and of one the latest first, and whether they may not answer."""
    found: list[tuple[str, bool]] = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            for line in table:
                before, _, after = line.partition(" - ")
                kind = after.split(" ", 1)[0]
                point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
                found.append((point, kind in _KINDS or kind.startswith("fuse.")))
    except (OSError, IndexError):
        return []
    found.reverse()
    return sorted(found, key=lambda mount: -len(mount[0]))


def _may_be_silent(path: str, mounts: list[tuple[str, bool]]) -> bool:
    for point, may_be_silent in mounts:
        if path == point or path.startswith(point.rstrip("/") + "/"):
            return may_be_silent
    return False


class Probing:
    """The children that look, and what they found. ``due_us`` is when the next of them has taken too long.

    Args:
        leave: called before a child is made, which must not begin where it may not be answered.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._good_until_us: dict[Places, int] = {}
        self._children: dict[int, Places] = {}
        self._begun_us: dict[Places, int] = {}
        self._words = Words()
        self._environment = Environment({}, ())
        self._streams = Streams()

    @property
    def children(self) -> Iterable[int]:
        """The processes that look now."""
        return self._children.keys()

    @property
    def due_us(self) -> int:
        """When `is_silent` becomes true of places that are being looked at."""
        return min((begun + PATIENCE_US for begun in self._begun_us.values()), default=NEVER)

    def is_good(self, places: Places, now_us: int) -> bool:
        """Whether they have answered lately; where they have not, a child is sent to look, if none is there yet."""
        if now_us < self._good_until_us.get(places, 0):
            return True
        if places not in self._begun_us:
            self._leave()
            words = [b"sh", b"-c", _LOOK, b"sh", *map(os.fsencode, places)]
            try:
                pid = spawn(b"/bin/sh", self._words.lay_out(words), self._environment, self._streams)
            except OSError:
                return True  # what keeps a child from being made is told of the command that comes next
            self._children[pid] = places
            self._begun_us[places] = now_us
        return False

    def is_silent(self, places: Places, now_us: int) -> bool:
        """Whether a child has been waiting there for too long."""
        return now_us >= self._begun_us.get(places, NEVER) + PATIENCE_US

    def reaped(self, pid: int, now_us: int) -> bool:
        """A child has ended. Returns whether it was one of these."""
        places = self._children.pop(pid, None)
        if places is None:
            return False
        begun_us = self._begun_us.pop(places)
        if now_us < begun_us + PATIENCE_US:
            self._good_until_us = {p: us for p, us in self._good_until_us.items() if us > now_us}
            self._good_until_us[places] = now_us + GOOD_US
        return True

    def give_up(self, now_us: int) -> None:
        """End those that have waited for too long; some only end when they are answered."""
        for pid, places in self._children.items():
            if self.is_silent(places, now_us):
                os.kill(pid, signal.SIGKILL)
