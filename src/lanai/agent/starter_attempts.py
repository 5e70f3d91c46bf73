"""The attempts of one starter: lanes of those that wait, those that run, and the end of each.

Standard library only, part of the starter. It decides nothing about which job may run: the agent sets the widths of
the lanes, and an attempt begins when its lane has room. Nothing here waits; the loop calls `reap` when a child has
ended, `fill` when something may begin, `settle` a little later, and `tick` when the time in ``next_us`` has come.
"""

import os
import signal
import time

from lanai.agent import starter_command as command
from lanai.agent import starter_processes as processes
from lanai.agent.starter_attempt import NEVER, Attempt, Lane
from lanai.agent.starter_cgroups import Counted, Leaf, LeafGone, Leaves, judge
from lanai.agent.starter_families import Families
from lanai.agent.starter_hosts import hosts_of
from lanai.agent.starter_output import Output, Record
from lanai.agent.starter_probing import PATIENCE_US, Places, Probing
from lanai.agent.starter_reports import End, Figures, Key, Reports
from lanai.agent.starter_spawn import Spawner
from lanai.agent.starter_trimming import Trimming

TELL_AFTER_US = 100_000
SETTLE_AFTER_US = 5_000
_SETTLED_AT_ONCE = 64
_BEGUN_AT_ONCE = 64
_CLOCK = time.CLOCK_BOOTTIME


def now_us() -> int:
    """Microseconds of CLOCK_BOOTTIME, which runs on during suspend and cannot be set."""
    return time.clock_gettime_ns(_CLOCK) // 1000


