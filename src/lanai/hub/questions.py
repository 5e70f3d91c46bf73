"""What the API process asks of the scheduler: the queue, what is free, when something could start. Read off the core.

Each answer is made at once and is bounded, by rows that are told and by attempts that are looked at.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from lanai.core import advice, asking, credentials, priorities, rehearsal
from lanai.core.asking import QueueAsked
from lanai.core.free import Free
from lanai.core.free import free as free_now
from lanai.core.hub import HubCore
from lanai.core.schedule import forecast
from lanai.core.schedule.forecast import Forecast
from lanai.model.batch import BatchSettings
from lanai.model.errors import NothingThere
from lanai.model.ids import BatchId, Index
from lanai.model.policy import DEFAULT_SERVICE, Policy

_Answer: TypeAlias = asking.Queue | Free | priorities.Priorities | rehearsal.Rehearsal | Forecast
ROWS: Final = 1_000
"""Most rows of each block of the queue, and most kinds of node, in one answer."""


class OfFree(msgspec.Struct, frozen=True):
    """A batch of one job that nobody has submitted."""

    settings: BatchSettings


class OfWhen(msgspec.Struct, frozen=True):
    """A job, a batch (without index), or a batch of one job that nobody has submitted."""

    batch: BatchId = BatchId(0)
    index: Index | None = None
    settings: BatchSettings = BatchSettings()


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
    """What the user could start now. Refused where his submission would be."""
    settings = msgspec.msgpack.decode(arguments, type=OfFree).settings
    credit = _credit(core, user, settings)
    return _shown(free_now(core.world, user, settings, ROWS)) | credit


def when(core: HubCore, user: str, arguments: msgspec.Raw) -> dict[str, Any]:
    """The earliest start of a job that has not ended, whosever it is, or of one that the user might submit.

    The latter is refused where his submission would be.
    """
    asked = msgspec.msgpack.decode(arguments, type=OfWhen)
    if not asked.batch:
        credit = _credit(core, user, asked.settings)
        return _shown(forecast.earliest_if_submitted(core.world, user, asked.settings)) | credit
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


def _credit(core: HubCore, user: str, settings: BatchSettings) -> dict[str, Any]:
    """The account and the service that a batch of these settings would have. Raises what a submission would meet."""
    policy = core.world.policy
    refused = credentials.refusal(policy, user, account=settings.account, service=settings.service)
    if refused is not None:
        raise refused
    account = policy.account_of(user, settings.account)
    return {"account": account, "service": settings.service or DEFAULT_SERVICE}


def _shown(answer: _Answer) -> dict[str, Any]:
    return msgspec.structs.asdict(answer)
