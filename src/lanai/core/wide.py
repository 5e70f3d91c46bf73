"""Jobs over several nodes: their room is claimed on all of them before the command is sent to the first.

Theory of operation. `World.give_wide` books the room on all nodes in one record and asks all but the first to keep it,
so that none of them starts a surplus in it. The grant goes to the first node when all have answered. Where one does not
within `CLAIM_US`, or is drained meanwhile, or the first one connects anew, the job comes back unbegun. Once the grant
is sent the first node's word about the attempt counts as for any other; the room of the others is free when the grant
has no member left. A further node that is lost ends the attempt everywhere, see `ends.break_off`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lanai.core import ends
from lanai.core.effects import ClaimRoom, StartAttempts, UnclaimRoom
from lanai.core.events import RoomClaimed
from lanai.core.nodes import Grant, Node
from lanai.core.queue import spans_of
from lanai.core.stalls import has_begun, stall
from lanai.core.world import SECOND_US, World
from lanai.model.ids import GrantId

CLAIM_US: Final = 10 * SECOND_US
"""A node that has not made room for so long does not do so now: the others are not kept idle for it any longer."""


def on_claimed(world: World, event: RoomClaimed) -> None:
    """A node keeps room for attempts that others run."""
    node = world.nodes[event.node]
    for number in event.grants:
        grant = world.claiming.get(number)
        if grant is not None and node.id in grant.awaited:
            _confirm(world, grant, node)


def _confirm(world: World, grant: Grant, node: Node) -> None:
    grant.awaited -= {node.id}
    if grant.batch.stall_waits_us:
        has_begun(world, grant.batch, node)
    # Where the first node is about to take stock it is given back then: it must not be on its way meanwhile.
    if grant.awaited or grant.is_withheld or not grant.node.is_in_step:
        return
    del world.claiming[grant.id]
    others = tuple(other.id for other in grant.others)
    about = grant.node.id, grant.id, grant.batch.id, grant.line.shape_id, grant.attempt
    world.do(StartAttempts(*about, spans_of(grant.members), is_urgent=True, others=others))


def look_at_claims(world: World) -> None:
    """Jobs some of whose nodes have not made room in time come back; for a while they are not given to those again."""
    for grant in list(world.claiming.values()):
        if world.now_us - grant.granted_at_us < CLAIM_US:
            continue
        silent = [node for node in grant.others if node.id in grant.awaited]
        for node in silent:
            stall(world, grant.batch, node, f"it has made no room for {CLAIM_US // SECOND_US} s")
        if silent:
            names = ", ".join(node.name for node in silent)
            world.tell("claim_failed", str(grant.batch.id), f"no room was made on {names}; the job waits again")
        _give_back(world, grant)


def call_off(world: World, node: Node) -> None:
    """The node is to take nothing new: what waits for its room comes back. What has been sent goes on to its end."""
    for grant in list(node.claims.values()):
        if grant.id in world.claiming:
            _give_back(world, grant)


def _give_back(world: World, grant: Grant) -> None:
    ends.take_back(world, grant.node, [(grant.id, index) for index in sorted(grant.members)])


def compare(world: World, node: Node, claims: Iterable[GrantId]) -> None:
    """A node says for which grants it keeps room: it is told of those it lacks, and of those that are over."""
    has = set(claims)
    wanted = {number: grant for number, grant in node.claims.items() if not grant.broken}
    strangers = sorted(has - wanted.keys())
    if strangers:
        world.do(UnclaimRoom(node.id, strangers))
    for number, grant in wanted.items():
        if number not in has:
            world.do(ClaimRoom(node.id, number, grant.line.shape))
    on_claimed(world, RoomClaimed(node.id, sorted(has)))
