"""Preemption: attempts of services that may have to give way end, so that the head of a line of a preemptor has room.

Looked at where such a head finds no room in a pass. Victims are attempts of preemptees of a lower tier. On each node
as few of them are chosen as make room, those with the least work lost (cpus times run time; of equals the newest); then
the nodes where least is lost. Attempts that are to end anyway count as room that comes for nothing.

Nothing is ended at once. The first pass plans: it asks for the surplus of the nodes back and keeps what is free there
for the line. The first pass after `CONFIRM_US` chooses anew, and only then the victims are told; whoever finds room
before needs none. Until they have ended the line has no other victims, and their room is kept for it by a promise. What
is to give way is in the store, so after a start of the hub it counts as on its way, and nobody else has to go for it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from lanai.core import explain, giving_way
from lanai.core.batches import Batch, Way
from lanai.core.effects import KillAttempts
from lanai.core.nodes import NEVER_US, Grant, Node, Step
from lanai.core.recall import recall_surplus
from lanai.core.schedule import access
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import able_cells, has_rules, is_alone, may_go, may_join, need
from lanai.core.world import Giving, Promise, World
from lanai.model.ids import Index, NodeId
from lanai.model.policy import ServicePolicy
from lanai.model.vector import Vector

CONFIRM_US: Final = 100_000
"""So long after it was planned, and no sooner, an attempt is ended; what comes free meanwhile spares it."""
SLACK_US: Final = 1_000_000
"""Room that is made is kept for so much longer than it is needed, if all goes well."""
SEARCHES: Final = 4
"""Of one pass: for so many lines victims are looked for. Those whose victims are on their way need no search."""
VAIN_US: Final = 1_000_000
"""A line for which nothing was found is not searched for again before; so others have their turn."""
ABLE: Final = 256
"""So many nodes of one cell are found that could be cleared, or twice as many as a wide job needs;"""
WEIGHED: Final = 16
"""and on so many more than it needs victims are chosen."""
ATTEMPTS: Final = 256
"""On one node about so many attempts are looked at."""


class Part(NamedTuple):
    """An attempt that might end, or ends anyway, and the work that would be lost with it."""

    lost: int
    newest_first: int
    grant: Grant
    member: Index


class Choice(NamedTuple):
    """What has to end on one node. Compared from the left: the least is the best."""

    lost: int
    victims: int
    node_id: int
    node: Node
    parts: list[Part]


class Preemption:
    """Making room in one pass."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._searches = 0
        self._lower: dict[int, frozenset[Line]] = {}
        self._seen: set[Line] = set()
        self._vain: list[tuple[int, Line]] = []
        self._put_off_us = 0

    def make_room(self, batch: Batch, line: Line, length_us: int, asked: set[NodeId]) -> bool:
        """The head of a line that no limit holds has found no room: whether others make some, which is kept for it.

        Args:
            batch: the line's.
            line: its reason is set if others do, or did until now.
            length_us: how long its job is expected to run.
            asked: nodes whose surplus has been asked back in this pass; those that are asked now are added.
        """
        world = self._world
        if not _service(world, batch).is_preemptor:
            return False
        self._seen.add(line)
        giving = before = world.giving.pop(line, None)
        if giving is None or not _is_on_its_way(world, batch, line, giving):
            giving = self._anew(batch, line, length_us, before, asked)
        if giving is None:
            if before is not None:
                explain.no_room(world, batch, line)
            return False
        world.giving[line] = giving
        keep_room(world, batch, line, length_us)
        explain.set_reason(world, line, "making_way", _text(world, line, giving))
        return True

    def end(self) -> None:
        """The pass has looked at every line: those that wait no more, or for something else, need no room."""
        world = self._world
        for line in [line for line in world.giving if line not in self._seen]:
            del world.giving[line]
        world.vain = {line: until_us for line, until_us in world.vain.items() if line in self._seen}
        world.search_due_us = self._put_off_us

    def _anew(
        self, batch: Batch, line: Line, length_us: int, before: Giving | None, asked: set[NodeId]
    ) -> Giving | None:
        """Look for victims; end them if that was planned before and is due."""
        world = self._world
        is_planned = before is not None and not before.is_asked
        begin_us = before.at_us if before is not None and is_planned else None
        chosen = self._search(batch, line, length_us, begin_us)
        if chosen is None:
            return None
        nodes, parts = chosen
        for node in nodes:
            recall_surplus(world, node, batch, asked)
        due_us = before.due_us if before is not None and is_planned else world.now_us + CONFIRM_US
        if world.now_us >= due_us:
            _end(world, batch, parts)
        at_us = due_us + max((part.grant.batch.settings.grace_us for part in parts), default=0)
        victims = tuple((part.grant.id, part.member) for part in parts)
        return Giving(nodes, victims, due_us, at_us, is_asked=world.now_us >= due_us)

    def _search(
        self, batch: Batch, line: Line, length_us: int, begin_us: int | None
    ) -> tuple[tuple[Node, ...], list[Part]] | None:
        """Look for nodes and victims. `begin_us`: when it is planned already that the job begins at the latest."""
        tier = _service(self._world, batch).tier
        lower = self._lower_than(tier)
        if not lower or self._is_vain(tier, line):
            return None
        now_us = self._world.now_us
        next_us = now_us + CONFIRM_US if self._searches >= SEARCHES else self._world.vain.get(line, 0)
        if next_us > now_us:
            self._put_off_us = min(self._put_off_us or next_us, next_us)
            return None
        self._searches += 1
        length_us += _leave_us(self._world, lower) if begin_us is None else max(0, begin_us - now_us)
        able = _able(self._world, batch, line, length_us, lower)
        if len(able) >= line.shape.nodes:
            return _choose(self._world, batch, line, length_us, lower, able)
        self._world.vain[line] = now_us + VAIN_US
        if not batch.avoided and not batch.stalls and not line.not_on and line.names is None:
            self._vain.append((tier, line))
        return None

    def _lower_than(self, tier: int) -> frozenset[Line]:
        """Lines with attempts at nodes that may have to give way to one of that tier."""
        found = self._lower.get(tier)
        if found is None:
            found = self._lower[tier] = _lower_than(self._world, tier)
        return found

    def _is_vain(self, tier: int, line: Line) -> bool:
        """Whether nothing was found in this pass for one that asks for no more."""
        guard = self._world.layout.guard
        return any(
            tier <= other_tier
            and not (line.vector - other.vector) & guard
            and line.shape.nodes >= other.shape.nodes
            and set(line.shape.features) >= set(other.shape.features)
            for other_tier, other in self._vain
        )


