"""The pass: start what can be started, promise what cannot, say why it waits, and leave tickets until the next pass.

1. Heads of lines are looked at in the order of the preset (`heads`). One that fits is started (`placing`), and the next
   of its line takes its place. A line whose head finds no room is done for this pass; the first `depth` of them are
   promised a time (`promises`). Who was the first of these in `fair` is looked at before all others from then on.
2. Once so many promises are held, the rest is *backfill*: it is looked at in backfill order and starts where it fits
   beside the promises. Who is at a soft limit is put aside, and tried under the hard one where that leaves room.
   Promises are made anew in each pass. Under `conservative`, where every line has one, they stay, and each is only
   bettered in its turn, so that none is put off unless what was expected does not come true.
3. For each kind of node tickets say who is looked at first when an attempt ends there (`tickets`).

A pass costs by the number of lines, never of jobs. It stops after `MOST_STARTS` starts or `TOLD_MOST` new reasons, and
where promises, or nodes that have changed, are more than a call may look at anew, and asks to be called again: so no
call is long whatever the queue.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from lanai.core import dates, explain, reservations
from lanai.core.batches import Batch
from lanai.core.nodes import Node
from lanai.core.recall import make_way, nodes_with_surplus
from lanai.core.schedule import access, bans, heads, limits, tickets
from lanai.core.schedule.agenda import Effort
from lanai.core.schedule.considered import Considered
from lanai.core.schedule.estimate import LATE_US, estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.schedule.placing import find, has_rules, is_plain, most_and_able
from lanai.core.schedule.preempt import Preemption
from lanai.core.schedule.promises import look_ahead
from lanai.core.schedule.promising import Promising
from lanai.core.schedule.refusals import Refusal, Refusals
from lanai.core.schedule.shares import price, weigh_users
from lanai.core.world import World
from lanai.model.ids import BatchId, NodeId
from lanai.model.vector import Vector

MOST_STARTS: Final = 256
"""So much a pass starts, a job over several nodes counting once for each."""
TOLD_MOST: Final = 500
"""So many lines a pass tells why they wait that have not been told before: it takes as long as to pass over many."""
LOOKED_AT_MOST: Final = 5000
"""What `Effort` a pass may take to find out when nodes have room."""
LOOKED_AHEAD_MOST: Final = 2000
"""The same for promises of later passes."""


def decide(world: World) -> bool:
    """One pass. True when it came to its end, False when it wants to be called again at once."""
    bans.lift_vain_bans(world)
    world.effort.begin(LOOKED_AT_MOST)
    sweep = look(world)
    world.effort.begin(Effort.UNLIMITED)
    sweep.give()
    if sweep.is_over:
        return False
    sweep.promising.end()
    sweep.preemption.end()
    tickets.deal(world, sweep.total, sweep.considered)
    if world.promises:
        world.effort.begin(LOOKED_AHEAD_MOST)
        look_ahead(world)
        world.effort.begin(Effort.UNLIMITED)
    return not (sweep.has_released or sweep.considered.has_others)


def look(world: World) -> Sweep:
    """Look at all lines. What starts is booked on the nodes and not granted: that, or undoing it, is the caller's."""
    explain.forget_reasons(world)
    dates.note(world)
    out = reservations.note(world)
    total = world.total
    price(world.batches.values(), total)
    waiting, left = _startable(world, out)
    weigh_users(waiting)
    sweep = Sweep(world, waiting, left, total)
    sweep.run()
    return sweep


def _startable(world: World, out: frozenset[BatchId]) -> tuple[list[Batch], dict[Line, int]]:
    """The batches of which something may start, but for those in `out`, and how many jobs of each of their lines."""
    waiting: list[Batch] = []
    left: dict[Line, int] = {}
    for batch in world.batches.values():
        if batch.is_open and batch.id not in out:
            before = len(left)
            for line in batch.lines.values():
                if count := line.waiting.count:
                    left[line] = count
            if len(left) > before:
                waiting.append(batch)
    return waiting, left


class Booked(NamedTuple):
    """So many jobs of a line that have room on these nodes."""

    nodes: tuple[Node, ...]
    line: Line
    jobs: int


