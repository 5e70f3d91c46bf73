"""Where a reservation that somebody wishes can be placed: on which nodes, or why on none.

To look at thousands of nodes is long work: what is found of a node holds for the moment at which it was looked at.
Nodes named by number are chosen once, when the reservation is made: of those that have what is asked for and of which
no other reservation has too much at that time, the ones that are expected to be free by its beginning, and then those
that are so soonest. Nodes that are named by their names or features are all taken, or none.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

import msgspec

from lanai.core.credentials import is_account, is_service
from lanai.core.long_work import Part
from lanai.core.nodes import Node, Step
from lanai.core.reserved import Live
from lanai.core.schedule.future import ends_of
from lanai.core.world import SECOND_US, World
from lanai.model.errors import ImpossibleRequest, NothingThere, Refusal, TooMany, UserError
from lanai.model.ids import NodeId
from lanai.model.moments import format_moment
from lanai.model.node import NodeState
from lanai.model.node_names import Names, names_of
from lanai.model.policy import Policy
from lanai.model.reservation import Access, Period, Reservation, Rule, problems
from lanai.model.vector import Vector

RESERVATIONS_MOST: Final = 1_000
PAST_US: Final = 60 * SECOND_US
"""Who says now may take so long to say it."""
NEVER: Final = 1 << 62
NAMED: Final = 5
LATE: Final = 10
"""What it takes to find out when a node is expected to be free."""


def placed(world: World, wish: Reservation, before: Live | None, *, is_change: bool) -> Part[Reservation]:
    """The reservation as it is to be, its nodes chosen. Changes nothing.

    Args:
        world: its clock says what is now.
        wish: a period that begins at 0 begins now.
        before: what the reservation was, where it is to be changed.
        is_change: whether there is to be one of the name already.

    Raises:
        UserError, Refusal: it cannot be had; says why, and what can.
    """
    _check_name(world, wish.name, is_change=is_change)
    made = msgspec.structs.replace(wish, periods=_periods(world, wish, before), chosen=())
    if found := list(problems(made)):
        raise UserError("; ".join(found), code="bad_reservation", facts={"problems": found})
    _check_access(world.policy, made, before)
    able = yield from _able(world, made)
    if made.count:
        return msgspec.structs.replace(made, chosen=(yield from _chosen(world, made, able, before)))
    yield from _check_all(world, made, able, before)
    return made


def _check_name(world: World, name: str, *, is_change: bool) -> None:
    is_there = name in world.reservations
    if is_change and not is_there:
        raise NothingThere(f"there is no reservation {name}", code="no_such_reservation", hint="lanai reservations")
    if is_there and not is_change:
        hint = f"choose another name, or `lanai reserve change {name}`"
        raise Refusal(f"there is a reservation {name} already", code="reservation_exists", hint=hint)
    if not is_there and len(world.reservations) >= RESERVATIONS_MOST:
        what = f"there are {RESERVATIONS_MOST} reservations, which is the most"
        raise TooMany(what, code="too_many_reservations", hint="lanai reserve drop what is needed no more")


def _periods(world: World, wish: Reservation, before: Live | None) -> tuple[Period, ...]:
    """Those that are not over; what begins now does so by the hub's clock."""
    now_us = world.wall_us
    periods = wish.periods
    if wish.rule is None:
        periods = tuple(Period(period.begin_us or now_us, period.end_us) for period in periods)
    for period in periods:
        if period.end_us <= period.begin_us:
            raise UserError(
                f"it would end at {format_moment(period.end_us)}, and begin at {format_moment(period.begin_us)}",
                code="end_before_begin",
                hint="--end takes a moment after that of --begin, or --for a length",
            )
    begun = {period.begin_us for period in before.made.periods} if before is not None else set()
    past = [period for period in periods if period.begin_us < now_us - PAST_US and period.begin_us not in begun]
    if past and wish.rule is None:
        what = f"{format_moment(past[0].begin_us)} is past; it is {format_moment(now_us)}"
        raise UserError(what, code="in_the_past", hint="--begin now")
    left = tuple(period for period in periods if period.end_us > now_us)
    if not left and (wish.rule is None or periods or wish.rule.until_us):
        raise UserError("all of it is past", code="in_the_past", hint="choose another --end or --until")
    return left


