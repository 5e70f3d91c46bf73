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
            facts = about(event=record.kind, **{_what(record.kind): record.subject})
            _log.log(level, "%s %s: %s", record.kind, record.subject, record.text, extra=facts)


def _what(kind: str) -> str:
    match kind.partition("_")[0]:
        case "batch":
            return "batch"
        case "node" | "attempts":
            return "node"
        case _:
            return "subject"
