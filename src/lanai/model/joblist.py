r"""The parser of job lists: bytes come in as they are read, blocks of jobs and a list of bad lines go out.

One command a line. Blank lines and lines whose first character other than a blank is `#` are skipped; a carriage return
before the newline is taken off, so is a byte order mark at the very beginning; the last line needs no newline. Clauses
in braces are described in `clauses.py`. A NUL or a line of more than 1 MiB is refused. Bytes are not decoded.

How it stays quick: lines are handled 1,000 at a time. Whether such a group holds anything but plain commands is asked
of all of it at once (its smallest line shows whether one is blank, indented or a comment), and if not it is joined as
it stands. Only other groups are looked at line by line. Where pieces of input begin and end changes nothing about the
blocks.

It reads no file, and it does not ask whether a request could ever be met or whether a checked file is there.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Final

import msgspec

from lanai.model.clauses import BEGIN, BLANKS, ClauseParser, Fault, faults
from lanai.model.request import AS_BATCH, Check, JobRequest

BLOCK_JOBS: Final = 1_000
BLOCK_BYTES: Final = 1 << 20
PROBLEMS_KEPT: Final = 1_000
FOUND_CHARACTERS: Final = 80

_BOM: Final = b"\xef\xbb\xbf"
_HASH: Final = ord("#")
_PLAIN: Final = b"$"  # sorts after every blank, '!', '"' and '#', so a line from here on is a command as it stands


class ListProblem(msgspec.Struct, frozen=True):
    """A bad line.

    Attributes:
        file: as the parser was told.
        line: from 1.
        column: from 1, in characters.
        found: what stands there, shortened to `FOUND_CHARACTERS`.
        accepted: what could stand there.
    """

    file: str
    line: int
    column: int
    found: str
    accepted: str

    @property
    def text(self) -> str:
        """The problem as one line for people, beginning with FILE:LINE:COLUMN."""
        return f"{self.file}:{self.line}:{self.column}: found {self.found!r}, accepted is {self.accepted}"


class JobBlock(msgspec.Struct, frozen=True):
    r"""At most 1,000 consecutive jobs, or 1 MiB of them.

    Attributes:
        first_line: line of the first job, from 1.
        count: number of jobs, from 1.
        commands: joined by NUL; no command is empty or holds a NUL or a newline.
        runs: (count, request) in order, neighbours different; the counts add up to `count`.
        checks: of the jobs that have any, by position in the block from 0.
        jumps: (position, line) of every job that does not stand on the line after that of the job before it.
    """

    first_line: int
    count: int
    commands: bytes
    runs: tuple[tuple[int, JobRequest], ...]
    checks: dict[int, tuple[Check, ...]] = {}
    jumps: tuple[tuple[int, int], ...] = ()

    def line_of(self, position: int) -> int:
        """The line, from 1, of the job at a position from 0."""
        before = bisect_right(self.jumps, position, key=lambda jump: jump[0])
        at, line = self.jumps[before - 1] if before else (0, self.first_line)
        return line + position - at


class JobListParser:
    """Turns pieces of one job list into blocks.

    A line with a problem yields no job, but parsing goes on: once `problem_count` is not 0 the blocks are of use to
    nobody, and are still given so that a caller may do without a case for it.

    Attributes:
        problems: the first `PROBLEMS_KEPT`, in order of lines and columns.
        problem_count: all of them.
        job_count: jobs in all blocks given so far.
        line_count: lines handled so far; all lines once `finish` was called.
    """

    def __init__(self, file: str = "-") -> None:
        self._file = file
        self._clauses = ClauseParser()
        self._lines: list[bytes] = []
        self._lines_bytes = 0  # with a newline for each
        self._has_nul = False
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self.problems: list[ListProblem] = []
        self.problem_count = 0
        self.job_count = 0
        self.line_count = 0

    def feed(self, data: bytes) -> list[JobBlock]:
        """Take the next piece, of any length, and return the blocks that are complete with it."""
        blocks: list[JobBlock] = []
        for begin in range(0, len(data), BLOCK_BYTES):
            self._take(data[begin : begin + BLOCK_BYTES])
            blocks += self._blocks(is_last=False)
        return blocks

    def _take(self, piece: bytes) -> None:
        self._has_nul = self._has_nul or b"\0" in piece
        head, newline, rest = piece.partition(b"\n")
        self._keep_tail(head)
        if newline:
            self._end_line()
            lines = rest.split(b"\n")
            tail = lines.pop()
            self._lines += lines
            self._lines_bytes += len(rest) - len(tail)
            self._keep_tail(tail)

    def _keep_tail(self, piece: bytes) -> None:
        # One byte above the limit is kept to know that the line is too long; the rest of an endless line is not.
        piece = piece[: BLOCK_BYTES + 1 - self._tail_bytes]
        if piece:
            self._tail.append(piece)
            self._tail_bytes += len(piece)

    def _end_line(self) -> None:
        self._lines.append(b"".join(self._tail))
        self._lines_bytes += self._tail_bytes + 1
        self._tail, self._tail_bytes = [], 0

    def finish(self) -> list[JobBlock]:
        """Say that the list has ended, and return the blocks that are left. Nothing may be fed after it."""
        if self._tail_bytes:
            self._end_line()
        return self._blocks(is_last=True)

    def _blocks(self, *, is_last: bool) -> list[JobBlock]:
        blocks = []
        at = 0
        while lines := self._group(at, is_last=is_last):
            at += len(lines)
            if (block := self._block(lines)) is not None:
                blocks.append(block)
                self.job_count += block.count
        del self._lines[:at]
        return blocks

    def _group(self, at: int, *, is_last: bool) -> list[bytes]:
        """The lines from `at` on that make the next block; none while it is not known where they end."""
        left = len(self._lines) - at
        if left < BLOCK_JOBS and not is_last and self._lines_bytes - 1 <= BLOCK_BYTES:
            return []
        lines = self._lines[at : at + BLOCK_JOBS]
        lines_bytes = len(b"".join(lines)) + len(lines)
        if lines_bytes - 1 > BLOCK_BYTES:
            ends = list(accumulate(len(line) + 1 for line in lines))
            taken = max(1, bisect_right(ends, BLOCK_BYTES + 1))
            lines, lines_bytes = lines[:taken], ends[taken - 1]
        self._lines_bytes -= lines_bytes
        return lines

    def _block(self, lines: list[bytes]) -> JobBlock | None:
        first_line = self.line_count + 1
        self.line_count += len(lines)
        if first_line == 1:
            lines[0] = lines[0].removeprefix(_BOM)
        joined = b"\0".join(lines)
        if self._has_nul or len(joined) > BLOCK_BYTES:
            return self._block_by_line(lines, first_line)
        if b"\r" in joined:
            joined = joined.replace(b"\r\0", b"\0").removesuffix(b"\r")
            lines = joined.split(b"\0")
        if min(lines) < _PLAIN or (b"{" in joined and BEGIN.search(joined)):
            return self._block_by_line(lines, first_line)
        return JobBlock(first_line, len(lines), joined, ((len(lines), AS_BATCH),))

    def _block_by_line(self, lines: list[bytes], first_line: int) -> JobBlock | None:
        gathered = _Gathered()
        for number, line in enumerate(lines, first_line):
            if len(line) > BLOCK_BYTES or (self._has_nul and b"\0" in line):
                self._refuse(number, line, [_unfit(line)])
                continue
            command = line.removesuffix(b"\r").lstrip(BLANKS)
            if not command or command[0] == _HASH:
                continue
            if b"{" not in command:
                gathered.add(number, command, AS_BATCH, ())
            elif parsed := self._clauses.parse(command):
                gathered.add(number, *parsed)
            else:
                self._refuse(number, line, list(faults(line.removesuffix(b"\r"))))
        return gathered.block()

    def _refuse(self, number: int, line: bytes, found: list[Fault]) -> None:
        self.problem_count += len(found)
        for fault in found[: PROBLEMS_KEPT - len(self.problems)]:
            column = len(line[: fault.offset].decode("utf-8", "replace")) + 1
            self.problems.append(ListProblem(self._file, number, column, _shortened(fault.found), fault.accepted))


class _Gathered:
    """The jobs of one block while its lines are looked at one by one."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.runs: list[tuple[int, JobRequest]] = []
        self.checks: dict[int, tuple[Check, ...]] = {}
        self.jumps: list[tuple[int, int]] = []
        self._first_line = 0
        self._next_line = 0
        self._request = AS_BATCH
        self._run_begin = 0

    def add(self, line: int, command: bytes, request: JobRequest, checks: tuple[Check, ...]) -> None:
        position = len(self.commands)
        if line != self._next_line:
            if position:
                self.jumps.append((position, line))
            else:
                self._first_line = line
        self._next_line = line + 1
        if request is not self._request and request != self._request:
            self._end_run(position)
            self._request = request
        if checks:
            self.checks[position] = checks
        self.commands.append(command)

    def _end_run(self, position: int) -> None:
        if position > self._run_begin:
            self.runs.append((position - self._run_begin, self._request))
        self._run_begin = position

    def block(self) -> JobBlock | None:
        count = len(self.commands)
        if not count:
            return None
        self._end_run(count)
        return JobBlock(
            self._first_line, count, b"\0".join(self.commands), tuple(self.runs), self.checks, tuple(self.jumps)
        )


def _unfit(line: bytes) -> Fault:
    if len(line) > BLOCK_BYTES:
        return Fault(0, line[:FOUND_CHARACTERS].decode("utf-8", "replace") + "…", "a line of at most 1 MiB")
    return Fault(line.index(b"\0"), "\0", "text without NUL bytes")


def _shortened(found: str) -> str:
    return found if len(found) <= FOUND_CHARACTERS else found[: FOUND_CHARACTERS - 1] + "…"
