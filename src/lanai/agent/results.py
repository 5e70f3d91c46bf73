"""Results that the hub may not know yet: on the way into the spool, in it, or kept out by a full disk. Pure.

A part of the machine. A starter may forget an end once the spool has it, and the spool once the hub has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from lanai.agent import events as ev
from lanai.agent.events import Effect, Member
from lanai.model.ids import GrantId
from lanai.model.job import AttemptResult


class Results:
    """All that are not forgotten."""

    def __init__(self, remembered: list[tuple[int, AttemptResult]]) -> None:
        """`remembered`: what is in the spool by its number there, the oldest first."""
        self._unforgotten = deque(remembered)
        self._unkept: dict[str, list[AttemptResult]] = {}
        self._being_kept = 0
        self._starter_upto: dict[str, int] = {}

    @property
    def are_being_kept(self) -> bool:
        """Whether some are on their way into the spool."""
        return bool(self._being_kept)

    @property
    def are_unkept(self) -> bool:
        """Whether some did not get into the spool."""
        return bool(self._unkept)

    @property
    def are_unforgotten(self) -> bool:
        """Whether the spool has some."""
        return bool(self._unforgotten)

    def has_unkept(self, owner: str) -> bool:
        """Whether some of this starter's did not get into the spool."""
        return owner in self._unkept

    def members(self) -> list[Member]:
        """Whose ends are in the spool or did not get there."""
        ended = [(result.grant, result.index) for _, result in self._unforgotten]
        return ended + [(result.grant, result.index) for results in self._unkept.values() for result in results]

    def numbered(self) -> list[tuple[int, AttemptResult]]:
        """What is in the spool, in its order."""
        return list(self._unforgotten)

    def told(self, owner: str, upto: int) -> int:
        """The starter told of its ends up to this number; up to which it has told of them altogether."""
        self._starter_upto[owner] = max(self._starter_upto.get(owner, 0), upto)
        return self._starter_upto[owner]

    def starter_died(self, owner: str) -> None:
        """The next one counts anew."""
        self._starter_upto.pop(owner, None)

    def keep(self, results: list[AttemptResult], owner: str, out: list[Effect]) -> None:
        """Have them put into the spool, after those of this starter that did not get there."""
        everything = self._unkept.pop(owner, []) + results
        self._being_kept += len(everything)
        out.append(ev.Keep(everything, self._starter_upto.get(owner, 0), owner))

    def keep_unkept(self, out: list[Effect]) -> None:
        """Try again."""
        for owner in list(self._unkept):
            self.keep([], owner, out)

    def not_kept(self, results: list[AttemptResult], owner: str) -> None:
        """They did not get into the spool."""
        self._being_kept -= len(results)
        self._unkept[owner] = results + self._unkept.get(owner, [])

    def kept(
        self, kept: ev.ResultsKept, is_foreign: Callable[[GrantId], bool], out: list[Effect]
    ) -> list[tuple[int, AttemptResult]]:
        """They are in the spool; those that are the hub's to hear, in order. The others are put aside."""
        upto, results = kept.upto, kept.results
        self._being_kept -= len(results)
        if kept.starter_upto:
            out.append(ev.Release(kept.starter_upto, kept.owner))
        numbered = list(enumerate(results, upto - len(results) + 1))
        apart = [result for result in results if is_foreign(result.grant)]
        if apart:
            out.append(ev.SetApart(apart))
            numbered = [one for one in numbered if not is_foreign(one[1].grant)]
        self._unforgotten.extend(numbered)
        return numbered

    def set_apart(self, is_foreign: Callable[[GrantId], bool], out: list[Effect]) -> None:
        """Put those in the spool aside that are of another epoch of the hub."""
        apart = [result for _, result in self._unforgotten if is_foreign(result.grant)]
        if apart:
            out.append(ev.SetApart(apart))
            self._unforgotten = deque(one for one in self._unforgotten if not is_foreign(one[1].grant))

    def forget(self, upto: int) -> None:
        """The hub has those up to this number."""
        while self._unforgotten and self._unforgotten[0][0] <= upto:
            self._unforgotten.popleft()
