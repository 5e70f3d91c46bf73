"""Standard input for a job: a piece is held here until the command's side has taken it.

The hub passes a piece on to the node that has the job, and keeps nothing; where no node has it yet, the piece is
offered again when the batch has moved.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lanai.api.hublink import HubLink
from lanai.api.jobs import Jobs
from lanai.model.errors import Refusal
from lanai.model.ids import Index
from lanai.model.job import FINAL
from lanai.store.reader import BatchRow
from lanai.wire import messages

OFFER_AGAIN_S: Final = 1.0


class Sender:
    """Sends pieces to one job, one after the other."""

    def __init__(
        self,
        link: HubLink,
        jobs: Jobs,
        user: str,
        row: BatchRow,
        index: Index,
        taken: asyncio.Queue[messages.InputTaken],
    ) -> None:
        self._link = link
        self._jobs = jobs
        self._user = user
        self._row = row
        self._index = index
        self._taken = taken

    async def send(self, offset: int, data: bytes, *, is_end: bool) -> int:
        """Send `data`, which begins at `offset`; returns the offset after it, once there is room for more.

        Raises:
            Refusal: nobody reads it any more.
        """
        batch = self._row.batch
        async with self._link.progress.watching(batch):
            while True:
                self._link.send(messages.Input(batch=batch, index=self._index, offset=offset, data=data, is_end=is_end))
                problem = await self._answer(offset + len(data))
                if not problem:
                    return offset + len(data)
                await self._refuse_where_ended(problem)
                await self._link.progress.changed(batch, self._link.progress.version(batch), OFFER_AGAIN_S)

    async def _answer(self, offset: int) -> str:
        """What was wrong; empty once everything before `offset` was taken."""
        while True:
            said = await self._taken.get()
            if said.problem or said.offset >= offset:
                return said.problem

    async def _refuse_where_ended(self, problem: str) -> None:
        job = await self._jobs.one(self._user, self._row, self._index)
        if job["state"] in FINAL or job["state"] == "running":
            raise Refusal(problem, code="input_refused", facts={"state": job["state"]})
