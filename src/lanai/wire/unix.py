"""Unix sockets at paths of any length.

A socket address holds 107 bytes of path. Longer ones are reached through the directory's descriptor:
`/proc/self/fd/N/name`, which the kernel resolves like any other path.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lanai.model.errors import UserError

ADDRESS_BYTES: Final = 107


def listen(path: Path, *, backlog: int = 128, mode: int = 0o600) -> socket.socket:
    """A listening socket at `path`, replacing whatever stale one was there. Only `mode` may connect.

    Raises:
        UserError: something else than a socket is there (`not_a_socket`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_replaceable(path)
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        _at(path, made.bind)
    finally:
        os.umask(before)
    made.listen(backlog)
    return made


def check_replaceable(path: Path) -> None:
    """Raises UserError (`not_a_socket`) where something else than a socket is at `path`."""
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise UserError(f"{path} is there and is no socket", code="not_a_socket", hint="name another place, or move it")


def connect(path: Path, *, timeout_s: float | None = None) -> socket.socket:
    """A connected socket. Raises OSError as `socket.connect` does."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(timeout_s)
    try:
        _at(path, made.connect)
    except BaseException:
        made.close()
        raise
    return made


def _at(path: Path, act: Callable[[str], None]) -> None:
    if len(os.fsencode(path)) <= ADDRESS_BYTES:
        act(os.fspath(path))
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        act(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
