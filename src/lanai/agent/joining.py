"""What the hub wrote for its agents: where it is, what its certificate is, and a token.

The file is looked at again before each connect, so that putting a new one in its place is all that a changed
certificate, a changed address or a revoked token asks for: the agent runs on. One that cannot be read then is taken for
one that is just being replaced, and what was known counts.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from lanai.agent.hublink import Address, address
from lanai.model.errors import LanaiError, UserError


class Join(msgspec.Struct, frozen=True):
    """A join file.

    Attributes:
        pin: the SHA-256 of the hub's certificate, in hexadecimal.
        next_pin: of the one that it will have; both are good until then.
    """

    url: str = ""
    pin: str = ""
    token: str = ""
    next_pin: str = ""


class Joining:
    """The join file, as far as it was understood last.

    Args:
        path: of the file; None where there is none.
        url: where the hub is, whatever the file says.

    Raises:
        UserError: it cannot be read, is no join file, or does not say where the hub is.
    """

    def __init__(self, path: Path | None, url: str) -> None:
        self._path = path
        self._url = url
        self._read_as: tuple[int, int, int] | None = None
        self._join = Join()
        if path is not None:
            self._read_as = _stamp(path)
            self._join = _read(path)
        self._address = self._found(self._join)

    @property
    def token(self) -> str:
        """What the agent shows."""
        return self._join.token

    def address(self) -> Address:
        """Where the hub is, by the file as it is now."""
        if self._path is not None and (stamp := _stamp(self._path)) != self._read_as:
            try:
                join = _read(self._path)
                self._address = self._found(join)
            except LanaiError:
                return self._address
            self._join, self._read_as = join, stamp
        return self._address

    def _found(self, join: Join) -> Address:
        return address(self._url or join.url, join.pin, join.next_pin)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> Join:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Join)
    except OSError as error:
        raise UserError(f"cannot read the join file {path}: {error.strerror}", code="bad_join") from None
    except msgspec.DecodeError as error:
        raise UserError(f"{path} is no join file: {error}", code="bad_join") from None
