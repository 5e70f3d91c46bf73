"""Start dates: a batch none of whose jobs is to start before a moment, and the wake-up at that moment.

Dates are by the clock on the wall, which can be set; the core's own cannot. A date is looked at whenever time passes:
the wake-up may come early or late by what the one has moved against the other, and nothing else goes wrong.
"""

from __future__ import annotations

from heapq import heappop

from lanai.core import explain
from lanai.core.batches import Batch
from lanai.core.world import World
from lanai.model.ids import BatchId
from lanai.model.moments import format_moment


def settle(world: World, batch: Batch) -> None:
    """See whether the batch's date is still to come, and if so be woken then. To be called when it may be another."""
    was_early = batch.is_early
    batch.is_early = batch.settings.start_after_us > world.wall_us
    if batch.is_early:
        world.wake_at(batch.id, batch.settings.start_after_us)
    elif was_early:
        world.needs_pass = True


def due(world: World) -> list[Batch]:
    """The batches that are to be looked at now, each once; they are asked about no more."""
    found: dict[BatchId, None] = {}
    while world.dates and world.dates[0][0] <= world.wall_us:
        found[heappop(world.dates)[1]] = None
    return [world.batches[batch] for batch in found if batch in world.batches]


def next_due_us(world: World) -> int | None:
    """When the next one is, by the core's own clock; None where there is none."""
    return world.dates[0][0] - world.wall_us + world.wall_seen_us if world.dates else None


def note(world: World) -> None:
    """Leave the reason on the lines of batches whose date is still to come. For each pass."""
    for batch in world.batches.values():
        if batch.is_early:
            text = f"none of its jobs is to start before {format_moment(batch.settings.start_after_us)}"
            for line in batch.lines.values():
                if line.waiting:
                    explain.set_reason(world, line, "date", text)
