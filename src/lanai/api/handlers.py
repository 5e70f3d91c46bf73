"""One handler a path of docs/http-api.md: reads the question, asks the hub or the store's view, shapes the answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lanai.api import input as input_
from lanai.api import jobs, output, submit
from lanai.api.answers import answer, rfc3339, seconds, written
from lanai.api.app import Handler, caller
from lanai.api.bodies import RANGES_BYTES, decoded, streamed
from lanai.api.hublink import HubLink
from lanai.api.view import View
from lanai.model.errors import NothingThere, UserError
from lanai.model.ids import BatchId, Index
from lanai.model.job import FINAL, JobState
from lanai.model.ranges import MAX_INDEX, RangeError, Ranges, parse_ranges
from lanai.store.reader import BatchRow
from lanai.wire import messages

POLL_LIMIT_S: Final = 60.0
PAGE_LIMIT: Final = 10_000
ENDED_SHOWN: Final = 10
INPUT_PIECE_BYTES: Final = 64 << 10
RANGES_AT_ONCE: Final = 2_000
NEXT_HEADER: Final = "lanai-next"


class _Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of cancel, hold, release and retry."""

    ranges: str | None = None
    states: list[str] = []


class _Changed(msgspec.Struct, frozen=True):
    """The answer to a wish, as docs/http-api.md has it."""

    changed: int = 0
    at_nodes: int = 0
    running: int = 0
    resumed: bool = False

    def with_more(self, told: Mapping[str, Any]) -> _Changed:
        """Together with what the hub has told of one more piece."""
        counts = {name: getattr(self, name) + told.get(name, 0) for name in ("changed", "at_nodes", "running")}
        return _Changed(**counts, resumed=self.resumed or told.get("resumed", False))


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of set; None leaves what it is."""

    priority: int | None = None
    max_running: int | None = None


class _Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of stop."""

    now: bool = False


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a wish that has no more to say."""


class Handlers:
    """All of them, over one link to the hub and one view of the store."""

    def __init__(self, link: HubLink, view: View) -> None:
        self._link = link
        self._view = view
        self._jobs = jobs.Jobs(link, view)

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """(method, path, handler) of each."""
        wishes: list[tuple[str, str, Handler]] = [
            ("POST", f"/v1/batches/{{batch}}/{verb}", self._wish(verb))
            for verb in ("cancel", "hold", "release", "retry")
        ]
        about_nodes: list[tuple[str, str, Handler]] = [
            ("POST", f"/v1/nodes/{{node}}/{verb}", self._node_wish(verb)) for verb in ("drain", "resume", "remove")
        ]
        return [
            ("GET", "/v1/hub", self.hub),
            ("POST", "/v1/hub/stop", self.stop),
            ("GET", "/v1/status", self.status),
            ("POST", "/v1/batches", self.submit),
            ("GET", "/v1/batches", self.batches),
            ("GET", "/v1/batches/{batch}", self.batch),
            ("GET", "/v1/batches/{batch}/jobs", self.jobs),
            ("GET", "/v1/batches/{batch}/failures", self.failures),
            ("GET", "/v1/batches/{batch}/why", self.why),
            ("GET", "/v1/jobs/{batch}/{index}/why", self.why),
            ("POST", "/v1/batches/{batch}/set", self.change),
            ("GET", "/v1/jobs/{batch}/{index}", self.job),
            ("GET", "/v1/jobs/{batch}/{index}/output", self.output),
            ("POST", "/v1/jobs/{batch}/{index}/input", self.input),
            ("GET", "/v1/nodes", self.nodes),
            ("GET", "/v1/nodes/{node}", self.node),
            *wishes,
            *about_nodes,
        ]

    # -- the hub

    async def hub(self, request: Request) -> Response:
        """GET /v1/hub."""
        return answer(_hub_shown(await self._link.command(caller(request), "hub")))

    async def stop(self, request: Request) -> Response:
        """POST /v1/hub/stop."""
        wish = await decoded(request, _Stop)
        return answer(await self._link.command(caller(request), "stop", now=wish.now) or {})

    async def status(self, request: Request) -> Response:
        """GET /v1/status: what the hub says of batches and nodes, and the last ended batches of the store."""
        user = caller(request)
        hub = await self._link.command(user, "hub")
        shown = []
        for progress in await self._all(user, "status", "batches"):
            row = await self._batch(progress["batch"])
            if row is not None:
                shown.append(batch_shown(row, progress))
        ended = await self._view.ask(lambda reader: reader.batches(limit=ENDED_SHOWN, states=("ended",)))
        return answer(
            {
                "hub": _hub_shown(hub),
                "batches": sorted(shown, key=lambda batch: batch["batch"]),
                "ended": [batch_shown(row, None) for row in ended],
                "nodes": await self._nodes(user),
            }
        )

    # -- batches

    async def submit(self, request: Request) -> Response:
        """POST /v1/batches."""
        user = caller(request)
        key = request.query_params.get("key", "")
        submitted = await submit.submit(self._link, user, key, streamed(request))
        return answer(submitted, 200 if submitted.existed else 201)

    async def batches(self, request: Request) -> Response:
        """GET /v1/batches."""
        limit = _number(request, "limit", 100, 1, PAGE_LIMIT)
        before = _number(request, "before", 0, 0, 1 << 63) or None
        states = _listed(request, "state")
        rows = await self._view.ask(lambda reader: reader.batches(before=before, limit=limit, states=states))
        now = await self._all(caller(request), "status", "batches")
        progress = {each["batch"]: each for each in now}
        shown = [batch_shown(row, progress.get(row.batch)) for row in rows]
        return answer({"batches": shown, "next": rows[-1].batch if len(rows) == limit else None})

    async def batch(self, request: Request) -> Response:
        """GET /v1/batches/{batch}: at once, or with `after` once it has changed."""
        row = await self._row(request)
        if row.state == "ended":
            return answer(batch_shown(row, None))
        after = request.query_params.get("after")
        if after is None:
            progress = await self._progress(caller(request), row.batch)
        else:
            timeout_s = _float(request, "timeout_s", POLL_LIMIT_S)
            quiet_s = min(timeout_s, _float(request, "quiet_s", POLL_LIMIT_S, 0.0))
            progress = await self._changed(caller(request), row.batch, _whole("after", after), timeout_s, quiet_s)
        if progress is None:
            row = await self._row(request)  # it has ended meanwhile, and the store has the rest
        return answer(batch_shown(row, progress))

    async def _changed(
        self, user: str, batch: BatchId, after: int, timeout_s: float, quiet_s: float
    ) -> dict[str, Any] | None:
        """The progress once its version is not `after`, or after `timeout_s`; mere progress after `quiet_s`."""
        async with self._link.progress.watching(batch):
            # Asked after the subscription began: no change can fall between the two.
            now = await self._progress(user, batch)
            if now is None or (now["version"] != after and (not quiet_s or now["state"] != "open")):
                return now
            changed = await self._link.progress.changed(batch, after, timeout_s, quiet_s)
        if changed is None:
            return now
        return None if changed.state == "ended" else msgspec.to_builtins(_progress_map(changed))

    async def _progress(self, user: str, batch: BatchId) -> dict[str, Any] | None:
        said = await self._link.command(user, "progress", batch=batch)
        progress: dict[str, Any] | None = said["progress"]
        return progress

    async def why(self, request: Request) -> Response:
        """GET .../why, of a batch or of one job."""
        row = await self._row(request)
        index = _index(request, row) if "index" in request.path_params else None
        if index is not None:
            job = await self._jobs.one(caller(request), row, index)
            if job["state"] in FINAL:
                return answer({"verdict": _ended_verdict(job), "code": job["state"], "facts": [], "job": job["id"]})
        elif row.state == "ended":
            return answer({"verdict": "it has ended" + _because(row.reason), "code": "ended", "facts": []})
        said = await self._link.command(caller(request), "why", batch=row.batch, index=index)
        since_us = said.pop("since_us", 0)
        return answer({**said, "since": rfc3339(since_us)})

    async def change(self, request: Request) -> Response:
        """POST /v1/batches/{batch}/set."""
        row = await self._row(request)
        wish = await decoded(request, _Change)
        await self._link.command(
            caller(request), "set", batch=row.batch, priority=wish.priority, max_running=wish.max_running
        )
        return answer({})

    def _wish(self, verb: str) -> Handler:
        async def wish(request: Request) -> Response:
            row = await self._row(request)
            said = await decoded(request, _Wish, RANGES_BYTES)
            unknown = [state for state in said.states if state not in frozenset(JobState)]
            if unknown:
                raise UserError(f"found {unknown[0]!r}, accepted is a state: " + ", ".join(JobState))
            ranges = None if said.ranges is None else _ranges(said.ranges, row)
            changed = _Changed()
            pieces = list(_pieces_of(ranges))
            for number, some in enumerate(pieces, 1):
                wish = {"ranges": some, "states": said.states, "has_more": number < len(pieces)}
                told = await self._link.command(caller(request), verb, batch=row.batch, **wish)
                changed = changed.with_more(told)
            return answer(msgspec.structs.asdict(changed))

        return wish

    # -- jobs

    async def jobs(self, request: Request) -> Response:
        """GET /v1/batches/{batch}/jobs."""
        row = await self._row(request)
        wanted = jobs.Wanted(
            after=_number(request, "after", 0, 0, 1 << 63),
            limit=_number(request, "limit", PAGE_LIMIT, 1, PAGE_LIMIT),
            states=frozenset(_listed(request, "state")),
            ranges=_ranges(request.query_params["ranges"], row) if request.query_params.get("ranges") else None,
        )
        as_lines = request.query_params.get("format") == "ndjson"
        page, following = await self._jobs.page(caller(request), row, wanted, as_lines=as_lines)
        if not as_lines:
            return written(page)
        headers = {} if following is None else {NEXT_HEADER: str(following)}
        return Response(page, media_type="application/x-ndjson", headers=headers)

    async def failures(self, request: Request) -> Response:
        """GET /v1/batches/{batch}/failures."""
        row = await self._row(request)
        limit = _number(request, "limit", 10, 1, 100)
        return answer({"batch": row.batch, **await self._jobs.failures(row, limit)})

    async def job(self, request: Request) -> Response:
        """GET /v1/jobs/{batch}/{index}."""
        row = await self._row(request)
        job, attempts = await self._jobs.with_attempts(caller(request), row, _index(request, row))
        return answer({**job, "attempts_list": attempts})

    async def output(self, request: Request) -> Response:
        """GET /v1/jobs/{batch}/{index}/output."""
        row = await self._row(request)
        index = _index(request, row)
        job = await self._jobs.one(caller(request), row, index)
        stream = request.query_params.get("stream", "both")
        which = {"out": (output.OUT,), "err": (output.ERR,), "both": (output.OUT, output.ERR)}.get(stream)
        if which is None:
            raise UserError(f"found stream={stream}, accepted is out, err or both")
        attempt = _number(request, "attempt", 0, 0, 1 << 31)
        at = {output.OUT: _number(request, "offset", 0, 0, 1 << 62)}
        at[output.ERR] = _number(request, "err_offset", at[output.OUT], 0, 1 << 62)
        wanted = output.WantedOutput(
            batch=row.batch,
            index=index,
            attempt=attempt,
            offsets={each: at[each] for each in which},
            follow=_flag(request, "follow"),
        )
        pieces = self._jobs.output(job, wanted, tail_only=_flag(request, "tail_only"))
        if stream == "both" or wanted.follow or _flag(request, "framed"):
            framed = output.framed(pieces, attempt or max(1, job["attempts"]))
            return StreamingResponse(framed, media_type="application/x-lanai-frames")
        return StreamingResponse(output.bare(pieces), media_type="application/octet-stream")

    async def input(self, request: Request) -> Response:
        """POST /v1/jobs/{batch}/{index}/input: answers once the command has room for more, or after a while."""
        row = await self._row(request)
        index = _index(request, row)
        offset = _number(request, "offset", 0, 0, 1 << 62)
        attempt = _number(request, "attempt", 0, 0, 1 << 30)
        async with self._link.giving_input(row.batch, index) as taken:
            user = caller(request)
            sender = input_.Sender(self._link, self._jobs, user, row, index, taken, attempt=attempt, offset=offset)
            is_taken = True
            async for data in _pieces(streamed(request)):
                is_taken = is_taken and await sender.send(data)  # the rest of the body is read all the same
            is_ended = is_taken and _flag(request, "end") and await sender.send(b"", is_end=True)
        return answer({"offset": sender.offset, "end": is_ended})

    # -- nodes

    async def nodes(self, request: Request) -> Response:
        """GET /v1/nodes."""
        return answer({"nodes": await self._nodes(caller(request))})

    async def node(self, request: Request) -> Response:
        """GET /v1/nodes/{node}."""
        name = request.path_params["node"]
        for node in await self._nodes(caller(request)):
            if node["name"] == name:
                return answer(node)
        raise NothingThere(f"there is no node {name}", code="no_such_node", hint="lanai node list")

    async def _nodes(self, user: str) -> list[dict[str, Any]]:
        return await self._all(user, "nodes", "nodes")

    async def _all(self, user: str, verb: str, of: str) -> list[dict[str, Any]]:
        """Everything that a question is answered with, which the hub tells piece by piece."""
        found: list[dict[str, Any]] = []
        after: dict[str, Any] = {}
        while True:
            said = await self._link.command(user, verb, **after)
            found += said[of]
            if said["next"] is None:
                return found
            after = {"after": said["next"]}

    def _node_wish(self, verb: str) -> Handler:
        async def wish(request: Request) -> Response:
            await decoded(request, _Nothing)
            await self._link.command(caller(request), verb, node=request.path_params["node"])
            return answer({})

        return wish

    # -- within

    async def _row(self, request: Request) -> BatchRow:
        named = request.path_params["batch"]
        if named == "last":
            user = caller(request)
            last = await self._view.ask(lambda reader: reader.last(user))
            if last is None:
                raise NothingThere("you have no batch yet", code="no_such_batch", hint="lanai submit FILE")
            batch = last
        else:
            batch = BatchId(_whole("batch", named))
        row = await self._batch(batch)
        if row is None:
            raise NothingThere(f"there is no batch {batch}", code="no_such_batch", hint="lanai batch list")
        return row

    async def _batch(self, batch: BatchId) -> BatchRow | None:
        return await self._view.ask(lambda reader: reader.batch(batch))


def batch_shown(row: BatchRow, progress: Mapping[str, Any] | None) -> dict[str, Any]:
    """A batch as answers show it: by its latest progress where it runs, else by the store alone."""
    now = progress or {"state": row.state, "counts": msgspec.to_builtins(row.counts), "reason": row.reason}
    return {
        "batch": row.batch,
        "name": row.settings.name,
        "first_line": row.settings.first_line,
        "user": row.user,
        "state": now["state"],
        "reason": now["reason"],
        "jobs": row.total,
        "counts": now["counts"],
        "priority": row.priority,
        "max_running": row.max_running,
        "labels": row.settings.labels,
        "cwd": row.settings.cwd,
        "submitted_at": rfc3339(row.submitted_at_us),
        "ended_at": rfc3339(row.ended_at_us) if progress is None else None,
        "mean_run_s": seconds(now.get("mean_run_us", 0)) or None,
        "slots": now.get("slots", 0),
        "change": now.get("version", 0),
    }


def _progress_map(progress: messages.Progress) -> dict[str, Any]:
    return {name: getattr(progress, name) for name in progress.__struct_fields__}


def _hub_shown(said: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(said)
    # `version` is the answers' own; the program's stands beside it.
    shown["lanai"] = shown.pop("version")
    started_at_us = shown.pop("started_at_us")
    return {**shown, "started_at": rfc3339(started_at_us), "uptime_s": max(0.0, time.time() - started_at_us / 1e6)}


def _ended_verdict(job: Mapping[str, Any]) -> str:
    ways = {"exit": f"exit code {job['exit_code']}", "signal": f"signal {job['signal']}", "ok": ""}
    way = str(job["reason"] or ways.get(job["outcome"] or "", job["outcome"]) or "")
    return ("it failed" if job["state"] == "failed" else f"it is {job['state']}") + _because(way)


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


async def _pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for data in stream:
        for start in range(0, len(data), INPUT_PIECE_BYTES):
            yield data[start : start + INPUT_PIECE_BYTES]


def _ranges(text: str, row: BatchRow) -> Ranges:
    """The jobs that were named one by one. Raises UserError, and NothingThere where the batch has not all of them."""
    try:
        ranges = parse_ranges(text)
    except RangeError as error:
        raise UserError(str(error), code="bad_ranges", facts={"found": error.found}) from None
    _existing(row, ranges[0][0])
    _existing(row, ranges[-1][1])
    return ranges


def _pieces_of(ranges: Ranges | None) -> Iterator[Ranges | None]:
    """All of them, so many at a time as fit a message and do not hold up the hub."""
    if ranges is None:
        yield None
        return
    for start in range(0, len(ranges), RANGES_AT_ONCE):
        yield ranges[start : start + RANGES_AT_ONCE]


def _index(request: Request, row: BatchRow) -> Index:
    return _existing(row, _whole("index", request.path_params["index"]))


def _existing(row: BatchRow, index: int) -> Index:
    if not 1 <= index <= row.total:
        raise NothingThere(f"there is no job {row.batch}/{index}; the batch has 1 to {row.total}", code="no_such_job")
    return Index(index)


def _listed(request: Request, name: str) -> tuple[str, ...]:
    return tuple(part for part in request.query_params.get(name, "").split(",") if part)


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "0") not in ("0", "")


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    number = _whole(name, given)
    if not least <= number <= most:
        raise UserError(f"found {name}={number}, accepted is {least} to {most}", code="bad_query")
    return number


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > MAX_INDEX:
        raise UserError(f"found {name}={text}, accepted is a whole number", code="bad_query")
    return int(text)


def _float(request: Request, name: str, most: float, default: float | None = None) -> float:
    given = request.query_params.get(name, str(most if default is None else default))
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise UserError(f"found {name}={given}, accepted is 0 to {most:g}", code="bad_query")
    return value