def _check_access(policy: Policy, made: Reservation, before: Live | None) -> None:
    """Raises NothingThere where it is for somebody whom the policy does not know; what was so before may stay."""
    was = before.made.access if before is not None else Access()
    unknown = {
        "account": [name for name in made.access.accounts if not is_account(policy, name)],
        "service": [name for name in made.access.services if not is_service(policy, name)],
        "group": [name for name in made.access.groups if name not in policy.groups],
    }
    known = {"account": was.accounts, "service": was.services, "group": was.groups}
    for kind, names in unknown.items():
        for name in names:
            if name not in known[kind]:
                what, hint = f"there is no {kind} {name}", "lanai policy show"
                raise NothingThere(what, code=f"no_such_{kind}", hint=hint, facts={kind: name})


def nodes_among(world: World, names: Names) -> list[Node]:
    """Nodes that may be meant by such names, in the order of joining: those named one by one, or all there are."""
    if names.globs:
        return list(world.nodes.values())
    return [world.nodes[number] for number in sorted(world.names[name] for name in names.exact & world.names.keys())]


def _able(world: World, made: Reservation) -> Part[list[Node]]:
    """Nodes that are such as it asks for, by number. Raises NothingThere where one that is named is not there."""
    names, features = names_of(made.nodes or "*"), frozenset(made.shape.features)
    yield len(names.exact) // 2  # to read them has taken a while
    missing: list[str] = []
    for name in sorted(names.exact):
        yield 1
        if not _is_there(world, name):
            missing.append(name)
    if missing:
        shown = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
        facts: dict[str, str | int | list[str]] = {"missing": missing[:100]}
        raise NothingThere(f"no node is called {shown}", code="no_such_node", hint="lanai node list", facts=facts)
    guard, request = world.layout.guard, world.layout.request(made.shape)
    able: list[Node] = []
    yield len(names.exact) // 2
    for node in nodes_among(world, names):
        yield 1 + len(names.globs)
        is_meant = names.has(node.name) and (not features or features.issubset(node.features))
        if not is_meant or node.state is NodeState.REMOVED:
            continue
        if not (node.total - request) & guard:
            able.append(node)
        elif not made.count:
            what = f"{node.name} has less than is to be reserved on it"
            raise ImpossibleRequest(what, hint=f"lanai node show {node.name}")
    if not able and not made.count:
        raise NothingThere("there is no such node", code="no_such_node", hint="lanai node list")
    return able


def _is_there(world: World, name: str) -> bool:
    return name in world.names and world.nodes[world.names[name]].state is not NodeState.REMOVED


def _chosen(world: World, made: Reservation, able: list[Node], before: Live | None) -> Part[tuple[str, ...]]:
    begin_us = own_times(world, made.periods[:1])[0][0] if made.periods else world.now_us
    # Whoever has a node now keeps it where it is changed, as far as that goes.
    kept = frozenset(before.nodes) if before is not None else frozenset[NodeId]()
    places: list[tuple[bool, bool, int, NodeId, str]] = []
    good = 0
    for node in sorted(able, key=lambda node: node.id not in kept):
        yield cost_of(node)
        if not _can_have(world, made, node, before):
            continue
        late_us = _late_us(world, made, node, begin_us)
        places.append((not node.is_open(), node.id not in kept, late_us, node.id, node.name))
        good += node.is_open() and (node.id in kept or not late_us)
        if good >= made.count and node.id not in kept:
            break  # none that is left comes before so many
        yield LATE
    if len(places) < made.count:
        taken = f", {len(places)} of them not reserved at that time" if len(places) < len(able) else ""
        there = f"there {'is' if len(able) == 1 else 'are'} {len(able) or 'none'} that {_has(able)} it"
        what = f"{made.count} node{'s' * (made.count > 1)} asked for, {there}{taken}"
        facts: dict[str, str | int | list[str]] = {"asked": made.count, "able": len(able), "free": len(places)}
        raise Refusal(what, code="not_enough_nodes", hint="lanai reservations; lanai node list", facts=facts)
    yield len(places) // 2
    first = sorted(places)[: made.count]
    return tuple(name for _, name in sorted((number, name) for _, _, _, number, name in first))


