"""What has been over for so long that nobody asks for it any more: decides what goes, and how fast.

An ended batch goes in two steps. With the first it is gone for everybody; it needs little, whatever the batch's size.
Its rows follow a few thousand a second, so that no transaction is long. The core knows nothing of ended batches by
itself: it asks for the oldest one, and what is found comes back as an event.
"""

from __future__ import annotations

from typing import Final

from lanai.core.effects import LookForOld
from lanai.core.events import OldFound
from lanai.core.world import SECOND_US, World
from lanai.model.records import PruneBatch, PruneRows, SaveMeta

LOOK_US: Final = 60 * SECOND_US
STEP_US: Final = SECOND_US
ROWS_A_STEP: Final = 5000
REVIVAL_US: Final = 600 * SECOND_US
"""A batch that is being read to be revived was found before so long at the most."""


def look(world: World) -> None:
    """Ask for what is too old, when that is due."""
    kept = world.kept
    if world.now_us < world.look_due_us or not (kept.batches_us or kept.events_us):
        return
    world.look_due_us = world.now_us + LOOK_US
    ended_before_us = world.wall_us - kept.batches_us if kept.batches_us else 0
    told_before_us = world.wall_us - kept.events_us if kept.events_us else 0
    world.do(LookForOld(ended_before_us, told_before_us))


def on_found(world: World, event: OldFound) -> None:
    """Let go of some of it, and look again a moment later; of what was revived meanwhile nothing goes."""
    batch = event.batch if event.batch not in world.batches else None
    if batch is None and not event.has_rows:
        world.pruned = {batch: at_us for batch, at_us in world.pruned.items() if world.now_us - at_us < REVIVAL_US}
        return
    if batch is not None:
        world.pruned[batch] = world.now_us
        # Numbers of attempt rows are not given again, not even where the last ones go.
        world.keep(SaveMeta("row", str(world.last_row)))
        world.keep(PruneBatch(batch))
    world.keep(PruneRows(event.told_before_us, ROWS_A_STEP))
    world.look_due_us = world.now_us + STEP_US
