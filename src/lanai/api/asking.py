"""Asking the scheduler: the queue, what is free, when something could start, and how those fared who have ended.

The hub answers from its core, the statistics come from the store. A user is told of his own jobs, and how much others
have; whoever may see everybody's batches is told of all.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lanai.api import questions
from lanai.api.answers import answer, rfc3339, seconds
from lanai.api.app import Served, caller, only_of
from lanai.api.hublink import HubLink
from lanai.api.submission import setting_problems
from lanai.api.view import View
from lanai.model.access import Action
from lanai.model.batch import BatchSettings
from lanai.model.clauses import named_resource
from lanai.model.errors import UserError
from lanai.model.ids import BatchId, Index, ShapeId
from lanai.model.job import FINAL
from lanai.model.ranges import format_ranges
from lanai.model.records import SaveReason
from lanai.model.resources import Shape
from lanai.model.units import UnitError, parse_bytes, parse_count, parse_duration, parse_milli
from lanai.store.reader import BatchRow
from lanai.store.statistics import Fared

ROWS: Final = 1_000
BLOCKS: Final = ("running", "eligible", "blocked")
GROUPS: Final = ("user", "account", "service", "batch")

T = TypeVar("T")


class Asking:
    """The handlers, over the link to the hub and the view of the store; `row` finds the batch that a request names."""

    def __init__(self, link: HubLink, view: View, row: Callable[[Request], Awaitable[BatchRow]]) -> None:
        self._link = link
        self._view = view
        self._row = row

    def routes(self) -> Sequence[Served]:
        """Each with the action that it is."""
        return [
            Served("GET", "/v1/queue", Action.BATCH_SEE, self.queue),
            Served("GET", "/v1/free", Action.NODE_SEE, self.free),
            Served("GET", "/v1/when", Action.NODE_SEE, self.when),
            Served("GET", "/v1/stats", Action.BATCH_SEE, self.stats),
            Served("GET", "/v1/priority", Action.BATCH_SEE, self.priority),
            Served("GET", "/v1/batches/{batch}/when", Action.BATCH_SEE, self.when_batch),
            Served("GET", "/v1/jobs/{batch}/{index}/when", Action.BATCH_SEE, self.when_batch),
            Served("GET", "/v1/batches/{batch}/priority", Action.BATCH_SEE, self.priority_of),
            Served("GET", "/v1/jobs/{batch}/{index}/priority", Action.BATCH_SEE, self.priority_of),
        ]

    async def queue(self, request: Request) -> Response:
        """GET /v1/queue."""
        blocks = questions.listed(request, "blocks") or BLOCKS
        unknown = [block for block in blocks if block not in BLOCKS]
        if unknown:
            raise UserError(f"found blocks={unknown[0]}, accepted are {', '.join(BLOCKS)}", code="bad_query")
        asked = {
            "only": only_of(request) or "",
            "batch": questions.number(request, "batch", 0, 0, 1 << 62),
            "blocks": blocks,
            "skip": questions.number(request, "skip", 0, 0, 1 << 30),
            "most": questions.number(request, "most", 100, 0, ROWS),
        }
        named = {name: request.query_params.get(name, "") for name in ("user", "account", "service", "node")}
        said = await self._link.command(caller(request), "queue", **asked, **named)
        shown = {block: block_shown(said.pop(block), block) for block in BLOCKS}
        cpus = {"cpus": said.pop("cpu_milli") / 1000, "busy_cpus": said.pop("busy_milli") / 1000}
        return answer({**shown, **said, **cpus, "asked_at": rfc3339(_now_us())})

    async def free(self, request: Request) -> Response:
        """GET /v1/free."""
        settings = settings_of(request)
        said = await self._link.command(caller(request), "free", settings=msgspec.to_builtins(settings))
        rooms = [_room_shown(room) for room in said.pop("rooms")]
        limit, never = said.pop("limit") or None, said.pop("never") or None
        asked = _asked_shown(settings, said)
        return answer({"rooms": rooms, **said, "limit": limit, "never": never, "asked": asked})

    async def when(self, request: Request) -> Response:
        """GET /v1/when: of a request that nobody has submitted."""
        settings = settings_of(request)
        said = await self._link.command(caller(request), "when", settings=msgspec.to_builtins(settings))
        return answer({**forecast_shown(said), "before": said["before"], "asked": _asked_shown(settings, said)})

    async def when_batch(self, request: Request) -> Response:
        """GET .../when: of a job that waits, or of the first of a batch that does."""
        row = await self._row(request)
        index = None
        if "index" in request.path_params:
            index = Index(questions.whole("index", request.path_params["index"]))
            found = await self._view.ask(lambda reader: reader.job(row.batch, index))
            if found.job["state"] in FINAL:
                return answer(_ended(f"it is {found.job['state']}"))
        elif row.state == "ended":
            return answer(_ended("it has ended"))
        said = await self._link.command(caller(request), "when", batch=row.batch, index=index)
        return answer(forecast_shown(said))

    async def priority(self, request: Request) -> Response:
        """GET /v1/priority: lines in the order of the pass."""
        said = await self._link.command(
            caller(request),
            "priority",
            only=only_of(request) or "",
            user=request.query_params.get("user", ""),
            skip=questions.number(request, "skip", 0, 0, 1 << 30),
            most=questions.number(request, "most", 100, 0, ROWS),
        )
        return answer({**said, "rows": [ranked_shown(row) for row in said["rows"]]})

    async def priority_of(self, request: Request) -> Response:
        """GET .../priority: of the lines of a batch, or of the one that a job waits in; none where nothing waits."""
        row = await self._row(request)
        index = None
        if "index" in request.path_params:
            index = Index(questions.whole("index", request.path_params["index"]))
            await self._view.ask(lambda reader: reader.job(row.batch, index))  # there is such a job
        said = await self._link.command(caller(request), "priority", batch=row.batch, index=index)
        return answer({**said, "rows": [ranked_shown(each) for each in said["rows"]]})

    async def stats(self, request: Request) -> Response:
        """GET /v1/stats: how jobs fared that have ended. Summed up in a thread; says how long that took."""
        by = request.query_params.get("by") or "user"
        if by not in GROUPS:
            raise UserError(f"found by={by}, accepted are {', '.join(GROUPS)}", code="bad_query")
        most = questions.number(request, "most", 100, 0, ROWS)
        since_us, only = questions.since_us(request), only_of(request)
        began_s = time.monotonic()
        found = await self._view.ask(
            lambda reader: reader.statistics(by=by, since_us=since_us, only=only, most=most)  # type: ignore[arg-type]
        )
        return answer(
            {
                "by": by,
                "groups": [_fared_shown(fared) for fared in found.groups],
                "more": found.more,
                "total": _fared_shown(found.total),
                "sampled": found.sampled,
                "took_s": time.monotonic() - began_s,
            }
        )

    async def prospects(self, batch: BatchId, index: Index | None, said: MutableMapping[str, Any]) -> dict[str, Any]:
        """What `why` says besides: when it could start, and why its line waited before, the newest reason first.

        Takes what it is made of out of `said`, the hub's answer.
        """
        expected, shapes = said.pop("when"), said.pop("shapes")
        past: list[SaveReason] = []
        if index is None:
            past = await self._view.ask(lambda reader: reader.past_reasons(batch))
        elif shapes:
            past = await self._view.ask(lambda reader: reader.past_reasons(batch, ShapeId(shapes[0])))
        history = [{"since": rfc3339(one.since_us), "code": one.code or None, "reason": one.text} for one in past]
        return {"when": forecast_shown(expected) if expected else None, "history": history}


def forecast_shown(said: Mapping[str, Any]) -> dict[str, Any]:
    """A forecast: when at the earliest, in how long, and how sure that is."""
    at_us = said["at_us"]
    in_s = max(0.0, seconds(at_us - _now_us())) if at_us else None
    return {
        "starts_at": rfc3339(at_us),
        "in_s": 0.0 if said["certainty"] == "now" else in_s,
        "certainty": said["certainty"],
        "why": said["why"],
    }


def ranked_shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line and its score as answers show them."""
    job, ranges, is_cut = jobs_named(row)
    place, turn, code, reason = (row[name] or None for name in ("place", "turn", "code", "reason"))
    named = {"job": job, "ranges": ranges, "is_cut": is_cut}
    told = {name: value for name, value in row.items() if name not in ("spans", "pieces")}
    return {**named, **told, "place": place, "turn": turn, "code": code, "reason": reason}


