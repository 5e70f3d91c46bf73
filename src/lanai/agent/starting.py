"""The machine's effects as words to a starter, and the starter's reports as events. Starts one where there is none.

It decides nothing about jobs. It never blocks but for the short while that it takes to start a starter, or to kill what
a dead one left behind, which are `process`'s. The words themselves are `starter_link`'s; how jobs are put into them is
`handing`'s, and what is heard of attempts `heard`'s.

What a user's starter says is not to be trusted, since he can do with it what he likes: what is no report, what nobody
asked for and what is more than he was given ends the connection, and silence ends the starter, with all that it runs.
Whether it speaks of its own attempts only is for the machine to see.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

from lanai.agent import events as ev
from lanai.agent import starter_link as link
from lanai.agent.distrust import (
    LOOK_US,
    Promised,
    Silence,
    check_input,
    check_not_empty,
    members_of,
)
from lanai.agent.events import Item, Member, StarterEvent
from lanai.agent.handing import Row, needs_hosts, portions, rows_of, text
from lanai.agent.heard import Heard, beginnings, shown
from lanai.agent.lease import SUSPENDED
from lanai.agent.leaves import Leaves, Words
from lanai.agent.outbox import Outbox
from lanai.agent.process import CannotLook, StarterProcess
from lanai.agent.reads import Answer, Ask, Reads
from lanai.model.ids import GrantId
from lanai.model.job import AttemptResult, Outcome
from lanai.wire.messages import Spec

RESTART_US: Final = 1_000_000
PING_US: Final = 15_000_000
STARTS_AT_MOST: Final = 3
REFUSED_US: Final = 10_000_000
"""For how long a starter that could not become its user is not tried again."""

NEVER_US: Final = 1 << 62
# Below the size from which malloc asks the kernel for memory each time and gives it back.
_READ_BYTES: Final = 64 << 10


class StarterPort:
    """One starter of an agent: its own, or that of a user whom it serves.

    Attributes:
        owner: the user, "" for the agent's own.
        due_us: when `on_time` wants to be called.
        written: outputs of attempts since the owner last emptied it.
        taken: what was said of standard inputs since the owner last emptied it.
    """

    def __init__(
        self,
        place: link.Place,
        account: link.Account | None = None,
        leaves: Leaves | None = None,
        *,
        output_bytes: int = 0,
        node: str = "",
    ) -> None:
        """`output_bytes`: how much is kept of either output of an attempt; 0 for all. `node`: what this is called."""
        self.owner = "" if account is None else account.user
        self.directory = place.directory
        self.due_us = 0
        self.taken: list[link.InputTaken] = []
        self._account = account
        self._output_bytes = output_bytes
        self._node = node
        self._writes_hosts = False
        self._is_wanted = account is None
        self._not_before_us = self._ping_us = self._refused_until_us = 0
        self._refusal = ""
        self._is_new = self._is_greeted = self._is_ending = False
        self._failed_starts = 0
        self._promised = Promised()
        self._silence = Silence()
        self._socket: socket.socket | None = None
        self._link = link.StarterLink()
        self._unsent = Outbox()
        self._leaves = leaves or Leaves(None, self.owner, print)
        self._process = StarterProcess(place, account, self._leaves)
        self._in_leaves: set[int] = set()
        self._heard = Heard(self.owner)
        self.written = self._heard.written
        self._specs: dict[int, Spec] = {}
        self._unstartable: list[AttemptResult] = []
        self._reads = Reads()
        self._sweep: tuple[int, int] | None = None
        self._can_sweep = False

    def fileno(self) -> int:
        """The descriptor to watch, or -1 while there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def wants_write(self) -> bool:
        """Whether to wake also when the descriptor can be written."""
        return bool(self._unsent)

    def wake(self) -> None:
        """It is wanted: `on_time` starts it where there is none."""
        self._is_wanted = True
        if self._socket is None:
            self.due_us = self._not_before_us

    def is_dormant(self) -> bool:
        """Whether it is neither there nor wanted."""
        return self._socket is None and not self._is_wanted

    def on_time(self, now_us: int) -> list[StarterEvent]:
        """Find the starter, or start one, when that is due; where none can be started, it is due again soon.

        One that has answered nothing for too long is killed, and all that it ran.
        """
        if now_us < self.due_us:
            return []
        if self._socket is not None:
            return self._look_whether_alive(now_us)
        self.due_us = NEVER_US
        if now_us < self._refused_until_us and self._is_wanted:
            return self._missing(now_us, self._refusal)
        try:
            self._socket = self._process.reached(is_wanted=self._is_wanted)
        except CannotLook as shortage:
            self.due_us = now_us + RESTART_US
            problem = f"cannot start commands: {shortage.strerror}"
            return [ev.StarterMissing(problem, self.owner, is_passing=True, may_live=True)]
        except OSError as error:
            return self._missing(now_us, f"cannot start commands: {error.strerror or error}", is_passing=True)
        if self._socket is None:
            return []
        self._socket.setblocking(False)
        self._link = link.StarterLink()
        self._refusal = ""
        self._is_new, self._is_greeted = True, False
        self._promised = Promised()
        self._send(self._link.hello())
        self._send(self._link.inventory())
        self._silence.owe(now_us)
        self._ping_us = now_us + PING_US
        self.due_us = now_us + LOOK_US
        return []

    def _missing(self, now_us: int, problem: str, *, is_passing: bool = False) -> list[StarterEvent]:
        """There is none: the agent's own is tried for again, a user's when he has jobs again."""
        self._process.reap()
        self._reads.on_missing(problem)
        self._sweep = None
        self._is_wanted = self._account is None
        self.due_us = now_us + RESTART_US if self._is_wanted else NEVER_US
        return [ev.StarterMissing(problem, self.owner, is_passing)]

    def _look_whether_alive(self, now_us: int) -> list[StarterEvent]:
        if self._silence.is_too_long(now_us):
            return [self._on_death(now_us)]
        if now_us >= self._ping_us:
            self._ping_us = now_us + PING_US
            if not self._silence.is_owed:
                self._ask(now_us)
        self.due_us = now_us + LOOK_US if self._silence.is_owed else self._ping_us
        return []

    def _ask(self, now_us: int) -> None:
        """Have it say anything: a recall of nothing is answered too."""
        self._send(self._link.recall([]))
        self._silence.owe(now_us)

    def hurry(self, now_us: int) -> None:
        """The lease is over: it has to show soon that it lives, and so that it has ended what it ran."""
        if self._socket is not None:
            self._ask(now_us)
            self._silence.hurry()
            self.due_us = now_us + LOOK_US

    def on_ready(self, now_us: int) -> list[StarterEvent]:
        """The descriptor is ready: read and write."""
        if self._socket is None:
            return []
        self.flush()
        found: list[StarterEvent] = []
        try:
            data = self._socket.recv(_READ_BYTES)
            for report in self._link.feed(data):
                self._on_report(report, found, now_us)
        except BlockingIOError:
            return self._with_unstartable(found)
        except (OSError, link.LinkError):
            data = b""
        if data:
            return self._with_unstartable(found)
        if self._refusal:
            self._close_dead()
            self._refused_until_us = now_us + REFUSED_US
            return self._missing(now_us, self._refusal)
        return [*found, self._on_death(now_us)]

    def flush(self) -> None:
        """Send what can be sent; a broken connection is noticed by reading."""
        if self._socket is None or not self._unsent:
            return
        try:
            self._unsent.flush(self._socket)
        except OSError:
            return

    def unstartable(self) -> list[StarterEvent]:
        """Jobs that could not even be given to the starter, as ended."""
        return self._with_unstartable([])

    def close(self) -> None:
        """Hang up; the starter and what it runs go on."""
        self.flush()
        self._unsent.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ends_within(self, limit_s: float) -> bool:
        """Wait for the starter's end; False if it goes on for longer than that."""
        return self._process.ends_within(limit_s)

    def clear_up(self) -> None:
        """The starter has ended, and no other is to come: remove its control groups, and end what is in there."""
        self._leaves.kill()

    # -- what the machine wants

    def open_lane(self, lane: int, spec: Spec) -> None:
        """Tell the starter what the lane's jobs have in common."""
        self._specs[lane] = spec
        shape = spec.shape
        env = {text(name): text(value) for name, value in spec.env.items()}
        leaf = self._leaves.needed_by(shape)
        if leaf is not None:
            self._in_leaves.add(lane)
        self._send(
            self._link.spec(
                lane,
                batch=spec.batch,
                cwd=spec.cwd,
                env=self._with_node(env) if shape.nodes == 1 else env,
                umask=spec.umask,
                cpu_milli=shape.cpu_milli,
                memory_bytes=shape.memory_bytes or None,
                time_limit_us=shape.time_limit_us or None,
                grace_us=spec.grace_us,
                stdout=spec.output,
                stderr=spec.error,
                stdin=spec.stdin,
                leaf=leaf,
                output_bytes=self._output_bytes or None,
            )
        )

    def _with_node(self, env: dict[str, str]) -> dict[str, str]:
        return {**env, "LANAI_NODES": self._node, "LANAI_NNODES": "1"} if self._node else env

    def close_lane(self, lane: int) -> None:
        """Nothing more comes for the lane."""
        self._specs.pop(lane, None)
        if lane in self._in_leaves:
            self._pass_on(self._leaves.widen(lane, 0))
            self._in_leaves.discard(lane)
        self._send(self._link.lane(lane, 0) + self._link.drop_spec(lane))

    def widen(self, lane: int, width: int) -> None:
        """Let it run this many of the lane at once."""
        if lane in self._in_leaves:
            self._pass_on(self._leaves.widen(lane, width))
        self._send(self._link.lane(lane, width))

    def hand(self, lane: int, grant: GrantId, attempt: int, items: list[Item]) -> None:
        """Give it jobs. A line that has no words ends as not found."""
        spec = self._specs[lane]
        for some in portions(items):
            rows = self._rows(some, grant, attempt, spec)
            if rows:
                self._promised.add(len(rows))
                if lane in self._in_leaves:
                    self._leaves.promise(len(rows))
                self._send(self._link.run(lane, lane, grant, rows))

    def _rows(self, items: list[Item], grant: GrantId, attempt: int, spec: Spec) -> list[Row]:
        if needs_hosts(spec) and not self._writes_hosts:
            why = "the starter is of an earlier version, which knows nothing of host files; it ends when it is idle"
            self._unstartable += [AttemptResult(grant, item.index, Outcome.NODE, reason=why) for item in items]
            return []
        rows, without = rows_of(items, grant, attempt, spec, self._node)
        self._unstartable += without
        return rows

    def take_back(self, items: list[Member]) -> None:
        """Ask for those that have not begun."""
        self._send(self._link.recall(items))
        self._silence.owe_later()

    def end(self, items: list[Member], grace_us: int, why: str) -> None:
        """End attempts; those not begun end as cancelled too."""
        for grant, index in items:
            self._send(self._link.kill(grant, index, reason=why, grace_us=grace_us))

    def release(self, upto: int) -> None:
        """It may forget the ends up to this number."""
        self._send(self._link.forget(upto))

    def set_lease(self, until_us: int, now_us: int) -> None:
        """Until when it may run anything; 0: it is over."""
        if not until_us:
            self.hurry(now_us)
        else:
            self._send(self._link.lease(None if until_us == SUSPENDED else until_us))

    def input(self, member: Member, data: bytes, *, offset: int, is_end: bool) -> None:
        """Standard input for a job whose batch has it by pipe; `offset` counts from the attempt's beginning."""
        self._promised.input(len(data))
        self._send(self._link.input(*member, data, offset=offset, is_end=is_end))

    def read(self, asks: list[Ask]) -> None:
        """Have pieces of outputs read, by a starter that is started for it if need be; see `answers`."""
        self._reads.add(asks)
        self._say_what_waited()
        if self._socket is None and not self._is_wanted:
            self.wake()

    def answers(self) -> list[Answer]:
        """What came of reads since this was last asked. To be taken after the events that were heard before."""
        found, self._reads.answers = self._reads.answers, []
        return found

    def sweep(self, keep_us: int, cap_bytes: int) -> None:
        """Have old outputs removed, by a starter that is started for it if need be."""
        self._sweep = keep_us, cap_bytes
        self._say_what_waited()
        if self._socket is None and not self._is_wanted:
            self.wake()

    def _say_what_waited(self) -> None:
        self._send(self._reads.words(self._link))
        if self._can_sweep and self._sweep is not None:
            self._send(self._link.sweep(*self._sweep))
            self._sweep = None

    def quit_when_idle(self) -> None:
        """Let it end once it has nothing to do; nothing more is given to it until it has."""
        self._is_wanted = self._account is None
        self._is_ending = True
        self._send(self._link.quit_when_idle())

    def kill(self) -> None:
        """It does not do what it is told. That it is gone is noticed as with any other death."""
        self._process.kill()

    def _send(self, data: bytes) -> None:
        """What is said while there is none is lost: the first words to the next one are hello, and it is told anew."""
        if self._socket is not None:
            self._unsent.put(data)

    def _pass_on(self, some: Iterator[Words]) -> None:
        for words in some:
            self._unsent.put(words.data, words.descriptors)

    # -- what the starter says

    def _on_report(self, report: link.Report, found: list[StarterEvent], now_us: int) -> None:
        match report:
            case link.EndedMany(items, left):
                check_not_empty(items, left is not None)
                self._promised.ended(len(items))
                self._heard.ended(items, left, found)
            case link.Started(items):
                check_not_empty(items)
                self._promised.began(len(items))
                found.append(ev.AttemptsBegan(beginnings(items), self.owner))
            case link.Recalled(returned, _):
                self._silence.answered(now_us)
                self._on_given_back(returned, "", found)
            case link.Unbegun(items, why):
                self._on_given_back(items, shown(why) or "for an unknown reason", found)
            case link.Inventory():
                if not self._is_new:
                    raise link.LinkError("an inventory that nobody asked for")
                self._is_new = False
                self._failed_starts = 0
                self._silence.answered(now_us)
                self._promised.holds(len(report.running) + len(report.waiting), report.ended)
                self._leaves.found(report)
                self._heard.inventory(report, found)
            case link.InputTaken():
                self._promised.took()
                check_input(report)
                self.taken.append(report)
            case link.Refused(_, reason):
                # Only instead of a greeting: one that has attempts of ours cannot get rid of us by this word.
                self._refusal = "" if self._is_greeted else shown(str(reason)) or "refused"
                raise link.LinkError("refused")
            case link.Data():
                self._reads.take(report)
            case link.Hello():
                self._on_hello(report)
            case link.Leaves():
                self._pass_on(self._leaves.asked(report))

    def _on_hello(self, hello: link.Hello) -> None:
        if self._is_greeted:
            raise link.LinkError("a second greeting")
        self._is_greeted = True
        self._reads.on_hello(hello.features)
        self._can_sweep = "sweep" in hello.features
        self._writes_hosts = "hosts" in hello.features
        self._say_what_waited()
        self._pass_on(self._leaves.greeted(hello))

    def _on_given_back(self, items: list[link.Key], why: str, found: list[StarterEvent]) -> None:
        if back := members_of(items):
            found.append(ev.JobsGivenBack(list(back), self.owner, why))

    def _with_unstartable(self, found: list[StarterEvent]) -> list[StarterEvent]:
        if self._unstartable:
            found.append(ev.AttemptsEnded(self._unstartable, 0, self.owner))
            self._unstartable = []
        return found

    def _on_death(self, now_us: int) -> StarterEvent:
        left = self._heard.left
        self._close_dead()
        self._is_wanted = self._account is None or self._reads.is_waiting
        self._not_before_us = now_us + RESTART_US
        self.due_us = self._not_before_us if self._is_wanted else NEVER_US
        self._process.kill_all()
        self._process.reap()
        if self._is_new:
            self._failed_starts += 1
            if self._failed_starts >= STARTS_AT_MOST:
                whose = self.owner or "this agent"
                return self._missing(now_us, f"the starter of {whose} ends as soon as it begins")[0]
        return ev.StarterDied(self.owner, left)

    def _close_dead(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._unsent.clear()
        self._leaves.forget()
        self._in_leaves.clear()
        self._heard.on_death()
        self._reads.on_death(was_to_end=self._is_ending)
        self._can_sweep = self._is_ending = False
        self._silence = Silence()
        self._specs.clear()
