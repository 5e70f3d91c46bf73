"""A host: its clocks, its disk, a starter, and an agent around the real machine. Each of them may die by itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from lanai.agent import events as ev
from lanai.agent.machine import Machine
from lanai.agent.spool import Handed, Remembered
from lanai.model.job import AttemptResult
from lanai.model.resources import Capacity, Shape
from lanai.wire import messages
from sim.network import Stream
from sim.starter import Starter
from sim.virtual import SECOND_US, Timer

if TYPE_CHECKING:
    from sim.world import World

BACKOFF_FIRST_US, BACKOFF_LAST_US = 100_000, 5 * SECOND_US
CONNECT_TIMEOUT_US = 10 * SECOND_US
RESTART_STARTER_US = SECOND_US
SEGMENT = 8


class Disk:
    """The spool as it lies on the node's disk: outlives agents. Drops what is forgotten a segment at a time."""

    def __init__(self) -> None:
        self.is_full = False
        self.reserve = SEGMENT
        self.results: deque[tuple[int, AttemptResult]] = deque()
        self.handed: dict[tuple[int, int], Handed] = {}
        self.next_number = 1
        self.lease = (0, 0)

    def keep(self, results: list[AttemptResult]) -> int | None:
        """The number of the last of them; None where there is no room."""
        if self.is_full and self.reserve < len(results):
            return None
        self.reserve = SEGMENT if not self.is_full else self.reserve - len(results)
        for result in results:
            self.results.append((self.next_number, result))
            self.next_number += 1
            self.handed.pop((result.grant, result.index), None)
        return self.next_number - 1

    def hand(self, handed: Handed) -> bool:
        if self.is_full and self.reserve < 1:
            return False
        self.reserve = SEGMENT if not self.is_full else self.reserve - 1
        for index in handed.indices:
            self.handed[handed.grant, index] = Handed(
                handed.grant, handed.batch, handed.attempt, handed.shape, [index], [], handed.owner
            )
        return True

    def forget(self, upto: int) -> None:
        while len(self.results) >= SEGMENT and self.results[SEGMENT - 1][0] <= upto:
            for _ in range(SEGMENT):
                self.results.popleft()

    def remembered(self) -> Remembered:
        return Remembered(list(self.results), list(self.handed.values()))


