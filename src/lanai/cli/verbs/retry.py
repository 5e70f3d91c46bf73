"""Run failed or cancelled jobs again."""

from __future__ import annotations

from typing import Final

from lanai.cli.changes import change_command

TEXT: Final = """Run failed or cancelled jobs again.

\b
Examples:
  lanai retry 417@failed                  what failed
  lanai retry 417/12                      one job
  lanai job list 417 --filter exit_code=2 --format quiet | lanai retry -
"""

command = change_command("retry", TEXT, "queued again")
