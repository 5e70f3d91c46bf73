"""Who calls: by the kernel's word on the Unix socket, by a bearer token on TLS; and what he is to this hub.

Nothing that a request says counts, but for the token. Tokens are read from the store once, and again when the hub says
that they have changed, so a flood of wrong ones costs a look into a dictionary each.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import pwd
import time
from collections.abc import Callable
from typing import Final

import msgspec

from lanai.api.view import View
from lanai.model.access import Caller, Door, Origin, Role, TokenKind, user_name
from lanai.model.errors import NotAllowed, UserError
from lanai.model.records import SaveToken

NAME_KEPT_S: Final = 60.0
NAMES_KEPT: Final = 1_000


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the hub's configuration lets in, and as what.

    Attributes:
        is_open: everybody on this machine may use the Unix socket; else the hub's own user and root alone.
        operators, admins: names of users.
    """

    is_open: bool = False
    operators: frozenset[str] = frozenset()
    admins: frozenset[str] = frozenset()

    def role_of(self, user: str) -> Role:
        """What a user is by his name."""
        if user in self.admins:
            return Role.ADMIN
        return Role.OPERATOR if user in self.operators else Role.USER


class Identity:
    """Decides who a caller is, and whether he may come in at all."""

    def __init__(self, view: View, admission: Admission) -> None:
        self._view = view
        self._admission = admission
        self._names: dict[int, tuple[float, str]] = {}
        self._tokens: dict[bytes, SaveToken] = {}
        self._reading = asyncio.Lock()
        self._changes = 1
        self._changes_read = 0

    # -- the Unix socket

    async def by_credentials(self, pid: int, uid: int) -> Caller:
        """The caller behind a Unix connection. Raises NotAllowed for one who may not use it, or whom nobody knows."""
        origin = Origin(Door.UNIX, uid, pid)
        if uid in (os.geteuid(), 0):
            return Caller(await self._name(uid) or str(uid), Role.ADMIN, origin)
        stranger = Caller(origin=origin)
        user = await self._name(uid)
        if not self._admission.is_open:
            raise Stranger(
                stranger,
                f"this hub belongs to {await self._name(os.geteuid()) or os.geteuid()}; {user or uid} may not use it",
                hint="start a hub of your own: lanai hub start",
            )
        if not user:
            raise Stranger(
                stranger,
                f"the system knows no user with the number {uid}",
                code="unknown_user",
                hint=f"getent passwd {uid}",
            )
        try:
            return Caller(user_name(user), self._admission.role_of(user), origin)
        except UserError as error:
            raise Stranger(stranger, error.message, code="unknown_user") from None

    async def _name(self, uid: int) -> str:
        """The user's name, empty where there is none. A directory service may take its time, so it is asked aside."""
        kept = self._names.get(uid)
        now_s = time.monotonic()
        if kept is None or now_s - kept[0] > NAME_KEPT_S:
            if len(self._names) >= NAMES_KEPT:
                self._names.clear()
            kept = self._names[uid] = now_s, await asyncio.get_running_loop().run_in_executor(None, _name_of, uid)
        return kept[1]

    # -- TLS

    async def by_authorization(self, header: bytes | None, address: str) -> tuple[Caller, SaveToken]:
        """The caller whose token an Authorization header bears, and that. Raises NotAllowed."""
        kind, _, shown = (header or b"").strip().partition(b" ")
        stranger = Caller(origin=Origin(Door.TLS, address=address))
        if kind.lower() != b"bearer" or not shown.strip():
            raise Stranger(stranger, "this door needs a token", code="no_token", hint="give --hub with its token file")
        token = await self._token(shown.strip())
        if token is not None and not token.is_good(_wall_us()):
            why = "was revoked" if token.revoked_at_us else "has expired"
            stranger = Caller(origin=Origin(Door.TLS, address=address, token=token.token))
            raise Stranger(
                stranger, f"token {token.token} {why}", code="bad_token", hint="ask whoever runs the hub for another"
            )
        if token is None:
            raise Stranger(
                stranger,
                "this token is not known here",
                code="bad_token",
                hint="ask whoever runs the hub for one: lanai token create",
            )
        origin = Origin(Door.TLS, address=address, token=token.token)
        if token.kind == TokenKind.AGENT:
            raise Stranger(
                Caller(origin=origin),
                f"token {token.token} is for agents, which have a door of their own",
                code="bad_token",
                hint="lanai token create --kind user",
            )
        role = Role.ADMIN if token.kind == TokenKind.ADMIN else self._admission.role_of(token.user)
        return Caller(token.user, role, origin), token

    def tokens_changed(self) -> None:
        """What is known of tokens is out of date: nobody comes in by it any more."""
        self._changes += 1

    async def is_good(self, token: SaveToken) -> bool:
        """Whether a token that opened this door would do so now."""
        now = (await self._known()).get(token.sha256)
        return now is not None and now.is_good(_wall_us())

    async def _token(self, shown: bytes) -> SaveToken | None:
        """The token, where it is known.

        It is looked up by its hash, so what the time taken may tell is about hashes, of which no token can be made.
        """
        presented = hashlib.sha256(shown).digest()
        token = (await self._known()).get(presented)
        return token if token is not None and hmac.compare_digest(token.sha256, presented) else None

    async def _known(self) -> dict[bytes, SaveToken]:
        while self._changes_read != self._changes:
            async with self._reading:
                if self._changes_read != self._changes:
                    changes = self._changes
                    tokens = await self._view.ask(lambda reader: reader.tokens())
                    self._tokens = {token.sha256: token for token in tokens}
                    self._changes_read = changes
        return self._tokens


class Stranger(NotAllowed):
    """Somebody whom a door does not let in. `caller` is what is known of him."""

    def __init__(self, caller: Caller, message: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.caller = caller


class Guests:
    """Requests that are being answered to callers who came by a token: they end when it is good no longer."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._open: dict[Guest, None] = {}
        self._looking: set[asyncio.Task[None]] = set()

    def enter(self, token: SaveToken) -> Guest:
        """The request of this task. Give it to `leave` at its end."""
        task = asyncio.current_task()
        assert task is not None
        guest = Guest(token, task.cancel)
        self._open[guest] = None
        if token.expires_at_us:
            # By the clock on the wall; each new request looks at that again.
            wait_s = max(0.0, (token.expires_at_us - _wall_us()) / 1e6)
            guest.timer = asyncio.get_running_loop().call_later(wait_s, guest.turn_out)
        return guest

    def leave(self, guest: Guest) -> None:
        """It has been answered."""
        self._open.pop(guest, None)
        if guest.timer is not None:
            guest.timer.cancel()

    def tokens_changed(self) -> None:
        """Look at them all anew."""
        self._identity.tokens_changed()
        if self._open:
            looking = asyncio.ensure_future(self._look())
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)

    async def _look(self) -> None:
        for guest in list(self._open):
            if not await self._identity.is_good(guest.token) and guest in self._open:
                guest.turn_out()


class Guest:
    """One such request. `is_turned_out`: it was ended, and not by anybody else."""

    def __init__(self, token: SaveToken, cancel: Callable[[], bool]) -> None:
        self.token = token
        self.is_turned_out = False
        self.timer: asyncio.TimerHandle | None = None
        self._cancel = cancel

    def turn_out(self) -> None:
        """End it."""
        self.is_turned_out = True
        self._cancel()


def _wall_us() -> int:
    return time.time_ns() // 1000


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
