"""What those ask who look after a hub: its tokens, the log of events, and the audit trail.

A token's secret is made up here, told to whoever asked for it, and kept nowhere: the hub is given its hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lanai.api import questions
from lanai.api.answers import answer, rfc3339
from lanai.api.app import Served, caller
from lanai.api.bodies import Number, decoded
from lanai.api.hublink import HubLink
from lanai.api.view import View
from lanai.model.access import Action, TokenKind, user_name
from lanai.model.errors import Refusal, UserError
from lanai.model.job import Amount
from lanai.model.records import SaveAudit, SaveEvent, SaveToken

PAGE_LIMIT: Final = 10_000
TOKEN_BYTES: Final = 32
EXPIRES_S_MOST: Final = 100 * 366 * 86_400
LABEL_CHARACTERS: Final = 200


class _NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/tokens; `expires_s` None is never."""

    user: str
    kind: TokenKind = TokenKind.USER
    expires_s: float | None = None
    label: str = ""


class _Revoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/tokens/revoke: one of the two."""

    token: Number = 0
    user: str = ""


class Administration:
    """The handlers, over one link to the hub and one view of the store."""

    def __init__(self, link: HubLink, view: View) -> None:
        self._link = link
        self._view = view

    def routes(self) -> Sequence[Served]:
        """Each with the action that it is."""
        return [
            Served("GET", "/v1/tokens", Action.TOKEN_SEE, self.tokens),
            Served("POST", "/v1/tokens", Action.TOKEN_CREATE, self.create),
            Served("POST", "/v1/tokens/revoke", Action.TOKEN_REVOKE, self.revoke),
            Served("GET", "/v1/events", Action.EVENT_SEE, self.events),
            Served("GET", "/v1/audit", Action.AUDIT_SEE, self.audit),
        ]

    # -- tokens

    async def tokens(self, request: Request) -> Response:
        """GET /v1/tokens."""
        found = await self._view.ask(lambda reader: reader.tokens())
        now_us = time.time_ns() // 1000
        return answer({"tokens": [_token_shown(token, now_us) for token in found]})

    async def create(self, request: Request) -> Response:
        """POST /v1/tokens."""
        wish = await decoded(request, _NewToken)
        if wish.expires_s is not None and not 0 < wish.expires_s <= EXPIRES_S_MOST:
            raise UserError(f"found expires_s={wish.expires_s:g}, accepted is more than 0 and at most 100 years")
        if len(wish.label) > LABEL_CHARACTERS or not wish.label.isprintable():
            raise UserError(f"a label has at most {LABEL_CHARACTERS} characters, all printable", code="bad_label")
        hub = await self._link.command(caller(request), "hub")
        if hub["is_private"]:
            raise Refusal(
                "a private hub has no door for tokens", code="hub_is_private", hint="lanai hub start, which has"
            )
        secret = secrets.token_hex(TOKEN_BYTES)
        expires_at_us = 0 if wish.expires_s is None else time.time_ns() // 1000 + round(wish.expires_s * 1e6)
        told = await self._link.command(
            caller(request),
            "token_create",
            user=user_name(wish.user),
            kind=wish.kind,
            sha256=hashlib.sha256(secret.encode()).digest(),
            expires_at_us=expires_at_us,
            label=wish.label,
        )
        made = {"token": told["token"], "kind": wish.kind, "user": wish.user, "label": wish.label, "secret": secret}
        where = {"url": hub["api_url"], "wire_url": hub["url"], "pin": hub["pin"], "next_pin": hub["next_pin"]}
        return answer({**made, "expires_at": rfc3339(expires_at_us), **where}, 201)

    async def revoke(self, request: Request) -> Response:
        """POST /v1/tokens/revoke."""
        wish = await decoded(request, _Revoked)
        if bool(wish.token) == bool(wish.user):
            raise UserError("found both or neither of token and user, accepted is one of them", code="bad_body")
        told = await self._link.command(caller(request), "token_revoke", token=wish.token, user=wish.user)
        return answer({"revoked": [int(number) for number in told["revoked"].split(",") if number]})

    # -- what has happened

    async def events(self, request: Request) -> Response:
        """GET /v1/events."""
        limit = questions.number(request, "limit", 100, 1, PAGE_LIMIT)
        since_us = questions.since_us(request)
        subject = request.query_params.get("subject") or None
        before = _event_at(request.query_params.get("before", ""))
        found = await self._view.ask(
            lambda reader: reader.events(before=before, since_us=since_us, subject=subject, limit=limit)
        )
        following = _cursor(found[-1]) if len(found) == limit else None
        return answer({"events": [_event_shown(event) for event in found], "next": following})

    async def audit(self, request: Request) -> Response:
        """GET /v1/audit."""
        limit = questions.number(request, "limit", 100, 1, PAGE_LIMIT)
        before = questions.number(request, "before", 0, 0, 1 << 62) or None
        since_us = questions.since_us(request)
        user = request.query_params.get("user") or None
        found = await self._view.ask(
            lambda reader: reader.audit(before=before, since_us=since_us, user=user, limit=limit)
        )
        following = found[-1].row if len(found) == limit else None
        return answer({"audit": [_audit_shown(row) for row in found], "next": following})


def _token_shown(token: SaveToken, now_us: int) -> dict[str, Any]:
    return {
        "token": token.token,
        "kind": token.kind,
        "user": token.user,
        "state": "good" if token.is_good(now_us) else "revoked" if token.revoked_at_us else "expired",
        "created_at": rfc3339(token.created_at_us),
        "expires_at": rfc3339(token.expires_at_us),
        "revoked_at": rfc3339(token.revoked_at_us),
        "label": token.label,
    }


def _event_shown(event: SaveEvent) -> dict[str, Any]:
    return {"happened_at": rfc3339(event.at_us), "kind": event.kind, "subject": event.subject, "text": event.text}


def _audit_shown(row: SaveAudit) -> dict[str, Any]:
    origin = row.caller.origin
    return {
        "row": row.row,
        "happened_at": rfc3339(row.at_us),
        "user": row.caller.user or None,
        "role": row.caller.role,
        "origin": str(origin),
        "door": origin.door or None,
        "uid": origin.uid if origin.uid >= 0 else None,
        "pid": origin.pid or None,
        "address": origin.address or None,
        "token": origin.token or None,
        "action": row.action or None,
        "subject": row.subject,
        "before": row.before,
        "after": row.after,
        "is_refused": row.is_refused,
        "why": row.why or None,
        "left_out": row.left_out,
    }


def _cursor(event: SaveEvent) -> str:
    packed = msgspec.msgpack.encode(msgspec.structs.astuple(event))
    return base64.urlsafe_b64encode(packed).decode()


def _event_at(cursor: str) -> SaveEvent | None:
    if not cursor:
        return None
    try:
        packed = base64.urlsafe_b64decode(cursor)
        return SaveEvent(*msgspec.msgpack.decode(packed, type=tuple[Amount, str, str, str]))
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise UserError("`before` is not the `next` of an earlier answer", code="bad_query") from None
