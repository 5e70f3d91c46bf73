"""The families of attempts: everything an attempt has started, what of it outlives it, and how it is all ended.

Standard library only, part of the starter. The starter is a subreaper, so orphans of an attempt become its children:
as long as the kernel's list of our children is no longer than what we know of, no attempt has left anything alive, and
/proc need not be searched. What ends by a limit or by order is *dying*: SIGTERM to all of the family, a grace, SIGKILL
until nothing is left. An attempt that has a control group of its own has all of that in there: then the group is read
and killed, and the kernel watches its memory. Nothing here waits; the owner calls `step` when ``next_us`` has come.
"""

import os
import signal
from collections.abc import Iterable

from lanai.agent import starter_processes as processes
from lanai.agent.starter_attempt import NEVER, Attempt
from lanai.agent.starter_cgroups import judge

MEMORY_EVERY_US = 500_000
_MEMORY_MIN_AGE_US = 250_000
_POLL_US = 50_000
_KILL_EVERY_US = 10_000
_KILL_ROUNDS = 100


class Families:
    """Knows which processes are whose; ends attempts."""

    def __init__(self) -> None:
        self._children_fd = _open_children()
        self._table = processes.ProcessTable()
        self._strays: dict[int, str] = {}
        self._dying: dict[str, Attempt] = {}
        self._limited: dict[str, Attempt] = {}
        self._memory_us = NEVER

    # What outlives its attempt

    def reaped(self, pid: int) -> None:
        """Takes note of the end of a child that was no attempt's first process."""
        self._strays.pop(pid, None)

    def count_strays(self, over: list[Attempt], known: int, running: Iterable[int]) -> list[int]:
        """Says how many processes each of the attempts that have just ended has left alive.

        Args:
            over: the attempts.
            known: how many first processes of attempts are not yet reaped, and
            running: their numbers.
        """
        listed = self._children()
        if listed.count(b" ") != known + len(self._strays):
            self._note_new(listed, over, set(running))
        marks = set(self._strays.values())
        left = [attempt for attempt in over if attempt.leaf is not None or attempt.mark in marks]
        if not left:
            return [0] * len(over)
        families = self.of(left)
        return [len(families.get(attempt.mark, ())) for attempt in over]

    def _note_new(self, listed: bytes, over: list[Attempt], running: set[int]) -> None:
        grouped = {
            process.pid: attempt.mark
            for attempt in over
            if attempt.leaf is not None
            for process in attempt.leaf.processes()
        }
        for pid in map(int, listed.split()):
            if pid not in running and pid not in self._strays:
                mark = grouped.get(pid) or processes.read_mark(pid)
                mark = mark or _mark_by_session(pid, over) or _mark_by_output(pid, over)
                self._strays[pid] = mark or over[0].mark

    def _children(self) -> bytes:
        if self._children_fd < 0:
            own = os.getpid()
            return b"".join(b"%d " % one.pid for one in processes.every_process() if one.parent_pid == own)
        text = os.pread(self._children_fd, 1 << 16, 0)
        while len(text) > 3_000 and (more := os.pread(self._children_fd, 1 << 16, len(text))):
            text += more
        return text

    def of(self, attempts: Iterable[Attempt]) -> dict[str, list[processes.Process]]:
        """Finds all living processes of some attempts, by mark; attempts that have none are left out.

        Whoever has a leaf has all that it started in there; for others the process table is read.
        """
        sessions: dict[int, str] = {}
        grouped: dict[str, list[processes.Process]] = {}
        for attempt in attempts:
            if attempt.leaf is None:
                sessions[attempt.pid] = attempt.mark
            elif members := attempt.leaf.processes():
                grouped[attempt.mark] = members
        return grouped | self._searched(sessions) if sessions else grouped

    def _searched(self, sessions: dict[int, str]) -> dict[str, list[processes.Process]]:
        marks = set(sessions.values())
        found = self._table.owned(sessions, marks)
        for pid, mark in self._strays.items():
            if mark in marks and all(one.pid != pid for one in found.get(mark, ())):
                stray = processes.read_process(pid)
                if stray is not None:
                    found.setdefault(mark, []).append(stray)
        return found

    # How it is ended

    def began(self, attempt: Attempt, now_us: int) -> int:
        """Watches an attempt's limits from now on; returns when `step` has to be called for it."""
        spec = attempt.spec
        if spec.memory_bytes:
            self._limited[attempt.mark] = attempt
            self._memory_us = min(self._memory_us, now_us + MEMORY_EVERY_US)
        if spec.time_limit_us:
            attempt.deadline_us = now_us + spec.time_limit_us
        return min(self._memory_us, attempt.deadline_us)

    def ended(self, attempt: Attempt) -> None:
        """Forgets an attempt."""
        if attempt.outcome is not None:
            self._dying.pop(attempt.mark, None)
        if attempt.spec.memory_bytes:
            self._limited.pop(attempt.mark, None)

    def end(self, attempt: Attempt, outcome: str, reason: str | None, grace_us: int, now_us: int) -> None:
        """Begins to end an attempt and all it has started. Repeated: the first outcome and the shorter grace count."""
        if attempt.outcome is None:
            attempt.outcome = outcome
            attempt.reason = reason
            self._dying[attempt.mark] = attempt
            if grace_us > 0:
                family = self.of([attempt]).get(attempt.mark, ())
                processes.signal_all(family, signal.SIGTERM)
                # A stopped process takes a signal only once it goes on.
                processes.signal_all(family, signal.SIGCONT)
        attempt.kill_at_us = min(attempt.kill_at_us, now_us + max(grace_us, 0))
        attempt.step_us = min(attempt.step_us, attempt.kill_at_us)

    def step(self, now_us: int) -> list[tuple[Attempt, int]]:
        """Does what is due; returns the attempts of which all has been ended, with the number that could not be."""
        if now_us >= self._memory_us:
            self._watch_memory(now_us)
        due = [attempt for attempt in self._dying.values() if now_us >= attempt.step_us]
        families = self.of(due)
        done: list[tuple[Attempt, int]] = []
        for attempt in due:
            family = families.get(attempt.mark, [])
            if attempt.waited is not None and (not family or attempt.rounds >= _KILL_ROUNDS):
                done.append((attempt, len(family)))
            elif now_us >= attempt.kill_at_us:
                if attempt.leaf is not None:
                    attempt.leaf.kill()
                else:
                    processes.signal_all(family, signal.SIGKILL)
                attempt.rounds += 1
                # What cannot be killed yet (it is in the kernel) is asked for less and less often.
                attempt.step_us = now_us + _KILL_EVERY_US * min(1 + attempt.rounds // 10, 20)
            else:
                attempt.step_us = min(attempt.kill_at_us, now_us + _POLL_US)
        return done

    def next_us(self) -> int:
        """When `step` is due, limits on time apart."""
        return min([self._memory_us, *(one.step_us for one in self._dying.values())])

    def _watch_memory(self, now_us: int) -> None:
        living = [one for one in self._limited.values() if one.outcome is None and one.waited is None]
        for attempt in living:
            # What the kernel has left of it cannot end well any more, and may wait for what is gone.
            leaf = attempt.leaf
            if leaf is not None and (verdict := judge(leaf, attempt.spec.memory_bytes, None)) is not None:
                self.end(attempt, *verdict, 0, now_us)
        polled = [one for one in living if one.leaf is None or not one.leaf.has_memory]
        polled = [one for one in polled if now_us - one.started_us >= _MEMORY_MIN_AGE_US]
        families = self.of(polled)
        for attempt in polled:
            used_bytes = sum(process.resident_bytes for process in families.get(attempt.mark, ()))
            limit_bytes = attempt.spec.memory_bytes
            if used_bytes > limit_bytes:
                reason = f"memory limit of {limit_bytes} bytes: {used_bytes} in use"
                self.end(attempt, "memory", reason, 0, now_us)
        self._memory_us = now_us + MEMORY_EVERY_US if self._limited else NEVER


def _mark_by_session(pid: int, over: list[Attempt]) -> str | None:
    process = processes.read_process(pid)
    session = 0 if process is None else process.session
    return next((one.mark for one in over if one.pid == session), None)


def _mark_by_output(pid: int, over: list[Attempt]) -> str | None:
    # Of one that emptied its environment and made a session of its own, the files it writes to still tell.
    for stream in (1, 2):
        try:
            written = os.stat(f"/proc/{pid}/fd/{stream}")
        except OSError:
            continue
        for attempt in over:
            if attempt.slot is not None and os.path.samestat(written, os.fstat(attempt.slot.descriptors[stream - 1])):
                return attempt.mark
    return None


def _open_children() -> int:
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN: the whole table is read instead.
        return -1
