"""Say when a job can start at the earliest, and how sure that is"""

from __future__ import annotations

import json
from typing import Any

import click

from lanai.cli.asking import request_text, shape_options, when_text, with_defaults
from lanai.cli.choose import choose, jobs_of
from lanai.cli.context import Asked
from lanai.cli.terminal import printable, say

MANY = 20


@click.command(name="when")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@shape_options
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.pass_obj
def command(asked: Asked, /, selectors: tuple[str, ...], format_: str, **shape: str | None) -> int:
    """Say when jobs that wait can start at the earliest; or, with --cpus and the like, one that is not submitted yet.

    The answer goes by what runs: it is taken to end by its time limit, or where it has none by the mean of the last
    run times; where its service predicts, by that. Reservations, rules of sharing and limits count as they do for the
    job's owner. How sure that is stands with it. Without a job and without options: the newest batch.

    One that is not submitted counts as yours, with the same options, defaults and refusals as `lanai submit`: limits,
    tier and flags are those of its service, its turn is that of its account.

    \b
    Examples:
      lanai when 417/12
      lanai when last
      lanai when --cpus 8 --memory 32G --time 4h
      lanai when --service urgent --account physics --on 'rack1-*' --nodes 4
    """
    given = {name: value for name, value in shape.items() if value is not None}
    if given and selectors:
        raise click.UsageError("name jobs, or say with options what a job would ask for, not both")
    client = asked.connect()
    if given:
        found = client.when(shape=with_defaults(asked, given))
        _print(request_text(found["asked"]), found, format_)
        return 0
    is_any = False
    for each in choose(selectors):
        if each.ranges is None and not each.states:
            is_any = True
            _print(f"{each.batch}", client.when(each.batch), format_)
            continue
        meant = list(jobs_of(client, each, MANY + 1))
        is_any = is_any or bool(meant)
        for batch, index in meant[:MANY]:
            _print(f"{batch}/{index}", client.when(batch, index), format_)
        if len(meant) > MANY:
            say(f"lanai: there are more; these are the first {MANY}")
    if not is_any:
        say("lanai: no such jobs")
    return 0


def _print(what: str, found: dict[str, Any], format_: str) -> None:
    if format_ == "json":
        print(json.dumps({"version": 1, "what": what, **found}))
    else:
        print(f"{what}: {printable(when_text(found))}")
