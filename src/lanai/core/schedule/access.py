"""Which jobs may use what a person has reserved, and where those may go that run in a reservation only.

A job is *admitted* to a reservation by its access list: the reservation's steps keep nothing from it. A job that names
a reservation is *bound*: it begins only on the reservation's nodes, while a period of it lasts, within what is reserved
there, and where it has a time limit it is over by the period's end.
"""

from __future__ import annotations

from typing import Final

from lanai.core.batches import Batch
from lanai.core.nodes import Node, Step
from lanai.core.reserved import Live
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.batch import BatchSettings
from lanai.model.policy import DEFAULT_SERVICE
from lanai.model.reservation import Access
from lanai.model.vector import Vector

NONE: Final[frozenset[str]] = frozenset()


def is_named(world: World, access: Access, owner: str, user: str, settings: BatchSettings) -> bool:
    """Whether the lists let a batch of these settings in, whatever its number and the length of its jobs."""
    if access.is_open():
        return bool(access.max_time_us) or user == owner
    groups = world.policy.groups
    return (
        user in access.users
        or world.policy.account_of(user, settings.account) in access.accounts
        or (settings.service or DEFAULT_SERVICE) in access.services
        or any(name in groups and user in groups[name].members for name in access.groups)
    )


def is_admitted(world: World, live: Live, line: Line) -> bool:
    """Whether the line's jobs may use the reservation."""
    batch = world.batches.get(line.batch)
    if batch is None or live.made.kind == "maintenance":
        return False
    settings, access = batch.settings, live.made.access
    if settings.reservation and settings.reservation != live.made.name:
        return False
    if access.max_time_us and estimate_us(world, line) > access.max_time_us:
        return False
    return batch.id in access.batches or is_named(world, access, live.made.owner, batch.user, settings)


def is_let_in(world: World, live: Live, begin_us: int, end_us: int, line: Line) -> bool:
    """Whether a step of the reservation keeps nothing from the line: it is admitted, or nobody minds.

    Nobody does where the reservation is a preferring one that has begun, no job that names it waits, and the line's
    are over by its end; or where the reservation is not in force.
    """
    if not live.is_in_force or is_admitted(world, live, line):
        return True
    if live.made.kind != "preferring" or live.is_wanted or world.now_us < begin_us:
        return False
    return world.now_us + estimate_us(world, line) <= end_us


def open_to(world: World, line: Line) -> frozenset[str]:
    """The reservations that the line is admitted to, by name."""
    if not world.reservations:
        return NONE
    return frozenset(name for name, live in world.reservations.items() if is_admitted(world, live, line))


def is_reserved(world: World, node: Node, line: Line, vector: Vector, at_us: int, length_us: int) -> bool:
    """Whether reservations leave no room on the node, were it empty, for the line's job that begins then."""
    for step in node.steps:
        is_meant = isinstance(step.owner, Live) and step.begin_us < at_us + length_us and at_us < step.end_us
        if is_meant and (node.total - step.vector - vector) & world.layout.guard and not step.admits(line):
            return True
    return False


# -- those that are bound


def is_bound(world: World, line: Line) -> bool:
    """Whether the line's jobs run in a reservation only."""
    batch = world.batches.get(line.batch)
    return batch is not None and bool(batch.settings.reservation)


def is_out(world: World, batch: Batch) -> bool:
    """Whether the batch runs in a reservation only, and no period of that lasts now."""
    if not batch.settings.reservation:
        return False
    live, now_us = world.reservations.get(batch.settings.reservation), world.now_us - world.reservations_skew_us
    return live is None or not any(period.begin_us <= now_us < period.end_us for period in live.made.periods)


def own_steps(world: World, node: Node, line: Line) -> list[Step]:
    """What is reserved on the node by the reservation that the line is bound to; empty where it is not admitted."""
    live = world.reservations.get(world.batches[line.batch].settings.reservation)
    if live is None or not is_admitted(world, live, line):
        return []
    return [step for step in node.steps if step.owner is live]


def is_within(world: World, node: Node, line: Line, vector: Vector, at_us: int, length_us: int) -> bool:
    """Whether a bound line's job that begins then is in its reservation. What is there now counts only for now."""
    over_us = at_us + length_us if line.shape.time_limit_us else at_us + 1
    step = next((s for s in own_steps(world, node, line) if s.begin_us <= at_us and over_us <= s.end_us), None)
    if step is None:
        return False
    if step.vector == node.total or at_us > world.now_us:
        return not (step.vector - vector) & world.layout.guard
    return not (step.vector - vector - _used(world, node, world.batches[line.batch])) & world.layout.guard


def may_follow(world: World, node: Node, line: Line) -> bool:
    """Whether a line may go to the node without a pass, as far as its own reservation is concerned.

    Where only a part of a node is reserved no bound line may: how many of them it has room for a pass finds out.
    """
    if not is_bound(world, line):
        return True
    if any(step.vector != node.total for step in own_steps(world, node, line)):
        return False
    return is_within(world, node, line, line.vector, world.now_us, estimate_us(world, line))


def _used(world: World, node: Node, batch: Batch) -> Vector:
    """What those have on the node that are bound to the same reservation."""
    name = batch.settings.reservation

    def is_ours(line: Line) -> bool:
        other = world.batches.get(line.batch)
        return other is not None and other.settings.reservation == name

    used = sum(line.vector * count for line, count in node.active.items() if is_ours(line))
    return used + sum(claim.line.vector for claim in node.claims.values() if is_ours(claim.line))
