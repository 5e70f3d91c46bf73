"""List reservations, or show one: whose they are, when, on which nodes"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lanai.cli.context import Asked
from lanai.cli.listings import RESERVATIONS
from lanai.cli.tables import for_people, print_object, print_rows, view_of, view_options


@click.command(name="reservations")
@click.argument("name", required=False)
@view_options
@click.pass_obj
def command(
    asked: Asked, name: str | None, format_: str, columns: str | None, filters: tuple[str, ...], limit: int | None
) -> int:
    """List all reservations, the first to begin first, or show the one called NAME.

    BEGIN_AT and END_AT are of the present period or of the next one. RUNNING are attempts on its nodes that may use it,
    OTHERS those that may not and still run there, WAITING the jobs that are to run in it only. SHORT says what of it
    its nodes cannot keep. `lanai reserve` makes and drops them.

    \b
    Examples:
      lanai reservations
      lanai reservations course
      lanai reservations --filter kind=maintenance --format json
    """
    view = view_of(RESERVATIONS, format_, columns, filters, limit)
    client = asked.connect()
    if name is None:
        print_rows(RESERVATIONS, client.reservations(), view)
        return 0
    found = client.reservation(name)
    if format_ == "json":
        print_object("reservation", {key: value for key, value in found.items() if key != "version"})
    elif format_ != "table":
        print_rows(RESERVATIONS, [found], view)
    else:
        _print_fields(found)
    return 0


def _print_fields(found: Mapping[str, Any]) -> None:
    for column in RESERVATIONS.columns:
        value = found.get(column)
        if column == "periods":
            for period in found["periods"]:
                span = f"{for_people('begin_at', period['begin_at'])} to {for_people('end_at', period['end_at'])}"
                print(f"{'period:':18} {span}")
        elif value not in (None, "", [], {}, 0, 0.0):
            print(f"{column + ':':18} {for_people(column, value)}")
