"""The policy in force, and the use of accounts and users, which survives the hub.

Use is kept once a minute while it changes, and at a planned stop: a hub that is killed forgets a minute of it at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lanai.core.world import SECOND_US, World
from lanai.model.records import SaveMeta

USE: Final = "use"
KEEP_USE_US: Final = 60 * SECOND_US


def recover(world: World, meta: Mapping[str, str]) -> None:
    """Take over what the store holds. To be called before any batch is found again."""
    world.tree.take_back(meta.get(USE, ""), world.wall_us)
    world.use_kept = world.tree.total_use()


def look_at_use(world: World) -> None:
    """Keep it where that is due."""
    if world.now_us >= world.use_due_us:
        world.use_due_us = world.now_us + KEEP_USE_US
        record = use_record(world)
        if record is not None:
            world.keep(record)


def use_record(world: World) -> SaveMeta | None:
    """The use of all users, to be kept; None where it is what was kept last, but for the time that has passed."""
    total = world.tree.total_use()
    if total == world.use_kept:
        return None
    world.use_kept = total
    return SaveMeta(USE, world.tree.kept(world.wall_us))
