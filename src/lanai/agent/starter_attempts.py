"""The attempts of one starter: lanes of waiting items, spawning, reaping, limits, and the ending of whole families.

Standard library only, part of the starter. It decides nothing about which job may run: the agent sets the widths of
the lanes, and an item begins when its lane has room. Nothing here waits; the loop calls `reap` when a child has ended,
`fill` when something may begin, `settle` after that, and `tick` when the time in `next_us` has come.

Theory of operation: the starter is a subreaper, so orphans of an attempt become its children. After reaping, the
kernel's list of our children is as long as the list of what we run, or an attempt has left something alive; only then
/proc is searched. What ends by a limit or by order is *dying*: SIGTERM to all of the family, a grace, SIGKILL until
nothing is left, and the report after that.
"""

import errno
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from lanai.agent import starter_command as command
from lanai.agent import starter_output as output
from lanai.agent import starter_processes as processes
from lanai.agent.starter_reports import End, Key, Reports

TELL_AFTER_US = 100_000
MEMORY_EVERY_US = 500_000
_MEMORY_MIN_AGE_US = 250_000
_POLL_US = 50_000
_KILL_ROUNDS = 100
_BEGUN_AT_ONCE = 64
_CLOCK = time.CLOCK_BOOTTIME
NEVER = 1 << 62


def now_us() -> int:
    """Microseconds of CLOCK_BOOTTIME, which runs on during suspend and cannot be set."""
    return time.clock_gettime_ns(_CLOCK) // 1000


class Item(NamedTuple):
    """One attempt not yet begun. ``words`` is its command as the agent gave it."""

    spec: command.Spec
    lane: "Lane"
    grant: int
    index: int  # type: ignore[assignment]  # it hides the method of tuples, which nobody needs here
    attempt: int
    words: object
    env: dict[str, str] | None
    checks: tuple[command.Check, ...]


class Lane:
    """A queue of which ``width`` items may run at once; the agent's word for how many of a kind fit."""

    __slots__ = ("gpus_each", "gpus_free", "gpus_given", "gpus_used", "number", "queue", "running", "width")

    def __init__(self, number: int) -> None:
        self.number = number
        self.width = 0
        self.running = 0
        self.queue: deque[Key] = deque()
        self.gpus_each = 0
        self.gpus_given: list[str] = []
        self.gpus_free: list[str] = []
        self.gpus_used: set[str] = set()

    def has_room(self) -> bool:
        """Whether one more may run now."""
        return self.running < self.width and len(self.gpus_free) >= self.gpus_each


