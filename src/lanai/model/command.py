"""How a command line becomes the words of a process.

By GNU make's rule: a line is started directly unless it holds something that only a shell understands. That saves a
process per job where it can, and gives a shell where it must. Only the line is looked at, never the PATH, so the same
line is started in the same way on every node.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from lanai.model.batch import SHELL_SETTINGS

SHELL: Final = b"/bin/sh"

SPECIAL: Final = b"#;\"'*?[]&|<>(){}$`^~!\\"
"""Characters that a shell treats in its own way, wherever they stand."""

KEYWORDS: Final = frozenset(b"case do done elif else esac fi for if in then until while".split())
"""Reserved words of the POSIX shell that hold no special character."""

BUILTINS: Final = frozenset(
    b". : alias bg break cd chdir command continue eval exec exit export fg getopts hash jobs local read readonly"
    b" return set shift source times trap type ulimit umask unalias unset wait".split()
)
"""Builtins of dash without a program of that name, or that act on the shell itself; `source` is what bash's sh adds.

`echo false kill printf pwd test time true` are programs too and do the same, so they are started directly.
"""

_SHELL_WORDS: Final = KEYWORDS | BUILTINS
_ASSIGNMENT: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*=")


class CommandError(ValueError):
    """A line that cannot be made into words; the text says why."""


def needs_shell(line: bytes) -> bool:
    """Whether a line must go through /bin/sh: special characters, `NAME=` in front, or a shell's own first word."""
    if len(line.translate(None, SPECIAL)) != len(line):
        return True
    first = line.split(None, 1)[:1]
    return bool(first) and (first[0] in _SHELL_WORDS or (b"=" in first[0] and _ASSIGNMENT.match(first[0]) is not None))


def argv(line: bytes, shell: str) -> list[bytes]:
    """The words to start a line with, at least one.

    Args:
        line: the command, without NUL.
        shell: `auto`: through /bin/sh where `needs_shell` says so, else split on blanks; `always`: through /bin/sh;
            `never`: split on blanks, quotes being ordinary characters, as Parasol does; `words`: split as a shell
            splits, with its quotes and backslashes but without expanding anything.

    Raises:
        CommandError: there is no word, the setting is none of these, or (`words` only) a quote is not closed.
    """
    match shell:
        case "auto":
            words = _through_shell(line) if needs_shell(line) else line.split()
        case "always":
            words = _through_shell(line)
        case "never":
            words = line.split()
        case "words":
            words = _shell_words(line)
        case _:
            raise CommandError(f"shell is {shell!r}, accepted is one of {', '.join(SHELL_SETTINGS)}")
    if not words:
        raise CommandError("the command is empty")
    return words


def _through_shell(line: bytes) -> list[bytes]:
    return [SHELL, b"-c", line] if line.strip() else []


def _shell_words(line: bytes) -> list[bytes]:
    try:
        words = shlex.split(line.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise CommandError(f"the command cannot be split into words: {error}") from error
    return [word.encode("utf-8", "surrogateescape") for word in words]
