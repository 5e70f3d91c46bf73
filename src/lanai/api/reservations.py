"""Reservations made by people: shown to everybody, made, tried, changed and dropped by operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lanai.api.answers import answer, rfc3339, seconds
from lanai.api.app import Served, caller
from lanai.api.bodies import Number, decoded
from lanai.api.hublink import HubLink
from lanai.model.access import Action
from lanai.model.batch import COUNT_MAX
from lanai.model.errors import UserError
from lanai.model.reservation import Access, Kind, Period, Reservation, Rule
from lanai.model.resources import Shape

BODY_BYTES: Final = 1 << 20
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
EVERY_DAY: Final = tuple(range(len(DAYS)))


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """When a standing one is in force: HH:MM by the clock of the time zone, on which days; no days: every day.

    In a change what is not given stays as it is; else only `on` and `until_us` need not be given.
    """

    from_: str | None = None
    to: str | None = None
    timezone: str | None = None
    on: tuple[str, ...] | None = None
    until_us: _Count | None = None


class _Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that makes or changes one. In a change what is not given stays as it is.

    `begin_us` 0 is now. Amounts are of each node; without any, or with `is_whole`, whole nodes are reserved.
    `batches_added` and `batches_removed` change the list of batches that there is.
    """

    name: str = ""
    begin_us: Number | None = None
    end_us: Number | None = None
    rule: _Rule | None = None
    nodes: str | None = None
    count: Number | None = None
    features: tuple[str, ...] | None = None
    cpus: _Amount | None = None
    memory_bytes: _Count | None = None
    gpus: _Count | None = None
    is_whole: bool | None = None
    kind: Kind | None = None
    owner: str | None = None
    users: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    accounts: tuple[str, ...] | None = None
    services: tuple[str, ...] | None = None
    batches: tuple[Number, ...] | None = None
    batches_added: tuple[Number, ...] = ()
    batches_removed: tuple[Number, ...] = ()
    max_time_s: _Amount | None = None
    is_dry_run: bool = False


class Reservations:
    """The handlers, over one link to the hub."""

    def __init__(self, link: HubLink) -> None:
        self._link = link

    def routes(self) -> Sequence[Served]:
        """Each with the action that it is."""
        one = "/v1/reservations/{name}"
        return [
            Served("GET", "/v1/reservations", Action.RESERVATION_SEE, self.all),
            Served("POST", "/v1/reservations", Action.RESERVATION_SET, self.make),
            Served("GET", one, Action.RESERVATION_SEE, self.one),
            Served("POST", f"{one}/change", Action.RESERVATION_SET, self.change),
            Served("POST", f"{one}/drop", Action.RESERVATION_SET, self.drop),
        ]

    async def all(self, request: Request) -> Response:
        """GET /v1/reservations."""
        told = await self._link.command(caller(request), "reservations")
        return answer({"reservations": [_shown(each) for each in told["reservations"]]})

    async def one(self, request: Request) -> Response:
        """GET /v1/reservations/{name}."""
        told = await self._link.command(caller(request), "reservations", name=request.path_params["name"])
        return answer(_shown(told["reservations"][0]))

    async def make(self, request: Request) -> Response:
        """POST /v1/reservations."""
        wish = await decoded(request, _Wish, BODY_BYTES)
        fresh = Reservation(name=wish.name, owner=caller(request).user)
        return await self._ask(request, wish, _applied(fresh, wish), is_change=False)

    async def change(self, request: Request) -> Response:
        """POST /v1/reservations/{name}/change."""
        wish = await decoded(request, _Wish, BODY_BYTES)
        name = request.path_params["name"]
        if wish.name not in ("", name):
            raise UserError("a reservation keeps its name", code="bad_body", hint="make another, and drop this one")
        told = await self._link.command(caller(request), "reservations", name=name)
        before = msgspec.convert(told["reservations"][0]["made"], Reservation)
        return await self._ask(request, wish, _applied(before, wish), is_change=True)

    async def drop(self, request: Request) -> Response:
        """POST /v1/reservations/{name}/drop."""
        told = await self._link.command(caller(request), "reservation_drop", name=request.path_params["name"])
        return answer({"name": told["name"]})

    async def _ask(self, request: Request, wish: _Wish, made: Reservation, *, is_change: bool) -> Response:
        verb = "reservation_try" if wish.is_dry_run else "reservation_set"
        told = await self._link.command(caller(request), verb, reservation=made, is_change=is_change)
        if wish.is_dry_run:
            return answer({"is_dry_run": True, **_rehearsal_shown(told["rehearsal"])})
        return answer({"is_dry_run": False, **told}, 200 if is_change else 201)


