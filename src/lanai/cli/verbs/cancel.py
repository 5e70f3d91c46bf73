"""End jobs, or keep them from starting."""

from __future__ import annotations

from typing import Final

from lanai.cli.changes import change_command

TEXT: Final = """End jobs, or keep them from starting.

Returns once the hub has written the wish down; running commands get SIGTERM, and SIGKILL after the batch's grace.

\b
Examples:
  lanai cancel 417              the whole batch
  lanai cancel 417/12-40:2      every second job of some
  lanai cancel last@queued      what has not started
"""

command = change_command("cancel", TEXT, "cancelled", at_nodes="ended unless done first")
