"""What the agent reads of outputs here: of attempts that run, and of those whose end was told, by its records.

Standard library only, part of the starter. The agent opens no file of its user's: it asks for pieces, and the starter
reads them with its user's rights. It must not wait for a file: only regular ones are opened, so that a pipe or a device
that a user has named is said to be one. What the kernel waits for by itself, as a file system in user space that does
not answer, holds up this starter; that harms nobody but its user.

An attempt that runs is read by the descriptors of its slot, which is its own until its end is told; then it is not
among the active ones any more, and its slot may be another's.
"""

import base64
import json
import os
import re
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lanai.agent.starter_attempt import Attempt
from lanai.agent.starter_output import segment_path
from lanai.agent.starter_reports import Key
from lanai.agent.starter_trimming import stretch

PIECE_BYTES = 64 << 10
_FRAME_TEXT = 256 << 10
_PROBLEM_CHARACTERS = 500
_NOT_KEPT = "this output is not kept here any more"
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OWN_NAME = re.compile(r"jobs/[0-9]+/[0-9]+\.[0-9]+\.(out|err)")
_NULL_DEVICE = os.makedev(1, 3)
_KINDS = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


class Piece(NamedTuple):
    """What was read, the length of the whole, whether the attempt asked about is not here, and why nothing was read.

    ``left_out``: so many bytes from the offset on are not kept, and what was read follows them.
    """

    data: bytes
    length: int
    is_gone: bool = False
    problem: str | None = None
    left_out: int = 0


class _NotReadError(Exception):
    """Its text is for people."""


class Reading:
    """Reads for the agent.

    Args:
        directory: the starter's.
        active: the attempts that run.
        waiting: those that have not begun.
    """

    def __init__(self, directory: str, active: Mapping[Key, Attempt], waiting: Container[Key]) -> None:
        self._directory = directory
        self._active = active
        self._waiting = waiting
        self._name = ""
        self._descriptor = -1

    def frames(self, number: int, items: Sequence[Sequence[Any]]) -> Iterator[bytes]:
        """Yields the payloads of the frames that answer a read, in the order of its items, each below 1 MiB.

        Raises:
            ValueError, TypeError, LookupError: an item is not one of the protocol's.
        """
        gathered: list[str] = []
        size = 0
        try:
            for what, offset, limit in items:
                gathered.append(_row(self._piece(what, offset, min(limit, PIECE_BYTES))))
                size += len(gathered[-1])
                if size >= _FRAME_TEXT:
                    yield _frame(number, gathered)
                    gathered = []
                    size = 0
        finally:
            self._close()
        if gathered:
            yield _frame(number, gathered)

    def _piece(self, what: Sequence[Any], offset: int | None, limit: int) -> Piece:
        try:
            match what:
                case ["segment", number, start, length]:
                    own = self._own(segment_path(self._directory, number))
                    return Piece(_part(own, start, length, offset, limit), length)
                case ["file", str(name), _] if _OWN_NAME.fullmatch(name):
                    return _hollow(self._own(os.path.join(self._directory, name)), offset, limit)
                case ["user", str(path)]:
                    return _of_user(path, offset, limit)
                case [int(grant), int(index), int(stream)]:
                    return self._of_attempt((grant, index), stream - 1, offset, limit)
                case _:
                    return Piece(b"", 0, problem=_NOT_KEPT)
        except _NotReadError as problem:
            return Piece(b"", 0, problem=str(problem))
        except (OSError, OverflowError):
            return Piece(b"", 0, problem=_NOT_KEPT)

    def _of_attempt(self, key: Key, stream: int, offset: int | None, limit: int) -> Piece:
        attempt = self._active.get(key)
        if attempt is None:
            return Piece(b"", 0, key not in self._waiting)
        record = attempt.records[stream] if attempt.records is not None else None
        if record is not None:
            return _of_user(str(record[1]), offset, limit)
        assert attempt.slot is not None
        return _hollow(attempt.slot.descriptors[stream], offset, limit)

    def _own(self, path: str) -> int:
        """A descriptor of one of our files, good until the next is asked for: what ended together lies together."""
        if path != self._name:
            self._close()
            descriptor = os.open(path, _OPEN | os.O_NOFOLLOW)
            self._name, self._descriptor = path, descriptor
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _NotReadError(_NOT_KEPT)
        return self._descriptor

    def _close(self) -> None:
        if self._name:
            os.close(self._descriptor)
            self._name = ""


def _of_user(path: str, offset: int | None, limit: int) -> Piece:
    try:
        # Looked at before it is opened: to open a pipe lets its writer go on, and to open a device may do anything.
        if _is_null(path, os.stat(path)):
            return Piece(b"", 0)
        descriptor = os.open(path, _OPEN)
        try:
            _is_null(path, os.fstat(descriptor))
            return _whole(descriptor, offset, limit)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _NotReadError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise _NotReadError(f"cannot read {path}: {error}") from None


def _is_null(path: str, status: os.stat_result) -> bool:
    """Whether it is the device in which everything vanishes, which is as good as an empty file."""
    if stat.S_ISREG(status.st_mode):
        return False
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE:
        return True
    kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "a device")
    raise _NotReadError(f"cannot read {path}: it is {kind}")


def _whole(descriptor: int, offset: int | None, limit: int) -> Piece:
    length = os.fstat(descriptor).st_size
    return Piece(_part(descriptor, 0, length, offset, limit), length)


def _hollow(descriptor: int, offset: int | None, limit: int) -> Piece:
    """A piece of one of our files, of which the middle may have been let go."""
    status = os.fstat(descriptor)
    length = status.st_size
    begin = max(0, length - limit) if offset is None else offset
    if status.st_blocks * 512 >= length or begin >= length:
        return _whole(descriptor, offset, limit)
    try:
        start, end = stretch(descriptor, begin)
    except OSError:
        return _whole(descriptor, offset, limit)
    data = os.pread(descriptor, min(limit, end - start), start)
    return Piece(data, length, left_out=0 if offset is None else start - begin)


def _part(descriptor: int, start: int, length: int, offset: int | None, limit: int) -> bytes:
    begin = max(0, length - limit) if offset is None else offset
    count = min(limit, length - begin)
    return os.pread(descriptor, count, start + begin) if count > 0 else b""


def _row(piece: Piece) -> str:
    # Formatted by hand, as the ends are: there is one for every job that writes anything.
    data = base64.b64encode(piece.data).decode("ascii")
    problem = "null" if piece.problem is None else json.dumps(piece.problem[:_PROBLEM_CHARACTERS])
    left_out = f",{piece.left_out}" if piece.left_out else ""
    return f'["{data}",{piece.length},{"true" if piece.is_gone else "false"},{problem}{left_out}]'


def _frame(number: int, rows: list[str]) -> bytes:
    return f'{{"m":"data","id":{number},"items":[{",".join(rows)}]}}'.encode("ascii")
