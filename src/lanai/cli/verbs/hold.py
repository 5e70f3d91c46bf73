"""Keep waiting jobs from starting until they are released."""

from __future__ import annotations

from typing import Final

from lanai.cli.changes import change_command

TEXT: Final = """Keep waiting jobs from starting until `lanai release`. Running jobs go on.

\b
Examples:
  lanai hold 417                the whole batch
  lanai hold last/100-200       some of it
"""

command = change_command("hold", TEXT, "held", at_nodes="held unless begun")
