"""The entry of the `lanai` command: global options, the verbs found lazily, and errors turned into words.

A verb is a file in `verbs/`; for `lanai --help` only the first line of each is read, none is imported. What a verb
raises on purpose becomes `lanai: what happened and why`, perhaps a line `try: what to type`, and the error's exit
code. Anything else is a mistake of ours: exit 70, and a file with the report.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from lanai import __version__
from lanai.cli.context import Asked
from lanai.cli.terminal import let_go, say

if TYPE_CHECKING:
    from lanai.model.errors import LanaiError

DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
GC_OBJECTS: Final = 20_000
VERBS: Final = os.path.join(os.path.dirname(__file__), "verbs")
SECTIONS: Final = (
    ("Run and follow", ("run", "submit", "status", "watch", "wait", "logs", "why")),
    ("Change what was submitted", ("cancel", "retry", "hold", "release", "set")),
    (
        "Look things up",
        (
            *("queue", "priority", "free", "when", "plan", "stats", "batch", "job", "node", "shares"),
            *("reservations", "events", "maui"),
        ),
    ),
    ("Machines", ("hub", "agent", "policy", "reserve", "token", "install-service")),
    ("Prepare", ("gensub", "export", "simulate")),
)
"""The order of `lanai --help`. A verb that is not named here stands under "Further"."""

EPILOG: Final = """\b
Examples:
  lanai run jobs.txt              every line is a command; ends when all are done
  lanai run -- gzip -k big.tar    one command, with its own exit code
  lanai why last                  why the newest batch waits

\b
Completion, for bash (zsh and fish alike):
  eval "$(_LANAI_COMPLETE=bash_source lanai)"
"""


class Group(click.Group):
    """A group that answers a mistyped member with the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but with the nearest name in the error."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            ctx.fail(f"there is no `{ctx.command_path} {name}`{self._nearest(ctx, name)}")
        return name, command, args[1:]

    def _nearest(self, ctx: click.Context, name: str) -> str:
        from difflib import get_close_matches

        near = get_close_matches(name, self.list_commands(ctx), n=1, cutoff=0.5)
        return f"; did you mean `{ctx.command_path} {near[0]}`?" if near else ""


class Verbs(Group):
    """The verbs: the files of `verbs/`, each imported only when it is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, by name."""
        files = [name.removesuffix(".py") for name in os.listdir(VERBS) if name.endswith(".py")]
        return sorted(name.replace("_", "-") for name in files if name != "__init__")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, or None where no file has its name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"lanai.cli.verbs.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs in sections, each with the first line of its file."""
        for title, names in self._sections(ctx):
            with formatter.section(title):
                formatter.write_dl([(name, _first_line(name)) for name in names], col_max=16)

    def _sections(self, ctx: click.Context) -> Iterator[tuple[str, list[str]]]:
        left = self.list_commands(ctx)
        for title, names in SECTIONS:
            here = [name for name in names if name in left]
            left = [name for name in left if name not in here]
            if here:
                yield title, here
        if left:
            yield "Further", left


def _first_line(verb: str) -> str:
    with open(os.path.join(VERBS, f"{verb.replace('-', '_')}.py"), encoding="utf-8") as file:
        return file.readline().strip().strip('"').rstrip(".")


@click.command(
    cls=Verbs,
    name="lanai",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
    subcommand_metavar="VERB ...",
)
@click.option("--hub", metavar="URL", help="The hub to speak to, instead of the one that is configured or found.")
@click.option("--token-file", metavar="FILE", help="Where the hub's URL, pin and your token stand.")
@click.option("-v", "--verbose", count=True, help="Say more on standard error.")
@click.version_option(__version__, message="lanai %(version)s")
@click.pass_context
def command(ctx: click.Context, hub: str | None, token_file: str | None, verbose: int) -> int:
    """Take a list of commands and get every one of them done.

    `lanai VERB --help` shows a verb's options, with examples.
    """
    ctx.obj = Asked(hub=hub, token_file=token_file, verbose=verbose)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return 0


def main() -> int:
    """Run `lanai` with the process's arguments; returns its exit code and never raises."""
    # Most commands live a fifth of a second: collecting what they import, and again at their end, is a tenth of that.
    gc.set_threshold(GC_OBJECTS)
    try:
        return _run()
    finally:
        _end_talk()
        gc.freeze()


def _run() -> int:
    is_closed = sys.stdout is None
    _open_closed_streams()
    for stream in (sys.stdin, sys.stdout):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="surrogateescape")  # file names and commands are bytes; they pass through unchanged
    try:
        code = command.main(prog_name="lanai", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except click.exceptions.Abort:
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        _tell(error.format_message())
        return error.exit_code
    except click.UsageError as error:
        return _say_usage(error)
    except click.ClickException as error:
        return _say(error.format_message(), "", error.exit_code)
    except (BrokenPipeError, SystemExit):  # click makes the first into the second, and raises it for nothing else
        let_go(1)  # whoever read our output has enough; that is no error of ours
        return 141
    except OSError as error:
        if error.errno not in DISK_ERRORS and not (is_closed and error.errno == errno.EBADF):
            return _say_error(error)
        let_go(1)
        return _say(f"cannot write: {'standard output is closed' if is_closed else error.strerror}", "", 1)
    except Exception as error:  # the last place to catch it
        return _say_error(error)


def _open_closed_streams() -> None:
    """What the caller has closed gives nothing (`<&-`), refuses data (`>&-`) and drops talk (`2>&-`).

    A descriptor left closed would be given to the next file that is opened.
    """
    streams = ((0, "stdin", "r", os.O_RDWR), (1, "stdout", "w", os.O_RDONLY), (2, "stderr", "w", os.O_RDWR))
    for descriptor, name, mode, flags in streams:
        if getattr(sys, name) is None:
            null = os.open(os.devnull, flags)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            setattr(sys, name, os.fdopen(descriptor, mode))


def _end_talk() -> None:
    """Talk that cannot be written changes no exit code, as it would where Python finds it when it ends."""
    try:
        sys.stderr.flush()
    except OSError:
        let_go(2)


def _say(message: str, hint: str, code: int) -> int:
    _tell(f"lanai: {message}")
    if hint:
        _tell(f"try: {hint}")
    return code


def _tell(line: str) -> None:
    with suppress(OSError):  # nobody is there to read it; the exit code says what there is to say
        say(line)


def _say_usage(error: click.UsageError) -> int:
    path = error.ctx.command_path if error.ctx else "lanai"
    return _say(error.format_message(), f"{path} --help", 2)


def _say_error(error: Exception) -> int:
    from lanai.model.errors import InternalError, LanaiError

    if not isinstance(error, LanaiError) or isinstance(error, InternalError):
        from lanai.cli.report import write_report

        return _say(f"{error or type(error).__name__}; this is a mistake in lanai", write_report(error), 70)
    return _say_lanai(error)


def _say_lanai(error: LanaiError) -> int:
    _say(error.message, "", error.exit_code)
    problems = error.facts.get("problems")
    if isinstance(problems, list) and problems != [error.message]:
        for problem in problems:
            _tell(f"  {problem}")
    if error.hint:
        _tell(f"try: {error.hint}")
    return error.exit_code
