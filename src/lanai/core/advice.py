"""What would let a waiting job start: smaller requests that fit now, wishes that would free it, nodes that are missing.

Each piece of advice is a sentence that could be acted on, found by trying: nothing is promised that was not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from lanai.core import limited
from lanai.core.batches import Batch
from lanai.core.explain import describe, too_large
from lanai.core.nodes import Node
from lanai.core.schedule import access, limits, placing
from lanai.core.schedule.forecast import free_until, has_room, may_go
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.ids import Index
from lanai.model.node import NodeState
from lanai.model.policy import UNLIMITED
from lanai.model.resources import Shape
from lanai.model.units import format_bytes, format_duration
from lanai.model.vector import CPU, GPU, MEMORY, Vector, field

_WHOLE_MILLI: Final = 1000
_REASONS: Final = (
    *("too small", "without a feature", "not named", "not in its reservation", "away", "drained", "in trouble"),
    *("failed it lately", "busy", "not to be shared", "reserved soon", "with room"),
)


def changes(world: World, batch: Batch, index: Index | None) -> list[str]:
    """What would change that the job, or (None) the first of the batch, waits. Empty where it does not wait."""
    if batch.state == "paused":
        return [f"`lanai release {batch.id}` lets the batch go on"]
    if index is not None and index in batch.held:
        return [f"`lanai release {batch.id}/{index}` lets it run"]
    line = _line_of(batch, index)
    if line is None:
        return []
    if batch.is_early:
        return [f"`lanai set {batch.id} --start-after now` lets its jobs start"]
    if batch.room() <= 0:
        return [f"`lanai set {batch.id} --max-running {batch.max_running + 1}`, or any more, lets more of it run"]
    standing = limits.standing(world, line)
    if standing is not None and standing.is_holding:
        return list(limited.changes(world, batch, line, standing))
    return list((_of_bound if batch.settings.reservation else _of_line)(world, batch, line))


def rejections(world: World, batch: Batch, index: Index | None) -> dict[str, int]:
    """How many nodes do not take the job, or (None) the first of its batch, by the first reason against each.

    In the order in which the reasons are looked at. Empty where it does not wait, or there is no node.
    """
    line = _line_of(batch, index)
    if line is None:
        return {}
    counts = dict.fromkeys(_REASONS, 0)
    for node in world.nodes.values():
        if node.state is not NodeState.REMOVED:
            counts[_rejection(world, batch, line, node)] += 1
    return {reason: count for reason, count in counts.items() if count}


def _rejection(world: World, batch: Batch, line: Line, node: Node) -> str:
    if (node.total - line.vector) & world.layout.guard:
        return "too small"
    if not set(line.shape.features) <= set(node.features):
        return "without a feature"
    if not line.may_be_on(node.name):
        return "not named"
    if access.is_bound(world, line) and not access.own_steps(world, node, line):
        return "not in its reservation"
    if not node.is_open():
        return _closed(node)
    if batch.is_barred(node.id) or node.id == line.not_on:
        return "failed it lately"
    if (node.free - line.vector) & world.layout.guard:
        return "busy"
    if (node.free - placing.need(world, batch, line, node)) & world.layout.guard:
        return "not to be shared"
    return "with room" if has_room(world, node, line.vector, line.shape.time_limit_us, line) else "reserved soon"


def _closed(node: Node) -> str:
    if node.state is not NodeState.UP or not node.is_in_step:
        return "away"
    return "drained" if node.is_drained else "in trouble"


def _line_of(batch: Batch, index: Index | None) -> Line | None:
    lines = [line for line in batch.lines.values() if line.waiting and (index is None or index in line.waiting)]
    return min(lines, key=lambda line: line.waiting.head()) if lines else None


class _Alike(NamedTuple):
    """Open nodes on which as much is free for as long, to be shared or not, and that have the same features.

    One of them, and how many.
    """

    node: Node
    number: int


def _of_line(world: World, batch: Batch, line: Line) -> Iterator[str]:
    nodes = [node for node in world.nodes.values() if node.state is not NodeState.REMOVED]
    named = [node for node in nodes if line.may_be_on(node.name)]
    allowed = [node for node in named if node.is_open() and node.id != line.not_on and not batch.is_barred(node.id)]
    alike = _alike(world, batch, allowed)
    guard = world.layout.guard
    fitting = [group for group in alike if may_go(world, group.node, line.shape)]
    yield from _smaller(world, fitting, line)
    yield from _shorter(world, fitting, line)
    yield from _fewer(world, fitting, line)
    yield from _less_particular(world, alike, line)
    able = [node for node in nodes if not (node.total - line.vector) & guard]
    yield from _reopened(able)
    if any(node.id in batch.avoided for node in able):
        yield f"`lanai release {batch.id}` lets it use the nodes again on which it failed"
    if not able:
        yield from _larger(world, nodes, line.shape)


def _of_bound(world: World, batch: Batch, line: Line) -> Iterator[str]:
    """Of a job that runs in a reservation only: what else there is on other nodes is nothing to it."""
    name, live = batch.settings.reservation, world.reservations.get(batch.settings.reservation)
    steps = [step for node in live.nodes.values() for step in access.own_steps(world, node, line)] if live else []
    lefts_us = sorted((step.end_us - world.now_us for step in steps if step.begin_us <= world.now_us), reverse=True)
    if 0 < line.shape.nodes <= len(lefts_us):
        left_us = lefts_us[line.shape.nodes - 1]
        if 0 < left_us < line.shape.time_limit_us:
            limit = f"--time under {format_duration(left_us / 1e6)}"
            yield f"with {limit} it would be over by the end of the reservation {name}"
    yield f"`lanai set {batch.id} --reservation none` lets it run anywhere"


def _alike(world: World, batch: Batch, nodes: list[Node]) -> list[_Alike]:
    found: dict[tuple[Vector, bool, int, tuple[str, ...]], list[Node]] = {}
    has_rules = placing.has_rules(world)
    for node in nodes:
        may_share = has_rules and placing.may_share(world, batch, node)
        found.setdefault((node.free, may_share, free_until(node), node.features), []).append(node)
    return [_Alike(group[0], len(group)) for group in found.values()]


def _smaller(world: World, alike: list[_Alike], line: Line) -> Iterator[str]:
    """Less of one resource, all else as it is."""
    shape = line.shape
    kinds = (
        ("cpu_milli", CPU, _WHOLE_MILLI if shape.cpu_milli >= _WHOLE_MILLI else 1),
        ("memory_bytes", MEMORY, 1),
        ("gpu_milli", GPU, _WHOLE_MILLI),
    )
    for name, position, step in kinds:
        asked: int = getattr(shape, name)
        most = _most(world, alike, line, msgspec.structs.replace(shape, **{name: 0}), position) // step * step
        most = most << 20 if position == MEMORY else most
        if 0 < most < asked:
            yield f"would start at once with {_amount(name, most)} instead of {_bare(name, asked)}"


def _most(world: World, alike: list[_Alike], line: Line, shape: Shape, position: int) -> int:
    """How much of one resource the line's job could have now, with all else as in `shape`; of N nodes the N-th best."""
    request = world.layout.request(shape)
    roomy = [group for group in alike if has_room(world, group.node, request, shape.time_limit_us, line)]
    found = sorted(((field(group.node.free, position), group.number) for group in roomy), reverse=True)
    wanted = shape.nodes
    for amount, count in found:
        wanted -= count
        if wanted <= 0:
            return amount
    return 0