def room_to_make(world: World, batch: Batch, line: Line, length_us: int) -> tuple[int, int, list[str]] | None:
    """What a pass would do now for the head of a line that no limit holds and that finds no room.

    That is how many attempts it would end, after how long all of them have ended at the latest, in microseconds, and on
    which nodes. None where the line is of no preemptor, or nothing can be done for it. Changes nothing.
    """
    service = _service(world, batch)
    lower = _lower_than(world, service.tier) if service.is_preemptor else frozenset()
    if not lower:
        return None
    length_us += _leave_us(world, lower)
    able = _able(world, batch, line, length_us, lower)
    chosen = _choose(world, batch, line, length_us, lower, able) if len(able) >= line.shape.nodes else None
    if chosen is None:
        return None
    nodes, parts = chosen
    grace_us = max(part.grant.batch.settings.grace_us for part in parts)
    return len(parts), CONFIRM_US + grace_us, [node.name for node in nodes]


def keep_room(world: World, batch: Batch, line: Line, length_us: int) -> None:
    """Keep the nodes where others make way from all but the line, from now on.

    What outlasts the pass of what others are promised must leave it room in the next ones too, for as long as others
    may take to make way, and a little longer.
    """
    giving = world.giving[line]
    until_us = max(giving.at_us, world.now_us) + length_us + SLACK_US
    for node in giving.nodes:
        vector = need(world, batch, line, node)
        node.lay(Step(world.now_us, until_us, vector, line, _nobody))
    world.promises[line] = Promise(line, giving.at_us, giving.nodes, world.now_us)