def _has(able: list[Node]) -> str:
    return "has" if len(able) == 1 else "have"


def _check_all(world: World, made: Reservation, able: list[Node], before: Live | None) -> Part[None]:
    """Maintenance may lie over what is reserved: then nobody may use that."""
    if made.kind == "maintenance":
        return
    for node in able:
        yield cost_of(node)
        if not _can_have(world, made, node, before):
            others = _at_that_time(world, made, node)
            other = others[0]
            raise Refusal(
                f"too much of {node.name} is reserved at that time, by {' and '.join(others[:NAMED])}",
                code="already_reserved",
                hint=f"lanai reservations {other}",
                facts={"node": node.name, "reservation": other},
            )


def cost_of(node: Node) -> int:
    """What it takes to look at all steps on a node."""
    return 4 + len(node.steps) // 4 if node.steps else 2


def _at_that_time(world: World, made: Reservation, node: Node) -> list[str]:
    """The names of other reservations that have some of the node then, the one that was made first first."""
    there = {live.made.name for live, _ in _others(made, node, own_times(world, made.periods))}
    return [name for name in world.reservations if name in there]


def _others(made: Reservation, node: Node, times: list[tuple[int, int]]) -> list[tuple[Live, Step]]:
    """Steps of other reservations on the node that last at one of these times, and whose they are."""
    found: list[tuple[Live, Step]] = []
    for step in node.steps:
        live = step.owner
        if not isinstance(live, Live) or not live.is_in_force or live.made.name == made.name:
            continue
        # Periods are in order and disjoint: of those not over when it begins the first is the first to begin.
        at = bisect_right(times, step.begin_us, key=_end_of)
        if at < len(times) and times[at][0] < step.end_us:
            found.append((live, step))
    return found


def _end_of(period: tuple[int, int]) -> int:
    return period[1]


def _can_have(world: World, made: Reservation, node: Node, before: Live | None) -> bool:
    """Whether it can have the node: one that it has already it keeps beneath maintenance, if its times stay."""
    is_kept = before is not None and node.id in before.nodes and _times(made) == _times(before.made)
    return is_beside(world, made, node, is_beneath=is_kept)


def _times(made: Reservation) -> Rule | tuple[Period, ...]:
    return made.rule or made.periods


def is_beside(world: World, made: Reservation, node: Node, *, is_beneath: bool) -> bool:
    """Whether the node has what is asked for besides what other reservations have there, all the time.

    Args:
        world: what there is.
        made: what is asked for.
        node: where.
        is_beneath: maintenance may lie over it.
    """
    if not node.steps:
        return True
    times = own_times(world, made.periods)
    others = _others(made, node, times)
    steps = [step for live, step in others if not (is_beneath and live.made.kind == "maintenance")]
    amount = amount_on(world, made, node)
    for begin_us, end_us in times if steps else ():
        for at_us in {begin_us, *(step.begin_us for step in steps if begin_us < step.begin_us < end_us)}:
            taken = sum(step.vector for step in steps if step.begin_us <= at_us < step.end_us)
            if taken and (node.total - taken - amount) & world.layout.guard:
                return False
    return True


def amount_on(world: World, made: Reservation, node: Node) -> Vector:
    """What the reservation takes of a node of its own."""
    return node.total if made.is_whole else world.layout.request(made.shape)


def own_times(world: World, periods: tuple[Period, ...]) -> list[tuple[int, int]]:
    """Periods by the core's own clock."""
    ahead_us = world.reservations_skew_us
    return [(period.begin_us + ahead_us, period.end_us + ahead_us) for period in periods]


def _late_us(world: World, made: Reservation, node: Node, begin_us: int) -> int:
    """How long after its beginning what runs on the node is expected to be out of its way."""
    amount = amount_on(world, made, node)
    free, guard = node.free, world.layout.guard
    if not (free - amount) & guard:
        return 0
    for end_us, freed in ends_of(world, node):
        free += freed
        if not (free - amount) & guard:
            return max(0, end_us - begin_us)
    return NEVER