def jobs_named(row: Mapping[str, Any]) -> tuple[str, str, bool]:
    """What a row stands for: as people name it, its ranges alone, and whether these are only the first."""
    spans = tuple(map(tuple, row["spans"]))
    ranges, is_cut = format_ranges(spans), row["pieces"] > len(spans)
    if row["jobs"] == 1 and not is_cut:
        return f"{row['batch']}/{ranges}", ranges, is_cut
    return f"{row['batch']}/[{ranges}{',...' * is_cut}]", ranges, is_cut


def settings_of(request: Request) -> BatchSettings:
    """The batch that stands in a query: account, service, cpus, memory, gpus, nodes, time, features, on, resources.

    Raises:
        UserError: with all that is wrong, as of a submission.
    """
    account, service = (request.query_params.get(name, "") for name in ("account", "service"))
    settings = BatchSettings(shape=_shape(request), account=account, service=service)
    if problems := list(setting_problems(settings, single=True)):
        raise UserError("; ".join(problems), code="bad_query", facts={"problems": problems})
    return settings


def _shape(request: Request) -> Shape:
    return Shape(
        cpu_milli=_understood(request, "cpus", "1", parse_milli),
        memory_bytes=_understood(request, "memory", "0", parse_bytes),
        gpu_milli=1000 * _understood(request, "gpus", "0", parse_count),
        time_limit_us=round(1e6 * _understood(request, "time", "0", parse_duration)),
        nodes=_understood(request, "nodes", "1", parse_count),
        features=tuple(sorted({name.strip() for name in questions.listed(request, "features")} - {""})),
        on=request.query_params.get("on", ""),
        named=_named(request),
    )


