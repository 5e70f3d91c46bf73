"""Nodes come, take stock, fall silent, go; and what people wish about them.

A node that connects sends its inventory, and the hub answers with the differences: attempts that it should not have are
killed, grants that it has lost are sent again.
"""

from __future__ import annotations

from lanai.core import ends, giving_way, laying, wide
from lanai.core.effects import AcceptNode, Answer, DismissNode, DrainNode, KillAttempts, RejectNode, StartAttempts
from lanai.core.events import NodeDisconnected, NodeHeard, NodeJoined, NodeTookStock, NodeWished
from lanai.core.nodes import Grant, Node
from lanai.core.queue import spans_of
from lanai.core.recall import recall
from lanai.core.world import World
from lanai.model.errors import NotAllowed, NothingThere, Refusal, TooMany
from lanai.model.ids import GrantId, Index, NodeId
from lanai.model.node import NodeState
from lanai.model.records import SaveNode
from lanai.model.resources import Capacity

FENCED_GRACE_US = 0
RESOURCES_MOST = 256
"""Of so many names all nodes together may offer resources: every look at whether something fits costs by them."""
LIVES_HEARTBEATS = 2
"""A connection on which so many are missing no longer keeps its agent from a new one."""


def on_joined(world: World, event: NodeJoined) -> None:
    """Welcome an agent, unless its name belongs to another, or to one that is connected and lives.

    Two with one key are a copy of an agent's directory, or somebody who plays back what he has heard: both would be
    given the same jobs. One that has lost its connection before we have comes again, and finds us wiser.
    """
    if (error := _refusal(world, event)) is not None:
        world.do(RejectNode(event.connection, error.body()))
        return
    known = world.names.get(event.name)
    if known is None:
        world.last_node += 1
        node = Node(NodeId(world.last_node), event.name, event.key_hash)
        node.joined_at_us = event.wall_us
        world.nodes[node.id] = node
        world.names[event.name] = node.id
        world.tell("node_joined", node.name, "for the first time" + _by_token(world, event))
    else:
        node = world.nodes[known]
        node.key_hash = event.key_hash
        if event.token not in (0, node.token):
            world.tell("node_joined", node.name, "again" + _by_token(world, event))
    node.token = event.token
    if node.connection and node.connection != event.connection:
        world.do(DismissNode(node.id))
    if node.boot_id and node.boot_id != event.boot_id:
        ends.lose_everything(world, node, "the node has been booted again")
        world.lift_suspension(node)
    _take_facts(world, node, event)
    world.do(AcceptNode(event.connection, node.id))


def _refusal(world: World, event: NodeJoined) -> Refusal | None:
    """Why an agent is turned away."""
    if len({*world.layout.names} | _resources(event.capacity)) > RESOURCES_MOST:
        return TooMany(
            f"this hub's nodes offer named resources of {RESOURCES_MOST} names, which is the most",
            code="too_many_resources",
            hint="give the agent fewer with --resource; lanai node list --format json shows what others have",
        )
    known = world.names.get(event.name)
    if known is None:
        return None
    node = world.nodes[known]
    if node.key_hash != event.key_hash and node.state is not NodeState.REMOVED:
        return NotAllowed(
            f"another agent joined as {event.name} first",
            code="name_taken",
            hint="choose another --name, or `lanai node remove` the old one",
        )
    is_there = node.connection and node.connection != event.connection
    if is_there and world.now_us - node.heard_us < LIVES_HEARTBEATS * world.heartbeat_us:
        return NotAllowed(
            f"an agent of this name is connected already: {event.name}",
            code="name_in_use",
            hint="two agents may not share a --name or a directory; where there is only one, it gets in by itself",
        )
    return None


def _by_token(world: World, event: NodeJoined) -> str:
    token = world.tokens.get(event.token)
    return f", with token {token.token} of {token.user}" if token else ""


