"""A reservation made by a person: capacity of nodes that is kept for somebody for a time. Values only.

Times are by the clock on the wall. A standing reservation carries its rule; what the rule comes to, its periods, is
worked out by the hub for some days ahead, because the core knows no calendar.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from lanai.model.batch import COUNT_MAX, RESOURCES_EACH
from lanai.model.node_names import Names, NamesError, names_of
from lanai.model.policy_file import is_name
from lanai.model.resources import NODES_MAX, Shape

Kind = Literal["exclusive", "preferring", "maintenance"]
KINDS: Final[tuple[Kind, ...]] = ("exclusive", "preferring", "maintenance")
NO_RESERVATION: Final = "none"
"""How people say that a batch is to run in none; no name of one."""
NAMES_EACH: Final = 1_000
"""Most names in one access list."""
PERIODS_MOST: Final = 100
MINUTES_OF_DAY: Final = 24 * 60


class Period(msgspec.Struct, frozen=True, array_like=True):
    """From `begin_us` on, and until just before `end_us`."""

    begin_us: int
    end_us: int


class Access(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose jobs may use a reservation: those of any in the lists; where all lists are empty, its owner's.

    Attributes:
        users, groups, accounts, services: by name.
        batches: by number.
        max_time_us: only jobs that are estimated to run for so long at most; 0: any. With this and empty lists
            everybody's.
    """

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    max_time_us: int = 0

    def is_open(self) -> bool:
        """No list is given."""
        return not (self.users or self.groups or self.accounts or self.services or self.batches)


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a standing reservation is in force.

    Attributes:
        on: days of the week, 0 (Monday) to 6, ascending; all seven for one of every day.
        from_minute, to_minute: of the day, by the clock of `timezone`. A `to` that is not after `from` is of the day
            after.
        timezone: a name of the time zone database.
        until_us: no period begins then or later; 0: without end.
    """

    on: tuple[int, ...]
    from_minute: int
    to_minute: int
    timezone: str
    until_us: int = 0


class Reservation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reservation.

    Attributes:
        name: unlike any other's.
        owner: who made it, or whom it was made for.
        kind: `exclusive`: jobs that it admits only; `preferring`: also others, once it has begun, if they are over by
            its end and none that names it waits; `maintenance`: nobody's.
        periods: ascending and disjoint; those that are over are left out as time passes.
        count: so many nodes, chosen when it is made; 0: all that `nodes` and `shape.features` say, now and later.
        nodes: which, as people write it: `n[1-8,12]`, `gpu-*`; empty: any.
        chosen: the names of those that were chosen.
        shape: what is reserved on each node, or, where it `is_whole`, what each of those chosen must have at least;
            and the features that it must have.
        is_whole: all there is on each node.
        rule: of a standing one.
    """

    name: str
    owner: str = ""
    kind: Kind = "exclusive"
    periods: tuple[Period, ...] = ()
    count: int = 0
    nodes: str = ""
    chosen: tuple[str, ...] = ()
    shape: Shape = Shape(cpu_milli=0)
    is_whole: bool = True
    access: Access = Access()
    rule: Rule | None = None

    def names(self) -> Names:
        """Which nodes may be among it, by their names. Raises NamesError."""
        return Names(frozenset(self.chosen), ()) if self.count else names_of(self.nodes or "*")


def problems(made: Reservation) -> Iterator[str]:
    """What no reservation can be, whatever nodes there are: what was found, and what is accepted."""
    if not is_name(made.name) or made.name == NO_RESERVATION:
        yield f"name: found {made.name[:80]!r}, accepted are up to 64 letters, digits and _ . @ + -"
    if made.count < 0 or made.count > NODES_MAX:
        yield f"count: found {made.count}, accepted is 1 to {NODES_MAX}, or 0: all that are named"
    if not (made.count or made.nodes or made.shape.features):
        yield "nodes: found none, accepted are a count, names, or a feature; `*` is all nodes"
    try:
        names_of(made.nodes or "*")
    except NamesError as error:
        yield f"nodes: found {error.found!r}, accepted is {error.accepted}"
    yield from _amount_problems(made)
    yield from _period_problems(made.periods)
    yield from _access_problems(made.access)
    if made.rule is not None:
        yield from _rule_problems(made.rule)


def _amount_problems(made: Reservation) -> Iterator[str]:
    shape = made.shape
    amounts = (shape.cpu_milli, shape.memory_bytes, shape.gpu_milli, *(count for _, count in shape.named))
    if wrong := [amount for amount in amounts if not 0 <= amount <= COUNT_MAX]:
        yield f"amounts: found {wrong[0]}, accepted is 0 to {COUNT_MAX}"
    if not made.is_whole and not any(amounts):
        yield "amounts: found none, accepted are cpus, memory or gpus of each node, or whole nodes"
    if made.kind == "maintenance" and not made.is_whole:
        yield "amounts: found some of a node, accepted for maintenance are whole nodes"
    if len(shape.features) > RESOURCES_EACH or list(shape.features) != sorted(set(shape.features)):
        yield f"features: accepted are at most {RESOURCES_EACH}, in order and each once"


def _period_problems(periods: tuple[Period, ...]) -> Iterator[str]:
    if len(periods) > PERIODS_MOST:
        yield f"periods: found {len(periods)}, accepted are {PERIODS_MOST} at most"
    before_us = 0
    for period in periods:
        if not before_us <= period.begin_us < period.end_us <= COUNT_MAX:
            yield "periods: accepted are such as end after they begin, one after the other"
            return
        before_us = period.end_us


def _access_problems(access: Access) -> Iterator[str]:
    lists = (access.users, access.groups, access.accounts, access.services, access.batches)
    if any(len(names) > NAMES_EACH for names in lists):
        yield f"access: accepted are lists of {NAMES_EACH} at most"
    if not 0 <= access.max_time_us <= COUNT_MAX:
        yield f"max_time_us: found {access.max_time_us}, accepted is 0 to {COUNT_MAX}"


def _rule_problems(rule: Rule) -> Iterator[str]:
    if list(rule.on) != sorted(set(rule.on) & set(range(7))) or not rule.on:
        yield "on: accepted are days of the week, each once"
    for name, minute in (("from", rule.from_minute), ("to", rule.to_minute)):
        if not 0 <= minute <= MINUTES_OF_DAY - (name == "from"):
            yield f"{name}: found minute {minute}, accepted is 0 to {MINUTES_OF_DAY}"
