"""One handler a path of docs/http-api.md: reads the question, asks the hub or the store's view, shapes the answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lanai.api import input as input_
from lanai.api import jobs, output, questions, submit
from lanai.api.administration import Administration
from lanai.api.answers import answer, rfc3339, seconds, written
from lanai.api.app import Handler, Served, caller, only_of, require_owner
from lanai.api.asking import Asking
from lanai.api.bodies import RANGES_BYTES, Number, decoded, streamed
from lanai.api.history import History
from lanai.api.hublink import HubLink
from lanai.api.planning import Planning
from lanai.api.reservations import Reservations, with_reserved
from lanai.api.scheduling import Scheduling
from lanai.api.view import View
from lanai.model.access import Action, Caller
from lanai.model.errors import NotAllowed, NothingThere, UserError
from lanai.model.ids import BatchId, Index
from lanai.model.job import FINAL, JobState
from lanai.model.ranges import RangeError, Ranges, parse_ranges
from lanai.store.reader import BatchRow, SqliteReader
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


class _Hold(_Wish, frozen=True, forbid_unknown_fields=True):
    """The body of hold; `until_us` in microseconds since 1970, 0: until it is released."""

    until_us: Number = 0


class _Changed(msgspec.Struct, frozen=True):
    """The answer to a wish, as docs/http-api.md has it."""

    changed: int = 0
    at_nodes: int = 0
    running: int = 0
    resumed: bool = False
    stay: int = 0

    def with_more(self, told: Mapping[str, Any]) -> _Changed:
        """Together with what the hub has told of one more piece."""
        counts = {name: getattr(self, name) + told.get(name, 0) for name in ("changed", "at_nodes", "running", "stay")}
        return _Changed(**counts, resumed=self.resumed or told.get("resumed", False))


class _Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of set; None leaves what it is."""

    priority: Number | None = None
    max_running: Number | None = None
    account: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    service: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    start_after_us: Number | None = None
    reservation: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class _Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of stop."""

    now: bool = False


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a wish that has no more to say."""


_WISHES: Final = {
    "cancel": Action.BATCH_CANCEL,
    "hold": Action.BATCH_HOLD,
    "release": Action.BATCH_RELEASE,
    "retry": Action.BATCH_RETRY,
}
_NODE_WISHES: Final = {"drain": Action.NODE_DRAIN, "resume": Action.NODE_RESUME, "remove": Action.NODE_REMOVE}


