"""The verbs that change jobs alike: cancel, hold, release, retry. `verbs/` has a file for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from lanai.cli.choose import LAST, choose
from lanai.cli.context import Asked
from lanai.cli.terminal import say

if TYPE_CHECKING:
    from lanai.client.client import Client

Change = Callable[..., int]


def change_command(name: str, text: str, change: Callable[[Client], Change], said: str) -> click.Command:
    """A verb that applies a change to the jobs its selectors name.

    Args:
        name: the verb.
        text: its help.
        change: the client's call for it.
        said: what was done to the jobs, e.g. `held`.
    """

    @click.command(name=name, help=text)
    @click.argument("selectors", nargs=-1, required=True, metavar="SELECTOR...")
    @click.pass_obj
    def command(asked: Asked, selectors: tuple[str, ...]) -> int:
        chosen = choose(selectors)
        client = asked.connect()
        for each in chosen:
            number = client.batch(LAST)["batch"] if each.batch == LAST else each.batch
            changed = change(client)(number, ranges=each.ranges_text, states=each.states)
            say(f"batch {number}: {changed:,} {'job' if changed == 1 else 'jobs'} {said}")
        return 0

    return command
