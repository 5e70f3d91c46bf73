"""What the API process asks of the scheduler: the queue, what is free, when something could start. Read off the core.

Each answer is made at once and is bounded, by rows that are told and by attempts that are looked at.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from lanai.core import advice, asking, priorities, rehearsal
from lanai.core.asking import QueueAsked
from lanai.core.hub import HubCore
from lanai.core.schedule import forecast
from lanai.core.schedule.forecast import Forecast
from lanai.model.errors import NothingThere
from lanai.model.ids import BatchId, Index
from lanai.model.policy import Policy
from lanai.model.resources import Shape

_Answer: TypeAlias = asking.Queue | asking.Free | priorities.Priorities | rehearsal.Rehearsal | Forecast
ROWS: Final = 1_000
"""Most rows of each block of the queue, and most kinds of node, in one answer."""


class OfShape(msgspec.Struct, frozen=True):
    """A request that nobody has submitted."""

    shape: Shape


class OfWhen(msgspec.Struct, frozen=True):
    """A job, a batch (without index), or a request."""

    batch: BatchId = BatchId(0)
    index: Index | None = None
    shape: Shape = Shape()


class OfPlan(msgspec.Struct, frozen=True):
    """A dry run: under another policy (None: the one in force), told to one user (empty: to somebody who sees all)."""

    policy: Policy | None = None
    only: str = ""
    most: int = 100


def queue(core: HubCore, arguments: msgspec.Raw) -> dict[str, Any]:
    """Who runs, who is next, who is blocked."""
    asked = msgspec.msgpack.decode(arguments, type=QueueAsked)
    return _shown(asking.queue(core.world, msgspec.structs.replace(asked, most=min(asked.most, ROWS))))


def free(core: HubCore, user: str, arguments: msgspec.Raw) -> dict[str, Any]:
    """What the user could start now."""
    return _shown(asking.free(core.world, user, msgspec.msgpack.decode(arguments, type=OfShape).shape, ROWS))


def when(core: HubCore, user: str, arguments: msgspec.Raw) -> dict[str, Any]:
    """The earliest start of a job that has not ended, whosever it is, or of a request of the user's."""
    asked = msgspec.msgpack.decode(arguments, type=OfWhen)
    if not asked.batch:
        return _shown(forecast.earliest_of_shape(core.world, user, asked.shape))
    batch = core.world.batches.get(asked.batch)
    if batch is None:
        raise NothingThere(f"batch {asked.batch} is not running", code="batch_not_running")
    return _shown(forecast.earliest_of_job(core.world, batch, asked.index))


def priority(core: HubCore, arguments: msgspec.Raw) -> dict[str, Any]:
    """In which order waiting lines are looked at, and what makes their scores."""
    asked = msgspec.msgpack.decode(arguments, type=priorities.Asked)
    return _shown(priorities.priorities(core.world, msgspec.structs.replace(asked, most=min(asked.most, ROWS))))


def plan(core: HubCore, arguments: msgspec.Raw) -> dict[str, Any]:
    """What the next pass would do. Costs what a pass does."""
    asked = msgspec.msgpack.decode(arguments, type=OfPlan)
    return _shown(rehearsal.rehearse(core.world, policy=asked.policy, only=asked.only, most=min(asked.most, ROWS)))


def prospects(core: HubCore, batch_id: BatchId, index: Index | None) -> dict[str, Any]:
    """What would change that a job waits, when it could start, and which line it waits in: what `why` says besides."""
    batch = core.world.batches[batch_id]
    waiting = [line for line in batch.lines.values() if line.waiting and (index is None or index in line.waiting)]
    expected = forecast.earliest_of_job(core.world, batch, index)
    return {
        "changes": advice.changes(core.world, batch, index),
        "nodes": advice.rejections(core.world, batch, index),
        "when": _shown(expected) if waiting else None,
        "shapes": sorted({int(line.shape_id) for line in waiting}),
    }


def _shown(answer: _Answer) -> dict[str, Any]:
    return msgspec.structs.asdict(answer)
