"""The share tree as people see it: who is to have how much, has it, has used it, and whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from typing import Final

import msgspec

from lanai.core.asking import takes_turns
from lanai.core.batches import Batch
from lanai.core.schedule.leaf import WHOLE, Leaf
from lanai.core.world import World

BATCHES: Final = 2_000
PLACES: Final = 15_000
"""Most batches and most places in all that one answer tells of: so it fits a frame, and holds nothing up for long."""


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
        waiting: jobs of it, or below it, that wait for their turn: none that are held, paused, or not to start yet.
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


class Shown(msgspec.Struct, frozen=True):
    """The tree, depth first, of siblings the one first whose turn it is; and how many places were left out."""

    shares: list[ShareStanding]
    more: int


def shares(world: World) -> Shown:
    """The share tree with all accounts and users, as far as `PLACES` go, and with the first `BATCHES` batches."""
    walk = _Walk(world)
    shown = list(walk.below(None))
    return Shown(shown[:PLACES], max(0, len(shown) - PLACES) + walk.left_out)


class _Walk:
    """One walk over the tree. It costs little for each batch that is not shown."""

    def __init__(self, world: World) -> None:
        tree = world.tree
        self._world = world
        self.left_out = 0
        self._room = BATCHES
        self._turn = 1
        self._accounts = {leaf: name for name, leaf in tree.accounts.items()}
        self._users = {leaf: user for (_, user), leaf in tree.users.items()}
        self._below: dict[Leaf | None, list[Leaf]] = {}
        self._batches: dict[Leaf, list[Batch]] = {}
        self._jobs: dict[Leaf, int] = {}
        """Waiting, in all that is below an account or a user."""
        self._turns: dict[Leaf, int] = {}
        """How many batches of a user have jobs that wait."""
        for leaf in (*self._accounts, *self._users):
            self._below.setdefault(leaf.above, []).append(leaf)
        for batch in world.batches.values():
            self._batches.setdefault(batch.user_leaf, []).append(batch)
        for user, batches in self._batches.items():
            waiting = [_waiting(world, batch) for batch in batches]
            jobs = sum(waiting)
            self._turns[user] = len(waiting) - waiting.count(0)
            for leaf in user.path:
                self._jobs[leaf] = self._jobs.get(leaf, 0) + jobs

    def below(self, above: Leaf | None) -> Iterator[ShareStanding]:
        """What hangs from an account, or at the top, each followed by what is below it."""
        siblings = sorted(self._below.get(above, ()), key=_order)
        of_all = sum(leaf.pull() for leaf in siblings)
        for rank, leaf in enumerate(siblings, 1):
            user = self._users.get(leaf, "")
            place = "user" if leaf in self._users else "account"
            name = user or self._accounts[leaf]
            yield self._shown(leaf, place, name, user, leaf.pull() / of_all, rank, self._jobs.get(leaf, 0))
            yield from self._batches_of(leaf, user) if place == "user" else self.below(leaf)

    def _batches_of(self, leaf: Leaf, user: str) -> Iterator[ShareStanding]:
        batches, behind = self._batches.get(leaf, []), self._turn + self._turns.get(leaf, 0)
        first = nsmallest(self._room, batches, key=lambda batch: _order(batch.leaf)) if self._room else []
        of_all = sum(batch.leaf.pull() for batch in batches) if first else 0.0
        for rank, batch in enumerate(first, 1):
            waiting, part = _waiting(self._world, batch), batch.leaf.pull() / of_all
            yield self._shown(batch.leaf, "batch", str(batch.id), user, part, rank, waiting)
            self._turn += bool(waiting)
        self._turn = behind
        self._room -= len(first)
        self.left_out += len(batches) - len(first)

    def _shown(
        self, leaf: Leaf, place: str, name: str, user: str, part: float, rank: int, waiting: int
    ) -> ShareStanding:
        accounts = [self._accounts[each] for each in leaf.path[:-1] if each in self._accounts]
        return ShareStanding(
            place=place,
            name=name,
            account=accounts[-1] if accounts else "",
            user=user,
            depth=len(leaf.path) - 1,
            weight=1 / leaf.priority if place == "batch" else leaf.weight,
            part=round(part, 9),
            used=leaf.used() / WHOLE,
            has=leaf.had / WHOLE,
            waiting=waiting,
            rank=rank,
            turn=self._turn if waiting else None,
        )


def _order(leaf: Leaf) -> tuple[float, int]:
    return leaf.value(), leaf.number


def _waiting(world: World, batch: Batch) -> int:
    return batch.waiting if takes_turns(world, batch) else 0
