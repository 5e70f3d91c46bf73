"""`lanai run -- CMD`: one command, as if it ran here: output and input pass through, its exit code is ours.

Output is followed attempt by attempt. Input is passed on meanwhile (`feeding.py`); when the job has ended, what was not
read is left where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lanai.cli.causes import cause
from lanai.cli.copying import ENDED, Copy, is_to_come
from lanai.cli.feeding import Feeder, Source
from lanai.cli.terminal import say

if TYPE_CHECKING:
    from lanai.client.client import Client

INDEX: Final = 1
COMMAND_NOT_FOUND: Final = 127


def run_single(client: Client, batch: int, input_client: Client | None) -> int:
    """Copy the command's output through until it has ended; returns its exit code.

    Args:
        client: for everything but the input.
        batch: of the one job.
        input_client: to send standard input with, or None where there is none to send.
    """
    feeder = None if input_client is None else Feeder(input_client, batch, INDEX, Source(0))
    attempt = 1
    copy = Copy(client, batch, INDEX, attempt=attempt)
    while True:
        job = copy.left(copy.to_end())
        following = _next_attempt(job, attempt)
        if following is None:
            return _end(batch, job)
        if following != attempt:
            attempt = following
            copy = Copy(client, batch, INDEX, attempt=attempt)
            if feeder is not None:
                feeder.turn_to(attempt)


def _next_attempt(job: Mapping[str, Any], shown: int) -> int | None:
    """The attempt to show after `shown`, which may have ended already or be still to come; None where there is none.

    A grant that was given back leaves a number without an attempt, or the number to the next one.
    """
    if is_to_come(job, shown):
        return shown
    begun = [each["attempt"] for each in job["attempts_list"] if each["started_at"] or each["state"] not in ENDED]
    later = min((each for each in begun if each > shown), default=None)
    if later is None and job["state"] not in ENDED:
        return max(shown, int(job["attempts"])) + 1
    return later


def exit_code(job: Mapping[str, Any]) -> int:
    """The exit code that stands for how a job ended, by the shell's conventions."""
    if job["state"] == "done":
        return 0
    if job.get("outcome") == "notfound":
        return COMMAND_NOT_FOUND
    if job.get("signal"):
        return 128 + int(job["signal"])
    return int(job.get("exit_code") or 1)


def _end(batch: int, job: Mapping[str, Any]) -> int:
    # A command that exits by itself has said what it had to say; anything else would go unexplained.
    if job["state"] != "done" and job.get("outcome") != "exit":
        how, reason = cause(job), job.get("reason") or ""
        say(f"lanai: job {batch}/{INDEX}: {reason if how in reason else ': '.join(filter(None, (how, reason)))}")
    return exit_code(job)
