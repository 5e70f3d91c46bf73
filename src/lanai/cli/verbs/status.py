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
from lanai.cli.tables import View, print_rows, selected, view_of, view_options
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
    view = view_of(BATCHES, format_, columns, filters, limit)
    found = asked.found()
    if found is None:
        return _say_nothing(view)
    status = closed_at_end(found.client()).status()
    say_if_full(status["hub"])
    if format_ == "json":
        print(json.dumps(_chosen(status, view)))
        return 0
    if format_ == "table":
        print(_hub_line(status["hub"], status["nodes"]))
    batches = _in_order(status)
    if batches or format_ != "table":
        print_rows(BATCHES, map(batch_row, batches), view)
    return 0


def _in_order(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All batches as the table has them: those that have not ended, then the others, the last one last."""
    return [*status["batches"], *reversed(status.get("ended") or [])]


def _chosen(status: Mapping[str, Any], view: View) -> dict[str, Any]:
    """The whole answer, but of its batches only those that the table would have, and of them the columns asked for."""
    left = {row["batch"] for row in selected(BATCHES, map(batch_row, _in_order(status)), view)}

    def shown(batches: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        chosen = [batch for batch in batches if batch["batch"] in left]
        if not view.columns:
            return chosen
        return [{name: batch_row(batch).get(name) for name in view.columns} for batch in chosen]

    return {**status, "batches": shown(status["batches"]), "ended": shown(status.get("ended") or [])}


def _say_nothing(view: View) -> int:
    if view.format == "json":
        print(json.dumps({"version": 1, "hub": None, "batches": [], "ended": [], "nodes": []}))
    elif view.format != "table":
        print_rows(BATCHES, (), view)
    say("lanai: nothing was ever started here\ntry: lanai run jobs.txt")
    return 0


def _hub_line(hub: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> str:
    kind = "private hub" if hub.get("is_private") else "hub"
    where = f" at {hub['url']}" if hub.get("url") else ""
    states = Counter(node["state"] for node in nodes)
    shown = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none has joined yet"
    up = format_duration(hub["uptime_s"]) if "uptime_s" in hub else "?"
    return f"{kind} {hub['lanai']}{where}, pid {hub['pid']}, up {up}; nodes: {shown}"
