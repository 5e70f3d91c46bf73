"""The ASGI application: who calls, which handler answers, and what becomes of errors.

An error before the answer has begun becomes a JSON error; after that the connection is cut, so that nobody takes half
an answer for a whole one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lanai.api.answers import refusal
from lanai.api.doors import ADMIT, PEER_UID
from lanai.api.identity import Identity
from lanai.model.errors import NothingThere

CALLER: Final = "caller"

Handler = Callable[[Request], Awaitable[Response]]


def application(identity: Identity, routes: Sequence[tuple[str, str, Handler]]) -> ASGIApp:
    """The application that serves (method, path, handler) to those whom `identity` lets in."""
    table: list[BaseRoute] = [Route(path, handler, methods=[method]) for method, path, handler in routes]
    router = Router(routes=table, redirect_slashes=False, default=_nothing_there)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            scope["state"][CALLER] = _caller(identity, scope)
            scope["state"][ADMIT]()
            await router(scope, receive, noting)
        except ClientDisconnect:
            pass
        except Exception as error:
            if has_begun:
                raise
            await refusal(error)(scope, receive, send)

    return application


def caller(request: Request) -> str:
    """The user who asks."""
    name: str = request.scope["state"][CALLER]
    return name


def _caller(identity: Identity, scope: Scope) -> str:
    uid = scope["state"].get(PEER_UID)
    if uid is not None:
        return identity.by_uid(uid)
    headers = dict(scope["headers"])
    return identity.by_authorization(headers.get(b"authorization"))


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    raise NothingThere(f"there is nothing at {scope['path']}", code="no_such_path", hint="see docs/http-api.md")
