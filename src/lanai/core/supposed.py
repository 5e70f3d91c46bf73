"""A job that nobody has submitted, while a question about it lasts: what it asks for, and whose it would be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lanai.core.batches import Batch
from lanai.core.schedule import limits
from lanai.core.schedule.leaf import Leaf
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, ShapeId
from lanai.model.resources import Shape

_NUMBER: Final = BatchId(0)
"""No batch has it."""


@contextmanager
def supposed(world: World, user: str, shape: Shape) -> Iterator[Line]:
    """The line that a job of this shape would wait in, were it the user's, in his own account and the usual service.

    Its batch is among those of the world inside the `with` alone, with nothing waiting; it has no place in the share
    tree. To be asked about, and not to be started.
    """
    settings = BatchSettings(shape=shape)
    leaf = Leaf(world.tree.clock, 0, settings.priority)
    account = world.policy.account_of(user, settings.account)
    batch = Batch(_NUMBER, user, settings, b"", world.layout, leaf, world.wall_us, account)
    batch.shapes[ShapeId(0)] = shape
    limits.attach_supposed(world, batch)
    world.batches[batch.id] = batch
    try:
        yield batch.line(ShapeId(0))
    finally:
        del world.batches[batch.id]
