"""Which hub a command means, and how to reach it.

In this order: `--hub`, `LANAI_HUB`, the configuration's `hub`; the hub that this user has set up by `lanai hub start`;
the hub that is a service of this machine, where its socket is open to him; the private hub of this user, which is
started where it has state, or where the command may begin one. `meant` is that order, and the only one: verbs that
start nothing (`running`) and those that do (`find`) mean the same hub.

A hub is named by an https URL (with a token file), by a token file, or by the directory of a hub of this machine.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lanai.client.connection import Target
from lanai.model import places
from lanai.model.errors import NothingThere, OtherEnd, UserError

if TYPE_CHECKING:
    from lanai.client.client import Client
    from lanai.client.keeper import Keeper
    from lanai.model.settings import Settings

PRIVATE_QUIET_S: Final = 5.0
"""Longer than a private hub takes to be started again, which is said by whoever does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """A hub of this machine by where its state lies. It need not run, and a private one need not have any state yet.

    Attributes:
        directory: its state; of one that is a service (`is_machines`) where its socket is: the rest is not ours to see.
    """

    directory: Path
    is_private: bool = False
    is_machines: bool = False

    @property
    def target(self) -> Target:
        """How it is reached where it runs."""
        return Target(socket=places.api_socket(self.directory))

    @property
    def has_state(self) -> bool:
        """Whether it was ever started."""
        return _is_there(self.directory / "hub.db")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A hub to speak to.

    Attributes:
        target: how it is reached.
        is_private: it starts and ends by itself.
        resumed: unfinished batches that were taken up again because it had to be started; worth a line to the user.
    """

    target: Target
    is_private: bool = False
    resumed: int = 0

    def client(self, *, say: Callable[[str], None] = lambda line: None) -> Client:
        """A client of this hub. `say` is told, one line a time, when the hub falls silent and when it is back."""
        from lanai.client.client import QUIET_S, Client

        return Client(self.target, say=say, quiet_s=PRIVATE_QUIET_S if self.is_private else QUIET_S)

    def keeper(self, *, say: Callable[[str], None]) -> Keeper | None:
        """What starts a private hub and its agent again where they are killed, until it is closed; None for others.

        `say` is told what was started again, one line a time, from another thread.
        """
        if not self.is_private or self.target.socket is None:
            return None
        from lanai.client.keeper import Keeper

        return Keeper(self.target.socket.parent, host=socket.gethostname(), say=say)


def find(
    environ: Mapping[str, str],
    *,
    hub: str = "",
    may_start: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Found | None:
    """The hub that is meant, answering.

    Args:
        hub: what `--hub` says.
        may_start: begin a private hub where there has never been any.
        say: told what takes long, one line a time.

    Returns:
        None where nothing was ever started here and nothing may be.

    Raises:
        OtherEnd: there is a hub, but it does not answer.
        UserError: what names the hub, or the configuration, is not understood.
    """
    where = meant(environ, hub=hub)
    if isinstance(where, Target):
        return Found(target=where)
    if not where.is_private:
        return Found(target=_answering(where))
    if not may_start and not where.has_state:
        return None
    from lanai.client.private import Started, is_whole, start

    started: Started | None = Started()
    if not is_whole(where.directory):
        is_meant = partial(_is_meant, where, environ, hub)
        started = start(where.directory, host=socket.gethostname(), say=say, is_wanted=is_meant)
    if started is None:  # another hub has taken its place meanwhile
        return find(environ, hub=hub, may_start=may_start, say=say)
    return Found(target=where.target, is_private=True, resumed=started.resumed)


def running(environ: Mapping[str, str], *, hub: str = "") -> Found | None:
    """The hub that is meant, where one of this machine runs, or one elsewhere is named; None else. Starts nothing.

    Raises:
        UserError: as `find`.
    """
    from lanai.client.private import is_answering, is_up

    where = meant(environ, hub=hub)
    if isinstance(where, Target):
        return Found(target=where)
    is_there = is_answering if where.is_machines else is_up
    return Found(target=where.target, is_private=where.is_private) if is_there(where.directory) else None


def meant(environ: Mapping[str, str], *, hub: str = "") -> Target | Here:
    """Which hub is meant, whether or not it runs; arguments and errors as of `find`."""
    # Most people have no configuration file, and reading none need not load what reads it.
    configured = configuration(environ) if _files(environ) else None
    named = hub or environ.get("LANAI_HUB", "") or (configured.hub if configured else "")
    if named:
        return _named(named, environ, configured.token_file if configured else "")
    machines = Here(directory=places.runtime_dir(environ), is_machines=True)
    # A socket is writable by whom the hub lets in, also while it does not run: he is not to get another one then.
    is_let_in = os.access(places.api_socket(machines.directory), os.W_OK)
    try:
        home = places.home(environ, host=socket.gethostname())
    except UserError:
        if is_let_in:
            return machines  # whoever has no home has no hub of his own: root in a cron job
        raise
    started = Here(directory=places.hub_dir(home))
    if started.has_state:
        return started
    return machines if is_let_in else Here(directory=places.private_dir(home), is_private=True)


def _is_meant(where: Here, environ: Mapping[str, str], hub: str) -> bool:
    return meant(environ, hub=hub) == where


def hub_arguments(environ: Mapping[str, str]) -> list[str]:
    """What the configuration says to a hub that is started here, as its arguments. Raises as `configuration` does."""
    if not _files(environ):
        return []
    keep = configuration(environ).keep
    return ["--keep-batches-days", str(keep.batches_days), "--keep-events-days", str(keep.events_days)]


def access_arguments(environ: Mapping[str, str]) -> list[str]:
    """What the configuration says to a hub about who may use it, as its arguments. Raises as `configuration` does."""
    if not _files(environ):
        return []
    access = configuration(environ).access
    words = ["--local", access.local, *(("--listen", access.listen) if access.listen else ())]
    words += ["--api-socket", os.fspath(Path(access.socket).expanduser())] if access.socket else []
    words += [word for name in access.operators for word in ("--operator", name)]
    return words + [word for name in access.admins for word in ("--admin", name)]


def configuration(environ: Mapping[str, str]) -> Settings:
    """The settings of all configuration files. Raises UserError naming file and key."""
    from lanai.model.settings import settings_from

    return settings_from([(os.fspath(path), _parsed(path)) for path in _files(environ)])


def _files(environ: Mapping[str, str]) -> list[Path]:
    return [path for path in places.config_files(environ) if _is_there(path)]


def _is_there(path: Path) -> bool:
    """Unlike Path.exists, this takes what may not be looked at, as a HOME of somebody else, for missing."""
    return os.path.exists(path)


def _parsed(path: Path) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else error
        raise UserError(f"{path}: {problem}", code="bad_config", facts={"file": os.fspath(path)}) from None


def _named(named: str, environ: Mapping[str, str], token_file: str) -> Target | Here:
    if named.startswith("https://"):
        file = environ.get("LANAI_TOKEN_FILE", "") or token_file
        if not file:
            raise UserError(
                f"{named} needs a token",
                code="no_token",
                hint="name its token file: export LANAI_TOKEN_FILE=..., or token_file in config.toml",
            )
        return _from_token(Path(file).expanduser(), named)
    path = Path(named).expanduser().absolute()
    if os.path.isdir(path):
        here = Here(directory=path, is_private=path == places.private_dir(path.parent))
        return here if here.has_state else Here(directory=path)
    if os.path.isfile(path):
        return _from_token(path, "")
    raise UserError(
        f"{named!r} names no hub: it is no https URL, no token file and no directory of a hub",
        code="bad_hub",
        hint="lanai --help; without --hub it is the one of this machine",
        facts={"found": named},
    )


def _answering(where: Here) -> Target:
    from lanai.client.private import is_answering, is_up

    if where.is_machines and not is_answering(where.directory):
        raise OtherEnd("the hub of this machine does not answer", hint="systemctl status lanai-hub")
    if not (is_answering(where.directory) or is_up(where.directory)):
        raise OtherEnd(f"the hub in {where.directory} does not answer", hint="lanai hub start")
    return where.target


def _from_token(path: Path, url: str) -> Target:
    import json
    from urllib.parse import urlsplit

    try:
        known = json.loads(path.read_bytes())
        if not isinstance(known, dict):
            raise ValueError("it is no JSON object")
        texts = [known.get(name) for name in ("url", "pin", "token")]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("it lacks url, pin or token")
        if not (known["token"].isascii() and known["token"].isprintable()):
            raise ValueError("its token has characters that no token has")
        next_pin = str(known.get("next_pin", ""))
        parts = urlsplit(url or known["url"])
        if parts.scheme != "https" or not parts.hostname or not parts.port:
            raise ValueError(f"{'the' if url else 'its'} url is not https://HOST:PORT")
        return Target(host=parts.hostname, port=parts.port, pin=known["pin"], token=known["token"], next_pin=next_pin)
    except FileNotFoundError:
        raise NothingThere(f"there is no token file {path}", facts={"file": os.fspath(path)}) from None
    except OSError as error:
        raise UserError(f"the token file {path} cannot be read: {error.strerror}", code="bad_token_file") from None
    except ValueError as error:
        hint = "ask whoever runs the hub for one: lanai token create"
        raise UserError(f"{path} is no token file: {error}", code="bad_token_file", hint=hint) from None
