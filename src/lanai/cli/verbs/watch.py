"""Follow a batch with a live line until it has ended."""

from __future__ import annotations

import click

from lanai.cli.choose import choose_batch
from lanai.cli.context import Asked


@click.command(name="watch")
@click.argument("batch", nargs=-1, metavar="[BATCH]")
@click.pass_obj
def command(asked: Asked, batch: tuple[str, ...]) -> int:
    """Follow a batch (default: the newest) until it has ended, then sum up, as `lanai run` does.

    Ctrl-C leaves it running; a second one within two seconds cancels it.

    \b
    Examples:
      lanai watch
      lanai watch 417
    """
    from lanai.cli.follow import follow
    from lanai.cli.leaving import interruptible
    from lanai.cli.summary import summarize

    chosen = choose_batch(batch)
    client = asked.connect(follows=True)
    number = client.batch(chosen)["batch"]
    return interruptible(client, number, lambda: summarize(client, follow(client, number)))
