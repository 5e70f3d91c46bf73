"""When something can start at the earliest, by what the core knows now, and how sure that is.

A node that has room now gives the answer at once. Else the attempts that run are taken to end when their time limits
say, or, where they have none, after the mean of their line's last run times; the room they leave is added up per node
until the request fits. Jobs that are not at a node yet are not looked at: that is what "if nothing comes before it"
means. Attempts that wait at a node for room are not either: they last half a second there. A line to which the last
pass has promised a time has that one.

What nobody has submitted is asked about as a line that is supposed for it (`supposed`): so rules of sharing, access
lists of reservations and limits are those of whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import nsmallest
from itertools import islice
from typing import Final, Literal, TypeAlias

import msgspec

from lanai.core import asking, explain, holds
from lanai.core.batches import Batch
from lanai.core.nodes import NEVER_US, Grant, Node
from lanai.core.schedule import access, future, heads, limits, placing, preempt
from lanai.core.schedule.counters import Counter
from lanai.core.schedule.estimate import end_of, estimate_us, predicted_us
from lanai.core.schedule.lines import Line
from lanai.core.supposed import supposed
from lanai.core.world import Promise, World
from lanai.model.batch import BatchSettings
from lanai.model.ids import Index
from lanai.model.moments import format_moment
from lanai.model.policy import UNLIMITED
from lanai.model.resources import Shape
from lanai.model.units import format_duration
from lanai.model.vector import FIELD_BITS, FIELD_MASK, Vector

Certainty: TypeAlias = Literal["now", "promised", "if nothing comes before it", "unknown"]
LOOKED_AT: Final = 5_000
"""So many attempts are looked at for one answer, so that it is never long in coming."""
NAMED: Final = 3
"""So many nodes are named."""
_STUCK: Final = frozenset(("no_room", "reserved", "making_way"))
"""Reasons of a line that would start if there were room."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """When something can start at the earliest.

    Attributes:
        at_us: by the clock on the wall; 0 where that is not known.
        certainty: `now`: there is room; `promised`: a reservation says so; `if nothing comes before it`: by what runs;
            `unknown`.
        why: what that rests on, in a sentence.
        before: of what nobody has submitted: how many lines that wait would be looked at before it; else 0.
    """

    at_us: int = 0
    certainty: Certainty
    why: str
    before: int = 0


def earliest_start(world: World, asked: Line) -> Forecast:
    """When the head of a line can start."""
    batch = world.batches[asked.batch]
    if batch.state == "paused":
        return _unknown(f"the batch is paused: {batch.reason}")
    if never := limits.beyond(batch, asked.shape):
        return _unknown(never)
    promise = world.promises.get(asked)
    if promise is not None:
        return _promised(world, promise)
    own_us = 0
    if batch.room() <= 0:
        found = _own_end(world, batch)
        if found is None:
            return _unknown(f"its batch runs its limit of {batch.max_running} jobs, and nothing says when one ends")
        own_us = found
    held = limits.holding(world, asked)
    if held is not None:
        return _at_limit(world, asked, held)
    forecast = _on_nodes(world, batch, asked)
    at_us = max(forecast.at_us, _wall(world, own_us) if own_us else 0, batch.settings.start_after_us)
    if forecast.certainty == "unknown" or at_us == forecast.at_us:
        return forecast
    if at_us == batch.settings.start_after_us:
        return Forecast(at_us=at_us, certainty="if nothing comes before it", why="its batch is not to start before")
    why = f"its batch runs its limit of {batch.max_running} jobs, one of which is to end then"
    return Forecast(at_us=at_us, certainty="if nothing comes before it", why=why)


def earliest_if_submitted(world: World, user: str, settings: BatchSettings) -> Forecast:
    """When the job of a batch of these settings can start, were the user to submit it now."""
    with supposed(world, user, settings) as line:
        if never := limits.never(world, world.batches[line.batch]):
            return _unknown(never)
        return msgspec.structs.replace(_in_turn(world, line), before=len(asking.before(world, line)))


def earliest_of_job(world: World, batch: Batch, index: Index | None) -> Forecast:
    """When a job that has not ended, or (None) the first of its batch that waits, can start."""
    if index in batch.held if index is not None else batch.held and not batch.waiting:
        return _held(batch, index)
    if index is not None and index in batch.delayed:
        return _unknown("its last attempt met a fault of the node; it is tried again shortly")
    lines = [line for line in batch.lines.values() if line.waiting and (index is None or index in line.waiting)]
    if not lines:
        return _unknown("it is at a node already" if batch.sent else "nothing of it waits")
    line = min(lines, key=lambda line: line.waiting.head())
    head = _in_turn(world, line)
    before = 0 if index is None else line.waiting.before(index)
    return _behind(world, line, head, before) if before and head.certainty != "unknown" else head


def _in_turn(world: World, line: Line) -> Forecast:
    """As `earliest_start`, but those who may not be backfilled start none before others in front who find no room."""
    found, batch = earliest_start(world, line), world.batches[line.batch]
    service = world.policy.service(batch.settings.service)
    if found.certainty not in ("now", "if nothing comes before it"):
        return found
    if service.may_backfill and not heads.is_strict(world):
        return found
    stuck = [other for other in asking.before(world, line) if other.reason in _STUCK]
    if len(stuck) < max(1, heads.depth(world)):
        return found
    first = min(stuck, key=asking.pass_order(world))
    whose = "there is no backfill" if heads.is_strict(world) else "its service does not backfill"
    text = f"batch {first.batch} is in front of it and finds no room, and {whose}"
    theirs = earliest_start(world, first)
    if not theirs.at_us:
        return _unknown(f"{text}; when that starts is not known: {theirs.why}")
    at_us = max(found.at_us, theirs.at_us)
    return Forecast(at_us=at_us, certainty="if nothing comes before it", why=f"{text} before then")


def free_until(node: Node) -> int:
    """Until when, by the hub's own clock, what is free on the node is nobody's yet; `UNLIMITED`: no reservation."""
    until_us: int = getattr(node, "until_us", 0)
    return until_us or UNLIMITED


def _held(batch: Batch, index: Index | None) -> Forecast:
    release = f"`lanai release {batch.id}{'' if index is None else f'/{index}'}` lets it run"
    hold = holds.of_job(batch, Index(batch.held.head()) if index is None else index)
    if hold is None or not hold.until_us:
        return _unknown(f"it is held; {release}")
    at_us = max(hold.until_us, batch.settings.start_after_us)
    why = f"it is held until {format_moment(hold.until_us)}; {release}"
    return Forecast(at_us=at_us, certainty="if nothing comes before it", why=why)


def may_go(world: World, node: Node, shape: Shape) -> bool:
    """Whether the node takes jobs of the shape at all, whatever is free there now."""
    return node.is_open() and set(shape.features) <= set(node.features)


def has_room(world: World, node: Node, request: Vector, length_us: int, line: Line) -> bool:
    """Whether the node has room now, and for so long (0: as is expected), for what `line` might ask for.

    That is besides what is kept from the line, and where the rules of sharing let it be beside what is there.
    """
    if (node.free - request) & world.layout.guard:
        return False
    batch = world.batches[line.batch]
    if placing.has_rules(world):
        if not placing.may_share(world, batch, node):
            return False
        request = node.total if placing.is_alone(world, batch) else request
    return future.fits(world, node, line, request, length_us or estimate_us(world, line))


def fitting_on(world: World, node: Node, line: Line, left: Vector) -> int:
    """How many jobs of the line at once fit into what is `left` for it on the node, by the rules of sharing too."""
    batch = world.batches[line.batch]
    if placing.has_rules(world) and not placing.may_share(world, batch, node):
        return 0
    request = placing.need(world, batch, line, node)
    return 0 if (left - request) & world.layout.guard else fit_number(left, request)


def fit_number(free: Vector, request: Vector) -> int:
    """How often `request` fits into `free` at once; `free` overdrawn nowhere. A request for nothing: a great many."""
    least = UNLIMITED
    while request:
        asked = request & FIELD_MASK
        if asked:
            least = min(least, (free & FIELD_MASK) // asked)
        request >>= FIELD_BITS
        free >>= FIELD_BITS
    return least


def expected_us(world: World, line: Line) -> int:
    """How long an attempt of the line is expected to run; 0 where nothing says."""
    known_us = predicted_us(world, line) if world.policy.services else 0
    if known_us := known_us or line.shape.time_limit_us or line.mean_run_us:
        return known_us
    batch = world.batches.get(line.batch)
    return batch.mean_run_us() if batch is not None else 0


def ends(world: World, node: Node) -> Iterator[tuple[int, Line]]:
    """When, by the hub's own clock, each attempt that takes room on the node is expected to end, where anything says.

    In no particular order. Never before now.
    """
    starts: dict[Line, list[int]] = {}
    for grant in node.grants.values():
        if grant.line in node.active:
            starts.setdefault(grant.line, []).extend(_starts(world, grant))
    for line, found in starts.items():
        length_us = expected_us(world, line)
        if length_us:
            for start_us in nsmallest(node.active[line], found):
                yield _end_us(world, start_us, length_us, is_limit=length_us == line.shape.time_limit_us), line
    for claim in node.claims.values():
        length_us = expected_us(world, claim.line)
        is_limit = length_us == claim.line.shape.time_limit_us
        for start_us in _starts(world, claim) if length_us else ():
            yield _end_us(world, start_us, length_us, is_limit=is_limit), claim.line


def _starts(world: World, grant: Grant) -> Iterator[int]:
    for index in grant.members:
        at_wall_us = grant.started.get(index, 0)
        yield world.now_us - max(0, world.wall_us - at_wall_us) if at_wall_us else grant.granted_at_us


def _end_us(world: World, start_us: int, length_us: int, *, is_limit: bool) -> int:
    """A limit ends what passes it; what runs longer than was predicted is predicted anew, as the pass does."""
    if is_limit:
        return max(start_us + length_us, world.now_us)
    return end_of(start_us, length_us, world.now_us)


def _on_nodes(world: World, batch: Batch, line: Line) -> Forecast:
    guard, shape, request = world.layout.guard, line.shape, line.vector
    able = [node for node in world.nodes.values() if not (node.total - request) & guard]
    usable = [node for node in able if may_go(world, node, shape) and placing.may_go(batch, line, node)]
    if len(usable) < shape.nodes:
        return _unknown(explain.why_no_room(world, batch, line)[1])
    roomy = sum(has_room(world, node, request, shape.time_limit_us, line) for node in usable)
    if roomy >= shape.nodes:
        return Forecast(at_us=world.wall_us, certainty="now", why=_rooms(roomy))
    if made := preempt.room_to_make(world, batch, line, shape.time_limit_us or estimate_us(world, line)):
        return _made(world, *made)
    found, looked_at = _earliest(world, usable, line)
    if len(found) < shape.nodes:
        if any(node.steps for node in usable):
            return _unknown("nothing says when enough is free that is not reserved: see `lanai reservations`")
        return _unknown("nothing says when enough of what runs will have ended: it has no time limit")
    first = nsmallest(shape.nodes, found, key=lambda each: each[0])
    at_us, node = first[-1]
    is_kept = any(each.steps for _, each in first)
    where = node.name if len(first) == 1 else _nodes(len(first))
    of = f" (the first {looked_at} of {len(usable)} nodes were looked at)" if looked_at < len(usable) else ""
    return Forecast(
        at_us=_wall(world, at_us),
        certainty="if nothing comes before it",
        why=f"what runs {'or is kept for others ' * is_kept}on {where} is expected to have ended by then{of}",
    )


def _made(world: World, attempts: int, after_us: int, names: list[str]) -> Forecast:
    """Others would make way for it."""
    who = "one attempt" if attempts == 1 else f"{attempts} attempts"
    where = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    why = (
        f"{who} of a lower tier on {where} would make way for it, and ha{'s' if attempts == 1 else 've'} ended by then"
    )
    return Forecast(at_us=world.wall_us + after_us, certainty="if nothing comes before it", why=why)


def _earliest(world: World, nodes: Iterable[Node], line: Line) -> tuple[list[tuple[int, Node]], int]:
    """When each of the nodes will have room, where that is known, and how many of them were looked at."""
    found: list[tuple[int, Node]] = []
    attempts = looked_at = 0
    for node in nodes:
        if attempts >= LOOKED_AT and len(found) >= line.shape.nodes:
            break
        looked_at += 1
        attempts += sum(len(grant.members) for grant in node.grants.values())
        at_us = _earliest_on(world, node, line)
        if at_us is not None:
            found.append((at_us, node))
    return found, looked_at


def _earliest_on(world: World, node: Node, asking: Line) -> int | None:
    limit_us = asking.shape.time_limit_us
    if has_room(world, node, asking.vector, limit_us, asking):
        return world.now_us
    request = placing.need(world, world.batches[asking.batch], asking, node)
    if node.steps or access.is_bound(world, asking):
        at_us = future.earliest(world, node, asking, request, limit_us or estimate_us(world, asking), world.now_us)
        return None if at_us >= NEVER_US else at_us
    free = node.free
    guard = world.layout.guard
    for end_us, line in sorted(ends(world, node), key=lambda end: end[0]):
        free += line.vector
        if not (free - request) & guard:
            return end_us
    return None


def _promised(world: World, promise: Promise) -> Forecast:
    names = ", ".join(node.name for node in promise.nodes[:NAMED])
    more = f" and {len(promise.nodes) - NAMED} more" if len(promise.nodes) > NAMED else ""
    kept = "keeps" if len(promise.nodes) == 1 else "keep"
    if promise.at_us <= world.now_us:
        why = f"{names}{more} {kept} room for it; what runs there takes longer than expected"
    else:
        why = f"{names}{more} {kept} room for it from then on, which comes sooner where something ends early"
    return Forecast(at_us=_wall(world, promise.at_us), certainty="promised", why=why)


def _at_limit(world: World, line: Line, counter: Counter) -> Forecast:
    """Of a line that a limit holds: it starts when one of those who count there has ended, or later."""
    counting = (
        at_us
        for node in world.nodes.values()
        for at_us, other in ends(world, node)
        if counter in world.batches[other.batch].counters
    )
    at_us = min(islice(counting, LOOKED_AT), default=None)
    text = limits.named(world, counter, line)
    if at_us is None:
        return _unknown(f"{text}; nothing says when that changes")
    certainty: Certainty = "if nothing comes before it"
    return Forecast(at_us=_wall(world, at_us), certainty=certainty, why=f"{text}; the first of what counts ends then")


def _own_end(world: World, batch: Batch) -> int | None:
    """When the first of the batch's attempts is expected to end."""
    nodes = (node for node in world.nodes.values() if any(line.batch == batch.id for line in node.active))
    return min((at_us for node in nodes for at_us, line in ends(world, node) if line.batch == batch.id), default=None)