def _take_facts(world: World, node: Node, event: NodeJoined) -> None:
    world.unindex(node)
    world.step_out(node)
    used = node.total - node.free
    node.connection = event.connection
    node.boot_id = event.boot_id
    is_new_to_lines = not _resources(event.capacity) <= _resources(node.capacity)
    node.capacity = event.capacity
    node.features = tuple(sorted(event.features))
    node.started_by = event.started_by
    node.version = event.version
    node.facts = event.facts
    node.takes_claims = event.takes_claims
    node.total = world.layout.capacity(event.capacity)
    if is_new_to_lines:
        world.measure_lines()
    node.free = node.total - used
    node.trouble = ""
    node.heard_us = world.now_us
    node.seen_at_us = event.wall_us
    if node.state is NodeState.REMOVED:
        node.is_drained = False
    node.become(NodeState.UP)
    laying.relay(world, node)
    world.keep(node.record())


def _resources(capacity: Capacity) -> frozenset[str]:
    return frozenset(name for name, _ in capacity.named)


def on_took_stock(world: World, event: NodeTookStock) -> None:
    """Compare what the node has with what it should have."""
    node = world.nodes[event.node]
    if not node.connection:
        return  # the last word of a connection that we have given up
    # It answers the welcome, which is what ends a suspension at the agent: a join alone may go unanswered.
    world.lift_suspension(node)
    has: dict[GrantId, dict[Index, str]] = {}
    for grant_id, index, state in event.items:
        has.setdefault(grant_id, {})[index] = state
    strangers: list[tuple[GrantId, Index]] = []
    for grant_id, members in has.items():
        grant = node.grants.get(grant_id)
        for index, state in members.items():
            if (grant is None or index not in grant.members) and state != "ended":
                strangers.append((grant_id, index))
    if strangers:
        world.tell("attempts_fenced", node.name, f"{len(strangers)} attempts that are no longer its own")
        world.do(KillAttempts(node.id, strangers, FENCED_GRACE_US, "no longer granted to this node"))
    # Said either way, and before any grant: what the node knows may be of before the connection was down.
    world.do(DrainNode(node.id, is_draining=node.is_drained))
    unwanted: list[tuple[GrantId, Index]] = []
    for grant in list(node.grants.values()):
        unwanted += _grant_again(world, node, grant, has.get(grant.id, {}))
    _rebook(world, node)
    wide.compare(world, node, event.claims)
    ends.take_back(world, node, unwanted)
    node.is_expected = False
    world.step_in(node)
    node.ended_us = world.now_us
    for batch in {grant.batch.id: grant.batch for grant in node.grants.values()}.values():
        if batch.hold_wishes or not batch.is_open:
            recall(world, batch, node=node)  # it was asked for while the node could not hear
    world.reindex(node)
    world.needs_pass = True


def _grant_again(world: World, node: Node, grant: Grant, has: dict[Index, str]) -> list[tuple[GrantId, Index]]:
    """Send what the node lacks, but for what is not to begin there any more: that is returned."""
    missing = grant.members - has.keys()
    batch = grant.batch
    back = missing & (batch.cancel_wishes | batch.hold_wishes | batch.ways.keys())
    if node.is_drained or batch.is_barred(node.id) or not batch.is_open:
        back = set(missing)
    if grant.others:
        # It is given anew: whether all its nodes still keep its room is not known. Where the inventory comes twice,
        # though, the grant may be on its way here.
        back = set() if node.is_in_step else set(missing)
        missing = set() if grant.id in world.claiming else missing
    missing -= back
    for index in sorted(index for index, state in has.items() if state == "running" and index in grant.members):
        if index not in grant.started:
            grant.started[index] = world.wall_us
            grant.batch.counts.locked -= 1
            grant.batch.counts.running += 1
    if missing:
        about = node.id, grant.id, grant.batch.id, grant.line.shape_id, grant.attempt
        others = tuple(other.id for other in grant.others)
        world.do(StartAttempts(*about, spans_of(missing), is_urgent=True, others=others))
    kept = grant.members - back
    if kept and grant.broken:
        world.do(KillAttempts(node.id, [(grant.id, i) for i in sorted(kept)], batch.settings.grace_us, grant.broken))
    unwanted = sorted(kept & grant.batch.cancel_wishes)
    if unwanted:
        items = [(grant.id, index) for index in unwanted]
        world.do(KillAttempts(node.id, items, grant.batch.settings.grace_us, "cancelled"))
    giving_way.ask_again(world, grant, kept - grant.batch.cancel_wishes)
    world.touch(grant.batch)
    return [(grant.id, index) for index in sorted(back)]


