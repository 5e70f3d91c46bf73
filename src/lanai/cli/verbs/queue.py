"""Show who runs, who is next, and who is blocked and why"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import click

from lanai.cli.asking import QUEUE
from lanai.cli.context import Asked
from lanai.cli.tables import View, print_rows, selected, view_of, view_options

SHOWN: Final = {
    "running": ("job", "user", "cpus", "nodes", "node", "left_s", "started_at"),
    "eligible": ("place", "job", "user", "cpus", "nodes", "time_limit_s", "queued_at", "code"),
    "blocked": ("job", "user", "cpus", "nodes", "code", "queued_at", "reason"),
}


@click.command(name="queue")
@click.option("--user", metavar="USER", help="Of this user only.")
@click.option("--account", metavar="NAME", help="Of this account only.")
@click.option("--service", metavar="NAME", help="Of this service only.")
@click.option("--node", metavar="NAME", help="Of what runs: on this node only.")
@click.option("--running", "blocks", multiple=True, flag_value="running", help="What runs.")
@click.option("--eligible", "blocks", multiple=True, flag_value="eligible", help="What waits for its turn or for room.")
@click.option("--blocked", "blocks", multiple=True, flag_value="blocked", help="What may not run, and why.")
@click.option(
    "--most", type=click.IntRange(min=1, max=1000), default=30, show_default=True, metavar="N", help="Rows of each."
)
@click.option("--skip", type=click.IntRange(min=0), default=0, metavar="N", help="Leave out the first N rows of each.")
@view_options
@click.pass_obj
def command(
    asked: Asked,
    user: str | None,
    account: str | None,
    service: str | None,
    node: str | None,
    blocks: tuple[str, ...],
    most: int,
    skip: int,
    format_: str,
    columns: str | None,
    filters: tuple[str, ...],
    limit: int | None,
) -> int:
    """Show the queue in three blocks: what runs, what is eligible (by the order of turns), and what is blocked.

    Jobs that wait alike are one row, such as 417/[12-999], however many they are. You see your own jobs, and how many
    others have; operators see everybody's.

    \b
    Examples:
      lanai queue
      lanai queue --eligible --user ann
      lanai queue --blocked --format json
    """
    view = view_of(QUEUE, format_, columns, filters, limit)
    found = asked.connect().queue(
        user=user, account=account, service=service, node=node, blocks=",".join(blocks), most=most, skip=skip
    )
    names = [name for name in SHOWN if not blocks or name in blocks]
    if format_ == "json":
        print(json.dumps(_chosen(found, names, view)))
    elif format_ == "table":
        _print_tables(found, names, view)
    else:
        print_rows(QUEUE, [row for name in names for row in found[name]["rows"]], view)
    return 0


def _chosen(found: dict[str, Any], names: list[str], view: View) -> dict[str, Any]:
    """The whole answer, but of its rows only those that were asked for, and of these those columns."""
    for name in names:
        rows = selected(QUEUE, found[name]["rows"], view)
        found[name]["rows"] = [_columns(row, view) for row in rows]
    return {key: value for key, value in found.items() if key not in SHOWN or key in names}


def _columns(row: Mapping[str, Any], view: View) -> dict[str, Any]:
    return {name: row.get(name) for name in view.columns} if view.columns else dict(row)


def _print_tables(found: Mapping[str, Any], names: list[str], view: View) -> None:
    for name in names:
        block = found[name]
        print(f"{name.upper()}: {_jobs(block['jobs'])}" + (f", {block['others']:,} of others" * bool(block["others"])))
        rows = list(selected(QUEUE, block["rows"], view))
        if rows:
            print()
            print_rows(QUEUE, rows, View(columns=view.columns or SHOWN[name]))
        if block["more"]:
            what = "attempts" if name == "running" else "rows"
            print(f"... and {block['more']:,} more {what} (--most, --skip)")
        print()
    print(busy_text(found))


def busy_text(found: Mapping[str, Any]) -> str:
    """How much of the capacity is in use."""
    busy, whole = found["busy_cpus"], found["cpus"]
    share = f" ({100 * busy / whole:.0f} %)" if whole else ""
    return f"{busy:g} of {whole:g} cpus busy{share}, {found['busy_nodes']} of {found['nodes']} nodes"


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"
