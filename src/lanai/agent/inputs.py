"""Standard input on its way from the hub to a command: what came too early, and what was seen before.

Values only, no I/O. A batch with `stdin = "pipe"` has one job, so there is little to keep; what cannot be given to the
starter yet is bounded by what the sender may have on its way.
"""

from __future__ import annotations

from collections.abc import Callable

from lanai.agent.events import Member
from lanai.model.ids import BatchId, Index
from lanai.wire.messages import Input

Job = tuple[BatchId, Index]
Find = Callable[[BatchId, Index], Member | None]
Piece = tuple[Member, bytes, bool]


class Inputs:
    """Pieces of standard input, in order of their offsets."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._early: list[Input] = []
        self._jobs: dict[Member, Job] = {}
        self._next: dict[Job, int] = {}

    def add(self, piece: Input) -> None:
        """The hub sent this."""
        self._early.append(piece)

    def ready(self) -> list[Piece]:
        """What can be given to the starter now: (member, bytes, whether it is the end)."""
        found: list[Piece] = []
        early: list[Input] = []
        for piece in self._early:
            member = self._find(piece.batch, piece.index)
            if member is None:
                early.append(piece)
                continue
            job = (piece.batch, piece.index)
            seen = self._next.get(job, 0)
            self._jobs[member] = job
            self._next[job] = max(seen, piece.offset + len(piece.data))
            found.append((member, piece.data[max(0, seen - piece.offset) :], piece.is_end))
        self._early = early
        return found

    def job(self, member: Member) -> Job | None:
        """Whose input it was; None where none was given."""
        return self._jobs.get(member)

    def end(self, member: Member) -> None:
        """Nothing more is taken for it."""
        job = self._jobs.pop(member, None)
        if job is not None:
            self._next.pop(job, None)
