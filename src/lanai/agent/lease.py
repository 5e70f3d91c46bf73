"""Until when this node may run what it was granted.

Pure arithmetic on microseconds of CLOCK_BOOTTIME. The node's end must come before the hub's: the hub counts from when
it *received* a sign of life, and so the node counts from when it *sent* the last one that was acknowledged. A refused
connect proves that no hub is up, which renews the lease as of when the connect began: whatever hub comes later begins
its own count later.
"""

from __future__ import annotations

from typing import Final

SUSPENDED: Final = -1


class Lease:
    """The lease of one node.

    Attributes:
        length_us: as the hub last said; 0 while unknown.
        good_until_us: the end; `SUSPENDED` while a hub that stopped on purpose is away, 0 where there is none.
    """

    def __init__(self, length_us: int = 0) -> None:
        self.length_us = length_us
        self.good_until_us = 0
        self._sent_us: dict[int, int] = {}
        self._number = 0

    def is_good(self, now_us: int) -> bool:
        """Whether anything may run now."""
        return self.good_until_us == SUSPENDED or now_us < self.good_until_us

    def has_run_out(self, now_us: int) -> bool:
        """Whether there was one, and it is over."""
        return 0 < self.good_until_us <= now_us

    def begin(self, hello_sent_us: int, length_us: int) -> None:
        """The hub answered a Hello with Welcome."""
        self.length_us = length_us
        self._sent_us.clear()
        self.good_until_us = hello_sent_us + length_us

    def beat(self, now_us: int) -> int:
        """The number of the heartbeat that is sent now."""
        self._number += 1
        self._sent_us[self._number] = now_us
        return self._number

    def acknowledge(self, number: int) -> None:
        """The hub answered that heartbeat."""
        sent_us = self._sent_us.get(number)
        if sent_us is None or self.good_until_us == SUSPENDED:
            return
        self._sent_us = {n: at for n, at in self._sent_us.items() if n > number}
        self.good_until_us = max(self.good_until_us, sent_us + self.length_us)

    def refused(self, began_us: int) -> None:
        """A connect that began then was refused. A lease that has run out before stays so."""
        if self.length_us and self.good_until_us > began_us:
            self.good_until_us = max(self.good_until_us, began_us + self.length_us)

    def suspend(self) -> None:
        """The hub stops on purpose."""
        self.good_until_us = SUSPENDED

    def take_over(self, until_us: int) -> None:
        """An earlier agent had told the starter this."""
        self.good_until_us = until_us

    def end(self) -> None:
        """It has run out, and what hung on it was given up."""
        self.good_until_us = 0
