"""The options of `lanai reserve create` and `change`, and the wish that they come to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from lanai.cli.submission import moment_of, understood
from lanai.model.errors import UserError
from lanai.model.units import parse_bytes, parse_count, parse_duration, parse_milli

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LISTS: Final = ("users", "groups", "accounts", "services")
_ZONES: Final = "zoneinfo/"


def _kind(name: str, what: str) -> Callable[..., Any]:
    return click.option(f"--{name}", "kinds", flag_value=name, multiple=True, help=what)


OPTIONS: Final[tuple[Callable[..., Any], ...]] = (
    click.option("--nodes", metavar="NAMES", help="Which nodes: n1,n2 or n[1-8,12] or gpu-*; `*` is all."),
    click.option("--count", metavar="N", help="So many nodes, chosen now: those that are free by then, or soonest."),
    click.option("--features", metavar="A,B", help="What each node must have."),
    click.option("--cpus", metavar="N", help="So much of each node (default: whole nodes)."),
    click.option("--memory", metavar="SIZE", help="The same of memory, e.g. 16G."),
    click.option("--gpus", metavar="N", help="The same of gpus."),
    click.option("--whole", is_flag=True, default=None, help="Whole nodes, of which each has the amounts at least."),
    click.option("--begin", metavar="WHEN", help="2026-12-01T08:00, 08:00 (the next), +2h from now. (default: now)"),
    click.option("--end", metavar="WHEN", help="The same."),
    click.option("--for", "length", metavar="TIME", help="So long, instead of --end."),
    click.option("--every", type=click.Choice(["day", "week"]), help="Again and again, with --from and --to."),
    click.option("--on", "days", metavar="DAY,...", help=f"With --every: on these days, of {', '.join(DAYS)}."),
    click.option("--from", "from_", metavar="HH:MM", help="With --every: from then on."),
    click.option("--to", metavar="HH:MM", help="With --every: until then, of the day after where it is not later."),
    click.option("--until", metavar="WHEN", help="With --every: none begins then or later."),
    click.option("--timezone", metavar="NAME", help="With --every: whose clock. (default: this machine's)"),
    click.option("--users", metavar="A,B", help="Whose jobs may use it. Without a list: its owner's."),
    click.option("--groups", metavar="A,B", help="The same of groups of the policy."),
    click.option("--accounts", metavar="A,B", help="The same of accounts."),
    click.option("--services", metavar="A,B", help="The same of services."),
    click.option("--batches", metavar="N,M", help="The same of batches, by number; +N, -N: one more, less."),
    click.option("--max-time", metavar="TIME", help="Only jobs that run for so long at most; alone: everybody's."),
    click.option("--owner", metavar="USER", help="For whom it is. (default: you)"),
    _kind("exclusive", "Only those may use it. (default)"),
    _kind("preferring", "Also others who are over by its end."),
    _kind("maintenance", "Nobody may: the nodes drain by themselves."),
    click.option("--dry-run", is_flag=True, help="Change nothing; say what would run into it, and who would wait."),
)


def reserve_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a reservation is."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def wish_of(options: Mapping[str, Any], *, is_change: bool) -> dict[str, Any]:
    """What the options say, as the API takes it; what they do not say is left out.

    Raises:
        UserError: an option that cannot be understood.
    """
    wish: dict[str, Any] = {
        "nodes": options["nodes"],
        "count": _count(options["count"], is_change=is_change),
        "features": _list(options["features"]),
        "cpus": _milli(options["cpus"]),
        "memory_bytes": _parsed("--memory", options["memory"], parse_bytes),
        "gpus": _parsed("--gpus", options["gpus"], parse_count),
        "is_whole": options["whole"],
        "kind": _only(options["kinds"]),
        "owner": options["owner"],
        "max_time_s": _parsed("--max-time", options["max_time"], parse_duration),
        "is_dry_run": options["dry_run"],
        **{name: _list(options[name]) for name in LISTS},
        **_batches(options["batches"], is_change=is_change),
        **_times(options, is_change=is_change),
    }
    said = {name: value for name, value in wish.items() if value is not None}
    if is_change and said.keys() == {"is_dry_run"}:
        raise UserError("what is to change? Say so as for `lanai reserve create`, e.g. --end 20:00", code="bad_option")
    return said


def _count(text: str | None, *, is_change: bool) -> int | None:
    """How many nodes are to be chosen; 0 is for a reservation that had a number, and is to have none."""
    count: int | None = _parsed("--count", text, parse_count)
    if count == 0 and not is_change:
        raise UserError(f"--count: found {text!r}, accepted is 1 or more", code="bad_option")
    return count


def _only(kinds: tuple[str, ...]) -> str | None:
    if len(set(kinds)) > 1:
        raise UserError(f"{' and '.join(f'--{kind}' for kind in kinds)}: accepted is one of them", code="bad_option")
    return kinds[0] if kinds else None


def _times(options: Mapping[str, Any], *, is_change: bool) -> dict[str, Any]:
    of_rule = [name for name in ("days", "from_", "to", "until", "timezone") if options[name]]
    if options["every"] or (is_change and of_rule):
        return {"rule": _changed_rule(options) if is_change else _rule(options)}
    for name in of_rule:
        shown = {"days": "on", "from_": "from"}.get(name, name)
        raise UserError(f"--{shown} goes with --every day or --every week", code="bad_option")
    if options["end"] and options["length"]:
        raise UserError("--end and --for: accepted is one of them", code="bad_option")
    now_us = time.time_ns() // 1000
    begin_us = _moment("--begin", options["begin"])
    times: dict[str, Any] = {} if is_change and begin_us is None else {"begin_us": begin_us or 0}
    if options["end"]:
        times["end_us"] = _moment("--end", options["end"])
    elif options["length"]:
        if is_change and begin_us is None:
            raise UserError("--for goes with --begin here; --end takes a moment", code="bad_option")
        times["end_us"] = (begin_us or now_us) + round(1e6 * understood("--for", options["length"], parse_duration))
    elif not is_change:
        raise UserError("until when? Accepted are --end WHEN, --for TIME, or --every", code="bad_option")
    return times


def _moment(option: str, text: str | None) -> int | None:
    """None, and 0 for now: it begins by the hub's clock then."""
    return None if text is None else 0 if text.strip() == "now" else moment_of(option, text)


