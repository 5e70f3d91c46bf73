"""A node in the core, and the grants that it holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from lanai.core.batches import Batch
from lanai.core.queue import spans_of
from lanai.core.schedule.lines import Line
from lanai.model.ids import GrantId, Index, NodeId, TokenId
from lanai.model.node import TRANSITIONS, NodeState
from lanai.model.records import SaveGrant, SaveNode
from lanai.model.resources import Capacity
from lanai.model.vector import Vector, fit_count

PASSED_AT_MOST: Final = 8
"""Past so many that do not fit into what has become free, nobody looks for smaller ones."""
NEVER_US: Final = 1 << 62


class Step(NamedTuple):
    """An amount of a node that is kept from others for a time, by the hub's clock.

    `owner` is whose it is: a line that has been promised it, or a reservation. `admits` says which other lines may have
    it all the same.
    """

    begin_us: int
    end_us: int
    vector: Vector
    owner: object
    admits: Callable[[Line], bool]
    inside: Callable[[Line], bool] | None = None
    """Attempts of which lines on the node have their room out of `vector`; None: nobody's."""


class Grant(msgspec.Struct, eq=False):
    """Leave given to a node. Members leave it as they end or come back; without members it is gone.

    A grant for a job over several nodes has one member, which `node` runs, and the same room on each of `others`. It is
    sent when none of these is `awaited` any more.

    `was_stacked`: its members were sent to wait there for room, so when they began is not known from the grant.
    """

    id: GrantId
    node: Node
    batch: Batch
    line: Line
    attempt: int
    members: set[Index]
    granted_at_us: int
    was_stacked: bool = False
    started: dict[Index, int] = {}
    is_adopted: bool = False
    """An earlier hub process gave it: `granted_at_us` is when this one found it."""
    others: tuple[Node, ...] = ()
    awaited: frozenset[NodeId] = frozenset()
    """Of `others`, those that have not said yet that the room is theirs to give."""
    is_withheld: bool = False
    """It was asked back before it was sent, and so is never sent."""
    broken: str = ""
    """Why its attempt is to end before its time: one of `others` was lost. Empty: it is whole."""

    def record(self) -> SaveGrant:
        """The grant as a record, with the members it has now."""
        others = tuple(node.id for node in self.others)
        about = self.id, self.node.id, self.batch.id, self.attempt
        return SaveGrant(*about, spans_of(self.members), others, self.broken)

    def withhold(self) -> None:
        """It is asked back. What has not been sent until now is not sent, lest the answer is overtaken by it."""
        self.is_withheld = self.is_withheld or bool(self.awaited)


