"""Wait until batches have ended."""

from __future__ import annotations

import time

import click

from lanai.cli.choose import choose_batches
from lanai.cli.context import Asked
from lanai.cli.follow import changes
from lanai.cli.summary import exit_code


@click.command(name="wait")
@click.argument("batches", nargs=-1, metavar="[BATCH]...")
@click.option("--timeout", metavar="T", help="Give up after so long, e.g. 30, 5m, 1h; then the exit code is 6.")
@click.pass_obj
def command(asked: Asked, batches: tuple[str, ...], timeout: str | None) -> int:
    """Wait until batches (default: the newest) have ended, and say nothing of them.

    The exit code is 0 if all their jobs are done, 1 if some failed or were cancelled or a batch is paused, 6 if the
    time ran out first, 3 if the hub did not answer for 30 seconds. The batches go on in any case.

    \b
    Examples:
      lanai wait 417
      lanai wait last --timeout 1h
      id=$(lanai submit jobs.txt --format quiet); lanai wait $id
    """
    numbers = choose_batches(batches)
    deadline_s = None if timeout is None else time.monotonic() + _seconds(timeout)
    client = asked.connect(follows=True)
    code = 0
    for number in numbers:
        *_, last = changes(client, number, deadline_s=deadline_s)
        code = max(code, exit_code(last))
    return code


def _seconds(text: str) -> float:
    from lanai.model.units import UnitError, parse_duration

    try:
        return parse_duration(text)
    except UnitError as error:
        raise click.UsageError(f"--timeout: {error}") from None
