"""A starter that says anything at all: the agent lives on, and lets nothing through that its hub could not read."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lanai.agent import events as ev
from lanai.model.ids import grant_id
from lanai.model.job import AttemptResult
from services.lying_starter import Liar

G = grant_id(1, 1)

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, G, 1 << 62, 1 << 63, 1 << 70, -1, 0.5, float("nan"), float("inf")])
    | st.sampled_from(["", "ok", "\udcff"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def mostly(good: Any) -> st.SearchStrategy[Any]:
    """What is meant to be there, and sometimes anything else."""
    return st.one_of(st.just(good), st.just(good), anything)


ROW = [1, G, 1, 1, "ok", 0, None, 5, 5, 5, 5, None, None, [None, ["segment", 1, 0, 5]], None, 0]
rows = st.tuples(*map(mostly, ROW)).map(list)
keys = st.tuples(mostly(G), mostly(1)).map(list)
begun = st.tuples(*map(mostly, [G, 1, 1, 5, 5, 0])).map(list)


def some(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(of | anything, max_size=3) | anything


messages = st.one_of(
    st.fixed_dictionaries({"m": st.just("ended"), "items": some(rows)}, optional={"left": some(keys)}),
    st.fixed_dictionaries({"m": st.just("started"), "items": some(begun)}),
    st.fixed_dictionaries({"m": st.just("recalled"), "returned": some(keys), "begun": some(keys)}),
    st.fixed_dictionaries(
        {"m": st.just("input"), "grant": mostly(G), "index": mostly(1), "taken_bytes": mostly(5)},
        optional={"closed": mostly(False), "missing_from": mostly(3)},
    ),
    st.fixed_dictionaries(
        {"m": st.just("inventory"), "running": some(begun), "waiting": some(begun), "ended": mostly(1)}
    ),
    st.fixed_dictionaries({"m": st.just("data"), "id": mostly(1), "items": some(st.lists(anything, max_size=4))}),
    st.fixed_dictionaries(
        {"m": st.just("hello"), "protocol": mostly(1), "pid": mostly(1), "mark": mostly("m")},
        optional={"features": some(st.just("read"))},
    ),
    st.fixed_dictionaries({"m": st.just("refused"), "protocol": mostly(1), "reason": mostly("no")}),
    st.dictionaries(st.sampled_from(["m", "items"]), anything),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.booleans(), st.booleans(), st.lists(messages, min_size=1, max_size=4))
def test_no_word_of_it_is_more_than_its_own_end(
    is_greeted: bool, is_together: bool, words: list[dict[str, Any]]
) -> None:
    """Whatever comes: events that can be sent on, or the end of this connection."""
    with tempfile.TemporaryDirectory() as directory:
        liar = Liar(Path(directory))
        try:
            if is_greeted:
                liar.say({"m": "hello", "protocol": 1, "pid": 1, "mark": "m"})
                liar.say({"m": "inventory", "running": [], "waiting": [], "ended": 0})
                liar.give(3)
            # Together they are heard together, which is another way than one by one.
            for some in [words] if is_together else [[one] for one in words]:
                for event in liar.say(*some) if liar.port.fileno() >= 0 else []:
                    _can_be_sent(event)
            for taken in liar.port.taken:
                assert all(type(number) is int and 0 <= number < 1 << 62 for number in taken[:3])
        finally:
            liar.close()


def _can_be_sent(event: ev.StarterEvent) -> None:
    match event:
        case ev.AttemptsEnded(results) | ev.StarterUp(ended=results):
            raw = msgspec.msgpack.encode(results)
            assert msgspec.msgpack.decode(raw, type=list[AttemptResult]) == results
        case ev.AttemptsBegan(items):
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(items), type=list[tuple[int, int, int]]) == items
        case _:
            msgspec.msgpack.encode(event)
