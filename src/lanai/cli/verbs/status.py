"""Show the hub, its unfinished batches and its nodes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from lanai.cli.context import Asked, closed_at_end
from lanai.cli.disk import say_if_full
from lanai.cli.listings import BATCHES, batch_row
from lanai.cli.tables import print_rows, view_of, view_options
from lanai.cli.terminal import say
from lanai.model.units import format_duration


@click.command(name="status")
@view_options
@click.pass_obj
def command(asked: Asked, format_: str, columns: str | None, filters: tuple[str, ...], limit: int | None) -> int:
    """Show the hub, the batches that have not ended and the last that have, and the nodes in short.

    Where nothing was ever started it says so, and starts nothing.

    \b
    Examples:
      lanai status
      lanai status --format json | jq '.batches[].counts'
    """
    view = view_of(format_, columns, filters, limit)
    found = asked.found()
    if found is None:
        return _say_nothing(format_)
    status = closed_at_end(found.client()).status()
    say_if_full(status["hub"])
    if format_ == "json" and not (columns or filters or limit):
        print(json.dumps(status))
        return 0
    if format_ == "table":
        print(_hub_line(status["hub"], status["nodes"]))
    batches = [*status["batches"], *reversed(status.get("ended") or [])]
    if batches or format_ != "table":
        print_rows(BATCHES, map(batch_row, batches), view)
    return 0


def _say_nothing(format_: str) -> int:
    if format_ == "json":
        print(json.dumps({"version": 1, "hub": None, "batches": [], "ended": [], "nodes": []}))
    say("lanai: nothing was ever started here\ntry: lanai run jobs.txt")
    return 0


def _hub_line(hub: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> str:
    kind = "private hub" if hub.get("is_private") else "hub"
    where = f" at {hub['url']}" if hub.get("url") else ""
    states = Counter(node["state"] for node in nodes)
    shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none has joined yet"
    up = format_duration(hub["uptime_s"]) if "uptime_s" in hub else "?"
    return f"{kind} {hub['lanai']}{where}, pid {hub['pid']}, up {up}; nodes: {shown}"
