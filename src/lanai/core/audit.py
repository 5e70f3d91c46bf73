"""The audit trail: who changed what, kept in the same transaction as the change.

`watched` stands around the handlers of wishes: it looks at what a wish is about before and afterwards, and finds in the
answer whether it was granted. So no handler has to think of it, and none can forget it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from lanai.core.batches import Batch
from lanai.core.effects import Answer, Effect
from lanai.core.events import (
    BatchChanged,
    BatchClosed,
    HubStopWished,
    JobsCancelled,
    JobsHeld,
    JobsReleased,
    JobsRetried,
    NodeWished,
    Noted,
    PolicyChanged,
    ReservationDropped,
    ReservationWished,
    TokenCreated,
    TokensRevoked,
)
from lanai.core.long_work import Work
from lanai.core.nodes import Node
from lanai.core.reserved_shown import reservation_facts
from lanai.core.world import World
from lanai.model.access import Action, Caller
from lanai.model.ids import NodeId
from lanai.model.ranges import format_ranges
from lanai.model.records import Facts, SaveAudit

SUBJECT_CHARACTERS: Final = 200

OfJobs = JobsCancelled | JobsHeld | JobsReleased | JobsRetried
OfReservations = ReservationWished | ReservationDropped
Wish = (
    OfJobs
    | OfReservations
    | BatchChanged
    | BatchClosed
    | NodeWished
    | TokenCreated
    | TokensRevoked
    | PolicyChanged
    | HubStopWished
)

W = TypeVar("W", bound=Wish)

_OF_JOBS: Final[dict[type[OfJobs], Action]] = {
    JobsCancelled: Action.BATCH_CANCEL,
    JobsHeld: Action.BATCH_HOLD,
    JobsReleased: Action.BATCH_RELEASE,
    JobsRetried: Action.BATCH_RETRY,
}
_OF_NODES: Final = {"drain": Action.NODE_DRAIN, "resume": Action.NODE_RESUME, "remove": Action.NODE_REMOVE}


def watched(world: World, event: W, handler: Callable[[World, W], None]) -> None:
    """Have the wish handled, and keep a row about it. One that no caller has (the hub's own) leaves none."""
    if event.caller is None:
        handler(world, event)
        return
    # Looked up before, since what it is about may be gone from the world afterwards; what it was then is still told.
    look = _look_at(world, event)
    before = look()
    mark = len(world.effects)
    handler(world, event)
    _keep(world, event.caller, event, before, look, world.effects[mark:])


def watched_work(world: World, event: W, handler: Callable[[World, W], Work]) -> Work:
    """The same of a wish that is long work, and is answered in the call in which that ends."""
    if event.caller is None:
        yield from handler(world, event)
        return
    look = _look_at(world, event)
    before = look()
    yield from handler(world, event)
    _keep(world, event.caller, event, before, look, world.effects[-1:])


def note(world: World, event: Noted) -> None:
    """Keep what happened elsewhere: a refusal at a door, input for a job."""
    world.last_audit += 1
    at_us = event.wall_us or world.wall_us
    world.keep(
        SaveAudit(
            world.last_audit,
            at_us,
            event.caller,
            event.action,
            event.subject[:SUBJECT_CHARACTERS],
            {},
            event.after,
            event.is_refused,
            event.why,
            event.left_out,
        )
    )


def _keep(
    world: World, caller: Caller, event: Wish, before: Facts, look: Callable[[], Facts], effects: list[Effect]
) -> None:
    answers = [each for each in effects if isinstance(each, Answer) and each.request == event.request]
    error = answers[0].error if answers else None
    told = answers[0].result if answers else None
    after = {} if error else {**look(), **_plain(told or {})}
    action, subject = _what(event)
    world.last_audit += 1
    at_us = event.wall_us or world.wall_us
    why = error.message if error else ""
    world.keep(SaveAudit(world.last_audit, at_us, caller, action, subject, before, after, error is not None, why))


def _what(event: Wish) -> tuple[Action, str]:
    match event:
        case NodeWished():
            return _OF_NODES[event.wish], f"node {event.name[:SUBJECT_CHARACTERS]}"
        case BatchClosed():
            return Action.BATCH_SUBMIT, f"batch {event.batch}"
        case BatchChanged():
            return Action.BATCH_SET, f"batch {event.batch}"
        case TokenCreated():
            return Action.TOKEN_CREATE, f"{event.kind} token of {event.user}"
        case TokensRevoked():
            return Action.TOKEN_REVOKE, f"tokens of {event.user}" if event.user else f"token {event.token}"
        case PolicyChanged():
            return Action.POLICY_SET, "policy"
        case ReservationWished():
            return Action.RESERVATION_SET, f"reservation {event.reservation.name[:SUBJECT_CHARACTERS]}"
        case ReservationDropped():
            return Action.RESERVATION_SET, f"reservation {event.name[:SUBJECT_CHARACTERS]}"
        case HubStopWished():
            return Action.HUB_STOP, "hub"
        case _:
            return _OF_JOBS[type(event)], f"batch {event.batch}{_jobs(event)}"


def _jobs(event: OfJobs) -> str:
    shown = ""
    if event.spans is not None:
        # A million single jobs are written out no further than the eye goes.
        some = format_ranges(event.spans[:SUBJECT_CHARACTERS])
        cut = len(some) > SUBJECT_CHARACTERS or len(event.spans) > SUBJECT_CHARACTERS
        shown = f" jobs {some[:SUBJECT_CHARACTERS]}" + ("..." if cut else "")
    return shown + (" @" + ",".join(event.states) if event.states else "")


def _look_at(world: World, event: Wish) -> Callable[[], Facts]:
    match event:
        case NodeWished():
            node = world.nodes.get(world.names.get(event.name, NodeId(0)))
            return dict if node is None else lambda: _node_facts(node)
        case TokenCreated() | TokensRevoked() | HubStopWished():
            return dict
        case PolicyChanged():
            return lambda: _policy_facts(world)
        case ReservationWished():
            return lambda: reservation_facts(world, event.reservation.name)
        case ReservationDropped():
            return lambda: reservation_facts(world, event.name)
        case BatchClosed():
            arriving = world.arriving.get(event.batch)
            name = arriving.opened.settings.name if arriving else ""
            return (lambda: {"name": name}) if name else dict
        case _:
            batch = world.batches.get(event.batch)
            return dict if batch is None else lambda: _batch_facts(batch, event)


def _node_facts(node: Node) -> Facts:
    return {"state": str(node.state), "is_drained": node.is_drained}


def _policy_facts(world: World) -> Facts:
    policy = world.policy
    counts = {
        "accounts": len(policy.accounts),
        "users": len(policy.users),
        "groups": len(policy.groups),
        "services": len(policy.services),
    }
    counted = {kind: count for kind, count in counts.items() if count}
    return {"preset": policy.preset, "backfill": policy.backfill, "depth": policy.depth, **counted}


def _batch_facts(batch: Batch, event: Wish) -> Facts:
    if isinstance(event, BatchChanged):
        settings = batch.settings
        changed: dict[str, tuple[object, str | int]] = {
            "account": (event.account, settings.account),
            "service": (event.service, settings.service),
            "start_after_us": (event.start_after_us, settings.start_after_us),
            "reservation": (event.reservation, settings.reservation),
        }
        named = {name: now for name, (wished, now) in changed.items() if wished is not None}
        return {"priority": batch.priority, "max_running": batch.max_running, **named}
    counts = {name: getattr(batch.counts, name) for name in batch.counts.__struct_fields__}
    return {"state": batch.state, **{name: count for name, count in counts.items() if count}}


def _plain(told: dict[str, object]) -> Facts:
    """What the answer says, as far as it is numbers and words."""
    return {name: value for name, value in told.items() if isinstance(value, (str, int))}
