"""Say why a batch or a job stands where it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from lanai.cli.asking import when_text
from lanai.cli.choose import Chosen, choose, jobs_of
from lanai.cli.context import Asked
from lanai.cli.tables import for_people
from lanai.cli.terminal import printable, say

if TYPE_CHECKING:
    from lanai.client.client import Client

MANY: Final = 20
_PAST: Final = 5
"""So many of the reasons of before a table shows; JSON has all that are kept."""


@click.command(name="why")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", default=MANY, show_default=True, help="At most N.")
@click.pass_obj
def command(asked: Asked, selectors: tuple[str, ...], format_: str, limit: int) -> int:
    """Say why a batch (default: the newest) or a job waits, runs or has ended, with the numbers behind it.

    Of what waits also: when it could start, what would change it, and the reasons of before with their times.

    \b
    Examples:
      lanai why
      lanai why 417/12
      lanai why 417@failed
    """
    client = asked.connect()
    meant = [one for each in choose(selectors) for one in _meant(client, each, limit + 1)]
    if not meant:
        say("lanai: no such jobs")
    for batch, index in meant[:limit]:
        _print(batch, index, client.why(batch, index), format_)
    if len(meant) > limit:
        say(f"lanai: there are more; these are the first {limit} (--limit)")
    return 0


def _meant(client: Client, chosen: Chosen, limit: int) -> Iterator[tuple[int | str, int | None]]:
    """The batch as a whole where no jobs of it are named, else those."""
    if chosen.ranges is None and not chosen.states:
        yield chosen.batch, None
    else:
        yield from jobs_of(client, chosen, limit)


def _print(batch: int | str, index: int | None, answer: dict[str, Any], format_: str) -> None:
    if format_ == "json":
        import json

        print(json.dumps({"version": 1, **answer}))
        return
    print(f"{batch}{'' if index is None else f'/{index}'}: {printable(answer['verdict'])}")
    if answer.get("since"):
        print(f"  since {for_people('since_at', answer['since'])}")
    for fact in answer.get("facts") or ():
        print(f"  {printable(fact)}")
    if answer.get("nodes"):
        counts = ", ".join(f"{count} {reason}" for reason, count in answer["nodes"].items())
        print(f"  of {sum(answer['nodes'].values())} nodes: {counts}")
    if answer.get("when"):
        print(f"  earliest start: {printable(when_text(answer['when']))}")
    for change in answer.get("changes") or ():
        print(f"  what would change it: {printable(change)}")
    before = [past for past in answer.get("history") or () if past["since"] != answer.get("since")]
    for past in before[:_PAST]:
        reason = f"{past['code']}: {past['reason']}" if past["code"] else "none of it waited"
        print(f"  from {for_people('since_at', past['since'])} on: {printable(reason)}")
