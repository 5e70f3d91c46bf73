"""The agent at work: one thread, one poll, and between the polls the machine's wishes carried out in order.

It holds the sockets, the spool and the outputs, and decides nothing: every fact goes to the machine as an event, every
effect is done here. Nothing in here is done per job but the words for the starter.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from lanai.agent import events as ev
from lanai.agent.hublink import FETCH_AGAIN, Down, HubLink, LinkEvent, Refused, Up, WrongPin
from lanai.agent.inputs import Inputs
from lanai.agent.machine import NEVER_US, Machine
from lanai.agent.output import CAP_BYTES, KEEP_S, Here, Outputs
from lanai.agent.output_index import Noted, OutputIndex, Where
from lanai.agent.ports import Starters
from lanai.agent.room import Room
from lanai.agent.spool import Spool
from lanai.agent.starter_link import InputTaken
from lanai.agent.starting import StarterPort
from lanai.model.errors import ErrorBody
from lanai.model.ids import GrantId, Index
from lanai.wire import messages as wire
from lanai.wire.notify import Notifier

LOOK_DISK_US: Final = 1_000_000
PACE_US: Final = 30_000
SWEEP_US: Final = 3_600_000_000
UNREACHABLE_AFTER_US: Final = 3_000_000
"""How long a hub may be missing at the start before that is told: it may be starting just now itself."""

_SLEEP_AT_MOST_US: Final = 60_000_000

Hello = Callable[[], wire.Hello]
Settled = Callable[[ErrorBody | None], None]
"""Called with what keeps the hub's Welcome away, as often as that is seen, and with None once it has come."""


