"""What every verb is given: the global options, and the way to a hub that follows from them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import click

from lanai.cli.terminal import interject, say

if TYPE_CHECKING:
    from lanai.client.client import Client
    from lanai.client.discover import Found


class Asked(NamedTuple):
    """The global options. None: not given."""

    hub: str | None = None
    token_file: str | None = None
    verbose: int = 0

    def environ(self) -> dict[str, str]:
        """The environment in which the client looks for its hub."""
        environ = dict(os.environ)
        if self.token_file:
            environ["LANAI_TOKEN_FILE"] = self.token_file
        return environ

    def found(self, *, may_start: bool = False) -> Found | None:
        """The hub that is meant, or None where nothing was ever started here (and nothing may be).

        Raises:
            OtherEnd: there is one, but it does not answer.
        """
        from lanai.client.discover import find

        # A token file says by itself which hub it is for.
        found = find(self.environ(), hub=self.hub or self.token_file or "", may_start=may_start, say=say)
        if found is not None and found.resumed:
            batches = "batch goes on" if found.resumed == 1 else "batches go on"
            say(f"lanai: the private hub was not running; {found.resumed} unfinished {batches}")
        if found is not None and self.verbose:
            say(f"lanai: using the hub at {found.target}")
        return found

    def connect(self, *, may_start: bool = False, follows: bool = False) -> Client:
        """A client of the hub that is meant.

        Args:
            follows: the verb stays until something has ended: a hub that falls silent meanwhile is worth a line, and a
                private one that is killed is started again.

        Raises:
            OtherEnd: there is none, or it does not answer.
        """
        found = self.found(may_start=may_start)
        if found is None:
            from lanai.model.errors import OtherEnd

            raise OtherEnd("nothing was ever started here, so there is no hub", hint="lanai run jobs.txt")
        if not follows:
            return closed_at_end(found.client())
        keeper = found.keeper(say=interject)
        if keeper is not None:
            click.get_current_context().call_on_close(keeper.close)
        return closed_at_end(found.client(say=interject))


def closed_at_end(client: Client) -> Client:
    """The same client, which lets go of its connection when the verb has ended."""
    click.get_current_context().call_on_close(client.close)
    return client
