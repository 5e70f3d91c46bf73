"""What is free on one node from now on: its running attempts end as estimated, and parts of it are reserved.

A node is free of more and more as attempts end, and of less while a *step* lasts: an amount that is kept from others
for a time. So whether a request fits for a while is decided at the beginning of that and where a step begins in it.
Nothing is remembered but the list of ends, until something on the node changes or an estimate is overrun.
"""

from __future__ import annotations

from bisect import bisect_right

from lanai.core.nodes import NEVER_US, Node, Step
from lanai.core.reserved import Live
from lanai.core.schedule import access
from lanai.core.schedule.estimate import end_of, estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.vector import FIELD_BITS, FIELD_MASK, Vector


def ends_of(world: World, node: Node) -> list[tuple[int, Vector]]:
    """(expected end, what it frees) of what takes room on the node, in order of time, all after now."""
    known = node.ends
    if node.ends_as_of == node.changes and (not known or known[0][0] > world.now_us):
        return known
    node.ends = _ends(world, node)
    node.ends_as_of = node.changes
    return node.ends


def fits(world: World, node: Node, line: Line, vector: Vector, length_us: int) -> bool:
    """Whether the line has room for `vector` there from now on for so long."""
    if (node.free - vector) & world.layout.guard:
        return False
    if access.is_bound(world, line):
        if not access.is_within(world, node, line, vector, world.now_us, length_us):
            return False
    elif world.now_us + length_us <= node.until_us:
        return True
    steps = _steps(node, line)
    if any(step.vector == node.total and _overlap(step, world.now_us, length_us) for step in steps):
        return False
    return not steps or _fits_from(world, node, vector, steps, world.now_us, length_us)


def fits_at(world: World, node: Node, line: Line, vector: Vector, length_us: int, at_us: int) -> bool:
    """The same from `at_us` on, not past."""
    if access.is_bound(world, line) and not access.is_within(world, node, line, vector, at_us, length_us):
        return False
    return _fits_from(world, node, vector, _steps(node, line), at_us, length_us)


def is_clear(world: World, node: Node, line: Line, vector: Vector, length_us: int) -> bool:
    """Whether what people have reserved leaves the line room there from now on for so long, and its own lasts."""
    if access.is_bound(world, line) and not access.is_within(world, node, line, vector, world.now_us, length_us):
        return False
    steps = [step for step in _steps(node, line) if isinstance(step.owner, Live)]
    return not steps or _fits_from(world, node, vector, steps, world.now_us, length_us)


def earliest(
    world: World, node: Node, line: Line, vector: Vector, length_us: int, from_us: int, until_us: int = NEVER_US
) -> int:
    """The first time from `from_us`, not past, at which the line has room for `vector` for so long; or NEVER_US.

    Times after `until_us` are not looked at.
    """
    guard = world.layout.guard
    steps = _steps(node, line)
    if access.is_bound(world, line):
        return _earliest_within(world, node, line, vector, length_us, from_us)
    if not steps:
        free = node.free
        if not (free - vector) & guard:
            return from_us
        for end_us, freed in ends_of(world, node):
            free += freed
            if not (free - vector) & guard:
                return max(end_us, from_us)
        return NEVER_US
    times = {from_us, *(end_us for end_us, _ in ends_of(world, node)), *(step.end_us for step in steps)}
    for at_us in sorted(at_us for at_us in times if from_us <= at_us <= until_us):
        if at_us < NEVER_US and _fits_from(world, node, vector, steps, at_us, length_us):
            return at_us
    return NEVER_US


def _overlap(step: Step, at_us: int, length_us: int) -> bool:
    return step.begin_us < at_us + length_us and at_us < step.end_us


def left_now(world: World, node: Node, line: Line) -> Vector:
    """What is free on the node now for the line."""
    return node.free if node.until_us > world.now_us else _free_at(world, node, _steps(node, line), world.now_us)


def until(world: World, node: Node, line: Line) -> int:
    """Until when, by the core's own clock, that stays so; or NEVER_US."""
    if not node.steps:
        return NEVER_US
    return min((step.begin_us for step in _steps(node, line) if step.begin_us > world.now_us), default=NEVER_US)


