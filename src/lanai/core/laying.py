"""The steps that reservations lay on nodes, one for each of their periods; they outlast the passes.

A reservation that is made, changed or renewed is laid on some nodes in each call (`long_work`), beside what lies there.
Its steps keep nothing from anybody until it is put in force, in one moment; from that on those of the one before it
keep nothing, as those of one that is dropped do not, and are taken away in some calls more. So none is ever in force by
half. Where a node comes, goes or changes meanwhile, all that is reserved on it is laid anew at once, also what is on
its way.

The times of reservations are by the clock on the wall, those of steps by the core's own. When the former is set, the
nodes are gone through one after the other: until then they go by what it showed before.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from lanai.core.long_work import Work
from lanai.core.nodes import NEVER_US, Node, Step
from lanai.core.recall import recall_from
from lanai.core.reserved import Live
from lanai.core.reserving import amount_on, cost_of, is_beside, nodes_among, own_times
from lanai.core.schedule import access
from lanai.core.world import SECOND_US, World
from lanai.model.node import NodeState
from lanai.model.vector import Vector

SOON_US: Final = 60 * SECOND_US
"""What waits at a node is asked back that is reserved so soon."""


def lay(world: World, live: Live) -> Work:
    """Lay it on all its nodes. It is what is on its way from now on, until it is put in force or given up."""
    world.coming = live
    for node in nodes_among(world, live.names):
        lay_on(world, live, node)
        yield cost_of(node) + len(live.names.globs)


def put_in_force(world: World, live: Live) -> None:
    """It is in force from now on, in place of the one of its name before."""
    name = live.made.name
    before = world.reservations.get(name)
    live.is_in_force, world.coming = True, None
    world.reservations[name] = live
    if before is not None:
        live.began_us, live.is_wanted = before.began_us, before.is_wanted
        end(world, before)
    for node, why in live.short.items():
        if before is None or before.short.get(node) != why:
            _tell_short(world, live, node, why)
    if any(begin_us <= world.now_us + SOON_US for begin_us, _ in own_times(world, live.made.periods[:1])):
        world.work.add(recall(world, live))


def end(world: World, live: Live) -> None:
    """It keeps nothing any more; its steps are taken away."""
    live.is_in_force = False
    if world.coming is live:
        world.coming = None
    world.work.add(clean(world, list(live.nodes.values())))


def clean(world: World, nodes: list[Node]) -> Work:
    """Take away steps of what is over or no longer in force."""
    for node in nodes:
        yield cost_of(node)
        left = [step for step in node.steps if not _is_over(world, step)]
        if len(left) < len(node.steps):
            node.put_steps(left)


def _is_over(world: World, step: Step) -> bool:
    live = step.owner
    if not isinstance(live, Live):
        return False
    return step.end_us <= world.now_us or not live.is_in_force


def recall(world: World, live: Live) -> Work:
    """Ask back what waits at its nodes and is not for it: it begins soon, or has begun."""
    stays = partial(access.is_admitted, world, live)
    for node in [node for node in live.nodes.values() if node.surplus_count]:
        if not live.is_in_force:
            return
        recall_from(world, node, stays)
        yield 10 * (1 + len(node.grants))


def relay(world: World, node: Node) -> None:
    """The node has come, gone or changed: what is reserved on it is laid anew, of what was made first first."""
    all_of_them = [*world.reservations.values()]
    if world.coming is not None:
        all_of_them.append(world.coming)
    for live in all_of_them:
        _lift_from(live, node)
    for live in all_of_them:
        if live.names.globs or node.name in live.names.exact:
            lay_on(world, live, node)


def relay_all(world: World) -> Work:
    """The clock on the wall was set: lay all of them anew."""
    world.reservations_skew_us = world.wall_seen_us - world.wall_us
    for live in world.reservations.values():
        live.laid.clear()
    to_match = len(world.reservations) // 8 + sum(len(live.names.globs) for live in world.reservations.values())
    for node in list(world.nodes.values()):
        relay(world, node)
        yield to_match + 2 * cost_of(node)


def lay_on(world: World, live: Live, node: Node) -> None:
    """Lay the reservation's steps on a node, if that belongs to it; what lay there of it before is lifted.

    A node that has come later, and of which others have reserved too much by then, does not belong to it.
    """
    _lift_from(live, node)
    before = live.short.pop(node.name, "") if live.short else ""
    if node.state is NodeState.REMOVED or not live.covers(node):
        is_missed = node.name in live.names.exact
        _see(world, live, node, "is gone, or without its features" if is_missed else "", before)
        return
    is_beneath_all = live.made.kind == "maintenance"
    if not is_beneath_all and not is_beside(world, live.made, node, is_beneath=True):
        _see(world, live, node, "is reserved by others", before)
        return
    live.nodes[node.id] = node
    vector = amount_on(world, live.made, node)
    is_small = (node.total - vector) & world.layout.guard
    _see(world, live, node, "has less than is reserved" if is_small else "", before)
    steps = live.laid.get(vector)
    if steps is None:
        steps = live.laid[vector] = _steps(world, live, vector)
    node.lay(*steps)
    if live.is_in_force and steps and steps[0].begin_us <= world.now_us + SOON_US:
        recall_from(world, node, partial(access.is_admitted, world, live))


def _steps(world: World, live: Live, vector: Vector) -> tuple[Step, ...]:
    is_admitted = partial(access.is_admitted, world, live)
    return tuple(
        Step(begin_us, end_us, vector, live, partial(access.is_let_in, world, live, begin_us, end_us), is_admitted)
        for begin_us, end_us in own_times(world, live.made.periods)
        if end_us > world.now_us
    )


def _lift_from(live: Live, node: Node) -> None:
    if live.nodes.pop(node.id, None) is not None:
        node.lift(live)


def _see(world: World, live: Live, node: Node, short: str, before: str) -> None:
    """The node keeps what is reserved of it, or (`short`) it does not; said where that is new."""
    if short:
        live.short[node.name] = short
        if short != before and live.is_in_force:
            _tell_short(world, live, node.name, short)


def _tell_short(world: World, live: Live, node: str, why: str) -> None:
    world.tell("reservation_short", live.made.name, f"{node} {why}")


def check(world: World) -> None:
    """Raise AssertionError where the steps on nodes are not those of the reservations."""
    assert all(live.is_in_force for live in world.reservations.values())
    assert world.coming is None or (world.work and not world.coming.is_in_force)
    for node in world.nodes.values():
        owners = {step.owner for step in node.steps if isinstance(step.owner, Live)}
        in_force = {live for live in owners if live.is_in_force}
        assert in_force <= {live for live in world.reservations.values() if node.id in live.nodes}, node.name
        assert in_force == owners or world.work, node.name
        assert node.until_us == min((step.begin_us for step in node.steps), default=NEVER_US), node.name
