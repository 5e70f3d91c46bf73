"""The hub's process: core, switchboard and store, and the discipline of `lanai.hub.loop` in virtual time.

Effects leave only after their records are committed; while a commit is under way the next events are handled. It can
be killed before a commit, between the commit and its effects, and in the middle of the effects.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from lanai.core.effects import Effect
from lanai.core.events import Event, TimePassed
from lanai.core.hub import Decision, HubCore
from lanai.hub.commit import Group
from lanai.hub.loop import GATHER_RECORDS, PASS_US, _is_urgent
from lanai.hub.switchboard import Switchboard
from lanai.model.errors import ErrorBody, StoreFull
from lanai.model.ids import NodeId, TokenId
from lanai.wire import messages
from sim.network import Line, Stream
from sim.virtual import SECOND_US

if TYPE_CHECKING:
    from sim.node import Node
    from sim.world import World

T = TypeVar("T")
_numbers = count(1)


class Peer:
    """The hub's end of a connection, as far as the switchboard knows it."""

    def __init__(self, hub: Hub, down: Stream | None, name: str) -> None:
        self.number = next(_numbers)
        self.kind = ""
        self.name = name
        self.node: NodeId | None = None
        self.token = TokenId(0)
        self.inventory: list[tuple[int, int, str]] = []
        self.specs: set[int] = set()
        self.up: Stream | None = None
        self.answers: list[messages.Message] = []
        self._hub = hub
        self._down = down

    def describe(self) -> str:
        return f"{self.kind} {self.name}"

    def send(self, message: messages.Message) -> None:
        if self._down is None:
            self._hub.world.users.hear(message)
        else:
            self._down.send(message)

    send_first = send

    def send_as_read(self, made: Iterable[messages.Message]) -> None:
        for message in made:
            self.send(message)

    def hear(self, message: messages.Message) -> None:
        if self._hub.is_alive:
            if isinstance(message, messages.Hello):
                self._hub.board.on_hello(self, message)  # type: ignore[arg-type]
                self.kind = message.kind
            else:
                self._hub.board.on_message(self, message)  # type: ignore[arg-type]

    def lost(self) -> None:
        if self._hub.is_alive:
            self._hub.board.on_lost(self)  # type: ignore[arg-type]
            self._hub.peers.discard(self)
            if self._down is not None:
                self._down.close(is_cut=False)

    def leave(self) -> None:
        if self._down is not None:
            self._down.close(is_cut=False)
        if self.up is not None:
            self.up.silence()
        self._hub.world.loop.later(1000, self.lost)

    drop = leave

    def drop_for(self, why: str) -> None:
        self.leave()

    def refuse(self, error: ErrorBody) -> None:
        self.send(messages.Refused(error))
        self.leave()

    def die(self) -> None:
        if self._down is not None:
            self._down.close(is_cut=True)
        if self.up is not None:
            self.up.silence()


