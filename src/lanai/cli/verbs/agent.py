"""Start or stop an agent: this machine runs jobs for a hub."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from lanai.cli.main import Group
from lanai.cli.terminal import say
from lanai.model import places

if TYPE_CHECKING:
    from lanai.model.settings import AgentSettings

READY_WITHIN_S: Final = 30.0
SYSTEM_STATE: Final = "/var/lib/lanai-agent"
"""Of an agent that runs jobs as their users: they have to get through to what is theirs in it."""

FACTS_FILE: Final = "agent.json"
JOINED_FILE: Final = "joined"


@click.command(name="agent", cls=Group)
def command() -> None:
    """Start or stop an agent: this machine runs jobs for a hub.

    \b
    Examples:
      lanai agent start --hub lanai://head:7001 --join join
      lanai agent stop
    """


@command.command("start")
@click.option("--hub", metavar="URL", help="The hub's URL (default: from the join file).")
@click.option("--join", metavar="FILE", help=f"Its join file (default: $LANAI_HOME/join, then {places.SYSTEM_JOIN}).")
@click.option("--name", metavar="NAME", help="What to call this node (default: its host name).")
@click.option("--cpus", metavar="N", help="Cpus to offer (default: all).")
@click.option("--memory", metavar="SIZE", help="Memory to offer, e.g. 8G (default: all).")
@click.option("--gpus", metavar="N|ID,...", help="Gpus to offer: how many, or their ids (default: as detected).")
@click.option("--resource", "resources", multiple=True, metavar="NAME=N", help="A named resource; may be repeated.")
@click.option("--feature", "features", multiple=True, metavar="NAME", help="What jobs may ask for; may be repeated.")
@click.option("--output-limit", metavar="SIZE", help="Keep so much of each output of a job (default: 1G; 0: all).")
@click.option("--as-users/--as-me", "as_users", default=None, help="Run each job as its user (root only).")
@click.option("--min-uid", type=click.IntRange(min=0), metavar="N", help="With --as-users: lowest uid to serve.")
@click.option("--allow-root/--no-allow-root", default=None, help="With --as-users: serve root's jobs (default: yes).")
@click.option("--cgroup-base", metavar="GROUP", help="Make control groups in this one (default: in the agent's own).")
@click.option("--state", metavar="DIR", help=f"Its directory (default: in $LANAI_HOME; --as-users: {SYSTEM_STATE}).")
@click.option("--foreground", is_flag=True, help="Stay, and end with the agent.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
def start(name: str | None, foreground: bool, format_: str, **options: Any) -> int:
    """Start an agent and return once its hub has welcomed it. It reconnects for ever.

    Where the hub does not answer within a few seconds, an agent that has never joined it is ended again, and the exit
    code is 3; one that has, and one in the foreground, go on trying.

    \b
    Examples:
      lanai agent start
      lanai agent start --hub lanai://head:7001 --join /shared/join --cpus 8 --memory 32G
      lanai agent start --name spare --cpus 0.5 --resource licence=2
      lanai agent start --gpus 0,2 --feature ssd --feature a100
      sudo lanai agent start --join /etc/lanai/join --as-users --min-uid 1000 --no-allow-root
    """
    from lanai.client import daemon
    from lanai.client.discover import configuration

    configured = configuration(os.environ).agent
    called = name or configured.name or socket.gethostname()
    serving = _serving(options, configured)
    directory = _state(options["state"], called, is_shared="--as-users" in serving)
    is_managed = foreground and daemon.is_managed(os.environ)
    running = None if is_managed else _facts(directory)
    if running is not None:
        say(f"lanai: agent {called} runs already")
        _print({"pid": running[1], "name": called, "directory": os.fspath(directory)}, format_)
        return 0
    arguments = ["lanai.agent", "--state", os.fspath(directory), "--name", called]
    arguments += _hub_arguments(options["hub"], options["join"])
    arguments += _offer(options, configured) + _limits(options, configured) + serving
    places.make(directory)
    if is_managed:
        daemon.become(arguments)
    log = directory / "agent.log"
    keeps_trying = foreground or (directory / JOINED_FILE).exists()
    started = daemon.start(
        arguments, log=log, within_s=READY_WITHIN_S, is_detached=not foreground, keeps_trying=keeps_trying
    )
    if started.missing is not None:
        say(f"lanai: {started.missing.message}; the agent goes on trying")
    facts = {
        **started.facts,
        "pid": started.pid,
        "name": called,
        "directory": os.fspath(directory),
        "log": os.fspath(log),
    }
    _print(facts, format_)
    return daemon.stay(started) if foreground else 0


@command.command("stop")
@click.option("--name", metavar="NAME", help="Which (default: the one that runs here).")
@click.option("--state", metavar="DIR", help="The one whose directory this is.")
@click.option("--now", is_flag=True, help="End its running commands too.")
def stop(name: str | None, state: str | None, now: bool) -> int:
    """Stop an agent. Its running commands go on, and are taken over when it starts again; not with --now.

    Where none was started by hand, the one of the private hub is meant.

    \b
    Examples:
      lanai agent stop
      lanai agent stop --name spare --now
    """
    from lanai.client import daemon
    from lanai.model.errors import NothingThere

    if name is not None:
        places.agent_dir(_home(), name)
    started = [Path(state).absolute()] if state else [*_by_hand(), Path(SYSTEM_STATE)]
    running = _running(started, name) or _running([_private()], name)
    if not running:
        say("lanai: no agent runs here" if name is None else f"lanai: no agent {name} runs here")
        return 0
    if len(running) > 1:
        raise NothingThere(
            "several agents run here: " + ", ".join(sorted(running)), hint="lanai agent stop --name NAME"
        )
    for each, (directory, pid) in running.items():
        daemon.terminate(pid)
        if now:
            daemon.end_starters(directory)
        say(f"lanai: agent {each} has stopped")
    return 0


def _home() -> Path:
    return places.home(os.environ, host=socket.gethostname())


def _serving(options: Mapping[str, Any], configured: AgentSettings) -> list[str]:
    """As whom its jobs run, in the agent's words. Raises UserError for options that mean nothing by themselves."""
    from lanai.model.errors import UserError

    given = {name: options[name] for name in ("as_users", "min_uid", "allow_root")}
    meant = {name: getattr(configured, name) if value is None else value for name, value in given.items()}
    if not meant["as_users"]:
        if given["min_uid"] is not None or given["allow_root"] is not None:
            raise UserError("--min-uid and --allow-root are for --as-users", hint="give --as-users too, as root")
        return []
    allowing = "--allow-root" if meant["allow_root"] else "--no-allow-root"
    return ["--as-users", "--min-uid", str(meant["min_uid"]), allowing]


