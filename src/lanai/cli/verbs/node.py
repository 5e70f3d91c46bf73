"""List nodes, show one, and say what shall become of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from lanai.cli.context import Asked
from lanai.cli.listings import NODES, node_row
from lanai.cli.main import Group
from lanai.cli.tables import for_people, format_option, print_object, print_rows, view_of, view_options
from lanai.cli.terminal import say


@click.command(name="node", cls=Group)
def command() -> None:
    """List nodes, show one, drain it, use it again, or remove it.

    \b
    Examples:
      lanai node list
      lanai node drain rack-7
    """


@command.command("list")
@view_options
@click.pass_obj
def list_(asked: Asked, format_: str, columns: str | None, filters: tuple[str, ...], limit: int | None) -> int:
    """List all nodes that ever joined and were not removed.

    \b
    Examples:
      lanai node list
      lanai node list --filter state!=up --format quiet
    """
    view = view_of(NODES, format_, columns, filters, limit)
    print_rows(NODES, map(node_row, asked.connect().nodes()), view)
    return 0


@command.command("show")
@click.argument("name")
@format_option
@click.pass_obj
def show(asked: Asked, name: str, format_: str) -> int:
    """Show all there is to know of a node.

    \b
    Examples:
      lanai node show rack-7
    """
    node = asked.connect().node(name)
    if format_ == "json":
        print_object("node", node_row(node))
    elif format_ != "table":
        print_rows(NODES, [node_row(node)], view_of(NODES, format_))
    else:
        _print_fields(node_row(node))
    return 0


def _print_fields(row: dict[str, Any]) -> None:
    for column in NODES.columns:
        if column == "facts":
            for name, text in row.get("facts", {}).items():
                print(f"{name + ':':18} {for_people(name, text)}")
        elif column == "reserved":
            for each in row.get("reserved", []):
                print(f"{'reserved:':18} {_reserved_text(each)}")
        elif row.get(column) not in (None, "", [], {}):
            print(f"{column + ':':18} {for_people(column, row[column])}")


def _reserved_text(reserved: Mapping[str, Any]) -> str:
    begin, end = (for_people(name, reserved[name]) for name in ("begin_at", "end_at"))
    kind = "" if reserved["kind"] == "exclusive" else f" ({reserved['kind']})"
    return f"{reserved['name']}{kind} from {begin} to {end}"


def _wish(name: str, text: str, said: str, call: Callable[[Any], Callable[[str], None]]) -> None:
    @command.command(name, help=text)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @click.pass_obj
    def wish(asked: Asked, names: tuple[str, ...]) -> int:
        client = asked.connect()
        for node in names:
            call(client)(node)
            say(f"node {node}: {said}")
        return 0


_wish(
    "drain",
    "Start nothing new on nodes; what runs there goes on.\n\n\b\nExamples:\n  lanai node drain rack-7",
    "draining",
    lambda client: client.drain,
)
_wish(
    "resume",
    "Use drained nodes again.\n\n\b\nExamples:\n  lanai node resume rack-7",
    "in use",
    lambda client: client.resume,
)
_wish(
    "remove",
    "Forget nodes. One with attempts is refused unless it is away: drain it first, and wait until they have ended."
    "\n\n\b\nExamples:\n  lanai node remove rack-7",
    "removed",
    lambda client: client.remove,
)
