"""What nodes are told of their work: grants, the specs that these name, claims, and which results they may forget.

It decides nothing: the core says what goes to whom, and here it is put so that the node understands it and is told no
more often than it needs. A spec is sent once on each connection, before the first grant that names it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from lanai.core import effects as do
from lanai.core.hub import HubCore
from lanai.hub.lines import LineSource
from lanai.hub.peers import Peer
from lanai.hub.streams import Streams
from lanai.model.ids import BatchId, NodeId, ShapeId
from lanai.wire import messages

FORGET_S: Final = 0.25


class Handouts:
    """What was told to all nodes together.

    Args:
        peer_of: the connection of a node, or None where it has none.
        later: calls back after so many seconds.
    """

    def __init__(
        self,
        core: HubCore,
        lines: LineSource,
        streams: Streams,
        peer_of: Callable[[int], Peer | None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._core = core
        self._lines = lines
        self._streams = streams
        self._peer_of = peer_of
        self._later = later
        self._forgettable: dict[NodeId, int] = {}
        """How far nodes may forget their results and were not told yet."""
        self._is_forgetting = False
        self._specs: dict[tuple[BatchId, ShapeId], int] = {}
        self._spec_numbers = itertools.count(1)

    def begin_connection(self, node: NodeId) -> None:
        """It counts on its own: what it still has, it sends again."""
        self._forgettable.pop(node, None)

    def start(self, effect: do.StartAttempts) -> None:
        """Send a grant, and the spec that it names where the node has not got that."""
        peer = self._peer_of(effect.node)
        if peer is None:
            return  # it will say so in its inventory, and be granted again
        spec = self._spec(peer, effect)
        if spec is None:
            return
        self._tell_forgettable(effect.node)
        peer.send_as_read(self._grants(effect, spec))
        self._streams.granted(effect.node, effect.grant, effect.batch, effect.spans)

    def claim(self, effect: do.ClaimRoom | do.UnclaimRoom) -> None:
        """An agent that does not know the words gets none of them: it would drop the connection."""
        peer = self._peer_of(effect.node)
        if peer is None or peer.protocol < messages.CLAIMS_PROTOCOL:
            return
        if isinstance(effect, do.ClaimRoom):
            peer.send(messages.Claim(effect.grant, effect.shape))
        else:
            peer.send(messages.Unclaim(effect.grants))

    def _grants(self, effect: do.StartAttempts, spec: int) -> Iterator[messages.Grant]:
        """The grant in as many messages as it takes. Lines are read when a message is asked for."""
        about, nodes = (effect.grant, spec, effect.attempt), self._names(effect)
        for piece in self._lines.pieces(effect.batch, effect.spans):
            yield messages.Grant(*about, piece.ranges, piece.lines, piece.checks, nodes)

    def _names(self, effect: do.StartAttempts) -> tuple[str, ...]:
        """Of all nodes of a job over several, the first one first; none where it has one."""
        known = self._core.world.nodes
        return tuple(known[node].name for node in (effect.node, *effect.others)) if effect.others else ()

    def forget(self, effect: do.ForgetResults) -> None:
        """While a node has more to do this can wait for its next grant, or a moment: every frame wakes both ends."""
        node = self._core.world.nodes.get(effect.node)
        if not self._is_forgetting:
            self._is_forgetting = True
            self._later(FORGET_S, self._tell_all_forgettable)
        self._forgettable[effect.node] = max(effect.upto, self._forgettable.get(effect.node, 0))
        if node is None or not node.grants:
            self._tell_forgettable(effect.node)

    def _tell_all_forgettable(self) -> None:
        self._is_forgetting = False
        for node in list(self._forgettable):
            self._tell_forgettable(node)

    def _tell_forgettable(self, node: NodeId) -> None:
        upto = self._forgettable.pop(node, None)
        if upto is not None and (peer := self._peer_of(node)) is not None:
            peer.send(messages.Forget(upto))

    def _spec(self, peer: Peer, effect: do.StartAttempts) -> int | None:
        number = self._specs.get((effect.batch, effect.shape))
        if number is not None and number in peer.specs:
            return number
        batch = self._core.world.batches.get(effect.batch)
        if batch is None:
            return None  # it has ended meanwhile
        if number is None:
            number = self._specs[effect.batch, effect.shape] = next(self._spec_numbers)
        settings = batch.settings
        peer.specs.add(number)
        peer.send(
            messages.Spec(
                number,
                batch.id,
                batch.user,
                self._lines.env(batch.env),
                settings.cwd,
                settings.umask,
                settings.output,
                settings.error,
                settings.shell,
                batch.shapes[effect.shape],
                settings.grace_us,
                settings.stdin,
            )
        )
        return number

    def forget_specs(self, batch: BatchId, agents: Iterable[Peer]) -> None:
        """The batch has ended: those of the agents that know its specs may forget them."""
        gone = {self._specs.pop(key) for key in [key for key in self._specs if key[0] == batch]}
        for peer in agents:
            if known := peer.specs & gone:
                peer.specs -= known
                peer.send(messages.Unspec(sorted(known)))
