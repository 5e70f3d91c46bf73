"""What one starter says of attempts: the events that come of it, in order and without a gap. Pure, a part of its port.

What cannot be is a LinkError, on which its connection is to end. Whether it may speak of so many is for `distrust` to
see, and whether these are its own for the machine.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lanai.agent import events as ev
from lanai.agent import starter_link as link
from lanai.agent.distrust import are_numbers, is_sane, members_of
from lanai.agent.events import Member, StarterEvent
from lanai.agent.reads import Record, checked
from lanai.model.ids import GrantId, Index
from lanai.model.job import AttemptResult

REASON_CHARACTERS: Final = 500


class Written(NamedTuple):
    """Where the outputs of an attempt that ended are: records of the starter for standard output and error."""

    member: Member
    attempt: int
    outcome: str
    records: list[Record | None]


class Heard:
    """The ends that were told, and an inventory of which not all has come yet.

    Attributes:
        left: what had begun and has not ended, where the starter said that last; None where it did not.
        written: outputs of attempts since the owner last emptied it.
    """

    def __init__(self, owner: str) -> None:
        self.left: tuple[Member, ...] | None = None
        self.written: list[Written] = []
        self._owner = owner
        self._inventory: link.Inventory | None = None
        self._early: list[link.Ended] = []
        self._sequence = 0

    def ended(self, items: list[link.Ended], left: list[link.Key] | None, found: list[StarterEvent]) -> None:
        """Attempts have ended: one more event in `found`, or more in its last one, unless an inventory waits for it."""
        self.left = members_of(left)
        if self._inventory is not None:
            self._early.extend(items)
            self._end_inventory(found)
        elif items:
            self._add_ends(items, found)

    def inventory(self, inventory: link.Inventory, found: list[StarterEvent]) -> None:
        """What a new connection begins with. The starter is up once the ends that it announces have come."""
        self._inventory, self._early = inventory, []
        self._end_inventory(found)

    def on_death(self) -> None:
        """The next one counts anew. What was written stays for the owner."""
        self._inventory = None
        self._sequence, self.left = 0, None

    def _add_ends(self, items: list[link.Ended], found: list[StarterEvent]) -> None:
        """As one event with those that came just before."""
        results = self._results(items)
        if found and isinstance(last := found[-1], ev.AttemptsEnded):
            found[-1] = ev.AttemptsEnded(last.results + results, items[-1].sequence, self._owner)
        else:
            found.append(ev.AttemptsEnded(results, items[-1].sequence, self._owner))

    def _end_inventory(self, found: list[StarterEvent]) -> None:
        """The ends follow the inventory; only together do they say what became of what an earlier agent handed out."""
        assert self._inventory is not None
        if len(self._early) < self._inventory.ended:
            return
        waiting = list(members_of([(grant, index) for grant, index, _ in self._inventory.waiting]) or ())
        began = beginnings(self._inventory.running)
        upto = self._early[-1].sequence if self._early else 0
        found.append(ev.StarterUp(began, waiting, self._results(self._early), upto, self._owner))
        self._inventory, self._early = None, []

    def _results(self, items: list[link.Ended]) -> list[AttemptResult]:
        results: list[AttemptResult] = []
        for row in items:
            if not is_sane(row):
                raise link.LinkError(f"an end that cannot be: {str(row)[:200]}")
            # With a gap it would be told to forget ends that it has not told.
            if row.sequence != self._sequence + 1 and self._sequence:
                raise link.LinkError(f"end {row.sequence} after end {self._sequence}")
            self._sequence = row.sequence
            _, g, i, attempt, outcome, code, signal, began, wall, user, system, peak, reason, output, _, escaped = row
            grant, index = GrantId(g), Index(i)
            usage = (began or 0, wall, user, system, peak)
            if output is not None:
                self.written.append(Written((grant, index), attempt, outcome, checked(output)))
            results.append(AttemptResult(grant, index, outcome, code, signal or 0, *usage, shown(reason), escaped))
        return results


def beginnings(items: list[link.Running]) -> list[tuple[GrantId, Index, int]]:
    """Fence and time of each; LinkError if there can be none such."""
    for one in items:
        if not are_numbers(one.grant, one.index, one.attempt, one.pid, one.started_wall_us, one.slot or 0):
            raise link.LinkError(f"an attempt that cannot be: {str(one)[:200]}")
    return [(GrantId(one.grant), Index(one.index), one.started_wall_us) for one in items]


def shown(reason: str | None) -> str:
    """A reason as people see it: it may name a word or a file of a command, with up to 1 MiB of any bytes."""
    clean = (reason or "").encode("utf-8", "replace").decode()
    return clean if len(clean) <= REASON_CHARACTERS else clean[: REASON_CHARACTERS - 1] + "…"