class Attempts:
    """Everything that waits or runs here.

    Args:
        mark: what the marks of all attempts begin with; unique to this starter.
        reports: where ends and beginnings are told.
        slots: where output goes.
        leaves: the groups of attempts that have one.
        spawner: what begins an attempt.
    """

    def __init__(self, mark: str, reports: Reports, slots: Output, leaves: Leaves, spawner: Spawner) -> None:
        self.waiting: dict[Key, Attempt] = {}
        self.active: dict[Key, Attempt] = {}
        self.next_us = NEVER
        self.lease_us = NEVER
        self.gives_back = False
        """There is an agent that takes back what cannot begin now."""
        self._mark = mark
        self._reports = reports
        self._slots = slots
        self._leaves = leaves
        self._spawner = spawner
        self._families = Families()
        self._probing = Probing(spawner.leave_directory)
        self._held: dict[Lane, Places] = {}
        self._trimming = Trimming(slots.directory)
        self._lanes: dict[int, Lane] = {}
        self._unfilled: set[Lane] = set()
        self._leafless: set[Lane] = set()
        self._running: dict[int, Attempt] = {}
        self._over: list[Attempt] = []
        self._settle_us = NEVER
        self._own_peak_bytes = _own_peak_bytes()
        self._is_own_peak_fresh = True

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.active

    @property
    def wants_fill(self) -> bool:
        """Whether something may be able to begin."""
        return bool(self._unfilled)

    @property
    def settle_us(self) -> int:
        """When `settle` is due; at once if the agent can give more only after it knows, or enough has come together.

        At once too where a lane waits for a leaf: an attempt has its own until then.
        """
        if not self.waiting or self._leafless or len(self._over) >= _SETTLED_AT_ONCE:
            return 0 if self._over else NEVER
        return self._settle_us

    # What the agent asks for

    def lane(self, number: int) -> Lane:
        """Returns a lane; one not heard of yet has no width, so that nothing begins in it."""
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = Lane(number)
        return lane

    def set_lane(self, number: int, width: int, gpus: list[str], gpus_each: int) -> None:
        """Makes a lane or changes it; what runs in it goes on, whatever the new width."""
        lane = self.lane(number)
        lane.width = width
        lane.gpus_each = gpus_each
        lane.gpus_given = gpus
        lane.gpus_free = [gpu for gpu in gpus if gpu not in lane.gpus_used]
        self._unfilled.add(lane)

    def add(self, spec: command.Spec, lane: Lane, grant: int, rows: list[list[object]]) -> None:
        """Queues attempts at the end of their lane; those that are known already are left as they are.

        Raises:
            ValueError, TypeError, LookupError: a row is not one of the protocol's.
        """
        waiting, active, reports, mark, queue = self.waiting, self.active, self._reports, self._mark, lane.queue
        for row in rows:
            index, number = row[0], row[1]
            if type(index) is not int or type(number) is not int:
                raise TypeError(f"{row[:2]!r} are no integers")
            key = (grant, index)
            if key in waiting or key in active or key in reports:
                continue
            try:
                words = command.words_of(row[2])
            except command.CannotStart as failure:
                self._never_began(key, number, failure)
                continue
            attempt = Attempt(spec, lane, key, number, words, mark)
            if len(row) > 3:
                attempt.extra_environment, attempt.checks = command.parse_extra(row[3])
                attempt.hosts = hosts_of(row[3])
            waiting[key] = attempt
            queue.append(key)
        self._unfilled.add(lane)

    def recall(self, key: Key) -> bool:
        """Takes one back. Returns False if it has begun or its end is still kept; an unknown one is taken back."""
        if self.waiting.pop(key, None) is not None:
            return True
        return key not in self.active and key not in self._reports

    def kill(self, key: Key, outcome: str, reason: str | None, grace_us: int | None) -> None:
        """Ends an attempt and everything it started; one that waits ends without having begun.

        Harmless if repeated (a shorter grace counts) and for attempts that are gone.
        """
        waiting = self.waiting.pop(key, None)
        if waiting is not None:
            self._never_began(key, waiting.number, command.CannotStart(outcome, None, reason))
            return
        attempt = self.active.get(key)
        if attempt is not None and not attempt.is_over:
            self._end(attempt, outcome, reason, attempt.spec.grace_us if grace_us is None else grace_us)

    def end_all(self, reason: str) -> None:
        """Ends everything at once, outcome node, strays of earlier attempts included."""
        for key in list(self.waiting):
            self.kill(key, "node", reason, 0)
        processes.signal_all(processes.marked_by(self._mark), signal.SIGKILL)
        for key in list(self.active):
            self.kill(key, "node", reason, 0)

    def _end(self, attempt: Attempt, outcome: str, reason: str | None, grace_us: int) -> None:
        self._families.end(attempt, outcome, reason, grace_us, now_us())
        self.next_us = min(self.next_us, attempt.step_us)

    # Beginning

    def fill(self) -> None:
        """Begins what may begin, a bounded number at a time."""
        begun = 0
        while self._unfilled:
            lane = self._unfilled.pop()
            queue = lane.queue
            room = lane.room()
            if queue and room > 0 and self._is_held(lane):
                continue
            while queue and room > 0:
                if begun >= _BEGUN_AT_ONCE:
                    self._unfilled.add(lane)
                    return
                attempt = self.waiting.pop(queue.popleft(), None)
                if attempt is not None:
                    if attempt.spec.needs_leaf and not self._has_leaf(attempt):
                        break
                    begun += 1
                    room -= self._begin(attempt)
            if not lane.width and not lane.running and not queue:
                self._lanes.pop(lane.number, None)
        if self._leafless:
            self._leaves.want(sum(min(lane.room(), len(lane.queue)) for lane in self._leafless))

    def fill_leafless(self) -> None:
        """There may be leaves again, or none are to be had: those that wait for one may begin."""
        self._unfilled |= self._leafless
        self._leafless.clear()

    def _has_leaf(self, attempt: Attempt) -> bool:
        attempt.leaf = self._leaves.take()
        if attempt.leaf is not None or self._leaves.is_denied:
            return True
        self._put_back(attempt)
        self._leafless.add(attempt.lane)
        return False

    def _put_back(self, attempt: Attempt) -> None:
        self.waiting[attempt.key] = attempt
        attempt.lane.queue.appendleft(attempt.key)

    def _part_with_leaf(self, leaf: Leaf) -> None:
        self._leaves.give_back(leaf)
        if self._leafless:
            self.fill_leafless()

    def _is_held(self, lane: Lane) -> bool:
        """Whether it has to wait for where its attempts begin to answer; then somebody looks whether it does."""
        first = self.waiting.get(lane.queue[0])
        if first is None or not first.spec.places:
            return False
        now = now_us()
        if self._probing.is_good(first.spec.places, now):
            self._held.pop(lane, None)
            return False
        self._held[lane] = first.spec.places
        self.next_us = min(self.next_us, self._probing.due_us)
        return True

    def _release_held(self, now: int) -> None:
        """What waited for too long does not begin now."""
        for lane, places in list(self._held.items()):
            if self._probing.is_silent(places, now):
                del self._held[lane]
                self._refuse_all(lane, f"{', '.join(places)}: no answer for {PATIENCE_US // 1_000_000} s")
        self._probing.give_up(now)

    def _refuse_all(self, lane: Lane, why: str) -> None:
        waiting = [one for key in lane.queue if (one := self.waiting.pop(key, None)) is not None]
        lane.queue.clear()
        if self.gives_back and waiting:
            self._reports.given_back([one.key for one in waiting], why)
            return
        for one in waiting:
            self._never_began(one.key, one.number, command.CannotStart("node", None, why))

    def _begin(self, attempt: Attempt) -> bool:
        now = now_us()
        lane = attempt.lane
        try:
            if now >= self.lease_us:
                # Frozen and thawed between two turns of the loop: what is not ours any more must not begin.
                raise command.CannotStart("node", None, "lease expired")
            if lane.gpus_each:
                attempt.gpus = lane.gpus_free[: lane.gpus_each]
            self._spawner.begin(attempt, now)
        except LeafGone:
            assert attempt.leaf is not None
            self._leaves.lose(attempt.leaf)
            self._put_back(attempt)
            return False
        except command.CannotStart as failure:
            if failure.is_passing and self.gives_back:
                self._give_back(attempt, failure.reason or "")
            else:
                self._never_began(attempt.key, attempt.number, failure)
            if attempt.leaf is not None:
                self._part_with_leaf(attempt.leaf)
            return False
        lane.enter(attempt)
        self.active[attempt.key] = self._running[attempt.pid] = attempt
        due_us = now + TELL_AFTER_US
        if attempt.spec.is_limited:
            due_us = min(due_us, self._families.began(attempt, now))
        if due_us < self.next_us:
            self.next_us = due_us
        if attempt.leaf is not None and (problem := attempt.leaf.limit(attempt.spec.memory_bytes)) is not None:
            self._end(attempt, *problem, 0)
        return True

    def _give_back(self, attempt: Attempt, why: str) -> None:
        """It cannot begin now, and neither can those behind it in its lane, which are alike."""
        queue = attempt.lane.queue
        behind = [key for key in queue if self.waiting.pop(key, None) is not None]
        queue.clear()
        self._reports.given_back([attempt.key, *behind], why)

    def _never_began(self, key: Key, number: int, failure: command.CannotStart) -> None:
        end = End(*key, number, failure.outcome, exit_code=failure.exit_code, reason=failure.reason)
        self._reports.ended(end)

    # Ending

    def reap(self) -> None:
        """Takes leave of every child that has ended; what is left to be done for it is done by `settle`."""
        now = now_us()
        running, over = self._running, self._over
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            attempt = running.pop(pid, None)
            if attempt is None:
                if self._probing.reaped(pid, now):
                    self._unfilled.update(self._held)
                else:
                    self._families.reaped(pid)
            elif attempt.outcome is not None:
                attempt.waited = (status, usage, now)
                attempt.step_us = self.next_us = now
            else:
                attempt.waited = (status, usage, now)
                if not over:
                    self._settle_us = now + SETTLE_AFTER_US
                over.append(attempt)
                attempt.lane.leave(attempt)
                self._unfilled.add(attempt.lane)
            if not _has_ended_child():
                return

    def settle(self) -> None:
        """Looks after those that `reap` took leave of: strays, output, output checks, reports.

        Apart from `reap`, and for several at a time: nothing that is to begin has to wait for it, and done in a row it
        costs a third.
        """
        over = self._over
        if not over:
            return
        self._over = []
        self._settle_us = NEVER
        self._is_own_peak_fresh = False
        looking = self._probing.children
        known = [*self._running, *looking] if looking else self._running
        left = self._families.count_strays(over, len(known), known)
        for attempt, escaped in zip(over, left, strict=True):
            self._finish(attempt, escaped)

    def _finish(self, attempt: Attempt, escaped: int) -> None:
        del self.active[attempt.key]
        if attempt.spec.is_limited or attempt.outcome is not None:
            self._families.ended(attempt)
        self._spawner.ended(attempt)
        assert attempt.waited is not None
        status, usage, ended_us = attempt.waited
        slot = attempt.slot
        written = None
        if slot is not None:
            if attempt.is_told:
                self._trimming.ended(attempt.mark)
            written = self._slots.collect(slot, attempt.job, escaped > 0, attempt.spec.output_bytes)
        rss_bytes = usage.ru_maxrss << 10
        peak = rss_bytes if rss_bytes > self._own_peak_bytes and self._is_peak_its_own(rss_bytes) else None
        user_us, system_us = int(usage.ru_utime * 1_000_000), int(usage.ru_stime * 1_000_000)
        if attempt.leaf is not None:
            counted = self._leave(attempt, attempt.leaf, status)
            peak = counted.memory_peak_bytes or peak
            if counted.user_us is not None and counted.system_us is not None:
                user_us, system_us = counted.user_us, counted.system_us
        figures = (attempt.wall_us, ended_us - attempt.started_us, user_us, system_us, peak)
        if status or written or escaped or attempt.is_special:
            self._reports.ended(_end_of(attempt, status, figures, written, escaped))
        else:
            self._reports.succeeded(attempt.key, attempt.name, figures)

    def _leave(self, attempt: Attempt, leaf: Leaf, status: int) -> Counted:
        counted = leaf.counted()
        if attempt.outcome is None and (verdict := judge(leaf, attempt.spec.memory_bytes, status)) is not None:
            attempt.outcome, attempt.reason = verdict
        self._part_with_leaf(leaf)
        return counted

    def _is_peak_its_own(self, peak_bytes: int) -> bool:
        # A spawned process starts with the peak of the one that spawned it, so a smaller figure says nothing.
        if not self._is_own_peak_fresh:
            self._own_peak_bytes = _own_peak_bytes()
            self._is_own_peak_fresh = True
        return peak_bytes > self._own_peak_bytes

    # Time

    def tick(self, now: int) -> None:
        """Does what is due: beginnings to tell, limits, families to be ended. Sets ``next_us`` anew."""
        for attempt in list(self._running.values()):
            if not attempt.is_told and now >= attempt.started_us + TELL_AFTER_US:
                attempt.is_told = True
                slot = None
                if attempt.slot is not None:
                    slot = attempt.slot.number
                    if attempt.spec.output_bytes:
                        most_bytes = attempt.spec.output_bytes
                        self._trimming.watch(attempt.mark, attempt.slot.descriptors, most_bytes, now)
                self._reports.started(attempt.key, attempt.number, attempt.pid, attempt.wall_us, slot)
            if now >= attempt.deadline_us and attempt.outcome is None:
                limit_s = attempt.spec.time_limit_us / 1_000_000
                self._families.end(attempt, "time", f"time limit of {limit_s:g} s", attempt.spec.grace_us, now)
        for attempt, escaped in self._families.step(now):
            # One that is ended by us keeps its place until the last of its family is gone.
            attempt.lane.leave(attempt)
            self._unfilled.add(attempt.lane)
            self._finish(attempt, escaped)
        self.next_us = min(map(_next_of, self._running.values()), default=NEVER)
        if now >= self._trimming.due_us:
            self._trimming.look(now)
        if self._held:
            self._release_held(now)
        held_us = self._probing.due_us if self._held else NEVER
        self.next_us = min(self.next_us, self._families.next_us(), self._trimming.due_us, held_us)

    def rest(self) -> None:
        """To be called now and then: lets go of what an idle starter should not hold."""
        if self.is_idle:
            self._spawner.leave_directory()
        self._leaves.look_after()
        if self._leafless:
            self.fill_leafless()


