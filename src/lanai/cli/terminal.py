"""What the standard streams are, and what may be written to them.

Colour, bars and prompts are for terminals only; NO_COLOR and TERM=dumb are honoured. Text that comes from jobs is made
harmless before it reaches a terminal.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
CLEAR_LINE: Final = "\r\x1b[K"
_COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person looks at `stream`."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def has_cursor(stream: IO[str]) -> bool:
    """Whether a line on `stream` can be drawn over."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"


def coloured(text: str, colour: str, stream: IO[str]) -> str:
    """`text` in one of red, green, yellow, dim, bold where `stream` shows colours, else as it is."""
    if not has_cursor(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def width(stream: IO[str]) -> int | None:
    """Columns of the terminal that `stream` is, or None where it is none."""
    if not is_terminal(stream):
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:
        return None


def printable(text: str) -> str:
    r"""`text` on one line and without anything a terminal would obey: control characters stand as \xNN."""
    return _CONTROL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[match[0]]
    return f"\\x{code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code:02x}"


def shortened(text: str, columns: int) -> str:
    """`text` in at most `columns` characters, with an ellipsis where something was cut."""
    return text if len(text) <= columns else text[: max(0, columns - 1)] + "…"


def write_bytes(data: bytes, stream: IO[str]) -> None:
    """Write all of `data` to what is below `stream`. With PYTHONUNBUFFERED that takes only a part at a time."""
    left = memoryview(data)
    while left:
        left = left[stream.buffer.write(left) :]  # type: ignore[attr-defined]


def say(text: str) -> None:
    """Talk: one line on standard error, see `talk`."""
    talk(text + "\n")


def interject(text: str) -> None:
    """Talk while something else may be drawn there: takes the place of a live line, which is drawn anew below."""
    say(CLEAR_LINE + text if has_cursor(sys.stderr) else text)


def talk(text: str) -> None:
    """Write to standard error. Where no more fits there (a full disk) it is dropped, as is all that follows.

    Raises:
        BrokenPipeError, OSError with EIO: nobody is at the other end any more.
    """
    with _dropped_where_full():
        sys.stderr.write(text)
        sys.stderr.flush()


def talk_bytes(data: bytes) -> None:
    """The same for what a command has written to its standard error."""
    with _dropped_where_full():
        write_bytes(data, sys.stderr)
        sys.stderr.flush()


@contextmanager
def _dropped_where_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO):
            raise
        let_go(2)


def let_go(descriptor: int) -> None:
    """Give a descriptor of ours to /dev/null, with what our buffers still hold for it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
