"""Attempts that a user's starter was told to end, and for how long it has not said that they did. Pure.

A part of the machine. What a starter has is charged to the node until it tells of the end; one that never does would
keep from everybody what its own attempts were granted, whatever the hub says. So it has a deadline, after which it is
ended with everything that it runs. That is long: an honest one waits for processes that the kernel does not let go of.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

from lanai.agent.events import Member

PATIENCE_US: Final = 600_000_000
LOOK_US: Final = 5_000_000
"""How often to look. A longer pause was that of the whole computer, and is not charged to anybody."""


class Endings:
    """Of each such attempt the time that is left; a clock that stands still while nobody looks."""

    def __init__(self) -> None:
        self._left_us: dict[Member, int] = {}
        self._looked_us = 0

    @property
    def are_awaited(self) -> bool:
        """Whether `look` is to be called."""
        return bool(self._left_us)

    def told(self, members: Iterable[Member], grace_us: int) -> None:
        """Their starter was told. What was told before counts where that is sooner."""
        for member in members:
            left_us = self._left_us.get(member, grace_us + PATIENCE_US)
            self._left_us[member] = min(left_us, grace_us + PATIENCE_US)

    def look(self, now_us: int, live: Container[Member]) -> list[Member]:
        """Those of which it is too long ago; each is named once for each time that it is."""
        passed_us = min(now_us - self._looked_us, LOOK_US)
        self._looked_us = now_us
        left_us = {member: left - passed_us for member, left in self._left_us.items() if member in live}
        self._left_us = {member: left for member, left in left_us.items() if left > 0}
        return [member for member, left in left_us.items() if left <= 0]
