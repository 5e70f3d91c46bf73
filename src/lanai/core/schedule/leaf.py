"""A leaf of the share tree and what hangs above it: what a batch, and its user, have of all capacity right now.

Kept up to date with every attempt that takes room or waits at a node, so that the fast path can compare two claims
without a pass. Whole numbers only: nothing drifts, however long the hub runs.
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = 1 << 40
"""All capacity, in the unit of `Leaf.had` and of a line's cost."""

Claim = tuple[int, int]


class Leaf:
    """What one batch has, or, where it has no `above`, one user.

    `had` counts the dominant share of each attempt that takes room, and of each that waits at a node the part that its
    run time is of the time which such a surplus may last. `priority` is the weight's inverse, as in Parasol.
    """

    __slots__ = ("above", "had", "priority")

    def __init__(self, priority: int, above: Leaf | None = None) -> None:
        self.priority = priority
        self.above = above
        self.had = 0

    def charge(self, share: int) -> None:
        """`share` of `WHOLE` more, or less where it is negative."""
        self.had += share
        if self.above is not None:
            self.above.had += share

    def claim(self) -> Claim:
        """Of a batch's leaf: what its user has, then what it has itself, weighted. The lowest claim is next."""
        user = self.above or self
        return user.had * user.priority, self.had * self.priority

    def turns_before(self, other: Leaf, unit: int, given: int = 0) -> int:
        """How many turns of `unit` each this batch takes before it is the other's turn, a tie being the other's.

        0 where it is the other's turn already. `given` is what it has beyond `had`, or has less where negative.
        """
        mine, theirs = self, other
        if self.above is not other.above and self.above is not None and other.above is not None:
            mine, theirs = self.above, other.above
        ahead = theirs.had * theirs.priority - (mine.had + given) * mine.priority
        return max(0, -(-ahead // (max(1, unit) * mine.priority)))
