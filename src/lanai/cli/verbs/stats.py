"""Show how jobs fared that have ended: waits, slowdown, efficiency"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from lanai.cli.asking import STATS
from lanai.cli.context import Asked
from lanai.cli.since import since_text
from lanai.cli.tables import View, print_rows, selected, view_of, view_options
from lanai.cli.terminal import say

_PERCENT = ("efficiency", "time_accuracy", "memory_accuracy")


@click.command(name="stats")
@click.option(
    "--by",
    type=click.Choice(["user", "account", "service", "batch"]),
    default="user",
    show_default=True,
    help="What to group by.",
)
@click.option("--since", metavar="TIME", help="Only attempts that ended since: a time, or how long ago, e.g. 7d.")
@click.option(
    "--most", type=click.IntRange(min=1, max=1000), default=100, show_default=True, metavar="N", help="Groups."
)
@view_options
@click.pass_obj
def command(
    asked: Asked,
    by: str,
    since: str | None,
    most: int,
    format_: str,
    columns: str | None,
    filters: tuple[str, ...],
    limit: int | None,
) -> int:
    """Show how jobs fared that have ended, those with the most cpu time first; the last row is everybody's.

    A job waits from its submission until its first attempt begins. Slowdown is (wait + run) / run, runs under 10
    seconds counted as 10. Efficiency is the cpu time used of that allotted; the accuracy of requests is the run time
    per time limit, and the memory used at most per memory asked for.

    \b
    Examples:
      lanai stats
      lanai stats --by account --since 30d
      lanai stats --by batch --format csv
    """
    view = view_of(STATS, format_, columns, filters, limit)
    found = asked.connect().stats(by=by, since="" if since is None else since_text(since), most=most)
    found["groups"] = list(selected(STATS, found["groups"], view))
    if format_ == "json":
        groups = [{name: group.get(name) for name in view.columns or group} for group in found["groups"]]
        print(json.dumps({**found, "groups": groups}))
        return 0
    if format_ != "table":
        print_rows(STATS, found["groups"], view)
        return 0
    rows = [*found["groups"], {**found["total"], "group": "(all)"}]
    print_rows(STATS, _for_table(rows), View(columns=view.columns))
    more = f"; {found['more']:,} more groups (--most)" if found["more"] else ""
    sampled = f"; 95th percentiles of every {found['sampled']}th attempt" if found["sampled"] > 1 else ""
    say(f"lanai: {found['total']['attempts']:,} attempts in {found['took_s']:.2f} s{sampled}{more}")
    return 0


def _for_table(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: _rounded(name, value) for name, value in row.items()} for row in rows]


def _rounded(name: str, value: Any) -> Any:
    if name in _PERCENT:
        return None if value is None else f"{100 * value:.0f}%"
    return round(value, 2) if isinstance(value, float) and not name.endswith("_s") else value
