"""Nodes named in a few characters: `n1,n2`, `n[1-8,12]`, `rack[01-03]-[a,b]`, and globs such as `gpu-*`.

A bracket with numbers, ranges of numbers, or several words stands for each of them in turn; with anything else it is a
glob's class of characters, as in `n[ab]`. Numbers keep the width of the first of their range.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

import msgspec

NAMES_MOST: Final = 10_000
CHARACTERS_MOST: Final = 100_000
ACCEPTED: Final = f"names with commas between, such as n1, n[1-8,12] or gpu-*, that stand for {NAMES_MOST} at most"

_BRACKET: Final = re.compile(r"\[([^\[\]]*)\]")
_RANGE: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_NAMES: Final = re.compile(r"(?:[A-Za-z0-9_.:*?!\[\]^-]{1,255},)*", re.ASCII)
_GLOB: Final = re.compile(r"[*?\[]")


class NamesError(ValueError):
    """An expression that is not understood: what was found, and what is accepted."""

    def __init__(self, found: str) -> None:
        super().__init__(f"found {found!r}, accepted is {ACCEPTED}")
        self.found = found
        self.accepted = ACCEPTED


class Names(msgspec.Struct, frozen=True):
    """A set of names: some one by one, and globs."""

    exact: frozenset[str]
    globs: tuple[str, ...]

    def has(self, name: str) -> bool:
        """Whether the name is among them."""
        return name in self.exact or "*" in self.globs or any(fnmatchcase(name, glob) for glob in self.globs)


@lru_cache(maxsize=256)
def names_of(expression: str) -> Names:
    """What an expression stands for. Raises NamesError."""
    if len(expression) > CHARACTERS_MOST:
        raise NamesError(f"{expression[:60]}...")
    found: dict[str, str] = {}  # each name, and the part of the expression that it came from
    for part in _parts(expression):
        found.update(dict.fromkeys(_expanded(part, NAMES_MOST - len(found)), part))
    # All at once, which is much quicker than one by one. There is no comma in a name.
    names = ",".join((*found, ""))
    if not _NAMES.fullmatch(names):
        raise NamesError(next(part for name, part in found.items() if not _NAMES.fullmatch(f"{name},"))[:80])
    globs = tuple(name for name in found if _GLOB.search(name)) if _GLOB.search(names) else ()
    return Names(frozenset(found).difference(globs), globs)


def _parts(expression: str) -> Iterator[str]:
    """Cut at commas that stand in no bracket."""
    if "[" not in expression and "]" not in expression:
        yield from map(str.strip, expression.split(","))
        return
    depth = start = 0
    for at, character in enumerate(expression):
        depth += (character == "[") - (character == "]")
        if not 0 <= depth <= 1:
            raise NamesError(expression[:80])
        if character == "," and not depth:
            yield expression[start:at].strip()
            start = at + 1
    if depth:
        raise NamesError(expression[:80])
    yield expression[start:].strip()


def _expanded(part: str, most: int) -> list[str]:
    """The part with each of its lists in brackets written out; `most` names at most."""
    if "[" not in part:
        return [part]
    names = [""]
    at = 0
    for bracket in _BRACKET.finditer(part):
        choices = _choices(part, bracket[1], most)
        if len(names) * len(choices) > most:
            raise NamesError(part[:80])
        names = [name + part[at : bracket.start()] + choice for name in names for choice in choices]
        at = bracket.end()
    return [name + part[at:] for name in names]


def _choices(part: str, inside: str, most: int) -> list[str]:
    items = inside.split(",")
    if len(items) == 1 and not _RANGE.fullmatch(items[0]):
        return [f"[{inside}]"]
    found: list[str] = []
    for item in items:
        match = _RANGE.fullmatch(item.strip())
        if match is None:
            found.append(item.strip())
            continue
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + most:
            raise NamesError(part[:80])
        found += [f"{number:0{len(match[1])}d}" for number in range(first, last + 1)]
    return found
