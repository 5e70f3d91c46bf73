"""Jobs as answers show them: what the store has of them, and what the hub knows of those at nodes right now.

The store alone tells a job's state but for one thing: whether a granted job has begun, and, until the
grant is on disk, that it was granted. So a page is read from the store, and for those of it that wait or are granted
the hub is asked. Every state shown was true at some moment while the question was being answered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from lanai.api.answers import VERSION, encoded, encoded_lines, rfc3339, seconds
from lanai.api.asking import shape_shown
from lanai.api.hublink import HubLink
from lanai.api.output import END, Kept, Piece, WantedOutput, from_node, from_store, nothing
from lanai.api.view import View
from lanai.model.access import Caller
from lanai.model.ids import BatchId, Index
from lanai.model.job import FINAL, JobState, Outcome
from lanai.model.ranges import Ranges
from lanai.store.failures import FailureGroup
from lanai.store.reader import AttemptView, BatchRow, JobView

SPAN_JOBS: Final = 20_000
"""How many indices the hub is asked about at once, so that its answer stays within a frame."""

STDERR_LINES: Final = 5
STDERR_CHARACTERS: Final = 2_000


_ENDED_AS: Final[dict[str, JobState]] = {
    Outcome.OK: JobState.DONE,
    Outcome.CANCELLED: JobState.CANCELLED,
    Outcome.PREEMPTED: JobState.CANCELLED,
}
"""How an attempt itself ended. What is stored with it is how its job stood afterwards: `queued` where it is retried."""


class InFlight(msgspec.Struct, frozen=True):
    """An attempt at a node; `started_at_us` is 0 until it is known to have begun. `others` are its further nodes."""

    index: int
    attempt: int
    node: str
    grant: int
    started_at_us: int
    others: list[str] = []


class Live:
    """What the hub knows of a page's jobs: those at nodes, and why the others wait."""

    def __init__(self) -> None:
        self._flying: dict[int, InFlight] = {}
        self._reasons: list[tuple[int, int, str]] = []

    def take(self, said: Mapping[str, Any]) -> None:
        """Take the hub's answer for one span; spans come in ascending order."""
        self._flying.update((item[0], InFlight(*item)) for item in said["items"])
        self._reasons += [(first, last, text) for first, last, text in said["waiting"]]

    def flying(self, index: int) -> InFlight | None:
        """The job's attempt at a node."""
        return self._flying.get(index)

    def reason(self, index: int) -> str:
        """Why it waits, or empty."""
        at = bisect_right(self._reasons, index, key=lambda span: span[0]) - 1
        return self._reasons[at][2] if at >= 0 and index <= self._reasons[at][1] else ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a page is to show: after an index, of some states (none: any), within ranges (None: all)."""

    after: int
    limit: int
    states: frozenset[str]
    ranges: Ranges | None


class Jobs:
    """Questions about jobs."""

    def __init__(self, link: HubLink, view: View) -> None:
        self._link = link
        self._view = view

    async def page(self, caller: Caller, row: BatchRow, wanted: Wanted, *, as_lines: bool) -> tuple[bytes, int | None]:
        """The next jobs in order of index, and the index to go on after, None where none are left.

        They come as one JSON object, or with `as_lines` each as one on a line. A page may hold none and yet be followed
        by others.
        """
        found, following = await self._view.ask(
            lambda reader: reader.jobs(
                row.batch, after=wanted.after, limit=wanted.limit, states=wanted.states, ranges=wanted.ranges
            )
        )
        live = await self._live(caller, row, found)

        def page() -> bytes:
            jobs = [shown(job, live) for job in found]
            if wanted.states:
                jobs = [job for job in jobs if job["state"] in wanted.states]
            if as_lines:
                return encoded_lines(jobs)
            return encoded({"version": VERSION, "batch": row.batch, "jobs": jobs, "next": following})

        return await self._view.compute(page), following

    async def one(self, caller: Caller, row: BatchRow, index: Index) -> dict[str, Any]:
        """One job."""
        return (await self.with_attempts(caller, row, index))[0]

    async def with_attempts(
        self, caller: Caller, row: BatchRow, index: Index
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """One job, and every attempt at it, the first one first."""
        detail = await self._view.ask(lambda reader: reader.job(row.batch, index))
        job = shown(detail.job, await self._live(caller, row, [detail.job]))
        job.setdefault("nodes", None)
        job["asked"] = shape_shown(msgspec.to_builtins(detail.shape))
        attempts = [_attempt_shown(attempt) for attempt in detail.attempts]
        if job["state"] in (JobState.LOCKED, JobState.RUNNING):
            names = ("state", "node", "started_at", "nodes")
            attempts.append({"attempt": job["attempts"], **{name: job[name] for name in names}})
        elif attempts:
            job["nodes"] = attempts[-1]["nodes"]
        return job, attempts

    async def failures(self, row: BatchRow, limit: int) -> dict[str, Any]:
        """Failed jobs by cause, the largest group first, with the first of each as examples; and how many are left."""
        found = await self._view.ask(lambda reader: reader.failures(row.batch, limit=limit))
        groups = [_group_shown(row.batch, group) for group in found.groups]
        return {"groups": groups, "more_groups": found.more_groups, "more_jobs": found.more_jobs}

    async def output(self, job: Mapping[str, Any], wanted: WantedOutput, *, tail_only: bool) -> AsyncIterator[Piece]:
        """The output of a job's attempt, from where it is."""
        has_ended = wanted.attempt < job["attempts"] if wanted.attempt else job["state"] in FINAL
        attempt = wanted.attempt or (job["attempts"] if has_ended or tail_only else 0)
        kept = await self._kept(wanted, attempt)
        if kept is not None and (tail_only or kept.is_enough(wanted.offsets)):
            pieces = from_store(wanted, kept, "")
        elif tail_only or (job["state"] in FINAL and not attempt):
            pieces = nothing("nothing of its output is kept here")
        else:
            pieces = self._from_node(msgspec.structs.replace(wanted, attempt=attempt), attempt or job["attempts"])
        async for piece in pieces:
            yield piece

    async def _from_node(self, wanted: WantedOutput, attempt: int) -> AsyncIterator[Piece]:
        has_begun = False
        async for piece in from_node(self._link, wanted):
            if piece[0] == END and piece[2] and not has_begun:
                # The node is gone, or has it no more: the tail is better than nothing, and may have come meanwhile.
                kept = await self._kept(wanted, attempt)
                if kept is not None:
                    async for late in from_store(wanted, kept, piece[2]):
                        yield late
                    return
            has_begun = True
            yield piece

    async def _kept(self, wanted: WantedOutput, attempt: int) -> Kept | None:
        if not attempt:
            return None
        tail = await self._view.ask(lambda reader: reader.tail(wanted.batch, wanted.index, attempt))
        if tail is None:
            return None
        return Kept(out=tail.out, err=tail.err, out_bytes=tail.out_bytes, err_bytes=tail.err_bytes)

    async def _live(self, caller: Caller, row: BatchRow, page: Sequence[JobView]) -> Live:
        """What the hub knows of a page."""
        live = Live()
        if row.state == "ended":
            return live
        asked = [job["index"] for job in page if job["state"] in (JobState.QUEUED, JobState.LOCKED)]
        for first, last in _spans(asked):
            live.take(await self._link.command(caller, "in_flight", batch=row.batch, first=first, last=last))
        return live