def _shorter(world: World, alike: list[_Alike], line: Line) -> Iterator[str]:
    """A time limit that ends before the next reservation of a node that has room."""
    guard = world.layout.guard
    found = sorted(
        (
            (free_until(group.node) - world.now_us, group.number)
            for group in alike
            if not (group.node.free - line.vector) & guard
        ),
        reverse=True,
    )
    wanted = line.shape.nodes
    if _roomy(world, alike, line) >= wanted:
        return
    for left_us, count in found:
        wanted -= count
        if wanted <= 0:
            if 0 < left_us < UNLIMITED - world.now_us:
                yield f"with --time under {format_duration(left_us / 1e6)} it could be backfilled"
            return


def _roomy(world: World, alike: list[_Alike], line: Line) -> int:
    limit_us = line.shape.time_limit_us
    return sum(group.number for group in alike if has_room(world, group.node, line.vector, limit_us, line))


def _fewer(world: World, alike: list[_Alike], line: Line) -> Iterator[str]:
    if line.shape.nodes > 1:
        count = _roomy(world, alike, line)
        if 0 < count < line.shape.nodes:
            yield f"would start at once on {count} node{'s' * (count > 1)} instead of {line.shape.nodes}"


def _less_particular(world: World, alike: list[_Alike], line: Line) -> Iterator[str]:
    for feature in line.shape.features:
        others = tuple(other for other in line.shape.features if other != feature)
        shape = msgspec.structs.replace(line.shape, features=others)
        if _roomy(world, [group for group in alike if may_go(world, group.node, shape)], line) >= shape.nodes:
            yield f"would start at once without the feature {feature}"


def _reopened(able: list[Node]) -> Iterator[str]:
    for node in able:
        if node.is_drained:
            yield f"`lanai node resume {node.name}` opens a node that is large enough"
            return


def _larger(world: World, nodes: list[Node], shape: Shape) -> Iterator[str]:
    if nodes and too_large(world, shape):
        most = [
            (name, asked, max(_capacity(node, name) for node in nodes))
            for name, asked in (
                ("cpu_milli", shape.cpu_milli),
                ("memory_bytes", shape.memory_bytes),
                ("gpu_milli", shape.gpu_milli),
            )
        ]
        missing = [(name, asked, largest) for name, asked, largest in most if asked > largest]
        for name, _, largest in missing:
            if largest:
                yield f"with at most {_amount(name, largest)} there is a node for it"
        wanted = " and ".join(_amount(name, asked) for name, asked, _ in missing)
        yield f"a node with {wanted or describe(shape)} could take it"
    elif not nodes:
        yield f"a node with {describe(shape)} could take it"


def _capacity(node: Node, name: str) -> int:
    return {
        "cpu_milli": node.capacity.cpu_milli,
        "memory_bytes": node.capacity.memory_bytes,
        "gpu_milli": 1000 * len(node.capacity.gpus),
    }[name]


def _bare(name: str, amount: int) -> str:
    return format_bytes(amount) if name == "memory_bytes" else f"{amount / 1000:g}"


def _amount(name: str, amount: int) -> str:
    if name == "memory_bytes":
        return f"{format_bytes(amount)} of memory"
    what = "cpu" if name == "cpu_milli" else "gpu"
    return f"{amount / 1000:g} {what}{'' if amount == _WHOLE_MILLI else 's'}"
