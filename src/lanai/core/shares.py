"""The share tree as people see it: who is to have how much, has it, has used it, and whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lanai.core.schedule.leaf import WHOLE, Leaf
from lanai.core.world import World


class ShareStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the share tree, for those who ask.

    Attributes:
        place: `account`, `user` or `batch`.
        name: of the account or user; of a batch its number.
        account: that it hangs in, or empty: at the top.
        depth: of places above it.
        weight: beside its siblings; of a batch 1/priority.
        part: of what its siblings and it have together, the fraction that is to be its own.
        used, has: what it has used (decayed) and has now, as fractions of all capacity.
        waiting: jobs of it, or below it, that wait for their turn.
        rank: among its siblings, from 1, the one whose turn it is.
        turn: of all batches with waiting jobs how many have their turn before it or its first one, and 1; None where
            none waits.
    """

    place: str
    name: str
    account: str
    user: str
    depth: int
    weight: float
    part: float
    used: float
    has: float
    waiting: int
    rank: int
    turn: int | None


def shares(world: World) -> list[ShareStanding]:
    """The share tree, depth first, of siblings the one first whose turn it is."""
    return list(_Shares(world).all())


class _Shares:
    """One walk over the tree."""

    def __init__(self, world: World) -> None:
        tree = world.tree
        self._place: dict[Leaf, tuple[str, str, str, str]] = {}
        """(place, name, account that it is in, user)"""
        self._below: dict[Leaf | None, list[Leaf]] = {}
        self._waiting: dict[Leaf, int] = {}
        self._turn = 1
        for name, leaf in tree.accounts.items():
            self._put(leaf, "account", name, "")
        for (_, user), leaf in tree.users.items():
            self._put(leaf, "user", user, user)
        for batch in world.batches.values():
            self._put(batch.leaf, "batch", str(batch.id), batch.user)
            for each in batch.leaf.path:
                self._waiting[each] = self._waiting.get(each, 0) + (batch.waiting if batch.state == "open" else 0)

    def _put(self, leaf: Leaf, place: str, name: str, user: str) -> None:
        accounts = [each for each in leaf.path[:-1] if self._place[each][0] == "account"]
        account = self._place[accounts[-1]][1] if accounts else ""
        self._place[leaf] = place, name, account, user
        self._below.setdefault(leaf.above, []).append(leaf)

    def all(self, above: Leaf | None = None) -> Iterator[ShareStanding]:
        """Those below it, each followed by what is below that."""
        siblings = sorted(self._below.get(above, ()), key=lambda leaf: (leaf.value(), leaf.number))
        of_all = sum(leaf.pull() for leaf in siblings)
        for rank, leaf in enumerate(siblings, 1):
            place, name, account, user = self._place[leaf]
            waiting = self._waiting.get(leaf, 0)
            yield ShareStanding(
                place=place,
                name=name,
                account=account,
                user=user,
                depth=len(leaf.path) - 1,
                weight=1 / leaf.priority if place == "batch" else leaf.weight,
                part=round(leaf.pull() / of_all, 9),
                used=leaf.used() / WHOLE,
                has=leaf.had / WHOLE,
                waiting=waiting,
                rank=rank,
                turn=self._turn if waiting else None,
            )
            if place == "batch" and waiting:
                self._turn += 1
            yield from self.all(leaf)
