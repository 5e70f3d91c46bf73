"""On which line of a TOML file a key stands: `tomllib` says what a file holds, but not where.

Only for text that has been parsed. What stands within an array or an inline table is on the line of its key.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

Path = tuple[str, ...]

_KEY: Final = re.compile(r"""[ \t]*(?:"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*""")
_TOKEN: Final = re.compile(
    r"""\"{3}(?:[^\\]|\\.)*?\"{3,5} | '{3}.*?'{3,5} | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' | \#[^\n]* | [\[\]{}] | \n""",
    re.DOTALL | re.VERBOSE,
)
_BLANK: Final = re.compile(r"(?:\s|#[^\n]*)*")


class Lines:
    """The lines of one text."""

    def __init__(self, text: str) -> None:
        self._ends = [place.start() for place in re.finditer(r"\n", text)]
        self._lines: dict[Path, int] = {(): 1}
        self._read(text)

    def of(self, path: Path) -> int:
        """Where the key stands, or the table that it is in; from 1."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def note(self, path: Path, line: int) -> None:
        """The key stands there, where the text does not say so itself. The first word counts."""
        self._lines.setdefault(path, line)

    def _read(self, text: str) -> None:
        table: Path = ()
        at = _end_of(_BLANK, text, 0)
        while at < len(text):
            if text[at] == "[":
                table, _ = self._note((), text, at + (2 if text[at + 1 : at + 2] == "[" else 1))
                at = text.find("\n", at)
                at = len(text) if at < 0 else at
            else:
                _, at = self._note(table, text, at)
                at = _end_of_value(text, at)
            at = _end_of(_BLANK, text, at)

    def _note(self, table: Path, text: str, at: int) -> tuple[Path, int]:
        """Note a key that may have dots; returns all of it, and where it ends."""
        line = bisect_right(self._ends, at) + 1
        while (found := _KEY.match(text, at)) is not None:
            table = (*table, next(part for part in found.groups() if part is not None))
            self._lines.setdefault(table, line)
            at = found.end()
            if text[at : at + 1] != ".":
                break
            at += 1
        return table, at


def no_toml(text: str, file: str, said: str) -> str:
    """What `tomllib` said of a text that is no TOML, as `FILE:LINE: what`."""
    place = re.search(r" \(at line (\d+), column \d+\)$", said)
    line = int(place[1]) if place else text.count("\n") + 1
    what = said[: place.start()] if place else said.removesuffix(" (at end of document)")
    return f"{file}:{line}: found no TOML: {what}"


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _end_of_value(text: str, at: int) -> int:
    depth = 0
    for token in _TOKEN.finditer(text, at):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        elif token[0] == "\n" and depth <= 0:
            return token.start()
    return len(text)
