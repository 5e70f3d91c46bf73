"""Job lists from a template and one or two lists of files, as gensub2 of Parasol makes them.

The template's lines before `#LOOP` and after `#ENDLOOP` are copied; those between are written once for every pair of
entries, with these replaced (N is 1 or 2, for the first or second list):

    $(pathN)        the entry                       in/chr1/a.b.fa
    $(dirN)         its directory, no slash at the end     in/chr1
    $(lastDirN)     the last part of that             chr1
    $(lastDirsN=k)  the last k parts of that          k=2: in/chr1
    $(rootN)        file name without extension       a.b
    $(extN)         extension, with the dot           .fa
    $(fileN)        file name                         a.b.fa
    $(numN)         position in the list, from 0

Everything else, `$(date)` too, stays as it is. A second list `single` has the one entry `single`; `selfPair` pairs each
entry of the first list with every later one.

Three things gensub2 does differently, which are plain mistakes of it: blank lines of a list yield jobs about nothing
(here they are skipped and not numbered); `$(lastDirsN=k)` with k greater than the number of parts is left in the line,
where a shell would run it (here it is the whole directory); and -group1 or -group2 with `selfPair` pairs every entry
with the word `single` (here they order the pairs). That `$(dirN)` has no slash at its end, though gensub2's help says
so, is kept: templates in use depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final, Literal, cast

import msgspec

Order = Literal["diagonal", "group1", "group2"]
Values = tuple[str, ...]

_VARIABLE: Final = re.compile(r"\$\((?:(path|dir|lastDir|root|ext|file|num)([12])|lastDirs([12])=([1-9]\d{0,3}))\)")
_LOOP, _END_LOOP = "#LOOP", "#ENDLOOP"
SINGLE: Final = "single"


class TemplateError(ValueError):
    """A template without its loop.

    Attributes:
        line: the last line that was looked at, from 1; 0 where there is none.
        found: what was there.
        accepted: what should have been.
    """

    def __init__(self, line: int, found: str, accepted: str) -> None:
        super().__init__(f"line {line}: found {found}, accepted is {accepted}")
        self.line = line
        self.found = found
        self.accepted = accepted


class Template(msgspec.Struct, frozen=True):
    """The three parts of a template, as lines without newlines."""

    before: tuple[str, ...]
    loop: tuple[str, ...]
    after: tuple[str, ...]


def parse_template(lines: Sequence[str]) -> Template:
    """Divide a template at its first line beginning with `#LOOP` and the next one beginning with `#ENDLOOP`.

    Raises:
        TemplateError: one of the two is missing.
    """
    begin = next((at for at, line in enumerate(lines) if line.startswith(_LOOP)), None)
    if begin is None:
        raise TemplateError(len(lines), "the end", f"a line beginning with {_LOOP}")
    end = next((at for at in range(begin + 1, len(lines)) if lines[at].startswith(_END_LOOP)), None)
    if end is None:
        raise TemplateError(
            len(lines), f"the end of the loop begun in line {begin + 1}", f"a line beginning with {_END_LOOP}"
        )
    return Template(tuple(lines[:begin]), tuple(lines[begin + 1 : end]), tuple(lines[end + 1 :]))


def parse_list(lines: Iterable[str]) -> list[str]:
    """The entries of a list: its lines without surrounding blanks; blank lines are skipped."""
    return [entry for line in lines if (entry := line.strip())]


def pairs(first: int, second: int, order: Order) -> Iterator[tuple[int, int]]:
    """Positions in two lists of these lengths, in the order of their jobs.

    `diagonal`: Aa Ba Ab Ca Bb Ac ..., so that the largest come first where both lists are sorted by size;
    `group1`: Aa Ab Ac Ba ...; `group2`: Aa Ba Ca Ab ....
    """
    if order == "group1":
        return ((i, j) for i in range(first) for j in range(second))
    if order == "group2":
        return ((i, j) for j in range(second) for i in range(first))
    return (
        (i, diagonal - i)
        for diagonal in range(first + second - 1)
        for i in range(min(diagonal, first - 1), max(0, diagonal - second + 1) - 1, -1)
    )


def self_pairs(length: int, order: Order) -> Iterator[tuple[int, int]]:
    """Positions i < j in one list: by i, or with `group2` by j."""
    if order == "group2":
        return ((i, j) for j in range(length) for i in range(j))
    return ((i, j) for i in range(length) for j in range(i + 1, length))


def generate(template: Template, list1: Sequence[str], list2: Sequence[str] | None, order: Order) -> Iterator[str]:
    """The lines of the job list, without newlines, made one by one.

    Args:
        template: from `parse_template`.
        list1: entries of the first list.
        list2: entries of the second list, `[SINGLE]` where there is none, or None for `selfPair`.
        order: of the jobs.
    """
    yield from template.before
    if template.loop:
        body = _Body("\n".join(template.loop))
        values1 = body.values(1, list1)
        values2 = body.values(2, list1 if list2 is None else list2)
        for i, j in self_pairs(len(list1), order) if list2 is None else pairs(len(list1), len(list2), order):
            yield from body.text(values1[i], values2[j]).split("\n")
    yield from template.after


class _Body:
    """The loop's text, made ready to be filled in: what an entry gives is worked out once, not once a pair."""

    def __init__(self, text: str) -> None:
        self._names: dict[int, dict[str, int]] = {1: {}, 2: {}}
        format_ = ""
        used: list[tuple[int, int]] = []
        at = 0
        for variable in _VARIABLE.finditer(text):
            side = int(variable[2] or variable[3])
            name = variable[1] or variable[4]
            used.append((side, self._names[side].setdefault(name, len(self._names[side]))))
            format_ += text[at : variable.start()].replace("%", "%%") + "%s"
            at = variable.end()
        self._format = format_ + text[at:].replace("%", "%%")
        self._pick = _picker([place if side == 1 else len(self._names[1]) + place for side, place in used])

    def values(self, side: int, entries: Sequence[str]) -> list[Values]:
        names = tuple(self._names[side])
        return [_values(entry, number, names) for number, entry in enumerate(entries)]

    def text(self, values1: Values, values2: Values) -> str:
        return self._format % self._pick(values1 + values2)


def _picker(places: list[int]) -> Callable[[Values], Values]:
    if len(places) > 1:
        return cast("Callable[[Values], Values]", itemgetter(*places))
    return lambda values: tuple(values[place] for place in places)


def _values(path: str, number: int, names: tuple[str, ...]) -> Values:
    head, slash, file = path.rpartition("/")
    return tuple([_value(name, path, number, head, slash, file) for name in names])


def _value(name: str, path: str, number: int, head: str, slash: str, file: str) -> str:
    """What an entry gives for a name; one of digits is a number of last directories."""
    match name:
        case "path":
            return path
        case "dir":
            return head or slash
        case "lastDir":
            return head.rpartition("/")[2]
        case "root":
            return file.rpartition(".")[0] if "." in file else file
        case "ext":
            return "." + file.rpartition(".")[2] if "." in file else ""
        case "file":
            return file
        case "num":
            return str(number)
        case _:
            return "/".join(head.split("/")[-int(name) :])