def _behind(world: World, line: Line, head: Forecast, before: int) -> Forecast:
    """Of a job with `before` others of its own line in front of it."""
    if head.certainty == "now" and before < _fitting(world, line):
        return head
    length_us = expected_us(world, line)
    first = f"{before} job{'s' * (before > 1)} of its own line {'are' if before > 1 else 'is'} in front of it"
    if not length_us:
        return _unknown(f"{first}, and nothing says how long one runs")
    at_once = max(1, line.active, _fitting(world, line) if head.certainty == "now" else 0)
    text = f"{first}: {at_once} at once, {format_duration(length_us / 1e6)} each"
    return Forecast(at_us=head.at_us + before * length_us // at_once, certainty="if nothing comes before it", why=text)


def _fitting(world: World, line: Line) -> int:
    return sum(
        fitting_on(world, node, line, future.left_now(world, node, line))
        for node in world.nodes.values()
        if may_go(world, node, line.shape) and placing.may_go(world.batches[line.batch], line, node)
    )


def _wall(world: World, at_us: int) -> int:
    return world.wall_us + max(0, at_us - world.now_us)


def _unknown(why: str) -> Forecast:
    return Forecast(certainty="unknown", why=why)


def _rooms(count: int) -> str:
    return f"{_nodes(count)} {'has' if count == 1 else 'have'} room"


def _nodes(count: int) -> str:
    return "one node" if count == 1 else f"{count} nodes"
