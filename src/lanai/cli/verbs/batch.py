"""List batches, or show one."""

from __future__ import annotations

from typing import Any

import click

from lanai.cli.choose import choose_batch
from lanai.cli.context import Asked
from lanai.cli.listings import BATCHES, batch_row
from lanai.cli.main import Group
from lanai.cli.tables import for_people, format_option, print_object, print_rows, pushed_limit, view_of, view_options


@click.command(name="batch", cls=Group)
def command() -> None:
    """List batches, or show one.

    \b
    Examples:
      lanai batch list --filter state=paused
      lanai batch show last
    """


@command.command("list")
@view_options
@click.pass_obj
def list_(asked: Asked, format_: str, columns: str | None, filters: tuple[str, ...], limit: int | None) -> int:
    """List batches, the newest first.

    \b
    Examples:
      lanai batch list --limit 10
      lanai batch list --filter failed>0 --format quiet
      lanai batch list --columns batch,jobs,name --format csv
    """
    view = view_of(BATCHES, format_, columns, filters, limit)
    batches = asked.connect().batches(limit=pushed_limit(view))
    print_rows(BATCHES, map(batch_row, batches), view)
    return 0


@command.command("show")
@click.argument("batch", nargs=-1, metavar="[BATCH]")
@format_option
@click.pass_obj
def show(asked: Asked, batch: tuple[str, ...], format_: str) -> int:
    """Show all there is to know of a batch (default: the newest).

    \b
    Examples:
      lanai batch show 417
      lanai batch show --format json | jq .batch.counts
    """
    shown = asked.connect().batch(choose_batch(batch))
    if format_ == "json":
        print_object("batch", shown)
    elif format_ != "table":
        print_rows(BATCHES, [batch_row(shown)], view_of(BATCHES, format_))
    else:
        _print_fields(shown)
    return 0


def _print_fields(batch: dict[str, Any]) -> None:
    from lanai.cli.progress import counts_text

    for name, value in {**batch, "counts": counts_text(batch["counts"])}.items():
        if name not in ("version", "change") and value not in (None, "", {}, 0):
            print(f"{name + ':':14} {for_people(name, value)}")
