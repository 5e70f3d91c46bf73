"""The queue as people ask for it: who runs, who is next, who is blocked and why.

Questions, which change nothing. They go by lines, grants and cells, never by single waiting jobs: a million jobs that
wait alike are one row. What a user may not see in detail is counted: `others` says how much of it there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from itertools import islice
from typing import Final, Literal, TypeAlias

import msgspec

from lanai.core import holds
from lanai.core.batches import Batch
from lanai.core.credentials import is_account, is_service
from lanai.core.nodes import Grant, Node
from lanai.core.queue import Span, Spans, spans_of
from lanai.core.schedule.access import is_out
from lanai.core.schedule.heads import tier
from lanai.core.schedule.lines import Line
from lanai.core.schedule.score import Scorer
from lanai.core.schedule.shares import share_of
from lanai.core.world import World
from lanai.model.errors import NothingThere
from lanai.model.ids import BatchId, Index, NodeId
from lanai.model.policy import DEFAULT_SERVICE
from lanai.model.resources import Shape
from lanai.model.vector import FIELD_MASK

BlockName: TypeAlias = Literal["running", "eligible", "blocked"]
BLOCKS: Final[tuple[BlockName, ...]] = ("running", "eligible", "blocked")
ELIGIBLE: Final = frozenset(
    ("", "next", "no_room", "no_open_node", "no_node", "stalled", "avoided", "reserved", "making_way")
)
"""Reasons that are no more than that it is not its turn, or that there is no room. All others block."""
SPANS: Final = 8
"""So many pieces of a line a row names; it says how many there are."""

_Place: TypeAlias = tuple[float, ...]


class QueueAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of the queue are wanted.

    Attributes:
        only: the one user whose rows may be told; empty: everybody's.
        user, account, service, node, batch: rows of these alone; empty or 0: of any. `node` is of what runs.
        blocks: which of them to list; all are counted.
        skip, most: rows of each block to leave out before, and to tell at most.
    """

    only: str = ""
    user: str = ""
    account: str = ""
    service: str = ""
    node: str = ""
    batch: BatchId = BatchId(0)
    blocks: tuple[BlockName, ...] = BLOCKS
    skip: int = 0
    most: int = 100


class QueueRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Attempts of one grant that run, or a line or a part of one that waits.

    Attributes:
        spans: the first few of its ranges of indices, of `pieces`.
        jobs: how many it stands for.
        shape: what each of them asks for; of what runs over several nodes, with as many as it has.
        queued_at_us: when its batch was submitted, by the clock on the wall.
        node, started_at_us, left_us: of what runs; 0 where the start is not known yet, None without a time limit.
        place: of what is eligible, by the order of the pass, from 1.
        code, reason, since_us: why it waits, and since when.
    """

    batch: BatchId
    spans: tuple[Span, ...]
    pieces: int
    jobs: int
    user: str
    account: str
    service: str
    name: str
    shape: Shape
    queued_at_us: int
    node: str = ""
    started_at_us: int = 0
    left_us: int | None = None
    place: int = 0
    code: str = ""
    reason: str = ""
    since_us: int = 0


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the queue.

    Attributes:
        rows: some of it.
        more: what follows them: of what runs so many attempts, else so many rows.
        jobs: all that was asked for.
        others: jobs that were not asked for, or may not be told of.
    """

    rows: list[QueueRow]
    more: int
    jobs: int
    others: int


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The three blocks, and how busy the nodes are that are open or at work: in thousandths of a cpu, and in nodes."""

    running: Block
    eligible: Block
    blocked: Block
    cpu_milli: int
    busy_milli: int
    nodes: int
    busy_nodes: int


def queue(world: World, asked: QueueAsked) -> Queue:
    """The queue as it stands. Raises NothingThere where there is no such node, service or account."""
    _check_names(world, asked)
    own = {batch.id: batch for batch in world.batches.values() if _is_asked(world, batch, asked)}
    eligible: list[Line] = []
    jobs = dict.fromkeys(BLOCKS, 0)
    others = dict.fromkeys(BLOCKS, 0)
    for batch in world.batches.values():
        is_own = batch.id in own
        counts = jobs if is_own else others
        counts["blocked"] += batch.held.count + len(batch.delayed)
        for line in batch.lines.values():
            if line.waiting.count:
                name = block_of(batch, line)
                counts[name] += line.waiting.count
                if is_own and name == "eligible":
                    eligible.append(line)
    nodes = [node for node in world.nodes.values() if node.is_open() or node.active or node.claims]
    total, busy = _cpus(nodes)
    return Queue(
        running=_running(world, own, asked),
        eligible=_eligible(world, eligible, jobs["eligible"], others["eligible"], asked),
        blocked=_blocked(world, own, jobs["blocked"], others["blocked"], asked),
        cpu_milli=total,
        busy_milli=busy,
        nodes=len(nodes),
        busy_nodes=sum(bool(node.active or node.claims) for node in nodes),
    )


def pass_order(world: World) -> Callable[[Line], _Place]:
    """What orders lines as the pass does, as of now.

    That is by tier, then by claim and within a batch by score; in the preset `tight` by tier, then by score.
    """
    if world.policy.preset == "fair":
        within = Scorer(world, {}, world.total)  # among lines of one batch the share makes no difference

        def by_share(line: Line) -> _Place:
            batch = world.batches[line.batch]
            score = within.score(batch, line) if len(batch.lines) > 1 else 0.0
            return -tier(world, batch), *line.leaf.claim(), int(line.batch), -score, line.waiting.head()

        return by_share
    shares = share_of(batch for batch in world.batches.values() if takes_turns(world, batch))
    scorer = Scorer(world, shares, world.total)

    def by_score(line: Line) -> _Place:
        batch = world.batches[line.batch]
        score = scorer.score(batch, line)
        return -tier(world, batch), -score, batch.submitted_at_us, int(line.batch), line.waiting.head()

    return by_score


def takes_turns(world: World, batch: Batch) -> bool:
    """Whether something of the batch waits for its turn, as the pass sees it: also what a limit holds does.

    What is held, paused, of a date still to come or bound to a reservation that is not there now does not.
    """
    return batch.is_open and batch.waiting > 0 and not is_out(world, batch)


def before(world: World, asked: Line) -> list[Line]:
    """The eligible lines of others that the pass looks at before this one, in no particular order."""
    place = pass_order(world)
    own = place(asked)
    lines = (line for batch in world.batches.values() for line in batch.lines.values() if line.waiting)
    return [
        line
        for line in lines
        if line is not asked and block_of(world.batches[line.batch], line) == "eligible" and place(line) < own
    ]


def block_of(batch: Batch, line: Line) -> BlockName:
    """Where a waiting line belongs."""
    return "eligible" if batch.is_open and line.reason in ELIGIBLE else "blocked"


def _check_names(world: World, asked: QueueAsked) -> None:
    """A mistyped name would look like a queue with nothing in it."""
    policy, batches = world.policy, world.batches.values()
    if asked.node and asked.node not in world.names:
        raise NothingThere(f"there is no node {asked.node}", code="no_such_node", hint="lanai node list")
    service, account = asked.service, asked.account
    if service and not is_service(policy, service) and all(_service(batch) != service for batch in batches):
        raise NothingThere(f"there is no service {service}", code="no_such_service", hint="lanai policy show")
    if account and not is_account(policy, account) and all(_account(world, batch) != account for batch in batches):
        raise NothingThere(f"there is no account {account}", code="no_such_account", hint="lanai shares")


def _is_asked(world: World, batch: Batch, asked: QueueAsked) -> bool:
    if (asked.only and batch.user != asked.only) or (asked.user and batch.user != asked.user):
        return False
    if asked.batch and batch.id != asked.batch:
        return False
    if asked.service and _service(batch) != asked.service:
        return False
    return not asked.account or _account(world, batch) == asked.account


def _service(batch: Batch) -> str:
    return batch.settings.service or DEFAULT_SERVICE


def _account(world: World, batch: Batch) -> str:
    return world.policy.account_of(batch.user, batch.settings.account)


def _cpus(nodes: Iterable[Node]) -> tuple[int, int]:
    total = busy = 0
    for node in nodes:
        whole = node.total & FIELD_MASK
        total += whole
        # Overdrawn, as on a node that has shrunk, it is busy and no more.
        free = node.free & FIELD_MASK
        busy += whole - free if free <= whole else whole
    return total, busy


def _running(world: World, own: dict[BatchId, Batch], asked: QueueAsked) -> Block:
    grants, jobs = _grants(world, own, asked)
    others = sum(batch.sent for batch in world.batches.values()) - jobs
    if "running" not in asked.blocks:
        return Block(rows=[], more=0, jobs=jobs, others=others)
    rows: list[QueueRow] = []
    seen = before = 0
    for grant in grants:
        count = len(grant.started) + (len(grant.started) < len(grant.members))
        if seen + count > asked.skip:
            first = max(0, asked.skip - seen)
            found = list(_attempts(world, grant))
            before += sum(row.jobs for row in found[:first])
            rows += found[first : first + asked.most - len(rows)]
        else:
            before += len(grant.members)
        seen += count
        if seen >= asked.skip + asked.most:
            break
    return Block(rows=rows, more=jobs - before - sum(row.jobs for row in rows), jobs=jobs, others=others)


def _grants(world: World, own: dict[BatchId, Batch], asked: QueueAsked) -> tuple[Iterable[Grant], int]:
    """Those that are asked for, and how many attempts they have together: some may wait at their node for room."""
    if not asked.node:
        jobs = sum(batch.sent for batch in own.values())
        if len(own) == len(world.batches):
            return world.grants.values(), jobs
        return (_until_all(world, own, jobs) if jobs else ()), jobs
    node = world.nodes.get(world.names.get(asked.node, NodeId(0)))
    there = (*node.grants.values(), *node.claims.values()) if node is not None else ()
    found = [grant for grant in there if grant.batch.id in own]
    return found, sum(len(grant.members) for grant in found)


def _until_all(world: World, own: dict[BatchId, Batch], jobs: int) -> Iterator[Grant]:
    for grant in world.grants.values():
        if grant.batch.id in own:
            yield grant
            jobs -= len(grant.members)
            if not jobs:
                return


def _attempts(world: World, grant: Grant) -> Iterator[QueueRow]:
    """Those that are known to have begun one by one, the others of the grant together."""
    shape, node = grant.line.shape, grant.node.name
    if grant.others:
        shape = msgspec.structs.replace(shape, nodes=1 + len(grant.others))
    limit_us = shape.time_limit_us
    for index, at_us in sorted(grant.started.items()):
        # The node's clock may be ahead of the last word of ours.
        left_us = min(limit_us, max(0, at_us + limit_us - world.wall_us)) if limit_us else None
        yield _row(world, grant.batch, shape, ((index, index),), 1, 1, node, at_us, left_us)
    unknown = grant.members - grant.started.keys()
    if unknown:
        spans = spans_of(unknown)
        left_us = limit_us or None
        yield _row(world, grant.batch, shape, spans[:SPANS], len(spans), len(unknown), node, 0, left_us)


def _eligible(world: World, lines: list[Line], jobs: int, others: int, asked: QueueAsked) -> Block:
    if "eligible" not in asked.blocks:
        return Block(rows=[], more=0, jobs=jobs, others=others)
    upto = asked.skip + asked.most
    first = nsmallest(upto, lines, key=pass_order(world))[asked.skip :]
    rows = [_of_line(world, world.batches[line.batch], line, place=n) for n, line in enumerate(first, asked.skip + 1)]
    return Block(rows=rows, more=max(0, len(lines) - upto), jobs=jobs, others=others)


def _blocked(world: World, own: dict[BatchId, Batch], jobs: int, others: int, asked: QueueAsked) -> Block:
    if "blocked" not in asked.blocks:
        return Block(rows=[], more=0, jobs=jobs, others=others)
    upto = asked.skip + asked.most
    rows: list[QueueRow] = []
    seen = 0
    for batch in own.values():
        for line in batch.lines.values():
            if line.waiting.count and block_of(batch, line) == "blocked":
                if asked.skip <= seen < upto:
                    rows.append(_of_line(world, batch, line))
                seen += 1
        for code, reason, spans, count in _set_aside(batch):
            if asked.skip <= seen < upto:
                rows.append(_of_set_aside(world, batch, code, reason, spans, count))
            seen += 1
    return Block(rows=rows, more=max(0, seen - upto), jobs=jobs, others=others)


def _set_aside(batch: Batch) -> Iterator[tuple[str, str, Spans | None, int]]:
    """What of a batch waits in no line: (code, reason, spans, how many); without spans: the delayed ones."""
    if batch.held:
        yield "held", holds.words_of_all(batch), batch.held, batch.held.count
    if batch.delayed:
        text = "the last attempt met a fault of the node; it is tried again shortly"
        yield "delayed", text, None, len(batch.delayed)


def _of_set_aside(world: World, batch: Batch, code: str, reason: str, spans: Spans | None, count: int) -> QueueRow:
    if spans is None:
        spans = Spans.of(spans_of(batch.delayed))
    shown = tuple(islice(spans, SPANS))
    row = _row(world, batch, batch.shapes[batch.shape_of(Index(spans.head()))], shown, spans.pieces, count)
    return msgspec.structs.replace(row, code=code, reason=reason)


def _of_line(world: World, batch: Batch, line: Line, *, place: int = 0) -> QueueRow:
    row = _row(world, batch, line.shape, tuple(islice(line.waiting, SPANS)), line.waiting.pieces, line.waiting.count)
    code, reason = reason_of(batch, line)
    return msgspec.structs.replace(row, code=code, reason=reason, since_us=line.since_us, place=place)


def reason_of(batch: Batch, line: Line) -> tuple[str, str]:
    """Why a line waits, as a code and in words: as the last pass left it, or because its batch is paused."""
    if batch.state == "paused":
        return "paused", f"the batch is paused: {batch.reason}"
    return line.reason, line.reason_text


def _row(
    world: World,
    batch: Batch,
    shape: Shape,
    spans: tuple[Span, ...],
    pieces: int,
    jobs: int,
    node: str = "",
    started_at_us: int = 0,
    left_us: int | None = None,
) -> QueueRow:
    return QueueRow(
        batch=batch.id,
        spans=spans,
        pieces=pieces,
        jobs=jobs,
        user=batch.user,
        account=_account(world, batch),
        service=_service(batch),
        name=batch.settings.name,
        shape=shape,
        queued_at_us=batch.submitted_at_us,
        node=node,
        started_at_us=started_at_us,
        left_us=left_us,
    )
