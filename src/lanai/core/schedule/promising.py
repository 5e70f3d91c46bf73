"""What a pass promises to the lines whose heads find no room, spread over its calls.

A call makes promises until it has looked at as much as it may (`Effort`). Then it wants to be called again: until then
what it has not come to stays promised as before, and what it has found is not looked for once more. So no call is long,
however many lines are promised something, and each comes at least one line further.

Under `conservative` every line has a promise, and all of them outlast the pass. A call looks at some lines, and the
next one at others. Each promise is bettered in its turn, where there is a sooner time by now: in a pass so many as one
call may look for, in the next pass others. Where one cannot be kept, all are made anew (`renew`).
"""

from __future__ import annotations

from typing import Final

from lanai.core.batches import Batch
from lanai.core.nodes import NEVER_US
from lanai.core.recall import recall_surplus
from lanai.core.schedule.agenda import Effort, Exhausted
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import has_rules
from lanai.core.schedule.preempt import keep_room
from lanai.core.schedule.promises import keep, lift_all, promise, renew, stands
from lanai.core.world import SECOND_US, Promise, World
from lanai.model.ids import NodeId
from lanai.model.vector import Vector

RENEWALS_APART_US: Final = SECOND_US
"""Promises that outlast the pass are all made anew no sooner than this after the last time."""


class Promising:
    """The promises of one call. Those of the last pass are lifted, but for such as outlast it.

    Args:
        world: what there is.
        left: how many jobs of each line may still start, which the pass counts down.
        asked: nodes that have been asked for their surplus by this pass.
    """

    def __init__(self, world: World, left: dict[Line, int], asked: set[NodeId]) -> None:
        self.is_exhausted = False
        """To find out what can be promised takes more than one call may do."""
        self._world = world
        self._left = left
        self._asked = asked
        self._is_lasting = world.policy.backfill == "conservative"
        if not world.renewed:  # this is the first call of the pass
            world.to_better = world.effort.left
        self._vectors: set[Vector] | None = None
        self._before = lift_all(world, but=left if self._is_lasting else ())
        self.has_steps = bool(world.promises) or any(live.nodes for live in world.reservations.values())
        """Something is kept for somebody."""
        if self._is_lasting and world.is_renewing:
            self._renew()

    def _renew(self) -> None:
        world = self._world
        lasting = list(world.promises)
        try:
            renew(world)
        except Exhausted:
            self.is_exhausted = True
        for line in lasting:
            if line in world.promises:
                self._before[line] = world.promises[line]
            elif line in world.renewed or not self.is_exhausted:
                del self._before[line]  # there is no time for it any more

    def is_done_with(self, line: Line) -> bool:
        """Whether an earlier call of the pass has looked at the line, which has a promise that outlasts the pass."""
        return self._is_lasting and line in self._world.renewed

    def had(self, line: Line) -> bool:
        """Whether one of the line was promised something by the last pass, or by an earlier call of this one."""
        return line in self._before

    def before(self, line: Line) -> Promise | None:
        """What the head of the line was promised then. What was promised one that has started is nobody's."""
        return self._before.get(line) if self._left[line] == line.waiting.count else None

    def forget(self, line: Line) -> None:
        """Others make way for it, or did until now: it was promised no time that it could keep."""
        self._before.pop(line, None)
        self._world.renewed.discard(line)

    def make(self, batch: Batch, line: Line) -> None:
        """Promise the head of the line, which finds no room now, the earliest time there is, if others could take it.

        Where this call may not look for that any more, it is exhausted.
        """
        world, before = self._world, self.before(line)
        self._before.pop(line, None)
        if not self._is_at_risk(line):
            return
        self.has_steps = True
        if before is not None and self._is_lasting:
            self._keep_or_better(batch, line, before)
        elif (line in world.renewed or not self._find(batch, line, before)) and before is not None:
            keep(world, batch, before, estimate_us(world, line))
        if self._is_lasting:
            world.effort.spend(Effort.PER_LINE)
            self.is_exhausted = self.is_exhausted or world.effort.left <= 0

    def _is_at_risk(self, line: Line) -> bool:
        """Whether others could take what the line waits for; else its turn comes as room does.

        That is so where it needs several nodes, where another line waits that asks for less of anything, where
        something is reserved, and where it may not be on a node beside others.
        """
        if line.shape.nodes > 1 or self.has_steps or has_rules(self._world):
            return True
        if self._vectors is None:
            self._vectors = {other.vector for other in self._left}
        guard = self._world.layout.guard
        return any((vector - line.vector) & guard for vector in self._vectors)

    def _keep_or_better(self, batch: Batch, line: Line, before: Promise) -> None:
        """The line has a promise that outlasts the pass: see whether it can be kept, and whether there is a better one.

        If it cannot, the next call begins to make all of them anew.
        """
        world, length_us = self._world, estimate_us(self._world, line)
        can_be_kept = stands(world, batch, before, length_us)
        if can_be_kept and line not in world.bettered and world.to_better > 0:
            left = world.effort.left
            is_found = self._find(batch, line, before)
            world.to_better -= left - world.effort.left
            if is_found:
                return
        keep(world, batch, before, length_us)
        world.renewed.add(line)
        if not can_be_kept and world.now_us >= world.renewal_due_us:
            world.is_renewing, world.renewal_due_us = True, NEVER_US
            world.renewed.clear()
            self.is_exhausted = True

    def _find(self, batch: Batch, line: Line, before: Promise | None) -> bool:
        """Look for a time for the head of the line. False where this call may not: what it had it is to keep."""
        world = self._world
        try:
            found = promise(world, batch, line, estimate_us(world, line), before)
        except Exhausted:
            self.is_exhausted = self.is_exhausted or before is None or not self._is_lasting
            return False
        world.bettered.add(line)
        if found is not None and (before is None or before.nodes != found.nodes):
            for node in found.nodes:
                recall_surplus(world, node, batch, self._asked)
        return True

    def keep_rest(self) -> None:
        """The pass goes on in the next call; until then what it has not come to yet is promised as before."""
        world = self._world
        for line, before in self._before.items():
            batch = world.batches.get(line.batch)
            if batch is None or not self._left.get(line) or line in world.promises or self.before(line) is None:
                continue
            if line in world.giving:
                keep_room(world, batch, line, estimate_us(world, line))
            else:
                keep(world, batch, before, estimate_us(world, line))

    def end(self) -> None:
        """The pass has come to its end: the next one finds out anew what can be promised."""
        world = self._world
        world.renewed.clear()
        world.is_renewing = False
        if not self._is_lasting or world.promises.keys() <= world.bettered:
            world.bettered.clear()
        if world.renewal_due_us == NEVER_US:
            world.renewal_due_us = world.now_us + RENEWALS_APART_US