class Node:
    """What the hub believes of a node.

    Attempts at a node are *active*, which take room, or *surplus*, which wait at the agent for room. The agent decides
    which is which; the counts here follow its rule, the first that fits, in the order in which they were sent.
    """

    def __init__(self, node: NodeId, name: str, key_hash: bytes) -> None:
        self.id = node
        self.name = name
        self.key_hash = key_hash
        self.boot_id = ""
        self.state = NodeState.AWAY
        self.is_drained = False
        self.capacity = Capacity(cpu_milli=0, memory_bytes=0)
        self.total: Vector = 0
        self.free: Vector = 0
        self.features: tuple[str, ...] = ()
        self.started_by = ""
        self.version = ""
        """Of the agent's program; like `facts` and `escaped` not known until it has joined this hub process."""
        self.facts: tuple[tuple[str, str], ...] = ()
        self.escaped = 0
        self.trouble = ""
        self.token = TokenId(0)
        """By which it joined last, as far as this hub process knows."""
        self.connection = 0
        self.joined_at_us = 0
        self.seen_at_us = 0
        self.heard_us = 0
        """By the hub's own clock."""
        self.ended_us = 0
        """When an attempt ended here last, by the same."""
        self.is_in_step = False
        """It has taken stock on this connection, so that grants may be sent."""
        self.is_expected = False
        """It was there when the hub process before this one ended, and is about to join this one."""
        self.grants: dict[GrantId, Grant] = {}
        self.claims: dict[GrantId, Grant] = {}
        """Of attempts that other nodes run: they have room here."""
        self.takes_claims = True
        """Its agent knows what a claim is."""
        self.active: dict[Line, int] = {}
        self.surplus: dict[Line, int] = {}
        self.surplus_count = 0
        self._stacked: deque[tuple[Line, int]] = deque()
        """The surplus in the order in which it was sent."""
        self.changes = 0
        """How often what takes room here has changed; with it goes"""
        self.ends: list[tuple[int, Vector]] = []
        self.ends_as_of = -1
        """what `schedule.future` remembers of when that is expected to end."""
        self.booked: list[Line] = []
        """The line of each attempt that this pass has started here and not granted yet."""
        self.steps: list[Step] = []
        self.until_us = NEVER_US
        """When the first of the steps begins: what is over by then is not touched by any."""

    def become(self, state: NodeState) -> None:
        """Change its state as the table of `model/node.py` allows; to stay what it is is no change."""
        assert state is self.state or state in TRANSITIONS[self.state], (self.name, self.state, state)
        self.state = state

    def is_open(self) -> bool:
        """New attempts may be sent."""
        return self.is_in_step and self.state is NodeState.UP and not self.is_drained and not self.trouble

    def is_returning(self) -> bool:
        """It will be open, as far as is known, once it has joined a hub that has just been started."""
        return self.is_expected and not self.is_drained

    def occupy(self, line: Line, count: int) -> None:
        """`count` attempts of the line take room."""
        self.changes += 1
        self.free -= line.vector * count
        self.active[line] = self.active.get(line, 0) + count
        line.book(count, 0)

    def claim(self, grant: Grant) -> None:
        """An attempt that another node runs takes room here too. Its line is charged for it as for one more."""
        self.claims[grant.id] = grant
        self.changes += 1
        self.free -= grant.line.vector
        grant.line.book(1, 0)

    def unclaim(self, grant: Grant, guard: int) -> None:
        """That attempt is over; surplus moves up into the room. Harmless where it has none."""
        if self.claims.pop(grant.id, None) is not None:
            self.changes += 1
            self.free += grant.line.vector
            grant.line.book(-1, 0)
            if self.surplus_count:
                self._move_up(guard)

    def stack(self, line: Line, count: int) -> None:
        """`count` attempts of the line wait at the agent."""
        self.surplus[line] = self.surplus.get(line, 0) + count
        self.surplus_count += count
        if self._stacked and self._stacked[-1][0] is line:
            self._stacked[-1] = line, self._stacked[-1][1] + count
        else:
            self._stacked.append((line, count))
        line.book(0, count)

    def vacate(self, line: Line, count: int, guard: int) -> None:
        """`count` attempts of the line are no longer there; surplus ones move up into the room."""
        active = min(count, self.active.get(line, 0))
        if active:
            self.changes += 1
            self.free += line.vector * active
            _lower(self.active, line, active)
            line.book(-active, 0)
        if count > active:
            self._unstack(line, count - active)
            self._stacked = _without(self._stacked, line, count - active)
        if active and self.surplus_count:
            self._move_up(guard)

    def withdraw(self, line: Line, count: int, guard: int) -> None:
        """`count` attempts of the line never began: surplus goes first."""
        waiting = min(count, self.surplus.get(line, 0))
        if waiting:
            self._unstack(line, waiting)
            self._stacked.reverse()
            self._stacked = _without(self._stacked, line, waiting)
            self._stacked.reverse()
        if count > waiting:
            self.vacate(line, count - waiting, guard)

    def clear(self) -> None:
        """None of its own attempts is there any more. Claims end with those whose they are."""
        for line, count in self.active.items():
            line.book(-count, 0)
        for line, count in self.surplus.items():
            line.book(0, -count)
        self.grants.clear()
        self.active.clear()
        self.surplus.clear()
        self._stacked.clear()
        self.surplus_count = 0
        self.changes += 1
        self.free = self.total - sum(grant.line.vector for grant in self.claims.values())

    def lay(self, *steps: Step) -> None:
        """Keep amounts of the node from others for a time each, the first to begin first."""
        if steps:
            self.steps += steps
            self.until_us = min(self.until_us, steps[0].begin_us)

    def lift(self, owner: object) -> None:
        """What was kept for this owner is no longer."""
        self.put_steps([step for step in self.steps if step.owner is not owner])

    def put_steps(self, steps: list[Step]) -> None:
        """This is what is kept of the node from now on."""
        self.steps = steps
        self.until_us = min((step.begin_us for step in steps), default=NEVER_US)

    def record(self) -> SaveNode:
        """The node as a record."""
        return SaveNode(
            self.id,
            self.name,
            self.key_hash,
            self.boot_id,
            str(self.state),
            self.is_drained,
            self.capacity,
            self.features,
            self.started_by,
            self.joined_at_us,
            self.seen_at_us,
        )

    def _unstack(self, line: Line, count: int) -> None:
        _lower(self.surplus, line, count)
        self.surplus_count -= count
        line.book(0, -count)

    def _move_up(self, guard: int) -> None:
        passed: list[tuple[Line, int]] = []
        while self._stacked:
            line, waiting = self._stacked.popleft()
            count = fit_count(self.free, line.vector, guard, waiting)
            if count:
                self._unstack(line, count)
                self.occupy(line, count)
            if count < waiting:
                passed.append((line, waiting - count))
                if len(passed) >= PASSED_AT_MOST:
                    break
        self._stacked.extendleft(reversed(passed))


def _without(stacked: deque[tuple[Line, int]], line: Line, count: int) -> deque[tuple[Line, int]]:
    """The same without the first `count` of the line."""
    left: deque[tuple[Line, int]] = deque()
    for other, waiting in stacked:
        if other is line and count:
            gone = min(count, waiting)
            count, waiting = count - gone, waiting - gone
        if waiting:
            left.append((other, waiting))
    return left


def _lower(counts: dict[Line, int], line: Line, by: int) -> None:
    left = counts[line] - by
    if left:
        counts[line] = left
    else:
        del counts[line]