def _applied(made: Reservation, wish: _Wish) -> Reservation:
    """The reservation with what is wished of it."""
    access = {
        "users": wish.users,
        "groups": wish.groups,
        "accounts": wish.accounts,
        "services": wish.services,
        "batches": _batches(made.access, wish),
        "max_time_us": None if wish.max_time_s is None else round(wish.max_time_s * 1e6),
    }
    fields: dict[str, object] = {
        "kind": wish.kind,
        "owner": wish.owner,
        "nodes": wish.nodes,
        "count": wish.count,
        "access": msgspec.structs.replace(made.access, **_given(access)),
        "shape": _shape(made.shape, wish),
        "is_whole": _is_whole(made, wish),
        **_times(made, wish),
    }
    return msgspec.structs.replace(made, **_given(fields))


def _batches(access: Access, wish: _Wish) -> tuple[int, ...]:
    batches = access.batches if wish.batches is None else wish.batches
    more = (number for number in wish.batches_added if number not in batches)
    return tuple(number for number in (*batches, *dict.fromkeys(more)) if number not in wish.batches_removed)


def _shape(shape: Shape, wish: _Wish) -> Shape:
    amounts = {
        "cpu_milli": None if wish.cpus is None else round(wish.cpus * 1000),
        "memory_bytes": wish.memory_bytes,
        "gpu_milli": None if wish.gpus is None else wish.gpus * 1000,
        "features": None if wish.features is None else tuple(sorted(set(wish.features))),
    }
    return msgspec.structs.replace(shape, **_given(amounts))


def _is_whole(made: Reservation, wish: _Wish) -> bool:
    if wish.is_whole is not None:
        return wish.is_whole
    amounts = wish.cpus, wish.memory_bytes, wish.gpus
    return made.is_whole if amounts == (None, None, None) else not any(amounts)


def _times(made: Reservation, wish: _Wish) -> dict[str, object]:
    """A rule, of which the hub makes periods, or one period."""
    if wish.rule is not None:
        if wish.begin_us is not None or wish.end_us is not None:
            raise UserError("found both times and a rule, accepted is one of them", code="bad_body")
        return {"rule": _rule(made.rule, wish.rule), "periods": ()}
    if wish.begin_us is None and wish.end_us is None:
        if not made.periods and made.rule is None:
            raise UserError("found no time, accepted are end_us, or a rule", code="bad_body", hint="--for 2h")
        return {}
    if made.rule is not None:
        raise UserError(f"{made.name} has a rule, not one time", code="bad_body", hint="make another for that")
    now = made.periods[0] if made.periods else Period(0, 0)
    begin_us = now.begin_us if wish.begin_us is None else wish.begin_us
    return {"periods": (Period(begin_us, now.end_us if wish.end_us is None else wish.end_us),)}


def _rule(made: Rule | None, wish: _Rule) -> Rule:
    """The rule that there is, if any, with what is wished of it."""
    if unknown := [day for day in wish.on or () if day not in DAYS]:
        raise UserError(f"on: found {unknown[0][:80]!r}, accepted are {', '.join(DAYS)}", code="bad_body")
    fields = {
        "on": None if wish.on is None else tuple(sorted({DAYS.index(day) for day in wish.on})) or EVERY_DAY,
        "from_minute": None if wish.from_ is None else _minute("from", wish.from_),
        "to_minute": None if wish.to is None else _minute("to", wish.to),
        "timezone": wish.timezone,
        "until_us": wish.until_us,
    }
    if made is not None:
        return msgspec.structs.replace(made, **_given(fields))
    if wish.from_ is None or wish.to is None or wish.timezone is None:
        hint = "--every day --from 08:00 --to 18:00 --timezone UTC"
        raise UserError("it has no rule yet, which takes from, to and a timezone", code="bad_body", hint=hint)
    return Rule(**{"on": EVERY_DAY, **_given(fields)})


