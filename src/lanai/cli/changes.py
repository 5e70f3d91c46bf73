"""The verbs that change jobs alike: cancel, hold, release, retry. `verbs/` has a file for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from lanai.cli.choose import LAST, choose
from lanai.cli.context import Asked
from lanai.cli.terminal import say


def change_command(
    name: str, text: str, said: str, *, at_nodes: str = "", options: Sequence[Callable[..., Any]] = ()
) -> click.Command:
    """A verb that applies a change to the jobs its selectors name.

    Args:
        name: the verb, which is the API's, too.
        text: its help.
        said: what was done to the jobs, e.g. `held`.
        at_nodes: what becomes of those at nodes, which is not known yet.
        options: more that the verb takes, as decorators; each name and value goes into the wish as it is.
    """

    @click.command(name=name, help=text)
    @click.argument("selectors", nargs=-1, required=True, metavar="SELECTOR...")
    @click.pass_obj
    def command(asked: Asked, /, selectors: tuple[str, ...], **more: Any) -> int:
        chosen = choose(selectors)
        client = asked.connect()
        for each in chosen:
            number = client.batch(LAST)["batch"] if each.batch == LAST else each.batch
            answer = client.wish(number, name, ranges=each.ranges_text, states=each.states, **more)
            say(f"batch {number}: {changed_text(answer, said, at_nodes)}")
        return 0

    for option in options:
        command = option(command)
    return command


def changed_text(answer: Mapping[str, Any], said: str, at_nodes: str) -> str:
    """What a wish has come to, as far as that is known: no job is called held or cancelled that is not."""
    sent, running = answer.get("at_nodes", 0), answer.get("running", 0)
    done = answer["changed"] - sent
    parts = []
    if answer.get("resumed"):
        parts.append("goes on")
    if done or not (parts or sent):
        parts.append(f"{_jobs(done)} {said}")
    if sent:
        parts.append(f"{_jobs(sent)} at nodes {'is' if sent == 1 else 'are'} {at_nodes}")
    if stay := answer.get("stay", 0):
        parts.append(f"{_jobs(stay)} {'stays' if stay == 1 else 'stay'} held, by an operator")
    if running:
        parts.append(f"{_jobs(running)} {'runs' if running == 1 else 'run'} on")
    return ", ".join(parts)


def _jobs(count: int) -> str:
    return f"{count:,} {'job' if count == 1 else 'jobs'}"