class Sweep:
    """One pass over the heads of lines. What it starts is booked on the nodes at once, and granted by `give`."""

    def __init__(self, world: World, waiting: list[Batch], left: dict[Line, int], total: Vector) -> None:
        self.starts = 0
        """Attempts that were started, times the nodes of each."""
        self.has_released = False
        """What was kept of a limit is others' now: they are to be looked at once more."""
        self.total = total
        self.considered = Considered(world)
        self.preemption = Preemption(world)
        self._asked: set[NodeId] = set()
        self.promising = Promising(world, left, self._asked)
        self._world = world
        self._left = left
        self._order = heads.in_order(world, waiting, self._left, total)
        self._depth = heads.depth(world)
        self._is_free = not has_rules(world)
        """Nothing but room says who may be on a node together."""
        self._held = 0
        self._owed: Line | None = None
        """The one that was looked at before others."""
        self._told = 0
        """Lines that were told for the first time why they wait."""
        self._is_blocked = False
        """There is no backfill and somebody waits: what is left is nobody's, also of those at a soft limit only."""
        self._refusals = Refusals(world)
        self._at_hand: tuple[Node, ...] = ()
        """The node on which the last one started, if the next may follow it there; its cell has it where it was."""
        self._alike: tuple[Vector, frozenset[str]] = (0, frozenset())
        """What those ask for who may."""
        self._begun: list[tuple[tuple[Node, ...], Line]] = []
        """Of each start its nodes and its line."""
        self._aside: list[tuple[Batch, Line]] = []
        self._stacked: list[Node] | None = None

    def run(self) -> None:
        """Look at all lines, or at as many as a pass may start jobs of."""
        if not self.is_over:
            self._look_at_owed()
        while not (self.is_over or self._is_blocked) and (each := self._order.next()) is not None:
            batch, line = each
            if not self._left[line] or self.promising.is_done_with(line):
                self._order.done()
                continue
            if line is self._owed:
                self._order.done()
                if self._held >= self._depth:
                    self._backfill()
                    break
                continue
            if not self._is_allowed(batch, line, hard=False):
                self._order.done()
                self._put_aside(batch, line)
                continue
            if self._start(batch, line):
                self._order.started()
                continue
            self._order.done()
            has_way = self._makes_way(batch, line)
            if not self._depth:
                self._block_rest(line)
                self._owe(line)
                break
            if self._held < self._depth and self._could_start(batch, line):
                self._held += 1
                if not has_way:
                    self._promise(batch, line)
                    self._owe(line)
            if self._held >= self._depth:
                self._backfill()
                break
        self._try_those_aside()
        self._put_down()
        if self.is_over:
            self.promising.keep_rest()

    @property
    def is_over(self) -> bool:
        """It has done what one call may do: it wants to be called again."""
        return self.promising.is_exhausted or self.starts >= MOST_STARTS or self._told >= TOLD_MOST

    def booked(self) -> list[Booked]:
        """What was booked, in the order in which it was begun; of each line the first is the first of these."""
        return [Booked(nodes, line, count) for (nodes, line), count in Counter(self._begun).items()]

    def give(self) -> None:
        """Grant what was booked."""
        for (nodes, line), count in Counter(self._begun).items():
            for node in nodes:
                node.booked.clear()
            if line.shape.nodes == 1:
                self._world.give(nodes[0], line, line.waiting.take(count), is_urgent=True, is_booked=True)
            else:
                self._give_wide(nodes, line, count)

    def _give_wide(self, nodes: tuple[Node, ...], line: Line, count: int) -> None:
        """Each of these jobs has a grant of its own, which claims the room that is booked so far."""
        world = self._world
        for node in nodes:
            node.vacate(line, count, world.layout.guard)
        for first, last in line.waiting.take(count):
            for index in range(first, last + 1):
                world.give_wide(list(nodes), line, (index, index))

    # -- steps

    def _look_at_owed(self) -> None:
        """Whose turn has come keeps what he was promised until he has it, whoever's turn it is now.

        Else one who asks for much could lose it again and again to others whose turn comes before room does.
        """
        world = self._world
        line = world.owed
        batch = world.batches.get(line.batch) if line is not None else None
        if line is None or batch is None or not self._left.get(line) or world.policy.preset != "fair":
            world.owed = None
            return
        if world.policy.services and self._has_above(heads.tier(world, batch)):
            return
        world.owed = None
        if not self._is_allowed(batch, line, hard=False) or self._start(batch, line):
            return
        self._owed = line
        has_way = self._makes_way(batch, line)
        if not self._depth:
            self._block_rest(line)
        elif not has_way:
            self._promise(batch, line)
        self._held += 1
        self._owe(line)

    def _has_above(self, tier: int) -> bool:
        """Whether somebody waits of a higher tier whom no limit holds: who is owed goes before all others only."""
        world = self._world
        return any(
            heads.tier(world, world.batches[line.batch]) > tier and limits.room(world, line, hard=False) > 0
            for line in self._left
        )

    def _owe(self, line: Line) -> None:
        """The line's turn came when there was no room: if nobody else is, it is owed some."""
        world = self._world
        if world.owed is not None or world.policy.preset != "fair" or world.policy.backfill == "conservative":
            return
        # What this call could not find out how to promise him the next one is to.
        if line in world.promises or not self._depth or self.promising.is_exhausted:
            world.owed = line

    def _backfill(self) -> None:
        world = self._world
        is_by_length = world.policy.backfill_order == "shortest"
        rest = self._order.unsorted() if is_by_length else self._order.rest()
        rest = [each for each in rest if not self._refusals.is_vain(*each) and each[1] is not self._owed]
        if is_by_length:
            rest = heads.by_length(world, rest)
        if any(service.is_preemptor for service in world.policy.services.values()):
            # Who may end attempts of others comes before those: else they would begin only to be ended.
            rest.sort(key=lambda each: not world.policy.service(each[0].settings.service).is_preemptor)
        for batch, line in rest:
            if not self.promising.had(line) and self._refusals.is_as_before(batch, line):
                continue
            service = world.policy.service(batch.settings.service)
            if service.may_backfill:
                is_allowed = self._start_all(batch, line, hard=False)
            else:
                is_allowed = self._is_allowed(batch, line, hard=False)
            if self.is_over:
                return
            if self._left[line] and not is_allowed:
                self._put_aside(batch, line)
            elif self._left[line]:
                has_way = service.may_backfill and self._makes_way(batch, line)
                if not service.may_backfill:
                    explain.is_not_backfilled(world, batch, line)
                if service.reserves_always and not has_way:
                    self._promise(batch, line)

    def _block_rest(self, first: Line) -> None:
        """There is no backfill: the first that finds no room blocks all behind it."""
        self._is_blocked = True
        for batch, line in self._order.rest():
            if line is first or not self._left[line]:
                continue
            if self._is_allowed(batch, line, hard=False):
                explain.is_behind(self._world, line, first)
            else:
                explain.limit_reached(self._world, line, self.considered)

    def _try_those_aside(self) -> None:
        """Within the soft limits nobody else can start: those that only these hold back may have what is left, if any.

        Who finds no room waits for that, whatever his limits: so each of them is told once why he waits.
        """
        for batch, line in self._aside:
            if self.is_over:
                return
            has_no_room = not self._is_blocked and self._start_all(batch, line, hard=True)
            if self._left[line] and not has_no_room:
                explain.limit_reached(self._world, line, self.considered)

    def _start_all(self, batch: Batch, line: Line, *, hard: bool) -> bool:
        """Start the line's jobs until one has no room, or may not. True where it may, if there were room."""
        while not self.is_over and self._left[line]:
            if not self._is_allowed(batch, line, hard=hard):
                return False
            if not self._start(batch, line):
                return True
        return True

    def _put_aside(self, batch: Batch, line: Line) -> None:
        """A limit holds the line: nothing is kept for it. Where that is a soft one only, it may be tried once more."""
        if line in self._world.promises:
            self._world.lift(self._world.promises.pop(line))
        if self._is_allowed(batch, line, hard=True):
            self._aside.append((batch, line))
            return
        explain.limit_reached(self._world, line, self.considered)
        if self._could_start(batch, line):
            limits.keep(self._world, line)
        else:
            self._release(line)

    def _could_start(self, batch: Batch, line: Line) -> bool:
        """Whether the line could start but for a hard limit and what is busy, as far as cells alone tell.

        What a limit leaves, and room, are kept for such a line only: else that is others' loss and nobody's gain.
        """
        if batch.room() < 1 or not self._is_considered(line, hard=True):
            return False
        return most_and_able(self._world, line)[1] >= line.shape.nodes

    def _release(self, line: Line) -> None:
        """Nothing of a limit is kept for the line any more. Those that were looked at before have not seen that."""
        if limits.release(self._world, line):
            self.has_released = True

    def _start(self, batch: Batch, line: Line) -> bool:
        """Start the head of the line, which no limit holds, if it has room; else say why not."""
        world = self._world
        if self._follows(batch, line):
            self._book(self._at_hand, batch, line)
            return True
        self._put_down()
        if line in world.promises:
            world.lift(world.promises.pop(line))
        length_us = estimate_us(world, line)
        might_use = access.open_to(world, line)
        asked = Refusal(line.vector, length_us, line.shape.nodes, line.features, might_use)
        has_own = self.promising.had(line)  # what others are refused may be kept for it, or be enough for what is left
        if not has_own and self._refusals.are_like(asked):
            self._refuse(batch, line)
            return False
        kept_us = self._kept_us(line, length_us)
        # What it was promised long ago is no leave to be there when the nodes are somebody's by a reservation.
        is_late = kept_us < length_us - LATE_US
        found = find(world, batch, line, kept_us, clear_us=length_us if is_late else 0)
        if found is None:
            if self._is_free and is_plain(batch, line):
                self._refusals.note(asked)
            self._refuse(batch, line)
            return False
        nodes = tuple(found)
        self._book(nodes, batch, line)
        if self._may_be_followed(batch, line):
            self._at_hand, self._alike = nodes, (line.vector, line.features)
        else:
            for node in nodes:
                world.reindex(node)
        return True

    def _book(self, nodes: tuple[Node, ...], batch: Batch, line: Line) -> None:
        """The head of the line starts on these nodes. That their cells know of it is left to the caller."""
        for node in nodes:
            node.occupy(line, 1)
            node.booked.append(line)
        self._begun.append((nodes, line))
        self._world.book(batch, line, 1)
        if batch.queues:
            self.considered.start(line)
        self._left[line] -= 1
        self._world.renewed.discard(line)
        self.starts += len(nodes)

    # -- those that start one behind the other on one node
    #
    # The smallest node that fits is still that once it has less free, if nothing else has changed meanwhile. So it is
    # looked for once for all that ask for the same, and has its new place in its cell when somebody is to look there.

    def _may_be_followed(self, batch: Batch, line: Line) -> bool:
        """Whether the next that asks for the same goes to the node of this one, if it has room there.

        It does where nothing but room says who goes where, and nothing is kept from anybody, however long he runs.
        """
        if not self._is_free or self._world.policy.node_choice != "smallest":
            return False
        is_kept = self.promising.has_steps or bool(self._world.promises)
        return not is_kept and line.shape.nodes == 1 and is_plain(batch, line)

    def _follows(self, batch: Batch, line: Line) -> bool:
        """Whether the head of the line is to start on the node of the one before."""
        if not self._at_hand or (self._at_hand[0].free - line.vector) & self._world.layout.guard:
            return False
        return (line.vector, line.features) == self._alike and line.shape.nodes == 1 and is_plain(batch, line)

    def _put_down(self) -> None:
        """Nobody follows: whoever looks in the cells now has to find there what is true."""
        for node in self._at_hand:
            self._world.reindex(node)
        self._at_hand = ()

    # -- steps, if there is no room

    def _refuse(self, batch: Batch, line: Line) -> None:
        self._told += not line.reason
        if line not in self._world.giving:
            explain.no_room(self._world, batch, line)
            if line.reason != explain.NO_ROOM:
                self._release(line)
        if not batch.has_begun:
            batch.has_begun = True
            if self._stacked is None:
                self._stacked = nodes_with_surplus(self._world)
            make_way(self._world, self._stacked, batch, line.vector, self._asked)

    def _promise(self, batch: Batch, line: Line) -> None:
        """The head of the line has found no room: see to it that it will have some."""
        self._put_down()
        self.promising.make(batch, line)

    def _makes_way(self, batch: Batch, line: Line) -> bool:
        """The head of the line has found no room: whether others make some, which is kept for it as if promised."""
        had_way = line in self._world.giving
        has_way = self.preemption.make_room(batch, line, estimate_us(self._world, line), self._asked)
        if had_way or has_way:
            self.promising.forget(line)
        return has_way

    # -- questions

    def _kept_us(self, line: Line, length_us: int) -> int:
        """For how long the line's head must have room: where its promise is due, to the end of what was kept for it.

        The pass comes a little after the time that was promised, and what is kept for others may begin where that ends.
        Where others make way no time was promised: they may take as long as they like.
        """
        before = self.promising.before(line)
        if before is None or line in self._world.giving:
            return length_us
        return min(length_us, max(1, before.at_us + length_us - self._world.now_us))

    def _is_allowed(self, batch: Batch, line: Line, *, hard: bool) -> bool:
        """Whether limits let one more of the line start."""
        if batch.max_running and batch.room() < 1:
            return False
        if not batch.counters and not batch.queues:
            return True
        return self._is_considered(line, hard=hard) and limits.room(self._world, line, hard=hard) > 0

    def _is_considered(self, line: Line, *, hard: bool) -> bool:
        """Whether the line's head is among the waiting jobs that limits let the pass consider."""
        taken = line.waiting.count - self._left[line]
        is_considered = self.considered.admit(line, line.waiting.count, hard=hard) > taken
        if hard and not is_considered:
            self.considered.refuse(line)
        return is_considered
