"""Standard input on its way from the hub to a command: what came before the job did.

Values only, no I/O. What has been seen before is not known here, since an agent may take a command over from another:
the starter counts, and takes each byte once. A batch with `stdin = "pipe"` has one job, so there is little to keep;
what cannot be given to the starter yet is bounded by what the sender may have on its way.
"""

from __future__ import annotations

from collections.abc import Callable

from lanai.agent.events import Member
from lanai.model.ids import BatchId, Index
from lanai.wire.messages import Input

Find = Callable[[BatchId, Index, int | None], Member | None]


class Inputs:
    """Pieces of standard input, in the order in which they came."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._early: list[Input] = []

    def add(self, piece: Input) -> None:
        """The hub sent this. What is sent again takes the place of what waits since the first time."""
        self._early = [one for one in self._early if _name(one) != _name(piece)]
        self._early.append(piece)

    def ready(self) -> list[tuple[Member, Input]]:
        """What can be given to the starter now, and to whom."""
        if not self._early:
            return []
        found = [(self._find(one.batch, one.index, one.attempt or None), one) for one in self._early]
        self._early = [one for member, one in found if member is None]
        return [(member, one) for member, one in found if member is not None]

    def clear(self) -> None:
        """The hub is gone: what had to be kept for it is sent again by whoever sent it."""
        self._early.clear()


def _name(piece: Input) -> tuple[BatchId, Index, int, int]:
    return piece.batch, piece.index, piece.attempt, piece.offset
