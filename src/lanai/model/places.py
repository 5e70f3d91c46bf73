"""Where everything of Lanai lies on disk: functions from an environment mapping to paths. Only `make` touches a file.

    $LANAI_HOME, or $XDG_STATE_HOME/lanai/HOST (by default ~/.local/state/lanai/HOST)
      join             what an agent needs to join the hub that was started here
      hub/             the hub of `lanai hub start`
      private/         the hub that `lanai run` starts by itself, and private/agent/, its agent
      agents/NAME/     agents started here
    in a hub's directory: hub.db hub.sock api.sock cert.pem key.pem token hub.pid hub.log
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lanai.model.errors import StoreError, UserError

SYSTEM_JOIN: Final = "/etc/lanai/join"
"""Where a join file is put for the agent that is a service of this machine."""

_RUNTIME: Final = "/run/lanai"


def runtime_dir(environ: Mapping[str, str]) -> Path:
    """Where the hub that is a service of this machine has its socket for everybody; `LANAI_RUNTIME` names another."""
    chosen = environ.get("LANAI_RUNTIME", "")
    return Path(chosen if chosen.startswith("/") else _RUNTIME)


def home(environ: Mapping[str, str], *, host: str) -> Path:
    """The directory of all state of this user on `host`. Raises UserError where the environment names none."""
    chosen = environ.get("LANAI_HOME", "")
    if chosen:
        if not chosen.startswith("/"):
            raise UserError(
                f"LANAI_HOME is {chosen!r}, which is no absolute path", code="bad_home", facts={"found": chosen}
            )
        return Path(chosen)
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "lanai" / host


def hub_dir(home: Path) -> Path:
    """The directory of the hub that a person starts."""
    return home / "hub"


def private_dir(home: Path) -> Path:
    """The directory of the hub that starts by itself and ends by itself."""
    return home / "private"


def agent_dir(home: Path, name: str) -> Path:
    """The directory of the agent called `name`. Raises UserError for a name that is no single path component."""
    if not name or name in {".", ".."} or "/" in name or "\0" in name:
        raise UserError(f"{name!r} cannot name a node", code="bad_node_name", facts={"found": name})
    return home / "agents" / name


def join_file(home: Path) -> Path:
    """What the hub writes for agents to join by: URL, pin and join token, mode 0600."""
    return home / "join"


def make(directory: Path) -> Path:
    """Have a directory for state. Raises StoreError where it cannot be.

    Whatever is new, the directories above it as well, is this user's alone; what was there keeps its mode.
    """
    try:
        missing = [each for each in directory.parents if not each.exists()]
        for each in (*reversed(missing), directory):
            each.mkdir(exist_ok=True, mode=0o700)
        is_usable = os.access(directory, os.W_OK | os.X_OK)
        problem = "" if is_usable else "not writable by you"
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise StoreError(
            f"state cannot be kept in {directory}: {problem}",
            code="bad_home",
            hint="export LANAI_HOME=/a/directory/of/yours",
            facts={"directory": os.fspath(directory)},
        )
    return directory


def api_socket(hub: Path) -> Path:
    """Where clients of the hub in directory `hub` connect."""
    return hub / "api.sock"


def wire_socket(hub: Path) -> Path:
    """Where the API process and agents of the same machine connect."""
    return hub / "hub.sock"


def user_token_file(hub: Path) -> Path:
    """What clients elsewhere need: URL, pin and token of the person who runs the hub, mode 0600."""
    return hub / "token"


def config_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The configuration files, the weakest first; they need not exist."""
    shared = [Path(part) for part in environ.get("XDG_CONFIG_DIRS", "").split(":") if part.startswith("/")]
    found = [directory / "lanai" / "config.toml" for directory in reversed(shared or [Path("/etc/xdg")])]
    try:
        found.append(_xdg(environ, "XDG_CONFIG_HOME", ".config") / "lanai" / "config.toml")
    except UserError:
        pass  # a daemon without HOME has the shared files and its LANAI_HOME
    chosen = environ.get("LANAI_HOME", "")
    if chosen.startswith("/"):
        found.append(Path(chosen) / "config.toml")
    return tuple(found)


def _xdg(environ: Mapping[str, str], name: str, default: str) -> Path:
    """An XDG base directory; as the specification says, a relative one counts as unset."""
    chosen = environ.get(name, "")
    if chosen.startswith("/"):
        return Path(chosen)
    user = environ.get("HOME", "")
    if not user.startswith("/"):
        raise UserError(
            f"neither LANAI_HOME nor {name} nor HOME is set to an absolute path",
            code="no_home",
            hint="export LANAI_HOME=/some/directory",
        )
    return Path(user) / default