class Hub:
    """One life of the hub."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_alive = True
        self.peers: set[Peer] = set()
        self.is_full = False
        self.crash_after_effects = -1
        """Dies after so many effects of the next group; -1 is never."""
        store = world.store
        recovered = store.recover()
        self.core = HubCore(epoch=1, lease_us=world.lease_us)
        self.core.world.policy = world.policy
        self.board = Switchboard(
            self.core,
            store,
            hub="sim",
            apart=lambda verb, work, then: then(work()),
            facts=dict,
            stop=lambda now: None,
            end=lambda: None,
        )
        self.board.attach(self)  # type: ignore[arg-type]
        self._inbox: list[Event] = []
        self._afterwards: list[Callable[[], None]] = []
        self._is_awake = False
        self._group = Group()
        self._is_busy = False
        self._is_staged = False
        self._is_gathering = False
        self._last_pass_us = -PASS_US
        self._has_pass_timer = False
        self._later(SECOND_US, self._tick)
        decision = self.core.recover(world.hub_us(), world.hub_wall_us(), recovered)
        world.promises.decided(self.core, decision)
        self.take(decision)
        self.api = Peer(self, None, "api")
        self.api.hear(messages.Hello(kind="api", protocol_min=1, protocol_max=1, version="sim"))

    def accept(self, line: Line, down: Stream, node: Node) -> Stream:
        """A connection is made; returns the way to the hub."""
        peer = Peer(self, down, node.name)
        self.peers.add(peer)
        peer.up = Stream(line, peer.hear, peer.lost)
        return peer.up

    def crash(self, *, keep_commit: bool) -> None:
        """Killed. A commit under way has reached the disk or not."""
        self.is_alive = False
        if self._is_staged and keep_commit:
            self.world.store.land()
            self.world.promises.committed()
        self.world.store.crash()
        for peer in sorted(self.peers, key=lambda peer: peer.number):
            peer.die()
        self.world.users.hub_is_gone()

    def _later(self, delay_us: float, call: Callable[[], None]) -> None:
        self.world.loop.later(delay_us, lambda: call() if self.is_alive else None)

    # -- what the switchboard asks of a heart

    def post(self, event: Event) -> None:
        self._inbox.append(event)
        if not self._is_awake:
            self._is_awake = True
            self._later(self.world.rng.choice((0, 100, 2000)), self._beat)

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._later(delay_s * SECOND_US, call)

    def afterwards(self, call: Callable[[], None]) -> None:
        self._afterwards.append(call)

    def aside(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        done = work()
        self._later(SECOND_US // 10, lambda: then(done))

    # -- the beat

    def take(self, decision: Decision) -> None:
        self._gather(decision)
        self._pass_if_due()
        self._flush_if_due()

    def _beat(self) -> None:
        self._is_awake = False
        events, self._inbox = self._inbox, []
        decision = self.core.handle(self.world.hub_us(), events)
        self.world.promises.decided(self.core, decision)
        calls, self._afterwards = self._afterwards, []
        for call in calls:
            call()
        self.take(decision)

    def _pass_if_due(self) -> None:
        if not self.core.needs_pass or self._has_pass_timer or self.is_full:
            return
        wait_us = self._last_pass_us + PASS_US - self.world.hub_us()
        if wait_us <= 0:
            self._run_pass()
        else:
            self._has_pass_timer = True
            self._later(wait_us, self._late_pass)

    def _late_pass(self) -> None:
        self._has_pass_timer = False
        if self.core.needs_pass and not self.is_full:
            self._run_pass()
            self._flush_if_due()

    def _run_pass(self) -> None:
        self._last_pass_us = self.world.hub_us()
        decision = self.core.decide(self._last_pass_us)
        self.world.promises.decided(self.core, decision)
        self.world.promises.passed(self.core)
        self._gather(decision)
        if self.core.needs_pass and not self._has_pass_timer:
            self._has_pass_timer = True
            self._later(0 if self.core.goes_on else PASS_US, self._late_pass)

    def _gather(self, decision: Decision) -> None:
        self._group.records += decision.records
        self._group.effects += decision.effects
        self._group.is_urgent = self._group.is_urgent or any(map(_is_urgent, decision.effects))

    def _flush_if_due(self) -> None:
        group = self._group
        if self._is_busy:
            return
        if group.is_urgent or len(group.records) >= GATHER_RECORDS:
            self._flush()
        elif (group.records or group.effects) and not self._is_gathering:
            self._is_gathering = True
            self._later(50_000, self._gathered)

    def _gathered(self) -> None:
        self._is_gathering = False
        if not self._is_busy and (self._group.records or self._group.effects):
            self._flush()

    # -- commits

    def _flush(self) -> None:
        group, self._group = self._group, Group()
        self._is_busy = True
        self.world.promises.flushed(self.core)
        self._commit(group, 100_000)

    def _commit(self, group: Group, retry_us: int) -> None:
        try:
            self.world.store.stage(group.records)
        except StoreFull:
            self.is_full = True
            self._later(retry_us, lambda: self._commit(group, min(5 * SECOND_US, 2 * retry_us)))
            return
        self._is_staged = True
        self._later(self.world.rng.choice((200, 1000, 5000, 40_000)), lambda: self._committed(group))

    def _committed(self, group: Group) -> None:
        self.world.store.land()
        self._is_staged = False
        self.world.promises.committed()
        if self.is_full:
            self.is_full = False
            self._later(0, self._pass_if_due)
        self._is_busy = False
        for number, effect in enumerate(group.effects):
            if number == self.crash_after_effects:
                self.world.crash_hub(keep_commit=False)
                return
            self._perform(effect)
        self._flush_if_due()

    def _perform(self, effect: Effect) -> None:
        self.board.perform(effect)

    def _tick(self) -> None:
        self.post(TimePassed(self.world.hub_wall_us()))
        wait_us = SECOND_US
        due_us = self.core.next_due_us()
        if due_us is not None:
            wait_us = min(wait_us, max(10_000, due_us - self.world.hub_us()))
        self._later(wait_us, self._tick)


def copy_of(tables: object) -> object:
    """The kept tables, apart from the living ones; the records themselves are frozen."""
    found = copy.copy(tables)
    for name, value in vars(found).items():
        if isinstance(value, dict):
            setattr(found, name, {key: list(v) if isinstance(v, list) else v for key, v in value.items()})
        elif isinstance(value, set):
            setattr(found, name, set(value))
    return found