def next_due_us(world: World) -> int | None:
    """When a pass is to look again at victims that are planned, or for such as were not looked for; None: never."""
    return min((due_us for due_us in _dues(world) if due_us > world.now_us), default=None)


def is_due(world: World) -> bool:
    """Whether such a time has come and no pass since."""
    return any(due_us <= world.now_us for due_us in _dues(world))


def _dues(world: World) -> list[int]:
    planned = [giving.due_us for giving in world.giving.values() if not giving.is_asked]
    return [*planned, world.search_due_us] if world.search_due_us else planned


def _service(world: World, batch: Batch) -> ServicePolicy:
    return world.policy.service(batch.settings.service)


def _lower_than(world: World, tier: int) -> frozenset[Line]:
    """Lines with attempts at nodes that may have to give way to one of that tier."""
    return frozenset(
        line
        for batch in world.batches.values()
        if _yields(_service(world, batch), tier)
        for line in batch.lines.values()
        if line.active
    )


def _leave_us(world: World, lower: frozenset[Line]) -> int:
    """A job begins so long after these were asked for room: what is reserved soon after must not keep it out then."""
    return CONFIRM_US + max(world.batches[other.batch].settings.grace_us for other in lower)


def _yields(service: ServicePolicy, tier: int) -> bool:
    return service.is_preemptee and service.preempt_by != "none" and service.tier < tier


def _nobody(line: Line) -> bool:
    return False


def _is_on_its_way(world: World, batch: Batch, line: Line, giving: Giving) -> bool:
    """Whether victims that have been told still run, and their nodes are still some that the line may go to."""
    if not giving.is_asked or not all(node.is_open() and may_go(batch, line, node) for node in giving.nodes):
        return False
    grants = (world.grants.get(grant) for grant, _ in giving.victims)
    return any(grant and index in grant.members for grant, (_, index) in zip(grants, giving.victims, strict=True))


def _text(world: World, line: Line, giving: Giving) -> str:
    names = [
        f"{grant.batch.id}/{index} on {grant.node.name}"
        for number, index in giving.victims
        if (grant := world.grants.get(number)) is not None
    ]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    verb = "has been told" if giving.is_asked else "is"
    verb = verb if len(names) == 1 else "have been told" if giving.is_asked else "are"
    return f"needs {explain.describe(line.shape)}; {', '.join(names[:3])}{more} {verb} to make way for it"


def _end(world: World, batch: Batch, parts: list[Part]) -> None:
    """Have these attempts end, but for those that do so anyway."""
    told: dict[tuple[Node, int, str], list[Part]] = {}
    for part in parts:
        grant = part.grant
        if giving_way.is_leaving(grant, part.member):
            continue
        how = _service(world, grant.batch).preempt_by
        way = Way(batch.id, "cancel" if how == "cancel" else "requeue")
        giving_way.wish(world, grant, part.member, way)
        key = grant.node, grant.batch.settings.grace_us, giving_way.words(way)
        told.setdefault(key, []).append(part)
    for (node, grace_us, why), those in told.items():
        if node.is_in_step:
            items = [(part.grant.id, part.member) for part in those]
            world.do(KillAttempts(node.id, items, grace_us, why))


# -- choosing


