"""Failed jobs of one batch, gathered by cause. It reads inside its caller's transactions and writes nothing."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from lanai.model.ids import BatchId
from lanai.model.records import SaveTail
from lanai.store.queries import statements
from lanai.store.standing import Standing

SQL: Final = statements("read")
ROWS_AT_ONCE: Final = 2000
EXAMPLES: Final = 3

_FILE: Final = re.compile(r"\S*/\S*")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")


class FailureExample(msgspec.Struct, frozen=True):
    """One failed job. `tail` is None where its output is no longer kept, or not yet."""

    index: int
    attempt: int
    node: str
    command: str
    reason: str
    tail: SaveTail | None


class FailureGroup(msgspec.Struct, frozen=True):
    """Jobs that failed for one cause.

    Attributes:
        exit_code, signal: None where the outcome has none.
        reason: of the first of them; the others' differ in numbers and file names only.
    """

    outcome: str
    exit_code: int | None
    signal: int | None
    reason: str
    count: int
    examples: list[FailureExample]


class Failures:
    """The groups of one batch, while its pages are read one after the other."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int | None, int, str], int] = {}
        self._examples: dict[tuple[str, int | None, int, str], list[tuple[int, int, int, str]]] = {}

    def read_page(self, db: sqlite3.Connection, batch: BatchId, after: int, budget_s: float) -> int | None:
        """Takes in failed jobs beyond index `after` for `budget_s`; the index to go on after, None at the end."""
        until = time.monotonic() + budget_s
        standing = Standing(db, batch)
        while True:
            wanted = {"batch": batch, "after": after, "most": ROWS_AT_ONCE}
            rows = db.execute(SQL["failures"], wanted).fetchall()
            for row, index, *rest in rows:
                if not standing.is_revived(row, index):
                    self._add(index, *rest)
            if len(rows) < ROWS_AT_ONCE:
                return None
            after = rows[-1][1]
            if time.monotonic() >= until:
                return after

    def groups(
        self,
        limit: int,
        names: Mapping[int, str],
        command_of: Callable[[int], str],
        tail_of: Callable[[int, int], SaveTail | None],
    ) -> list[FailureGroup]:
        """The commonest groups, with their examples' commands and tails."""
        commonest = sorted(self._counts, key=lambda cause: (-self._counts[cause], self._examples[cause][0]))
        return [
            FailureGroup(
                outcome=cause[0],
                exit_code=cause[1],
                signal=cause[2] or None,
                reason=self._examples[cause][0][3],
                count=self._counts[cause],
                examples=[
                    FailureExample(
                        index, attempt, names.get(node, ""), command_of(index), reason, tail_of(index, attempt)
                    )
                    for index, attempt, node, reason in self._examples[cause]
                ],
            )
            for cause in commonest[:limit]
        ]

    def _add(
        self, index: int, attempt: int, node: int, outcome: str, exit_code: int | None, signal: int, reason: str
    ) -> None:
        cause = (outcome, exit_code, signal, reason_class(reason))
        self._counts[cause] = self._counts.get(cause, 0) + 1
        examples = self._examples.setdefault(cause, [])
        if len(examples) < EXAMPLES:
            examples.append((index, attempt, node, reason))


def reason_class(reason: str) -> str:
    """The reason without what differs from job to job: file names and numbers."""
    return _NUMBER.sub("N", _FILE.sub("FILE", reason))
