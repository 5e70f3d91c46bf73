"""Where a reservation that somebody wishes can be placed: on which nodes, or why on none.

Nodes named by number are chosen once, when the reservation is made: of those that have what is asked for and of which
no other reservation has too much at that time, the ones that are expected to be free by its beginning, and then those
that are so soonest. Nodes that are named by their names or features are all taken, or none.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lanai.core.credentials import is_account, is_service
from lanai.core.nodes import Node
from lanai.core.reserved import Live
from lanai.core.schedule.future import ends_of
from lanai.core.world import SECOND_US, World
from lanai.model.errors import ImpossibleRequest, NothingThere, Refusal, TooMany, UserError
from lanai.model.ids import NodeId
from lanai.model.moments import format_moment
from lanai.model.node import NodeState
from lanai.model.node_names import names_of
from lanai.model.policy import Policy
from lanai.model.reservation import Access, Period, Reservation, Rule, problems
from lanai.model.vector import Vector

RESERVATIONS_MOST: Final = 1_000
PAST_US: Final = 60 * SECOND_US
"""Who says now may take so long to say it."""
NEVER: Final = 1 << 62
NAMED: Final = 5


def placed(world: World, wish: Reservation, before: Live | None, *, is_change: bool) -> Reservation:
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
    able = _able(world, made)
    if made.count:
        return msgspec.structs.replace(made, chosen=_chosen(world, made, able, before))
    _check_all(world, made, able, before)
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


def _able(world: World, made: Reservation) -> list[Node]:
    """Nodes that are such as it asks for, by number. Raises NothingThere where one that is named is not there."""
    names, features = names_of(made.nodes or "*"), set(made.shape.features)
    there = [node for node in world.nodes.values() if node.state is not NodeState.REMOVED]
    known = {node.name for node in there}
    missing = sorted(names.exact - known)
    if missing:
        shown = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
        facts: dict[str, str | int | list[str]] = {"missing": missing[:100]}
        raise NothingThere(f"no node is called {shown}", code="no_such_node", hint="lanai node list", facts=facts)
    guard, request = world.layout.guard, world.layout.request(made.shape)
    named = [node for node in there if names.has(node.name) and features <= set(node.features)]
    able = [node for node in named if not (node.total - request) & guard]
    if not made.count and len(able) < len(named):
        small = next(node for node in named if (node.total - request) & guard)
        what = f"{small.name} has less than is to be reserved on it"
        raise ImpossibleRequest(what, hint=f"lanai node show {small.name}")
    if not able and not made.count:
        raise NothingThere("there is no such node", code="no_such_node", hint="lanai node list")
    return able


def _chosen(world: World, made: Reservation, able: list[Node], before: Live | None) -> tuple[str, ...]:
    free = [node for node in able if _can_have(world, made, node, before)]
    if len(free) < made.count:
        taken = f", {len(free)} of them not reserved at that time" if len(free) < len(able) else ""
        there = f"there {'is' if len(able) == 1 else 'are'} {len(able) or 'none'} that {_has(able)} it"
        what = f"{made.count} node{'s' * (made.count > 1)} asked for, {there}{taken}"
        facts: dict[str, str | int | list[str]] = {"asked": made.count, "able": len(able), "free": len(free)}
        raise Refusal(what, code="not_enough_nodes", hint="lanai reservations; lanai node list", facts=facts)
    begin_us = own_times(world, made.periods[:1])[0][0] if made.periods else world.now_us
    # Whoever has a node now keeps it where it is changed, as far as that goes.
    kept = frozenset(before.nodes) if before is not None else frozenset[NodeId]()

    def place(node: Node) -> tuple[bool, bool, int, int]:
        return not node.is_open(), node.id not in kept, _late_us(world, made, node, begin_us), node.id

    return tuple(node.name for node in sorted(sorted(free, key=place)[: made.count], key=lambda node: node.id))


def _has(able: list[Node]) -> str:
    return "has" if len(able) == 1 else "have"


def _check_all(world: World, made: Reservation, able: list[Node], before: Live | None) -> None:
    """Maintenance may lie over what is reserved: then nobody may use that."""
    if made.kind == "maintenance":
        return
    for node in able:
        if not _can_have(world, made, node, before):
            others = _at_that_time(world, made, node, before)
            other = others[0]
            raise Refusal(
                f"too much of {node.name} is reserved at that time, by {' and '.join(others[:NAMED])}",
                code="already_reserved",
                hint=f"lanai reservations {other}",
                facts={"node": node.name, "reservation": other},
            )


def _at_that_time(world: World, made: Reservation, node: Node, before: Live | None) -> list[str]:
    """The names of other reservations that have some of the node then."""
    times = own_times(world, made.periods)
    return [
        live.made.name
        for live in _others(world, node, before)
        if any(
            step.owner is live and step.begin_us < end_us and begin_us < step.end_us
            for step in node.steps
            for begin_us, end_us in times
        )
    ]


def _others(world: World, node: Node, before: Live | None) -> list[Live]:
    found = (live for live in world.reservations.values() if node.id in live.nodes)
    return [live for live in found if live is not before]


def _can_have(world: World, made: Reservation, node: Node, before: Live | None) -> bool:
    """Whether it can have the node: one that it has already it keeps beneath maintenance, if its times stay."""
    is_kept = before is not None and node.id in before.nodes and _times(made) == _times(before.made)
    return is_beside(world, made, node, before, is_beneath=is_kept)


def _times(made: Reservation) -> Rule | tuple[Period, ...]:
    return made.rule or made.periods


def is_beside(world: World, made: Reservation, node: Node, before: Live | None, *, is_beneath: bool) -> bool:
    """Whether the node has what is asked for besides what other reservations have there, all the time.

    Args:
        world: what there is.
        made: what is asked for.
        node: where.
        before: the reservation itself, where it is there already.
        is_beneath: maintenance may lie over it.
    """
    others = {live for live in _others(world, node, before) if not (is_beneath and live.made.kind == "maintenance")}
    steps = [step for step in node.steps if step.owner in others]
    amount = amount_on(world, made, node)
    for begin_us, end_us in own_times(world, made.periods) if steps else ():
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
