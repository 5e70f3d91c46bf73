"""Let held jobs, or a paused batch, go on."""

from __future__ import annotations

from typing import Final

from lanai.cli.changes import change_command

TEXT: Final = """Let held jobs start, or let a paused batch go on.

\b
Examples:
  lanai release 417             the whole batch
  lanai release last/100-200    some of it
"""

command = change_command("release", TEXT, "released")
