"""Run a job list, or one command, and follow it to its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from lanai.cli.context import Asked
from lanai.cli.submission import environment, settings_of, submit_options
from lanai.cli.terminal import say

if TYPE_CHECKING:
    from lanai.client.client import Client


class RunCommand(click.Command):
    """`run` takes everything after `--` as the words of one command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what follows the first `--`."""
        if "--" in args:
            at = args.index("--")
            ctx.meta["words"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(name="run", cls=RunCommand, options_metavar="[OPTIONS]")
@click.argument("job_list", required=False, metavar="FILE|- | -- COMMAND [ARGUMENT]...")
@submit_options
@click.option("--detach", is_flag=True, help="Do not follow: print the batch's number and end.")
@click.pass_context
def command(ctx: click.Context, /, job_list: str | None, detach: bool, **options: Any) -> int:
    """Run a job list, one command a line, and follow it to its end.

    FILE is the list, - reads it from standard input. After -- stands one command instead: its output is copied through
    as it comes, its input if that is piped, and its exit code is lanai's. With no hub configured, one that ends by
    itself is started, with an agent on this machine.

    The exit code is 0 if all jobs are done and 1 if some failed. Ctrl-C detaches (130), a second one within two
    seconds cancels.

    \b
    Examples:
      lanai run jobs.txt
      lanai run jobs.txt --cpus 2 --memory 4G --time 1h --retries 2
      seq 100 | sed 's/^/sleep 0.1 #/' | lanai run -
      lanai run -- gzip -k big.tar
    """
    words: list[str] | None = ctx.meta.get("words")
    if (job_list is None) == (not words):
        raise click.UsageError("name one job list, or - for standard input, or one command after --")
    asked: Asked = ctx.obj
    if words:
        return _run_command(asked, words, options, detach=detach)
    assert job_list is not None
    return _run_list(asked, job_list, options, detach=detach)


def _run_list(asked: Asked, job_list: str, options: dict[str, Any], *, detach: bool) -> int:
    from lanai.cli.submit import submit_list

    begun_s = time.monotonic()
    client, submitted = submit_list(asked, job_list, options, follows=not detach)
    number = submitted.batch
    if detach:
        print(number)
        return 0
    from lanai.cli.follow import follow
    from lanai.cli.leaving import interruptible
    from lanai.cli.summary import summarize

    existed = ", submitted before with this key" if submitted.existed else ""
    say(f"batch {number}: {submitted.jobs:,} {'job' if submitted.jobs == 1 else 'jobs'}{existed}")

    def followed() -> int:
        last = follow(client, number)
        return summarize(client, last, took_s=time.monotonic() - begun_s)

    return interruptible(client, number, followed)


def _run_command(asked: Asked, words: list[str], options: dict[str, Any], *, detach: bool) -> int:
    from lanai.cli.feeding import has_input
    from lanai.cli.single import run_single

    is_piped = has_input() and not detach
    client, number = _submit_command(asked, words, options, is_piped=is_piped, follows=not detach)
    if detach:
        print(number)
        return 0
    from lanai.cli.leaving import interruptible

    return interruptible(
        client,
        number,
        lambda: run_single(client, number, client.another() if is_piped else None),
        ends_with_reader=True,
    )


def _submit_command(
    asked: Asked, words: list[str], options: dict[str, Any], *, is_piped: bool, follows: bool
) -> tuple[Client, int]:
    import os
    import shlex

    import msgspec

    from lanai.client.discover import configuration

    settings = settings_of(options, configuration(asked.environ()).submit, is_single=True)
    settings = msgspec.structs.replace(settings, stdin="pipe" if is_piped else "null")
    env = environment(options)
    line = " ".join(words) if settings.shell == "always" else shlex.join(words)
    client = asked.connect(may_start=True, follows=follows)
    submitted = client.submit(
        [os.fsencode(line)], settings, env=env, key=options["key"] or "", file="the command", single=True
    )
    return client, submitted.batch
