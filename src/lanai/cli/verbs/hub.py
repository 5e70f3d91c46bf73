"""Start or stop a hub, or ask whether one runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lanai.cli.context import Asked, closed_at_end
from lanai.cli.disk import say_if_full
from lanai.cli.main import Group
from lanai.cli.terminal import say

if TYPE_CHECKING:
    from lanai.client.client import Client
    from lanai.client.discover import Found

READY_WITHIN_S: Final = 60.0
NOT_RUNNING: Final = 3

json_option: Final = click.option(
    "--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print."
)


@click.command(name="hub", cls=Group)
def command() -> None:
    """Start or stop a hub, or ask whether one runs.

    \b
    Examples:
      lanai hub start
      lanai hub status --format json
      lanai hub stop
    """


@command.command("start")
@click.option("--foreground", is_flag=True, help="Stay, and end with the hub.")
@click.option("--listen", metavar="HOST:PORT", help="Where agents of other machines connect.")
@click.option(
    "--local",
    type=click.Choice(["owner", "everyone"]),
    help="Who may use its Unix socket: its own user, or everyone on this machine (default: as configured).",
)
@json_option
def start(foreground: bool, listen: str | None, local: str | None, format_: str) -> int:
    """Start the hub of this user on this machine, and return when it is ready.

    It goes on where it was. Other machines join with `lanai agent start` and the file that is printed as join_file.
    Where it runs already, says so and prints the same.

    It takes the place of the private hub, which is ended. Where that has unfinished batches, this is refused (exit code
    7), so that none is left behind: wait for them, or cancel them.

    \b
    Examples:
      lanai hub start
      lanai hub start --listen 0.0.0.0:7001 --local everyone
      pid=$(lanai hub start --format json | jq .pid)
    """
    from lanai.client import daemon
    from lanai.client.discover import access_arguments, hub_arguments
    from lanai.client.private import is_answering
    from lanai.model import places
    from lanai.model.errors import UserError
    from lanai.model.settings import listen_address

    try:
        listen_address(listen or "")
    except UserError as error:
        raise click.UsageError(f"--listen: {error}") from None
    home = _home()
    directory = places.hub_dir(home)
    is_managed = foreground and daemon.is_managed(os.environ)
    if not is_managed and is_answering(directory):
        say(f"lanai: the hub in {directory} runs already")
        _print(_facts(_client(directory), directory), format_)
        return 0
    arguments = ["lanai.hub", os.fspath(directory), *hub_arguments(os.environ), *access_arguments(os.environ)]
    # Of an option that stands there twice the last counts: what was typed over what is configured.
    arguments += [*(("--listen", listen) if listen else ()), *(("--local", local) if local else ())]
    with _alone(home):
        places.make(directory)
        if is_managed:
            daemon.become(arguments)
        started = daemon.start(
            arguments, log=directory / "hub.log", within_s=READY_WITHIN_S, is_detached=not foreground
        )
    _wait_for_api(directory)
    _print({**_facts(_client(directory), directory), "pid": started.pid}, format_)
    if _is_open_in_vain(arguments):
        say(f"lanai: others cannot reach {places.api_socket(directory)}, whose directory is closed to them")
        say("try: [access] socket = PATH in config.toml, and start the hub anew")
    return daemon.stay(started) if foreground else 0


def _is_open_in_vain(arguments: list[str]) -> bool:
    local = [after for word, after in pairwise(arguments) if word == "--local"]
    return local[-1:] == ["everyone"] and "--api-socket" not in arguments


@command.command("stop")
@click.option("--now", is_flag=True, help="Of a private hub: also while jobs run; those are cancelled.")
@click.pass_obj
def stop(asked: Asked, now: bool) -> int:
    """Stop the hub. Running commands go on, and are taken up again when it starts.

    A private hub, which ends together with its agent, refuses while jobs run. With --now it cancels what runs, waits
    for it to end within its grace, and keeps the results; what has not begun goes on at the next `lanai status`.

    \b
    Examples:
      lanai hub stop
      lanai hub stop --now
    """
    from lanai.client import daemon
    from lanai.client.private import end_rest

    found = _running(asked)
    if found is None:
        say("lanai: no hub runs here")
        return 0
    client = closed_at_end(found.client())
    pid = client.hub()["pid"]
    client.stop(now=now)
    if found.target.socket is not None:  # else the process may be another machine's
        daemon.wait_gone(pid, within_s=None if now else daemon.STOP_WITHIN_S)
        if found.is_private:
            end_rest(found.target.socket.parent)
    say("lanai: the hub has stopped")
    return 0


@command.command("status")
@json_option
@click.pass_obj
def status(asked: Asked, format_: str) -> int:
    """Say whether a hub runs here, and where it is reached. The exit code is 3 where none does.

    \b
    Examples:
      lanai hub status
      lanai hub status --format json | jq -r .url
    """
    found = _running(asked)
    if found is None:
        return _say_stopped(asked, format_)
    socket = found.target.socket
    client = closed_at_end(found.client())
    shown = client.hub() if socket is None else _facts(client, socket.parent)
    _print(shown, format_)
    say_if_full(shown)
    return 0


@command.command("certificate")
@click.option("--announce", "step", flag_value="announce", help="Make the next one; join and token file tell of both.")
@click.option("--switch", "step", flag_value="switch", help="Use the next one, from the next start of the hub on.")
@json_option
def certificate(step: str | None, format_: str) -> int:
    """Change the certificate of this user's hub, without an hour in which agents and clients refuse it.

    First --announce, and hand the join file and the token file on again: who has them believes the old certificate and
    the next one. Then, when all have them, --switch and start the hub anew. Agents look at their join file before each
    connect and need no restart.

    \b
    Examples:
      lanai hub certificate --announce
      lanai hub certificate --switch && lanai hub stop && lanai hub start
    """
    from lanai.client import daemon
    from lanai.model import places
    from lanai.model.errors import NothingThere

    if step is None:
        raise click.UsageError("give --announce or --switch")
    directory = places.hub_dir(_home())
    if not directory.is_dir():
        raise NothingThere(f"no hub was ever started in {directory}", code="no_hub", hint="lanai hub start")
    words = ["lanai.hub", os.fspath(directory), "--certificate", step]
    told = daemon.start(words, log=directory / "hub.log", within_s=READY_WITHIN_S)
    daemon.stay(told)
    pins = {name: str(told.facts[name]) for name in ("pin", "next_pin")}
    if format_ == "json":
        print(json.dumps({"version": 1, **pins}))
    elif step == "announce":
        print(f"certificate: {pins['pin']}\nnext: {pins['next_pin']}")
        say("lanai: hand the join file and the token file on again; then lanai hub certificate --switch")
    else:
        print(f"certificate: {pins['pin']}")
        say("lanai: it counts from the next start: lanai hub stop, lanai hub start")
    return 0


@command.command("restored")
def restored() -> int:
    """Say that the hub's state was restored from a backup, before it starts.

    Its agents have been given jobs of which that state knows nothing, or knows otherwise. They will end what they run
    of those, and the hub begins again what its state says has not ended. Batches that came after the backup are lost.

    \b
    Examples:
      lanai hub restored && lanai hub start
      sudo -u lanai env LANAI_HOME=/var/lib/lanai lanai hub restored
    """
    from lanai.client import daemon
    from lanai.model import places

    directory = places.hub_dir(_home())
    words = ["lanai.hub", os.fspath(directory), "--restored"]
    told = daemon.start(words, log=directory / "hub.log", within_s=READY_WITHIN_S)
    daemon.stay(told)
    say(f"lanai: the hub in {directory} begins epoch {told.facts['epoch']}")
    return 0


def _say_stopped(asked: Asked, format_: str) -> int:
    from lanai.client.discover import Here, meant
    from lanai.client.private import unfinished

    where = meant(asked.environ(), hub=_named(asked))
    assert isinstance(where, Here)
    left = unfinished(where.directory)
    if format_ == "json":
        print(json.dumps({"version": 1, "state": "stopped", "pid": None, "unfinished": left}))
    batches = f"; {left} unfinished {'batch waits' if left == 1 else 'batches wait'} for it" if left else ""
    if where.is_machines:
        say("lanai: the hub of this machine does not run\ntry: systemctl start lanai-hub")
    elif where.is_private and left:
        say(f"lanai: the private hub does not run{batches}\ntry: lanai status, which starts it again")
    else:
        say(f"lanai: no hub runs here{batches}\ntry: lanai hub start")
    return NOT_RUNNING


def _home() -> Path:
    import socket

    from lanai.model import places

    return places.home(os.environ, host=socket.gethostname())


def _client(directory: Path) -> Client:
    from lanai.client.client import Client
    from lanai.client.connection import Target
    from lanai.model import places

    return closed_at_end(Client(Target(socket=places.api_socket(directory))))


def _wait_for_api(directory: Path) -> None:
    """The hub takes work from agents already; its child that serves clients comes up a moment later."""
    import time

    from lanai.client.private import is_answering
    from lanai.model.errors import OtherEnd

    deadline_s = time.monotonic() + READY_WITHIN_S
    while not is_answering(directory):
        if time.monotonic() >= deadline_s:
            raise OtherEnd("the hub has started, but its API does not answer", hint=f"see {directory / 'hub.log'}")
        time.sleep(0.01)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """The first start takes the place of the private hub. Where a hub was set up, no private one is begun any more."""
    from lanai.client.private import replaced, unfinished
    from lanai.model import places

    private = places.private_dir(home)
    if not (places.hub_dir(home) / "hub.db").exists():
        with replaced(private):
            yield
        return
    yield
    left = unfinished(private)
    if left:  # of a time when the first start did not ask for them
        say(f"lanai: the private hub has {left} unfinished {'batch' if left == 1 else 'batches'} besides")
        say(f"try: lanai --hub {private} status, which goes on with them")


def _named(asked: Asked) -> str:
    return asked.hub or asked.token_file or ""


def _running(asked: Asked) -> Found | None:
    """The hub that is meant, if it runs; none is started."""
    from lanai.client.discover import running

    return running(asked.environ(), hub=_named(asked))


def _facts(client: Client, directory: Path) -> dict[str, Any]:
    """What `hub start` and `hub status` tell about a hub of this machine. One that is a service has no log file."""
    log = directory / "hub.log"
    return {**client.hub(), "state": "running", **({"log": os.fspath(log)} if log.exists() else {})}


def _print(facts: Mapping[str, Any], format_: str) -> None:
    if format_ == "json":
        print(json.dumps(facts))
        return
    print(f"hub {facts['lanai']}, pid {facts['pid']}" + (f", {facts['url']}" if facts.get("url") else ""))
    for name in ("token_file", "join_file"):
        if facts.get(name) and os.path.exists(facts[name]):
            print(f"{name}: {facts[name]}")
