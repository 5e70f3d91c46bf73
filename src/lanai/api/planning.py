"""A dry run of the scheduler: what its next pass would do, under the policy in force or under one that is tried.

Nothing is started or changed. A user is told of his own jobs, and how many of others' would start; whoever may see
everybody's batches is told of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lanai.api import questions
from lanai.api.answers import answer, rfc3339
from lanai.api.app import Served, caller, only_of
from lanai.api.asking import ROWS, block_shown, jobs_named, shape_shown
from lanai.api.bodies import decoded
from lanai.api.hublink import HubLink
from lanai.api.scheduling import FILE_CHARACTERS, POLICY_BYTES
from lanai.model.access import Action
from lanai.model.errors import UserError
from lanai.model.policy import Policy
from lanai.model.policy_file import policy_from_toml
from lanai.model.resources import Shape

MOST: Final = 100


class _Tried(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/plan: the text of a policy file, its name for errors, and rows of what is blocked."""

    toml: str
    file: str = "policy"
    most: int = MOST


class Planning:
    """The handlers, over the link to the hub."""

    def __init__(self, link: HubLink) -> None:
        self._link = link

    def routes(self) -> Sequence[Served]:
        """Each with the action that it is."""
        return [
            Served("GET", "/v1/plan", Action.BATCH_SEE, self.plan),
            Served("POST", "/v1/plan", Action.BATCH_SEE, self.tried),
        ]

    async def plan(self, request: Request) -> Response:
        """GET /v1/plan: under the policy in force."""
        return await self._rehearsed(request, None, questions.number(request, "most", MOST, 0, ROWS))

    async def tried(self, request: Request) -> Response:
        """POST /v1/plan: under the policy of a file."""
        wish = await decoded(request, _Tried, POLICY_BYTES)
        if not 0 <= wish.most <= ROWS:
            raise UserError(f"found most={wish.most}, accepted is 0 to {ROWS}", code="bad_query")
        return await self._rehearsed(request, policy_from_toml(wish.toml, wish.file[:FILE_CHARACTERS]), wish.most)

    async def _rehearsed(self, request: Request, policy: Policy | None, most: int) -> Response:
        only = only_of(request) or ""
        said = await self._link.command(caller(request), "plan", policy=policy, only=only, most=most)
        shown = {
            "starts": [_start_shown(start) for start in said.pop("starts")],
            "promises": [_promise_shown(promise) for promise in said.pop("promises")],
            "blocked": block_shown(said.pop("blocked"), "blocked"),
        }
        return answer({**shown, **said})


def _start_shown(start: Mapping[str, Any]) -> dict[str, Any]:
    job, ranges, is_cut = jobs_named(start)
    named = {"job": job, "batch": start["batch"], "ranges": ranges, "is_cut": is_cut, "jobs": start["jobs"]}
    # A job over several nodes is on all of them.
    return {**named, **_owned(start), "on": list(start["nodes"]), "until": rfc3339(start["until_us"])}


def _promise_shown(promise: Mapping[str, Any]) -> dict[str, Any]:
    job = f"{promise['batch']}/{promise['index']}"
    named = {"job": job, "batch": promise["batch"], **_owned(promise)}
    return {**named, "on": list(promise["nodes"]), "starts_at": rfc3339(promise["at_us"])}


def _owned(row: Mapping[str, Any]) -> dict[str, Any]:
    shape = shape_shown({**msgspec.to_builtins(Shape()), **row["shape"]})
    return {**{name: row[name] for name in ("user", "account", "service", "name")}, **shape}
