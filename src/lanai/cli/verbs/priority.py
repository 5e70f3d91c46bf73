"""Show in which order waiting jobs are looked at, and what makes their priorities"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from lanai.cli.asking import FACTORS, PRIORITIES
from lanai.cli.choose import Chosen, choose, jobs_of
from lanai.cli.context import Asked
from lanai.cli.tables import View, print_rows, selected, view_of, view_options
from lanai.cli.terminal import printable, say

if TYPE_CHECKING:
    from lanai.client.client import Client

MANY: Final = 20
FEW: Final = 3
"""So many parts of a score a row names."""
ORDERS: Final = {
    "fair": "by tier, then by turns (shares), and within a batch by score",
    "tight": "by tier, then by score",
}


@click.command(name="priority")
@click.argument("selectors", nargs=-1, metavar="[JOB|BATCH]...")
@click.option("--user", metavar="USER", help="Without a job or batch: of this user only.")
@click.option(
    "--most", type=click.IntRange(min=1, max=1000), default=30, show_default=True, metavar="N", help="At most N rows."
)
@click.option("--skip", type=click.IntRange(min=0), default=0, metavar="N", help="Leave out the first N rows.")
@view_options
@click.pass_obj
def command(
    asked: Asked,
    selectors: tuple[str, ...],
    user: str | None,
    most: int,
    skip: int,
    format_: str,
    columns: str | None,
    filters: tuple[str, ...],
    limit: int | None,
) -> int:
    """Show what waits in the order in which the scheduler looks at it; of a JOB or BATCH each factor of its score.

    Jobs that wait alike are one row, such as 417/[12-999], and have one priority: that of the first of them. PLACE is
    among all that is eligible, other people's jobs included; what is blocked has none. TURN is that of the batch by
    shares. Each factor adds WEIGHT times VALUE, of which no more than CAP counts; PART is what that makes of the whole.

    \b
    Examples:
      lanai priority
      lanai priority 417/12
      lanai priority last --format json
    """
    view = view_of(PRIORITIES, format_, columns, filters, limit)
    client = asked.connect()
    if not selectors:
        _print_all(client.priority(user=user, most=most, skip=skip), view)
        return 0
    if user is not None:
        raise click.UsageError("name jobs or batches, or a user with --user, not both")
    meant = [what for each in choose(selectors) for what in _meant(client, each)]
    if meant:
        _print_named(client, meant, view)
    return 0


def _meant(client: Client, chosen: Chosen) -> list[tuple[int | str, int | None]]:
    """The batch as a whole where no jobs of it are named, else those."""
    if chosen.ranges is None and not chosen.states:
        return [(chosen.batch, None)]
    meant = list(jobs_of(client, chosen, MANY + 1))
    if not meant:
        say("lanai: no such jobs")
    if len(meant) > MANY:
        say(f"lanai: there are more; these are the first {MANY}")
    return [*meant[:MANY]]


def _print_named(client: Client, meant: list[tuple[int | str, int | None]], view: View) -> None:
    """The lines in which these wait, each once."""
    rows: dict[str, dict[str, Any]] = {}
    found: dict[str, Any] = {}
    is_for_people = view.format == "table" and view.columns is None
    for batch, index in meant:
        found = client.priority(batch, index)
        rows |= {row["job"]: _with_parts(row) for row in found["rows"]}
        if not found["rows"] and is_for_people:
            what = f"{batch}" if index is None else f"{batch}/{index}"
            print(f"{what}: nothing of it waits in a line, so it has no priority (lanai why {what})")
    found["rows"] = list(rows.values())
    if is_for_people:
        _print_each(found, view)
    elif view.format == "json":
        _print_json(found, view)
    else:
        print_rows(PRIORITIES, found["rows"], view)


def _print_all(found: dict[str, Any], view: View) -> None:
    found["rows"] = [_with_parts(row) for row in found["rows"]]
    if view.format == "json":
        _print_json(found, view)
        return
    print_rows(PRIORITIES, found["rows"], view)
    if view.format == "table":
        print()
        print(f"preset {found['preset']}: {ORDERS[found['preset']]}; {_lines(found['lines'])} eligible")
        if found["more"]:
            print(f"... and {found['more']:,} more rows (--most, --skip)")


def _print_json(found: dict[str, Any], view: View) -> None:
    rows = selected(PRIORITIES, found["rows"], view)
    chosen = [{name: row.get(name) for name in view.columns} if view.columns else row for row in rows]
    print(json.dumps({"version": 1, **found, "rows": chosen}))


def _print_each(found: Mapping[str, Any], view: View) -> None:
    for row in selected(PRIORITIES, found["rows"], view):
        print(f"{row['job']}: {_standing(row, found)}")
        print(f"  {row['user']}, account {row['account']}, service {row['service']}, tier {row['tier']}; ", end="")
        turn = "no turn yet" if row["turn"] is None else f"turn {row['turn']} of {row['turns']}"
        print(f"{turn} by shares; score {row['score']:.4g}")
        print(f"  preset {found['preset']}: {ORDERS[found['preset']]}")
        print()
        print_rows(FACTORS, map(_factor_shown, row["factors"]), View())
        print()


def _standing(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if row["place"] is None:
        return f"blocked: {printable(row['reason'] or row['code'] or 'its date is still to come')}"
    return f"place {row['place']} of {_lines(found['lines'])}"


def _lines(count: int) -> str:
    return f"{count:,} line{'' if count == 1 else 's'}"


def _factor_shown(factor: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {name: _number(factor[name]) for name in ("value", "weight", "points")}
    cap = None if factor["cap"] is None else _number(factor["cap"])
    return {**factor, **numbers, "cap": cap, "part": f"{100 * factor['part']:.0f}%"}


def _number(value: float) -> str:
    return f"{value:.4g}"


def _with_parts(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the parts that make the most of its score in words, the largest first."""
    counting = sorted((each for each in row["factors"] if each["points"]), key=lambda each: -abs(each["points"]))
    parts = ", ".join(f"{each['name']} {each['points']:.3g} ({100 * each['part']:.0f}%)" for each in counting[:FEW])
    return {**row, "score": float(f"{row['score']:.6g}"), "parts": parts}
