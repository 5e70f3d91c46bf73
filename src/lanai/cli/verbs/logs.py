"""Show what jobs have written, while they run and afterwards."""

from __future__ import annotations

import json
from typing import Final

import click

from lanai.cli.choose import choose, jobs_of
from lanai.cli.context import Asked
from lanai.cli.copying import ENDED, Copy, Lines, say_gap
from lanai.cli.terminal import say
from lanai.client.client import END, GAP, OUT

MANY: Final = 20


@click.command(name="logs")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt has ended.")
@click.option("--stream", type=click.Choice(["out", "err", "both"]), default="both", show_default=True, help="Which.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="This attempt (default: the last).")
@click.option("--tail", is_flag=True, help="Only what the hub keeps; ask no node.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", default=MANY, show_default=True, help="At most N.")
@click.pass_obj
def command(
    asked: Asked, selectors: tuple[str, ...], follow: bool, stream: str, attempt: int | None, tail: bool, limit: int
) -> int:
    """Show what jobs (default: of the newest batch) have written: output to standard output, errors to standard error.

    The hub keeps the ends of outputs; the whole is fetched from the node while that is there.

    \b
    Examples:
      lanai logs 417/12
      lanai logs -f last/1
      lanai logs 417@failed --stream err
    """
    client = asked.connect(follows=follow)
    jobs = [job for each in choose(selectors) for job in jobs_of(client, each, limit + 1)]
    if not jobs:
        say("lanai: no such jobs")
    lines = Lines()
    for batch, index in jobs[:limit]:
        if len(jobs) > 1:
            lines.end()
            lines.write(OUT, b"==> %s/%d <==\n" % (str(batch).encode(), index))
        if follow and not tail and client.job(batch, index)["state"] not in ENDED:
            Copy(client, batch, index, attempt=attempt or 0, stream=stream, to=lines.write).to_end()
            continue
        for which, data in client.output(
            batch, index, stream=stream, attempt=attempt or 0, follow=follow, tail_only=tail
        ):
            _take(lines, which, data)
    if len(jobs) > limit:
        say(f"lanai: there are more; these are the first {limit} (--limit)")
    return 0


def _take(lines: Lines, which: int, data: bytes) -> None:
    if which == GAP:
        say_gap(data)
    elif which != END:
        lines.write(which, data)
    elif problem := json.loads(data or b"{}").get("problem"):
        say(f"lanai: {problem}")
