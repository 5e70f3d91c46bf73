"""Where the outputs of attempts on this node are: a text file per batch, in a directory of the agent's own.

One line per attempt that wrote anything, looked up by a search for the line's beginning, so that nothing of it is held
in memory: `[index, attempt, [record, record], user]`. The records are the starter's, of standard output and error, and
mean something only to a starter in the same directory. `user` says whose starter that is; the agent's own, where an
agent has but one, has none.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from pathlib import Path
from typing import NamedTuple

from lanai.agent.reads import Record, checked
from lanai.agent.starter_link import LinkError
from lanai.agent.starter_sweeping import sweeping
from lanai.model.ids import BatchId, Index

Where = tuple[BatchId, Index, int]


class Noted(NamedTuple):
    """What an attempt that ended has written, and whose starter knows."""

    where: Where
    outcome: str
    records: list[Record | None]
    user: str = ""


class OutputIndex:
    """The index of all outputs, whichever starter has them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def note(self, written: list[Noted]) -> None:
        """Remember where attempts wrote. A full disk loses the index, never a result."""
        by_batch: dict[BatchId, list[str]] = {}
        for (batch, index, attempt), _, records, user in written:
            row = [index, attempt, records, user] if user else [index, attempt, records]
            by_batch.setdefault(batch, []).append(json.dumps(row, separators=(",", ":")))
        for batch, lines in by_batch.items():
            with contextlib.suppress(OSError):
                self._directory.mkdir(mode=0o700, exist_ok=True)
                with open(self._directory / str(batch), "ab", buffering=0) as file:
                    # Begun on a line of its own: a kill may have torn the last one.
                    file.write(b"\n" + "\n".join(lines).encode("ascii") + b"\n")

    def find(self, where: Where) -> tuple[list[Record | None], str] | None:
        """Where an attempt wrote, and whose starter knows; None if it wrote nothing, or that is not known any more."""
        batch, index, attempt = where
        path = self._directory / str(batch)
        try:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
                at = text.rfind(b"\n[%d,%d," % (index, attempt))
                if at < 0:
                    return None
                text.seek(at + 1)
                _, _, records, *user = json.loads(text.readline())
                return checked(records), str(user[0]) if user else ""
        except (OSError, ValueError, TypeError, LinkError):
            return None

    def sweep(self, kept_since_s: float, cap_bytes: int) -> None:
        """Forget batches in which nothing has ended since then, and the oldest beyond `cap_bytes`."""
        try:
            paths = [os.fspath(path) for path in self._directory.iterdir()]
        except OSError:
            return
        for _ in sweeping(paths, kept_since_s, cap_bytes):
            pass


def moved(former: Path, to: Path) -> OutputIndex:
    """The index in the directory `to`, with what an agent of an earlier version has left of it in `former`."""
    try:
        for path in former.iterdir():
            _move(path, to)
        former.rmdir()
    except OSError:
        pass  # there is none, or the next start goes on with it
    return OutputIndex(to)


def _move(path: Path, to: Path) -> None:
    to.mkdir(mode=0o700, exist_ok=True)
    if not (to / path.name).exists():
        path.rename(to / path.name)
        return
    # An earlier version ran in between, and what both have of a batch is put together.
    with open(to / path.name, "ab", buffering=0) as file:
        file.write(path.read_bytes())
    path.unlink()