def _rule(options: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_times(options)
    if not (options["from_"] and options["to"]):
        raise UserError("--every: from when to when? Accepted are --from 08:00 --to 18:00", code="bad_option")
    days = _list(options["days"]) or ()
    if options["every"] == "week" and not days:
        raise UserError("--every week: on which days? Accepted is --on mon,tue", code="bad_option")
    rule = {"on": days, "from": options["from_"], "to": options["to"], "timezone": options["timezone"] or local_zone()}
    return {**rule, "until_us": moment_of("--until", options["until"]) if options["until"] else 0}


def _changed_rule(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is to change of a rule; what is not said stays as it is."""
    _refuse_times(options)
    rule = {
        "on": () if options["every"] == "day" and not options["days"] else _list(options["days"]),
        "from": options["from_"],
        "to": options["to"],
        "timezone": options["timezone"],
        "until_us": moment_of("--until", options["until"]) if options["until"] else None,
    }
    return {name: value for name, value in rule.items() if value is not None}


def _refuse_times(options: Mapping[str, Any]) -> None:
    if options["begin"] or options["end"] or options["length"]:
        what = "--every goes with --from, --to and --until, not with --begin, --end or --for"
        raise UserError(what, code="bad_option")


def local_zone() -> str:
    """The name of this machine's time zone; UTC where it has none that has a name."""
    named = os.environ.get("TZ", "").removeprefix(":")
    if named and not named.startswith("/"):
        return named
    where = os.path.realpath(named or "/etc/localtime")
    return where.partition(_ZONES)[2].removeprefix("posix/") or "UTC"


def _list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(sorted({part.strip() for part in text.split(",")} - {""}))


def _batches(text: str | None, *, is_change: bool) -> dict[str, list[int]]:
    """`7,8` are all there are; `+7,-8` of a change are one more and one less."""
    names = _list(text)
    if names is None:
        return {}
    signed = [name for name in names if name[0] in "+-"]
    if not signed:
        return {"batches": [_number(name) for name in names]}
    if not is_change or len(signed) < len(names):
        accepted = "+N and -N, or N alone" if is_change else "N"
        raise UserError(f"--batches: found {text!r}, accepted is {accepted}", code="bad_option")
    kinds = (("batches_added", "+"), ("batches_removed", "-"))
    return {kind: [_number(name[1:]) for name in names if name[0] == sign] for kind, sign in kinds}


def _number(text: str) -> int:
    return understood("--batches", text, parse_count)


def _parsed(option: str, text: str | None, parse: Callable[[str], Any]) -> Any:
    return None if text is None else understood(option, text, parse)


def _milli(text: str | None) -> float | None:
    return None if text is None else understood("--cpus", text, parse_milli) / 1000