def _choose(
    world: World,
    batch: Batch,
    line: Line,
    length_us: int,
    lower: frozenset[Line],
    able: list[tuple[Node, Vector]],
) -> tuple[tuple[Node, ...], list[Part]] | None:
    """Of nodes that could be cleared those for the head of the line, and what has to end there; None: none can yet."""
    wanted = line.shape.nodes
    able.sort(key=lambda each: _newest_first(each[0], lower))
    choices: list[Choice] = []
    for node, request in able:
        parts = _fewest(world, batch, node, request, _parts(world, node, lower))
        if parts is not None:
            victims = sum(not giving_way.is_leaving(part.grant, part.member) for part in parts)
            choices.append(Choice(sum(part.lost for part in parts), victims, int(node.id), node, parts))
            if len(choices) >= wanted + WEIGHED:
                break
    if len(choices) < wanted:
        return None
    best = sorted(choices, key=lambda choice: choice[:3])[:wanted]
    nodes = tuple(sorted((choice.node for choice in best), key=lambda node: node.id))
    parts = _spared(world, batch, line, length_us, best)
    return (nodes, parts) if parts else None


def _able(world: World, batch: Batch, line: Line, length_us: int, lower: frozenset[Line]) -> list[tuple[Node, Vector]]:
    """Nodes that would have room if all ended that may, and what has to be free there: of each cell the first few."""
    guard, looked_at = world.layout.guard, lower | _leaving(world)
    alone = is_alone(world, batch)
    found: list[tuple[Node, Vector]] = []
    for cell in able_cells(world, line):
        enough = len(found) + max(ABLE, 2 * line.shape.nodes)
        for node in cell.nodes():
            if not may_go(batch, line, node):
                continue
            most = node.free
            for other, count in node.active.items():
                if other in looked_at:
                    most += other.vector * count
            for claim in node.claims.values():
                if claim.line in looked_at:
                    most += claim.line.vector
            request = node.total if alone else line.vector
            if node.steps:
                request += _kept(world, line, node, length_us)
            if not (most - request) & guard and _is_in_reach(world, node, line, request, length_us):
                found.append((node, request))
                if len(found) >= enough:
                    break
    return found


def _is_in_reach(world: World, node: Node, line: Line, request: Vector, length_us: int) -> bool:
    """Whether its own reservation, where it runs in one only, has room for the line's job on the node now."""
    return not access.is_bound(world, line) or access.is_within(world, node, line, request, world.now_us, length_us)


def _leaving(world: World) -> set[Line]:
    """Lines some of whose attempts may be about to end because somebody wants it."""
    some = (batch for batch in world.batches.values() if batch.ways or batch.cancel_wishes)
    return {line for batch in some for line in batch.lines.values() if line.active}


def _newest_first(node: Node, lower: frozenset[Line]) -> int:
    """A key: nodes on which something that may end has run for the shortest time are weighed first."""
    grants = (grant.granted_at_us for grant in reversed(node.grants.values()) if grant.line in lower)
    return -next(grants, NEVER_US)


def _kept(world: World, line: Line, node: Node, length_us: int) -> Vector:
    """What is kept for others on the node while a job of the line that began now would run."""
    until_us = world.now_us + length_us
    steps = (step for step in node.steps if step.begin_us < until_us and step.end_us > world.now_us)
    return sum(step.vector for step in steps if step.owner is not line and not step.admits(line))


def _parts(world: World, node: Node, lower: frozenset[Line]) -> list[Part]:
    """What takes room on the node and may end, or does so anyway: the least loss first, of equals the newest."""
    found: list[Part] = []
    for grant in (*node.grants.values(), *node.claims.values()):
        may_end = grant.line in lower
        may_leave = bool(grant.batch.ways or grant.batch.cancel_wishes or grant.broken)
        if grant.id in world.claiming or not (may_end or may_leave):
            continue
        for index in sorted(grant.members):
            is_leaving = may_leave and giving_way.is_leaving(grant, index)
            if (is_leaving or may_end) and _takes_room(grant, index):
                found.append(Part(0 if is_leaving else _work(world, grant, index), -int(grant.id), grant, index))
        if len(found) >= ATTEMPTS:
            break
    return sorted(found, key=_in_order)


