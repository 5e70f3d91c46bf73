"""Where outputs come from and where input goes: nothing is kept here, so everything has to be said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lanai.core.hub import HubCore
from lanai.hub.peers import Peer
from lanai.hub.streams import TOLD_AT_LEAST, Attempts, Streams
from lanai.model.ids import BatchId, GrantId, Index
from lanai.wire.messages import Fetch, Follow, Input, InputState, InputTaken, Output

NODE = 3


class Far:
    """A connection that keeps what was sent on it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def take(self) -> list[Any]:
        taken, self.sent = self.sent, []
        return taken


class Hub:
    """Streams over a core with one batch, 7, of one job; `grant` puts an attempt of it at the node."""

    def __init__(self) -> None:
        self.api = Far(1)
        self.agent = Far(2)
        self.is_connected = True
        self.node = SimpleNamespace(id=NODE, grants={})
        self.world = SimpleNamespace(grants={}, nodes={NODE: self.node}, batches={})
        self.has_ended = False
        core = SimpleNamespace(world=self.world, standing=lambda batch: None if self.has_ended else object())
        attempts = SimpleNamespace(node_of=lambda batch, index, attempt: self.ended)
        self.ended: tuple[int, int, int] | None = None
        self.streams = Streams(cast(HubCore, core), cast(Attempts, attempts), self._peer_of)

    def _peer_of(self, node: int) -> Peer | None:
        assert node == NODE
        return cast(Peer, self.agent) if self.is_connected else None

    def grant(self, attempt: int) -> None:
        grant = SimpleNamespace(id=attempt, batch=SimpleNamespace(id=7), node=self.node, members=[1], attempt=attempt)
        self.world.grants = self.node.grants = {attempt: grant}

    def send_grant(self, attempt: int) -> None:
        """What was granted is on disk, and on its way to the node."""
        self.agent.send(f"attempt {attempt}")
        self.streams.granted(NODE, GrantId(attempt), BatchId(7), ((1, 1),))

    def follow(self, attempt: int, *, is_following: bool = True) -> None:
        self.streams.follow(cast(Peer, self.api), Follow(5, BatchId(7), Index(1), attempt, 1, 0, is_following, 100))

    def fetched(self) -> list[object]:
        """What the node was sent: of a Fetch the attempt."""
        return [one.attempt if isinstance(one, Fetch) else one for one in self.agent.take()]

    def give(self, attempt: int = 1, offset: int = 10) -> Input:
        piece = Input(BatchId(7), Index(1), offset, b"abc", False, attempt)
        self.streams.give_input(cast(Peer, self.api), piece)
        return piece

    def told(self) -> list[tuple[int, int, InputState]]:
        """(offset, attempt, state) of all that the API was told, each with a reason."""
        taken: list[InputTaken] = self.api.take()
        assert all(one.problem for one in taken)
        return [(one.offset, one.attempt, one.state) for one in taken]


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_piece_goes_to_the_node_of_its_attempt_as_it_is(hub: Hub, attempt: int) -> None:
    hub.grant(1)
    piece = hub.give(attempt)
    assert (hub.agent.take(), hub.told()) == ([piece], [])


def test_who_gives_input_too_early_is_to_wait(hub: Hub) -> None:
    """After a start of the hub the job may be running at a node that is not connected yet."""
    hub.give()
    assert hub.told() == [(10, 1, InputState.WAITING)]
    hub.grant(1)
    hub.is_connected = False
    hub.give()
    assert hub.told() == [(10, 1, InputState.WAITING)]
    hub.is_connected = True
    hub.give(attempt=2)
    assert hub.told() == [(10, 2, InputState.WAITING)]
    assert hub.agent.take() == []


def test_input_of_what_is_over_is_refused(hub: Hub) -> None:
    """A further attempt has to be given its input from the beginning, not what comes next."""
    hub.grant(2)
    hub.give(attempt=1)
    assert hub.told() == [(10, 1, InputState.OVER)]
    hub.world.grants = {}
    hub.has_ended = True
    hub.give(attempt=2)
    assert hub.told() == [(10, 2, InputState.OVER)]
    assert hub.agent.take() == []


def test_where_the_node_is_lost_the_last_piece_is_asked_for_again_once(hub: Hub) -> None:
    hub.grant(1)
    hub.give(offset=0)
    hub.give(offset=3)
    hub.streams.lost_node(NODE + 1)
    assert hub.told() == []
    hub.streams.lost_node(NODE)
    assert hub.told() == [(3, 1, InputState.WAITING)]
    hub.streams.lost_node(NODE)
    assert hub.told() == []


def test_nobody_is_asked_for_input_of_an_ended_batch_or_of_an_api_process_that_is_gone(hub: Hub) -> None:
    hub.grant(1)
    hub.give()
    hub.streams.batch_moved(BatchId(7), has_ended=True)
    hub.streams.lost_node(NODE)
    hub.give()
    hub.streams.lost_asker(cast(Peer, hub.api))
    hub.streams.lost_node(NODE)
    assert hub.told() == []


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_node_is_asked_for_the_output_of_an_attempt_after_it_was_sent_it(hub: Hub, attempt: int) -> None:
    """Asked before, while the grant was on its way to disk, it answered that nothing was written, and all was lost."""
    hub.ended = NODE, 1, 1
    hub.grant(2)
    hub.follow(attempt)
    hub.streams.batch_moved(BatchId(7), has_ended=False)
    assert (hub.fetched(), hub.api.take()) == ([], [])
    hub.send_grant(2)
    assert hub.fetched() == ["attempt 2", 2]
    assert not hub.streams.awaits(BatchId(7))
    hub.follow(attempt)
    assert hub.fetched() == [2]


def test_who_does_not_follow_is_told_that_there_is_nothing_yet(hub: Hub) -> None:
    hub.grant(1)
    hub.follow(1, is_following=False)
    assert hub.api.take() == [Output(5, 1, 0, b"", True, "it has no attempt")]
    assert hub.fetched() == []


def test_after_a_new_connection_a_node_is_asked_for_what_it_has_or_is_sent_again(hub: Hub) -> None:
    """The grant may have been lost on the way; what is there, is not sent again."""
    hub.grant(1)
    hub.send_grant(1)
    hub.streams.lost_node(NODE)
    hub.agent.take()
    hub.follow(1)
    assert hub.fetched() == []
    hub.streams.took_stock(NODE, [(GrantId(1), Index(2), "running")])
    hub.streams.batch_moved(BatchId(7), has_ended=False)
    assert hub.fetched() == []
    hub.streams.took_stock(NODE, [(GrantId(1), Index(1), "running")])
    hub.streams.batch_moved(BatchId(7), has_ended=False)
    assert hub.fetched() == [1]


def test_a_stream_whose_node_is_away_does_not_wait(hub: Hub) -> None:
    hub.grant(1)
    hub.is_connected = False
    hub.follow(1)
    assert [(one.is_end, "away" in one.problem) for one in hub.api.take()] == [(True, True)]


def test_of_grants_that_are_over_few_are_remembered(hub: Hub) -> None:
    """A node is sent millions of them on one connection."""
    for attempt in range(1, 1000):
        hub.grant(attempt)
        hub.send_grant(attempt)
        assert len(hub.streams._told[NODE]) <= TOLD_AT_LEAST + 3
    hub.agent.take()
    hub.follow(999)
    assert hub.fetched() == [999]