def now_us() -> int:
    """Microseconds of CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def wall_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Agent:
    """Everything that one agent holds while it runs."""

    def __init__(
        self,
        *,
        machine: Machine,
        spool: Spool,
        room: Room,
        hub: HubLink,
        starters: Starters,
        lease_file: LeaseFile,
        hello: Hello,
        settled: Settled,
        log: Callable[[str], None],
        notifier: Notifier,
        wake_fd: int,
        apart: Path,
        index: OutputIndex,
    ) -> None:
        self._machine = machine
        self._spool = spool
        self._room = room
        self._hub = hub
        self._starters = starters
        self._lease_file = lease_file
        self._hello = hello
        self._settled: Settled | None = settled
        self._log = log
        self._notifier = notifier
        self._beat_us = 0 if notifier.every_us else NEVER_US
        self._wake_fd = wake_fd
        self._apart = apart
        self._outputs = Outputs(index, self._find, starters.reading)
        self._inputs = Inputs(machine.live_member)
        self._events: deque[ev.Event] = deque()
        self._was_full = False
        self._look_disk_us = 0
        self._look_us = NEVER_US
        self._sweep_us = 0
        self._pace_us = 0
        self._said = f"looking for the hub at {hub.url}"
        self._begun_us = now_us()
        self._is_over = False

    def run(self) -> None:
        """Work until the machine wants to leave, or a signal arrives. The starter and what it runs go on."""
        self._notifier.ready(self._said)
        while not self._is_over:
            now = now_us()
            self._on_time(now)
            self._flush(now)
            ready = self._poll(now)
            now = now_us()
            if self._wake_fd in ready:
                self._log("ending on a signal; running commands go on")
                break
            for port in self._starters:
                if port.fileno() in ready:
                    self._hear_starter(now, port)
            if self._hub.fileno() in ready:
                self._hear_hub(now, self._hub.on_ready(now))
        self._notifier.stopping()
        self._hub.close()
        self._starters.close(busy=self._machine.roster.busy())
        self._spool.close()

    def _poll(self, now: int) -> set[int]:
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        for one in (self._hub, *self._starters):
            wanted = select.POLLOUT if one.wants_write() else 0
            if one is self._hub or now >= self._pace_us:
                wanted |= select.POLLIN
            if one.fileno() >= 0 and wanted:
                poll.register(one.fileno(), wanted)
        due = min(
            self._machine.due_us,
            self._hub.due_us,
            self._starters.due_us,
            self._look_disk_us,
            self._look_us,
            self._beat_us,
            self._pace_us if self._pace_us > now else NEVER_US,
            now + _SLEEP_AT_MOST_US,
        )
        # Rounded up: woken too early, the loop would turn idly until the millisecond is over.
        return {fd for fd, _ in poll.poll(max(0, -((now - due) // 1000)))}

    def _on_time(self, now: int) -> None:
        for event in self._starters.on_time(now):
            self._hear_event(now, event)
        if now >= self._hub.due_us:
            self._hear_hub(now, self._hub.on_time(now))
        if now >= self._look_disk_us:
            self._look_disk_us = now + LOOK_DISK_US
            self._room.look()
            if self._spool.is_full:
                self._spool.make_room()
            self._watch_disk(now)
        if now >= self._machine.due_us:
            self._tell(now, ev.Ticked(wall_us()))
        if now >= self._beat_us:
            self._beat_us = self._notifier.beat(now, self._said)
        if now >= self._sweep_us:
            self._sweep_us = now + SWEEP_US
            self._outputs.sweep(time.time())
            self._starters.sweep(KEEP_S * 1_000_000, CAP_BYTES)

    def _flush(self, now: int) -> None:
        """Results first; outputs only when everything else has left."""
        self._starters.flush()
        self._hear_hub(now, self._hub.flush(now))
        self._outputs.hear(now, self._starters.answers())
        self._look_us = NEVER_US
        if not self._hub.is_idle() or self._settled is not None:
            return
        messages = self._outputs.messages()
        for message in messages:
            self._hub.send(message)
        if messages:
            self._hear_hub(now, self._hub.flush(now))
        self._outputs.ask(now)
        self._starters.flush()
        self._look_us = self._outputs.due_us(now)

    # -- what is heard

    def _hear_starter(self, now: int, port: StarterPort) -> None:
        found = port.on_ready(now)
        # While it has enough in line, it is heard seldom: what comes meanwhile is dealt with at once.
        is_paced = self._machine.roster.has_reserve(3 * PACE_US) and not self._outputs.is_reading()
        self._pace_us = now + PACE_US if is_paced else 0
        noted: list[Noted] = []
        for written in port.written:
            about = self._machine.about(written.member[0])
            if about is not None and self._machine.owner_of(written.member) == port.owner:
                where = about[0], written.member[1], written.attempt
                noted.append(Noted(where, written.outcome, written.records, port.owner))
        port.written.clear()
        if noted:
            self._outputs.note(noted)
        if port.taken:
            self._say_taken(port)
        for event in found:
            self._hear_event(now, event)

    def _hear_event(self, now: int, event: ev.StarterEvent) -> None:
        match event:
            case ev.StarterDied(""):
                self._log("the starter has died; what it ran was killed")
            case ev.StarterDied(owner):
                self._log(f"the starter of {owner} has ended; what it ran was killed")
            case ev.StarterMissing(problem):
                self._say(problem)
            case _:
                pass
        self._tell(now, event)

    def _say_taken(self, port: StarterPort) -> None:
        """Before the machine is told of ends, for after that it does not know whose input it was."""
        for one in port.taken:
            member = GrantId(one.grant), Index(one.index)
            about = self._machine.about(member[0])
            if about is not None and self._machine.owner_of(member) == port.owner:
                batch, attempt = about
                self._hub.send(wire.InputTaken(batch, member[1], *_standing(one), attempt, _state(one)))
        port.taken.clear()

    def _hear_hub(self, now: int, found: list[LinkEvent]) -> None:
        for one in found:
            match one:
                case Up():
                    self._hub.send(self._hello())
                    self._tell(now, ev.HubGreeted())
                case WrongPin(problem):
                    body = ErrorBody(code="wrong_pin", message=problem, hint=FETCH_AGAIN, exit_code=4, http_status=403)
                    self._settle(body)
                case Refused(began_us):
                    self._miss_hub("nobody listens there (connection refused)")
                    self._tell(now, ev.HubRefused(began_us))
                case Down(problem):
                    self._miss_hub(problem)
                    self._tell(now, ev.HubLost())
                case wire.Fetch():
                    self._outputs.fetch(one)
                case wire.Credit(stream, count):
                    self._outputs.credit(stream, count)
                case wire.Unfetch(stream):
                    self._outputs.unfetch(stream)
                case wire.Input():
                    self._inputs.add(one)
                case wire.Welcome():
                    self._hub.accept_peer()
                    self._say(f"joined hub {one.hub} as node {one.node}")
                    self._tell(now, one)
                    self._settle(None)
                case wire.Refused(error):
                    self._settle(error)
                    self._tell(now, one)
                case _:
                    self._tell(now, one)
        for member, piece in self._inputs.ready():
            owner = self._machine.owner_of(member)
            if owner is not None:
                self._starters.input(owner, member, piece.data, offset=piece.offset, is_end=piece.is_end)

    def _miss_hub(self, problem: str) -> None:
        self._say(f"no connection to the hub: {problem}")
        self._outputs.unfetch_all()
        self._inputs.clear()
        if self._settled is not None and now_us() >= self._begun_us + UNREACHABLE_AFTER_US:
            message = f"the hub at {self._hub.url} does not answer: {problem}"
            hint = "lanai hub status, on the hub's machine"
            self._settle(ErrorBody(code="hub_unreachable", message=message, hint=hint, exit_code=3, http_status=503))

    def _settle(self, error: ErrorBody | None) -> None:
        if self._settled is not None:
            self._settled(error)
            if error is None:
                self._settled = None

    # -- what is done

    def _tell(self, now: int, event: ev.Event) -> None:
        """Give the machine an event, do what it wants, and give it what came of that."""
        self._events.append(event)
        while self._events:
            for effect in self._machine.handle(now, self._events.popleft()):
                self._do(now, effect)
        self._watch_disk(now)

    def _do(self, now: int, effect: ev.Effect) -> None:
        match effect:
            case ev.Send(message):
                self._hub.send(message)
            case ev.Hand():
                self._hand(effect)
            case ev.Keep():
                self._keep(effect)
            case ev.Release(upto, owner):
                self._starters.release(upto, owner)
            case ev.Widen(lane, width):
                self._starters.widen(lane, width)
            case ev.ForgetResults(upto):
                self._spool.forget(upto)
            case ev.NoteGone(items):
                self._note_gone(items)
            case ev.SetApart(results):
                self._set_apart(results)
            case ev.Reconnect(problem):
                self._hub.drop(now, problem)
                self._miss_hub(problem)
                self._events.append(ev.HubLost())
            case ev.Leave(why):
                self._log(f"leaving: {why}")
                self._starters.quit_when_idle()
                self._is_over = True
            case _:
                self._starters.do(effect, now)
                if isinstance(effect, ev.SetLease):
                    self._lease_file.write(effect.until_us, self._machine.lease.length_us)

    def _hand(self, hand: ev.Hand) -> None:
        try:
            self._spool.hand([hand.handed])
        except OSError as error:
            self._say(f"cannot write the spool: {error.strerror}")
            self._events.append(ev.HandFailed([(hand.handed.grant, index) for index in hand.handed.indices]))
            return
        self._starters.hand(hand)
        self._events.extend(self._starters.unstartable())

    def _keep(self, keep: ev.Keep) -> None:
        try:
            upto = self._spool.keep(keep.results)
        except OSError as error:
            self._say(f"cannot write the spool: {error.strerror}")
            self._events.append(ev.ResultsNotKept(keep.results, keep.owner))
        else:
            self._events.append(ev.ResultsKept(upto, keep.results, keep.starter_upto, keep.owner))

    def _note_gone(self, items: list[ev.Member]) -> None:
        try:
            self._spool.gone(items)
        except OSError as error:
            # What is not noted is reported as the node's fault after a kill of agent and starter, and so runs again.
            self._say(f"cannot write the spool: {error.strerror}")

    def _set_apart(self, results: list[Any]) -> None:
        lines = b"".join(msgspec.json.encode(msgspec.structs.asdict(result)) + b"\n" for result in results)
        try:
            # Of all users, in a directory that all get through.
            with open(self._apart, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(lines)
        except OSError as error:
            self._say(f"cannot write {self._apart.name}: {error.strerror}")

    def _watch_disk(self, now: int) -> None:
        is_full = self._spool.is_full or self._room.is_low
        if is_full == self._was_full:
            return
        self._was_full = is_full
        self._say("disk full: nothing new starts" if self._was_full else "the disk has room again")
        self._tell(now, ev.DiskFilled() if self._was_full else ev.DiskFreed())

    def _find(self, where: Where) -> Here:
        member = self._machine.live_member(*where)
        owner = None if member is None else self._machine.owner_of(member)
        return Here(self._machine.is_here(*where), member, owner or "")

    def _say(self, text: str) -> None:
        """Log it, unless it is what was said last."""
        if text != self._said:
            self._said = text
            self._log(text)


def _standing(taken: InputTaken) -> tuple[int, str]:
    """How far an input is, and why it goes no further."""
    if taken.missing_from is not None:
        return taken.missing_from, f"what begins at byte {taken.missing_from} is to come first"
    return taken.taken_bytes, "the command takes no more input" if taken.is_closed else ""


def _state(taken: InputTaken) -> wire.InputState:
    if taken.missing_from is not None:
        return wire.InputState.MISSING
    return wire.InputState.CLOSED if taken.is_closed else wire.InputState.OPEN


class LeaseFile:
    """The lease as the last agent knew it, for the next one: the starter is told and never asked."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._boot_id = boot_id
        self.until_us = self.length_us = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            boot, until_us, length_us = json.loads(os.pread(self._fd, 4096, 0))
            if boot == boot_id:
                self.until_us, self.length_us = int(until_us), int(length_us)
        except (OSError, ValueError, TypeError):
            pass  # a first start, or a torn write: then there is no lease to take over

    def write(self, until_us: int, length_us: int) -> None:
        """Keep it. A full disk only costs the next agent the taking over."""
        text = json.dumps([self._boot_id, until_us, length_us]).ljust(120).encode("ascii")
        try:
            os.pwrite(self._fd, text, 0)
        except OSError:
            pass