class Node:
    """One host. `later` runs a call unless the host was booted again since, and waits while it is frozen."""

    def __init__(self, world: World, name: str, capacity: Capacity) -> None:
        self.world = world
        self.name = name
        self.capacity = capacity
        self.boots = 0
        self.is_on = False
        self.boot_offset_us = 0
        self.wall_offset_us = 1_700_000_000 * SECOND_US
        self.frozen_until_us = 0
        self._frozen: list[Callable[[], None]] = []
        self.blocked_until_us = 0
        self.is_sick = False
        self.disk = Disk()
        self.serves_users = world.rng.random() < 0.5
        self.starters: dict[str, Starter] = {}
        self.starters_ended = 0
        self.unknown = ""
        self.agent: Agent | None = None
        self.first_lane = 1
        self.forgot_us = 0
        """When an agent last began anew or lost its lease, and with it what room it keeps for others."""

    def boot(self) -> None:
        self.boots += 1
        self.is_on = True
        self.boot_offset_us = 60 * SECOND_US - self.world.loop.now_us
        self.agent = Agent(self)

    def boot_us(self) -> int:
        return self.world.loop.now_us + self.boot_offset_us

    def wall_us(self) -> int:
        return self.world.loop.now_us + self.wall_offset_us

    def later(self, delay_us: float, call: Callable[[], None]) -> Timer:
        boots = self.boots

        def run() -> None:
            if boots != self.boots:
                return
            if self.frozen_until_us > self.world.loop.now_us or self._frozen:
                self._frozen.append(run)
            else:
                call()

        return self.world.loop.later(delay_us, run)

    def freeze(self, for_us: int) -> None:
        """Agent, starter and commands are stopped; what would have happened happens when they go on, in its order."""
        self.frozen_until_us = max(self.frozen_until_us, self.world.loop.now_us + for_us)
        self.world.loop.later(self.frozen_until_us - self.world.loop.now_us, self.thaw)

    def thaw(self) -> None:
        if self.frozen_until_us <= self.world.loop.now_us:
            calls, self._frozen = self._frozen, []
            for call in calls:
                call()

    def from_starter(self, starter: Starter, agent: object, event: ev.StarterEvent) -> None:
        """The starter's words to an agent; they arrive in order."""
        assert isinstance(agent, Agent)
        agent.hear_starter(starter, event)

    # -- faults

    def reboot(self, away_us: int) -> None:
        """Power off, and on again after a while. The disk stays."""
        self.kill_agent()
        for starter in self.starters.values():
            starter.die()
        self.starters.clear()
        self.boots += 1
        self.is_on = False
        self.disk.lease = (0, 0)
        self.frozen_until_us = 0
        self._frozen.clear()
        self.world.loop.later(away_us, self._on_again(self.boots))

    def _on_again(self, boots: int) -> Callable[[], None]:
        return lambda: self.boot() if boots == self.boots else None

    def kill_agent(self) -> None:
        if self.agent is not None:
            self.agent.die()
            self.agent = None
            for starter in self.starters.values():
                starter.agent = None

    def kill_starter(self) -> None:
        """One of them. Its agent hears of it, after those words that it had said before.

        Every other one is asked to end, and has its last words. With them it says that nothing else has begun.
        """
        if self.starters:
            starter = self.starters.pop(self.world.rng.choice(list(self.starters)))
            is_asked = self.agent is not None and starter.agent is self.agent and self.starters_ended % 2 == 1
            self.starters_ended += 1
            if is_asked:
                starter.say_goodbye()
            else:
                starter.die()
            if self.agent is not None:
                self.agent.hear_death(starter, begun=() if is_asked else None)

    def kill_starters(self) -> None:
        """All of them."""
        while self.starters:
            self.kill_starter()

    def shapes(self) -> list[Shape]:
        """Of everything that runs."""
        return [shape for starter in self.starters.values() for shape in starter.shapes()]

    def start_agent(self) -> None:
        if self.agent is None and self.is_on:
            self.agent = Agent(self)


