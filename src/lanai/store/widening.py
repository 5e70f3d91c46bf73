"""Runs one statement for many rows at once.

Every step into SQLite gives Python's lock away and has to wait for it afterwards, up to 5 ms while another thread is
busy: measured beside a busy loop, `executemany` costs 8 ms a row, and a statement of 256 rows 0.05. So a statement
written for one row, `... VALUES (?, ?) ...`, is widened to as many as SQLite takes.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

_ONE_ROW: Final = re.compile(r"VALUES\s*(\(\?(?:, \?)*\))")
_SIZES: Final = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
_PARAMETERS_MAX: Final = 32_766


def execute_rows(
    db: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]], *, at_once_max: int = _SIZES[0]
) -> list[Any]:
    """Runs `sql`, written for one row, for all `rows` in their order, in as few steps as possible.

    Returns the rows that it gives, if it gives any.
    """
    found: list[Any] = []
    at = 0
    for size in _SIZES:
        if size > at_once_max:
            continue
        while len(rows) - at >= size:
            found += db.execute(_widened(sql, size), tuple(chain.from_iterable(rows[at : at + size])))
            at += size
    return found


@functools.cache
def _widened(sql: str, size: int) -> str:
    match = _ONE_ROW.search(sql)
    if match is None:
        raise ValueError(f"no VALUES of one row in: {sql}")
    one = match[1]
    if one.count("?") * size > _PARAMETERS_MAX:
        raise ValueError(f"{size} rows are too many parameters for: {sql}")
    return sql[: match.start(1)] + ", ".join([one] * size) + sql[match.end(1) :]
