"""What a starter may say, and how long it may be silent. Pure; one for each connection of `starting`.

A user can do with his starter what he likes. So what it says has to be of the kinds and within the bounds of the
protocol, no more than what it was given or asked, and it has to say something when it is asked. That it speaks of its
own attempts only is for the machine to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lanai.agent.events import Member
from lanai.agent.starter_link import Ended, InputTaken, Key, LinkError
from lanai.model.ids import GrantId, Index
from lanai.model.job import Outcome

HANG_US: Final = 60_000_000
HURRY_US: Final = 4_000_000
"""How soon a starter has to answer once the lease is over: before the hub gives its jobs to others."""

LOOK_US: Final = 1_000_000
"""How often one that owes an answer is looked at. A longer pause was our own, or that of the whole computer."""

_HELD_AT_MOST: Final = 1 << 20
_INPUTS_OF_OTHERS: Final = 1 << 13
"""How many words about inputs may be owed to what an agent before has sent: 4 MiB that nobody has read, and some."""

_INPUT_STEP_BYTES: Final = 1 << 10
"""A pipe is a row of pages: what is passed on at once is no less than this, but for the last of each piece."""

_LIMIT: Final = 1 << 62
_DURATION_LIMIT: Final = 1 << 48
_SIGNALS: Final = 128
_OUTCOMES: Final = frozenset(Outcome)


class Promised:
    """How many attempts a starter may still speak of, so that it cannot keep us busy with more than it was given."""

    def __init__(self) -> None:
        self._ends = self._begins = 0
        self._inputs = _INPUTS_OF_OTHERS

    def add(self, count: int) -> None:
        """So many were given to it."""
        self._ends += count
        self._begins += count

    def holds(self, listed: int, ended: object) -> None:
        """So many it lists, and so many have ended, of an earlier agent's. Raises LinkError."""
        if type(ended) is not int or ended < 0:
            raise LinkError(f"it says that {str(ended)[:100]} attempts have ended")
        count = listed + ended
        if count > _HELD_AT_MOST:
            raise LinkError(f"it says that it holds {count} attempts")
        self.add(count)

    def ended(self, count: int) -> None:
        """So many ends were told. Raises LinkError."""
        self._ends -= count
        if self._ends < 0:
            raise LinkError("more ends than attempts")

    def began(self, count: int) -> None:
        """So many beginnings were told. Raises LinkError."""
        self._begins -= count
        if self._begins < 0:
            raise LinkError("more beginnings than attempts")

    def input(self, count: int) -> None:
        """It was given a piece of so many bytes of somebody's input."""
        self._inputs += 2 + count // _INPUT_STEP_BYTES

    def took(self) -> None:
        """It told how far an input is. Raises LinkError."""
        self._inputs -= 1
        if self._inputs < 0:
            raise LinkError("more about inputs than it was given")


class Silence:
    """For how long a starter has owed an answer, by a clock that stands still while we do not look."""

    def __init__(self) -> None:
        self._owed = 0
        self._silent_us = 0
        self._looked_us = -1

    @property
    def is_owed(self) -> bool:
        """Whether an answer is due."""
        return self._owed > 0

    def owe(self, now_us: int) -> None:
        """It was asked something now."""
        if not self._owed:
            self._silent_us, self._looked_us = 0, now_us
        self._owed += 1

    def owe_later(self) -> None:
        """It was asked something; the time counts from the next look on."""
        if not self._owed:
            self._silent_us, self._looked_us = 0, -1
        self._owed += 1

    def hurry(self) -> None:
        """It is given little time from now on."""
        self._silent_us = max(self._silent_us, HANG_US - HURRY_US)

    def answered(self, now_us: int) -> None:
        """An answer came. Raises LinkError if nobody had asked."""
        if not self._owed:
            raise LinkError("an answer that nobody asked for")
        self._owed -= 1
        self._silent_us, self._looked_us = 0, now_us

    def is_too_long(self, now_us: int) -> bool:
        """Look: whether it has owed an answer for too long."""
        if self._owed and self._looked_us >= 0:
            self._silent_us += min(now_us - self._looked_us, 2 * LOOK_US)
        self._looked_us = now_us
        return bool(self._owed) and self._silent_us >= HANG_US


def are_numbers(*values: object) -> bool:
    """Whether all of them are whole numbers that the spool and the hub can hold."""
    return all(type(value) is int and 0 <= value < _LIMIT for value in values)


def is_sane(row: Ended) -> bool:
    """Whether an end is one that could be: its kinds of values and their bounds."""
    number, g, i, attempt, outcome, code, signal, began, wall, user, system, peak, reason, output, _, escaped = row
    return (
        are_numbers(number, g, i, attempt, wall, user, system, escaped)
        and max(wall, user, system) < _DURATION_LIMIT
        and (began is None or are_numbers(began))
        and (peak is None or are_numbers(peak))
        and type(outcome) is str
        and outcome in _OUTCOMES
        and (code is None or (type(code) is int and 0 <= code <= 255))
        and (signal is None or (type(signal) is int and 0 <= signal < _SIGNALS))
        and (reason is None or type(reason) is str)
        and (output is None or (type(output) is list and len(output) == 2))
    )


def check_not_empty(items: Sequence[object], is_allowed: bool = False) -> None:
    """Words without anything in them could go on for ever. Raises LinkError."""
    if not items and not is_allowed:
        raise LinkError("words about nothing")


def check_input(told: InputTaken) -> None:
    """That what is told of an input could be. Raises LinkError."""
    missing_from = 0 if told.missing_from is None else told.missing_from
    if not are_numbers(told.grant, told.index, told.taken_bytes, missing_from) or type(told.is_closed) is not bool:
        raise LinkError(f"an input that cannot be: {str(told)[:200]}")


def members_of(keys: list[Key] | None) -> tuple[Member, ...] | None:
    """Jobs that the starter names; None for None. Raises LinkError where there can be none of these names."""
    if keys is None:
        return None
    if len(keys) > _HELD_AT_MOST or not all(are_numbers(*key) for key in keys):
        raise LinkError(f"jobs that cannot be: {str(keys)[:200]}")
    return tuple((GrantId(grant), Index(index)) for grant, index in keys)
