"""Keep waiting jobs from starting until they are released, or until a moment."""

from __future__ import annotations

from typing import Final

import click

from lanai.cli.changes import change_command

TEXT: Final = """Keep waiting jobs from starting until `lanai release`, or until a moment. Running jobs go on.

\b
Examples:
  lanai hold 417                the whole batch
  lanai hold last/100-200       some of it
  lanai hold 417 --until 20:00  they may start then
"""


def _moment(_ctx: click.Context, _option: click.Parameter, text: str | None) -> int:
    from lanai.cli.submission import moment_of

    return moment_of("--until", text) if text else 0


command = change_command(
    "hold",
    TEXT,
    "held",
    at_nodes="held unless begun",
    options=[
        click.option(
            "--until",
            "until_us",
            metavar="WHEN",
            callback=_moment,
            help="Only so long: 2026-12-01T08:00, 08:00 (the next), or +2h from now.",
        )
    ],
)