class Handlers:
    """All of them, over one link to the hub and one view of the store."""

    def __init__(self, link: HubLink, view: View) -> None:
        self._link = link
        self._view = view
        self._jobs = jobs.Jobs(link, view)
        self._inputs = input_.Givers(link)
        self._administration = Administration(link, view)
        self._scheduling = Scheduling(link)
        self._reservations = Reservations(link)
        self._asking = Asking(link, view, self._row)
        self._planning = Planning(link)
        self._history = History(view)

    def routes(self) -> Sequence[Served]:
        """Each with the action that it is."""
        batch, job, node = "/v1/batches/{batch}", "/v1/jobs/{batch}/{index}", "/v1/nodes/{node}"
        wishes = [Served("POST", f"{batch}/{verb}", action, self._wish(verb)) for verb, action in _WISHES.items()]
        about_nodes = [
            Served("POST", f"{node}/{verb}", action, self._node_wish(verb)) for verb, action in _NODE_WISHES.items()
        ]
        return [
            Served("GET", "/v1/hub", Action.HUB_SEE, self.hub),
            Served("POST", "/v1/hub/stop", Action.HUB_STOP, self.stop),
            Served("GET", "/v1/status", Action.BATCH_SEE, self.status),
            Served("POST", "/v1/batches", Action.BATCH_SUBMIT, self.submit),
            Served("GET", "/v1/batches", Action.BATCH_SEE, self.batches),
            Served("GET", batch, Action.BATCH_SEE, self.batch),
            Served("GET", f"{batch}/jobs", Action.BATCH_SEE, self.jobs),
            Served("GET", f"{batch}/failures", Action.OUTPUT_READ, self.failures),
            Served("GET", f"{batch}/why", Action.BATCH_SEE, self.why),
            Served("GET", f"{job}/why", Action.BATCH_SEE, self.why),
            Served("POST", f"{batch}/set", Action.BATCH_SET, self.change),
            Served("GET", job, Action.BATCH_SEE, self.job),
            Served("GET", f"{job}/output", Action.OUTPUT_READ, self.output),
            Served("POST", f"{job}/input", Action.INPUT_WRITE, self.input),
            Served("GET", "/v1/nodes", Action.NODE_SEE, self.nodes),
            Served("GET", node, Action.NODE_SEE, self.node),
            *wishes,
            *about_nodes,
            *self._asking.routes(),
            *self._planning.routes(),
            *self._administration.routes(),
            *self._scheduling.routes(),
            *self._reservations.routes(),
            *self._history.routes(),
        ]

    # -- the hub

    async def hub(self, request: Request) -> Response:
        """GET /v1/hub."""
        asks = caller(request)
        shown = _hub_shown(await self._link.command(asks, "hub"))
        return answer({**shown, "you": {"user": asks.user, "role": asks.role}})

    async def stop(self, request: Request) -> Response:
        """POST /v1/hub/stop."""
        wish = await decoded(request, _Stop)
        return answer(await self._link.command(caller(request), "stop", now=wish.now) or {})

    async def status(self, request: Request) -> Response:
        """GET /v1/status: what the hub says of batches and nodes, and the last ended batches of the store."""
        asks, only = caller(request), only_of(request)
        hub = await self._link.command(asks, "hub")
        progress = {each["batch"]: each for each in await self._all(asks, "status", "batches")}
        shown = [batch_shown(row, progress[row.batch]) for row in await self._unfinished(only) if row.batch in progress]
        ended = await self._view.ask(lambda reader: reader.batches(limit=ENDED_SHOWN, states=("ended",), user=only))
        return answer(
            {
                "hub": _hub_shown(hub),
                "batches": shown,
                "ended": [batch_shown(row, None) for row in ended],
                "nodes": await self._nodes(asks),
            }
        )

    async def _unfinished(self, only: str | None) -> list[BatchRow]:
        """In the order of their numbers. Read together: one by one, others' would cost him whose own are asked for."""
        found: list[BatchRow] = []
        while page := await self._view.ask(partial(_unfinished, found[-1].batch if found else 0, only)):
            found += page
        return found

    # -- batches

    async def submit(self, request: Request) -> Response:
        """POST /v1/batches."""
        asks = caller(request)
        key = request.query_params.get("key", "")
        submitted = await submit.submit(self._link, asks, key, streamed(request))
        return answer(submitted, 200 if submitted.existed else 201)

    async def batches(self, request: Request) -> Response:
        """GET /v1/batches."""
        limit = questions.number(request, "limit", 100, 1, PAGE_LIMIT)
        before = questions.number(request, "before", 0, 0, 1 << 63) or None
        states = questions.listed(request, "state")
        only = only_of(request)
        rows = await self._view.ask(lambda reader: reader.batches(before=before, limit=limit, states=states, user=only))
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
            timeout_s = questions.decimal(request, "timeout_s", POLL_LIMIT_S)
            quiet_s = min(timeout_s, questions.decimal(request, "quiet_s", POLL_LIMIT_S, 0.0))
            version = questions.whole("after", after)
            progress = await self._changed(caller(request), row.batch, version, timeout_s, quiet_s)
        if progress is None:
            row = await self._row(request)  # it has ended meanwhile, and the store has the rest
        return answer(batch_shown(row, progress))

    async def _changed(
        self, asks: Caller, batch: BatchId, after: int, timeout_s: float, quiet_s: float
    ) -> dict[str, Any] | None:
        """The progress once its version is not `after`, or after `timeout_s`; mere progress after `quiet_s`."""
        async with self._link.progress.watching(batch):
            # Asked after the subscription began: no change can fall between the two.
            now = await self._progress(asks, batch)
            if now is None or (now["version"] != after and (not quiet_s or now["state"] != "open")):
                return now
            changed = await self._link.progress.changed(batch, after, timeout_s, quiet_s)
        if changed is None:
            return now
        return None if changed.state == "ended" else msgspec.to_builtins(_progress_map(changed))

    async def _progress(self, asks: Caller, batch: BatchId) -> dict[str, Any] | None:
        said = await self._link.command(asks, "progress", batch=batch)
        progress: dict[str, Any] | None = said["progress"]
        return progress

    async def why(self, request: Request) -> Response:
        """GET .../why, of a batch or of one job."""
        row = await self._row(request)
        index = _index(request, row) if "index" in request.path_params else None
        job = None
        if index is not None:
            job = await self._jobs.one(caller(request), row, index)
            if job["state"] in FINAL:
                return answer({"verdict": _ended_verdict(job), "code": job["state"], "facts": [], "job": job["id"]})
        elif row.state == "ended":
            return answer({"verdict": "it has ended" + _because(row.reason), "code": "ended", "facts": []})
        said = await self._link.command(caller(request), "why", batch=row.batch, index=index)
        since_us, hold = said.pop("since_us", 0), said.pop("hold", None)
        if hold:
            times = {"since": rfc3339(hold["since_us"]), "until": rfc3339(hold["until_us"])}
            said["hold"] = {"kind": hold["kind"], "by": hold["by"] or None, **times}
        since = rfc3339(since_us)
        if job is not None and job["node"] and said["code"] == "running":
            said["verdict"], since = _running_verdict(job), job["started_at"]
        return answer({**said, "since": since, **await self._asking.prospects(row.batch, index, said)})

    async def change(self, request: Request) -> Response:
        """POST /v1/batches/{batch}/set."""
        row = await self._row(request)
        wish = await decoded(request, _Change)
        await self._link.command(caller(request), "set", batch=row.batch, **msgspec.structs.asdict(wish))
        return answer({})

    def _wish(self, verb: str) -> Handler:
        async def wish(request: Request) -> Response:
            row = await self._row(request)
            said = await decoded(request, _Hold if verb == "hold" else _Wish, RANGES_BYTES)
            unknown = [state for state in said.states if state not in frozenset(JobState)]
            if unknown:
                raise UserError(f"found {unknown[0]!r}, accepted is a state: " + ", ".join(JobState))
            ranges = None if said.ranges is None else _ranges(said.ranges, row)
            changed = _Changed()
            pieces = list(_pieces_of(ranges))
            for number, some in enumerate(pieces, 1):
                wish = {**msgspec.structs.asdict(said), "ranges": some, "has_more": number < len(pieces)}
                told = await self._link.command(caller(request), verb, batch=row.batch, **wish)
                changed = changed.with_more(told)
            if changed.stay and not (changed.changed or changed.resumed):
                raise _held_by_operator(row, changed.stay)
            return answer(msgspec.structs.asdict(changed))

        return wish

    # -- jobs

    async def jobs(self, request: Request) -> Response:
        """GET /v1/batches/{batch}/jobs."""
        row = await self._row(request)
        wanted = jobs.Wanted(
            after=questions.number(request, "after", 0, 0, 1 << 63),
            limit=questions.number(request, "limit", PAGE_LIMIT, 1, PAGE_LIMIT),
            states=frozenset(questions.listed(request, "state")),
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
        limit = questions.number(request, "limit", 10, 1, 100)
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
        attempt = questions.number(request, "attempt", 0, 0, 1 << 31)
        at = {output.OUT: questions.number(request, "offset", 0, 0, 1 << 62)}
        at[output.ERR] = questions.number(request, "err_offset", at[output.OUT], 0, 1 << 62)
        wanted = output.WantedOutput(
            batch=row.batch,
            index=index,
            attempt=attempt,
            offsets={each: at[each] for each in which},
            follow=questions.flag(request, "follow"),
        )
        pieces = self._jobs.output(job, wanted, tail_only=questions.flag(request, "tail_only"))
        if stream == "both" or wanted.follow or questions.flag(request, "framed"):
            framed = output.framed(pieces, attempt or max(1, job["attempts"]))
            return StreamingResponse(framed, media_type="application/x-lanai-frames")
        return StreamingResponse(output.bare(pieces), media_type="application/octet-stream")

    async def input(self, request: Request) -> Response:
        """POST /v1/jobs/{batch}/{index}/input: answers once the command has room for more, or after a while."""
        row = await self._row(request)
        index = _index(request, row)
        offset = questions.number(request, "offset", 0, 0, 1 << 62)
        attempt = questions.number(request, "attempt", 0, 0, 1 << 30)
        async with self._link.giving_input(row.batch, index) as taken:
            asks = caller(request)
            self._inputs.note(asks, row.batch, index, attempt)
            sender = input_.Sender(self._link, self._jobs, asks, row, index, taken, attempt=attempt, offset=offset)
            is_taken = True
            async for data in _pieces(streamed(request)):
                is_taken = is_taken and await sender.send(data)  # the rest of the body is read all the same
            is_ended = is_taken and questions.flag(request, "end") and await sender.send(b"", is_end=True)
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

    async def _nodes(self, asks: Caller) -> list[dict[str, Any]]:
        return [with_reserved(node) for node in await self._all(asks, "nodes", "nodes")]

    async def _all(self, asks: Caller, verb: str, of: str) -> list[dict[str, Any]]:
        """Everything that a question is answered with, which the hub tells piece by piece."""
        found: list[dict[str, Any]] = []
        after: dict[str, Any] = {}
        while True:
            said = await self._link.command(asks, verb, **after)
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
            asks = caller(request)
            last = await self._view.ask(lambda reader: reader.last(asks.user))
            if last is None:
                raise NothingThere("you have no batch yet", code="no_such_batch", hint="lanai submit FILE")
            batch = last
        else:
            batch = BatchId(questions.whole("batch", named))
        row = await self._batch(batch)
        if row is None:
            raise NothingThere(f"there is no batch {batch}", code="no_such_batch", hint="lanai batch list")
        require_owner(request, row.user, f"batch {row.batch}")
        return row

    async def _batch(self, batch: BatchId) -> BatchRow | None:
        return await self._view.ask(lambda reader: reader.batch(batch))


def _unfinished(after: int, only: str | None, reader: SqliteReader) -> list[BatchRow]:
    return reader.unfinished(after=after, user=only)


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
        "account": row.account,
        "service": row.settings.service,
        "reservation": row.settings.reservation,
        "start_after_at": rfc3339(row.settings.start_after_us),
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


def _running_verdict(job: Mapping[str, Any]) -> str:
    where = ", ".join(job["nodes"] or [job["node"]])
    return f"it runs on {where}" if job["started_at"] else f"it is at {where}, and is not known to have begun"


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


def _held_by_operator(row: BatchRow, count: int) -> NotAllowed:
    return NotAllowed(
        f"{count} {'job is' if count == 1 else 'jobs are'} held by an operator, and nothing else was to be released",
        code="held_by_operator",
        hint=f"lanai why {row.batch}  says by whom",
        facts={"batch": row.batch, "jobs": count},
    )


def _index(request: Request, row: BatchRow) -> Index:
    return _existing(row, questions.whole("index", request.path_params["index"]))


def _existing(row: BatchRow, index: int) -> Index:
    if not 1 <= index <= row.total:
        raise NothingThere(f"there is no job {row.batch}/{index}; the batch has 1 to {row.total}", code="no_such_job")
    return Index(index)
