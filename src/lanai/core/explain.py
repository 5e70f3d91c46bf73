"""Why a job waits: reasons made by the passes that left its line waiting, and their composition for people.

A reason is a code that machines read and a sentence with numbers. It is recorded only when its code changes, because
numbers change all the time and the code is what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from lanai.core import holds, reserved_shown
from lanai.core.batches import Batch, Hold
from lanai.core.nodes import Node
from lanai.core.priorities import score_facts
from lanai.core.schedule import limits
from lanai.core.schedule.considered import Considered
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import able_cells, has_rules, is_alone, need
from lanai.core.world import World
from lanai.model.ids import Index
from lanai.model.moments import format_moment
from lanai.model.node import NodeState
from lanai.model.node_names import names_of
from lanai.model.policy import DEFAULT_SERVICE
from lanai.model.records import SaveReason
from lanai.model.resources import Capacity, Shape
from lanai.model.units import format_bytes, format_duration
from lanai.model.vector import CPU, FIELD_BITS, FIELD_MASK, NAMED, field

NO_ROOM: Final = "no_room"
"""The code of those who wait because what could take them is busy, or is not there."""
NO_OPEN_NODE: Final = "no_open_node"
OUTLASTING: Final = frozenset((NO_ROOM, "reserved", "making_way", "avoided"))
"""Reasons that were so before a start of the hub, and are to be so again once its nodes are back."""
_Show = Callable[[int], str]


def set_reason(world: World, line: Line, code: str, text: str) -> None:
    """The line waits because of this."""
    line.reason_text = text
    if line.reason != code:
        line.reason = code
        line.since_us = world.wall_us
        world.keep(SaveReason(line.batch, line.shape_id, code, text, world.wall_us))


def recover(batch: Batch, reasons: Iterable[SaveReason]) -> None:
    """Take over what the store has of why lines wait. Those of which nothing does are rid of it by the next pass."""
    for kept in reasons:
        line = batch.line(kept.shape)
        line.reason, line.reason_text, line.since_us = kept.code, kept.text, kept.since_us


def forget_reasons(world: World) -> None:
    """Lines with nothing waiting wait because of nothing."""
    for batch in world.batches.values():
        for line in batch.lines.values():
            if line.reason and not line.waiting.count:
                set_reason(world, line, "", "")


def no_room(world: World, batch: Batch, line: Line) -> None:
    """Find out why no node took the head of the line, and set it. Its numbers are put together when somebody asks."""
    kept = reserved_shown.why_reserved(world, batch, line) if world.reservations else None
    if kept is not None:
        set_reason(world, line, *kept)
    elif not _is_just_busy(world, batch, line):
        code, text = why_no_room(world, batch, line)
        if code != NO_OPEN_NODE or line.reason not in OUTLASTING or not _is_expecting(world, line):
            set_reason(world, line, code, text)
    elif line.reason != NO_ROOM:
        set_reason(world, line, NO_ROOM, f"needs {describe(line.shape)}; the nodes that could take it are busy")


def _is_just_busy(world: World, batch: Batch, line: Line) -> bool:
    """Whether some open node could take it, if it were empty, and nothing keeps the batch from nodes."""
    if batch.avoided or batch.stalls or line.not_on or line.names:
        return False
    if line.shape.nodes == 1:
        return bool(able_cells(world, line))
    return sum(cell.takers() for cell in able_cells(world, line)) >= line.shape.nodes


def _is_expecting(world: World, line: Line) -> bool:
    """Whether a node that could take the line is still to come back to a hub that has just been started."""
    return any(node.is_returning() for node in _able(world, line))


def text_of(world: World, batch: Batch, line: Line) -> str:
    """Why the line waits, with the numbers of now. Costs by the number of nodes."""
    if line.reason == "no_room" and line.waiting and not batch.settings.reservation:
        return why_no_room(world, batch, line)[1]
    return line.reason_text


def is_behind(world: World, line: Line, first: Line) -> None:
    """The line waits because another one is first, has no room, and nothing may pass it."""
    set_reason(world, line, "behind", f"batch {first.batch} is in front of it and finds no room; there is no backfill")


def is_not_backfilled(world: World, batch: Batch, line: Line) -> None:
    """The line waits because others are in front of it, and its service lets nothing start before such."""
    name = batch.settings.service or DEFAULT_SERVICE
    which = f"jobs of the service {name} start before nobody (backfill = false)"
    set_reason(world, line, "behind", f"others are in front of it and find no room; {which}")


def limit_reached(world: World, line: Line, considered: Considered) -> None:
    """The line waits because of a limit."""
    found = limits.blocked_by(world, line, considered)
    if found is not None:
        set_reason(world, line, *found)


def too_large(world: World, shape: Shape) -> str:
    """Why no nodes, drained or away included, can hold one job of this shape; empty where some can, or none is."""
    nodes = _nodes(world)
    if not nodes:
        return ""
    request, guard = world.layout.request(shape), world.layout.guard
    having, able = [], 0
    for node in nodes:
        if _has(node, shape):
            having.append(node)
            able += not (node.total - request) & guard
            if able >= shape.nodes:
                return ""
    if not having:
        if shape.on:
            which = f" with {_features(shape)}" if shape.features else ""
            return f"needs one of the nodes {shape.on}{which}, there is none"
        return f"needs {_features(shape)}, no node has {'it' if len(shape.features) == 1 else 'all of them'}"
    if able:
        return f"needs {shape.nodes} nodes with {_each(shape)}, {able} could take it"
    which = f"the largest node{f' with {_features(shape)}' if shape.features else ''}"
    for asked, most, show in _amounts(shape, [node.capacity for node in having]):
        if asked > most:
            return f"needs {show(asked)}, {which} has {show(most)}"
    return f"needs {describe(shape)}, no single node has all of it"


def describe(shape: Shape) -> str:
    """A shape in words."""
    if shape.nodes == 1:
        return _each(shape)
    upto = "" if shape.nodes_most <= shape.nodes else f" to {shape.nodes_most}"
    return f"{shape.nodes}{upto} nodes with {_each(shape)}"


def _each(shape: Shape) -> str:
    parts = [_cpus(shape.cpu_milli)]
    if shape.memory_bytes:
        parts.append(f"{format_bytes(shape.memory_bytes)} memory")
    if shape.gpu_milli:
        parts.append(_gpus(shape.gpu_milli))
    parts += [f"{count} {name}" for name, count in shape.named]
    if shape.features:
        parts.append(_features(shape))
    if shape.on:
        parts.append(f"on {shape.on}")
    return ", ".join(parts)


def _features(shape: Shape) -> str:
    return f"the feature{'s' if len(shape.features) > 1 else ''} {', '.join(shape.features)}"


def _has(node: Node, shape: Shape) -> bool:
    has_features = not shape.features or set(shape.features) <= set(node.features)
    return has_features and (not shape.on or names_of(shape.on).has(node.name))


def why(world: World, batch: Batch, index: Index | None) -> dict[str, object]:
    """The verdict on a batch, or on one job of it that has not ended, with the facts it rests on."""
    line = _line_of(batch, index)
    code, text, since_us = _verdict(world, batch, line, index)
    facts = [
        f"batch {batch.id}: {batch.counts.queued} queued, {batch.counts.held} held, {batch.counts.locked} granted, "
        f"{batch.counts.running} running, {batch.counts.done} done, {batch.counts.failed} failed, "
        f"{batch.counts.cancelled} cancelled of {batch.total}"
    ]
    if line is not None:
        facts.append(f"asks for {describe(line.shape)}")
    facts += [*score_facts(world, batch, index), *holds.facts(batch), *limits.facts(world, batch)]
    facts += reserved_shown.facts(world, batch)
    facts += _node_facts(world)
    if batch.avoided:
        names = ", ".join(world.nodes[node].name for node in sorted(batch.avoided) if node in world.nodes)
        facts.append(f"avoids {names}: it failed there three times in a row")
    for node, stall in sorted(batch.stalls.items()):
        if node in world.nodes:
            facts.append(f"{world.nodes[node].name} cannot begin it now, and is tried again: {stall.why}")
    tries = batch.tries.get(index) if index is not None else None
    if tries:
        charges = ", ".join(f"{cause} {count}" for cause, count in sorted(tries.charges.items()))
        often = "once" if tries.attempts == 1 else f"{tries.attempts} times"
        facts.append(f"tried {often} before" + (f" ({charges})" if charges else ""))
        if tries.gave_way:
            facts.append(f"{tries.gave_way} of these made way for jobs of a more urgent service, which is no charge")
    if index is not None and index in batch.ways:
        facts.append(f"its attempt is to make way: {batch.ways[index].how}, for batch {batch.ways[index].to}")
    position = None
    if line is not None and index is not None and index in line.waiting:
        position = line.waiting.before(index) + 1
        facts.append(f"number {position} of {line.waiting.count} in its line")
    answer = {"code": code, "verdict": text, "facts": facts, "since_us": since_us, "position": position}
    hold = holds.of_pause(batch) if code == "paused" else _hold_of(batch, index) if code == "held" else None
    if hold is not None:
        who = {"kind": hold.kind, "by": hold.by, "since_us": hold.since_us, "until_us": hold.until_us}
        answer["hold"] = who
    return answer


def _hold_of(batch: Batch, index: Index | None) -> Hold | None:
    """Who holds a job that is held; of a batch as a whole its first."""
    return holds.of_job(batch, Index(batch.held.head()) if index is None else index)


def _verdict(world: World, batch: Batch, line: Line | None, index: Index | None) -> tuple[str, str, int]:
    if batch.state == "paused":
        paused = holds.of_pause(batch)
        return "paused", f"the batch is paused: {batch.reason}", paused.since_us if paused else 0
    if index in batch.held if index is not None else batch.held and not batch.waiting:
        hold = _hold_of(batch, index)
        return "held", holds.words(batch, hold), hold.since_us if hold else 0
    if index is not None and index in batch.delayed:
        return "delayed", "its last attempt met a fault of the node; it is tried again shortly", 0
    if line is not None and line.waiting:
        if line.reason:
            return line.reason, text_of(world, batch, line), line.since_us
        return "next", "the next pass of the scheduler looks at it", 0
    if batch.sent and index is not None:
        return "running", "it is at a node", 0
    if batch.sent:
        return "running", f"{_count(batch.sent, 'job')} at nodes, none waits", 0
    return "idle", "nothing of it waits", 0


def _line_of(batch: Batch, index: Index | None) -> Line | None:
    if index is None:
        waiting = [line for line in batch.lines.values() if line.waiting]
        return min(waiting, key=lambda line: line.waiting.head()) if waiting else None
    return next((line for line in batch.lines.values() if index in line.waiting), None)


def why_no_room(world: World, batch: Batch, line: Line) -> tuple[str, str]:
    """Why no nodes take the head of the line now, as a code and in words with numbers. Costs by the number of nodes."""
    nodes = _nodes(world)
    if not nodes:
        return "no_node", "all nodes have been removed" if world.nodes else "no node has joined yet"
    large = too_large(world, line.shape)
    if large:
        return "too_large", large
    guard = world.layout.guard
    able = _able(world, line)
    usable = [node for node in able if node.is_open()]
    if len(usable) < line.shape.nodes:
        return NO_OPEN_NODE, f"needs {describe(line.shape)}; {_closed(able)}"
    allowed = [node for node in usable if not batch.is_barred(node.id) and node.id != line.not_on]
    stalled = [node for node in usable if node.id in batch.stalls]
    is_barred = len(allowed) < line.shape.nodes
    if is_barred and stalled:
        first, others = stalled[0], len(stalled) - 1
        more = f" (and {others} more)" if others else ""
        return "stalled", f"{first.name}{more} cannot begin it now, and is tried again: {batch.stalls[first.id].why}"
    if is_barred:
        lately = f"{len(usable) - len(allowed)} of" if allowed else "all"
        return "avoided", f"{lately} {len(usable)} open nodes that are large enough have failed it lately"
    old = [node for node in allowed if not node.takes_claims] if line.shape.nodes > 1 else []
    if len(allowed) - len(old) < line.shape.nodes:
        which = f"the agent of {old[0].name} is of a version that knows nothing of this"
        return "old_agent", f"needs {describe(line.shape)}; {which}"
    if has_rules(world) and (kept := _not_shared(world, batch, line, allowed)):
        return NO_ROOM, f"needs {describe(line.shape)}; {kept}"
    if kept := _kept_for_others(world, line, allowed):
        return NO_ROOM, f"needs {describe(line.shape)}; {kept}"
    if line.shape.nodes > 1:
        free = sum(not (node.free - line.vector) & guard for node in allowed)
        return "no_room", f"needs {describe(line.shape)}; of {len(allowed)} that could take it, {free} have room now"
    return "no_room", f"needs {describe(line.shape)}; {_busy(world, line, allowed)}"


def _able(world: World, line: Line) -> list[Node]:
    """The nodes that could take one of the line if they were open and empty."""
    guard = world.layout.guard
    return [node for node in _nodes(world) if not (node.total - line.vector) & guard and _has(node, line.shape)]


def _not_shared(world: World, batch: Batch, line: Line, nodes: list[Node]) -> str:
    """That there would be room if the rules of sharing let it be used; empty where there is none all the same."""
    guard = world.layout.guard
    roomy = [node for node in nodes if not (node.free - line.vector) & guard]
    usable = [node for node in roomy if not (node.free - need(world, batch, line, node)) & guard]
    if len(roomy) < line.shape.nodes or len(usable) >= line.shape.nodes:
        return ""
    if is_alone(world, batch):
        return f"it has its nodes to itself, and {len(usable)} of {len(nodes)} that could take it are empty"
    first, others = next(node for node in roomy if node not in usable), len(roomy) - len(usable) - 1
    who = f"{first.name} (and {others} more)" if others else first.name
    verb = "have" if others else "has"
    if world.policy.sharing == "single_user":
        return f"{who} {verb} room, but another user's jobs are there, and users do not share nodes"
    return f"{who} {verb} room, but what runs there has its node to itself"


def _kept_for_others(world: World, line: Line, nodes: list[Node]) -> str:
    """That there would be room if none of it were promised to others soon; empty where there is none all the same."""
    guard, until_us = world.layout.guard, world.now_us + estimate_us(world, line)
    roomy = [node for node in nodes if not (node.free - line.vector) & guard]
    if len(roomy) < line.shape.nodes:
        return ""
    for node in roomy:
        for step in sorted(node.steps, key=lambda step: step.begin_us):
            first = step.owner
            if isinstance(first, Line) and first is not line and first.waiting and step.begin_us < until_us:
                verb = "has" if len(roomy) == 1 else f"and {len(roomy) - 1} more have"
                since = format_moment(world.wall_us + step.begin_us - world.now_us)
                length = format_duration(estimate_us(world, line) / 1e6)
                job = f"{first.batch}/{first.waiting.head()}"
                return f"{node.name} {verb} room, but is kept for {job} from {since} on, and it may take {length}"
    return ""


def _busy(world: World, line: Line, nodes: list[Node]) -> str:
    asked = [at for at in range(NAMED + len(world.layout.names)) if field(line.vector, at)]
    scarcest = max(asked, key=lambda at: field(line.vector, at) / max(field(nodes[0].total, at), 1), default=CPU)
    guard, shift = world.layout.guard, scarcest * FIELD_BITS
    free = max(nodes, key=lambda node: node.free & guard == 0 and node.free >> shift & FIELD_MASK)
    running = sum(sum(node.active.values()) for node in nodes)
    where = (
        "the one node that could take it is" if len(nodes) == 1 else f"all {len(nodes)} nodes that could take it are"
    )
    attempts = f"{running} attempt{'' if running == 1 else 's'}"
    return f"{where} busy with {attempts}; most free on {free.name}: {_free_text(world, line, free)}"


def _free_text(world: World, line: Line, node: Node) -> str:
    """Its free cpus and memory, and what else the line asks for."""
    free = world.layout.left(node.total, node.total - node.free)
    others = [_gpus(free.gpu_milli)] if line.shape.gpu_milli else []
    others += [_of_name(name, dict(free.named).get(name, 0)) for name, _ in line.shape.named]
    return ", ".join([_cpus(free.cpu_milli), _memory(free.memory_bytes), *others])


def _closed(nodes: list[Node]) -> str:
    closed = [node for node in nodes if not node.is_open()]
    drained = sum(node.is_drained for node in closed)
    troubled = [node for node in closed if node.trouble]
    if troubled:
        return f"{troubled[0].name} takes nothing new: {troubled[0].trouble}"
    if drained:
        return f"{drained} of {len(nodes)} nodes that are large enough are drained"
    away = sum(node.state is not NodeState.UP for node in closed)
    if not away:
        return f"{closed[0].name} is connecting"
    return f"{away} of {len(nodes)} nodes that are large enough are away"


def _nodes(world: World) -> list[Node]:
    """Those that are there or may come back; one that a person has removed is neither."""
    return [node for node in world.nodes.values() if node.state is not NodeState.REMOVED]


def _node_facts(world: World) -> list[str]:
    nodes = _nodes(world)
    if not nodes:
        return ["all nodes have been removed" if world.nodes else "no node has joined yet"]
    up = [node for node in nodes if node.state is NodeState.UP]
    drained = [node.name for node in nodes if node.is_drained]
    facts = [f"{len(up)} of {len(nodes)} nodes are up"]
    if drained:
        facts.append(f"drained: {', '.join(drained)}")
    facts += [f"{node.name} takes nothing new: {node.trouble}" for node in nodes if node.trouble]
    return facts


def _amounts(shape: Shape, capacities: list[Capacity]) -> list[tuple[int, int, _Show]]:
    amounts: list[tuple[int, int, _Show]] = [
        (shape.cpu_milli, max(capacity.cpu_milli for capacity in capacities), _cpus),
        (shape.memory_bytes, max(capacity.memory_bytes for capacity in capacities), _memory),
        (shape.gpu_milli, max(1000 * len(capacity.gpus) for capacity in capacities), _gpus),
    ]
    for name, count in shape.named:
        most = max(dict(capacity.named).get(name, 0) for capacity in capacities)
        amounts.append((count, most, partial(_of_name, name)))
    return amounts


def _count(number: int, thing: str) -> str:
    return f"{number} {thing} is" if number == 1 else f"{number} {thing}s are"


def _cpus(cpu_milli: int) -> str:
    return f"{cpu_milli / 1000:g} cpu{'' if cpu_milli == 1000 else 's'}"


def _gpus(gpu_milli: int) -> str:
    return f"{gpu_milli / 1000:g} gpu{'' if gpu_milli == 1000 else 's'}"


def _of_name(name: str, count: int) -> str:
    return f"{count} {name}"


def _memory(memory_bytes: int) -> str:
    return f"{format_bytes(memory_bytes)} memory"
