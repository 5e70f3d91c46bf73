"""What the API process asks of the scheduler: however much there is to tell, each answer fits a frame."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from core_recorder import GIB, Recorder, capacity
from lanai.core.events import JobsHeld
from lanai.hub import questions
from lanai.hub.commands import RESULT_BYTES
from lanai.model.batch import BatchSettings
from lanai.model.errors import NothingThere
from lanai.model.ids import BatchId
from lanai.model.resources import Shape


def raw(**arguments: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(arguments))


def length(answer: dict[str, Any]) -> int:
    return len(msgspec.msgpack.encode(answer))


def test_the_longest_queue_fits_a_frame(hub: Recorder) -> None:
    """Each block in a thousand rows, with names and reasons as long as they get, and pieces."""
    hub.join("n" * 64, capacity(cpus=5))
    features = tuple(f"{at:03}{'f' * 20}" for at in range(5))
    (node,) = hub.core.world.nodes.values()
    hub.core.world.unindex(node)
    node.features = features
    hub.core.world.reindex(node)
    for _ in range(5):
        hub.submit(1, name="ü" * 100, user="u" * 64, shape=Shape(features=features))
    hub.start()
    for _ in range(12):
        batch = hub.submit(20, name="ü" * 100, user="u" * 64)
        hub.feed(JobsHeld(1, batch, tuple((at, at) for at in range(1, 21, 2)), 0))
        hub.answer()
        hub.take_all()
    found = questions.queue(hub.core, raw(most=5000))
    rows = len(found["running"].rows) + len(found["eligible"].rows) + len(found["blocked"].rows)
    assert rows == 5 + 12 + 12
    assert length(found) / rows * 3 * questions.ROWS < RESULT_BYTES
    assert all(len(row.spans) == 8 and row.pieces == 10 for row in found["blocked"].rows)


def test_free_and_when(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    asked = msgspec.to_builtins(BatchSettings(shape=Shape(memory_bytes=4 * GIB)))
    assert questions.free(hub.core, "ann", raw(settings=asked))["jobs"] == 2
    assert questions.when(hub.core, "ann", raw(settings=asked))["certainty"] == "now"
    batch = hub.submit(1)
    assert questions.when(hub.core, "ann", raw(batch=batch, index=1))["certainty"] == "now"
    with pytest.raises(NothingThere, match="is not running"):
        questions.when(hub.core, "ann", raw(batch=99))


def test_what_why_says_besides(hub: Recorder) -> None:
    batch = hub.submit(2)
    hub.decide()
    found = questions.prospects(hub.core, batch, None)
    assert found["changes"] == ["a node with 1 cpu could take it"]
    assert (found["when"]["certainty"], found["shapes"]) == ("unknown", [0])
    hub.join("n")
    hub.start()
    assert questions.prospects(hub.core, BatchId(batch), None) == {
        "changes": [],
        "nodes": {},
        "when": None,
        "shapes": [],
    }
