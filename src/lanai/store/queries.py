"""Finds the SQL of this room: the schema, its migrations, and the named statements of a file.

A statement stands in a file of `sql/` under a line `-- name: NAME`; other comment lines are for readers. It must not
touch a database.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final

_MIGRATION = re.compile(r"(\d{4})\.sql")
_SQL: Final = Path(__file__).parent / "sql"


def schema() -> str:
    """The script that makes an empty store of the newest version."""
    return (_SQL / "schema.sql").read_text(encoding="utf-8")


def migrations() -> list[tuple[int, str]]:
    """(version it leads to, script) of every migration, ascending from 1 without a gap."""
    found = [(_MIGRATION.fullmatch(entry.name), entry) for entry in (_SQL / "migrations").iterdir()]
    return sorted((int(match[1]), entry.read_text(encoding="utf-8")) for match, entry in found if match)


@functools.cache
def statements(file: str) -> dict[str, str]:
    """The statements of `sql/FILE.sql` by name."""
    text = (_SQL / f"{file}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    return {name: _without_comments(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _without_comments(body: str) -> str:
    return "\n".join(line for line in body.splitlines() if line and not line.startswith("--"))
