"""The files that a user named for standard input, output and error: opened with his rights, and never waited for.

Standard library only, part of the starter. To open a pipe with a name waits until somebody opens its other end, which
may be never, and to open a terminal or a lease-holder's file may wait too; all the user's other jobs would wait with
it. So files are opened without waiting, and what has to be waited for is left to the attempt itself: it begins as a
shell that opens the pipe, just as it would on a command line, and then becomes the command.
"""

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from lanai.agent.starter_command import CannotStart, Spec, node_or
from lanai.agent.starter_output import Record, expand

_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY
_OUTPUT_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | _AT_ONCE
_REDIRECTIONS = (" <", " >>", " 2>>")


class UserFiles(NamedTuple):
    """What is opened for one attempt; the descriptors are the caller's to close.

    Attributes:
        descriptors: of standard input, output and error; None where nothing was named, or has to be waited for.
        records: where standard output and error went, for the report.
        awaited: paths of pipes that the attempt has to open itself, as in ``descriptors``.
    """

    descriptors: list[int | None]
    records: list[Record | None]
    awaited: list[str | None]


def open_user_files(spec: Spec, job: tuple[int, int, int]) -> UserFiles:
    """Opens them, making the directories above the outputs. Both outputs in one file share one descriptor.

    Must be called in the spec's directory, under its umask.

    Raises:
        CannotStart: a file could not be opened; nothing is left open.
    """
    files = UserFiles([None, None, None], [None, None], [None, None, None])
    try:
        if spec.stdin not in ("null", "pipe"):
            _take(files, 0, spec.stdin, _open_input(spec.stdin))
        _open_outputs(files, spec, job)
    except CannotStart:
        close_all(files.descriptors)
        raise
    return files


def close_all(descriptors: list[int | None]) -> None:
    """Closes each descriptor once."""
    for descriptor in {one for one in descriptors if one is not None}:
        os.close(descriptor)


def waiting_words(words: list[bytes], path: bytes, awaited: Sequence[str | None]) -> list[bytes]:
    """Returns the words of a shell that opens what is awaited and becomes the program at ``path``."""
    script = 'exec "$@"'
    for number, name in enumerate(awaited):
        if name is not None:
            is_shared = number == 2 and name == awaited[1]
            script += " 2>&1" if is_shared else _REDIRECTIONS[number] + _quoted(name)
    return [b"sh", b"-c", os.fsencode(script), b"sh", path, *words[1:]]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _take(files: UserFiles, number: int, path: str, descriptor: int | None) -> None:
    files.descriptors[number] = descriptor
    files.awaited[number] = path if descriptor is None else None


def _open_outputs(files: UserFiles, spec: Spec, job: tuple[int, int, int]) -> None:
    paths: list[str | None] = []
    for stream, pattern in enumerate((spec.stdout, spec.stderr)):
        path = None if pattern is None else expand(pattern, job)
        if path is not None:
            _take(files, stream + 1, path, files.descriptors[1] if path in paths else _open_output(path))
            files.records[stream] = ["user", os.path.join(spec.cwd, path)]
        paths.append(path)


def _open_input(path: str) -> int | None:
    """Opens it; None for a pipe: without waiting it would seem to be empty where its writer comes later."""
    try:
        if _is_pipe(path):
            if not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return None
        return _patient(os.open(path, os.O_RDONLY | _AT_ONCE))
    except OSError as error:
        raise node_or(error, "exit", 126, f"standard input {path}") from None
    except ValueError as error:
        raise CannotStart("exit", 126, f"standard input: {error}") from None


def _open_output(path: str) -> int | None:
    """Opens it; None for a pipe that nobody reads yet."""
    try:
        try:
            return _patient(os.open(path, _OUTPUT_FLAGS, 0o666))
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            return _patient(os.open(path, _OUTPUT_FLAGS, 0o666))
    except OSError as error:
        if error.errno == errno.ENXIO and _is_pipe(path):
            return None
        raise node_or(error, "exit", 126, f"output {error.filename}") from None
    except ValueError as error:
        raise CannotStart("exit", 126, f"output: {error}") from None


def _is_pipe(path: str) -> bool:
    return stat.S_ISFIFO(os.stat(path).st_mode)


def _patient(descriptor: int) -> int:
    """The descriptor, whose reads and writes wait: that is what a command expects."""
    os.set_blocking(descriptor, True)
    return descriptor
