"""What a command over several nodes is told of them: its host files, and the variables that name these.

Standard library only, part of the starter, which is the user's: so are the files, which nobody else can read. They lie
in a directory of the attempt's own, from just before it begins until it has ended. What a starter that was killed has
left behind is removed by the next one.
"""

import contextlib
import os
from typing import NamedTuple

from lanai.agent.starter_command import node_or
from lanai.agent.starter_reports import Key

FEATURE = "hosts"
# The kernel takes no variable of more than 128 KiB. Whoever has so many nodes reads the file.
_NAMES_BYTES = 100_000
_OWN_UMASK = 0o077
_FOLDER = "hosts"
_FILES = ("hosts", "mpi")


class Hosts(NamedTuple):
    """The names of an attempt's nodes, its own first, and how many tasks each of them is to have."""

    names: list[str]
    tasks: int


def hosts_of(extra: object) -> Hosts | None:
    """Reads what an attempt's extras say of its nodes; None where they say nothing.

    Raises:
        ValueError, TypeError, LookupError: it is not what the protocol says.
    """
    found = extra.get("hosts") if isinstance(extra, dict) else None
    if found is None:
        return None
    names, tasks = [str(name) for name in found["names"]], int(found["tasks"])
    if not names or tasks < 1 or any("\n" in name or "\0" in name for name in names):
        raise ValueError(f"hosts {found!r}"[:200])
    return Hosts(names, tasks)


class HostFiles:
    """The host files of one starter, below its directory. At its start there are none."""

    def __init__(self, directory: str) -> None:
        self._folder = os.path.join(directory, _FOLDER)
        self._clear()

    def make(self, key: Key, hosts: Hosts) -> dict[str, str]:
        """Writes the files of an attempt. Returns what its environment says of its nodes.

        Raises:
            CannotStart: they cannot be written, which is the node's fault.
        """
        place = self._place(key)
        texts = (
            "".join(f"{name}\n" * hosts.tasks for name in hosts.names),
            "".join(f"{name} slots={hosts.tasks}\n" for name in hosts.names),
        )
        umask = os.umask(_OWN_UMASK)
        try:
            os.makedirs(place, 0o700, exist_ok=True)
            for name, text in zip(_FILES, texts, strict=True):
                _write(os.path.join(place, name), text)
        except OSError as error:
            self.remove(key)
            raise node_or(error, "node", None, "host file") from None
        finally:
            os.umask(umask)
        return _variables(place, hosts)

    def remove(self, key: Key) -> None:
        """The attempt has ended. Harmless where it had none."""
        _remove(self._place(key))

    def _place(self, key: Key) -> str:
        return os.path.join(self._folder, f"{key[0]}.{key[1]}")

    def _clear(self) -> None:
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        for name in names:
            _remove(os.path.join(self._folder, name))


def _variables(place: str, hosts: Hosts) -> dict[str, str]:
    found = {"LANAI_NNODES": str(len(hosts.names))}
    found |= {
        variable: os.path.join(place, name)
        for variable, name in zip(("LANAI_HOSTFILE", "LANAI_MPI_HOSTFILE"), _FILES, strict=True)
    }
    names = " ".join(hosts.names)
    if len(os.fsencode(names)) <= _NAMES_BYTES:
        found["LANAI_NODES"] = names
    return found


def _write(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(os.fsencode(text))


def _remove(place: str) -> None:
    for name in _FILES:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(place, name))
    # What the command has put beside them is its user's, and stays until he removes it.
    with contextlib.suppress(OSError):
        os.rmdir(place)