def _minute(name: str, text: str) -> int:
    hours, colon, minutes = text.partition(":")
    if colon and hours.isdecimal() and minutes.isdecimal() and len(text) <= len("00:00"):
        minute = int(hours) * 60 + int(minutes)
        if int(minutes) < 60 and minute <= 24 * 60:
            return minute
    raise UserError(f"{name}: found {text[:80]!r}, accepted is a time of day such as 08:00", code="bad_body")


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# -- as it is shown


def _shown(standing: dict[str, Any]) -> dict[str, Any]:
    made = msgspec.convert(standing["made"], Reservation)
    period = msgspec.convert(standing["period"], Period | None)
    return {
        "name": made.name,
        "kind": made.kind,
        "owner": made.owner,
        "state": standing["state"],
        "begin_at": rfc3339(period.begin_us) if period else None,
        "end_at": rfc3339(period.end_us) if period else None,
        "nodes": standing["nodes"],
        "node_count": standing["count"],
        "asked_nodes": made.nodes or None,
        "asked_count": made.count or None,
        **_amounts_shown(made),
        "access": _access_shown(made.access),
        "rule": _rule_shown(made.rule) if made.rule else None,
        "periods": [{"begin_at": rfc3339(each.begin_us), "end_at": rfc3339(each.end_us)} for each in made.periods],
        "running": standing["running"],
        "waiting": standing["waiting"],
        "others": standing["others"],
        "short": "; ".join(standing["short"]) or None,
    }


def _amounts_shown(made: Reservation) -> dict[str, Any]:
    shape = made.shape
    return {
        "is_whole": made.is_whole,
        "cpus": shape.cpu_milli / 1000,
        "memory_bytes": shape.memory_bytes,
        "gpus": shape.gpu_milli // 1000,
        "features": list(shape.features),
    }


def _access_shown(access: Access) -> dict[str, Any]:
    lists = {
        "users": list(access.users),
        "groups": list(access.groups),
        "accounts": list(access.accounts),
        "services": list(access.services),
        "batches": list(access.batches),
    }
    shown: dict[str, Any] = {name: names for name, names in lists.items() if names}
    if access.max_time_us:
        shown["max_time_s"] = seconds(access.max_time_us)
    return shown


def _rule_shown(rule: Rule) -> dict[str, Any]:
    def clock(minute: int) -> str:
        return f"{minute // 60:02d}:{minute % 60:02d}"

    return {
        "on": [DAYS[day] for day in rule.on],
        "from": clock(rule.from_minute),
        "to": clock(rule.to_minute),
        "timezone": rule.timezone,
        "until": rfc3339(rule.until_us),
    }


def with_reserved(node: dict[str, Any]) -> dict[str, Any]:
    """A node as the hub tells of it, with the times of what is reserved of it as they are shown."""
    reserved = [
        {
            "name": each["name"],
            "kind": each["kind"],
            "begin_at": rfc3339(each["begin_us"]),
            "end_at": rfc3339(each["end_us"]),
        }
        for each in node.get("reserved", [])
    ]
    return {**node, "reserved": reserved}


def _rehearsal_shown(rehearsal: dict[str, Any]) -> dict[str, Any]:
    made = msgspec.convert(rehearsal["made"], Reservation)
    return {
        "name": made.name,
        "nodes": rehearsal["nodes"],
        "count": len(rehearsal["nodes"]),
        "periods": [{"begin_at": rfc3339(each.begin_us), "end_at": rfc3339(each.end_us)} for each in made.periods],
        "running": [
            {"job": f"{each['batch']}/{each['index']}", "node": each["node"], "until": rfc3339(each["until_us"])}
            for each in rehearsal["running"]
        ],
        "more": rehearsal["more"],
        "delayed": [_delay_shown(each) for each in rehearsal["delayed"]],
        "looked_at": rehearsal["looked_at"],
    }


def _delay_shown(delay: dict[str, Any]) -> dict[str, Any]:
    before_us, after_us = delay["before_us"], delay["after_us"]
    return {
        "job": f"{delay['batch']}/{delay['index']}",
        "user": delay["user"],
        "before_at": rfc3339(before_us),
        "after_at": rfc3339(after_us),
        "delay_s": seconds(after_us - before_us) if after_us else None,
    }
