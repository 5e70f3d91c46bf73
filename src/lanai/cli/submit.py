"""Submitting a list: everything that can be refused here is, before a hub is even looked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lanai.cli.joblist_file import check_inputs, open_list
from lanai.cli.submission import environment, settings_of
from lanai.cli.terminal import say
from lanai.client.discover import configuration

if TYPE_CHECKING:
    from lanai.cli.context import Asked
    from lanai.client.client import Client, Submitted


def submit_list(
    asked: Asked, path: str, options: Mapping[str, Any], *, follows: bool = False
) -> tuple[Client, Submitted]:
    """Submit the job list at `path` (`-` is standard input) as the options of `submit_options` say.

    The client is to follow the batch where `follows`.

    Raises:
        UserError: the list, an input file or an option is not in order; nothing was submitted.
    """
    settings = settings_of(options, configuration(asked.environ()).submit)
    env = environment(options)
    with open_list(path) as jobs:
        check_inputs(jobs, settings.cwd)
        client = asked.connect(may_start=True, follows=follows)
        try:
            return client, client.submit(jobs.pieces(), settings, env=env, key=options["key"] or "", file=jobs.name)
        except KeyboardInterrupt:
            say("\nlanai: interrupted while submitting\ntry: lanai batch list  it is there only if all of it arrived")
            raise