def _state(given: str | None, called: str, *, is_shared: bool) -> Path:
    own = places.agent_dir(_home(), called)
    if given:
        return Path(given).absolute()
    return Path(SYSTEM_STATE) if is_shared else own


def _facts(directory: Path) -> tuple[str, int] | None:
    """Name and process of the agent whose state is in `directory`, if it runs."""
    from lanai.client.daemon import is_module

    try:
        facts = json.loads((directory / FACTS_FILE).read_text())
        name, pid = str(facts["name"]), int(facts["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (name, pid) if is_module(pid, "lanai.agent") else None


def _by_hand() -> list[Path]:
    agents = _home() / "agents"
    return sorted(agents.iterdir()) if agents.is_dir() else []


def _private() -> Path:
    return places.private_dir(_home()) / "agent"


def _running(directories: Iterable[Path], name: str | None) -> dict[str, tuple[Path, int]]:
    """State and process of the agents that run, by name; with `name` only the one called so."""
    found = [(directory, facts) for directory in directories if (facts := _facts(directory))]
    return {called: (directory, pid) for directory, (called, pid) in found if name in (None, called)}


def _hub_arguments(hub: str | None, join: str | None) -> list[str]:
    """Where the agent goes: what was said, else the join file of a hub that was started here."""
    from lanai.model.errors import UserError

    file = Path(join) if join else _join_file()
    if not file.exists():
        if join or not hub or not hub.startswith("unix:"):
            raise UserError(
                f"there is no join file {file}",
                code="no_join_file",
                hint="copy it from where the hub was started ($LANAI_HOME/join), and name it with --join FILE",
            )
        return ["--hub", hub]
    try:
        known = json.loads(file.read_bytes())
        url = hub or known["url"]
        if not isinstance(url, str):
            raise TypeError(url)
    except (KeyError, TypeError):
        raise UserError(f"{file} is no join file: it names no url", code="bad_join_file") from None
    except OSError as error:
        raise UserError(f"the join file {file} cannot be read: {error.strerror}", code="bad_join_file") from None
    except ValueError as error:
        raise UserError(f"{file} is no join file: {error}", code="bad_join_file") from None
    return ["--hub", url, "--join", os.fspath(file.absolute())]


def _join_file() -> Path:
    """That of a hub that was started here, else the one that was put in place for this machine."""
    own, system = places.join_file(_home()), Path(places.SYSTEM_JOIN)
    return system if not own.exists() and os.access(system, os.R_OK) else own


def _offer(options: Mapping[str, Any], configured: AgentSettings) -> list[str]:
    """What the agent shall say that it has. Raises UserError for what the agent would not understand."""
    from lanai.cli.submission import resources_of, understood
    from lanai.model.features import parse_feature
    from lanai.model.units import parse_bytes, parse_gpu_ids, parse_offered_milli

    words = []
    parsers: dict[str, Callable[[str], object]] = {
        "cpus": parse_offered_milli,
        "memory": parse_bytes,
        "gpus": parse_gpu_ids,
        "output_limit": parse_bytes,
    }
    for option, parse in parsers.items():
        value = getattr(configured, option) if options[option] is None else options[option]
        if value is not None:
            name = f"--{option.replace('_', '-')}"
            understood(name, value, parse)
            words += [name, str(value)]
    for key, count in sorted({**configured.resources, **resources_of(options["resources"])}.items()):
        words += ["--resource", f"{key}={count}"]
    for feature in sorted({*configured.features, *options["features"]}):
        words += ["--feature", understood("--feature", feature, parse_feature)]
    return words


def _limits(options: Mapping[str, Any], configured: AgentSettings) -> list[str]:
    """How it shall limit what it runs: but for where, the configuration alone says that."""
    words = ["--cgroups", configured.cgroups, "--cpu-limit", configured.cpu_limit]
    words += ["--user-processes", str(configured.user_processes)]
    base = options["cgroup_base"] or configured.cgroup_base
    return words if base is None else [*words, "--cgroup-base", base]


def _print(facts: Mapping[str, Any], format_: str) -> None:
    if format_ == "json":
        print(json.dumps({"version": 1, **facts}))
    else:
        print(f"agent {facts['name']}, pid {facts['pid']}")
