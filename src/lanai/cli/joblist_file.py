"""The list that is submitted: opened, looked through where it names input files, and cut into pieces.

Every file that a list names in `{check in ...}` is looked at before anything is sent: only this process sees the files
as their owner does. A list without such a clause is not parsed here at all.
"""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from lanai.cli.terminal import is_terminal, say
from lanai.model.errors import ListErrors, UserError

if TYPE_CHECKING:
    from lanai.model.joblist import JobBlock, JobListParser

PIECE_BYTES: Final = 1 << 18
SPOOL_BYTES: Final = 64 << 20
PROBLEMS_SHOWN: Final = 1000
_CLAUSE: Final = b"{check"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobList:
    """Where the jobs come from.

    Attributes:
        name: what to call it in errors.
        file: its bytes; can be read again from the beginning.
        is_single: whether all of it is one command.
    """

    name: str
    file: BinaryIO
    is_single: bool = False

    def pieces(self) -> Iterator[bytes]:
        """All of its bytes, from the beginning. Raises UserError where it cannot be read on."""
        try:
            self.file.seek(0)
            while piece := self.file.read(PIECE_BYTES):
                yield piece
        except OSError as error:
            raise _unreadable(self.name, error) from None


@contextmanager
def open_list(path: str) -> Iterator[JobList]:
    """The job list in the file at `path`, which is closed at the end; `-` is standard input.

    Raises:
        UserError: it is missing, cannot be read, is empty, or holds no command.
    """
    name = "standard input" if path == "-" else path
    try:
        file = _opened(path)
    except FileNotFoundError:
        raise UserError(f"there is no job list {path}", code="no_list", hint="lanai run --help") from None
    except OSError as error:
        raise _unreadable(name, error) from None
    with file:
        problem = _emptiness(name, file)
        if problem:
            raise UserError(f"{name} {problem}; a job list has one command a line", code="empty_list")
        yield JobList(name=path, file=file)


def _unreadable(name: str, error: OSError) -> UserError:
    return UserError(f"the job list {name} cannot be read: {error.strerror}", code="no_list")


def _emptiness(name: str, file: BinaryIO) -> str:
    """Why there is nothing to do in a list, or nothing. Raises UserError where it cannot be read."""
    is_empty, is_comment = True, False
    try:
        file.seek(0)
        while piece := file.readline(PIECE_BYTES):
            words = piece.removeprefix(codecs.BOM_UTF8).strip() if is_empty else piece.strip()
            is_empty = False
            if words and not is_comment and not words.startswith(b"#"):
                return ""
            # A comment may be longer than a piece; what follows belongs to it up to the newline.
            is_comment = bool(is_comment or words) and not piece.endswith(b"\n")
    except OSError as error:
        raise _unreadable(name, error) from None
    return "is empty" if is_empty else "holds only comments and blank lines"


def _opened(path: str) -> BinaryIO:
    """The list as a file that can be read again; of what can be read only once, a copy."""
    if path == "-":
        if is_terminal(sys.stdin):
            say("lanai: reading the job list from the terminal; end it with Ctrl-D")
        return _copied(sys.stdin.buffer)
    file = Path(path).open("rb")  # noqa: SIM115 - the caller closes it
    if file.seekable():
        return file
    with file:
        return _copied(file)


def _copied(file: BinaryIO) -> BinaryIO:
    spool: BinaryIO = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # type: ignore[assignment]  # noqa: SIM115 - as above
    while piece := file.read(PIECE_BYTES):
        spool.write(piece)
    return spool


def check_inputs(jobs: JobList, directory: str) -> None:
    """Look at every file that a `{check in ...}` of the list names, relative ones from `directory`.

    Raises:
        ListErrors: some are not in order, or lines are bad; names all of them in the order of the list, with line and
            column.
    """
    if jobs.is_single or not _mentions_checks(jobs):
        return
    from lanai.model.joblist import JobListParser

    parser = JobListParser(jobs.name)
    wanted: dict[tuple[bytes, str], None] = {}  # a set that keeps its order
    for block in _blocks(parser, jobs):
        for checks in block.checks.values():
            wanted.update(((check.file, check.rule), None) for check in checks if check.when == "in")
    where = os.fsencode(directory)
    bad = {(file, rule): said for file, rule in wanted if (said := _problem(os.path.join(where, file), rule))}
    if not bad and not parser.problem_count:
        return
    problems = [(problem.line, problem.column, problem.text) for problem in parser.problems]
    places = _places(jobs, bad) if bad else iter(())
    named = list(islice(places, PROBLEMS_SHOWN))
    count = parser.problem_count + len(named) + sum(1 for _ in places)
    found = "1 problem" if count == 1 else f"{count:,} problems"
    raise ListErrors(
        f"{jobs.name} has {found}; nothing was submitted",
        facts={"problems": [text for _, _, text in sorted(problems + named)[:PROBLEMS_SHOWN]]},
    )


def _blocks(parser: JobListParser, jobs: JobList) -> Iterator[JobBlock]:
    for piece in jobs.pieces():
        yield from parser.feed(piece)
    yield from parser.finish()


def _places(jobs: JobList, bad: Mapping[tuple[bytes, str], str]) -> Iterator[tuple[int, int, str]]:
    """(line, column, what is wrong) wherever a good line names a bad input file.

    The list is read once more for it: to keep the place of each name of a list in order would cost more than the list.
    """
    from lanai.model.clauses import BLANKS, ClauseParser, checks_at

    parser = ClauseParser()
    for number, line in enumerate(_lines(jobs), 1):
        command = line.lstrip(BLANKS)
        if _CLAUSE not in line or command.startswith(b"#") or parser.parse(command) is None:
            continue
        for offset, check in checks_at(line):
            problem = bad.get((check.file, check.rule)) if check.when == "in" else None
            if problem:
                column = len(line[:offset].decode("utf-8", "replace")) + 1
                place = f"{jobs.name}:{number}:{column}"
                yield number, column, f"{place}: input file {os.fsdecode(check.file)} {problem}"


def _lines(jobs: JobList) -> Iterator[bytes]:
    """The lines as the parser of lists sees them. Raises UserError where the list cannot be read on."""
    try:
        jobs.file.seek(0)
        mark = codecs.BOM_UTF8
        for line in jobs.file:
            yield line.removeprefix(mark).removesuffix(b"\n").removesuffix(b"\r")
            mark = b""
    except OSError as error:
        raise _unreadable(jobs.name, error) from None


def _mentions_checks(jobs: JobList) -> bool:
    carried = b""
    for piece in jobs.pieces():
        searched = carried + piece
        if _CLAUSE in searched:
            return True
        carried = searched[1 - len(_CLAUSE) :]
    return False


def _problem(path: bytes, rule: str) -> str:
    """What is wrong with a file by Parasol's rules, or nothing."""
    try:
        size_bytes = os.stat(path).st_size
        if rule == "exists":
            return ""
        if not size_bytes:
            return "" if rule == "line" else "is empty"
        return "" if rule == "exists+" or _ends_line(path) else "does not end with a newline"
    except OSError as error:
        return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"


def _ends_line(path: bytes) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
