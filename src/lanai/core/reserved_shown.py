"""What reservations say of themselves: in lists, on their nodes, in the audit trail, and why they make a job wait.

Questions only, which change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from lanai.core.batches import Batch
from lanai.core.nodes import Node, Step
from lanai.core.reserved import Live
from lanai.core.schedule import access
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import may_go
from lanai.core.world import World
from lanai.model.moments import format_moment
from lanai.model.records import Facts
from lanai.model.reservation import Period, Reservation
from lanai.model.units import format_duration

LOOKED_AT: Final = 64
"""So many nodes are looked at for the reason of one line, and"""
FOUND_MOST: Final = 4
"""until so many are found that are kept from it."""
NAMES_SHOWN: Final = 4_096
SHORT_SHOWN: Final = 3
"""So many nodes are named of what is short."""
OF_NODE_SHOWN: Final = 20


class ReservationStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reservation stands, for those who ask.

    Attributes:
        made: the reservation.
        state: `active`: a period of it lasts; `coming`; `idle`: a standing one of which no period is known.
        period: the present or the next one.
        nodes: the names of its nodes, the first few thousand; `count` is how many there are.
        short: what of it cannot be kept, in words.
        running: attempts on its nodes that it admits; `waiting`: jobs that name it and wait.
        others: attempts on its nodes that it does not admit.
    """

    made: Reservation
    state: str
    period: Period | None
    nodes: list[str]
    count: int
    short: tuple[str, ...]
    running: int
    others: int
    waiting: int


def standings(world: World, name: str = "") -> list[ReservationStanding]:
    """All reservations, or the one of that name, by the beginning of their present or next period, then by name."""
    found = [_standing(world, live) for live in world.reservations.values() if name in ("", live.made.name)]
    return sorted(found, key=lambda each: (each.period.begin_us if each.period else 1 << 62, each.made.name))


def _standing(world: World, live: Live) -> ReservationStanding:
    made = live.made
    wall_us = _wall(world, world.now_us)
    period = next((each for each in made.periods if each.end_us > wall_us), None)
    running = others = 0
    for node in live.nodes.values():
        lines = [*node.active.items(), *((claim.line, 1) for claim in node.claims.values())]
        inside = sum(count for line, count in lines if access.is_admitted(world, live, line))
        running += inside
        others += sum(count for _, count in lines) - inside
    names = sorted(node.name for node in live.nodes.values())
    return ReservationStanding(
        made=made,
        state="idle" if period is None else "active" if period.begin_us <= wall_us else "coming",
        period=period,
        nodes=names[:NAMES_SHOWN],
        count=len(names),
        short=_short(live),
        running=running,
        others=others,
        waiting=sum(b.waiting for b in world.batches.values() if b.settings.reservation == made.name),
    )


def _short(live: Live) -> tuple[str, ...]:
    found = sorted(live.short.items())
    more = (f"and {len(found) - SHORT_SHOWN} nodes more",) if len(found) > SHORT_SHOWN else ()
    return (*(f"{name} {why}" for name, why in found[:SHORT_SHOWN]), *more)


def of_node(world: World, node: Node) -> list[dict[str, str | int]]:
    """What is reserved of the node: of each reservation the present or next period; the first few to begin."""
    steps: dict[str, Step] = {}
    for step in sorted(node.steps, key=lambda step: step.begin_us):
        if isinstance(step.owner, Live) and step.owner.is_in_force and step.end_us > world.now_us:
            steps.setdefault(step.owner.made.name, step)
    return [
        {
            "name": name,
            "kind": world.reservations[name].made.kind,
            "begin_us": _wall(world, step.begin_us),
            "end_us": _wall(world, step.end_us),
        }
        for name, step in list(steps.items())[:OF_NODE_SHOWN]
    ]


def reservation_facts(world: World, name: str) -> Facts:
    """The reservation as the audit trail keeps it; empty where there is none."""
    live = world.reservations.get(name)
    if live is None:
        return {}
    made = live.made
    first = made.periods[0] if made.periods else Period(0, 0)
    facts: Facts = {"kind": made.kind, "owner": made.owner, "nodes": len(live.nodes)}
    return {**facts, "begin_us": first.begin_us, "end_us": first.end_us, "periods": len(made.periods)}


# -- why


