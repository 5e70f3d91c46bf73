"""Say why a batch or a job stands where it does."""

from __future__ import annotations

import click

from lanai.cli.choose import choose
from lanai.cli.context import Asked
from lanai.cli.terminal import printable


@click.command(name="why")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.pass_obj
def command(asked: Asked, selectors: tuple[str, ...], format_: str) -> int:
    """Say why a batch (default: the newest) or a job waits, runs or has ended, with the numbers behind it.

    \b
    Examples:
      lanai why
      lanai why 417/12
    """
    from lanai.model.ranges import iterate

    client = asked.connect()
    for each in choose(selectors):
        for index in [None] if each.ranges is None else iterate(each.ranges):
            answer = client.why(each.batch, index)
            if format_ == "json":
                import json

                print(json.dumps({"version": 1, **answer}))
            else:
                print(f"{each.batch}{'' if index is None else f'/{index}'}: {printable(answer['verdict'])}")
                for fact in answer.get("facts") or ():
                    print(f"  {printable(fact)}")
    return 0
