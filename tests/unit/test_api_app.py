"""The one place where rights are asked for: what a handler forgets is not answered, what is refused is noted."""

import asyncio
import json
import os
import pwd
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from lanai.api import app
from lanai.api.answers import answer
from lanai.api.app import Served, application, only_of, require_owner
from lanai.api.doors import PEER, VISITOR
from lanai.api.identity import Admission, Guests, Identity
from lanai.model.access import Action
from lanai.wire.lobby import Visitor

NOBODY = pwd.getpwnam("nobody").pw_uid


def asked(
    handler: Callable[[Request], Awaitable[Response]], action: Action, uid: int = NOBODY
) -> tuple[int, dict[str, Any], list[tuple[object, ...]]]:
    """The status and the answer of one request, and what was noted."""
    noted: list[tuple[object, ...]] = []
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ask() -> None:
        identity = Identity(None, Admission(is_open=True))  # type: ignore[arg-type]
        served = [Served("GET", "/v1/thing", action, handler)]
        made = application(identity, Guests(identity), served, lambda *row: noted.append(row))
        scope = {
            "type": "http", "method": "GET", "path": "/v1/thing", "headers": [], "query_string": b"",
            "state": {PEER: (7, uid), VISITOR: Visitor()}, "root_path": "",
        }  # fmt: skip
        await made(scope, receive, send)

    asyncio.run(ask())
    return sent[0]["status"], json.loads(sent[1]["body"]), noted


async def forgets(request: Request) -> Response:
    return answer({"secret": "of another"})


async def asks_for_his_own(request: Request) -> Response:
    require_owner(request, "nobody", "batch 1")
    return answer({"thing": 1})


async def asks_for_anothers(request: Request) -> Response:
    require_owner(request, "ann", "batch 1")
    return answer({"secret": "of another"})


async def lists(request: Request) -> Response:
    return answer({"only": only_of(request)})


@pytest.mark.parametrize("uid", [NOBODY, os.geteuid()])
def test_a_handler_that_does_not_ask_whose_it_is_gives_no_answer(uid: int) -> None:
    status, body, _ = asked(forgets, Action.BATCH_SEE, uid)
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert "secret" not in body


def test_what_is_nobodys_goes_by_role() -> None:
    assert asked(forgets, Action.NODE_SEE)[0] == 200
    status, body, noted = asked(forgets, Action.HUB_STOP)
    assert (status, body["error"]["code"]) == (403, "needs_role")
    ((caller, *row),) = noted
    assert row == ["hub.stop", "GET /v1/thing", {}, True, body["error"]["message"], 0]
    assert (caller.user, caller.origin.pid) == ("nobody", 7)  # type: ignore[attr-defined]


def test_what_is_somebodys_goes_by_owner() -> None:
    assert asked(asks_for_his_own, Action.BATCH_CANCEL)[0] == 200
    status, body, noted = asked(asks_for_anothers, Action.BATCH_CANCEL)
    assert (status, body["error"]["code"], len(noted)) == (403, "not_yours", 1)
    assert asked(asks_for_anothers, Action.BATCH_CANCEL, os.geteuid())[0] == 200


def test_lists_are_of_ones_own_but_for_those_who_may_see_all() -> None:
    assert asked(lists, Action.BATCH_SEE)[1]["only"] == "nobody"
    assert asked(lists, Action.BATCH_SEE, os.geteuid())[1]["only"] is None


def test_so_many_requests_of_one_user_are_under_way_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is enough to ask without end for what has not happened yet; others' requests have their own count."""
    monkeypatch.setattr(app, "REQUESTS_EACH", 2)

    async def ask() -> list[int]:
        begun, may_end = asyncio.Semaphore(0), asyncio.Event()

        async def waits(request: Request) -> Response:
            begun.release()
            await may_end.wait()
            return answer({})

        identity = Identity(None, Admission(is_open=True))  # type: ignore[arg-type]
        served = application(identity, Guests(identity), [Served("GET", "/v1/thing", Action.HUB_SEE, waits)], nothing)
        asked = [asyncio.create_task(status_of(served, uid)) for uid in (NOBODY, NOBODY, 1, 0, 0, 0)]
        for _ in asked:
            await begun.acquire()
        refused = await status_of(served, NOBODY)
        may_end.set()
        return [*await asyncio.gather(*asked), refused, await status_of(served, NOBODY)]

    assert asyncio.run(ask()) == [200] * 6 + [429, 200]


def nothing(*row: object) -> None:
    """Nobody is refused for lack of rights here."""
    raise AssertionError(row)


async def status_of(served: ASGIApp, uid: int) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http", "method": "GET", "path": "/v1/thing", "headers": [], "query_string": b"",
        "state": {PEER: (7, uid), VISITOR: Visitor()}, "root_path": "",
    }  # fmt: skip
    await served(scope, receive, send)
    return int(sent[0]["status"])
