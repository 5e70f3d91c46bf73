"""Make a job list from a template and one or two lists of files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final, TextIO

import click

from lanai.cli.replacing import replaced
from lanai.model.errors import NothingThere, UserError
from lanai.model.gensub import SINGLE, Order, Template, TemplateError, generate, parse_list, parse_template

LINES_AT_ONCE: Final = 5_000
SELF_PAIR: Final = "selfpair"

EPILOG: Final = """\b
Variables, with 1 for LIST1 and 2 for LIST2:
  $(path1)       the line                        in/chr1/a.b.fa
  $(dir1)        its directory                   in/chr1
  $(lastDir1)    the last part of that           chr1
  $(lastDirs1=2) the last 2 parts of that        in/chr1
  $(root1)       file name without extension     a.b
  $(ext1)        extension, with the dot         .fa
  $(file1)       file name                       a.b.fa
  $(num1)        position in the list, from 0    0

\b
Examples:
  ls in/*.fa > files
  printf '%s\\n' '#LOOP' 'gzip -k {check in exists+ $(path1)}' '#ENDLOOP' > template
  lanai gensub files single template jobs.txt
  lanai gensub files selfPair template - | lanai run -

\b
Without -group1 or -group2 pairs come by diagonals (Aa Ba Ab Ca Bb Ac), so that the largest jobs
come first where both lists are sorted by size.
"""


@click.command(
    "gensub",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Make a job list from a template and one or two lists of files.",
)
@click.argument("list1")
@click.argument("list2", metavar="LIST2|single|selfPair")
@click.argument("template")
@click.argument("out")
@click.option("-group1", "--group1", "is_group1", is_flag=True, help="Order Aa Ab Ac Ba Bb Bc.")
@click.option("-group2", "--group2", "is_group2", is_flag=True, help="Order Aa Ba Ca Ab Bb Cb.")
def gensub(list1: str, list2: str, template: str, out: str, *, is_group1: bool, is_group2: bool) -> int:
    """Write to OUT the lines of TEMPLATE between #LOOP and #ENDLOOP for every pair of a line of LIST1 and one of LIST2.

    The template's other lines are copied. LIST2 may be `single` (there is only LIST1) or `selfPair` (each line of LIST1
    with each later one). `-` or `stdin` as LIST1 is standard input, `-` or `stdout` as OUT standard output. A file OUT
    appears whole or not at all.
    """
    if is_group1 and is_group2:
        raise click.UsageError("-group1 and -group2 exclude each other")
    order: Order = "group1" if is_group1 else "group2" if is_group2 else "diagonal"
    parts = _template(template)
    entries1 = _entries(list1)
    entries2 = None if list2.lower() == SELF_PAIR else [SINGLE] if list2.lower() == SINGLE else _entries(list2)
    with _opened(out) as target:
        _write(target, generate(parts, entries1, entries2, order))
    return 0


command = gensub


def _lines(path: str) -> list[str]:
    """The lines of a file; file names are bytes, and pass through unchanged."""
    try:
        if path in ("-", "stdin"):
            raw = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                raw = file.read()
    except FileNotFoundError as error:
        raise NothingThere(f"there is no file {path}", facts={"file": path}) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", facts={"file": path}) from error
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _entries(path: str) -> list[str]:
    lines = _lines(path)
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UserError(
                f"{path}:{number}:{line.index(chr(0)) + 1}: found a NUL byte, accepted is one file name a line",
                facts={"file": path, "line": number},
            )
    entries = parse_list(lines)
    if not entries:
        click.echo(f"lanai: {path} is empty", err=True)
    return entries


def _template(path: str) -> Template:
    try:
        return parse_template(_lines(path))
    except TemplateError as error:
        raise UserError(
            f"{path}:{error.line}: found {error.found}, accepted is {error.accepted}",
            hint="lanai gensub --help shows a template",
            facts={"file": path, "line": error.line},
        ) from error


@contextmanager
def _opened(out: str) -> Iterator[TextIO]:
    if out in ("-", "stdout"):
        yield sys.stdout
        sys.stdout.flush()
        return
    with replaced(out) as target:
        yield target


def _write(target: TextIO, lines: Iterable[str]) -> None:
    numbered = iter(lines)
    while some := list(islice(numbered, LINES_AT_ONCE)):
        target.write("\n".join(some) + "\n")
