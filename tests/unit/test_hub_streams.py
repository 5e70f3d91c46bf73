"""Where input goes, and what whoever gives it is told: nothing is kept here, so everything has to be said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lanai.core.hub import HubCore
from lanai.hub.peers import Peer
from lanai.hub.streams import Attempts, Streams
from lanai.model.ids import BatchId, Index
from lanai.wire.messages import Input, InputState, InputTaken

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
        self.world = SimpleNamespace(grants={})
        self.has_ended = False
        core = SimpleNamespace(world=self.world, standing=lambda batch: None if self.has_ended else object())
        self.streams = Streams(cast(HubCore, core), cast(Attempts, None), self._peer_of)

    def _peer_of(self, node: int) -> Peer | None:
        assert node == NODE
        return cast(Peer, self.agent) if self.is_connected else None

    def grant(self, attempt: int) -> None:
        batch, node = SimpleNamespace(id=7), SimpleNamespace(id=NODE)
        self.world.grants = {1: SimpleNamespace(batch=batch, node=node, members=[1], attempt=attempt)}

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
