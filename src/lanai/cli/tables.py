"""Every list that `lanai` prints: as a table, JSON, NDJSON, CSV, or only the names.

A list is an iterable of flat JSON objects, and is printed as it comes: only a table holds back its first rows, to know
how wide its columns are. Machine formats carry the values as they are; a table writes them for people.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import IO, Any, Final, TypeVar

import click

from lanai.cli.filters import Row, filter_test, known_column, plain
from lanai.cli.terminal import coloured, printable, shortened, width

FORMATS: Final = ("table", "json", "ndjson", "csv", "quiet")
JSON_VERSION: Final = 1
_ROWS_MEASURED: Final = 500
_STATE_COLOURS: Final = {"failed": "red", "paused": "red", "running": "green", "done": "dim", "away": "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A kind of list.

    Attributes:
        kind: the name of the array in JSON, e.g. `jobs`.
        columns: all names of values, in their order.
        shown: the columns of a table where none are asked for.
        key: the column that `quiet` prints.
        numbers: the columns that hold plain numbers; those with a unit at their end do so anyway.
        words: the columns that hold one of some words, and these.
    """

    kind: str
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    key: str
    numbers: frozenset[str] = frozenset()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How the user wants to see a list. `columns` and `limit` are None where he did not say."""

    format: str = "table"
    columns: tuple[str, ...] | None = None
    filters: tuple[str, ...] = ()
    limit: int | None = None


F = TypeVar("F", bound=Callable[..., Any])

format_option: Final = click.option(
    "--format", "format_", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print."
)


def view_options(function: F) -> F:
    """Add --format, --columns, --filter and --limit to a command; `view_of` reads them."""
    for option in (
        click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N rows."),
        click.option(
            "--filter",
            "filters",
            multiple=True,
            metavar="NAME=VALUE",
            help="Only rows for which this holds; also != < <= > >= and ~ (regular expression). May be repeated.",
        ),
        click.option("--columns", metavar="NAME,...", help="These columns, in this order."),
        format_option,
    ):
        function = option(function)
    return function


def view_of(
    listing: Listing,
    format_: str,
    columns: str | None = None,
    filters: Sequence[str] = (),
    limit: int | None = None,
) -> View:
    """What `view_options` gave, as a value.

    Raises:
        click.UsageError: a column that the list does not have, or a filter that cannot be understood.
    """
    names = None if columns is None else tuple(name.strip().lower() for name in columns.split(",") if name.strip())
    view = View(format=format_, columns=names, filters=tuple(filters), limit=limit)
    _columns(listing, view)
    selected(listing, (), view)
    return view


def pushed_limit(view: View) -> int:
    """How many rows the other side needs to send: all (0) where a filter here decides which count."""
    return 0 if view.filters or view.limit is None else view.limit


def print_rows(listing: Listing, rows: Iterable[Row], view: View) -> None:
    """Print `rows` on standard output as `view` says, each as soon as it can be.

    Raises:
        click.UsageError: a column that the list does not have, or a filter that cannot be understood.
    """
    out = sys.stdout
    columns = _columns(listing, view)
    chosen = selected(listing, rows, view)
    match view.format:
        case "json":
            _print_json(listing, columns, chosen, out)
        case "ndjson":
            for row in chosen:
                print(json.dumps({name: row.get(name) for name in columns}), file=out)
        case "csv":
            _print_csv(columns, chosen, out)
        case "quiet":
            for row in chosen:
                print(plain(row[listing.key]), file=out)
        case _:
            _print_table(columns, chosen, out)


def selected(listing: Listing, rows: Iterable[Row], view: View) -> Iterable[Row]:
    """The rows for which all filters hold, as they come, up to the limit.

    Raises:
        click.UsageError: a filter that cannot be understood.
    """
    tests = [filter_test(listing, text) for text in view.filters]
    found = (row for row in rows if all(test(row) for test in tests)) if tests else rows
    return islice(found, None if view.limit is None else min(view.limit, sys.maxsize))


def print_object(kind: str, value: Row) -> None:
    """Print one object as versioned JSON: `{"version": 1, KIND: {...}}`."""
    print(json.dumps({"version": JSON_VERSION, kind: value}, indent=2))


def _columns(listing: Listing, view: View) -> tuple[str, ...]:
    for name in view.columns or ():
        known_column(listing, name)
    return view.columns or (listing.shown if view.format == "table" else listing.columns)


# -- formats


def _print_json(listing: Listing, columns: tuple[str, ...], rows: Iterable[Row], out: IO[str]) -> None:
    """One JSON object, written row by row."""
    print(f'{{"version": {JSON_VERSION}, "{listing.kind}": [', end="", file=out)
    before = "\n  "
    for row in rows:
        print(before, json.dumps({name: row.get(name) for name in columns}), sep="", end="", file=out)
        before = ",\n  "
    print("\n]}" if before.startswith(",") else "]}", file=out)


def _print_csv(columns: tuple[str, ...], rows: Iterable[Row], out: IO[str]) -> None:
    import csv

    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([plain(row.get(name)) for name in columns] for row in rows)


def _print_table(columns: tuple[str, ...], rows: Iterable[Row], out: IO[str]) -> None:
    iterator = iter(rows)
    first = list(islice(iterator, _ROWS_MEASURED))
    shown = [_cells(columns, row) for row in first]
    titles = [name.upper() for name in columns]
    widths = [max([len(title), *map(len, cells)]) for title, *cells in zip(titles, *shown, strict=True)]
    is_right = [_is_number(name, first) for name in columns]
    room = width(out)
    later = (_cells(columns, row) for row in iterator)
    for number, cells in enumerate(chain([titles], shown, later)):
        line = _line(cells, widths, is_right)
        line = line if room is None else shortened(line, room)
        print(line if room is None or not number else _painted(line, columns, cells, out), file=out)


def _cells(columns: tuple[str, ...], row: Row) -> list[str]:
    return [for_people(name, row.get(name)) for name in columns]


def _is_number(name: str, rows: Sequence[Row]) -> bool:
    return all(isinstance(row.get(name), int | float | None) for row in rows)


def _line(cells: Sequence[str], widths: Sequence[int], is_right: Sequence[bool]) -> str:
    last = len(cells) - 1
    return "  ".join(
        cell.rjust(size) if right else (cell if at == last else cell.ljust(size))
        for at, (cell, size, right) in enumerate(zip(cells, widths, is_right, strict=True))
    )


def _painted(line: str, columns: Sequence[str], cells: Sequence[str], out: IO[str]) -> str:
    state = cells[columns.index("state")] if "state" in columns else ""
    colour = _STATE_COLOURS.get(state)
    return line.replace(state, coloured(state, colour, out), 1) if colour else line


def for_people(name: str, value: Any) -> str:
    """A value as a table shows it: sizes, durations and times by the unit that ends the name, None as `-`."""
    if value is None or value in ("", {}):
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        from lanai.model.units import format_bytes, format_duration

        if name.endswith("_bytes"):
            return format_bytes(int(value))
        if name.endswith("_s"):
            return format_duration(value)
        return f"{value:g}" if isinstance(value, float) else str(value)
    if name.endswith("_at") and isinstance(value, str):
        return _local(value)
    return printable(plain(value))


def _local(time_text: str) -> str:
    """A time as a clock on the wall here shows it; machines get it in UTC."""
    from datetime import datetime

    return datetime.fromisoformat(time_text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
