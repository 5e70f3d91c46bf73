"""How jobs fared that have ended: sums over attempts by user, account, service or batch, made by SQL.

Attempts are read in the order in which they were written, in pieces that are transactions of their own, so that a
million of them keep nobody from writing. Each piece is summed up by SQL for each batch; what of that belongs together
is added up here. Batches whose jobs ask for different things are summed up by runs of jobs that ask for the same.
Percentiles go by a sample: every attempt up to `SAMPLED` of them, else every so many.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final, Literal, TypeAlias

import msgspec

from lanai.model.ids import BatchId
from lanai.model.policy import DEFAULT_SERVICE, NO_ACCOUNT
from lanai.model.resources import Shape
from lanai.store.packing import unpack_runs, unpack_settings, unpack_shape
from lanai.store.queries import statements

SQL: Final = statements("statistics")
PIECE_ROWS: Final = 20_000
SAMPLED: Final = 50_000
TAU_US: Final = 10_000_000
"""Of the bounded slowdown: shorter jobs count as if they ran for so long."""
RUNS: Final = 32
"""A batch with more runs of jobs that differ counts with the mean of what its jobs ask for."""

GroupBy: TypeAlias = Literal["user", "account", "service", "batch"]
Reading: TypeAlias = Callable[[], AbstractContextManager[sqlite3.Connection]]


class Fared(msgspec.Struct, kw_only=True):
    """Sums over some jobs that have ended, and their attempts.

    Attributes:
        jobs: that came to an end (`done`, `failed`, `cancelled`) by an attempt of theirs.
        allotted_us: cpus that they had, times their run times; `used_us`: what of it they have used.
        waits: how many jobs' waits are in `wait_us`; `wait_p95_us`: of a sample.
        slowdowns: how many are in `slowdown`.
        time_ratio, memory_ratio: sums of used by asked, over `timed` and `measured` jobs.
    """

    group: str
    attempts: int = 0
    jobs: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    wall_us: int = 0
    allotted_us: float = 0.0
    used_us: int = 0
    waits: int = 0
    wait_us: int = 0
    wait_max_us: int = 0
    wait_p95_us: int = 0
    slowdowns: int = 0
    slowdown: float = 0.0
    timed: int = 0
    time_ratio: float = 0.0
    measured: int = 0
    memory_ratio: float = 0.0

    def add(self, sums: Sums, asked: Shape) -> None:
        """So much more, of jobs that ask for `asked`."""
        self.attempts += sums.attempts
        self.jobs += sums.done + sums.failed + sums.cancelled
        self.done += sums.done
        self.failed += sums.failed
        self.cancelled += sums.cancelled
        self.wall_us += sums.wall_us
        self.allotted_us += sums.wall_us * asked.cpu_milli * asked.nodes / 1000
        self.used_us += sums.used_us
        self.waits += sums.waits
        self.wait_us += sums.wait_us
        self.wait_max_us = max(self.wait_max_us, sums.wait_max_us)
        self.slowdowns += sums.slowdowns
        self.slowdown += sums.slowdown
        if asked.time_limit_us:
            self.timed += sums.done
            self.time_ratio += sums.done_wall_us / asked.time_limit_us
        if asked.memory_bytes:
            self.measured += sums.measured
            self.memory_ratio += sums.peak_bytes / asked.memory_bytes


class Sums(msgspec.Struct, frozen=True, array_like=True):
    """A row of the statement `stats_piece`: of one run of one batch, within one piece."""

    batch: BatchId
    run: int
    attempts: int
    done: int
    failed: int
    cancelled: int
    wall_us: int
    used_us: int
    waits: int
    wait_us: int
    wait_max_us: int
    slowdowns: int
    slowdown: float
    done_wall_us: int
    measured: int
    peak_bytes: float


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """The groups, those with the most cpu time first, how many more there are, and everything together.

    `sampled`: of how many attempts one is in the sample that percentiles go by; 1: of each.
    """

    groups: list[Fared]
    more: int
    total: Fared
    sampled: int


class _Known(msgspec.Struct, frozen=True):
    """What has to be known of a batch. `runs`: (first, last, what its jobs ask for)."""

    user: str
    account: str
    service: str
    submitted_at_us: int
    runs: list[tuple[int, int, Shape]]


def read(reading: Reading, *, by: GroupBy, since_us: int = 0, only: str | None = None, most: int = 100) -> Statistics:
    """Sums over all attempts that ended at or after `since_us`.

    Args:
        reading: opens a read transaction.
        only: groups are made of this user's batches alone; the total is everybody's.
        most: groups, at most.
    """
    with reading() as db:
        first, last = db.execute(SQL["stats_extent"]).fetchone()
    if first is None:
        return Statistics(groups=[], more=0, total=Fared(group=""), sampled=1)
    every = -(-(last - first + 1) // SAMPLED)
    adding = _Adding(by, only)
    known: dict[int, _Known] = {}
    for low in range(first, last + 1, PIECE_ROWS):
        high = min(last, low + PIECE_ROWS - 1)
        with reading() as db:
            _learn(db, known, low, high)
            for sums in _piece(db, low, high, since_us):
                if len(known[sums.batch].runs) == 1:
                    adding.add(known[sums.batch], sums)
            for number, wait_us in _sample(db, low, high, every, since_us):
                adding.waited(known[number], number, wait_us)
    for number, batch in known.items():
        if len(batch.runs) > 1:
            for sums in _of_runs(reading, number, batch, last, since_us):
                adding.add(batch, sums)
    return adding.result(most, every)


class _Adding:
    """Adds up by group, and in all."""

    def __init__(self, by: GroupBy, only: str | None) -> None:
        self._by = by
        self._only = only
        self._total = Fared(group="")
        self._groups: dict[str, Fared] = {}
        self._all_waits_us: list[int] = []
        self._waits_us: dict[str, list[int]] = {}

    def add(self, batch: _Known, sums: Sums) -> None:
        """So much more of a batch."""
        asked = batch.runs[sums.run][2]
        self._total.add(sums, asked)
        if self._only is None or batch.user == self._only:
            name = _group(batch, sums.batch, self._by)
            self._groups.setdefault(name, Fared(group=name)).add(sums, asked)

    def waited(self, batch: _Known, number: int, wait_us: int) -> None:
        """One job of the sample."""
        self._all_waits_us.append(wait_us)
        if self._only is None or batch.user == self._only:
            self._waits_us.setdefault(_group(batch, number, self._by), []).append(wait_us)

    def result(self, most: int, sampled: int) -> Statistics:
        """What it came to."""
        for fared in self._groups.values():
            fared.wait_p95_us = percentile(self._waits_us.get(fared.group, []), 95)
        self._total.wait_p95_us = percentile(self._all_waits_us, 95)
        groups = sorted(self._groups.values(), key=lambda fared: (-fared.allotted_us, fared.group))
        more = max(0, len(groups) - most)
        return Statistics(groups=groups[:most], more=more, total=self._total, sampled=sampled)


def percentile(values: list[int], percent: int) -> int:
    """The least of the values that so many percent of them do not pass; 0 where there are none."""
    values.sort()
    return values[max(0, -(-len(values) * percent // 100) - 1)] if values else 0


def _group(batch: _Known, number: int, by: GroupBy) -> str:
    return {"user": batch.user, "account": batch.account, "service": batch.service, "batch": str(number)}[by]


def _piece(db: sqlite3.Connection, low: int, high: int, since_us: int) -> Iterator[Sums]:
    wanted = {"low": low, "high": high, "since": since_us, "tau": TAU_US}
    return (Sums(*row) for row in db.execute(SQL["stats_piece"], wanted).fetchall())


def _of_runs(reading: Reading, number: int, batch: _Known, last_row: int, since_us: int) -> Iterator[Sums]:
    for at, (first, last, _) in enumerate(batch.runs):
        for low in range(first, last + 1, PIECE_ROWS):
            wanted = {"batch": number, "run": at, "first": low, "last": min(last, low + PIECE_ROWS - 1)}
            wanted |= {"high": last_row, "since": since_us, "tau": TAU_US}
            with reading() as db:
                rows = db.execute(SQL["stats_run"], wanted).fetchall()
            yield from (Sums(*row) for row in rows)


def _sample(db: sqlite3.Connection, low: int, high: int, every: int, since_us: int) -> Iterator[tuple[int, int]]:
    """(batch, wait) of the sampled first attempts that began. The sample is the same from call to call."""
    rows = json.dumps(list(range(low + -low % every, high + 1, every)))
    return iter(db.execute(SQL["stats_sample"], {"rows": rows, "since": since_us}).fetchall())


def _learn(db: sqlite3.Connection, known: dict[int, _Known], low: int, high: int) -> None:
    """Read of the batches of a piece what is not known yet. Those that were pruned are not there any more."""
    new = [number for (number,) in db.execute(SQL["stats_batches"], (low, high)) if number not in known]
    if not new:
        return
    listed = json.dumps(new)
    shapes: dict[int, dict[int, Shape]] = {}
    for number, shape, packed in db.execute(SQL["stats_shapes"], (listed,)):
        shapes.setdefault(number, {})[shape] = unpack_shape(packed)
    for number, user, charged, packed, submitted_at_us, total in db.execute(SQL["stats_known"], (listed,)).fetchall():
        settings = unpack_settings(packed)
        own = shapes.get(number, {0: settings.shape})
        runs = [(1, max(1, total), next(iter(own.values())))] if len(own) == 1 else list(_runs(db, number, own))
        account = charged or settings.account or NO_ACCOUNT  # an older version did not say which is charged
        known[number] = _Known(user, account, settings.service or DEFAULT_SERVICE, submitted_at_us, runs)


def _runs(db: sqlite3.Connection, batch: int, shapes: dict[int, Shape]) -> Iterable[tuple[int, int, Shape]]:
    """Which jobs of a batch ask for what. Memory retries count with what was asked for at first."""
    runs: list[tuple[int, int, int]] = []
    for first, packed in db.execute(SQL["stats_chunks"], (batch,)):
        for count, shape in unpack_runs(packed):
            if runs and runs[-1][2] == shape:
                runs[-1] = (runs[-1][0], first + count - 1, shape)
            else:
                runs.append((first, first + count - 1, shape))
            first += count
    if len(runs) > RUNS:
        return [(1, runs[-1][1], _mean([(last - first + 1, shapes[shape]) for first, last, shape in runs]))]
    return [(first, last, shapes[shape]) for first, last, shape in runs]


def _mean(asked: list[tuple[int, Shape]]) -> Shape:
    jobs = sum(count for count, _ in asked)
    return Shape(
        cpu_milli=sum(count * shape.cpu_milli * shape.nodes for count, shape in asked) // jobs,
        memory_bytes=sum(count * shape.memory_bytes for count, shape in asked) // jobs,
        time_limit_us=sum(count * shape.time_limit_us for count, shape in asked) // jobs,
    )
