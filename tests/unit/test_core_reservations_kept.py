"""In seeded worlds in virtual time: what is reserved is never others', and no node ever has more than there is.

Jobs run for no longer than they say. People make, change and drop reservations, nodes come, the hub is killed and comes
back; and all of this may happen between any two parts of the work of making one.
"""

from __future__ import annotations

from random import Random

import pytest

from core_recorder import GIB, SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core import long_work
from lanai.core.effects import StartAttempts
from lanai.core.nodes import Node
from lanai.core.reserved import Live
from lanai.core.schedule import access
from lanai.core.schedule.lines import Line
from lanai.model.ids import GrantId, Index, NodeId
from lanai.model.job import AttemptResult
from lanai.model.policy import Policy
from lanai.model.reservation import Access, Kind, Period, Reservation
from lanai.model.resources import Shape

MINUTE = 60 * SECOND
USERS = ("ann", "bob", "carl")
STEPS = 200


class World:
    """A hub with a few nodes, and what runs on them by when."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.hub = Recorder()
        self.policy = Policy(
            preset=self.random.choice(("fair", "tight")),
            backfill=self.random.choice(("easy", "conservative")),
            depth=self.random.choice((1, 3)),
        )
        self.hub.core.world.policy = self.policy
        self.hub.feed(ev.TimePassed(self.hub.now_us))
        self.ends: dict[tuple[GrantId, Index], int] = {}
        self.spooled: dict[NodeId, int] = {}
        self.began_within: dict[tuple[GrantId, Index], set[str]] = {}
        """Reservations that had begun, or were made, when an attempt of somebody else was there already."""
        self.known: list[Live] = []
        self.made = self.held = 0
        for number in range(self.random.randint(2, 4)):
            self.hub.join(f"n{number}", capacity(cpus=self.random.choice((2, 4, 8)), gib=8))

    # -- what happens

    def step(self) -> None:
        happen = self.random.choices(
            (self.submit, self.reserve, self.change, self.drop, self.join, self.pass_time, self.restart),
            weights=(4, 2, 0.5, 0.5, 0.2, 12, 0.1),
        )
        happen[0]()
        self.check()
        if self.random.random() < 0.8:
            self.hub.core.world.needs_pass = True
            # Where the work is done in parts, some of it may be left.
            for _ in range(self.random.randint(1, 6) if long_work.MOST == 1 else 1000):
                if self.hub.core.needs_pass:
                    self.hub.decide_once()
                    self.note_new()
                    self.note_starts()
                    self.check()

    def submit(self) -> None:
        wide = self.random.random() < 0.2
        shape = Shape(
            cpu_milli=1000 * self.random.randint(1, 4),
            memory_bytes=self.random.randint(0, 2) * GIB,
            time_limit_us=self.random.randint(1, 30) * MINUTE,
            nodes=2 if wide else 1,
        )
        user = self.random.choice(USERS)
        names = [
            name
            for name, live in self.hub.core.world.reservations.items()
            if live.made.kind != "maintenance" and user in live.made.access.users
        ]
        bound = self.random.choice(names) if names and self.random.random() < 0.4 else ""
        self.hub.submit(self.random.randint(1, 6), user=user, shape=shape, reservation=bound)

    def reserve(self) -> None:
        self.made += 1
        self.wish(f"r{self.made}", is_change=False)

    def change(self) -> None:
        if names := list(self.hub.core.world.reservations):
            self.wish(self.random.choice(names), is_change=True)

    def join(self) -> None:
        if len(self.hub.core.world.nodes) < 6:
            self.hub.join(f"n{len(self.hub.core.world.nodes)}", capacity(cpus=4, gib=8))

    def wish(self, name: str, *, is_change: bool) -> None:
        now_us, pick = self.hub.now_us, self.random.choice
        begin_us = now_us + self.random.randint(0, 30) * MINUTE
        kinds: tuple[Kind, ...] = ("exclusive", "exclusive", "preferring", "maintenance")
        kind = pick(kinds)
        is_whole = kind == "maintenance" or self.random.random() < 0.5
        by_number = self.random.random() < 0.5
        made = Reservation(
            name=name,
            kind=kind,
            periods=(Period(begin_us, begin_us + self.random.randint(1, 40) * MINUTE),),
            count=self.random.randint(1, 2) if by_number else 0,
            nodes="" if by_number else pick(("n0", "n[0-1]", "*")),
            is_whole=is_whole,
            shape=Shape(cpu_milli=0 if is_whole else 1000 * self.random.randint(1, 2)),
            access=Access(
                users=tuple(sorted(self.random.sample(USERS, self.random.randint(1, 2)))),
                max_time_us=pick((0, 0, 10 * MINUTE)),
            ),
        )
        self.hub.feed(ev.ReservationWished(9, made, is_change, now_us))
        self.hub.take_all()
        self.note_new()

    def drop(self) -> None:
        if names := list(self.hub.core.world.reservations):
            self.hub.feed(ev.ReservationDropped(9, self.random.choice(names), self.hub.now_us))
            self.hub.take_all()
            self.note_new()

    def pass_time(self) -> None:
        """To the next end, beginning or minute, whichever is first; and what ends then ends."""
        hub = self.hub
        due_us = hub.core.next_due_us()
        times = [*self.ends.values(), hub.now_us + MINUTE, *([due_us] if due_us is not None else [])]
        hub.now_us = max(hub.now_us, min(times))
        nodes = [node.id for node in hub.core.world.nodes.values()]
        hub.feed(*(ev.NodeHeard(node, "", hub.now_us) for node in nodes), ev.TimePassed(hub.now_us))
        self.note_new()
        self.note_starts()
        self.check()
        over = [key for key, at_us in self.ends.items() if at_us <= hub.now_us]
        self.random.shuffle(over)
        for number, index in over:
            self.end(number, index)

    def end(self, number: GrantId, index: Index) -> None:
        held = self.hub.core.world.grants.get(number)
        del self.ends[number, index]
        if held is None:
            return
        node = held.node.id
        self.spooled[node] = self.spooled.get(node, 0) + 1
        length_us = max(SECOND, self.hub.now_us - held.granted_at_us)
        result = AttemptResult(number, index, "ok", 0, wall_us=length_us)
        self.hub.feed(ev.AttemptsEnded(node, self.spooled[node], [result], self.hub.now_us))
        self.note_starts()
        self.check()

    def restart(self) -> None:
        hub = self.hub
        names = [node.name for node in hub.core.world.nodes.values()]
        totals = {node.name: node.capacity for node in hub.core.world.nodes.values()}
        items = {
            node.name: [(each.id, index, "running") for each in node.grants.values() for index in sorted(each.members)]
            for node in hub.core.world.nodes.values()
        }
        claims = {node.name: list(node.claims) for node in hub.core.world.nodes.values()}
        hub.restart()
        hub.core.world.policy = self.policy
        hub.feed(ev.TimePassed(hub.now_us))
        for name in names:
            hub.hello(name, totals[name])
            hub.feed(ev.NodeTookStock(hub.core.world.names[name], items[name], tuple(claims[name])))
        hub.take_all()
        # The hub takes what it finds to have begun at its start; so that they keep their estimates, they have.
        for number, index in list(self.ends):
            if number not in hub.core.world.grants:
                del self.ends[number, index]
        self.known = []
        self.note_new()

    # -- what is noted

    def note_starts(self) -> None:
        world = self.hub.core.world
        self.hub.take(StartAttempts)
        self.hub.take_all()
        for held in list(world.grants.values()):
            for node in held.others:
                if node.id in held.awaited:
                    self.hub.feed(ev.RoomClaimed(node.id, [held.id]))
            limit_us = held.line.shape.time_limit_us
            for index in held.members:
                if (held.id, index) not in self.ends:
                    length_us = self.random.choice((limit_us, self.random.randint(MINUTE, limit_us)))
                    self.ends[held.id, index] = self.hub.now_us + length_us
        self.hub.take_all()

    def note_new(self) -> None:
        """Who is on a node when a reservation is made of it is not ended by that."""
        before, self.known = self.known, list(self.hub.core.world.reservations.values())
        for live in self.known:
            for node in live.nodes.values() if live not in before else ():
                for held in (*node.grants.values(), *node.claims.values()):
                    for index in held.members:
                        self.began_within.setdefault((held.id, index), set()).add(live.made.name)

    # -- what must hold

    def check(self) -> None:
        world = self.hub.core.world
        guard = world.layout.guard
        for node in world.nodes.values():
            assert not node.free & guard, "more runs than there is"
            for step in node.steps:
                live = step.owner
                is_now = step.begin_us <= self.hub.now_us < step.end_us
                if isinstance(live, Live) and live.is_in_force and is_now:
                    self.check_step(node, live, step.vector, step.end_us)
        for live in world.reservations.values():
            on_them = [node for node in world.nodes.values() if any(step.owner is live for step in node.steps)]
            if any(period.end_us > self.hub.now_us for period in live.made.periods):
                assert on_them == sorted(live.nodes.values(), key=lambda node: node.id), "whole, or not there"

    def check_step(self, node: Node, live: Live, reserved: int, end_us: int) -> None:
        world = self.hub.core.world
        others = 0
        for held in (*node.grants.values(), *node.claims.values()):
            for index in held.members:
                is_over = self.ends.get((held.id, index), self.hub.now_us + 1) <= self.hub.now_us
                if is_over or live.made.name in self.began_within.get((held.id, index), ()):
                    continue
                if self.is_other(live, held.line) and not self.is_guest(live, held.id, index, end_us):
                    others += held.line.vector
                if world.batches[held.line.batch].settings.reservation == live.made.name:
                    assert self.ends[held.id, index] <= end_us
        self.held += 1
        if others:
            assert not (node.total - reserved - others) & world.layout.guard, (node.name, live.made)

    def is_other(self, live: Live, line: Line) -> bool:
        return not access.is_admitted(self.hub.core.world, live, line)

    def is_guest(self, live: Live, number: GrantId, index: Index, end_us: int) -> bool:
        """Those whom a preferring one takes in are over by its end."""
        return live.made.kind == "preferring" and self.ends.get((number, index), 0) <= end_us


@pytest.mark.parametrize("seed", range(10))
def test_what_is_reserved_is_never_others(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    assert world.made > 10 and world.held > 0, "something was at stake"


@pytest.mark.parametrize("seed", range(10, 20))
def test_nor_is_it_while_another_is_being_made(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call does the smallest part of the work."""
    monkeypatch.setattr(long_work, "MOST", 1)
    test_what_is_reserved_is_never_others(seed)
