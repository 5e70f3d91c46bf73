"""A leaf of the share tree and what hangs above it: what a batch, its user and his accounts have now and have used.

Kept up to date with every attempt that takes room or waits at a node, so that the fast path can compare two claims
without a pass. What somebody has is a whole number, so that it never drifts.

Use decays: D, as a part of all capacity, follows dD/dt = (R - D)/tau for what is had, R; it halves in h = tau * ln 2
while nothing is had, and comes to R where that stays. What is kept is not D but E = D * g, g = 2^(t/h) being the same
for the whole tree: dE = R dg. So E stands still while nothing is had, whatever the time, and none has to be settled
before it is compared; the order of those who rest can never change by decay alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Final

WHOLE: Final = 1 << 40
"""All capacity, in the unit of `Leaf.had` and of a line's cost."""
GROWTH_MOST: Final = 2.0**256
"""Past this all use is brought back to a smaller unit."""
HALVINGS_MOST: Final = 900.0
"""After so many nothing is left of any use; a float holds a hundred more."""
_NOISE: Final = 1e-9
"""Of a turn: what the order of two additions may make of a whole number of turns."""

Claim = tuple[float, ...]


class Clock:
    """The time of one share tree: `growth` is by what a unit of use now outweighs one of the beginning."""

    __slots__ = ("_base_us", "_half_life_us", "growth")

    def __init__(self, half_life_us: int) -> None:
        self._half_life_us = half_life_us
        self._base_us = 0
        self.growth = 1.0

    def set(self, now_us: int) -> None:
        """It is now so late. A repeat is harmless."""
        self.growth = 2.0 ** min(HALVINGS_MOST, (now_us - self._base_us) / self._half_life_us)

    def start(self, now_us: int, half_life_us: int) -> None:
        """Begin anew at a growth of 1. For `restart`, which brings all use to that."""
        self._base_us, self._half_life_us, self.growth = now_us, half_life_us, 1.0

    def decay(self, passed_us: int) -> float:
        """What is left of a unit of use after so long."""
        return float(2.0 ** (-max(0, passed_us) / self._half_life_us))


class Leaf:
    """What one batch has and has used; or, where others hang below it, one user in an account, or an account.

    `had` counts the dominant share of each attempt that takes room, and of each that waits at a node the part that its
    run time is of the time which such a surplus may last. `number` breaks ties between siblings. `path` leads from the
    top of the tree to the leaf itself.
    """

    __slots__ = ("_grown", "_priority", "_scale", "_use", "_weight", "clock", "had", "number", "path")

    def __init__(
        self, clock: Clock, number: int, priority: int, *, weight: float = 1.0, above: Leaf | None = None
    ) -> None:
        self.clock = clock
        self._priority = priority
        self._weight = weight
        self._scale = priority / weight
        self._use = 0.0
        self._grown = clock.growth
        self.number = number
        self.had = 0
        self.path: tuple[Leaf, ...] = ()
        self.hang(above)

    # -- its place

    @property
    def above(self) -> Leaf | None:
        """What it hangs from; None at the top."""
        return self.path[-2] if len(self.path) > 1 else None

    def hang(self, above: Leaf | None) -> None:
        """It hangs there from now on. The caller moves what it has and has used, and hangs anew what is below it."""
        self.path = (*above.path, self) if above is not None else (self,)

    @property
    def priority(self) -> int:
        """The inverse of a weight, as in Parasol."""
        return self._priority

    @priority.setter
    def priority(self, priority: int) -> None:
        self._priority = priority
        self._scale = priority / self._weight

    @property
    def weight(self) -> float:
        """As the policy says; more than 0."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._weight = weight
        self._scale = self._priority / weight

    def pull(self) -> float:
        """Its weight over its priority: siblings are to have by this."""
        return self._weight / self._priority

    # -- what it has and has used

    def charge(self, share: int) -> None:
        """It, and all above it, have `share` of `WHOLE` more, or less where it is negative."""
        growth = self.clock.growth
        for each in self.path:
            if each._grown != growth:
                each._use += each.had * (growth - each._grown)
                each._grown = growth
            each.had += share

    def gathered(self) -> float:
        """Its use in the unit of the clock's beginning: it stands still for as long as nothing is had."""
        return self._use + self.had * (self.clock.growth - self._grown)

    def used(self) -> float:
        """Decayed use as of now, of `WHOLE`; had it always had the same, it would be that."""
        return self.gathered() / self.clock.growth

    def credit(self, used: float) -> None:
        """So much of `WHOLE` more has been used, as of now. What is above it knows nothing of that."""
        self._use += used * self.clock.growth

    def clear(self) -> None:
        """It has nothing and has used nothing."""
        self.had, self._use, self._grown = 0, 0.0, self.clock.growth

    # -- whose turn it is

    def value(self) -> float:
        """(D + R)/w, in the unit of `Clock.growth`; the lowest of siblings is next."""
        return (self._use + self.had * (2.0 * self.clock.growth - self._grown)) * self._scale

    def rise(self, share: int) -> float:
        """By how much its value would rise if it had so much more."""
        return share * self.clock.growth * self._scale

    def claim(self) -> Claim:
        """The values on its path: of two leaves, the one of the lower claim is next."""
        return tuple([each.value() for each in self.path])

    def turns_before(self, other: Leaf, unit: int, given: int = 0) -> int:
        """How many turns of `unit` each this batch takes before it is the other's turn, a tie being the other's.

        0 where it is the other's turn already. `given` is what it has beyond `had`, or has less where negative.
        """
        mine, theirs = self, other
        for mine, theirs in zip(self.path, other.path, strict=False):
            if mine is not theirs:
                break
        ahead = theirs.value() - mine.value() - mine.rise(given)
        return max(0, ceil(ahead / mine.rise(max(1, unit)) - _NOISE))


def restart(clock: Clock, now_us: int, half_life_us: int, leaves: Iterable[Leaf]) -> None:
    """Go on with a small unit of use, and with this half-life from now on. `leaves` are all there are of the tree."""
    used = [(leaf, leaf.used()) for leaf in leaves]
    clock.start(now_us, half_life_us)
    for leaf, use in used:
        leaf._use, leaf._grown = use, 1.0
