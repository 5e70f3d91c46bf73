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
from pathlib import Path
from typing import BinaryIO, Final

from lanai.cli.terminal import is_terminal, say
from lanai.model.errors import ListErrors, UserError

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
        ListErrors: some are not in order, or lines are bad; names all of them.
    """
    if jobs.is_single or not _mentions_checks(jobs):
        return
    from lanai.model.joblist import JobListParser

    parser = JobListParser(jobs.name)
    wanted: dict[tuple[bytes, str], str] = {}
    blocks = [block for piece in jobs.pieces() for block in parser.feed(piece)] + parser.finish()
    for block in blocks:
        for position, checks in block.checks.items():
            for check in checks:
                if check.when == "in":
                    wanted.setdefault((check.file, check.rule), f"{jobs.name}:{block.line_of(position)}")
    problems = [problem.text for problem in parser.problems]
    problems += _bad_inputs(wanted, os.fsencode(directory))
    if problems:
        found = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        raise ListErrors(
            f"{jobs.name} has {found}; nothing was submitted",
            facts={"problems": problems[:PROBLEMS_SHOWN]},
        )


def _mentions_checks(jobs: JobList) -> bool:
    carried = b""
    for piece in jobs.pieces():
        searched = carried + piece
        if _CLAUSE in searched:
            return True
        carried = searched[1 - len(_CLAUSE) :]
    return False


def _bad_inputs(wanted: Mapping[tuple[bytes, str], str], directory: bytes) -> Iterator[str]:
    named: set[bytes] = set()
    for (file, rule), place in wanted.items():
        problem = "" if file in named else _problem(os.path.join(directory, file), rule)
        if problem:
            named.add(file)
            yield f"{place}: input file {os.fsdecode(file)} {problem}"


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
