"""Where hub and API process log: the journal where their standard error is the journal's, else lines on standard error.

A log line names what it is about as `extra=about(node=..., batch=..., user=...)`; in the journal these are fields,
`LANAI_NODE` and so on. In lines they are left out, since the text says them too.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from lanai.wire.journal import Journal, is_stderr

_PREFIX: Final = "lanai_"


def about(**facts: str | int) -> dict[str, str | int]:
    """The `extra` of a log line: what it is about. A fact that is empty or 0 is none."""
    return {_PREFIX + name: value for name, value in facts.items() if value}


def configure(identifier: str, *, level: int, lines: str) -> None:
    """Set logging up for this process. `lines` is the format of lines on standard error."""
    handlers: list[logging.Handler] = [JournalHandler(Journal(identifier), lines)] if is_stderr(os.environ) else []
    logging.basicConfig(format=lines, level=level, handlers=handlers or None)


class JournalHandler(logging.Handler):
    """Makes entries of log lines. What the journal does not take goes to standard error as `lines` says."""

    def __init__(self, journal: Journal, lines: str) -> None:
        super().__init__()
        self._journal = journal
        self._bare = logging.Formatter("%(message)s")
        self._spare = logging.StreamHandler()
        self._spare.setFormatter(logging.Formatter(lines))

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        fields = {name.upper(): value for name, value in vars(record).items() if name.startswith(_PREFIX)}
        fields["LANAI_LOGGER"] = record.name
        if not self._journal.send(self._bare.format(record), priority=_priority(record.levelno), fields=fields):
            self._spare.emit(record)


def _priority(level: int) -> int:
    """As syslog(3) counts: 2 is critical, 7 is for debugging."""
    named = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((priority for least, priority in named if level >= least), 7)
