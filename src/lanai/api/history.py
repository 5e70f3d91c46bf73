"""What a hub has to tell of its past: jobs that have ended, as a replay of them needs them.

Everything comes from the store, a page at a time; the hub is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from lanai.api import questions
from lanai.api.answers import answer, rfc3339, seconds
from lanai.api.app import Served, only_of, require_owner
from lanai.api.view import View
from lanai.model.access import Action
from lanai.store.history import Asked, PastJob

PAGE_LIMIT: Final = 10_000


class History:
    """Questions about the past."""

    def __init__(self, view: View) -> None:
        self._view = view

    def routes(self) -> Sequence[Served]:
        """Each with the action that it is."""
        return [Served("GET", "/v1/history", Action.BATCH_SEE, self.history)]

    async def history(self, request: Request) -> Response:
        """GET /v1/history."""
        user = request.query_params.get("user") or None
        if user is not None:
            require_owner(request, user, "that history")
        batch, index = (questions.number(request, name, 0, 0, 1 << 62) for name in ("after", "index"))
        asked = Asked(
            after=(batch, index),
            since_us=questions.since_us(request),
            user=user or only_of(request),
            limit=questions.number(request, "limit", 1000, 1, PAGE_LIMIT),
        )
        page = await self._view.ask(lambda reader: reader.history(asked))
        following = None if page.following is None else {"after": page.following[0], "index": page.following[1]}
        shown = {"jobs": [_shown(job) for job in page.jobs], "never_started": page.never_started, "next": following}
        return answer(shown)


def _shown(job: PastJob) -> dict[str, Any]:
    shape = job.shape
    return {
        "id": f"{job.of.batch}/{job.index}",
        "batch": job.of.batch,
        "index": job.index,
        "state": job.state,
        "user": job.of.user,
        "account": job.of.account or None,
        "service": job.of.service or None,
        "submitted_at": rfc3339(job.of.submitted_at_us),
        "started_at": rfc3339(job.started_at_us),
        "wall_s": seconds(job.wall_us),
        "cpu_s": seconds(job.cpu_us),
        "memory_peak_bytes": job.memory_peak_bytes,
        "node": job.node or None,
        "nodes": shape.nodes,
        "cpu_milli": shape.cpu_milli,
        "memory_bytes": shape.memory_bytes,
        "time_limit_s": seconds(shape.time_limit_us) or None,
    }