def _in_order(part: Part) -> tuple[int, int, int]:
    return part.lost, part.newest_first, part.member


def _takes_room(grant: Grant, index: Index) -> bool:
    """Whether the attempt is not one of those that wait at the node; where that is not known, it is taken for one."""
    return index in grant.started or not grant.was_stacked or grant.line not in grant.node.surplus


def _work(world: World, grant: Grant, index: Index) -> int:
    """What would be lost: cpus times how long the attempt has run, on all its nodes; at least 1."""
    started = grant.started.get(index)
    start_us = grant.granted_at_us if started is None else started - (world.wall_us - world.now_us)
    cpus = max(1, grant.line.shape.cpu_milli) * grant.line.shape.nodes
    return max(1, cpus * (world.now_us - start_us))


def _fewest(world: World, batch: Batch, node: Node, request: Vector, parts: list[Part]) -> list[Part] | None:
    """Of these, which are in order, as few as make room on the node; None where not even all of them do."""
    guard = world.layout.guard
    chosen: list[Part] = []
    free, at = node.free, 0
    while (free - request) & guard or not _is_enough(world, batch, node, request, chosen):
        if at == len(parts):
            return None
        chosen.append(parts[at])
        free += parts[at].grant.line.vector
        at += 1
    for part in chosen[::-1]:
        left = free - part.grant.line.vector
        rest = None if (left - request) & guard else [other for other in chosen if other is not part]
        if rest is not None and _is_enough(world, batch, node, request, rest):
            chosen, free = rest, left
    if len(chosen) > 1:
        lost = sum(part.lost for part in chosen)
        fitting = (part for part in parts if not (node.free + part.grant.line.vector - request) & guard)
        alone = next((part for part in fitting if _is_enough(world, batch, node, request, [part])), None)
        if alone is not None and alone.lost <= lost:
            return [alone]
    return chosen


def _is_enough(world: World, batch: Batch, node: Node, request: Vector, ended: list[Part]) -> bool:
    """Whether the node has room when these have ended, and the rules of sharing allow it beside the rest."""
    free = node.free + sum(part.grant.line.vector for part in ended)
    if (free - request) & world.layout.guard:
        return False
    return not has_rules(world) or may_join(world, batch, _lines_left(node, ended))


def _lines_left(node: Node, ended: list[Part]) -> list[Line]:
    gone: dict[Line, int] = {}
    for part in ended:
        gone[part.grant.line] = gone.get(part.grant.line, 0) + 1
    there = dict(node.active)
    for claim in node.claims.values():
        there[claim.line] = there.get(claim.line, 0) + 1
    return [line for line, count in there.items() if count > gone.get(line, 0)]


def _spared(world: World, batch: Batch, line: Line, length_us: int, best: list[Choice]) -> list[Part]:
    """What has to end on all these nodes together: what runs on several of them makes room on each."""
    parts = {(part.grant.id, part.member): part for choice in best for part in choice.parts}
    if len(best) == 1 or all(not part.grant.others for part in parts.values()):
        return list(parts.values())
    alone = is_alone(world, batch)
    requests = [
        (node, (node.total if alone else line.vector) + _kept(world, line, node, length_us))
        for node in (choice.node for choice in best)
    ]

    def suffices(some: AbstractSet[tuple[int, int]]) -> bool:
        ended = [part for name, part in parts.items() if name in some]
        return all(
            _is_enough(world, batch, node, request, [part for part in ended if _is_on(part, node)])
            for node, request in requests
        )

    kept = set(parts)
    for name in sorted(parts, key=lambda name: parts[name][:2], reverse=True):
        if suffices(kept - {name}):
            kept.discard(name)
    return [part for name, part in parts.items() if name in kept]


def _is_on(part: Part, node: Node) -> bool:
    return part.grant.node is node or node in part.grant.others