def _next_of(attempt: Attempt) -> int:
    if attempt.outcome is not None:
        return NEVER
    return min(NEVER if attempt.is_told else attempt.started_us + TELL_AFTER_US, attempt.deadline_us)


def _has_ended_child() -> bool:
    # wait4 would say it too, but makes up the whole usage of nobody where nobody has ended.
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def _end_of(attempt: Attempt, status: int, figures: Figures, written: list[Record | None] | None, escaped: int) -> End:
    outcome, exit_code, signal_number, reason = _judge(attempt, status)
    if attempt.checks and outcome == "ok":
        outcome, reason = _check_outputs(attempt)
    records = written if attempt.records is None else _merge(attempt.records, written)
    passed = [[*one.check, one.reason] for one in attempt.passed] if attempt.passed else None
    head = (*attempt.key, attempt.number, outcome, exit_code, signal_number)
    return End(*head, *figures, reason, records, passed, escaped)


def _judge(attempt: Attempt, status: int) -> tuple[str, int | None, int | None, str | None]:
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    if attempt.outcome is not None:
        return attempt.outcome, exit_code, signal_number, attempt.reason
    if signal_number is not None:
        return "signal", None, signal_number, None
    return ("exit" if exit_code else "ok"), exit_code, None, None


def _check_outputs(attempt: Attempt) -> tuple[str, str | None]:
    try:
        made = command.run_checks(attempt.checks, "out", attempt.spec.cwd)
    except command.CannotStart as failure:
        return failure.outcome, failure.reason
    attempt.passed = (attempt.passed or []) + made
    failed = [result.reason for result in made if result.reason is not None]
    return ("check", "; ".join(failed)) if failed else ("ok", None)


def _merge(named: list[Record | None], own: list[Record | None] | None) -> list[Record | None]:
    if own is None:
        return named
    return [theirs or ours for theirs, ours in zip(named, own, strict=True)]


def _own_peak_bytes() -> int:
    """What a child's peak begins at: that of our memory, which it shares until exec. Not getrusage's, which is older.

    A process keeps the `ru_maxrss` of whoever it was before its own exec, and so ours may be that of a large parent.
    """
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(b"VmHWM:"))
