"""Failed jobs of one batch, gathered by cause. It reads inside its caller's transactions and writes nothing."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from lanai.model.ids import BatchId
from lanai.model.records import SaveTail
from lanai.store.queries import statements
from lanai.store.standing import Standing

SQL: Final = statements("read")
ROWS_AT_ONCE: Final = 2000
EXAMPLES: Final = 3

_CHECK: Final = re.compile(r"\b((?:in|out)put check [a-z]+\+?): ")
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
        exit_code, signal: None where they are not part of the cause, as for jobs that ran out of time.
        reason: of the first of them.
    """

    outcome: str
    exit_code: int | None
    signal: int | None
    reason: str
    count: int
    examples: list[FailureExample]


class FailuresFound(msgspec.Struct, frozen=True):
    """The commonest groups, and how many further groups there are with how many jobs together."""

    groups: list[FailureGroup]
    more_groups: int
    more_jobs: int


class Cause(NamedTuple):
    """What failures have in common that stand in one group; `signal` 0 is none."""

    outcome: str
    exit_code: int | None
    signal: int
    text: str


class Failures:
    """The groups of one batch, while its pages are read one after the other."""

    def __init__(self) -> None:
        self._counts: dict[Cause, int] = {}
        self._examples: dict[Cause, list[tuple[int, int, int, str]]] = {}

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
    ) -> FailuresFound:
        """At most `limit` groups, the commonest first, with their examples' commands and tails."""
        by_count = sorted(self._counts, key=lambda cause: (-self._counts[cause], self._examples[cause][0]))
        rest = by_count[limit:]
        groups = [
            FailureGroup(
                outcome=cause.outcome,
                exit_code=cause.exit_code,
                signal=cause.signal or None,
                reason=self._examples[cause][0][3],
                count=self._counts[cause],
                examples=[
                    FailureExample(
                        index, attempt, names.get(node, ""), command_of(index), reason, tail_of(index, attempt)
                    )
                    for index, attempt, node, reason in self._examples[cause]
                ],
            )
            for cause in by_count[:limit]
        ]
        return FailuresFound(groups, len(rest), sum(self._counts[cause] for cause in rest))

    def _add(
        self, index: int, attempt: int, node: int, outcome: str, exit_code: int | None, signal: int, reason: str
    ) -> None:
        cause = cause_of(outcome, exit_code, signal, reason)
        self._counts[cause] = self._counts.get(cause, 0) + 1
        examples = self._examples.setdefault(cause, [])
        if len(examples) < EXAMPLES:
            examples.append((index, attempt, node, reason))


def cause_of(outcome: str, exit_code: int | None, signal: int, reason: str) -> Cause:
    """The group of a failure: by kind of check, by exit code or signal where the command ended so, else by outcome.

    Which signal ended a command that ran out of time, and what the file or the program was called, is not its cause.
    """
    match outcome:
        case "exit" | "signal" | "node":
            return Cause(outcome, exit_code, signal, reason_class(reason))
        case "check":
            kinds = sorted(set(_CHECK.findall(reason)))
            return Cause(outcome, exit_code, 0, "; ".join(kinds) or reason_class(reason))
        case _:
            return Cause(outcome, None, 0, "")


def reason_class(reason: str) -> str:
    """The reason without what differs from job to job: file names and numbers."""
    return _NUMBER.sub("N", _FILE.sub("FILE", reason))
