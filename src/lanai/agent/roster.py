"""What was granted to this node, what of it the starter holds, and what is free. The order of starting lives here.

A part of the machine: pure bookkeeping with one owner. It says what the starter is to be given and never whether
anything may start at all; it knows neither the hub nor the spool.

Theory of operation. Grants stand in the order in which they came. `fill` goes through them once and starts the first
that fits, again and again. The unit of "fits" is a lane: its width is how many of it may run at once, and is charged to
the node's free amounts; it shrinks as soon as the starter holds fewer. The starter gets a surplus over the width, so
that short jobs follow each other without asking, but only from grants that nothing older waits in front of: the order
stays the hub's. A claim, room for an attempt that another node runs, stands among the grants. While it waits, nothing
behind it starts: what it waits for has begun, or stands in front of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from typing import Final

from lanai.agent import events as ev
from lanai.agent.events import Effect, Item, Member
from lanai.agent.lanes import Claim, Gpus, Granted, Lane, is_same_lane
from lanai.agent.spool import Handed
from lanai.model.ids import GrantId, Index
from lanai.model.resources import Capacity, Shape
from lanai.model.vector import Layout
from lanai.wire import messages as wire

FINISHED_JOBS: Final = 1 << 16
"""Of how many jobs of finished grants is remembered, at least, that they were here."""

NAMELESS: Final = "-"
"""Whose a job is that comes without a user, where each has his own starter. It is no user's name, and so is refused."""

IDLE_LANE_US: Final = 30_000_000
ALL: Final = (0, 1 << 62)
NOBODY: Final = Index(0)
"""No job has this number: it stands for the one of another node that gpus are claimed for."""


