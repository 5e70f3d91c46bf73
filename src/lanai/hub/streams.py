"""Outputs that somebody follows and inputs that somebody sends: relayed between the API process and the agents.

The hub holds none of it. Credit goes from the reader through to the agent, which sends no more than it was given; so a
reader that stops reading stops his own agent's stream and nothing else.

The core knows of a grant before it is on disk, and so before its node does. A node that is asked for the output of an
attempt of which it was not told takes it for one that wrote nothing; so a stream waits until the grant has been sent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from lanai.core.hub import HubCore
from lanai.core.nodes import Grant
from lanai.hub.peers import Peer
from lanai.model.ids import BatchId, GrantId, Index, NodeId
from lanai.wire import messages

TOLD_AT_LEAST: Final = 100
"""So many grants that are over may be remembered of each node, and as many as it holds."""


GIVEN_TO_MOST: Final = 10_000


class Attempts(Protocol):
    """Where ended attempts are looked up."""

    def node_of(self, batch: BatchId, index: Index, attempt: int) -> tuple[int, int, GrantId] | None: ...


class _Stream(msgspec.Struct):
    asker: Peer
    asked: messages.Follow
    node: int = 0
    number: int = 0
    room_bytes: int = 0


class Streams:
    """All streams under way.

    Args:
        peer_of: the connection of a node, or None where it has none.
    """

    def __init__(self, core: HubCore, attempts: Attempts, peer_of: Callable[[int], Peer | None]) -> None:
        self._core = core
        self._attempts = attempts
        self._peer_of = peer_of
        self._numbers = itertools.count(1)
        self._by_asker: dict[tuple[int, int], _Stream] = {}
        self._by_number: dict[int, _Stream] = {}
        self._waiting: dict[BatchId, list[_Stream]] = {}
        self._told: dict[int, dict[GrantId, set[Index] | None]] = {}
        """What each node knows of on its present connection: the members it said it has; None where all were sent."""
        self._given: dict[BatchId, tuple[Peer, int, messages.Input]] = {}
        """Of batches that are given input: who gives it, the node it went to, and the last piece without its bytes."""

        self._given_to: dict[BatchId, NodeId] = {}
        """The node it went to: what that says of it may come after the batch has ended. The oldest is forgotten."""

    # -- from the API process

    def follow(self, asker: Peer, asked: messages.Follow) -> None:
        """Open a stream: at once where the attempt is known, else when the job begins one."""
        stream = self._by_asker[asker.number, asked.stream] = _Stream(asker, asked)
        if not self._begin(stream):
            if asked.follow and self._core.standing(asked.batch) is not None:
                self._waiting.setdefault(asked.batch, []).append(stream)
            else:
                self._end(stream, "it has no attempt")

    def credit(self, asker: Peer, message: messages.Credit) -> None:
        """The reader has room for more."""
        stream = self._by_asker.get((asker.number, message.stream))
        if stream is None:
            return
        if stream.number and (agent := self._peer_of(stream.node)) is not None:
            stream.room_bytes += message.count
            agent.send(messages.Credit(stream.number, message.count))

    def unfollow(self, asker: Peer, number: int) -> None:
        """The reader is gone."""
        stream = self._by_asker.get((asker.number, number))
        if stream is None:
            return
        self._drop(stream)
        if stream.number and (agent := self._peer_of(stream.node)) is not None:
            agent.send(messages.Unfetch(stream.number))

    def give_input(self, asker: Peer, message: messages.Input) -> None:
        """Pass bytes on to where the attempt runs; the API keeps what has not been taken and sends it again."""
        grant = self._grant_of(message.batch, message.index)
        if grant is None:
            if self._core.standing(message.batch) is None:
                asker.send(_not_taken(message, "the job has ended", messages.InputState.OVER))
            else:
                asker.send(_not_taken(message, "the job has not begun", messages.InputState.WAITING))
        elif 0 < message.attempt < grant.attempt:
            asker.send(_not_taken(message, f"attempt {message.attempt} has ended", messages.InputState.OVER))
        elif message.attempt > grant.attempt:
            asker.send(_not_taken(message, "the attempt has not begun", messages.InputState.WAITING))
        elif (agent := self._peer_of(grant.node.id)) is None:
            asker.send(_not_taken(message, "its node is not connected", messages.InputState.WAITING))
        else:
            self._given[message.batch] = asker, grant.node.id, msgspec.structs.replace(message, data=b"")
            self._note_given(message.batch, grant.node.id)
            agent.send(message)

    def lost_asker(self, asker: Peer) -> None:
        """The API process is gone; its streams end at the agents too."""
        for key in [key for key in self._by_asker if key[0] == asker.number]:
            self.unfollow(asker, key[1])
        self._given = {batch: given for batch, given in self._given.items() if given[0] is not asker}

    # -- from agents

    def output(self, node: NodeId, message: messages.Output) -> bool:
        """Pass a piece on to its reader, where it was asked of that node.

        Returns:
            Whether it may: False where the reader has no room for so much, which is not passed on.
        """
        stream = self._by_number.get(message.stream)
        if stream is None or stream.node != node:
            return True
        stream.room_bytes -= len(message.data)
        if stream.room_bytes < 0:
            return False
        stream.asker.send(msgspec.structs.replace(message, stream=stream.asked.stream))
        if message.is_end:
            self._drop(stream)
        return True

    def has_given(self, node: NodeId, batch: BatchId) -> bool:
        """Whether it was that node that the batch's last piece of input went to."""
        return self._given_to.get(batch) == node

    def took_stock(self, node: int, items: Iterable[tuple[GrantId, Index, str]]) -> None:
        """The node has said what it has."""
        told = self._told.setdefault(node, {})
        for grant, index, _ in items:
            members = told.setdefault(grant, set())
            if members is not None:
                members.add(index)

    def lost_node(self, node: int) -> None:
        """The node's connection ended: its streams end with a word that says so, and input is to be sent again."""
        self._told.pop(node, None)
        for stream in [stream for stream in self._by_number.values() if stream.node == node]:
            self._end(stream, "the connection to its node is lost; try again when it is back")
        for asker, _, piece in [given for given in self._given.values() if given[1] == node]:
            del self._given[piece.batch]
            asker.send(_not_taken(piece, "its node is not connected", messages.InputState.WAITING))

    # -- from the core

    def awaits(self, batch: BatchId) -> bool:
        """Whether a stream waits for a job of this batch to begin."""
        return batch in self._waiting

    def granted(self, node: int, grant: GrantId, batch: BatchId, spans: tuple[tuple[int, int], ...]) -> None:
        """The node has been sent what it did not have of a grant: streams that wait for one of these jobs begin."""
        self._told.setdefault(node, {})[grant] = None
        self._forget_told(node)
        for stream in list(self._waiting.get(batch, ())):
            if any(first <= stream.asked.index <= last for first, last in spans) and self._begin(stream):
                self._wait_no_more(stream)

    def batch_moved(self, batch: BatchId, *, has_ended: bool) -> None:
        """Jobs may have begun: streams that wait for one look again. Costs by the grants of all batches."""
        if has_ended:
            self._given.pop(batch, None)
        waiting = self._waiting.pop(batch, None)
        if not waiting:
            return
        left = [stream for stream in waiting if not self._begin(stream)]
        if has_ended:
            for stream in left:
                self._end(stream, "it ended without an attempt")
        elif left:
            self._waiting[batch] = left

    # -- within

    def _begin(self, stream: _Stream) -> bool:
        asked = stream.asked
        found = self._find(asked)
        if found is None:
            return False
        node, attempt = found
        agent = self._peer_of(node)
        if agent is None:
            self._end(stream, "its node is away; only the end of the output is kept here")
            return True
        stream.node, stream.number, stream.room_bytes = node, next(self._numbers), asked.credit
        self._by_number[stream.number] = stream
        agent.send(
            messages.Fetch(
                stream.number, asked.batch, asked.index, attempt, asked.which, asked.offset, asked.follow, asked.credit
            )
        )
        return True

    def _find(self, asked: messages.Follow) -> tuple[int, int] | None:
        for grant in self._core.world.grants.values():
            if grant.batch.id == asked.batch and asked.index in grant.members and asked.attempt in (0, grant.attempt):
                return (grant.node.id, grant.attempt) if self._is_told(grant, asked.index) else None
        standing = self._core.standing(asked.batch)
        ended = self._attempts.node_of(asked.batch, asked.index, asked.attempt)
        if ended is None or (standing is not None and asked.follow and not asked.attempt and self._waits(asked)):
            return None
        return ended[0], ended[1]

    def _is_told(self, grant: Grant, index: Index) -> bool:
        """Whether its node knows of the attempt, or is away, which is said at once."""
        members = self._told.get(grant.node.id, {}).get(grant.id, ())
        return members is None or index in members or self._peer_of(grant.node.id) is None

    def _forget_told(self, node: int) -> None:
        told, held = self._told[node], self._core.world.nodes[NodeId(node)].grants
        if len(told) > TOLD_AT_LEAST + 2 * len(held):
            self._told[node] = {grant: members for grant, members in told.items() if grant in held}

    def _waits(self, asked: messages.Follow) -> bool:
        """Whether a further attempt of the job is still to come."""
        batch = self._core.world.batches.get(asked.batch)
        return batch is not None and batch.is_pending(asked.index)

    def _grant_of(self, batch: BatchId, index: Index) -> Grant | None:
        grants = self._core.world.grants.values()
        return next((one for one in grants if one.batch.id == batch and index in one.members), None)

    def _note_given(self, batch: BatchId, node: NodeId) -> None:
        self._given_to.pop(batch, None)
        self._given_to[batch] = node
        if len(self._given_to) > GIVEN_TO_MOST:
            del self._given_to[next(iter(self._given_to))]

    def _end(self, stream: _Stream, problem: str) -> None:
        stream.asker.send(messages.Output(stream.asked.stream, stream.asked.which or 1, 0, b"", True, problem))
        self._drop(stream)

    def _drop(self, stream: _Stream) -> None:
        self._by_asker.pop((stream.asker.number, stream.asked.stream), None)
        self._by_number.pop(stream.number, None)
        self._wait_no_more(stream)

    def _wait_no_more(self, stream: _Stream) -> None:
        waiting = self._waiting.get(stream.asked.batch, [])
        if stream in waiting:
            waiting.remove(stream)
            if not waiting:
                del self._waiting[stream.asked.batch]


def _not_taken(piece: messages.Input, problem: str, state: messages.InputState) -> messages.InputTaken:
    return messages.InputTaken(piece.batch, piece.index, piece.offset, problem, piece.attempt, state)
