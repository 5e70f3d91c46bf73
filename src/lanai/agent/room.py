"""How much room there is on the disk of the agent's directory, where its commands' outputs go too.

Before the disk is quite full nothing new begins: a command that finds no room for its output would fail, and it is not
its fault.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ENOUGH_BYTES: Final = 64 << 20
ENOUGH_PART: Final = 32
"""Of a small disk, one part in so many is enough."""
ENOUGH_FILES: Final = 64


class Room:
    """The room on the disk of a directory. `is_low` from the look that found too little to the one that finds twice so.

    It is looked at by one quick system call, which a local disk answers at once.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.is_low = False

    def look(self) -> None:
        """Look how much there is; where that cannot be told it stays as it was."""
        try:
            status = os.statvfs(self._directory)
        except OSError:
            return
        enough = min(ENOUGH_BYTES, status.f_blocks * status.f_frsize // ENOUGH_PART)
        files = ENOUGH_FILES if status.f_files else 0
        factor = 2 if self.is_low else 1
        self.is_low = status.f_bavail * status.f_frsize < factor * enough or status.f_favail < factor * files
