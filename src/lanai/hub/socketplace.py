"""Whether one more socket for clients may stand where the configuration says: nobody else may be able to replace it.

Who can write in its directory could put a socket of his own there while no hub runs, and clients would tell him what
they submit, environment and all.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Final

from lanai.model.errors import Refusal, UserError
from lanai.wire import unix

ENDING_S: Final = 5.0
"""The API process of a hub that was killed answers a moment longer."""
LOOK_S: Final = 0.05


def check(path: Path) -> None:
    """Look at the place of a socket. Waits a moment where somebody answers there.

    Raises:
        UserError: the directory can be written by others (`open_directory`), or something else than a socket is there.
        Refusal: another hub listens there (`socket_taken`).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        about = path.parent.stat()
    except OSError as error:
        hint = "name another access.socket"
        raise UserError(f"cannot make {path.parent}: {error.strerror}", code="bad_socket", hint=hint) from None
    is_ours = about.st_uid in (0, os.geteuid())
    writers = stat.S_IWOTH | (0 if about.st_gid in (0, os.getegid()) else stat.S_IWGRP)
    if not is_ours or about.st_mode & writers:
        raise UserError(
            f"others may write in {path.parent}, and could answer the hub's clients there in its place",
            code="open_directory",
            hint="name a place in a directory that only this user can write",
            facts={"directory": os.fspath(path.parent)},
        )
    unix.check_replaceable(path)
    until_s = time.monotonic() + ENDING_S
    while _answers(path):
        if time.monotonic() >= until_s:
            raise Refusal(
                f"another hub listens at {path}", code="socket_taken", hint="stop it, or name another access.socket"
            )
        time.sleep(LOOK_S)


def _answers(path: Path) -> bool:
    try:
        unix.connect(path, timeout_s=1.0).close()
    except OSError:
        return False
    return True