def _asked_shown(settings: BatchSettings, said: MutableMapping[str, Any]) -> dict[str, Any]:
    """What was asked about, with the account and the service that the hub has found for it, taken out of `said`."""
    credit = {name: said.pop(name) for name in ("account", "service")}
    return {**shape_shown(msgspec.to_builtins(settings.shape)), **credit}


def _named(request: Request) -> tuple[tuple[str, int], ...]:
    """Named resources, written as NAME=N with commas between."""
    found: dict[str, int] = {}
    for text in questions.listed(request, "resources"):
        name, _, count = text.partition("=")
        try:
            found[named_resource(name)] = parse_count(count)
        except UnitError as error:
            raise UserError(f"resources: {error}", code="bad_query") from None
    return tuple(sorted((name, count) for name, count in found.items() if count))


def shape_shown(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A request as answers show it."""
    return {
        "cpus": shape["cpu_milli"] / 1000,
        "memory_bytes": shape["memory_bytes"],
        "gpus": shape["gpu_milli"] / 1000,
        "nodes": shape["nodes"],
        "nodes_most": shape.get("nodes_most") or None,
        "time_limit_s": seconds(shape["time_limit_us"]) or None,
        "features": list(shape["features"]),
        "on": shape.get("on") or None,
        "resources": dict(shape["named"]),
    }


def _understood(request: Request, name: str, default: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(request.query_params.get(name) or default)
    except UnitError as error:
        raise UserError(f"{name}: {error}", code="bad_query") from None


def block_shown(block: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A block of the queue as answers show it."""
    return {**block, "rows": [_row_shown(row, name) for row in block["rows"]]}


def _row_shown(row: Mapping[str, Any], block: str) -> dict[str, Any]:
    job, ranges, is_cut = jobs_named(row)
    shape = shape_shown({**msgspec.to_builtins(Shape()), **row["shape"]})
    left_us = row.get("left_us")
    return {
        "job": job,
        "block": block,
        "batch": row["batch"],
        "ranges": ranges,
        "is_cut": is_cut,
        "jobs": row["jobs"],
        "user": row["user"],
        "account": row["account"],
        "service": row["service"],
        "name": row["name"],
        **shape,
        "queued_at": rfc3339(row["queued_at_us"]),
        "node": row.get("node") or None,
        "started_at": rfc3339(row.get("started_at_us", 0)),
        "left_s": None if left_us is None else seconds(left_us),
        "place": row.get("place") or None,
        "code": row.get("code") or None,
        "reason": row.get("reason") or None,
        "since": rfc3339(row.get("since_us", 0)),
    }


def _room_shown(room: Mapping[str, Any]) -> dict[str, Any]:
    total, until_us = room["total"], room["until_us"]
    return {
        "cpus": total["cpu_milli"] / 1000,
        "memory_bytes": total["memory_bytes"],
        "gpus": total["gpu_milli"] / 1000,
        "resources": dict(total["named"]),
        "features": list(room["features"]),
        "nodes": room["nodes"],
        "names": list(room["names"]),
        "free_nodes": room["roomy"],
        "free_cpus": room["free_milli"] / 1000,
        "jobs": room["jobs"],
        "until": rfc3339(until_us),
        "for_s": max(0.0, seconds(until_us - _now_us())) if until_us else None,
    }


def _fared_shown(fared: Fared) -> dict[str, Any]:
    hours_us = 3_600_000_000
    return {
        "group": fared.group or None,
        "jobs": fared.jobs,
        "done": fared.done,
        "failed": fared.failed,
        "cancelled": fared.cancelled,
        "attempts": fared.attempts,
        "cpu_hours": fared.allotted_us / hours_us,
        "used_cpu_hours": fared.used_us / hours_us,
        "wall_hours": fared.wall_us / hours_us,
        "wait_avg_s": _part(fared.wait_us / 1e6, fared.waits),
        "wait_p95_s": seconds(fared.wait_p95_us) if fared.waits else None,
        "wait_max_s": seconds(fared.wait_max_us) if fared.waits else None,
        "slowdown_avg": _part(fared.slowdown, fared.slowdowns),
        "efficiency": _part(fared.used_us, fared.allotted_us),
        "time_accuracy": _part(fared.time_ratio, fared.timed),
        "memory_accuracy": _part(fared.memory_ratio, fared.measured),
    }


def _part(amount: float, of: float) -> float | None:
    return amount / of if of else None


def _ended(why: str) -> dict[str, Any]:
    return {"starts_at": None, "in_s": None, "certainty": "unknown", "why": why}


def _now_us() -> int:
    return round(time.time() * 1e6)