class Agent:
    """The agent's process: the loop around the machine, without files and sockets."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.world = node.world
        self.is_alive = True
        length_us = node.disk.lease[1]
        node.first_lane += 1000
        node.forgot_us = self.world.loop.now_us
        self.machine = Machine(
            node.capacity,
            node.disk.remembered(),
            first_lane=node.first_lane,
            lease_us=length_us,
            serves_users=node.serves_users,
        )
        self._lanes: dict[int, str] = {}
        self.machine.lease.take_over(node.disk.lease[0])
        self._events: deque[ev.Event] = deque()
        self._timer: Timer | None = None
        self._was_full = False
        self._backoff_us = BACKOFF_FIRST_US
        self._up: Stream | None = None
        self._down: Stream | None = None
        self._inbox: deque[tuple[Starter, ev.StarterEvent]] = deque()
        self._lease_was = (0, 0)
        expected = {handed.owner for handed in node.disk.handed.values()} | node.starters.keys()
        for owner in sorted(expected | ({""} if not node.serves_users else set())):
            self._wake(owner)
        self._later(self.world.rng.randrange(1000, 50_000), self._connect)

    def die(self) -> None:
        self.is_alive = False
        if self._up is not None and self._down is not None:
            self._down.silence()
            self._up.close(is_cut=True)

    def _later(self, delay_us: float, call: Callable[[], None]) -> Timer:
        return self.node.later(delay_us, lambda: call() if self.is_alive else None)

    # -- starter

    def _wake(self, owner: str) -> None:
        self._later(self.world.rng.randrange(1000, 50_000), lambda: self._find_starter(owner))

    def _find_starter(self, owner: str) -> None:
        node = self.node
        if owner not in node.starters and owner and owner == node.unknown:
            self.tell(ev.StarterMissing("there is no such user", owner))
            return
        if owner not in node.starters:
            node.starters[owner] = Starter(node, owner)
        starter = node.starters[owner]
        if starter.agent is not self:
            self.hear_starter(starter, starter.attach(self))

    def hear_starter(self, starter: Starter, event: ev.StarterEvent) -> None:
        self._inbox.append((starter, event))
        self._later(self.world.rng.randrange(50, 3000), self._take_one)

    def _take_one(self) -> None:
        _, event = self._inbox.popleft()
        self.tell(event)

    def hear_death(self, starter: Starter, begun: tuple[ev.Member, ...] | None = None) -> None:
        self.hear_starter(starter, ev.StarterDied(starter.owner, begun))
        if not starter.owner:
            self._later(RESTART_STARTER_US, lambda: self._find_starter(""))

    # -- hub

    def _connect(self) -> None:
        world, node = self.world, self.node
        began_us = node.boot_us()
        if node.blocked_until_us > world.loop.now_us:
            self._later(CONNECT_TIMEOUT_US, self._not_connected)
        elif world.hub is None:
            delay_us = world.rng.randrange(100, 5000)
            self._later(delay_us, lambda: self._refused(began_us))
        else:
            self._later(world.rng.randrange(100, 20_000), lambda: self._connected(began_us))

    def _refused(self, began_us: int) -> None:
        self.tell(ev.HubRefused(began_us))
        self._connect_again()

    def _not_connected(self) -> None:
        self.tell(ev.HubLost())
        self._connect_again()

    def _connect_again(self) -> None:
        self._later(self._backoff_us * (0.75 + 0.5 * self.world.rng.random()), self._connect)
        self._backoff_us = min(BACKOFF_LAST_US, self._backoff_us * 2)

    def _connected(self, began_us: int) -> None:
        world, node = self.world, self.node
        if world.hub is None:
            self._refused(began_us)
            return
        line = world.line(node)
        self._down = down = Stream(line, self._hear_hub, lambda: self._lost(down))
        self._up = world.hub.accept(line, down, node)
        self._up.send(
            messages.Hello(
                kind="agent",
                protocol_min=1,
                protocol_max=messages.PROTOCOL_MAX,
                version="sim",
                name=node.name,
                key=f"key of {node.name}",
                boot_id=f"boot {node.boots}",
                capacity=node.capacity,
                started_by="somebody",
            )
        )
        self.tell(ev.HubGreeted())

    def _hear_hub(self, message: messages.Message) -> None:
        down = self._down

        def take() -> None:
            if self._down is down:
                if isinstance(message, messages.Welcome):
                    self._backoff_us = BACKOFF_FIRST_US
                self.tell(message)  # type: ignore[arg-type]

        self._later(0, take)

    def _lost(self, down: Stream) -> None:
        def lose() -> None:
            if self._down is down:
                self._hang_up(is_cut=False)
                self.tell(ev.HubLost())

        self._later(0, lose)

    def cut(self, notice_agent_us: int, notice_hub_us: int) -> None:
        """The connection is reset: a part of what was under way arrives, and each end notices in its own time."""
        if self._up is not None and self._down is not None:
            self._up.close(is_cut=True, notice_us=notice_hub_us)
            self._down.close(is_cut=True, notice_us=notice_agent_us)

    def _hang_up(self, *, is_cut: bool) -> None:
        if self._up is not None and self._down is not None:
            self._up.close(is_cut=is_cut, notice_us=self.world.notice_us())
            self._down.silence()
            self._up = self._down = None
            self._connect_again()

    # -- machine

    def tell(self, event: ev.Event) -> None:
        """Give the machine an event, do what it wants, and give it what came of that."""
        now_us = self.node.boot_us()
        self._events.append(event)
        while self._events and self.is_alive:
            for effect in self.machine.handle(now_us, self._events.popleft()):
                self._do(effect)
        disk = self.node.disk
        if disk.is_full != self._was_full:
            self._was_full = disk.is_full
            self.tell(ev.DiskFilled() if disk.is_full else ev.DiskFreed())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._later(max(1000, self.machine.due_us - now_us) if self.machine.due_us < 1 << 61 else 10**7,
                                  lambda: self.tell(ev.Ticked(self.node.wall_us())))  # fmt: skip

    def _do(self, effect: ev.Effect) -> None:
        disk = self.node.disk
        match effect:
            case ev.Send(message):
                if self._up is not None:
                    self._up.send(message)
            case ev.Hand(lane, handed, items):
                if disk.hand(handed):
                    self._at_starter(handed.owner, lambda s: s.hand(lane, handed.grant, handed.attempt, items))
                else:
                    self._events.append(ev.HandFailed([(handed.grant, index) for index in handed.indices]))
            case ev.Keep(results, starter_upto, owner):
                upto = disk.keep(results)
                if upto is None:
                    self._events.append(ev.ResultsNotKept(results, owner))
                else:
                    self._events.append(ev.ResultsKept(upto, results, starter_upto, owner))
            case ev.Release(upto, owner):
                self._at_starter(owner, lambda s: s.release(upto))
            case ev.Widen(lane, width):
                self._at_starter(self._lanes.get(lane, ""), lambda s: s.widen(lane, width))
            case ev.ForgetResults(upto):
                disk.forget(upto)
            case ev.NoteGone(items):
                for item in items:
                    disk.handed.pop(item, None)
            case ev.SetApart():
                pass
            case ev.Reconnect():
                self._hang_up(is_cut=True)
                self._events.append(ev.HubLost())
            case ev.Leave():
                self.die()
            case ev.SetLease(until_us):
                disk.lease = (until_us, self.machine.lease.length_us)
                if not until_us:
                    self.node.forgot_us = self.world.loop.now_us
                for owner in self.node.starters:
                    self._at_starter(owner, lambda s: s.set_lease(until_us))
            case ev.OpenLane(lane, spec):
                owner = self._lanes[lane] = spec.user if self.node.serves_users else ""
                self._at_starter(owner, lambda s: s.open_lane(lane, spec))
            case ev.CloseLane(lane):
                self._at_starter(self._lanes.pop(lane), lambda s: s.close_lane(lane))
            case ev.TakeBack(items, owner):
                self._at_starter(owner, lambda s: s.take_back(items))
            case ev.EndAttempts(items, grace_us, _, owner):
                self._at_starter(owner, lambda s: s.end(items, grace_us))
            case ev.WakeStarter(owner):
                self._wake(owner)
            case ev.EndStarter(owner):
                self._at_starter(owner, self._kill)
            case ev.RetireStarter(owner):
                self._at_starter(owner, self._retire)
            case _:
                assert_never(effect)

    def _kill(self, starter: Starter) -> None:
        if self.node.starters.get(starter.owner) is starter:
            del self.node.starters[starter.owner]
            starter.die()
            if self.is_alive:
                self.hear_death(starter)

    def _retire(self, starter: Starter) -> None:
        """It has nothing, and ends."""
        if starter.waiting or starter.active or starter.kept:
            self.node.later(1_000_000, lambda: self._retire(starter) if starter.is_alive else None)
        elif self.node.starters.get(starter.owner) is starter:
            del self.node.starters[starter.owner]
            starter.die()
            if self.is_alive:
                self.hear_death(starter)

    def _at_starter(self, owner: str, call: Callable[[Starter], None]) -> None:
        """What is written to the starter's socket arrives in order, also after the agent's death."""
        starter = self.node.starters.get(owner)
        if starter is not None and starter.agent is self:
            self.node.later(0, lambda: call(starter) if starter.is_alive else None)
