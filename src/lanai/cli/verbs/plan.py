"""Show what the scheduler would do next, without starting anything"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from lanai.cli.asking import PROMISES, QUEUE, STARTS
from lanai.cli.context import Asked
from lanai.cli.tables import Listing, View, print_rows
from lanai.cli.verbs.policy import name_of, text_of

BLOCKED = ("job", "user", "cpus", "nodes", "code", "reason")


@click.command(name="plan")
@click.option("--dry-run", is_flag=True, help="Only look: nothing is ever started by this. Must be given.")
@click.option("--policy", "file", metavar="FILE", help="Under this policy (TOML; `-` is standard input), not yours.")
@click.option(
    "--most", type=click.IntRange(min=0, max=1000), default=30, show_default=True, metavar="N", help="Rows of each."
)
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.pass_obj
def command(asked: Asked, dry_run: bool, file: str | None, most: int, format_: str) -> int:
    """Show what the next pass of the scheduler would do: what would start where, what would be promised to whom and
    when, and what is blocked by which limit. Nothing is started or changed.

    The pass itself is rehearsed, on the hub as it is now. Where there is room, it has as a rule just been filled: so
    what starts is mostly of interest with --policy FILE, which tries another policy. You see your own jobs, and how
    many of others' would start; operators see everybody's.

    \b
    Examples:
      lanai plan --dry-run
      lanai plan --dry-run --policy tight.toml
      lanai policy show | sed 's/fair/tight/' | lanai plan --dry-run --policy - --format json
    """
    if not dry_run:
        raise click.UsageError("the hub starts jobs by itself; say --dry-run to see what it would do next")
    if file is None:
        found = asked.connect().plan(most=most)
    else:
        from lanai.model.policy_file import policy_from_toml

        text = text_of(file)
        policy_from_toml(text, name_of(file))  # here, so that mistakes are named where no hub answers
        found = asked.connect().plan(toml=text, file=name_of(file), most=most)
    if format_ == "json":
        print(json.dumps({"version": 1, **found}))
    else:
        _print(found, most, is_tried=file is not None)
    return 0


def _print(found: Mapping[str, Any], most: int, *, is_tried: bool) -> None:
    if is_tried:
        print("under the policy tried, which " + ("differs" if found["differs"] else "is the one in force") + "\n")
    others = f", {found['others']:,} of them others'" if found["others"] else ""
    print(f"WOULD START: {_jobs(found['starting'])}{others}")
    _table(STARTS.shown, found["starts"][:most], STARTS)
    _rest(len(found["starts"]) - most, "rows")
    print(f"WOULD BE PROMISED: {found['promised']:,}")
    _table(PROMISES.shown, found["promises"][:most], PROMISES)
    _rest(found["promised"] - most, "promises")
    blocked = found["blocked"]
    print(f"BLOCKED: {_jobs(blocked['jobs'])}" + (f", {blocked['others']:,} of others" if blocked["others"] else ""))
    _table(BLOCKED, blocked["rows"], QUEUE)
    _rest(blocked["more"], "rows")
    print(f"{_jobs(found['waiting'])} would go on waiting for room or for their turn")
    if not found["is_whole"]:
        print("another pass would follow at once, and start more")


def _table(columns: tuple[str, ...], rows: list[dict[str, Any]], listing: Listing) -> None:
    if rows:
        print()
        print_rows(listing, rows, View(columns=columns))
    print()


def _rest(more: int, what: str) -> None:
    if more > 0:
        print(f"... and {more:,} more {what} (--most)\n")


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"
