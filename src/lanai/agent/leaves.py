"""The leaves of one starter, as the agent sees them: which jobs need one, how many it has, and how it comes by them.

Between the port, which talks, and `cgroups`, which makes them. The starter is given as many as may run at once of jobs
that need one, before they may; it asks for more where something stays alive in those that it has. Where the kernel
refuses, it is told so and does without: then memory is watched by the starter, and nothing else is limited.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from lanai.agent import starter_link as link
from lanai.agent.cgroups import Cgroups
from lanai.model.resources import Shape

FEATURE: Final = "leaves"
RESERVE: Final = 8
"""How many it has besides those that are in use, so that the next attempt does not wait for the last one's end."""

LITTERED: Final = 256
"""How many more it may have, which are held by what attempts have left alive."""


class Words(NamedTuple):
    """What to say to the starter, and the descriptors that go along, whose owner is whoever takes this."""

    data: bytes
    descriptors: Sequence[int] = ()


class Leaves:
    """Control groups for one starter. Without any on this computer nothing here does anything.

    Args:
        cgroups: the agent's; None for none.
        user: whose starter it is.
        log: told what the kernel refuses.
    """

    def __init__(self, cgroups: Cgroups | None, user: str, log: Callable[[str], None]) -> None:
        self._cgroups = cgroups
        self._groups = None if cgroups is None else cgroups.of(user)
        self._user = user
        self._log = log
        self._is_open = self._is_able = False
        self._held: set[int] = set()
        self._widths: dict[int, int] = {}
        self._owed = 0
        """How many attempts it may still ask for a leaf for: a user's starter is not to keep us busy with more."""

    def start(self, pid: int) -> None:
        """The starter has just been started, or is there: it is taken in, and so is all that it will start."""
        self.forget()
        if self._groups is None:
            return
        try:
            self._groups.open()
            self._groups.admit(pid)
            self._is_open = True
        except OSError as error:
            self._log(f"no cgroups for the starter of {self._user}: {error.strerror}")

    def kill(self) -> None:
        """The starter is dead: end all that it has started."""
        self.forget()
        if self._groups is not None:
            try:
                self._groups.kill()
            except OSError as error:
                self._log(f"cannot end what is in the cgroups of {self._user}: {error.strerror}")

    def forget(self) -> None:
        """There is no starter any more."""
        self._is_open = self._is_able = False
        self._held.clear()
        self._widths.clear()
        self._owed = 0

    # -- what the starter says

    def greeted(self, hello: link.Hello) -> Iterator[Words]:
        """It answers. One that an older version has started does without."""
        if self._groups is None or not self._is_open or FEATURE not in hello.features:
            return
        try:
            doors = self._groups.doors()
        except OSError as error:
            self._log(f"no cgroups for the starter of {self._user}: {error.strerror}")
            return
        self._is_able = True
        yield Words(link.StarterLink().main(len(doors)), doors)

    def found(self, inventory: link.Inventory) -> None:
        """It says what it holds, some of it of an earlier agent's. What nobody holds is removed."""
        if self._groups is None or not self._is_able:
            return
        self._owed += len(inventory.waiting)
        try:
            self._held = self._groups.keep_leaves(inventory.leaves)
        except OSError as error:
            self._log(f"cannot remove cgroups of {self._user}: {error.strerror}")

    def asked(self, report: link.Leaves) -> Iterator[Words]:
        """It gives some back, and wants others."""
        if self._groups is None or not self._is_able:
            return
        returned = self._held.intersection(report.returned)
        self._held -= returned
        try:
            self._groups.drop_leaves(returned)
        except OSError as error:
            self._log(f"cannot remove cgroups of {self._user}: {error.strerror}")
        count = max(0, min(report.wanted, max(self._owed, self._enough() - len(self._held))))
        self._owed = max(0, self._owed - count)
        yield from self._give(count)

    # -- what is to run

    def needed_by(self, shape: Shape) -> dict[str, str | None] | None:
        """What a spec says of it: None where its jobs begin without."""
        if self._cgroups is None or not self._is_able:
            return None
        cpu = self._cgroups.cpu if self._cgroups.limits_cpu and shape.cpu_milli else None
        is_cpu_limited = cpu == "quota" or (cpu == "weight" and shape.cpu_milli % 1000 != 0)
        if is_cpu_limited or (shape.memory_bytes and self._cgroups.has_use_for_memory):
            return {"cpu": cpu}
        return None

    def widen(self, lane: int, width: int) -> Iterator[Words]:
        """So many of a lane whose jobs need one may run at once: there have to be enough for all such lanes."""
        if self._groups is None or not self._is_able:
            return
        self._widths[lane] = width
        if self._enough() > len(self._held):
            yield from self._give(self._enough() - len(self._held))

    def promise(self, count: int) -> None:
        """So many jobs that need one were given to the starter."""
        self._owed += count

    def _enough(self) -> int:
        return sum(self._widths.values()) + RESERVE

    def _give(self, count: int) -> Iterator[Words]:
        assert self._groups is not None
        for _ in range(count):
            try:
                if len(self._held) >= self._enough() + LITTERED:
                    raise OSError(errno.ENOSPC, f"{len(self._held)} are in use")
                number, files, descriptors = self._groups.make_leaf()
            except OSError as error:
                self._log(f"no more cgroups for {self._user}: {error.strerror}")
                yield Words(link.StarterLink().no_leaf(error.strerror or str(error)))
                return
            self._held.add(number)
            yield Words(link.StarterLink().leaf(number, files), descriptors)
