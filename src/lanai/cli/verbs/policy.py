"""Show, check and change how the hub schedules: shares, priorities, backfill, limits, services"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lanai.cli.context import Asked
from lanai.cli.main import Group
from lanai.cli.tables import print_object
from lanai.cli.terminal import say

FILE_BYTES = 2 << 20


@click.command(name="policy", cls=Group)
def command() -> None:
    """Show, check and change how the hub schedules: shares, priorities, backfill, limits, services.

    A policy is a TOML file. What it does not say is as usual: preset `fair`, EASY backfill with one reservation, equal
    weights, a half-life of 7 days, no limits.

    \b
    Examples:
      lanai policy show > site.toml
      lanai policy check site.toml
      lanai policy apply site.toml
    """


@command.command("show")
@click.option("--format", "format_", type=click.Choice(["toml", "json"]), default="toml", help="How to print.")
@click.pass_obj
def show(asked: Asked, format_: str) -> int:
    """Print the policy in force, as a file that `lanai policy apply` takes.

    \b
    Examples:
      lanai policy show
      lanai policy show --format json | jq .policy.accounts
    """
    found = asked.connect().policy()
    if format_ == "json":
        print_object("policy", found["policy"])
    else:
        print(found["toml"], end="")
    return 0


@command.command("check")
@click.argument("file")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
def check(file: str, format_: str) -> int:
    """Read FILE (`-` is standard input) and name every mistake by its line. No hub is needed.

    \b
    Examples:
      lanai policy check site.toml
      lanai policy import maui.cfg | lanai policy check -
    """
    from lanai.model.policy import DEFAULT_POLICY
    from lanai.model.policy_file import policy_from_toml
    from lanai.model.policy_text import differs

    changed = differs(DEFAULT_POLICY, policy_from_toml(text_of(file), name_of(file)))
    if format_ == "json":
        print_object("policy", {"file": name_of(file), "differs": list(changed)})
    else:
        say(f"{name_of(file)} is in order; other than usual: {', '.join(changed) or 'nothing'}")
    return 0


@command.command("apply")
@click.argument("file")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.pass_obj
def apply(asked: Asked, file: str, format_: str) -> int:
    """Put the policy of FILE (`-` is standard input) in force, at once, in place of the one before.

    It is taken whole or not at all, and outlives the hub. What has been used goes on to count. Administrators may. An
    empty file brings the usual policy back.

    \b
    Examples:
      lanai policy apply site.toml
      lanai policy apply - < /dev/null
    """
    from lanai.model.policy_file import policy_from_toml

    text = text_of(file)
    policy_from_toml(text, name_of(file))  # here, so that mistakes are named where no hub answers
    changed = asked.connect().apply_policy(text, file=name_of(file))
    if format_ == "json":
        print_object("policy", {"file": name_of(file), "changed": changed})
    else:
        say(f"in force; changed: {', '.join(changed)}" if changed else "in force as before; nothing differs")
    return 0


@command.command("import")
@click.argument("file")
@click.option("--format", "format_", type=click.Choice(["toml", "json"]), default="toml", help="How to print.")
def import_(file: str, format_: str) -> int:
    """Read FILE, a maui.cfg (`-` is standard input), and print the policy that it becomes.

    Taken over are fair share with its targets, priorities and their weights, backfill and reservation depth, node
    choice and access, limits, QOS and classes as services. Each line that a policy has no place for is named, with the
    reason, in a comment at the top and on standard error. A mistake, such as a weight that is no number, is refused:
    all are named by their lines, and nothing is printed.

    \b
    Examples:
      lanai policy import /usr/local/maui/maui.cfg > site.toml
      lanai policy import maui.cfg --format json | jq -r .policy.left_out[]
    """
    from lanai.model.policy_maui import policy_from_maui
    from lanai.model.policy_text import policy_to_toml

    policy, left_out = policy_from_maui(text_of(file), name_of(file))
    toml = policy_to_toml(policy)
    for line in left_out:
        say(line)
    if format_ == "json":
        print_object("policy", {"file": name_of(file), "toml": toml, "left_out": left_out})
    else:
        print("".join(f"# {line}\n" for line in left_out) + toml, end="")
    return 0


def text_of(file: str) -> str:
    """What stands in a file, `-` being standard input. Raises UserError."""
    from lanai.model.errors import UserError

    try:
        if file == "-":
            read = sys.stdin.buffer.read(FILE_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                read = opened.read(FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}", code="bad_file") from None
    if len(read) > FILE_BYTES:
        raise UserError(f"{file} is too long: accepted are at most {FILE_BYTES >> 20} MiB", code="bad_file")
    try:
        return read.decode()
    except UnicodeDecodeError as error:
        line = read[: error.start].count(b"\n") + 1
        raise UserError(f"{name_of(file)}:{line}: found no text in UTF-8", code="bad_file") from None


def name_of(file: str) -> str:
    """What errors call the file."""
    return "(standard input)" if file == "-" else file
