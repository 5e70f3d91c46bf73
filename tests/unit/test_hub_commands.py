"""Retry of an ended batch: read aside, once however many want it, and answered whatever comes of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from core_recorder import Recorder, capacity
from lanai.core.events import BatchRevived, Event, JobsRetried
from lanai.hub.commands import Commands, Revival
from lanai.model.errors import ErrorBody, StoreError
from lanai.model.ids import BatchId
from lanai.model.records import PruneBatch, RecoveredBatch
from lanai.store.memory import MemoryStore
from lanai.wire import messages


class Shell:
    """What commands need around them; what is to be done aside waits until the test does it."""

    def __init__(self, recorder: Recorder) -> None:
        self.posted: list[Event] = []
        self.answered: list[tuple[int, str]] = []
        self.aside: list[Callable[[], None]] = []
        self._numbers = 0
        self.commands = Commands(
            recorder.core,
            recorder.store,
            post=self.posted.append,
            aside=self._aside,
            answer=self._answer,
            expect=self._expect,
            facts=dict,
            stop=lambda now: None,
            is_full=lambda: False,
        )

    def retry(self, batch: BatchId) -> messages.Reply | None:
        arguments = msgspec.Raw(msgspec.msgpack.encode({"batch": batch, "states": ["failed"]}))
        return self.commands.take(messages.Command(1, "ann", "retry", arguments))

    def _aside(self, work: Callable[[], Revival], then: Callable[[Revival], None]) -> None:
        self.aside.append(lambda: then(work()))

    def _answer(self, request: int, error: ErrorBody) -> None:
        self.answered.append((request, error.code))

    def _expect(self, command: messages.Command) -> int:
        self._numbers += 1
        return self._numbers


def failed_batch(hub: Recorder) -> BatchId:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(2)
    hub.start()
    hub.end(node, 1, 1, 2, outcome="exit")
    hub.take_all()
    return batch


def test_an_ended_batch_is_read_aside_and_once_for_all_who_want_it(hub: Recorder) -> None:
    """Two who read it at a time could revive it, see it end, and revive it again by what was read before."""
    batch = failed_batch(hub)
    shell = Shell(hub)
    assert shell.retry(batch) is None
    assert shell.retry(batch) is None
    assert shell.posted == []
    (read,) = shell.aside
    read()
    assert [type(event) for event in shell.posted] == [BatchRevived, JobsRetried, JobsRetried]
    hub.feed(*shell.posted)
    hub.take_all()
    assert hub.counts(batch) == {"queued": 2}
    assert [(start.spans, start.attempt) for start in hub.start()] == [(((1, 2),), 2)]
    assert shell.retry(batch) is None
    assert len(shell.aside) == 1


def test_a_batch_that_went_while_it_was_to_be_read_is_answered_so(hub: Recorder) -> None:
    batch = failed_batch(hub)
    shell = Shell(hub)
    assert shell.retry(batch) is None
    hub.store.commit([PruneBatch(batch)])
    shell.aside.pop()()
    assert (shell.posted, shell.answered) == ([], [(1, "no_such_batch")])
    reply = shell.retry(batch)
    assert reply is not None and reply.error is not None
    assert reply.error.code == "no_such_batch"


def test_a_store_that_cannot_read_is_answered_so(hub: Recorder) -> None:
    class Unreadable(MemoryStore):
        def recover_batch(self, batch: BatchId) -> RecoveredBatch | None:
            raise StoreError("cannot read")

    batch = failed_batch(hub)
    store = Unreadable()
    store.kept = hub.store.kept
    hub.store = store
    shell = Shell(hub)
    assert shell.retry(batch) is None
    shell.aside.pop()()
    assert (shell.posted, shell.answered) == ([], [(1, "store_error")])
