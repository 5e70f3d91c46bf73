"""A job that nobody has submitted, while a question about it lasts: what it asks for, and whose it would be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lanai.core.batches import Batch
from lanai.core.schedule import limits
from lanai.core.schedule.leaf import Leaf
from lanai.core.schedule.lines import Line
from lanai.core.schedule.tree import NEW
from lanai.core.world import World
from lanai.model.batch import PRIORITY_DEFAULT, BatchSettings
from lanai.model.ids import BatchId, ShapeId

_SHAPE: Final = ShapeId(0)


@contextmanager
def supposed(world: World, user: str, settings: BatchSettings) -> Iterator[Line]:
    """The line in which a job of the user's would wait, were he to submit a batch of it with these settings now.

    Its batch is among those of the world inside the `with` alone, with the number that it would have, and that job
    waits in it; it hangs in the share tree where it would, which knows nothing of it. To be asked about, and not to be
    started.
    """
    number = BatchId(world.last_batch + 1)
    account = world.policy.account_of(user, settings.account)
    above = _user_leaf(world, account, user)
    batch = Batch(number, user, settings, b"", world.layout, above, world.wall_us, account)
    batch.shapes[_SHAPE] = settings.shape
    limits.attach_supposed(world, batch)
    line = batch.line(_SHAPE)
    line.waiting.add(1, 1)
    world.batches[number] = batch
    try:
        yield line
    finally:
        del world.batches[number]


def _user_leaf(world: World, account: str, user: str) -> Leaf:
    """The user's place in the account: the one that there is, or one like that which he would be given."""
    found = world.tree.users.get((account, user))
    if found is not None:
        return found
    weight = world.policy.user(user).weight
    return Leaf(world.tree.clock, NEW, PRIORITY_DEFAULT, weight=weight, above=_account_leaf(world, account))


def _account_leaf(world: World, name: str) -> Leaf:
    found = world.tree.accounts.get(name)
    if found is not None:
        return found
    settled = world.policy.account(name)
    above = _account_leaf(world, settled.parent) if settled.parent else None
    return Leaf(world.tree.clock, NEW, PRIORITY_DEFAULT, weight=settled.weight, above=above)
