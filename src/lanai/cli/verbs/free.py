"""Show what could start now, and for how long"""

from __future__ import annotations

import json
from typing import Any

import click

from lanai.cli.asking import ROOMS, request_text, shape_options, with_defaults
from lanai.cli.context import Asked
from lanai.cli.tables import View, print_rows, selected, view_of, view_options
from lanai.cli.terminal import printable


@click.command(name="free")
@shape_options
@view_options
@click.pass_obj
def command(
    asked: Asked,
    /,
    format_: str,
    columns: str | None,
    filters: tuple[str, ...],
    limit: int | None,
    **shape: str | None,
) -> int:
    """Show how many jobs of a kind (default: of one cpu) you could start now, by kind of node.

    FOR is how long what is free for you stays so, until the next reservation; `-` is without end. With --time only
    nodes count that are free for so long. What reservations let you use counts, what may not be shared with others
    does not, and hard limits hold: yours, and those of the --service and the --account. Jobs that wait already are not
    taken off: the last line says how many. Options, defaults and refusals are those of `lanai submit`.

    \b
    Examples:
      lanai free
      lanai free --cpus 4 --memory 16G --time 2h
      lanai free --service urgent --account physics --on 'rack1-*'
      lanai free --nodes 8 --format json
    """
    view = view_of(ROOMS, format_, columns, filters, limit)
    found = asked.connect().free(with_defaults(asked, shape))
    found["rooms"] = list(selected(ROOMS, found["rooms"], view))
    if format_ == "json":
        rooms = [{name: room.get(name) for name in view.columns or room} for room in found["rooms"]]
        print(json.dumps({**found, "rooms": rooms}))
    elif format_ == "table":
        _print(found, view)
    else:
        print_rows(ROOMS, found["rooms"], view)
    return 0


def _print(found: dict[str, Any], view: View) -> None:
    what = request_text(found["asked"])
    if found["rooms"]:
        print_rows(ROOMS, found["rooms"], View(columns=view.columns))
        print()
    print(f"{found['jobs']:,} job{'' if found['jobs'] == 1 else 's'} of {what} could start now", end="")
    print(f"; {found['waiting']:,} wait already" if found["waiting"] else "")
    if found["never"]:
        print(f"none ever: {printable(found['never'])}")
    if found["limit"]:
        print(f"no more, by a limit: {printable(found['limit'])}")
