"""What if the machine or the workload were another: a trace as it was recorded becomes the one that is asked about.

`procs` and `nodes` are of the machine. `load*=F` squeezes the times between submissions by F, counted from the first
one; `run*=F` makes every run F times as long, and leaves what was requested. Times are rounded to whole seconds, halves
up; a run that was not 0 never becomes 0. Everything is exact: a factor is the decimal number that was written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import msgspec

from lanai.model.errors import UserError
from lanai.sim.machines import MachineNode, cpus_of, resized
from lanai.sim.swf import LARGEST, Recorded, Row

ACCEPTED: Final = "procs or nodes with =, +=, -= or *= (procs+=64), load*=F or run*=F (load*=1.2)"
_CHANGE: Final = re.compile(r"(procs|nodes|load|run)(=|\+=|-=|\*=)(\d{1,12}(?:\.\d{1,12})?)", re.ASCII)
_OF_TIMES: Final = ("load", "run")
_FACTOR_MOST: Final = 1000


class Change(msgspec.Struct, frozen=True):
    """One change: of `procs`, `nodes`, `load` or `run`, by `=`, `+=`, `-=` or `*=`."""

    of: str
    by: str
    value: Fraction


class WhatIf(msgspec.Struct, frozen=True):
    """Changes that are made together, one after the other. `text` is what was typed."""

    text: str
    changes: tuple[Change, ...]


def read_what_if(text: str) -> WhatIf:
    """Changes with commas between them.

    Raises:
        UserError: what is none of them.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise _refused(text)
    return WhatIf(",".join(parts), tuple(_change(part) for part in parts))


def changed(recorded: Recorded, nodes: Sequence[MachineNode] | None, what_if: WhatIf) -> Recorded:
    """The trace as it would have been; `nodes` are the machine's where it was given as nodes.

    Raises:
        UserError: nodes are changed where there are none, or nothing is left of the machine.
    """
    for change in what_if.changes:
        match change.of:
            case "procs":
                recorded = _with_procs(recorded, _counted(recorded.procs, change))
            case "nodes":
                if nodes is None:
                    raise UserError(f"{what_if.text}: the machine has no nodes: give --nodes FILE", code="no_nodes")
                nodes = resized(nodes, _counted(len(nodes), change))
                recorded = _with_procs(recorded, cpus_of(nodes))
            case "load":
                recorded = _squeezed(recorded, change.value)
            case _:
                recorded = _longer(recorded, change.value)
    return recorded


def changed_nodes(nodes: Sequence[MachineNode] | None, what_if: WhatIf) -> Sequence[MachineNode] | None:
    """The nodes of the machine as they would have been; None where it is none of nodes.

    Raises:
        UserError: its processors are changed, but it is one of nodes.
    """
    for change in what_if.changes:
        if nodes is not None and change.of == "procs":
            raise UserError(
                f"{what_if.text}: the machine is one of nodes",
                code="bad_change",
                hint="change nodes, such as nodes+=20, or leave --nodes out",
            )
        if nodes is not None and change.of == "nodes":
            nodes = resized(nodes, _counted(len(nodes), change))
    return nodes


def _change(text: str) -> Change:
    match = _CHANGE.fullmatch(text)
    if match is None:
        raise _refused(text)
    change = Change(match[1], match[2], Fraction(match[3]))
    if change.of in _OF_TIMES:
        if change.by != "*=" or not 0 < change.value <= _FACTOR_MOST:
            raise _refused(text)
    elif change.by != "*=" and change.value.denominator != 1:
        raise _refused(text)
    return change


def _counted(count: int, change: Change) -> int:
    match change.by:
        case "=":
            count = int(change.value)
        case "+=":
            count += int(change.value)
        case "-=":
            count -= int(change.value)
        case _:
            count = _rounded(count * change.value)
    if not 1 <= count < LARGEST:
        raise UserError(f"{change.of} would be {count}, accepted is 1 or more", code="bad_change")
    return count


def _with_procs(recorded: Recorded, procs: int) -> Recorded:
    return msgspec.structs.replace(recorded, procs=procs)


def _squeezed(recorded: Recorded, factor: Fraction) -> Recorded:
    first = min((row.numbers[1] for row in recorded.rows if row.numbers[1] >= 0), default=0)
    rows = [
        row if row.numbers[1] < 0 else _with(row, 1, first + _rounded((row.numbers[1] - first) / factor))
        for row in recorded.rows
    ]
    return msgspec.structs.replace(recorded, rows=rows)


def _longer(recorded: Recorded, factor: Fraction) -> Recorded:
    rows = [
        row if row.numbers[3] <= 0 else _with(row, 3, max(1, _rounded(row.numbers[3] * factor)))
        for row in recorded.rows
    ]
    return msgspec.structs.replace(recorded, rows=rows)


def _with(row: Row, place: int, number: int) -> Row:
    numbers = [*row.numbers[:place], number, *row.numbers[place + 1 :]]
    return Row(row.line, row.name, numbers)


def _rounded(value: Fraction) -> int:
    """To the nearest whole number, halves up."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _refused(text: str) -> UserError:
    return UserError(
        f"--what-if: found {text!r}, accepted is {ACCEPTED}",
        code="bad_change",
        hint="lanai simulate --help",
        facts={"found": text},
    )
