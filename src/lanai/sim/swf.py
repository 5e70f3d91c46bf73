"""Traces in the Standard Workload Format: lines of text come in, the jobs of a replay go out, and what was skipped.

SWF: 18 numbers a line, -1 for what is not known; lines that begin with `;` are comments, of which `; NAME: VALUE`
describe the machine (Chapin et al. 1999; the Parallel Workloads Archive). A line that is neither is refused with its
number. A job that cannot be replayed is skipped, with the reason and the numbers of the lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from lanai.model.errors import UserError

Width: TypeAlias = Literal["requested", "allocated", "max"]
Estimates: TypeAlias = Literal["requested", "actual", "predicted"]
Overrun: TypeAlias = Literal["raise", "kill"]

FIELDS: Final = 18
LARGEST: Final = 1 << 53  # from here on not every whole number is an IEEE double
FOUND_CHARACTERS: Final = 60
LINES_NAMED: Final = 10
_HEADER: Final = re.compile(rb";\s*(MaxProcs|MaxNodes)\s*:\s*(\d{1,15})(?!\S)")
_USER: Final = re.compile(rb";\s*User\s*:\s*(\d{1,15})\s+(\S.*)")
_NUMBER: Final = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WHOLE: Final = re.compile(rb"[+-]?\d+")
_WHOLE_FIELDS: Final = frozenset({2, 4, 5, 8, 9, 12})  # those that are read; the others only have to be numbers

INVALID: Final = {
    "submit": "a negative submit time",
    "run": "a negative run time",
    "zero": "a run time of 0",
    "width": "no number of processors",
}
WIDE: Final = "more processors than there are"


class TraceJob(msgspec.Struct, frozen=True, gc=False):
    """A job of a trace, as it is replayed.

    Attributes:
        id: its name in the trace; need not be unique.
        submit_s: when it was submitted, 0 or more.
        run_s: how long it runs, 0 or more.
        width: processors, 1 or more.
        estimate_s: how long it is expected to run, not less than `run_s`.
        user: its number, -1 where it is not known.
    """

    id: str
    submit_s: int
    run_s: int
    width: int
    estimate_s: int
    user: int


class Skipped(msgspec.Struct):
    """The jobs that are not replayed for one reason.

    Attributes:
        kind: `invalid`, or `wide`: wider than the machine.
        reason: in words.
        count: of the jobs.
        lines: the numbers, from 1, of the first `LINES_NAMED` lines.
    """

    kind: str
    reason: str
    count: int = 0
    lines: list[int] = []


class Trace(msgspec.Struct, frozen=True):
    """A trace, ready to be replayed.

    Attributes:
        file: as the reader was told.
        procs: processors of the machine, 1 or more.
        read: jobs that were read, those skipped included.
        jobs: in order of submission, then of the file.
        skipped: by reason, in the order in which each was first met.
        users: names of users by their numbers, where the header says them (`; User: NUMBER NAME`).
    """

    file: str
    procs: int
    read: int
    jobs: list[TraceJob]
    skipped: list[Skipped]
    users: dict[int, str] = {}

    def skipped_as(self, kind: str) -> int:
        """How many jobs were skipped as `invalid` or `wide`."""
        return sum(reason.count for reason in self.skipped if reason.kind == kind)


class Reading(msgspec.Struct, frozen=True):
    """How a trace is read.

    Attributes:
        procs: processors of the machine; None: what the header says (MaxProcs, else MaxNodes).
        head: read the first so many jobs of the file only, before any is skipped; None: all.
        width: which of the fields 8 (requested) and 5 (allocated) counts if both are there, or the larger.
        estimates: `requested`: field 9, else the run time; `actual`: the run time; `predicted` is as `requested`, since
            predictions are made while a trace is replayed.
        overrun: of a job that runs longer than its estimate, `raise` the estimate or `kill` the job by then.
        keeps_zero: keep jobs with a run time of 0.
    """

    procs: int | None = None
    head: int | None = None
    width: Width = "requested"
    estimates: Estimates = "requested"
    overrun: Overrun = "raise"
    keeps_zero: bool = False


class Row(msgspec.Struct, frozen=True, gc=False):
    """A line of a trace.

    Attributes:
        line: its number, from 1.
        name: field 1, as it stands there.
        numbers: all `FIELDS`; those that are not read may be 0 instead.
    """

    line: int
    name: bytes
    numbers: list[int]


class Recorded(msgspec.Struct, frozen=True):
    """A trace as it was recorded, nothing skipped yet: `rows` in the order of the file, for `procs` processors.

    `users` are names by numbers, as far as the header says them.
    """

    file: str
    procs: int
    rows: list[Row]
    users: dict[int, str] = {}


def read_trace(lines: Iterable[bytes], file: str, reading: Reading) -> Trace:
    """Read a trace line by line; no more lines are taken than are needed.

    Raises:
        UserError: a line that is no line of SWF, no number of processors, or no job that can be replayed.
    """
    return select(record(lines, file, reading), reading)


def record(lines: Iterable[bytes], file: str, reading: Reading) -> Recorded:
    """Read the lines of a trace; no more are taken than are needed.

    Raises:
        UserError: a line that is no line of SWF, or no number of processors.
    """
    header: dict[bytes, int] = {}
    rows: list[Row] = []
    users: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if line[:1] == b";":
            if found := _HEADER.match(line):
                header.setdefault(found[1], int(found[2]))
            elif found := _USER.match(line):
                users.setdefault(int(found[1]), found[2].decode("utf-8", "replace").strip())
            continue
        fields = line.split()
        if not fields or fields[0][:1] == b";":
            continue
        if len(rows) == reading.head:
            break
        rows.append(Row(number, fields[0], _numbers(fields, file, number)))
    procs = reading.procs or header.get(b"MaxProcs") or header.get(b"MaxNodes")
    if not procs:
        raise UserError(
            f"{file}: found neither `; MaxProcs: N` nor `; MaxNodes: N`, accepted is either, or --procs N",
            code="no_processors",
            hint="lanai simulate FILE --procs N ...",
            facts={"file": file},
        )
    return Recorded(file, procs, rows, users)


def select(recorded: Recorded, reading: Reading) -> Trace:
    """The jobs of a trace that can be replayed.

    Raises:
        UserError: there is none.
    """
    jobs: list[TraceJob] = []
    skipped: dict[str, Skipped] = {}
    for row in recorded.rows:
        width = _width(row.numbers, reading.width)
        if reason := _fault(row.numbers, width, recorded.procs, reading):
            entry = skipped.setdefault(reason, Skipped("wide" if reason == WIDE else "invalid", reason))
            entry.count += 1
            if entry.count <= LINES_NAMED:
                entry.lines.append(row.line)
            continue
        jobs.append(_job(row.name, row.numbers, width, reading))
    if not jobs:
        raise _no_jobs(recorded, skipped)
    jobs.sort(key=lambda job: job.submit_s)
    return Trace(recorded.file, recorded.procs, len(recorded.rows), jobs, list(skipped.values()), recorded.users)


def _no_jobs(recorded: Recorded, skipped: dict[str, Skipped]) -> UserError:
    reasons = "; ".join(f"{entry.count} with {entry.reason}" for entry in skipped.values())
    found = f"found no job that can be replayed on {recorded.procs} processors"
    return UserError(
        f"{recorded.file}: {found}" + (f" ({reasons})" if reasons else ""),
        code="no_jobs",
        hint="lanai simulate --help",
        facts={"file": recorded.file, "procs": recorded.procs},
    )


def _width(numbers: list[int], which: Width) -> int:
    allocated, requested = numbers[4], numbers[7]
    match which:
        case "max":
            return max(allocated, requested)
        case "allocated":
            return allocated if allocated > 0 else requested
        case "requested":
            return requested if requested > 0 else allocated


def _fault(numbers: list[int], width: int, procs: int, reading: Reading) -> str | None:
    run = numbers[3]
    if numbers[1] < 0:
        return INVALID["submit"]
    if run < 0:
        return INVALID["run"]
    if run == 0 and not reading.keeps_zero:
        return INVALID["zero"]
    if width <= 0:
        return INVALID["width"]
    return WIDE if width > procs else None


def _job(name: bytes, numbers: list[int], width: int, reading: Reading) -> TraceJob:
    run, requested = numbers[3], numbers[8]
    estimate = requested if requested > 0 else run
    if run > estimate and reading.overrun == "kill":
        run = estimate
    if run > estimate or reading.estimates == "actual":
        estimate = run
    return TraceJob(name.decode("ascii"), numbers[1], run, width, estimate, numbers[11])


def _numbers(fields: list[bytes], file: str, number: int) -> list[int]:
    """The fields of a line; those that are not read may be 0 instead."""
    try:
        numbers = list(map(int, fields))
        is_plain = len(numbers) == FIELDS and max(numbers) < LARGEST and min(numbers) > -LARGEST
    except ValueError:
        is_plain = False
    if is_plain and b"_" not in b"".join(fields):  # which Python takes for a part of a number
        return numbers
    _check(fields, file, number)
    return [int(field) if place in _WHOLE_FIELDS else 0 for place, field in enumerate(fields, 1)]


def _check(fields: list[bytes], file: str, number: int) -> None:
    """Refuse a damaged line."""
    if len(fields) != FIELDS:
        raise _damaged(file, number, f"{len(fields)} fields", f"{FIELDS} numbers")
    for position, field in enumerate(fields, 1):
        shown = repr(field.decode("utf-8", "backslashreplace")[:FOUND_CHARACTERS])
        if position in _WHOLE_FIELDS or position == 1:
            if not _WHOLE.fullmatch(field):
                raise _damaged(file, number, f"{shown} as field {position}", "a whole number")
            if abs(int(field[:400])) >= LARGEST:
                raise _damaged(file, number, f"{shown} as field {position}", "a number below 2^53")
        elif not _NUMBER.fullmatch(field):
            raise _damaged(file, number, f"{shown} as field {position}", "a number")


def _damaged(file: str, number: int, found: str, accepted: str) -> UserError:
    return UserError(
        f"{file}:{number}: found {found}, accepted is {accepted}",
        code="bad_trace",
        hint="the format is described at https://www.cs.huji.ac.il/labs/parallel/workload/swf.html",
        facts={"file": file, "line": number},
    )
