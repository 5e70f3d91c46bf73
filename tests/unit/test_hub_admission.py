"""Agents by token: so many new nodes and no more, while those that are known come and go."""

from __future__ import annotations

import hashlib

import pytest

from lanai.core.world import World
from lanai.hub import admission
from lanai.hub.admission import Admission
from lanai.model.access import TokenKind
from lanai.model.errors import TooMany
from lanai.model.ids import NodeId, TokenId
from lanai.model.records import SaveToken
from lanai.wire.messages import Hello


def hello(name: str, token: str) -> Hello:
    return Hello("agent", 1, 1, "test", token, name)


def test_one_token_makes_no_nodes_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "NEW_NODES", 2)
    world = World(epoch=1, lease_us=1)
    for number, secret in ((1, "one"), (2, "other")):
        digest = hashlib.sha256(secret.encode()).digest()
        world.token_of[digest] = SaveToken(TokenId(number), TokenKind.AGENT, "ann", digest, 1)
    door = Admission(world, lambda event: None)
    assert [door.admit(hello(name, "one"), "address") for name in ("a", "b")] == [1, 1]
    with pytest.raises(TooMany) as refused:
        door.admit(hello("c", "one"), "address")
    assert (refused.value.code, refused.value.retry) == ("too_many_nodes", "after:10")
    world.names["a"] = NodeId(1)
    assert door.admit(hello("a", "one"), "address") == 1
    assert door.admit(hello("c", "other"), "address") == 2
