"""Make a hub or an agent a service of this machine, by systemd"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lanai.cli.terminal import say

if TYPE_CHECKING:
    from lanai.cli.service_install import Done
    from lanai.cli.service_units import ServiceFile

UNITS: Final = {"hub": "lanai-hub.service", "agent": "lanai-agent.service"}
"""What is to be enabled; the unit of the agent's jobs comes with the agent."""

JOBS: Final = "lanai-jobs.service"


@click.command(name="install-service")
@click.argument("what", type=click.Choice(["hub", "agent"]), metavar="hub|agent")
@click.option("--dry-run", is_flag=True, help="Print the files, and write nothing.")
@click.option("--force", is_flag=True, help="Also write over, or remove, what was changed by hand.")
@click.option("--uninstall", is_flag=True, help="Stop it and remove its files; state, user and running commands stay.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write below DIR, for a package or an image; no command is run.",
)
@click.option("--packaged", is_flag=True, help="With --root: where packages have their units, not administrators.")
@click.option("--python", metavar="PATH", help="The interpreter that has Lanai there (default: this one).")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
def command(
    what: str,
    *,
    dry_run: bool,
    force: bool,
    uninstall: bool,
    root: Path | None,
    packaged: bool,
    python: str | None,
    format_: str,
) -> int:
    """Make a hub or an agent a service of this machine, by systemd.

    The hub runs as the user `lanai`, made if he is missing, keeps its state in /var/lib/lanai, and serves everybody who
    has an account here by /run/lanai/api.sock; /etc/lanai/config.toml says otherwise. The agent runs as root, and each
    job as the user who has submitted it, from uid 1000 on. It joins by /var/lib/lanai/join, which a hub on the same
    machine writes, or by /etc/lanai/join, which you put there.

    Nothing is started, and what runs is not started again. A unit that was changed by hand is left alone (exit code 7),
    and the difference is shown.

    \b
    Examples:
      sudo lanai install-service hub && sudo systemctl enable --now lanai-hub
      lanai install-service agent --dry-run
      sudo lanai install-service agent --uninstall
    """
    if packaged and root is None:
        raise click.UsageError("--packaged is for --root DIR")
    from lanai.cli import service_install
    from lanai.cli.service_units import agent_files, hub_files
    from lanai.model.errors import Refusal

    make = hub_files if what == "hub" else agent_files
    files = make(python or sys.executable, is_packaged=packaged)
    if dry_run:
        _print_files(files, format_)
        return 0
    is_here = root is None
    if what == "hub" and is_here and not uninstall:
        service_install.refuse_homes(*((python,) if python else (sys.executable, service_install.__file__)))
    if is_here and os.geteuid() != 0:
        raise Refusal(
            "only root can install a service",
            code="not_root",
            hint=f"sudo {sys.argv[0]} install-service {what}, or --dry-run, or --root DIR",
        )
    act = service_install.uninstall if uninstall else service_install.install
    try:
        if uninstall and is_here and service_install.has_systemd():
            if not force:
                service_install.refuse_changed(files, Path("/"))
            _stop(what)
        done = act(files, root or Path("/"), is_forced=force)
    except Refusal as refused:
        say(str(refused.facts["diff"]))
        raise
    if is_here:
        _tell_system(what, files, is_gone=uninstall)
    _print(what, done, format_)
    if is_here and not uninstall:
        _say_next(what)
    return 0


def _stop(what: str) -> None:
    from lanai.cli import service_install

    if service_install.is_known(UNITS[what]):
        service_install.run("systemctl", "disable", "--now", UNITS[what])
    if what == "agent" and service_install.is_active(JOBS):
        service_install.run("systemctl", "kill", "--kill-who=main", JOBS)


def _tell_system(what: str, files: Sequence[ServiceFile], *, is_gone: bool) -> None:
    """Have the user made, and the service manager look again; whoever comes is not to find the socket of a hub gone."""
    from lanai.cli import service_install
    from lanai.model import places

    if what == "hub" and is_gone:
        places.api_socket(places.runtime_dir({})).unlink(missing_ok=True)
    if what == "hub" and not is_gone:
        service_install.make_user(next(file.path for file in files if "sysusers.d" in file.path))
    if service_install.has_systemd():
        service_install.run("systemctl", "daemon-reload")
    elif not is_gone:
        say("lanai: systemd does not run here; the service begins once it does")


def _say_next(what: str) -> None:
    from lanai.model import places

    if what == "agent" and not (os.path.exists("/var/lib/lanai/join") or os.path.exists(places.SYSTEM_JOIN)):
        say(f"lanai: it needs a join file first, in {places.SYSTEM_JOIN}: see lanai token create --kind agent")
    say("try: systemctl enable --now " + UNITS[what])


def _print_files(files: Sequence[ServiceFile], format_: str) -> None:
    if format_ == "json":
        print(json.dumps({"version": 1, "files": [{"path": file.path, "text": file.text} for file in files]}))
    else:
        print("\n".join(f"# {file.path}\n{file.text}" for file in files), end="")


def _print(what: str, done: Sequence[Done], format_: str) -> None:
    if format_ == "json":
        rows = [{"path": os.fspath(each.path), "action": each.action} for each in done]
        print(json.dumps({"version": 1, "service": what, "files": rows}))
        return
    for each in done:
        print(f"{each.action:<10}{each.path}")
