"""Attempts that are to end so that another job has their room: preemption, from the wish to what became of it.

The wish is kept before the node is told, and is about the attempt that the job has at a node now. Its end comes back as
`cancelled` and is booked as `preempted`, which is charged to nobody; `requeue` has the job wait again at its old place,
`cancel` ends it. What had ended by itself before it was told counts as what it was, and whoever wanted the job
cancelled himself has it cancelled. Who is to give way is decided in `schedule/preempt.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from lanai.core.batches import Batch, Way
from lanai.core.effects import KillAttempts
from lanai.core.nodes import Grant
from lanai.core.world import World
from lanai.model.ids import BatchId, Index
from lanai.model.job import AttemptResult, Outcome
from lanai.model.records import DropOverrides, HoldRow, SaveOverride

_WHAT: Final = "preempted "


def wish(world: World, grant: Grant, index: Index, way: Way) -> None:
    """The attempt is to give way. The wish is kept; whoever wishes it asks the node."""
    batch = grant.batch
    batch.ways[index] = way
    world.keep(SaveOverride(batch.id, index, index, _WHAT + way.how, int(way.to), world.wall_us))
    verb = "queued again" if way.how == "requeue" else "cancelled"
    world.tell("job_preempted", f"{batch.id}/{index}", f"on {grant.node.name}: {verb}, {words(way)}")
    world.touch(batch)


def is_leaving(grant: Grant, index: Index) -> bool:
    """Whether the attempt is to end anyway, for whatever reason somebody had."""
    batch = grant.batch
    return index in batch.ways or index in batch.cancel_wishes or bool(grant.broken)


def ask_again(world: World, grant: Grant, members: set[Index]) -> None:
    """The node may not have heard that these, some of which are to give way, are to end."""
    batch = grant.batch
    for index in sorted(members & batch.ways.keys()):
        items = [(grant.id, index)]
        world.do(KillAttempts(grant.node.id, items, batch.settings.grace_us, words(batch.ways[index])))


def judged(batch: Batch, result: AttemptResult) -> AttemptResult:
    """The result of an attempt as it counts: it has given way if it was to, and ended because it was told to end."""
    way = batch.ways.get(result.index)
    if way is not None and result.outcome == Outcome.CANCELLED and result.index not in batch.cancel_wishes:
        return msgspec.structs.replace(result, outcome=str(Outcome.PREEMPTED), reason=words(way))
    if result.outcome == Outcome.PREEMPTED:
        return msgspec.structs.replace(result, outcome=str(Outcome.NODE))  # it is not a node's to say so
    return result


def over(world: World, batch: Batch, indices: Iterable[Index]) -> None:
    """These attempts are no longer at a node: the wish, where there was one, is over."""
    for index in indices:
        way = batch.ways.pop(index, None)
        if way is not None:
            world.keep(DropOverrides(batch.id, index, index, _WHAT + way.how))


def words(way: Way) -> str:
    """Why the attempt ended."""
    return f"preempted by batch {way.to}"


def recover(batch: Batch, found: Iterable[HoldRow]) -> None:
    """Take over the wishes that the store holds."""
    for what, first, last, value, _ in found:
        way = Way(BatchId(value), what.removeprefix(_WHAT))
        batch.ways.update((Index(index), way) for index in range(first, last + 1))
