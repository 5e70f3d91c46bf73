"""A dry run: what the next pass would start where, what it would promise to whom, and what is blocked by which limit.

The pass itself runs, on the world itself, up to where it would grant what it has booked; then all is put back as it
was. So there is no second way of deciding. It costs what a pass costs, and once more by nodes, lines and shares. Under
another policy it is the same, with that one in force meanwhile. What is left out is the lifting of bans that leave a
line nowhere to go, which a pass begins with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Final

import msgspec

from lanai.core import policy as policies
from lanai.core.asking import Block, QueueAsked, queue
from lanai.core.batches import Batch
from lanai.core.nodes import Node
from lanai.core.queue import Span
from lanai.core.schedule.agenda import Effort
from lanai.core.schedule.decide import Booked, look
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.snapshot import Snapshot
from lanai.core.world import World
from lanai.model.ids import BatchId
from lanai.model.policy import DEFAULT_SERVICE, Policy
from lanai.model.resources import Shape

NAMED: Final = 16
"""So many nodes of one start or promise are named."""
PROMISES: Final = 1_000
"""So many promises are told."""
LARGE: Final = frozenset(("tries", "runs", "reshaped", "shapes"))
"""Of a batch: by jobs, and not for a pass to change."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one line that would start on the same nodes, of which the first few are named.

    `until_us` is when they are expected to have ended, by the clock on the wall.
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
    nodes: tuple[str, ...]
    until_us: int


class Promised(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a line that would find no room, and when and where it would be promised some."""

    batch: BatchId
    index: int
    user: str
    account: str
    service: str
    name: str
    shape: Shape
    nodes: tuple[str, ...]
    at_us: int


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass would come to.

    Attributes:
        starts: in the order of the pass; `starting` jobs in all, of which `others` may not be told of.
        promises: in the order of the pass; `promised` in all.
        blocked: what would be blocked then, and why.
        waiting: jobs that would go on waiting for room or their turn; other people's included.
        is_whole: the pass came to its end; else another would follow at once, and start more.
        differs: whether another policy than the one in force was tried.
    """

    starts: list[Start]
    starting: int
    others: int
    promises: list[Promised]
    promised: int
    blocked: Block
    waiting: int
    is_whole: bool
    differs: bool


def rehearse(world: World, *, policy: Policy | None = None, only: str = "", most: int = 100) -> Rehearsal:
    """What a pass would come to now. The world is afterwards what it was.

    Args:
        world: as of its last event.
        policy: another one to try; None is the one in force.
        only: the one user whose jobs may be told of; empty: everybody's.
        most: rows of what is blocked.
    """
    differs = policy is not None and policy != world.policy
    with _put_back(world):
        if policy is not None and differs:
            policies.put(world, policy)
        world.renewed.clear()  # what earlier calls of a pass that goes on have found, under the policy in force
        sweep = look(world)
        taken = [(booked, booked.line.waiting.take(booked.jobs)) for booked in sweep.booked()]
        try:
            return _told(world, taken, only, most, is_whole=not sweep.is_over, differs=differs)
        finally:
            for booked, spans in reversed(taken):
                booked.line.waiting.merge(spans)


@contextmanager
def _put_back(world: World) -> Iterator[None]:
    """Whatever a pass does to the world is undone at the end."""
    nodes = list(world.nodes.values())
    before = Snapshot(_changeable(world, nodes), LARGE)
    free = [node.free for node in nodes]
    agendas = [(cell, cell.agenda) for cell in world.cells.values()]
    for cell, agenda in agendas:
        cell.agenda = agenda.copy()
    world.records, world.effects, world.moved = [], [], {}
    world.effort = Effort()
    try:
        yield
    finally:
        moved = [node for node, was in zip(nodes, free, strict=True) if node.free != was]
        before.put_back()
        for node in moved:
            world.reindex(node)
        for cell, agenda in agendas:
            cell.agenda = agenda


def _changeable(world: World, nodes: list[Node]) -> Iterator[object]:
    """All that a pass, or another policy, may change."""
    tree = world.tree
    yield from (world, tree, tree.clock, *tree.accounts.values(), *tree.users.values(), *nodes)
    for batch in world.every_batch():
        yield from (batch, batch.leaf, *batch.lines.values())
    counters = chain(world.counters.values(), *((*each.counters, *each.queues) for each in world.every_batch()))
    yield from dict.fromkeys(counters)
    if any(service.is_preemptor for service in world.policy.services.values()):
        yield from world.grants.values()


def _told(
    world: World, taken: list[tuple[Booked, list[Span]]], only: str, most: int, *, is_whole: bool, differs: bool
) -> Rehearsal:
    starts = [_start(world, booked, spans) for booked, spans in taken]
    own = [start for start in starts if not only or start.user == only]
    starting = sum(start.jobs for start in starts)
    promises = [
        _promised(world, line)
        for line in world.promises
        if line.waiting and (not only or world.batches[line.batch].user == only)
    ]
    found = queue(world, QueueAsked(only=only, blocks=("blocked",), most=most))
    return Rehearsal(
        starts=own,
        starting=starting,
        others=starting - sum(start.jobs for start in own),
        promises=promises[:PROMISES],
        promised=len(promises),
        blocked=found.blocked,
        waiting=found.eligible.jobs + found.eligible.others,
        is_whole=is_whole,
        differs=differs,
    )


def _start(world: World, booked: Booked, spans: list[Span]) -> Start:
    line, batch = booked.line, world.batches[booked.line.batch]
    return Start(
        batch=batch.id,
        spans=tuple(spans[:NAMED]),
        pieces=len(spans),
        jobs=booked.jobs,
        user=batch.user,
        account=_account(world, batch),
        service=_service(batch),
        name=batch.settings.name,
        shape=line.shape,
        nodes=tuple(node.name for node in booked.nodes[:NAMED]),
        until_us=world.wall_us + estimate_us(world, line),
    )


def _promised(world: World, line: Line) -> Promised:
    batch, promise = world.batches[line.batch], world.promises[line]
    return Promised(
        batch=batch.id,
        index=line.waiting.head(),
        user=batch.user,
        account=_account(world, batch),
        service=_service(batch),
        name=batch.settings.name,
        shape=line.shape,
        nodes=tuple(node.name for node in promise.nodes[:NAMED]),
        at_us=world.wall_us + max(0, promise.at_us - world.now_us),
    )


def _account(world: World, batch: Batch) -> str:
    return world.policy.account_of(batch.user, batch.settings.account)


def _service(batch: Batch) -> str:
    return batch.settings.service or DEFAULT_SERVICE