def shown(job: JobView, live: Live) -> dict[str, Any]:
    """One job as answers show it."""
    flying = live.flying(job["index"])
    state, attempts, node, started_at_us = job["state"], job["attempts"], job["node"], job["started_at_us"]
    is_ended = True
    nodes: list[str] = []
    if flying is not None and _is_current(job, flying):
        state = JobState.RUNNING if flying.started_at_us else JobState.LOCKED
        attempts, node, started_at_us = flying.attempt, flying.node, flying.started_at_us
        is_ended = False
        nodes = [flying.node, *flying.others] if flying.others else []
    seen = {
        "id": job["id"],
        "batch": job["batch"],
        "index": job["index"],
        "state": state,
        "command": job["command"],
        "attempts": attempts,
        "exit_code": job["exit_code"] if is_ended else None,
        "signal": job["signal"] if is_ended else None,
        "outcome": job["outcome"] if is_ended else None,
        "node": node or None,
        "submitted_at": rfc3339(job["submitted_at_us"]),
        "started_at": rfc3339(started_at_us or 0),
        "ended_at": rfc3339(job["ended_at_us"] or 0) if is_ended else None,
        "wall_s": _seconds(job["wall_us"]) if is_ended else None,
        "cpu_user_s": _seconds(job["cpu_user_us"]) if is_ended else None,
        "cpu_system_s": _seconds(job["cpu_system_us"]) if is_ended else None,
        "memory_peak_bytes": job["memory_peak_bytes"] if is_ended else None,
        "reason": (live.reason(job["index"]) if state == JobState.QUEUED else "") or job["reason"] or None,
    }
    return {**seen, "nodes": nodes} if nodes else seen


def _is_current(job: JobView, flying: InFlight) -> bool:
    """Whether what the hub says of a job is later than what the store says."""
    if job["state"] == JobState.LOCKED:
        return flying.attempt >= job["attempts"]
    return job["state"] == JobState.QUEUED and flying.attempt > job["attempts"]


def _attempt_shown(attempt: AttemptView) -> dict[str, Any]:
    return {
        "attempt": attempt["attempt"],
        "state": _ENDED_AS.get(attempt["outcome"] or "", JobState.FAILED),
        "outcome": attempt["outcome"],
        "exit_code": attempt["exit_code"],
        "signal": attempt["signal"],
        "node": attempt["node"] or None,
        "started_at": rfc3339(attempt["started_at_us"] or 0),
        "ended_at": rfc3339(attempt["ended_at_us"] or 0),
        "wall_s": seconds(attempt["wall_us"]),
        "cpu_user_s": seconds(attempt["cpu_user_us"]),
        "cpu_system_s": seconds(attempt["cpu_system_us"]),
        "memory_peak_bytes": attempt["memory_peak_bytes"],
        "reason": attempt["reason"] or None,
        "nodes": [attempt["node"], *attempt["others"]] if attempt["others"] else None,
    }


def _group_shown(batch: BatchId, group: FailureGroup) -> dict[str, Any]:
    return {
        "outcome": group.outcome,
        "exit_code": group.exit_code,
        "signal": group.signal,
        "reason": group.reason or None,
        "count": group.count,
        "examples": [
            {
                "id": f"{batch}/{example.index}",
                "index": example.index,
                "attempt": example.attempt,
                "node": example.node or None,
                "command": example.command,
                "reason": example.reason or None,
                "stderr": "" if example.tail is None else _first_lines(example.tail.err),
            }
            for example in group.examples
        ],
    }


def _seconds(length_us: int | None) -> float | None:
    return None if length_us is None else seconds(length_us)


def _spans(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending indices as (first, last) of at most `SPAN_JOBS` each."""
    first = last = None
    for index in indices:
        if first is None or last is None:
            first = index
        elif index - first >= SPAN_JOBS:
            yield first, last
            first = index
        last = index
    if first is not None and last is not None:
        yield first, last


def _first_lines(raw: bytes) -> str:
    lines = raw.decode("utf-8", "replace").strip("\n").splitlines()[:STDERR_LINES]
    return "\n".join(lines)[:STDERR_CHARACTERS]
