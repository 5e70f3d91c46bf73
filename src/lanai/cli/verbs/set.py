"""Change what may change of a batch: priority, jobs at once, account, service, reservation, start date."""

from __future__ import annotations

from typing import Any

import click

from lanai.cli.choose import choose_batch
from lanai.cli.context import Asked


@click.command(name="set")
@click.argument("batch", metavar="BATCH")
@click.option("--priority", metavar="P", help="1 (most) to 10000, or high, medium, low.")
@click.option("--max-running", type=click.IntRange(min=0), metavar="N", help="At most N jobs at once; 0: no limit.")
@click.option("--account", metavar="NAME", help="The account that its use is charged to from now on.")
@click.option("--service", metavar="NAME", help="Its class of service.")
@click.option("--reservation", metavar="NAME", help="The reservation that its jobs run in, or none.")
@click.option(
    "--start-after", metavar="WHEN", help="Start none before: 2026-12-01T08:00, 08:00 (the next), +2h, or now."
)
@click.pass_obj
def command(asked: Asked, /, batch: str, start_after: str | None, **changes: Any) -> int:
    """Change a batch's priority, how many of its jobs run at once, its account, service, reservation or start date.

    \b
    Examples:
      lanai set 417 --priority high
      lanai set last --max-running 4
      lanai set 417 --service long --start-after 20:00
      lanai set 417 --start-after now
      lanai set 417 --reservation none
    """
    from lanai.cli.submission import priority_of, start_of

    wanted = {name: value for name, value in changes.items() if value is not None}
    if "priority" in wanted:
        wanted["priority"] = priority_of(wanted["priority"])
    if start_after is not None:
        wanted["start_after_us"] = 0 if start_after == "now" else start_of(start_after)
    if wanted.get("reservation") == "none":
        wanted["reservation"] = ""
    if not wanted:
        raise click.UsageError(
            "nothing to change: give --priority, --max-running, --account, --service, --reservation or --start-after"
        )
    asked.connect().set(choose_batch([batch]), **wanted)
    return 0
