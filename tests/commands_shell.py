"""What the verbs of the API process need around them, for tests that look at each step."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from core_recorder import Recorder
from lanai.core.events import Event
from lanai.hub.commands import Commands
from lanai.hub.revivals import Revival
from lanai.model.errors import ErrorBody
from lanai.model.ids import BatchId
from lanai.wire import messages


class Shell:
    """What commands need around them; what is to be done aside waits until the test does it."""

    def __init__(self, recorder: Recorder) -> None:
        self.posted: list[Event] = []
        self.answered: list[tuple[int, str]] = []
        self.aside: list[Callable[[], None]] = []
        self.apart: list[tuple[messages.Command, Callable[[], bytes]]] = []
        self.afterwards: list[Callable[[], None]] = []
        self._numbers = 0
        self.is_full = False
        self.commands = Commands(
            recorder.core,
            recorder.store,
            post=self.posted.append,
            apart=self._ask_copy,
            aside=self._aside,
            afterwards=self.afterwards.append,
            answer=self._answer,
            expect=self._expect,
            facts=dict,
            stop=lambda now: None,
            end=lambda: None,
            is_full=lambda: self.is_full,
        )

    def retry(self, batch: BatchId) -> messages.Reply | None:
        arguments = msgspec.Raw(msgspec.msgpack.encode({"batch": batch, "states": ["failed"]}))
        return self.commands.take(messages.Command(1, "ann", "retry", arguments))

    def why(self, batch: BatchId) -> dict[str, object]:
        arguments = msgspec.Raw(msgspec.msgpack.encode({"batch": batch}))
        answer = self.commands.take(messages.Command(1, "ann", "why", arguments))
        assert answer is not None and answer.error is None
        told: dict[str, object] = msgspec.msgpack.decode(answer.result)
        return told

    def _aside(self, work: Callable[[], Revival], then: Callable[[Revival], None]) -> None:
        self.aside.append(lambda: then(work()))

    def _ask_copy(self, command: messages.Command, work: Callable[[], bytes]) -> None:
        self.apart.append((command, work))

    def _answer(self, request: int, error: ErrorBody) -> None:
        self.answered.append((request, error.code))

    def _expect(self, command: messages.Command) -> int:
        self._numbers += 1
        return self._numbers
