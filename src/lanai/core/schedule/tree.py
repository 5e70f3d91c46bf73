"""The share tree: accounts, nested, and the users in them; batches hang from these (`Batch.leaf`).

A user has a place of his own in each account that he has used. A place stays when its batches are gone, since what was
used goes on to count. What an account has and has used is the sum of what is below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import msgspec

from lanai.core.schedule.leaf import GROWTH_MOST, WHOLE, Clock, Leaf, restart
from lanai.model.batch import PRIORITY_DEFAULT
from lanai.model.ids import BatchId
from lanai.model.policy import EVERYONE, Policy

FORGOTTEN: Final = 1e-12
"""Of all capacity: use that is no longer kept on disk."""
NEW: Final = 1 << 62
"""A number behind all that were given."""

Place = tuple[str, str, float]
"""An account, a user in it, and the decayed use of the two as a part of all capacity."""
BATCHES_KEPT: Final = 10_000
"""Of so many batches at most the use is kept: to write it down holds the hub up for that long."""


class KeptUse(msgspec.Struct, frozen=True, array_like=True):
    """Use as it is kept, by the clock on the wall; `batches` is that of unfinished ones."""

    wall_us: int
    places: list[Place]
    batches: list[tuple[BatchId, float]] = []


class ShareTree:
    """The accounts and users of one hub."""

    def __init__(self, policy: Policy) -> None:
        self.clock = Clock(policy.half_life_us)
        self.accounts: dict[str, Leaf] = {}
        self.users: dict[tuple[str, str], Leaf] = {}
        """By account and user."""
        self._policy = policy
        self._last = 0

    def user(self, account: str, user: str) -> Leaf:
        """A user's place in an account, made when first needed."""
        found = self.users.get((account, user))
        if found is None:
            weight = self._policy.user(user).weight
            found = self.users[account, user] = self._place(weight, self.account(account))
        return found

    def account(self, name: str) -> Leaf:
        """An account, made when first needed, as are those above it."""
        found = self.accounts.get(name)
        if found is None:
            settled = self._policy.account(name)
            above = self.account(settled.parent) if settled.parent else None
            found = self.accounts[name] = self._place(settled.weight, above)
        return found

    def _place(self, weight: float, above: Leaf | None) -> Leaf:
        self._last += 1
        return Leaf(self.clock, self._last, PRIORITY_DEFAULT, weight=weight, above=above)

    # -- time

    def set(self, now_us: int, batches: Iterable[Leaf]) -> None:
        """It is now so late. `batches` are the leaves of all batches, looked at hardly ever."""
        self.clock.set(now_us)
        if self.clock.growth > GROWTH_MOST:
            restart(self.clock, now_us, self._policy.half_life_us, [*self._places(), *batches])

    def _places(self) -> Iterator[Leaf]:
        yield from self.accounts.values()
        yield from self.users.values()

    # -- another policy

    def reshape(self, policy: Policy, now_us: int, batches: Iterable[Leaf]) -> None:
        """Weights, parents and the half-life are as `policy` says from now on; what was used goes on to count.

        Batches hang where they hung; of those whose account has changed the caller takes care, and all have to be hung
        again afterwards.
        """
        restart(self.clock, now_us, policy.half_life_us, [*self._places(), *batches])
        self._policy = policy
        numbers = {name: leaf.number for name, leaf in self.accounts.items()}
        self.accounts = {}
        names = {*policy.accounts, *(account for account, _ in self.users)} - {EVERYONE}
        for name in sorted(names, key=lambda name: (numbers.get(name, NEW), name)):
            self.account(name)
        for name, leaf in self.accounts.items():
            leaf.number = numbers.get(name, leaf.number)
        for (account, user), leaf in self.users.items():
            leaf.weight = policy.user(user).weight
            leaf.hang(self.account(account))
            for each in leaf.path[:-1]:
                each.had += leaf.had
                each.credit(leaf.used())

    def check(self, batches: Iterable[Leaf]) -> None:
        """Raise AssertionError where somebody has other than what hangs below him. `batches` are all there are."""
        below: dict[Leaf, int] = dict.fromkeys(self._places(), 0)
        for leaf in (*batches, *self._places()):
            if leaf.above is not None:
                below[leaf.above] += leaf.had
        for leaf, had in below.items():
            assert leaf.had == had, (leaf.number, leaf.had, had)

    # -- what survives the hub

    def total_use(self) -> float:
        """Of all users, in the unit of the clock's beginning: stands still for as long as nobody has anything."""
        return sum(leaf.gathered() for leaf in self.users.values())

    def kept(self, wall_us: int, batches: Mapping[BatchId, Leaf]) -> str:
        """What to keep of it, and of those of the batches that were submitted first."""
        used = [(account, user, leaf.used() / WHOLE) for (account, user), leaf in self.users.items()]
        by_batch = ((batch, leaf.used() / WHOLE) for batch, leaf in batches.items())
        some = islice((each for each in by_batch if each[1] > FORGOTTEN), BATCHES_KEPT)
        places = [place for place in used if place[2] > FORGOTTEN]
        return msgspec.json.encode(KeptUse(wall_us, places, list(some))).decode()

    def take_back(self, kept: str, wall_us: int, batches: Mapping[BatchId, Leaf]) -> None:
        """Take over what was kept; nothing ran meanwhile. An empty text is nothing. Only where nothing was used yet."""
        if not kept:
            return
        found = msgspec.json.decode(kept, type=KeptUse)
        left = self.clock.decay(wall_us - found.wall_us)
        for account, user, use in found.places:
            for each in self.user(account, user).path:
                each.credit(use * left * WHOLE)
        for batch, use in found.batches:
            if batch in batches:
                batches[batch].credit(use * left * WHOLE)
