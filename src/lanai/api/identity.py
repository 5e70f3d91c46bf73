"""Who calls: by the kernel's word on the Unix socket, by a bearer token on TLS.

`tokens.json` in the hub's directory is the hub's: `{"tokens": [{"sha256": hex, "kind": "user", "user": name}, ...]}`.
Only tokens of kind `user` and `admin` open this door; an agent's cannot act as a user.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import pwd
from pathlib import Path
from typing import Final

import msgspec

from lanai.model.errors import NotAllowed

KINDS: Final = ("user", "admin")


class Token(msgspec.Struct, frozen=True):
    """A token as the hub keeps it: hashed."""

    sha256: str
    kind: str
    user: str


class _Tokens(msgspec.Struct, frozen=True):
    tokens: list[Token] = []


class Identity:
    """Decides who a caller is, and whether he may come in at all."""

    def __init__(self, tokens_file: Path) -> None:
        self._tokens_file = tokens_file
        self._tokens: list[Token] = []
        self._read_as: tuple[int, int, int] | None = None

    def by_uid(self, uid: int) -> str:
        """The user behind a Unix connection. Raises NotAllowed for anybody but the hub's own user and root."""
        if uid not in (os.geteuid(), 0):
            raise NotAllowed(
                f"this hub belongs to {_user_name(os.geteuid())}; {_user_name(uid)} may not use it",
                hint="start a hub of your own: lanai hub start",
            )
        return _user_name(uid)

    def by_authorization(self, header: bytes | None) -> str:
        """The user whose token an Authorization header bears. Raises NotAllowed."""
        kind, _, token = (header or b"").strip().partition(b" ")
        if kind.lower() != b"bearer" or not token.strip():
            raise NotAllowed("this door needs a token", code="no_token", hint="give --hub with its token file")
        presented = hashlib.sha256(token.strip()).hexdigest()
        found = ""
        for known in self._known():
            # All are compared, in constant time each, so that the time taken tells nothing about them.
            if hmac.compare_digest(known.sha256.encode(), presented.encode()) and known.kind in KINDS:
                found = known.user
        if not found:
            raise NotAllowed("this token is not known here, or no longer", code="bad_token")
        return found

    def _known(self) -> list[Token]:
        try:
            status = self._tokens_file.stat()
            read_as = (status.st_ino, status.st_mtime_ns, status.st_size)
            if read_as != self._read_as:
                self._tokens = msgspec.json.decode(self._tokens_file.read_bytes(), type=_Tokens).tokens
                self._read_as = read_as
        except (OSError, msgspec.DecodeError):
            return []
        return self._tokens


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
