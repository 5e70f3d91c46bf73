"""Create, list and revoke tokens: who may use the hub from other machines, and as what"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lanai.cli.context import Asked
from lanai.cli.listings import ROLES, TOKEN_KINDS, TOKENS
from lanai.cli.main import Group
from lanai.cli.tables import for_people, print_object, print_rows, view_of, view_options
from lanai.cli.terminal import say


@click.command(name="token", cls=Group)
def command() -> None:
    """Create, list and revoke tokens: who may use the hub from other machines, and as what.

    \b
    Examples:
      lanai token create ann --expires 30d --file ann.token
      lanai token list
      lanai token revoke ann
    """


@command.command("create")
@click.argument("user")
@click.option(
    "--kind",
    type=click.Choice(TOKEN_KINDS),
    default="user",
    show_default=True,
    help="What it opens: `user` and `admin` the door of clients, `agent` that of agents.",
)
@click.option("--expires", metavar="TIME", help="After this time it is good no longer, e.g. 30d. Default: never.")
@click.option("--label", metavar="TEXT", default="", help="What it is for; shown in the list.")
@click.option("--file", "file", type=click.Path(path_type=Path), help="Write it there, for the owner of the file only.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.pass_obj
def create(asked: Asked, user: str, kind: str, expires: str | None, label: str, file: Path | None, format_: str) -> int:
    """Create a token for USER, who need not be known on the hub's machine.

    The secret is shown once, with all that is needed to use it: as a token file (`lanai --token-file FILE status`), or
    with --kind agent as a join file (`lanai agent start --join FILE`). With --file it is written there instead of being
    printed. Nobody can have it shown again.

    \b
    Examples:
      lanai token create ann --expires 30d --file ann.token
      lanai token create ann --kind agent --label rack-7 --file rack-7.join
      lanai token create eve --kind admin --format json | jq -r .token.secret
    """
    expires_s = None if expires is None else _length(expires)
    claimed = None if file is None else _claim(file)
    try:
        made = asked.connect().create_token(user, kind=kind, expires_s=expires_s, label=label)
    except BaseException:
        if file is not None:
            file.unlink(missing_ok=True)
        raise
    contents = _file_of(made)
    if claimed is not None and file is not None:
        _write(claimed, file, contents, made["token"])
    until = for_people("expires_at", made["expires_at"]) if made["expires_at"] else "it is revoked"
    say(f"token {made['token']} of {made['user']} ({made['kind']}), good until {until}" + (f": {file}" if file else ""))
    if format_ == "json":
        hidden = {"secret"} if file is not None else set()
        print_object("token", {name: value for name, value in made.items() if name not in {"version", *hidden}})
    elif file is None:
        print(json.dumps(contents))
    return 0


@command.command("list")
@view_options
@click.pass_obj
def list_(asked: Asked, format_: str, columns: str | None, filters: tuple[str, ...], limit: int | None) -> int:
    """List all tokens there ever were. Their secrets are kept nowhere.

    \b
    Examples:
      lanai token list
      lanai token list --filter state=good --filter user=ann
    """
    view = view_of(TOKENS, format_, columns, filters, limit)
    print_rows(TOKENS, asked.connect().tokens(), view)
    return 0


@command.command("revoke")
@click.argument("which", nargs=-1, required=True, metavar="ID|USER...")
@click.pass_obj
def revoke(asked: Asked, which: tuple[str, ...]) -> int:
    """Revoke tokens: by their numbers, or all of a user.

    Requests under way end within seconds, agents that came by it are dropped, and what those run ends with their lease.
    Of the user who runs the hub these include the hub's own two, which its next start makes anew: agents are then to be
    given the new join file.

    \b
    Examples:
      lanai token revoke 3
      lanai token revoke ann
    """
    from lanai.model.errors import NothingThere

    client = asked.connect()
    missing: list[NothingThere] = []
    for each in which:
        is_number = each.isascii() and each.isdigit()
        try:
            revoked = client.revoke_tokens(token=int(each)) if is_number else client.revoke_tokens(user=each)
        except NothingThere as error:  # the others are to go all the same
            missing.append(error)
            continue
        numbers = ", ".join(map(str, revoked))
        plural = "" if len(revoked) == 1 else "s"
        say(f"token{plural} {numbers} revoked" if revoked else f"{each}: revoked before")
    for each_missing in missing[1:]:
        say(f"lanai: {each_missing.message}")
    if missing:
        raise missing[0]
    return 0


@command.command("roles")
@view_options
def roles(format_: str, columns: str | None, filters: tuple[str, ...], limit: int | None) -> int:
    """Show who may do what: users, operators and administrators.

    `own` is: to one's own batches. Who has a token of kind `admin`, and who uses the hub's Unix socket as root or as
    the hub's own user, is an administrator; others are what `[access]` of the hub's configuration says.

    \b
    Examples:
      lanai token roles
      lanai token roles --filter operator=yes --format quiet
    """
    from lanai.model.access import RULES, Role, may, may_all

    def word(role: Role, action: Any) -> str:
        return "yes" if may_all(role, action) else "own" if may(role, action, is_own=True) else "no"

    rows = [
        {"action": str(action), **{str(role): word(role, action) for role in Role}, "meaning": rule.text}
        for action, rule in RULES.items()
    ]
    print_rows(ROLES, rows, view_of(ROLES, format_, columns, filters, limit))
    return 0


def _length(text: str) -> float:
    from lanai.model.units import UnitError, parse_duration

    try:
        return parse_duration(text)
    except UnitError as error:
        raise click.UsageError(f"--expires: {error}") from None


def _claim(file: Path) -> int:
    """Have the file before there is a token, which would be lost without it. It is nobody else's from the beginning.

    Returns:
        The descriptor to write to: another may have put something else in its place meanwhile.
    """
    from lanai.model.errors import UserError

    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}", code="bad_file", hint="name another --file") from None


def _write(claimed: int, file: Path, contents: Mapping[str, str], token: int) -> None:
    from lanai.model.errors import UserError

    try:
        with open(claimed, "w", encoding="utf-8") as written:
            written.write(json.dumps(contents) + "\n")
    except OSError as error:
        file.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {file}: {error.strerror}; token {token} was made, and its secret is lost",
            code="bad_file",
            hint=f"lanai token revoke {token}, and create another",
        ) from None


def _file_of(made: Mapping[str, Any]) -> dict[str, str]:
    """What a token file or a join file holds."""
    names = ("url", "wire_url", "pin", "user", "next_pin")
    told = {name: made[name] for name in names if made[name]} | {"token": made["secret"]}
    if made["kind"] == "agent":
        del told["wire_url"], told["user"]
        told["url"] = made["wire_url"]
    return told
