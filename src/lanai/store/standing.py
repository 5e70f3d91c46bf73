"""Where the jobs of one batch stand, read from SQLite a page at a time.

No row says "queued": a state is put together from a job's last attempt, the grants, the overrides and the batch's
progress, which is up to a second old. Only the indices that can be in a wanted state are looked at, so that the failed
jobs of a million cost what the failures cost. It runs inside its caller's read transaction and writes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from lanai.model.ids import BatchId
from lanai.model.job import FINAL, JobState
from lanai.model.ranges import Ranges, canonical, contains, from_indices, intersect
from lanai.store.packing import unpack_ranges
from lanai.store.queries import statements

SQL: Final = statements("read")
AT_ONCE: Final = 1000

LastAttempt = tuple[
    int, int, int, int, int, str, str, int | None, int, int, int, int, int, int, int | None, str
]  # fmt: skip
"""row, idx, attempt, grant, node, state, outcome, exit_code, signal, started_at_us, ended_at_us, wall_us, cpu_user_us,
cpu_system_us, memory_peak_bytes, reason"""


class Job(msgspec.Struct, frozen=True):
    """One job and where it stands.

    Attributes:
        state: a value of `JobState`. A granted job is `locked`: whether it has begun is not in the store.
        last: its last attempt that ended.
        granted: (grant, node, attempt) of the attempt it is granted for.
        cancelled_at_us: when it was cancelled while waiting, else 0.
    """

    index: int
    state: str
    last: LastAttempt | None
    granted: tuple[int, int, int] | None
    cancelled_at_us: int = 0


class Standing:
    """What holds for a whole batch within one transaction."""

    def __init__(self, db: sqlite3.Connection, batch: BatchId) -> None:
        self._db = db
        self._batch = batch
        first, last = db.execute(SQL["extent"], (batch,)).fetchone()
        self._all: Ranges = () if first is None else ((first, last),)
        progress = db.execute(SQL["standing"], (batch,)).fetchone()
        self._has_progress = progress is not None
        upto, pending, held = progress or (0, b"\x90", b"\x90")
        self._upto = upto
        self._held = unpack_ranges(held)
        self._pending = unpack_ranges(pending)
        self._grants = [
            (grant, node, attempt, unpack_ranges(ranges))
            for grant, node, attempt, ranges in db.execute(SQL["grants"], (batch,)).fetchall()
        ]
        self._cancelled = db.execute(SQL["cancelled"], (batch,)).fetchall()

    def jobs(self, after: int, states: frozenset[str], ranges: Ranges | None) -> tuple[list[Job], int | None]:
        """The next jobs in `states` (empty: any) and `ranges` (None: any) beyond index `after`, some thousands at most.

        Returns:
            The jobs by index, and the index to go on after, None when there are no more. The jobs may be none and yet
            there be more.
        """
        found: set[int] = set()
        horizons = []
        for source in self._sources(states):
            indices, horizon = source(after, ranges)
            found.update(indices)
            if horizon is not None:
                horizons.append(horizon)
        horizon = min(horizons) if horizons else None
        candidates = sorted(index for index in found if horizon is None or index <= horizon)
        jobs = self.of(candidates)
        return [job for job in jobs if not states or job.state in states], horizon

    def of(self, indices: list[int]) -> list[Job]:
        """Where these jobs stand; `indices` ascend and are the batch's."""
        wanted = {"indices": json.dumps(indices), "batch": self._batch}
        lasts: dict[int, LastAttempt] = {row[1]: row for row in self._db.execute(SQL["last_attempts"], wanted)}
        granted = self._granted(indices)
        return [self._job(index, lasts.get(index), granted.get(index)) for index in indices]

    def is_revived(self, row: int, index: int) -> bool:
        """Whether the job waits again although attempt `row` was to be its last: `lanai retry`."""
        return row <= self._upto and (contains(self._pending, index) or contains(self._held, index))

    def _granted(self, indices: list[int]) -> dict[int, tuple[int, int, int]]:
        granted: dict[int, tuple[int, int, int]] = {}
        for grant, node, attempt, ranges in self._grants:
            for first, last in ranges:
                for at in range(bisect_left(indices, first), bisect_right(indices, last)):
                    if attempt > granted.get(indices[at], (0, 0, 0))[2]:
                        granted[indices[at]] = (grant, node, attempt)
        return granted

    def _job(self, index: int, last: LastAttempt | None, granted: tuple[int, int, int] | None) -> Job:
        if granted is not None and (last is None or last[2] < granted[2]):
            return Job(index, JobState.LOCKED, last, granted)
        if last is not None and last[5] in FINAL and not self.is_revived(last[0], index):
            return Job(index, last[5], last, None)
        cancelled_at_us = self._cancelled_at_us(index)
        if cancelled_at_us is not None:
            return Job(index, JobState.CANCELLED, last, None, cancelled_at_us)
        return Job(index, JobState.HELD if contains(self._held, index) else JobState.QUEUED, last, None)

    def _cancelled_at_us(self, index: int) -> int | None:
        at = bisect_right(self._cancelled, index, key=lambda override: int(override[0])) - 1
        if at < 0 or self._cancelled[at][1] < index:
            return None
        return int(self._cancelled[at][2])

    # -- which indices can be in a state; each source gives the first of them beyond `after`, and how far it looked

    def _sources(self, states: frozenset[str]) -> list[_Source]:
        if not states:
            return [_within(self._all)]
        if JobState.QUEUED in states and not self._has_progress:
            return [_within(self._all)]
        sources = []
        if JobState.DONE in states:
            sources.append(self._tried("tried"))
        elif JobState.FAILED in states or JobState.CANCELLED in states:
            sources.append(self._tried("tried_not_ok"))
        spans: list[tuple[int, int]] = []
        if JobState.CANCELLED in states:
            spans += [(first, last) for first, last, _ in self._cancelled]
        if JobState.LOCKED in states:
            spans += [pair for _, _, _, ranges in self._grants for pair in ranges]
        if JobState.HELD in states:
            spans += self._held
        if JobState.QUEUED in states:
            spans += self._pending
            spans += self._fresh_queued()
        if spans:
            sources.append(_within(canonical(spans)))
        return sources

    def _tried(self, statement: str) -> _Source:
        def source(after: int, ranges: Ranges | None) -> tuple[Iterable[int], int | None]:
            if ranges is not None:
                after = max(after, ranges[0][0] - 1) if ranges else after
            rows = self._db.execute(SQL[statement], (self._batch, after, AT_ONCE)).fetchall()
            indices = [index for (index,) in rows]
            is_beyond = ranges is not None and (not ranges or not indices or indices[-1] >= ranges[-1][1])
            horizon = None if len(indices) < AT_ONCE or is_beyond else indices[-1]
            return (index for index in indices if ranges is None or contains(ranges, index)), horizon

        return source

    def _fresh_queued(self) -> Ranges:
        """Jobs that an attempt newer than the progress sent back to wait."""
        fresh_row, last_row = self._db.execute(SQL["tally"], (self._batch,)).fetchone() or (0, 0)
        if not fresh_row or last_row <= self._upto:
            return ()
        rows = (max(fresh_row, self._upto + 1), last_row, self._batch)
        return from_indices(index for (index,) in self._db.execute(SQL["fresh_queued"], rows))


_Source = Callable[[int, Ranges | None], tuple[Iterable[int], int | None]]


def _within(spans: Ranges) -> _Source:
    def source(after: int, ranges: Ranges | None) -> tuple[Iterable[int], int | None]:
        found: list[int] = []
        for first, last in spans if ranges is None else intersect(spans, ranges):
            first = max(first, after + 1)
            last_taken = min(last, first + AT_ONCE - len(found) - 1)
            found.extend(range(first, last_taken + 1))
            if len(found) == AT_ONCE:
                return found, found[-1]
        return found, None

    return source
