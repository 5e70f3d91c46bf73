"""A hub's own history in the Standard Workload Format, version 2.2: jobs that have ended come in, lines go out.

Users, accounts, services and nodes become numbers, in the order in which they are first met; the header says which.
What the format wants and a hub does not know is -1. The header is made at the end, when all jobs are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import msgspec

STATUS: Final = {"done": 1, "failed": 0, "cancelled": 5}
SERVICE: Final = "normal"
_UNKNOWN: Final = -1


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has ended, with its last attempt. Empty texts and None are not known; times are microseconds."""

    batch: int
    state: str
    user: str
    account: str
    service: str
    node: str
    nodes: int
    cpu_milli: int
    memory_bytes: int
    time_limit_s: float | None
    submitted_at_us: int
    started_at_us: int
    wall_s: float
    cpu_s: float
    memory_peak_bytes: int | None


class Names:
    """Names that become numbers, from 1 in the order in which they are first met."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The name's; -1 where it is empty."""
        return self._numbers.setdefault(name, len(self._numbers) + 1) if name else _UNKNOWN

    def lines(self, title: str) -> Iterator[str]:
        """`; TITLE: NUMBER NAME` of each."""
        for name, number in self._numbers.items():
            yield f"; {title}: {number} {' '.join(name.split())}\n"

    def __len__(self) -> int:
        return len(self._numbers)


class Writer:
    """Turns jobs into lines, and keeps what the header will say of them."""

    def __init__(self) -> None:
        self.jobs = 0
        self.users = Names()
        self._accounts = Names()
        self._services = Names()
        self._nodes = Names()
        self._widest = 0
        self._last_end_s = 0

    def fields(self, job: Ended) -> str:
        """Fields 3 to 18 of a job, with a newline. The first two are its number and its submission.

        A run is rounded up to whole seconds, so that what has run is no job of 0 s; so are cpus, for each of its nodes.
        """
        width = max(1, -(-job.cpu_milli // 1000)) * job.nodes
        submit, start, run = second(job.submitted_at_us), second(job.started_at_us), _up(job.wall_s)
        self.jobs += 1
        self._widest = max(self._widest, width)
        self._last_end_s = max(self._last_end_s, start + run)
        fields = (
            max(0, start - submit),
            run,
            width,
            f"{job.cpu_s / width:.2f}",
            _UNKNOWN if job.memory_peak_bytes is None else job.memory_peak_bytes // 1024 // width,
            width,
            _up(job.time_limit_s) if job.time_limit_s else _UNKNOWN,
            -(-job.memory_bytes * job.nodes // 1024 // width) if job.memory_bytes else _UNKNOWN,
            STATUS.get(job.state, _UNKNOWN),
            self.users.number(job.user),
            self._accounts.number(job.account),
            job.batch,
            self._services.number(job.service or SERVICE),
            self._nodes.number(job.node),
            _UNKNOWN,
            _UNKNOWN,
        )
        return " ".join(map(str, fields)) + "\n"

    def header(self, *, hub: str, cpus: int, nodes: int, first_us: int, never_started: int) -> Iterator[str]:
        """The header's lines.

        Args:
            hub: what the hub is called.
            cpus: of all its nodes; where a job was wider, that counts.
            nodes: how many it has.
            first_us: the first submission of all, from which times are counted; 0 where there is none.
            never_started: jobs that have ended and are left out.
        """
        yield "; Version: 2.2\n"
        yield f"; Computer: Lanai hub {hub}\n"
        yield f"; MaxJobs: {self.jobs}\n; MaxRecords: {self.jobs}\n"
        yield f"; UnixStartTime: {second(first_us)}\n; TimeZoneString: Etc/UTC\n"
        yield f"; StartTime: {_day(second(first_us))}\n; EndTime: {_day(max(self._last_end_s, second(first_us)))}\n"
        yield f"; MaxNodes: {max(1, nodes)}\n; MaxProcs: {max(1, cpus, self._widest)}\n"
        yield "; Note: each job with its last attempt; run times are rounded up, as are cpus\n"
        yield f"; Note: {never_started} jobs that ended without having begun are left out\n"
        yield "; Note: field 13 is the account (group), 14 the batch, 15 the service (queue), 16 the node\n"
        yield f"; Queues: {len(self._services)}\n; Partitions: {len(self._nodes)}\n"
        yield from self.users.lines("User")
        yield from self._accounts.lines("Group")
        yield from self._services.lines("Queue")
        yield from self._nodes.lines("Partition")


def second(at_us: int) -> int:
    """The second in which a time lies."""
    return at_us // 1_000_000


def _up(length_s: float) -> int:
    whole = int(length_s)
    return max(1, whole + (length_s > whole))


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")
