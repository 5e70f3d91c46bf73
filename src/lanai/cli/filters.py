"""`--filter`: one comparison with a column of a list, read into a test of its rows.

What a value may be follows from its column: sizes, lengths of time and times by the unit that ends the name, `is_...`
is true or false, and the list says which columns hold numbers or one of some words. A value that no row could ever have
is refused, since an empty list would pass for an answer.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from datetime import datetime

    from lanai.cli.tables import Listing

Row = Mapping[str, Any]
Test = Callable[[Row], bool]
ACCEPTED_TIME: Final = (
    "a time such as 2026-11-21, '2026-11-21 20:02' or 2026-11-21T20:02:03Z (without a zone: of the clock here)"
)
_FILTER: Final = re.compile(r"([a-z_]+)\s*(!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def filter_test(listing: Listing, text: str) -> Test:
    """The test that `text` (`NAME=VALUE`, also != < <= > >= ~) stands for.

    Without a value, = and != are about rows that have none. A row without a value is only ever different from another.

    Raises:
        click.UsageError: it is not understood, names no column, or compares with what the column never holds.
    """
    match = _FILTER.fullmatch(text.strip())
    if match is None:
        raise click.UsageError(f"--filter {text!r} is not understood; accepted is NAME=VALUE, also with != < <= > >= ~")
    name, comparison, value = known_column(listing, match[1]), match[2], match[3].strip()
    if comparison == "~":
        return _matches(name, value)
    if not value and comparison in ("=", "!="):
        return lambda row: (plain(row.get(name)) == "") == (comparison == "=")
    try:
        wanted, read = _compared(listing, name, value)
    except ValueError as error:
        raise click.UsageError(f"--filter {name}{comparison}{value}: {error}") from None
    compare = _COMPARISONS[comparison]

    def holds(row: Row) -> bool:
        found = row.get(name)
        return comparison == "!=" if found is None else compare(read(found), wanted)

    return holds


def known_column(listing: Listing, name: str) -> str:
    """The name itself. Raises click.UsageError, with the nearest that there is, where the list has no such column."""
    if name in listing.columns:
        return name
    from difflib import get_close_matches

    near = get_close_matches(name, listing.columns, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else "there are " + ", ".join(listing.columns)
    raise click.UsageError(f"there is no column {name!r}; {advice}")


def plain(value: Any) -> str:
    """A value as text on one line: None is empty, parts have commas between them."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case dict():
            return ",".join(f"{key}={plain(part)}" for key, part in value.items())
        case list():
            return ",".join(map(plain, value))
        case _:
            return str(value)


def _matches(name: str, value: str) -> Test:
    try:
        search = re.compile(value).search
    except re.error as error:
        raise click.UsageError(f"--filter {name}~{value}: {error}") from None
    return lambda row: search(plain(row.get(name))) is not None


def _compared(listing: Listing, name: str, value: str) -> tuple[Any, Callable[[Any], Any]]:
    """What to compare with, and how to read a row's value for it. Raises ValueError, which says what is accepted."""
    from lanai.model.units import parse_bytes, parse_duration

    if name.endswith("_bytes"):
        return parse_bytes(value), float
    if name.endswith("_s"):
        return parse_duration(value), float
    if name.endswith("_at"):
        return _time(value), _time
    if name in listing.numbers:
        return _number(value), float
    words = ("true", "false") if name.startswith("is_") else listing.words.get(name)
    if words is not None and value.lower() not in words:
        raise ValueError(f"found {value!r}, accepted is " + ", ".join(words))
    return (value.lower() if words else value), plain


def _time(text: str) -> datetime:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"found {text!r}, accepted is {ACCEPTED_TIME}") from None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"found {text!r}, accepted is a number")
    return number