def why_reserved(world: World, batch: Batch, line: Line) -> tuple[str, str] | None:
    """Why reservations keep the head of the line from starting: code, and reason in words; None: they do not."""
    if batch.settings.reservation:
        return _why_not_within(world, batch, line)
    found = list(islice(_kept_from(world, batch, line), FOUND_MOST))
    if not found:
        return None
    node, live, step = min(found, key=lambda each: (each[2].end_us, each[0].id))
    return "reserved", f"{_who(node, len(found))}, but {_for_whom(world, live, step)}"


def _why_not_within(world: World, batch: Batch, line: Line) -> tuple[str, str] | None:
    """The same of a line that is bound to a reservation that lasts."""
    live = world.reservations.get(batch.settings.reservation)
    if live is None:
        return None
    name, length_us = live.made.name, estimate_us(world, line)
    if not access.is_admitted(world, live, line):
        most_us = live.made.access.max_time_us
        if most_us and length_us > most_us:
            lengths = f"{format_duration(length_us / 1e6)}, it takes {format_duration(most_us / 1e6)} at most"
            return "reservation", f"it runs in the reservation {name} only, and is expected to run for {lengths}"
        return "reservation", f"it runs in the reservation {name} only, which it may not use any more"
    steps = [step for node in live.nodes.values() for step in access.own_steps(world, node, line)]
    last_us = max((step.end_us for step in steps if step.begin_us <= world.now_us), default=0)
    if line.shape.time_limit_us and last_us and world.now_us + length_us > last_us:
        until = format_moment(_wall(world, last_us))
        limit = format_duration(line.shape.time_limit_us / 1e6)
        return "reservation", f"it runs in the reservation {name} only, which ends at {until}, sooner than in {limit}"
    if len(live.nodes) < line.shape.nodes:
        return "reservation", f"it runs in the reservation {name} only, which has {_nodes(live)} of {line.shape.nodes}"
    return "no_room", f"it runs in the reservation {name} only, on whose nodes it finds no room"


def _kept_from(world: World, batch: Batch, line: Line) -> Iterator[tuple[Node, Live, Step]]:
    guard, features = world.layout.guard, set(line.shape.features)
    until_us = world.now_us + estimate_us(world, line)
    left = LOOKED_AT
    for live in world.reservations.values():
        for node in live.nodes.values():
            left -= 1
            if left < 0:
                return
            if (node.free - line.vector) & guard or not node.is_open() or not features <= set(node.features):
                continue
            if not may_go(batch, line, node):
                continue
            if (step := _in_the_way(world, node, live, line, until_us)) is not None:
                yield node, live, step


def _in_the_way(world: World, node: Node, live: Live, line: Line, until_us: int) -> Step | None:
    """The first step of the reservation that keeps its amount from the line before a job that begins now is over."""
    guard = world.layout.guard
    steps = [
        step
        for step in node.steps
        if step.owner is live and world.now_us < step.end_us and step.begin_us < until_us and not step.admits(line)
    ]
    step = min(steps, key=lambda step: step.begin_us, default=None)
    if step is None or not (node.free - step.vector - line.vector) & guard:
        return None
    return step


def _who(node: Node, count: int) -> str:
    more = " (and others)" if count > 1 else ""
    return f"{node.name}{more} {'has' if count == 1 else 'have'} room"


def _for_whom(world: World, live: Live, step: Step) -> str:
    what = "is kept for maintenance" if live.made.kind == "maintenance" else "is reserved"
    until = f"until {format_moment(_wall(world, step.end_us))}"
    if step.begin_us <= world.now_us:
        return f"{what} by {live.made.name} {until}"
    return f"{what} by {live.made.name} from {format_moment(_wall(world, step.begin_us))} {until}"


def facts(world: World, batch: Batch) -> list[str]:
    """What reservations say about a batch: the one that it names, and the times of it."""
    name = batch.settings.reservation
    if not name:
        return []
    live = world.reservations.get(name)
    if live is None:
        gone = f"runs in the reservation {name} only, which is over or was dropped"
        return [f"{gone}; `lanai set {batch.id} --reservation none` lets it run anywhere"]
    times = [f"{format_moment(each.begin_us)} to {format_moment(each.end_us)}" for each in live.made.periods[:1]]
    return [f"runs in the reservation {name} only: {_nodes(live)}, {', '.join(times) or 'no time yet'}"]


def _nodes(live: Live) -> str:
    return f"{len(live.nodes)} node{'' if len(live.nodes) == 1 else 's'}"


def _wall(world: World, at_us: int) -> int:
    return at_us - world.reservations_skew_us
