"""Which processes belong to an attempt, and how to signal them; read from /proc.

Standard library only: the starter uses this, and the agent when a starter has died. Nothing here remembers an attempt;
the caller says what to look for. A process belongs to an attempt if it is in the attempt's session, descends from a
process that does, or carries the attempt's mark (``LANAI_MARK``) in its environment, as orphans that made a session of
their own still do.
"""

import errno
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

MARK = b"LANAI_MARK"
_MARK_ASSIGNED = MARK + b"="
_ENVIRON_LIMIT_BYTES = 4 << 20
_MARK_LIMIT_BYTES = 255
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """One line of the process table. ``started_ticks`` tells a process from a later one with the same number."""

    pid: int
    parent_pid: int
    session: int
    started_ticks: int
    resident_bytes: int


def read_process(pid: int) -> Process | None:
    """Returns the living process of that number; None if there is none or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
            text = stat.read(4096)
    except OSError:
        return None
    # The name may hold blanks and parentheses, so the fields are counted from its last parenthesis.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 22 or fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), int(fields[21]) * _PAGE_BYTES)


def read_mark(pid: int) -> str | None:
    """Returns the attempt's mark in a process's environment; None if it has none or may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as environ:
            text = _read_all(environ.read)
    except OSError:
        return None
    # Not taken apart: whoever wants to hold us up may have an environment of millions of variables.
    begin = (b"\0" + text).find(b"\0" + _MARK_ASSIGNED)
    if begin < 0:
        return None
    begin += len(_MARK_ASSIGNED)
    return text[begin : begin + _MARK_LIMIT_BYTES].partition(b"\0")[0].decode("ascii", "replace")


def _read_all(read: Callable[[int], bytes | None]) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while size < _ENVIRON_LIMIT_BYTES and (piece := read(1 << 16)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


class ProcessTable:
    """Looks through /proc and remembers the marks it has read, since reading an environment costs the most.

    A mark is remembered for as long as the process lives. A process that had none when it was looked at can only get
    one by being forked anew, so that this is safe.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[int, int], str | None] = {}

    def owned(self, sessions: Mapping[int, str], marks: Iterable[str]) -> dict[str, list[Process]]:
        """Finds every living process of some attempts.

        Args:
            sessions: the mark of the attempt whose session it is, by session number.
            marks: all marks looked for; those of ``sessions`` included.

        Returns:
            The processes by mark; attempts with none are left out.
        """
        wanted = set(marks)
        table = {process.pid: process for process in every_process()}
        found: dict[int, str | None] = {}
        seen: dict[tuple[int, int], str | None] = {}
        own = os.getpid()

        def owner(process: Process) -> str | None:
            chain: list[int] = []
            mark: str | None = None
            current: Process | None = process
            while current is not None and current.pid != own:
                if current.pid in found:
                    mark = found[current.pid]
                    break
                chain.append(current.pid)
                mark = sessions.get(current.session) or self._mark_of(current, seen)
                if mark in wanted:
                    break
                mark = None
                current = table.get(current.parent_pid)
            for pid in chain:
                found[pid] = mark
            return mark

        groups: dict[str, list[Process]] = {}
        for process in table.values():
            mark = owner(process)
            if mark is not None:
                groups.setdefault(mark, []).append(process)
        self._marks = seen
        return groups

    def _mark_of(self, process: Process, seen: dict[tuple[int, int], str | None]) -> str | None:
        identity = (process.pid, process.started_ticks)
        if identity not in seen:
            known = identity in self._marks
            seen[identity] = self._marks[identity] if known else read_mark(process.pid)
        return seen[identity]


def every_process() -> Iterable[Process]:
    """Yields every living process that can be seen."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := read_process(int(name))) is not None:
            yield process


def descendants(pid: int) -> list[Process]:
    """Returns every living process that descends from that one."""
    children: dict[int, list[Process]] = {}
    for process in every_process():
        children.setdefault(process.parent_pid, []).append(process)
    found: list[Process] = []
    parents = [pid]
    while parents:
        some = children.pop(parents.pop(), [])
        found += some
        parents += [process.pid for process in some]
    return found


def signal_all(processes: Iterable[Process], signal_number: int) -> None:
    """Signals each process; those that have gone meanwhile, or may not be signalled, are passed over.

    Their numbers may be others' by now: there is time between the look at the table and this, and who wants root to end
    another's process makes many, and lets them go.
    """
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            _signal(process, signal_number)


def _signal(process: Process, signal_number: int) -> None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError as error:
        if error.errno == errno.ESRCH:
            return
        descriptor = -1  # an old kernel, or no descriptor left: then there is a moment in which it may be another's
    try:
        now = read_process(process.pid)
        if now is None or now.started_ticks != process.started_ticks:
            return
        if descriptor < 0:
            os.kill(process.pid, signal_number)
        else:
            signal.pidfd_send_signal(descriptor, signal_number)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def marked_by(starter_mark: str) -> list[Process]:
    """Returns every living process that a starter's attempts left, by the starter's own mark (for a dead starter)."""
    prefix = starter_mark + "."
    return [process for process in every_process() if (read_mark(process.pid) or "").startswith(prefix)]
