"""The jobs that have ended, batch by batch and each with its last attempt: what a hub has to tell of its past.

Read a page at a time inside the caller's read transaction; nothing is written.
"""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import msgspec

from lanai.model.ids import BatchId
from lanai.model.job import FINAL
from lanai.model.resources import Shape
from lanai.store.packing import unpack_runs, unpack_settings, unpack_shape
from lanai.store.queries import statements
from lanai.store.standing import Job, LastAttempt, Standing

SQL: Final = statements("read")
_ENDED: Final = frozenset(str(state) for state in FINAL)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What of the past is asked for.

    Attributes:
        after: (batch, index): only what comes after that job, in the order of the two.
        since_us: only of batches that were submitted then or later.
        user: only his; None: everybody's.
        limit: jobs of a page, at most.
    """

    after: tuple[int, int] = (0, 0)
    since_us: int = 0
    user: str | None = None
    limit: int = 1000


class PastBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Whose, and as what, some jobs were submitted; account and service are empty where the batch named none."""

    batch: BatchId
    user: str
    account: str
    service: str
    submitted_at_us: int


class PastJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has ended, and its last attempt. `node` is a name, or empty; `shape` is what it asked for by then."""

    of: PastBatch
    index: int
    state: str
    shape: Shape
    node: str
    started_at_us: int
    wall_us: int
    cpu_us: int
    memory_peak_bytes: int | None


class Page(msgspec.Struct):
    """Some of the past.

    Attributes:
        jobs: by batch, then by index.
        never_started: how many jobs besides have ended without a command that began.
        following: what to go on after; None where no more are left. A page may have no jobs and yet be followed.
    """

    jobs: list[PastJob]
    never_started: int
    following: tuple[int, int] | None


def read_page(db: sqlite3.Connection, asked: Asked, for_s: float) -> Page:
    """The next jobs of the past, for about so long at most."""
    page = Page([], 0, None)
    until = time.monotonic() + for_s
    names: dict[int, str] = dict(db.execute(SQL["node_names"]).fetchall())
    first, after = asked.after
    for batch in _batches(db, first, asked):
        following: int | None = after if batch.batch == first else 0
        standing, shapes = Standing(db, batch.batch), _Shapes(db, batch.batch)
        while following is not None:
            jobs, following = standing.jobs(following, _ENDED, None)
            room = asked.limit - len(page.jobs)
            if len(jobs) > room:
                jobs, following = jobs[:room], jobs[room - 1].index
            for job in jobs:
                _add(page, batch, job, shapes, names)
            if len(page.jobs) == asked.limit or time.monotonic() >= until:
                page.following = (batch.batch, following) if following is not None else (batch.batch + 1, 0)
                return page
    return page


def _batches(db: sqlite3.Connection, first: int, asked: Asked) -> Iterator[PastBatch]:
    wanted = {"first": first, "since": asked.since_us, "user": asked.user}
    for batch, user, settings_pack, submitted_at_us in db.execute(SQL["past_batches"], wanted):
        settings = unpack_settings(settings_pack)
        yield PastBatch(
            batch=batch,
            user=user,
            account=settings.account,
            service=settings.service,
            submitted_at_us=submitted_at_us,
        )


def _add(page: Page, batch: PastBatch, job: Job, shapes: _Shapes, names: dict[int, str]) -> None:
    last: LastAttempt | None = job.last
    if last is None or not last[9]:
        page.never_started += 1
        return
    page.jobs.append(
        PastJob(
            of=batch,
            index=job.index,
            state=job.state,
            shape=shapes.of(job.index),
            node=names.get(last[4], ""),
            started_at_us=last[9],
            wall_us=last[11],
            cpu_us=last[12] + last[13],
            memory_peak_bytes=last[14],
        )
    )


class _Shapes:
    """What the jobs of a batch ask for, asked in the order of their indices."""

    def __init__(self, db: sqlite3.Connection, batch: BatchId) -> None:
        self._db = db
        self._batch = batch
        self._shapes = {number: unpack_shape(pack) for number, pack in db.execute(SQL["shapes"], (batch,))}
        self._reshaped: list[tuple[int, int, int]] = db.execute(SQL["all_reshaped"], (batch,)).fetchall()
        self._first = self._end = 0  # of the chunk at hand
        self._runs: list[tuple[int, int]] = []  # (first index, shape) of each run of it

    def of(self, index: int) -> Shape:
        """The job's shape, after memory retries."""
        at = bisect_right(self._reshaped, index, key=lambda override: override[0]) - 1
        if at >= 0 and index <= self._reshaped[at][1]:
            return self._shapes[self._reshaped[at][2]]
        if not self._first <= index < self._end:
            self._read_chunk(index)
        return self._shapes[self._runs[bisect_right(self._runs, index, key=lambda run: run[0]) - 1][1]]

    def _read_chunk(self, index: int) -> None:
        self._first, count, runs_pack = self._db.execute(SQL["runs_of"], (self._batch, index)).fetchone()
        self._end = self._first + count
        self._runs, first = [], self._first
        for length, shape in unpack_runs(runs_pack):
            self._runs.append((first, shape))
            first += length
