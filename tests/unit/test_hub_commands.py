"""The verbs of the API process: however much there is to tell, each answer fits a frame.

Retry of an ended batch: read aside, once however many want it, and answered whatever comes of it. Why jobs wait while
the disk is full.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from commands_shell import Shell
from core_recorder import Recorder, capacity
from lanai.core import events as ev
from lanai.core.events import BatchRevived, JobsHeld, JobsRetried
from lanai.hub.commands import RESULT_BYTES, reply
from lanai.model.batch import BatchSettings
from lanai.model.errors import StoreError
from lanai.model.ids import BatchId, ShapeId
from lanai.model.policy import AccountPolicy, Policy
from lanai.model.records import PruneBatch, RecoveredBatch
from lanai.model.resources import Shape
from lanai.store.memory import MemoryStore
from lanai.wire import messages
from lanai.wire.framing import FRAME_BYTES, frame


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


def test_who_wants_an_ended_batch_that_the_core_is_about_to_take_waits_for_that(hub: Recorder) -> None:
    """Read once more, it would come as it was before the first was kept: what was done by then would run again."""
    batch = failed_batch(hub)
    shell = Shell(hub)
    shell.retry(batch)
    shell.aside.pop()()
    assert shell.retry(batch) is None
    assert shell.aside == []
    assert [type(event).__name__ for event in shell.posted] == ["BatchRevived", "JobsRetried", "JobsRetried"]
    hub.feed(*shell.posted)
    hub.take_all()
    for call in shell.afterwards:
        call()
    for start in hub.start():
        hub.end(start.node, start.grant & ((1 << 40) - 1), 1, 2, outcome="exit")
    hub.take_all()
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


def ask(hub: Recorder, verb: str, **arguments: object) -> dict[str, Any]:
    """The answer, which has been put into a frame."""
    asked = msgspec.Raw(msgspec.msgpack.encode(arguments))
    answer = Shell(hub).commands.take(messages.Command(1, "tester", verb, asked))
    assert answer is not None and answer.error is None
    assert len(frame(answer)) < FRAME_BYTES
    found: dict[str, Any] = msgspec.msgpack.decode(answer.result)
    return found


def ask_all(hub: Recorder, verb: str, of: str) -> tuple[list[dict[str, Any]], int]:
    """Everything that a question is answered with, and in how many pieces."""
    said = ask(hub, verb)
    found, pieces = said[of], 1
    while said["next"] is not None:
        said = ask(hub, verb, after=said["next"])
        found += said[of]
        pieces += 1
    return found, pieces


def submissions(count: int) -> list[ev.Event]:
    found: list[ev.Event] = []
    for number in range(1, count + 1):
        batch, shape = BatchId(number), ((ShapeId(0), Shape()),)
        found.append(ev.BatchOpened(number, "ann", "", BatchSettings(), b"d", b"b", 0))
        found.append(ev.ChunkArrived(1, batch, 1, 1, ((1, ShapeId(0)),), shape, b"true", {}))
        found.append(ev.BatchClosed(number, batch, 1, b"d", 0))
    return found


def test_very_many_open_batches_are_told_piece_by_piece(hub: Recorder) -> None:
    """The answer about 15,000 passed what a frame holds, and took the API process its hub."""
    hub.core.handle(hub.now_us, submissions(15_000))
    found, pieces = ask_all(hub, "status", "batches")
    assert [batch["batch"] for batch in found] == list(range(1, 15_001))
    assert pieces > 10


def test_very_many_nodes_are_told_piece_by_piece(hub: Recorder) -> None:
    joined = [
        ev.NodeJoined(n, f"n{n:04}", b"k", "boot", capacity(gpus=8), ("feature",), "ann", 0, "1.0")
        for n in range(1, 1001)
    ]
    hub.core.handle(hub.now_us, joined)
    found, pieces = ask_all(hub, "nodes", "nodes")
    assert [node["name"] for node in found] == [f"n{n:04}" for n in range(1, 1001)]
    assert pieces > 1


@pytest.mark.parametrize("size", [RESULT_BYTES - 5, RESULT_BYTES])
def test_an_answer_that_no_frame_can_hold_is_an_error(size: int) -> None:
    answer = reply(1, b"x" * size)
    frame(answer)
    assert (answer.error is None) == (size < RESULT_BYTES)


def test_while_the_disk_is_full_that_is_why_jobs_wait(hub: Recorder) -> None:
    """The reason of the last pass, that nodes are busy, was told for as long as it lasted."""
    shell = Shell(hub)
    hub.join("n", capacity(cpus=2))
    batch = hub.submit(5)
    hub.start()
    hub.take_all()
    assert shell.why(batch)["code"] != "disk_full"
    shell.is_full = True
    assert shell.why(batch)["code"] == "disk_full"
    hub.feed(JobsHeld(1, batch, None, 0))
    hub.take_all()
    held = shell.why(batch)
    assert held["code"] == "held"
    assert "the hub's disk is full" in str(held["facts"])


def test_the_policy_is_told_and_another_is_posted_whole(hub: Recorder) -> None:
    shell = Shell(hub)
    wish = Policy(depth=3, accounts={"physics": AccountPolicy(weight=2.0)})
    arguments = msgspec.Raw(msgspec.msgpack.encode({"policy": wish}))
    assert shell.commands.take(messages.Command(1, "root", "policy_set", arguments)) is None
    (event,) = shell.posted
    assert isinstance(event, ev.PolicyChanged) and event.policy == wish
    hub.feed(event)
    hub.answer()
    told = shell.commands.take(messages.Command(2, "ann", "policy", msgspec.Raw(b"")))
    assert told is not None and msgspec.msgpack.decode(told.result)["policy"]["depth"] == 3
    seen = shell.commands.take(messages.Command(3, "ann", "shares", msgspec.Raw(b"")))
    assert seen is not None and [row["name"] for row in msgspec.msgpack.decode(seen.result)["shares"]] == ["physics"]


def test_a_policy_is_not_taken_while_the_disk_is_full(hub: Recorder) -> None:
    shell = Shell(hub)
    shell.is_full = True
    answer = shell.commands.take(
        messages.Command(1, "root", "policy_set", msgspec.Raw(msgspec.msgpack.encode({"policy": Policy()})))
    )
    assert answer is not None and answer.error is not None and answer.error.code == "store_full"
    assert shell.posted == []
