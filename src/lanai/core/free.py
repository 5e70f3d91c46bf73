"""What a user could start now, and on which nodes, if nothing came before it. A question, which changes nothing."""

from __future__ import annotations

from typing import Final

import msgspec

from lanai.core import explain
from lanai.core.nodes import NEVER_US, Node
from lanai.core.schedule import limits, placing
from lanai.core.schedule.forecast import fitting_on, has_room
from lanai.core.schedule.future import left_now, until
from lanai.core.schedule.lines import Line
from lanai.core.supposed import supposed
from lanai.core.world import World
from lanai.model.batch import BatchSettings
from lanai.model.policy import UNLIMITED
from lanai.model.resources import Amounts
from lanai.model.vector import CPU, Vector, field

NAMED: Final = 3
"""So many nodes of a kind are named."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What could start now on the nodes of one kind that are free for the same time.

    Attributes:
        total: of one such node.
        nodes: how many such nodes there are; `names` the first few of them.
        roomy: how many of them have room for at least one.
        jobs: how many jobs such as was asked about fit now.
        free_milli: cpus that are free on all of them together.
        until_us: until the next reservation, by the clock on the wall; 0: without end.
    """

    total: Amounts
    features: tuple[str, ...]
    nodes: int
    names: tuple[str, ...]
    roomy: int
    jobs: int
    free_milli: int
    until_us: int


class Free(msgspec.Struct, frozen=True, kw_only=True):
    """What a user could start now.

    Attributes:
        rooms: by kind of node, the most jobs first; `more` of them are left out.
        jobs: how many jobs fit in all, and may start.
        limit: in words, the hard limit because of which these are fewer than fit, or none; empty where there is none.
        never: in words, why no nodes can ever hold one; empty where some can.
        waiting: how many jobs wait already.
    """

    rooms: list[Room]
    jobs: int
    limit: str
    never: str
    waiting: int
    more: int


def free(world: World, user: str, settings: BatchSettings, most: int = 1000) -> Free:
    """What jobs of a batch of these settings the user could start now, if none came before them.

    At most `most` kinds of node are told.
    """
    waiting = sum(batch.waiting for batch in world.batches.values())
    with supposed(world, user, settings) as line:
        return _free(world, line, waiting, most)


def _free(world: World, line: Line, waiting: int, most: int) -> Free:
    batch = world.batches[line.batch]
    groups: dict[tuple[Vector, tuple[str, ...], int], list[Node]] = {}
    for cell in world.cells.values():
        if line.features <= set(cell.features):
            for node in (node for node in cell.nodes() if placing.may_go(batch, line, node)):
                groups.setdefault((node.total, node.features, until(world, node, line)), []).append(node)
    rooms: list[Room] = []
    parts: list[int] = []
    for (_, _, until_us), nodes in groups.items():
        fitting = _fitting(world, line, nodes)
        parts += fitting
        rooms.append(_room(world, line, nodes, fitting, until_us))
    rooms.sort(key=lambda room: (-room.jobs, -room.free_milli, room.names))
    jobs = _jobs(parts, line.shape.nodes)
    limited, limit = _limited(world, line)
    return Free(
        rooms=rooms[:most],
        jobs=min(jobs, limited),
        limit=limit if limited < jobs or not limited else "",
        never=explain.too_large(world, line.shape),
        waiting=waiting,
        more=max(0, len(rooms) - most),
    )


def _limited(world: World, line: Line) -> tuple[int, str]:
    """How many jobs of the line hard limits let start now, and what the narrowest of them says."""
    if never := limits.never(world, world.batches[line.batch]):
        return 0, never
    found = limits.tightest(world, line)
    return (found[0], limits.named(world, found[1], line)) if found is not None else (UNLIMITED, "")


def _jobs(parts: list[int], nodes: int) -> int:
    """How many jobs, each with a part on so many different nodes, fit where so many parts fit on each node."""
    few, many = 0, sum(parts) // nodes
    while few < many:
        jobs = (few + many + 1) // 2
        if sum(min(part, jobs) for part in parts) >= jobs * nodes:
            few = jobs
        else:
            many = jobs - 1
    return few


def _fitting(world: World, line: Line, nodes: list[Node]) -> list[int]:
    """How many attempts of the line could start on each of these nodes."""
    fits: dict[tuple[Vector, bool], int] = {}
    """By what is free, and whether that may be shared: many nodes of a kind are alike."""
    batch, has_rules, guard = world.batches[line.batch], placing.has_rules(world), world.layout.guard
    found: list[int] = []
    for node in nodes:
        left = left_now(world, node, line)
        is_small = bool((left - line.vector) & guard)
        alike = left, has_rules and not is_small and placing.may_share(world, batch, node)
        if alike not in fits:
            has = has_room(world, node, line.vector, line.shape.time_limit_us, line)
            fits[alike] = fitting_on(world, node, line, left) if has else 0
        found.append(fits[alike])
    return found


def _room(world: World, line: Line, nodes: list[Node], fitting: list[int], until_us: int) -> Room:
    roomy = [node for node, jobs in zip(nodes, fitting, strict=True) if jobs]
    return Room(
        total=world.layout.left(nodes[0].total, 0),
        features=nodes[0].features,
        nodes=len(nodes),
        names=tuple(node.name for node in (roomy or nodes)[:NAMED]),
        roomy=len(roomy),
        jobs=min(_jobs(fitting, line.shape.nodes), UNLIMITED - 1),
        free_milli=sum(field(left_now(world, node, line), CPU) for node in nodes),
        until_us=0 if until_us == NEVER_US else world.wall_us + until_us - world.now_us,
    )
