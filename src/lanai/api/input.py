"""Standard input for a job: a piece is held here until the command's side has taken it.

The hub passes a piece on to the node that has the job, and keeps nothing. It is offered again where it may have been
lost (the node's connection ended) or nobody could take it (no node has the job yet), and when the batch has moved. The
starter takes each byte once, so an offer too many does no harm.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Final

from lanai.api.hublink import HubLink
from lanai.api.jobs import Jobs
from lanai.model.access import Action, Caller
from lanai.model.errors import Refusal
from lanai.model.ids import Index
from lanai.model.job import FINAL
from lanai.model.records import Facts
from lanai.store.reader import BatchRow
from lanai.wire import messages
from lanai.wire.messages import InputState

GIVERS_KEPT: Final = 10_000
OFFER_AGAIN_S: Final = 1.0
ANSWER_WITHIN_S: Final = 20.0
"""Less than clients wait for an answer; so a connection that died unnoticed keeps nobody for ever."""


class Sender:
    """Sends pieces of one attempt's input, one after the other.

    Args:
        attempt: the only one that it is for; 0 is whichever there is.

    Attributes:
        offset: how much of the input has been taken.
    """

    def __init__(
        self,
        link: HubLink,
        jobs: Jobs,
        caller: Caller,
        row: BatchRow,
        index: Index,
        taken: asyncio.Queue[messages.InputTaken],
        *,
        attempt: int,
        offset: int,
    ) -> None:
        self.offset = offset
        self._link = link
        self._jobs = jobs
        self._caller = caller
        self._row = row
        self._index = index
        self._taken = taken
        self._attempt = attempt
        self._ends_s = time.monotonic() + ANSWER_WITHIN_S

    async def send(self, data: bytes, *, is_end: bool = False) -> bool:
        """Send `data`, which begins at `offset`; returns whether all of it was taken, and the end if it is that.

        False where `ANSWER_WITHIN_S` have passed since the beginning; `offset` says how far it is.

        Raises:
            Refusal: nobody reads it any more, or (`input_missing`) what comes before it has not arrived.
        """
        piece = messages.Input(self._row.batch, self._index, self.offset, data, is_end, self._attempt)
        async with self._link.progress.watching(piece.batch):
            while time.monotonic() < self._ends_s:
                self._link.send(piece)
                if await self._is_taken(piece):
                    return True
                await self._refuse_where_over()
        return False

    async def _is_taken(self, piece: messages.Input) -> bool:
        """Whether it was; False where that cannot be said, and it is worth to be offered again."""
        progress = self._link.progress
        version = progress.version(piece.batch)
        goal = piece.offset + len(piece.data)
        while time.monotonic() < self._ends_s:
            said = await self._said()
            if said is None:
                if progress.version(piece.batch) != version:
                    return False
                continue
            if _is_all(said, piece, goal):
                self.offset = goal
                return True
            if said.state is InputState.WAITING:
                await progress.changed(piece.batch, version, OFFER_AGAIN_S)
                return False
            self._refuse(said)
            self.offset = max(self.offset, said.offset)
        return False

    async def _said(self) -> messages.InputTaken | None:
        """The next word about this attempt; None where there was none for a while."""
        try:
            async with asyncio.timeout(OFFER_AGAIN_S):
                while True:
                    said = await self._taken.get()
                    if self._attempt in (0, said.attempt):
                        return said
        except TimeoutError:
            return None

    def _refuse(self, said: messages.InputTaken) -> None:
        if said.state is InputState.MISSING:
            raise Refusal(said.problem, code="input_missing", facts={"offset": said.offset})
        if said.problem:
            raise Refusal(said.problem, code="input_refused", facts={"offset": said.offset})

    async def _refuse_where_over(self) -> None:
        job = await self._jobs.one(self._caller, self._row, self._index)
        if job["state"] in FINAL:
            raise Refusal("the job has ended", code="input_refused", facts={"state": job["state"]})
        if 0 < self._attempt < job["attempts"]:
            raise Refusal(f"attempt {self._attempt} has ended", code="input_refused", facts={"state": job["state"]})


class Givers:
    """Notes once who gives input to which job, however many pieces it comes in."""

    def __init__(self, link: HubLink) -> None:
        self._link = link
        self._noted: OrderedDict[tuple[str, int, int, int], None] = OrderedDict()

    def note(self, caller: Caller, batch: int, index: int, attempt: int) -> None:
        """He does, for this attempt."""
        who = caller.user, batch, index, attempt
        if who not in self._noted:
            after: Facts = {"attempt": attempt} if attempt else {}
            self._link.note(caller, Action.INPUT_WRITE, f"job {batch}/{index}", after, False, "", 0)
        self._noted[who] = None
        self._noted.move_to_end(who)
        if len(self._noted) > GIVERS_KEPT:
            self._noted.popitem(last=False)


def _is_all(said: messages.InputTaken, piece: messages.Input, goal: int) -> bool:
    if said.state not in (InputState.OPEN, InputState.CLOSED) or said.offset < goal:
        return False
    return said.state is InputState.CLOSED or not piece.is_end