def _rebook(world: World, node: Node) -> None:
    """Book the node's room anew from its grants: what fits is active, the rest is surplus."""
    grants = list(node.grants.values())
    node.clear()
    for grant in grants:
        node.grants[grant.id] = grant
        for _ in range(len(grant.members)):
            if not (node.free - grant.line.vector) & world.layout.guard:
                node.occupy(grant.line, 1)
            else:
                node.stack(grant.line, 1)


def on_heard(world: World, event: NodeHeard) -> None:
    """A heartbeat: it lives, and says whether something keeps it from starting more."""
    node = world.nodes[event.node]
    node.seen_at_us = event.wall_us
    node.escaped = event.escaped
    if node.trouble != event.trouble:
        world.tell("node_trouble", node.name, event.trouble or "over")
        node.trouble = event.trouble
        world.reindex(node)
        world.needs_pass = True
    hear(world, node)


def hear(world: World, node: Node) -> None:
    """Anything from a node proves that it lives."""
    node.heard_us = world.now_us
    if node.state is NodeState.SILENT:
        node.become(NodeState.UP)
        world.tell("node_back", node.name, "heard again")
        world.reindex(node)
        world.needs_pass = True


def on_disconnected(world: World, event: NodeDisconnected) -> None:
    """The connection is gone; a newer one is not touched by this."""
    node = world.nodes[event.node]
    if node.connection != event.connection:
        return
    node.connection = 0
    world.step_out(node)
    world.reindex(node)
    world.keep(node.record())
    world.needs_pass = True


def on_wished(world: World, event: NodeWished) -> None:
    """Drain, resume, remove."""
    node = world.nodes.get(world.names.get(event.name, NodeId(0)))
    if node is None or (node.state is NodeState.REMOVED and event.wish != "remove"):
        error = NothingThere(f"no node is called {event.name}", code="no_such_node", hint="lanai node list")
        world.do(Answer(event.request, error=error.body()))
        return
    is_given_up = node.state is NodeState.AWAY or (node.id in world.suspended and not node.connection)
    held = sum(len(grant.members) for grant in node.grants.values()) + len(node.claims)
    if event.wish == "remove" and held and not is_given_up:
        refusal = Refusal(
            f"{node.name} still has {held} attempts",
            code="node_busy",
            hint=f"lanai node drain {node.name}, and wait until they have ended",
        )
        world.do(Answer(event.request, error=refusal.body()))
        return
    _apply_wish(world, node, event.wish)
    world.keep(node.record())
    world.do(Answer(event.request, {"node": node.name, "state": str(node.state), "is_drained": node.is_drained}))
    world.needs_pass = True


def _apply_wish(world: World, node: Node, wish: str) -> None:
    if wish == "remove":
        ends.lose_everything(world, node, "the node was removed")
        world.lift_suspension(node)
        node.become(NodeState.REMOVED)
        world.step_out(node)
        world.do(DismissNode(node.id))
        node.connection = 0
        laying.relay(world, node)
    else:
        node.is_drained = wish == "drain"
        if node.is_in_step:
            world.do(DrainNode(node.id, is_draining=node.is_drained))
        if node.is_drained:
            for batch in {grant.batch.id: grant.batch for grant in node.grants.values()}.values():
                recall(world, batch, node=node)
            wide.call_off(world, node)
    world.tell(f"node_{wish}", node.name, "by a person")
    world.reindex(node)


def recover_node(world: World, found: SaveNode) -> None:
    """A node that the store knows. It counts as heard at the hub's start, so that its lease runs from there."""
    node = Node(found.node, found.name, found.key_hash)
    node.boot_id = found.boot_id
    node.capacity = found.capacity
    node.features = found.features
    node.started_by = found.started_by
    node.joined_at_us, node.seen_at_us = found.joined_at_us, found.seen_at_us
    node.is_drained = found.is_drained
    node.total = node.free = world.layout.capacity(found.capacity)
    node.state = NodeState(found.state)
    if node.state is NodeState.UP:
        node.is_expected = True
        node.become(NodeState.SILENT)
    node.heard_us = world.now_us
    world.nodes[node.id] = node
    world.names[node.name] = node.id
    world.last_node = max(world.last_node, node.id)
