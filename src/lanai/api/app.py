"""The ASGI application: who calls, whether he may, which handler answers, and what becomes of errors.

Every route names its action. This is the one place where the table of `model.access` is applied: by role before a
handler begins, and by owner where it has read whose batch it is about. A handler of an action that goes by owner and
has not asked gives no answer.

An error before the answer has begun becomes a JSON error; after that the connection is cut, so that nobody takes half
an answer for a whole one. What is refused for lack of rights is noted for the audit trail, within bounds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lanai.api.answers import refusal
from lanai.api.doors import PEER, VISITOR
from lanai.api.identity import Guests, Identity, Stranger
from lanai.api.view import asker
from lanai.model import access
from lanai.model.access import Action, Caller, Role
from lanai.model.allowance import Allowance
from lanai.model.errors import InternalError, NotAllowed, NothingThere, TooMany
from lanai.model.records import Facts, SaveToken
from lanai.wire.logs import about

CALLER: Final = "caller"
ACTION: Final = "action"
IS_CHECKED: Final = "is_checked"
REQUESTS_EACH: Final = 1_000
"""So many requests of one user may be under way at once; administrators are not counted."""
REFUSALS_AT_ONCE: Final = 20
REFUSAL_EVERY_S: Final = 30.0
"""So many refusals of one caller (all strangers are one), and then one every so often, are noted, others counted."""

SUBJECT_CHARACTERS: Final = 200

Handler = Callable[[Request], Awaitable[Response]]
Note = Callable[[Caller, str, str, Facts, bool, str, int], None]
"""(caller, action, subject, after, is_refused, why, left out): a row for the audit trail."""


class Served(NamedTuple):
    """One route. `path` is as docs/http-api.md has it."""

    method: str
    path: str
    action: Action
    handler: Handler


def application(identity: Identity, guests: Guests, routes: Sequence[Served], note: Note) -> ASGIApp:
    """The application that serves these routes to those whom `identity` lets in and the table allows it."""
    table: list[BaseRoute] = [_Route(each.path, _guarded(each), methods=[each.method]) for each in routes]
    router = Router(routes=table, redirect_slashes=False, default=_nothing_there)
    refusals = _Refusals(note)
    crowd = _Crowd()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False
        guest = None

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            scope["state"][CALLER], token = await _caller(identity, scope)
            asker.set(scope["state"][CALLER].user)
            scope["state"][VISITOR].admit()
            guest = guests.enter(token) if token is not None else None
            with crowd.counting(scope["state"][CALLER]):
                await router(scope, receive, noting)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            if guest is None or not guest.is_turned_out or has_begun:
                raise
            gone = NotAllowed("this token is good no longer", code="bad_token")
            await refusal(gone)(scope, receive, send)
        except Exception as error:
            if isinstance(error, NotAllowed):
                refusals.tell(scope, error)
            if has_begun:
                raise
            await refusal(error)(scope, receive, send)
        finally:
            if guest is not None:
                guests.leave(guest)

    return application


def caller(request: Request) -> Caller:
    """Who asks."""
    found: Caller = request.scope["state"][CALLER]
    return found


def only_of(request: Request) -> str | None:
    """Whose batches a list may show: None is everybody's, else the caller's own alone."""
    request.scope["state"][IS_CHECKED] = True
    asks, action = caller(request), _action(request)
    return None if asks.role is not None and access.may_all(asks.role, action) else asks.user


def require_owner(request: Request, owner: str, subject: str) -> None:
    """Raises NotAllowed where the caller may not do it to `subject`, which is `owner`'s."""
    request.scope["state"][IS_CHECKED] = True
    access.require_for(caller(request), _action(request), owner, subject)


def _action(request: Request) -> Action:
    found: Action = request.scope["state"][ACTION]
    return found


def _guarded(served: Served) -> Handler:
    async def answer(request: Request) -> Response:
        request.scope["state"][ACTION] = served.action
        access.require(caller(request), served.action)
        response = await served.handler(request)
        if access.RULES[served.action].is_owned and not request.scope["state"].get(IS_CHECKED):
            raise InternalError(f"{served.method} {served.path} has not asked whose it is")
        return response

    return answer


class _Route(Route):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Asked where only the method may be another: its own answer to that would be no JSON."""
        if scope["method"] not in (self.methods or ()):
            what = f"there is nothing to {scope['method']} at {scope['path']}"
            raise NothingThere(what, code="no_such_method", hint="see docs/http-api.md")
        await super().handle(scope, receive, send)


class _Crowd:
    """How many requests of each user are under way: those that wait for something, or bring a long list, last."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def counting(self, caller: Caller) -> Iterator[None]:
        """For as long as his request takes. Raises TooMany."""
        if caller.role is Role.ADMIN:
            yield
            return
        if self._under_way[caller.user] >= REQUESTS_EACH:
            raise TooMany(
                f"{REQUESTS_EACH} requests of {caller.user} are under way, which is the most",
                code="too_many_requests",
                hint="try again in a moment, with fewer at a time",
            )
        self._under_way[caller.user] += 1
        try:
            yield
        finally:
            self._under_way[caller.user] -= 1
            if not self._under_way[caller.user]:
                del self._under_way[caller.user]


class _Refusals:
    """Notes who was refused what."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._allowance = Allowance(burst=REFUSALS_AT_ONCE, every_s=REFUSAL_EVERY_S)

    def tell(self, scope: Scope, error: NotAllowed) -> None:
        state: Mapping[str, object] = scope["state"]
        asks = error.caller if isinstance(error, Stranger) else state.get(CALLER)
        assert isinstance(asks, Caller)
        left_out = self._allowance.take(asks.user, time.monotonic())
        if left_out is None:
            return
        subject = f"{scope['method']} {scope['path']}"[:SUBJECT_CHARACTERS]
        text = f"refused {asks.user or 'a stranger'} ({asks.origin}) {subject!a}: {error.message}"
        scope["state"][VISITOR].notice(text, about(user=asks.user))
        self._note(asks, str(state.get(ACTION, "")), subject, {}, True, error.message, left_out)


async def _caller(identity: Identity, scope: Scope) -> tuple[Caller, SaveToken | None]:
    peer = scope["state"].get(PEER)
    if peer is not None:
        return await identity.by_credentials(*peer), None
    headers = dict(scope["headers"])
    address = str((scope.get("client") or ("?",))[0])
    return await identity.by_authorization(headers.get(b"authorization"), address)


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    raise NothingThere(f"there is nothing at {scope['path']}", code="no_such_path", hint="see docs/http-api.md")
