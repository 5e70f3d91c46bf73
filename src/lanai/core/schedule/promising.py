"""What a pass promises to the lines whose heads find no room, spread over its calls.

A call makes promises until it has looked at as much as it may (`Effort`). Then it wants to be called again: until then
what it has not come to stays promised as before, and what it has found is not looked for once more. So no call is long,
however many lines are promised something, and each comes at least one line further.

Under `conservative` every line has a promise, and all of them outlast the pass. Each is bettered in its turn, where
there is a sooner time by now; of these a pass looks at as many as its first call may, and the next pass at others.
"""

from __future__ import annotations

from lanai.core.batches import Batch
from lanai.core.recall import recall_surplus
from lanai.core.schedule.agenda import Exhausted
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import has_rules
from lanai.core.schedule.preempt import keep_room
from lanai.core.schedule.promises import keep, lift_all, promise, renew
from lanai.core.world import Promise, World
from lanai.model.ids import NodeId
from lanai.model.vector import Vector


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
        self._is_first_call = not world.renewed
        self._is_all_bettered = True
        self._vectors: set[Vector] | None = None
        self._before = lift_all(world, but=left if self._is_lasting else ())
        self.has_steps = bool(world.promises) or any(live.nodes for live in world.reservations.values())
        """Something is kept for somebody."""
        if self._is_lasting:
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
            elif line in world.renewed:
                del self._before[line]  # there is no time for it any more

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
        is_found = line not in world.renewed and self._find(batch, line, before)
        if before is not None and not is_found:
            keep(world, batch, before, estimate_us(world, line))

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

    def _find(self, batch: Batch, line: Line, before: Promise | None) -> bool:
        """Look for a time for the head of the line. False where it is to keep what it was promised before, if anything.
        """
        world = self._world
        is_lasting = before is not None and self._is_lasting
        if is_lasting and (line in world.bettered or not self._is_first_call):
            self._is_all_bettered = self._is_all_bettered and line in world.bettered
            return False
        try:
            found = promise(world, batch, line, estimate_us(world, line), before)
        except Exhausted:
            self._is_all_bettered = False
            self.is_exhausted = self.is_exhausted or not is_lasting
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
        self._world.renewed.clear()
        self._world.is_renewing = False
        if self._is_all_bettered:
            self._world.bettered.clear()
