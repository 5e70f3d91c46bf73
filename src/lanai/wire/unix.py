"""Unix sockets at paths of any length.

A socket address holds 107 bytes of path. Longer ones are reached through the directory's descriptor:
`/proc/self/fd/N/name`, which the kernel resolves like any other path.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

ADDRESS_BYTES: Final = 107


def listen(path: Path, *, backlog: int = 128, mode: int = 0o600) -> socket.socket:
    """A listening socket at `path`, replacing whatever stale one was there. Only `mode` may connect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        _at(path, made.bind)
    finally:
        os.umask(before)
    made.listen(backlog)
    return made


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
