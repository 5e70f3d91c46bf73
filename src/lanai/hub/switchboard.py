"""Between the peers and the core: messages become events, effects become messages.

What nodes are told of their work is `handouts`, what those are told who watch a batch is `watching`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

import lanai
from lanai.core import effects as do
from lanai.core import events
from lanai.core.hub import HubCore
from lanai.hub.admission import Admission, check_offer
from lanai.hub.clock import wall_us
from lanai.hub.commands import Commands, reply
from lanai.hub.copies import Outcome
from lanai.hub.handouts import Handouts
from lanai.hub.lines import LineSource
from lanai.hub.loop import Heart
from lanai.hub.peers import NAME_CHARACTERS, Outbox, Peer
from lanai.hub.revivals import Batches
from lanai.hub.streams import Attempts, Streams
from lanai.hub.watching import Watching
from lanai.model.errors import ErrorBody, Refusal, StoreFull, UserError
from lanai.model.ids import BatchId, GrantId, Index, NodeId, TokenId
from lanai.model.records import SaveTail
from lanai.store.port import History, Lines
from lanai.wire import messages

INVENTORY_MOST: Final = 1_000_000
"""A node holds some thousands; what is listed is held here until the last of it has come."""
FACTS: Final = 20
FACT_CHARACTERS: Final = 200
WHY_CHARACTERS: Final = 500
"""Most that an agent may say of its computer, so that a page of nodes fits an answer."""


class Store(Lines, History, Batches, Attempts, Protocol):
    """What the switchboard reads."""


class Switchboard:
    """Owns the connections. Make it, then `attach` the heart.

    Args:
        hub: the hub's uuid.
        apart: has a question answered by a copy of the hub (see `hub.lengthy`).
        facts: what the hub says of itself.
        stop: makes ready for its end; raises LanaiError to refuse.
        end: ends it.
    """

    def __init__(
        self,
        core: HubCore,
        store: Store,
        *,
        hub: str,
        apart: Callable[[messages.Command, Callable[[], bytes], Callable[[Outcome], None]], None],
        facts: Callable[[], dict[str, Any]],
        stop: Callable[[bool], None],
        end: Callable[[], None],
    ) -> None:
        self.outbox = Outbox()
        self._core = core
        self._store = store
        self._hub = hub
        self._apart = apart
        self._lines = LineSource(store)
        self._streams = Streams(core, store, self._peer_of)
        self._handouts = Handouts(core, self._lines, self._streams, self._peer_of, self._later)
        self._watching = Watching(core, self._streams, self._later)
        self._agents: dict[NodeId, Peer] = {}
        self._joining: dict[int, Peer] = {}
        self._apis: dict[int, Peer] = {}
        self._requests: dict[int, tuple[Peer, int, bool]] = {}
        self._request_numbers = itertools.count(1)
        self._opening: dict[int, tuple[str, str]] = {}
        """(user, key) of batches that are on their way to disk, by request: the store does not know them yet."""
        self._arriving: dict[BatchId, int] = {}
        self._current: Peer | None = None
        self._client_count = 0
        self._facts = facts
        self._stop = stop
        self._end = end
        self._admission = Admission(core.world, lambda event: self.heart.post(event))
        self._heart: Heart | None = None
        self._commands: Commands | None = None

    def attach(self, heart: Heart) -> None:
        """Give it the heart, once, before the first connection."""
        self._heart = heart
        self._commands = Commands(
            self._core,
            self._store,
            post=heart.post,
            apart=self._ask_copy,
            aside=heart.aside,
            afterwards=heart.afterwards,
            answer=lambda request, error: self._answer(do.Answer(request, error=error)),
            expect=self._expect_command,
            facts=self._facts,
            stop=self._stop,
            end=self._end,
            is_full=lambda: heart.is_full,
        )

    @property
    def heart(self) -> Heart:
        """The heart that `attach` gave it."""
        assert self._heart is not None
        return self._heart

    def watchers(self) -> int:
        """How many batches somebody watches right now."""
        return self._watching.count()

    def take_request_count(self) -> int:
        """How many messages came from clients since the last call."""
        count, self._client_count = self._client_count, 0
        return count

    def suspend_leases(self) -> None:
        """Tell every agent that the hub stops on purpose."""
        for peer in self._agents.values():
            peer.send_first(messages.Suspend())
            peer.leave()

    def drain_all(self) -> None:
        """Tell every agent to end once nothing runs."""
        for peer in self._agents.values():
            peer.send_first(messages.Drain(is_draining=True, leave=True))

    # -- from peers

    def admit(self, hello: messages.Hello, address: str) -> TokenId:
        """See `hub.admission`."""
        return self._admission.admit(hello, address)

    def on_hello(self, peer: Peer, hello: messages.Hello) -> None:
        """An agent becomes a node once the core says so; the API process is let in at once."""
        peer.protocol = min(hello.protocol_max, messages.PROTOCOL_MAX)
        if hello.kind == "api":
            self._apis[peer.number] = peer
            peer.send(self._welcome(peer, NodeId(0)))
        elif hello.kind == "agent" and hello.capacity is not None and _is_name(hello.name):
            check_offer(hello, hello.capacity)
            self._joining[peer.number] = peer
            self.heart.post(
                events.NodeJoined(
                    peer.number,
                    hello.name,
                    hashlib.sha256(hello.key.encode()).digest(),
                    hello.boot_id,
                    hello.capacity,
                    hello.features,
                    hello.started_by,
                    wall_us(),
                    hello.version[:100],
                    tuple((name[:50], text[:FACT_CHARACTERS]) for name, text in hello.facts[:FACTS]),
                    peer.token,
                    peer.protocol >= messages.CLAIMS_PROTOCOL,
                )
            )
        else:
            raise UserError(f"this Hello of kind {hello.kind[:20]!r} is not complete, or its name is none")

    def on_message(self, peer: Peer, message: messages.ToHub) -> None:
        """One message; those from an agent that the core has not accepted yet are dropped with it."""
        if peer.kind == "api":
            self._client_count += 1
            self._from_api(peer, message)
        elif peer.node is not None and self._agents.get(peer.node) is peer:
            self._from_agent(peer, peer.node, message)

    def on_lost(self, peer: Peer) -> None:
        """A connection ended."""
        self._joining.pop(peer.number, None)
        if self._apis.pop(peer.number, None) is not None:
            self._lose_api(peer)
        elif peer.node is not None and self._agents.get(peer.node) is peer:
            del self._agents[peer.node]
            self._streams.lost_node(peer.node)
            self.heart.post(events.NodeDisconnected(peer.node, peer.number))

    def _lose_api(self, peer: Peer) -> None:
        self._streams.lost_asker(peer)
        for batch in [batch for batch, owner in self._arriving.items() if owner == peer.number]:
            del self._arriving[batch]
            self.heart.post(events.BatchAbandoned(batch))
        self._watching.lost(peer)
        # A batch that is being opened is still to get its number, under which it is abandoned then.
        self._requests = {number: who for number, who in self._requests.items() if who[0] is not peer or who[2]}

    # -- agents

    def _from_agent(self, peer: Peer, node: NodeId, message: messages.ToHub) -> None:
        post = self.heart.post
        match message:
            case messages.Ended():
                post(events.AttemptsEnded(node, message.upto, message.results, wall_us()))
            case messages.Heartbeat():
                peer.send_first(messages.Beat(message.number, wall_us()))
                post(events.NodeHeard(node, message.trouble[:1000], wall_us(), message.escaped))
            case messages.Started():
                post(events.AttemptsStarted(node, message.items))
            case messages.Returned():
                post(events.JobsReturned(node, message.items, message.why[:WHY_CHARACTERS]))
            case messages.Inventory():
                peer.inventory += message.items
                if len(peer.inventory) > INVENTORY_MOST:
                    peer.drop_for(f"its inventory has more than {INVENTORY_MOST} attempts")
                elif message.is_last:
                    items = [(GrantId(grant), Index(index), state) for grant, index, state in peer.inventory]
                    peer.inventory = []
                    self._streams.took_stock(node, items)
                    post(events.NodeTookStock(node, items, tuple(message.claims)))
            case messages.Claimed():
                post(events.RoomClaimed(node, message.grants))
            case messages.Tail():
                self._keep_tail(node, message)
            case messages.Output():
                if not self._streams.output(node, message):
                    peer.drop_for("it sent more of an output than there was room for")
            case messages.InputTaken():
                if self._streams.has_given(node, message.batch):
                    for api in self._apis.values():
                        api.send(message)
            case _:
                peer.drop_for(f"it sent {type(message).__name__}")

    def _keep_tail(self, node: NodeId, message: messages.Tail) -> None:
        self.heart.post(
            events.TailArrived(
                SaveTail(
                    message.batch,
                    message.index,
                    message.attempt,
                    message.is_failed,
                    message.out,
                    message.err,
                    message.out_bytes,
                    message.err_bytes,
                    node,
                )
            )
        )

    # -- the API process

    def _from_api(self, peer: Peer, message: messages.ToHub) -> None:
        match message:
            case messages.Command():
                self._current = peer
                answer = self._commands.take(message) if self._commands else None
                if answer is not None:
                    peer.send(answer)
            case messages.Noted():
                noted = message.after, message.is_refused, message.why, message.left_out
                self.heart.post(events.Noted(message.caller, message.action, message.subject, wall_us(), *noted))
            case messages.Chunk():
                self._take_chunk(peer, message)
            case messages.Open():
                self._open(peer, message)
            case messages.Close():
                number = self._expect(peer, message.request, is_open=False)
                self._arriving.pop(message.batch, None)
                whole = message.batch, message.total, message.digest, wall_us()
                caller = message.caller if message.caller.user else None
                self.heart.post(events.BatchClosed(number, *whole, caller))
            case messages.Abandon():
                if self._arriving.pop(message.batch, None) is not None:
                    self.heart.post(events.BatchAbandoned(message.batch))
            case messages.Watch():
                self._watching.watch(peer, message)
            case messages.Follow():
                self._streams.follow(peer, message)
            case messages.Credit():
                self._streams.credit(peer, message)
            case messages.Unfetch():
                self._streams.unfollow(peer, message.stream)
            case messages.Input():
                self._streams.give_input(peer, message)
            case _:
                peer.drop_for(f"it sent {type(message).__name__}")

    def _open(self, peer: Peer, message: messages.Open) -> None:
        if self.heart.is_full:
            error = StoreFull("the hub's disk is full", hint="make room where it keeps its state, then submit again")
            peer.send(messages.Reply(message.request, error=error.body()))
            return
        name = message.user, message.key
        known = self._store.key(*name) if message.key else None
        if known is not None:
            batch, digest = known
            peer.send(messages.Opened(message.request, batch, known=True, digest=digest))
            return
        if message.key and name in self._opening.values():
            refusal = Refusal(
                f"another submission with key {message.key!r} has begun at this moment",
                code="key_arriving",
                hint="try again in a moment",
            )
            peer.send(messages.Reply(message.request, error=refusal.body()))
            return
        blob = msgspec.msgpack.encode(dict(sorted(message.env.items())))
        number = self._expect(peer, message.request, is_open=True)
        self._opening[number] = name
        self.heart.post(
            events.BatchOpened(
                number,
                message.user,
                message.key,
                message.settings,
                hashlib.sha256(blob).digest(),
                blob,
                wall_us(),
            )
        )

    def _take_chunk(self, peer: Peer, message: messages.Chunk) -> None:
        if self._arriving.get(message.batch) != peer.number:
            return
        self.heart.post(
            events.ChunkArrived(
                peer.number,
                message.batch,
                message.first,
                message.count,
                tuple(message.runs),
                tuple(message.shapes),
                message.lines,
                message.checks,
            )
        )

    def _expect(self, peer: Peer, request: int, *, is_open: bool) -> int:
        number = next(self._request_numbers)
        self._requests[number] = peer, request, is_open
        return number

    def _expect_command(self, command: messages.Command) -> int:
        assert self._current is not None
        return self._expect(self._current, command.request, is_open=False)

    # -- effects

    def perform(self, effect: do.Effect) -> None:
        """Carry out one effect."""
        match effect:
            case do.StartAttempts():
                self._handouts.start(effect)
            case do.ForgetResults():
                self._handouts.forget(effect)
            case do.BatchMoved():
                self._batch_moved(effect)
            case do.RecallJobs():
                self._to_node(effect.node, messages.Recall(effect.items))
            case do.KillAttempts():
                self._to_node(effect.node, messages.Kill(effect.items, effect.grace_us, effect.why))
            case do.ClaimRoom() | do.UnclaimRoom():
                self._handouts.claim(effect)
            case do.AckChunk():
                api = self._apis.get(effect.connection)
                if api is not None:
                    api.send(messages.ChunkTaken(effect.batch, effect.first))
            case do.Answer():
                self._answer(effect)
            case do.AcceptNode():
                self._accept(effect)
            case do.RejectNode():
                self._reject(effect.connection, effect.error)
            case do.DrainNode():
                self._to_node(effect.node, messages.Drain(effect.is_draining))
            case do.LookForOld() | do.TokensChanged() | do.EndHub():
                self._perform_here(effect)
            case do.DismissNode():
                self._dismiss(effect.node)
            case _:
                raise AssertionError(f"cannot perform {type(effect).__name__}")

    def _dismiss(self, node: NodeId) -> None:
        peer = self._agents.pop(node, None)
        if peer is not None:
            self._streams.lost_node(node)
            peer.leave()

    def _perform_here(self, effect: do.LookForOld | do.TokensChanged | do.EndHub) -> None:
        """What is about the hub itself."""
        match effect:
            case do.LookForOld():
                batch, has_rows = self._store.old(effect.ended_before_us, effect.told_before_us)
                self.heart.post(events.OldFound(batch, has_rows, effect.told_before_us))
            case do.TokensChanged():
                self._tokens_changed(effect)
            case do.EndHub():
                self._end()

    def _accept(self, effect: do.AcceptNode) -> None:
        peer = self._joining.pop(effect.connection, None)
        if peer is None:  # it ended before it was welcomed
            self.heart.post(events.NodeDisconnected(effect.node, effect.connection))
            return
        peer.node = effect.node
        self._handouts.begin_connection(effect.node)
        self._streams.lost_node(effect.node)  # of a connection that has ended unnoticed
        self._agents[effect.node] = peer
        peer.send(self._welcome(peer, effect.node))

    def _tokens_changed(self, effect: do.TokensChanged) -> None:
        """The API process looks again before it answers anybody. Agents that came in by what is gone have to go."""
        for api in self._apis.values():
            api.send(messages.TokensChanged())
        for peer in (*self._joining.values(), *self._agents.values()):
            if peer.token in effect.gone:
                peer.drop_for(f"its token {peer.token} is good no longer")

    def _reject(self, connection: int, error: ErrorBody) -> None:
        peer = self._joining.pop(connection, None)
        if peer is not None:
            peer.refuse(error)

    def _answer(self, effect: do.Answer) -> None:
        self._opening.pop(effect.request, None)
        found = self._requests.pop(effect.request, None)
        if found is None:
            return
        peer, request, is_open = found
        if effect.error is not None:
            peer.send(messages.Reply(request, error=effect.error))
        elif is_open:
            batch = BatchId(int(str((effect.result or {})["batch"])))
            if peer.number in self._apis:
                self._arriving[batch] = peer.number
                peer.send(messages.Opened(request, batch))
            else:
                self.heart.post(events.BatchAbandoned(batch))
        else:
            peer.send(reply(request, effect.result))

    def _ask_copy(self, command: messages.Command, work: Callable[[], bytes]) -> None:
        number = self._expect_command(command)
        self._apart(command, work, lambda outcome: self._answer_of_copy(number, outcome))

    def _answer_of_copy(self, number: int, outcome: Outcome) -> None:
        found = self._requests.pop(number, None)
        if found is None:
            return
        peer, request, _ = found
        if isinstance(outcome, bytes):
            peer.send(msgspec.msgpack.decode(outcome, type=messages.Reply))
        else:
            peer.send(messages.Reply(request, error=outcome.body()))

    def _batch_moved(self, effect: do.BatchMoved) -> None:
        if effect.has_ended:
            self._streams.batch_moved(effect.batch, has_ended=True)
            self._lines.forget(effect.batch)
            self._handouts.forget_specs(effect.batch, self._agents.values())
            self._watching.ended(effect.batch)
        else:
            self._watching.moved(effect.batch)

    # -- within

    def _peer_of(self, node: int) -> Peer | None:
        return self._agents.get(NodeId(node))

    def _later(self, wait_s: float, call: Callable[[], None]) -> None:
        self.heart.later(wait_s, call)

    def _to_node(self, node: NodeId, message: messages.Message) -> None:
        peer = self._agents.get(node)
        if peer is not None:
            peer.send(message)

    def _welcome(self, peer: Peer, node: NodeId) -> messages.Welcome:
        world = self._core.world
        return messages.Welcome(
            peer.protocol,
            lanai.__version__,
            self._hub,
            world.epoch,
            node,
            world.lease_us,
            world.heartbeat_us,
            wall_us(),
        )


def _is_name(name: str) -> bool:
    """Whether a node can be called that: it is shown on a line, and kept for ever."""
    return 0 < len(name) <= NAME_CHARACTERS and name.isprintable()
