"""Show the share tree: who is to have how much, has used it, and whose turn it is"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from lanai.cli.context import Asked
from lanai.cli.listings import SHARES
from lanai.cli.tables import print_rows, selected, view_of, view_options
from lanai.cli.terminal import say


@click.command(name="shares")
@view_options
@click.pass_obj
def command(asked: Asked, format_: str, columns: str | None, filters: tuple[str, ...], limit: int | None) -> int:
    """Show the share tree: accounts, the users in them, and their batches, in the order of their turns.

    PART is what its siblings and it are to have of the place above, by their weights. USED is decayed use, HAS what is
    had now, both as parts of all capacity. RANK is the order among siblings, TURN that of all batches with waiting
    jobs. Weights, accounts and the half-life are set by `lanai policy`.

    \b
    Examples:
      lanai shares
      lanai shares --filter place=user --columns account,name,weight,used
      lanai shares --format json
    """
    view = view_of(SHARES, format_, columns, filters, limit)
    found = asked.connect().shares()
    if view.format == "table":
        # Filters are about the values, not about how they are written.
        chosen = selected(SHARES, found["shares"], view)
        print_rows(SHARES, map(_for_table, chosen), replace(view, filters=(), limit=None))
    else:
        print_rows(SHARES, found["shares"], view)
    if found["more"]:
        say(f"{found['more']} more, most of them batches whose turn comes later")
    return 0


def _for_table(row: Mapping[str, Any]) -> dict[str, Any]:
    """Names stand below each other as their places do; fractions as parts of a hundred."""
    parts = {name: _percent(row[name]) for name in ("part", "used", "has")}
    return {**row, **parts, "name": "  " * row["depth"] + row["name"]}


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    return "<0.001%" if 0 < percent < 0.001 else f"{percent:.3g}%" if percent < 1000 else f"{percent:.0f}%"