class Attempt:
    """A running attempt. ``outcome`` is set once it is being ended by us; ``waited`` once its first process is gone."""

    __slots__ = (
        "deadline_us",
        "gpus",
        "is_told",
        "item",
        "kill_at_us",
        "mark",
        "outcome",
        "passed",
        "pid",
        "reason",
        "records",
        "rounds",
        "slot",
        "started_us",
        "step_us",
        "waited",
        "wall_us",
    )

    def __init__(self, item: Item, mark: str, slot: output.Slot | None) -> None:
        self.item = item
        self.mark = mark
        self.slot = slot
        self.pid = 0
        self.started_us = 0
        self.wall_us = 0
        self.deadline_us = NEVER
        self.gpus: list[str] = []
        self.records: list[output.Record | None] | None = None
        self.passed: list[command.CheckResult] | None = None
        self.is_told = False
        self.outcome: str | None = None
        self.reason: str | None = None
        self.kill_at_us = NEVER
        self.step_us = NEVER
        self.rounds = 0
        self.waited: tuple[int, resource.struct_rusage, int] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended by itself and only waits to be told."""
        return self.waited is not None and self.outcome is None


class Attempts:
    """Everything that waits or runs here.

    Args:
        directory: where slots, segments and large outputs lie.
        mark: what the marks of all attempts begin with; unique to this starter.
        reports: where ends and beginnings are told.
        open_input: makes standard input for an item that has it by pipe; returns the descriptor for the command.
    """

    def __init__(self, directory: str, mark: str, reports: Reports, open_input: Callable[[Key], int]) -> None:
        self.lanes: dict[int, Lane] = {}
        self.waiting: dict[Key, Item] = {}
        self.active: dict[Key, Attempt] = {}
        self.next_us = NEVER
        self.lease_us = NEVER
        self._mark = mark
        self._reports = reports
        self._open_input = open_input
        self._null_fd = os.open("/dev/null", os.O_RDWR)
        self._output = output.Output(directory, self._null_fd)
        self._children_fd = _open_children()
        self._table = processes.ProcessTable()
        self._running: dict[int, Attempt] = {}
        self._strays: dict[int, str] = {}
        self._dying: dict[str, Attempt] = {}
        self._over: list[Attempt] = []
        self._limited: dict[str, Attempt] = {}
        self._memory_us = NEVER
        self._unfilled: set[int] = set()
        self._own_peak_bytes = _own_peak_bytes()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self.active

    @property
    def wants_fill(self) -> bool:
        """Whether `fill` stopped before it was through."""
        return bool(self._unfilled)

    # What the agent asks for

    def lane(self, number: int) -> Lane:
        """Returns a lane; one not heard of yet has no width, so that nothing begins in it."""
        lane = self.lanes.get(number)
        if lane is None:
            lane = self.lanes[number] = Lane(number)
        return lane

    def set_lane(self, number: int, width: int, gpus: list[str], gpus_each: int) -> None:
        """Makes a lane or changes it; what runs in it goes on, whatever the new width."""
        lane = self.lane(number)
        lane.width = width
        lane.gpus_each = gpus_each
        lane.gpus_given = gpus
        lane.gpus_free = [gpu for gpu in gpus if gpu not in lane.gpus_used]
        self._unfilled.add(number)

    def add(self, item: Item) -> None:
        """Queues an item at the end of its lane; one that is known already changes nothing."""
        key = (item.grant, item.index)
        if key in self.waiting or key in self.active or key in self._reports:
            return
        self.waiting[key] = item
        item.lane.queue.append(key)
        self._unfilled.add(item.lane.number)

    def recall(self, key: Key) -> bool:
        """Takes an item back. Returns False if it has begun or its end is still kept; an unknown one is taken back."""
        if self.waiting.pop(key, None) is not None:
            return True
        return key not in self.active and key not in self._reports

    def kill(self, key: Key, outcome: str, reason: str | None, grace_us: int | None) -> None:
        """Ends an attempt and everything it started; one that waits ends without having begun.

        Harmless if repeated (a shorter grace counts) and for attempts that are gone.
        """
        item = self.waiting.pop(key, None)
        if item is not None:
            self._never_began(item, outcome, None, reason)
        elif key in self.active and not (attempt := self.active[key]).is_over:
            self._end_family(attempt, outcome, reason, attempt.item.spec.grace_us if grace_us is None else grace_us)

    def end_all(self, reason: str) -> None:
        """Ends everything at once, outcome node, strays of earlier attempts included."""
        for key in list(self.waiting):
            self.kill(key, "node", reason, 0)
        processes.signal_all(processes.marked_by(self._mark), signal.SIGKILL)
        for attempt in list(self.active.values()):
            if not attempt.is_over:
                self._end_family(attempt, "node", reason, 0)

    # Beginning

    def fill(self) -> None:
        """Begins what may begin, a bounded number at a time."""
        begun = 0
        for number in list(self._unfilled):
            lane = self.lanes.get(number)
            if lane is None:
                self._unfilled.discard(number)
                continue
            while lane.queue and lane.has_room():
                if begun >= _BEGUN_AT_ONCE:
                    return
                item = self.waiting.get(lane.queue.popleft())
                if item is not None and item.lane is lane:
                    begun += 1
                    self._begin(item)
            self._unfilled.discard(number)
            if not lane.width and not lane.running and not lane.queue:
                del self.lanes[number]

    def _begin(self, item: Item) -> None:
        now = now_us()
        if now >= self.lease_us:
            # Frozen and thawed between two turns of the loop: what is not ours any more must not begin.
            self.end_all("lease expired")
            return
        del self.waiting[item.grant, item.index]
        slot = None
        try:
            if item.spec.stdout is None or item.spec.stderr is None:
                slot = self._output.take()
            attempt = Attempt(item, f"{self._mark}.{item.grant}.{item.index}", slot)
            command.enter(item.spec)
            if item.checks:
                self._check_inputs(attempt)
            self._spawn(attempt, now)
        except command.CannotStart as failure:
            if slot is not None:
                self._output.give_back(slot)
            self._never_began(item, failure.outcome, failure.exit_code, failure.reason)

    def _check_inputs(self, attempt: Attempt) -> None:
        item = attempt.item
        attempt.passed = command.run_checks(item.checks, "in", item.spec.cwd)
        failed = [result.reason for result in attempt.passed if result.reason is not None]
        if failed:
            raise command.CannotStart("check", None, "; ".join(failed))

    def _spawn(self, attempt: Attempt, now: int) -> None:
        item = attempt.item
        spec = item.spec
        opened: list[int | None] = []
        gpus = item.lane.gpus_free[: item.lane.gpus_each]
        try:
            actions = self._streams(attempt, opened)
            attempt.wall_us = time.time_ns() // 1000
            environment = self._environment(attempt, gpus)
            attempt.pid = self._exec(spec, item.words, environment, actions)
        finally:
            output.close_all(opened)
        attempt.started_us = now
        lane = item.lane
        lane.running += 1
        if gpus:
            attempt.gpus = gpus
            del lane.gpus_free[: len(gpus)]
            lane.gpus_used.update(gpus)
        self.active[item.grant, item.index] = attempt
        self._running[attempt.pid] = attempt
        self._watch(attempt, now)

    def _watch(self, attempt: Attempt, now: int) -> None:
        spec = attempt.item.spec
        due = now + TELL_AFTER_US
        if spec.time_limit_us:
            attempt.deadline_us = now + spec.time_limit_us
            due = min(due, attempt.deadline_us)
        if spec.memory_bytes:
            self._limited[attempt.mark] = attempt
            if self._memory_us == NEVER:
                self._memory_us = now + MEMORY_EVERY_US
                due = min(due, self._memory_us)
        if due < self.next_us:
            self.next_us = due

    def _streams(self, attempt: Attempt, opened: list[int | None]) -> output.FileActions:
        item = attempt.item
        spec = item.spec
        slot = attempt.slot
        if spec.stdin == "null" and spec.stdout is None and spec.stderr is None and slot is not None:
            return slot.actions
        job = (spec.batch, item.index, item.attempt)
        out_fd, err_fd, records = output.open_user_files(spec, job)
        opened += [out_fd, err_fd]
        attempt.records = records
        stdin_fd = self._null_fd
        if spec.stdin == "pipe":
            stdin_fd = self._open_input((item.grant, item.index))
            opened.append(stdin_fd)
        elif spec.stdin != "null":
            stdin_fd = _open_input_file(spec.stdin)
            opened.append(stdin_fd)
        own = slot.descriptors if slot is not None else (self._null_fd, self._null_fd)
        return output.file_actions(stdin_fd, own[0] if out_fd is None else out_fd, own[1] if err_fd is None else err_fd)

    def _environment(self, attempt: Attempt, gpus: list[str]) -> dict[bytes, bytes]:
        item = attempt.item
        spec = item.spec
        environment = spec.environment
        if item.env or gpus:
            environment = environment.copy()
            for name, value in (item.env or {}).items():
                environment[os.fsencode(name)] = os.fsencode(value)
        environment[b"LANAI_JOB_ID"] = b"%d/%d" % (spec.batch, item.index)
        environment[b"LANAI_INDEX"] = b"%d" % item.index
        environment[b"LANAI_ATTEMPT"] = b"%d" % item.attempt
        environment[processes.MARK] = attempt.mark.encode("ascii")
        if spec.time_limit_us:
            environment[b"LANAI_DEADLINE"] = b"%d" % ((attempt.wall_us + spec.time_limit_us) // 1_000_000)
        if gpus:
            environment[b"LANAI_GPUS"] = environment[b"CUDA_VISIBLE_DEVICES"] = os.fsencode(",".join(gpus))
        return environment

    def _exec(
        self, spec: command.Spec, line: object, environment: dict[bytes, bytes], actions: output.FileActions
    ) -> int:
        words = command.words_of(line)
        path = spec.find(words[0])
        try:
            return os.posix_spawn(path, words, environment, file_actions=actions, setsid=True, setsigmask=())
        except ValueError as error:
            raise command.CannotStart("exit", 126, f"{words[0]}: {error}") from None
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                return _exec_by_shell(path, words, environment, actions)
            if error.errno == errno.ENOENT and spec.programs.pop(words[0], None) is not None:
                # The program has moved since it was looked up; looking again raises if it is nowhere.
                return self._exec(spec, [spec.find(words[0]), *words[1:]], environment, actions)
            raise command.spawn_failure(error, path) from None

    def _never_began(self, item: Item, outcome: str, exit_code: int | None, reason: str | None) -> None:
        end = End(item.grant, item.index, item.attempt, outcome, exit_code=exit_code, reason=reason)
        self._reports.ended(end, now_us())

    # Ending

    def reap(self) -> None:
        """Takes leave of every child that has ended; what is left to be done for it is done by `settle`."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            attempt = self._running.pop(pid, None)
            if attempt is None:
                self._strays.pop(pid, None)
            else:
                attempt.waited = (status, usage, now_us())
                if attempt.outcome is None:
                    self._over.append(attempt)
                    self._leave_lane(attempt)
                else:
                    attempt.step_us = self.next_us = attempt.waited[2]

    def settle(self) -> None:
        """Looks after what `reap` took leave of: strays, output, output checks, reports.

        Apart from `reap` so that the next attempts can be begun between the two: what they would wait for is long.
        """
        over = self._over
        if not over:
            return
        self._over = []
        self._look_for_strays(over)
        for attempt in over:
            self._finish(attempt, self._alive(attempt) if self._strays else 0)

    def _look_for_strays(self, ended: list[Attempt]) -> None:
        listed = self._children()
        if listed.count(b" ") == len(self._running) + len(self._strays):
            return
        known = self._running.keys() | self._strays.keys()
        for pid in map(int, listed.split()):
            if pid not in known:
                # One that emptied its environment and made a session of its own is charged to what ended just now.
                self._strays[pid] = processes.read_mark(pid) or _mark_by_session(pid, ended) or ended[0].mark

    def _children(self) -> bytes:
        if self._children_fd < 0:
            own = os.getpid()
            return b"".join(b"%d " % one.pid for one in processes.every_process() if one.parent_pid == own)
        text = os.pread(self._children_fd, 1 << 16, 0)
        while len(text) > 3_000 and (more := os.pread(self._children_fd, 1 << 16, len(text))):
            text += more
        return text

    def _alive(self, attempt: Attempt) -> int:
        if attempt.mark not in self._strays.values():
            return 0
        return len(self._families([attempt]).get(attempt.mark, ()))

    def _leave_lane(self, attempt: Attempt) -> None:
        lane = attempt.item.lane
        lane.running -= 1
        if attempt.gpus:
            lane.gpus_used.difference_update(attempt.gpus)
            lane.gpus_free.extend(gpu for gpu in attempt.gpus if gpu in lane.gpus_given)
        self._unfilled.add(lane.number)

    def _finish(self, attempt: Attempt, escaped: int) -> None:
        if attempt.outcome is not None:
            # One that is ended by us keeps its place until the last of its family is gone.
            self._leave_lane(attempt)
            del self._dying[attempt.mark]
        item = attempt.item
        del self.active[item.grant, item.index]
        self._limited.pop(attempt.mark, None)
        end = self._end(attempt, escaped)
        self._reports.ended(end, attempt.started_us + end.wall_us)

    def _end(self, attempt: Attempt, escaped: int) -> End:
        assert attempt.waited is not None
        status, usage, ended_us = attempt.waited
        item = attempt.item
        outcome, exit_code, signal_number, reason = _judge(attempt, status)
        if outcome == "ok" and item.checks:
            outcome, reason = self._check_outputs(attempt)
        records = attempt.records
        if attempt.slot is not None:
            job = (item.spec.batch, item.index, item.attempt)
            own = self._output.collect(attempt.slot, job, escaped > 0)
            records = own if records is None else _merge(records, own)
        return End(
            item.grant,
            item.index,
            item.attempt,
            outcome,
            exit_code,
            signal_number,
            attempt.wall_us,
            ended_us - attempt.started_us,
            int(usage.ru_utime * 1_000_000),
            int(usage.ru_stime * 1_000_000),
            self._peak_bytes(usage.ru_maxrss << 10),
            reason,
            records,
            [[*one.check, one.reason] for one in attempt.passed] if attempt.passed else None,
            escaped,
        )

    def _check_outputs(self, attempt: Attempt) -> tuple[str, str | None]:
        item = attempt.item
        try:
            made = command.run_checks(item.checks, "out", item.spec.cwd)
        except command.CannotStart as failure:
            return failure.outcome, failure.reason
        attempt.passed = (attempt.passed or []) + made
        failed = [result.reason for result in made if result.reason is not None]
        return ("check", "; ".join(failed)) if failed else ("ok", None)

    def _peak_bytes(self, peak_bytes: int) -> int | None:
        # A spawned process starts with the peak of the one that spawned it, so a smaller figure says nothing.
        if peak_bytes <= self._own_peak_bytes:
            return None
        self._own_peak_bytes = _own_peak_bytes()
        return peak_bytes if peak_bytes > self._own_peak_bytes else None

    # Limits and families

    def _end_family(self, attempt: Attempt, outcome: str, reason: str | None, grace_us: int) -> None:
        now = now_us()
        if attempt.outcome is None:
            attempt.outcome = outcome
            attempt.reason = reason
            self._dying[attempt.mark] = attempt
            if grace_us > 0:
                family = self._families([attempt]).get(attempt.mark, ())
                processes.signal_all(family, signal.SIGTERM)
                # A stopped process takes a signal only once it goes on.
                processes.signal_all(family, signal.SIGCONT)
        attempt.kill_at_us = min(attempt.kill_at_us, now + max(grace_us, 0))
        attempt.step_us = min(attempt.step_us, attempt.kill_at_us)
        self.next_us = min(self.next_us, attempt.step_us)

    def _families(self, attempts: Iterable[Attempt]) -> dict[str, list[processes.Process]]:
        wanted = list(attempts)
        marks = {one.mark for one in wanted}
        found = self._table.owned({one.pid: one.mark for one in wanted}, marks)
        for pid, mark in self._strays.items():
            family = found.setdefault(mark, [])
            if mark in marks and all(one.pid != pid for one in family) and (stray := processes.read_process(pid)):
                family.append(stray)
        return found

    def tick(self, now: int) -> None:
        """Does what is due: beginnings to tell, limits, memory, families to be ended. Sets ``next_us`` anew."""
        for attempt in list(self._running.values()):
            if not attempt.is_told and now >= attempt.started_us + TELL_AFTER_US:
                attempt.is_told = True
                item = attempt.item
                slot = None if attempt.slot is None else attempt.slot.number
                self._reports.started(item.grant, item.index, item.attempt, attempt.pid, attempt.wall_us, slot)
            if now >= attempt.deadline_us and attempt.outcome is None:
                limit_s = attempt.item.spec.time_limit_us / 1_000_000
                self._end_family(attempt, "time", f"time limit of {limit_s:g} s", attempt.item.spec.grace_us)
        if now >= self._memory_us:
            self._watch_memory(now)
        due = [attempt for attempt in self._dying.values() if now >= attempt.step_us]
        if due:
            families = self._families(due)
            for attempt in due:
                self._step(attempt, families.get(attempt.mark, []), now)
        self.next_us = min(map(_next_of, self.active.values()), default=NEVER)
        self.next_us = min(self.next_us, self._memory_us)

    def _step(self, attempt: Attempt, family: list[processes.Process], now: int) -> None:
        if attempt.waited is not None and (not family or attempt.rounds >= _KILL_ROUNDS):
            self._finish(attempt, len(family))
        elif now >= attempt.kill_at_us:
            processes.signal_all(family, signal.SIGKILL)
            attempt.rounds += 1
            # What cannot be killed yet (it is in the kernel) is asked for less and less often.
            attempt.step_us = now + _POLL_US * min(1 + attempt.rounds // 10, 20) // 5
        else:
            attempt.step_us = min(attempt.kill_at_us, now + _POLL_US)

    def _watch_memory(self, now: int) -> None:
        old = [one for one in self._limited.values() if now - one.started_us >= _MEMORY_MIN_AGE_US]
        families = self._families(old) if old else {}
        for attempt in old:
            used_bytes = sum(process.resident_bytes for process in families.get(attempt.mark, ()))
            limit_bytes = attempt.item.spec.memory_bytes
            if used_bytes > limit_bytes and attempt.outcome is None:
                reason = f"memory limit of {limit_bytes} bytes: {used_bytes} in use"
                self._end_family(attempt, "memory", reason, 0)
        self._memory_us = now + MEMORY_EVERY_US if self._limited else NEVER


def _next_of(attempt: Attempt) -> int:
    if attempt.outcome is not None:
        return attempt.step_us
    tell_us = NEVER if attempt.is_told else attempt.started_us + TELL_AFTER_US
    return min(tell_us, attempt.deadline_us)


def _judge(attempt: Attempt, status: int) -> tuple[str, int | None, int | None, str | None]:
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    exit_code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    if attempt.outcome is not None:
        return attempt.outcome, exit_code, signal_number, attempt.reason
    if signal_number is not None:
        return "signal", None, signal_number, None
    return ("exit" if exit_code else "ok"), exit_code, None, None


def _merge(named: list[output.Record | None], own: list[output.Record | None] | None) -> list[output.Record | None]:
    if own is None:
        return named
    return [theirs or ours for theirs, ours in zip(named, own, strict=True)]


def _exec_by_shell(path: str, words: list[str], environment: dict[bytes, bytes], actions: output.FileActions) -> int:
    try:
        return os.posix_spawn(
            "/bin/sh", ["sh", path, *words[1:]], environment, file_actions=actions, setsid=True, setsigmask=()
        )
    except OSError as error:
        raise command.spawn_failure(error, "/bin/sh") from None


def _open_input_file(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise command.node_or(error, "exit", 126, f"standard input {path}") from None
        raise command.CannotStart("exit", 126, f"standard input: {error}") from None


def _mark_by_session(pid: int, ended: list[Attempt]) -> str | None:
    process = processes.read_process(pid)
    session = 0 if process is None else process.session
    return next((one.mark for one in ended if one.pid == session), None)


def _own_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _open_children() -> int:
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN: the whole table is read instead.
        return -1