class Roster:
    """Grants, lanes and live jobs.

    Attributes:
        live: every job that the starter has, and its lane.
        began: of those, the ones known to run, with the wall time of the start.
        grants: those of which anything is pending or live.
        claims: room for attempts of other nodes, waited for or kept.
        wanted: starters that `fill` missed.
    """

    def __init__(self, capacity: Capacity, first_lane: int, *, serves_users: bool = False) -> None:
        self._layout = Layout()
        self._capacity = self._free = self._layout.capacity(capacity)
        self._gpus = Gpus(capacity.gpus)
        self._next_lane = first_lane
        self._serves_users = serves_users
        self.wanted: set[str] = set()
        self._lanes: dict[int, Lane] = {}
        self._specs: dict[int, Lane] = {}
        self._queue: deque[Granted | Claim] = deque()
        self._finished: dict[GrantId, Granted] = {}
        self._finished_jobs = 0
        self._idle_since: dict[Lane, int] = {}
        self._resized: dict[Lane, None] = {}
        self.grants: dict[GrantId, Granted] = {}
        self.claims: dict[GrantId, Claim] = {}
        self.live: dict[Member, Lane] = {}
        self.began: dict[Member, int] = {}

    @property
    def running(self) -> int:
        """How many jobs run, as far as is known here."""
        return sum(min(lane.width, lane.held) for lane in self._lanes.values())

    @property
    def waiting(self) -> int:
        """How many have not begun, as far as is known here."""
        return self.pending + len(self.live) - self.running

    @property
    def pending(self) -> int:
        """How many the starter was not given yet."""
        return sum(len(grant.pending) for grant in self._waiting())

    def inventory(self) -> list[tuple[GrantId, Index, str]]:
        """Every job here: (grant, index, `waiting` or `running`)."""
        items: list[tuple[GrantId, Index, str]] = [
            (grant.grant, item.index, "waiting") for grant in self.grants.values() for item in grant.pending
        ]
        return items + [(*member, "running" if member in self.began else "waiting") for member in self.live]

    def has_reserve(self, for_us: int) -> bool:
        """Whether every lane that runs anything has enough in line at the starter to go on for so long."""
        busy = [lane for lane in self._lanes.values() if lane.held]
        return bool(busy) and all((lane.held - lane.width) * lane.mean_us >= for_us * lane.width for lane in busy)

    # -- grants come and go

    def begin_connection(self, ended: Iterable[Member]) -> None:
        """Specs are numbered anew, and what the hub grants again is new unless it is here, or among `ended`."""
        self._specs.clear()
        self._finished.clear()
        self._finished_jobs = 0
        for grant in self.grants.values():
            grant.known = {item.index for item in grant.pending}
        for number, index in (*self.live, *ended):
            if number in self.grants:
                self.grants[number].known.add(index)

    def name_spec(self, spec: wire.Spec) -> None:
        """Grants of this connection will name this spec by its number."""
        same = (lane for lane in self._lanes.values() if is_same_lane(lane.spec, spec))
        lane = next(same, None)
        if lane is None:
            owner = (spec.user or NAMELESS) if self._serves_users else ""
            lane = self._new_lane(owner, spec, spec.shape.gpu_milli, self._layout.request(spec.shape))
        self._specs[spec.spec] = lane

    def forget_specs(self, numbers: Iterable[int]) -> None:
        """No grant will name these any more; their lanes go once they are idle."""
        for number in numbers:
            self._specs.pop(number, None)

    def has_spec(self, number: int) -> bool:
        """Whether this connection has named it."""
        return number in self._specs

    def can_ever_fit(self, number: int) -> bool:
        """Whether one job of that spec fits into the empty node."""
        return not (self._capacity - self._specs[number].need) & self._layout.guard

    def add(self, message: wire.Grant) -> None:
        """Queue a grant's members that are new; a repeat changes nothing.

        A grant may come in several messages, and what came before may have ended already.
        """
        lane = self._specs[message.spec]
        assert lane.spec is not None
        grant = self.grants.get(message.grant) or self._take_up(message.grant)
        if grant is None:
            grant = self.grants[message.grant] = Granted(message.grant, lane.spec.batch, message.attempt, lane)
        grant.lane = lane
        grant.add(message)
        if grant.pending and not grant.is_queued:
            grant.is_queued = True
            self._queue.append(grant)
        self._settle(grant)

    def withdraw(self, number: GrantId, first: int, last: int) -> list[Member]:
        """Take out the pending members first .. last of a grant."""
        grant = self.grants.get(number)
        if grant is None:
            return []
        taken = grant.withdraw(first, last)
        self._settle(grant)
        return taken

    def withdraw_all(self) -> list[Member]:
        """Take out everything that the starter was not given."""
        return [member for number in list(self.grants) for member in self.withdraw(number, *ALL)]

    def is_known(self, member: Member) -> bool:
        """Whether the member was accepted on this connection, or is here."""
        grant = self.grants.get(member[0]) or self._finished.get(member[0])
        return grant is not None and member[1] in grant.known

    # -- claims

    def claim(self, number: GrantId, shape: Shape) -> bool:
        """Wait for room for an attempt of another node's, behind what was granted; whether it is kept already.

        What would not even fit into the empty node is not waited for, lest it keeps all else waiting: it has no answer.
        """
        known = self.claims.get(number)
        if known is not None:
            return not known.pending
        need = self._layout.request(shape)
        if not (self._capacity - need) & self._layout.guard:
            claim = self.claims[number] = Claim(number, need, shape.gpu_milli)
            self._queue.append(claim)
        return False

    def unclaim(self, numbers: Iterable[GrantId]) -> None:
        """No room is needed for these any more. Those that are not known are left out."""
        for number in numbers:
            claim = self.claims.pop(number, None)
            if claim is None:
                continue
            if claim.pending:
                self._queue.remove(claim)
            else:
                self._free += claim.need
                self._gpus.give_back((number, NOBODY))

    def kept_claims(self) -> list[GrantId]:
        """Those for which there is room."""
        return [number for number, claim in self.claims.items() if not claim.pending]

    def keep_room(self) -> list[GrantId]:
        """Keep room for the claims that now have it, as far as none waits in front of them; those that it was new to.

        For when nothing may begin: then no grant waits here.
        """
        kept: list[GrantId] = []
        for claim in [one for one in self._queue if isinstance(one, Claim)]:
            if not self._keep_room(claim):
                break
            kept.append(claim.grant)
        self._forget_empty()
        return kept

    def _keep_room(self, claim: Claim) -> bool:
        """Whether there is room for it, which is taken then. A claim that has it is out of the queue."""
        if (self._free - claim.need) & self._layout.guard:
            return False
        if claim.gpu_milli and self._gpus.take((claim.grant, NOBODY), claim.gpu_milli) is None:
            return False
        self._free -= claim.need
        claim.pending = False
        return True

    # -- starting

    def fill(self, served: Container[str], out: list[Effect]) -> list[GrantId]:
        """Start the first that fits, in the order of grants, until none does. Those of starters not `served` wait.

        Returns the claims for which there is room since now.
        """
        is_one_waiting = False
        kept: list[GrantId] = []
        self.wanted.clear()
        for grant in self._queue:
            if isinstance(grant, Claim):
                if grant.pending and not self._keep_room(grant):
                    is_one_waiting = True
                    break
                kept.append(grant.grant)
                continue
            if grant.lane.owner not in served:
                if grant.pending:
                    self.wanted.add(grant.lane.owner)
                continue
            if grant.pending and grant.lane.gpu_milli:
                self._start_with_gpus(grant, out)
            elif grant.pending:
                self._start(grant, not is_one_waiting, out)
            is_one_waiting = is_one_waiting or bool(grant.pending)
        if not is_one_waiting or not self._queue[0].pending:
            self._forget_empty()
        return kept

    def resize(self, out: list[Effect]) -> None:
        """Tell the starter of lanes whose width has changed."""
        for lane in self._resized:
            if lane.is_open and lane.width != lane.told_width:
                lane.told_width = lane.width
                out.append(ev.Widen(lane.number, lane.width))
        self._resized.clear()

    def _start(self, grant: Granted, is_first: bool, out: list[Effect]) -> None:
        lane = grant.lane
        pending = len(grant.pending)
        guard, free, need = self._layout.guard, self._free, lane.need
        while lane.width < lane.held + pending and not (free - need) & guard:
            free -= need
            lane.width += 1
        self._free = free
        self._resized[lane] = None
        wanted = lane.width - lane.held
        if is_first:
            surplus = lane.surplus()
            if wanted > 0 or -wanted < surplus // 2:
                wanted += surplus
        if wanted > 0:
            self._hand(grant, [grant.pending.popleft() for _ in range(min(wanted, pending))], out)

    def _start_with_gpus(self, grant: Granted, out: list[Effect]) -> None:
        lane = grant.lane
        items: list[Item] = []
        while grant.pending and not (self._free - lane.need) & self._layout.guard:
            item = grant.pending[0]
            gpus = self._gpus.take((grant.grant, item.index), lane.gpu_milli)
            if gpus is None:
                break
            grant.pending.popleft()
            items.append(Item(item.index, item.line, item.checks, gpus, item.nodes))
            self._free -= lane.need
            lane.width += 1
        if items:
            self._hand(grant, items, out)

    def _hand(self, grant: Granted, items: list[Item], out: list[Effect]) -> None:
        lane = grant.lane
        assert lane.spec is not None
        if not lane.is_open:
            lane.is_open = True
            out.append(ev.OpenLane(lane.number, lane.spec))
        if lane.told_width != lane.width:
            lane.told_width = lane.width
            out.append(ev.Widen(lane.number, lane.width))
        number, live = grant.grant, self.live
        indices = [item.index for item in items]
        for index in indices:
            live[number, index] = lane
        lane.held += len(items)
        grant.live_count += len(items)
        gpus = [item.gpus for item in items] if lane.gpu_milli else []
        handed = Handed(number, grant.batch, grant.attempt, lane.spec.shape, indices, gpus, lane.owner)
        out.append(ev.Hand(lane.number, handed, items))

    def _forget_empty(self) -> None:
        for grant in self._waiting():
            grant.is_queued = bool(grant.pending)
        self._queue = deque(grant for grant in self._queue if grant.pending)

    def _waiting(self) -> Iterator[Granted]:
        return (grant for grant in self._queue if isinstance(grant, Granted))

    # -- what the starter says

    def adopt(self, handed: Handed, members: list[Member]) -> None:
        """Take over what an earlier agent gave to the starter."""
        if not members:
            return
        lane = self._new_lane(handed.owner, None, handed.shape.gpu_milli, self._layout.request(handed.shape))
        lane.held = lane.width = len(members)
        self._free -= lane.need * len(members)
        grant = self.grants.get(handed.grant)
        if grant is None:
            grant = self.grants[handed.grant] = Granted(handed.grant, handed.batch, handed.attempt, lane)
        grant.known.update(index for _, index in members)
        grant.live_count += len(members)
        for member in members:
            self.live[member] = lane
        for index, gpus in zip(handed.indices, handed.gpus, strict=False):
            if (handed.grant, index) in self.live:
                self._gpus.hold((handed.grant, index), gpus, handed.shape.gpu_milli)

    def drop(self, members: Iterable[Member]) -> None:
        """These are no longer at the starter; what they took is free."""
        touched: dict[Lane, None] = {}
        live, began, grants = self.live, self.began, self.grants
        for member in members:
            lane = live.pop(member)
            lane.held -= 1
            touched[lane] = None
            if began:
                began.pop(member, None)
            if lane.gpu_milli:
                self._gpus.give_back(member)
            grant = grants[member[0]]
            grant.live_count -= 1
            if not grant.live_count:
                self._settle(grant)
        for lane in touched:
            if lane.held < lane.width:
                self._free += lane.need * (lane.width - lane.held)
                lane.width = lane.held
                self._resized[lane] = None
            if lane.spec is None and not lane.held:
                del self._lanes[lane.number]

    def not_begun(self) -> list[Member]:
        """Live jobs that may not have begun: those of lanes of which the starter holds more than may run at once."""
        return [member for member, lane in self.live.items() if lane.held > lane.width and member not in self.began]

    def forget_starter(self, owner: str) -> None:
        """The owner's next starter knows no lane."""
        for lane in self._lanes.values():
            if lane.owner == owner:
                lane.is_open = False
                lane.told_width = 0

    def at_starter(self, owner: str) -> list[Member]:
        """What that starter has."""
        return [member for member, lane in self.live.items() if lane.owner == owner]

    def withdraw_from(self, owner: str) -> list[Member]:
        """Take out everything that is pending for that starter."""
        grants = [number for number, grant in self.grants.items() if grant.lane.owner == owner]
        return [member for number in grants for member in self.withdraw(number, *ALL)]

    def withdraw_alike(self, lanes: Container[Lane]) -> list[Member]:
        """Take out everything that is pending for these lanes."""
        grants = [number for number, grant in self.grants.items() if grant.lane in lanes]
        return [member for number in grants for member in self.withdraw(number, *ALL)]

    def busy(self) -> set[str]:
        """Starters that have anything, or are to get something."""
        owners = {lane.owner for lane in self._lanes.values() if lane.held}
        return owners | {grant.lane.owner for grant in self._waiting() if grant.pending}

    def by_owner(self, members: Iterable[Member]) -> dict[str, list[Member]]:
        """Live members, by the starter that has them."""
        found: dict[str, list[Member]] = {}
        for member in members:
            found.setdefault(self.live[member].owner, []).append(member)
        return found

    def close_idle_lanes(self, now_us: int, out: list[Effect]) -> None:
        """The starter keeps an environment per lane; one that nothing came for in a while is opened anew if need be."""
        awaited = {grant.lane for grant in self._waiting() if grant.pending}
        named = set(self._specs.values())
        idle = [lane for lane in self._lanes.values() if not lane.held and lane not in awaited]
        self._idle_since = {lane: self._idle_since.get(lane, now_us) for lane in idle}
        for lane in idle:
            if now_us - self._idle_since[lane] >= IDLE_LANE_US:
                if lane.is_open:
                    lane.is_open = False
                    lane.told_width = 0
                    out.append(ev.CloseLane(lane.number))
                if lane not in named:
                    del self._lanes[lane.number]

    def _new_lane(self, owner: str, spec: wire.Spec | None, gpu_milli: int, need: int) -> Lane:
        lane = self._lanes[self._next_lane] = Lane(self._next_lane, owner, spec, need, gpu_milli)
        self._next_lane += 1
        return lane

    def _settle(self, grant: Granted) -> None:
        if not grant.live_count and not grant.pending and self.grants.pop(grant.grant, None) is not None:
            self._finished[grant.grant] = grant
            self._finished_jobs += len(grant.known)
            while self._finished_jobs > FINISHED_JOBS and len(self._finished) > 1:
                self._finished_jobs -= len(self._finished.pop(next(iter(self._finished))).known)

    def _take_up(self, number: GrantId) -> Granted | None:
        """A finished grant, as one that goes on."""
        grant = self._finished.pop(number, None)
        if grant is not None:
            self._finished_jobs -= len(grant.known)
            self.grants[number] = grant
        return grant
