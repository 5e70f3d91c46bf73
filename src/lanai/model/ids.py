"""The names of things, as distinct types, so that a job's index cannot be passed for a batch."""

from __future__ import annotations

from typing import NewType

BatchId = NewType("BatchId", int)
"""Counted by the hub from 1; 63 bits; gaps are allowed."""

Index = NewType("Index", int)
"""A job's number within its batch, from 1."""

NodeId = NewType("NodeId", int)
"""Counted by the hub in the order of joining, from 1."""

GrantId = NewType("GrantId", int)
"""64 bits: the hub's epoch << 40 | a counter. (grant, index) fences one attempt."""

ShapeId = NewType("ShapeId", int)
"""Counted from 0 within one batch."""

TokenId = NewType("TokenId", int)
"""Counted by the hub in the order of creation, from 1."""

GRANT_COUNTER_BITS = 40


def grant_id(epoch: int, counter: int) -> GrantId:
    """The id of the `counter`-th grant of `epoch`."""
    return GrantId(epoch << GRANT_COUNTER_BITS | counter)


def grant_epoch(grant: GrantId) -> int:
    """The hub's epoch in which `grant` was made."""
    return grant >> GRANT_COUNTER_BITS