def _earliest_within(world: World, node: Node, line: Line, vector: Vector, length_us: int, from_us: int) -> int:
    """The same of a line that is bound to a reservation."""
    own, steps = access.own_steps(world, node, line), _steps(node, line)
    times = {from_us, *(end_us for end_us, _ in ends_of(world, node)), *(step.end_us for step in steps)}
    times |= {step.begin_us for step in own}
    for at_us in sorted(times) if own else ():
        if not from_us <= at_us < NEVER_US or not access.is_within(world, node, line, vector, at_us, length_us):
            continue
        if _fits_from(world, node, vector, steps, at_us, length_us):
            return at_us
    return NEVER_US


def _steps(node: Node, line: Line) -> list[Step]:
    """Those that keep something from this line."""
    if not node.steps:
        return node.steps
    return [step for step in node.steps if step.owner is not line and not step.admits(line)]


def _fits_from(world: World, node: Node, vector: Vector, steps: list[Step], at_us: int, length_us: int) -> bool:
    guard, until_us = world.layout.guard, at_us + length_us
    if (_free_at(world, node, steps, at_us) - vector) & guard:
        return False
    begins = {step.begin_us for step in steps if at_us < step.begin_us < until_us}
    return not any((_free_at(world, node, steps, begin_us) - vector) & guard for begin_us in begins)


def _free_at(world: World, node: Node, steps: list[Step], at_us: int) -> Vector:
    free = node.free
    ends = ends_of(world, node)
    for _, freed in ends[: bisect_right(ends, at_us, key=_when)]:
        free += freed
    for step in steps:
        if step.begin_us <= at_us < step.end_us:
            free = _without(free, _kept(world, node, step, at_us), world.layout.guard)
    return free


def _kept(world: World, node: Node, step: Step, at_us: int) -> Vector:
    """What a step keeps at a time: its amount less what those have of it whom it is for."""
    if step.inside is None or step.vector == node.total:
        return step.vector
    ends = _ends_of_lines(world, node)
    inside = sum(line.vector * count for end_us, line, count in ends if end_us > at_us and step.inside(line))
    return _without(step.vector, inside, world.layout.guard)


def _when(end: tuple[int, Vector]) -> int:
    return end[0]


def _without(free: Vector, taken: Vector, guard: int) -> Vector:
    """What is left, field by field, where more may be taken than there is: nothing of that."""
    if free & guard:
        return 0  # overfull: a node that has shrunk
    if not (free - taken) & guard:
        return free - taken
    left, position = 0, 0
    while free >> position:
        part = (free >> position & FIELD_MASK) - (taken >> position & FIELD_MASK)
        if part > 0:
            left |= part << position
        position += FIELD_BITS
    return left


def _ends(world: World, node: Node) -> list[tuple[int, Vector]]:
    found = [(end_us, line.vector * count) for end_us, line, count in _ends_of_lines(world, node)]
    found += [(world.now_us + estimate_us(world, line), line.vector) for line in node.booked]
    found.sort()
    return found


def _ends_of_lines(world: World, node: Node) -> list[tuple[int, Line, int]]:
    """(expected end, line, how many) of attempts that have been granted, in no order."""
    now_us, skew_us = world.now_us, world.wall_us - world.now_us
    left = node.active.copy()
    found: list[tuple[int, Line, int]] = []
    for grant in node.grants.values():
        line = grant.line
        active = left.get(line, 0)
        if not active:
            continue
        here = len(grant.members)
        if here > active:
            here = active
        left[line] = active - here
        estimate = estimate_us(world, line)
        if not grant.was_stacked:
            found.append((end_of(grant.granted_at_us, estimate, now_us), line, here))
            continue
        # When what waited at the node began is known of what has run for a while; of the rest it was just now.
        # An earlier hub process gave what it gave before this one adopted it.
        least_us = 0 if grant.is_adopted else grant.granted_at_us
        starts = [min(now_us, max(least_us, at - skew_us)) for at in sorted(grant.started.values())[:here]]
        starts += [now_us] * (here - len(starts))
        found += [(end_of(start_us, estimate, now_us), line, 1) for start_us in starts]
    for claim in node.claims.values():
        found.append((end_of(claim.granted_at_us, estimate_us(world, claim.line), now_us), claim.line, 1))
    return found
