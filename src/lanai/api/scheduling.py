"""The scheduling policy and the share tree: shown to everybody, changed by administrators.

A policy comes as the text of a file and is read here, so that its mistakes are named by their lines; the hub is given
what it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lanai.api.answers import answer
from lanai.api.app import Served, caller
from lanai.api.bodies import decoded
from lanai.api.hublink import HubLink
from lanai.model.access import Action
from lanai.model.policy import DEFAULT_POLICY, Policy
from lanai.model.policy_file import policy_from_toml
from lanai.model.policy_text import policy_shown, policy_to_toml

POLICY_BYTES: Final = 2 << 20
FILE_CHARACTERS: Final = 200


class _Applied(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/policy: the text of a file, and its name for errors."""

    toml: str
    file: str = "policy"


class Scheduling:
    """The handlers, over one link to the hub."""

    def __init__(self, link: HubLink) -> None:
        self._link = link

    def routes(self) -> Sequence[Served]:
        """Each with the action that it is."""
        return [
            Served("GET", "/v1/policy", Action.POLICY_SEE, self.policy),
            Served("POST", "/v1/policy", Action.POLICY_SET, self.apply),
            Served("GET", "/v1/shares", Action.POLICY_SEE, self.shares),
        ]

    async def policy(self, request: Request) -> Response:
        """GET /v1/policy."""
        told = await self._link.command(caller(request), "policy")
        policy = msgspec.convert(told["policy"], Policy)
        told = {"policy": policy_shown(policy), "toml": policy_to_toml(policy), "is_default": policy == DEFAULT_POLICY}
        return answer(told)

    async def apply(self, request: Request) -> Response:
        """POST /v1/policy."""
        wish = await decoded(request, _Applied, POLICY_BYTES)
        policy = policy_from_toml(wish.toml, wish.file[:FILE_CHARACTERS])
        told = await self._link.command(caller(request), "policy_set", policy=policy)
        return answer({"changed": [part for part in told["changed"].split(",") if part]})

    async def shares(self, request: Request) -> Response:
        """GET /v1/shares."""
        told = await self._link.command(caller(request), "shares")
        return answer({"shares": told["shares"], "more": told["more"]})
