"""Writing a file that appears whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from lanai.model.errors import UserError


@contextmanager
def replaced(path: str) -> Iterator[TextIO]:
    """A new file that takes the place of `path` at the end; what is no ordinary file is written to as it is.

    Raises:
        UserError: it cannot be written; what was there before is still there.
    """
    try:
        with _replaced(os.path.realpath(path)) as target:
            yield target
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", facts={"file": path}) from error


def replace_bytes(path: str, data: bytes) -> None:
    """Make `data` the whole of a file.

    Raises:
        UserError: it cannot be written; what was there before is still there.
    """
    target = os.path.realpath(path)
    new = f"{target}.{os.getpid()}.new"
    try:
        try:
            with open(new, "xb") as file:
                file.write(data)
            os.replace(new, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", facts={"file": path}) from error


@contextmanager
def _replaced(path: str) -> Iterator[TextIO]:
    """A new file that takes the place of `path` at the end; what is no ordinary file is written to as it is."""
    if not _is_ordinary(path):
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as target:
            yield target
        return
    new = f"{path}.{os.getpid()}.new"
    try:
        with open(new, "x", encoding="utf-8", errors="surrogateescape") as target:
            yield target
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def _is_ordinary(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True
