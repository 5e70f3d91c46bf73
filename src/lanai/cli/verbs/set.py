"""Change a batch's priority, or how many of its jobs run at once."""

from __future__ import annotations

import click

from lanai.cli.choose import choose_batch
from lanai.cli.context import Asked


@click.command(name="set")
@click.argument("batch", metavar="BATCH")
@click.option("--priority", metavar="P", help="1 (most) to 10000, or high, medium, low.")
@click.option("--max-running", type=click.IntRange(min=0), metavar="N", help="At most N jobs at once; 0: no limit.")
@click.pass_obj
def command(asked: Asked, batch: str, priority: str | None, max_running: int | None) -> int:
    """Change a batch's priority, or how many of its jobs run at once.

    \b
    Examples:
      lanai set 417 --priority high
      lanai set last --max-running 4
    """
    from lanai.cli.submission import priority_of

    if priority is None and max_running is None:
        raise click.UsageError("nothing to change: give --priority or --max-running")
    number = choose_batch([batch])
    wanted = None if priority is None else priority_of(priority)
    asked.connect().set(number, priority=wanted, max_running=max_running)
    return 0
