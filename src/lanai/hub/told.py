"""What happened to nodes and batches, once it is kept, as lines of the hub's log."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from lanai.model.records import Record, SaveEvent
from lanai.wire.logs import about

_WORRYING: Final = frozenset(
    {"attempts_fenced", "attempts_lost", "batch_paused", "batch_stalled"}
    | {"node_avoided", "node_away", "node_silent", "node_trouble"}
)
_log = logging.getLogger(__name__)


def log_events(records: Iterable[Record]) -> None:
    """A line for each event among them."""
    for record in records:
        if type(record) is SaveEvent:
            level = logging.WARNING if record.kind in _WORRYING else logging.INFO
            subject, text = _on_a_line(record.subject), _on_a_line(record.text)
            facts = about(event=record.kind, **{_what(record.kind): subject})
            _log.log(level, "%s %s: %s", record.kind, subject, text, extra=facts)


def _on_a_line(text: str) -> str:
    """What an agent has said may hold line ends, and what would look like lines of ours."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _what(kind: str) -> str:
    match kind.partition("_")[0]:
        case "batch":
            return "batch"
        case "node" | "attempts":
            return "node"
        case _:
            return "subject"
