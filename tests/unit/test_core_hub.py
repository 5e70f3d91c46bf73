"""The door of the core."""

from core_recorder import SECOND, Recorder, capacity
from lanai.core import events
from lanai.core.effects import BatchMoved
from lanai.core.events import JobsHeld, NodeWished, TailArrived, TimePassed
from lanai.core.hub import _HANDLERS
from lanai.model.records import SaveProgress, SaveTail


def test_every_event_has_its_handler() -> None:
    kinds = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event
    }
    assert kinds == set(_HANDLERS)


def test_progress_is_kept_once_a_second_and_only_of_what_moved(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=1))
    hub.submit(2)
    hub.take_kept(SaveProgress)
    hub.start()
    hub.wait(1)
    assert len(hub.take_kept(SaveProgress)) == 1
    hub.wait(5)
    assert hub.take_kept(SaveProgress) == []


def test_a_tail_is_kept_and_decides_nothing(hub: Recorder) -> None:
    tail = SaveTail(1, 2, 3, False, b"out", b"err", 3, 3)
    hub.feed(TailArrived(tail))
    assert hub.take_kept(SaveTail) == [tail]


def test_where_a_batch_stands(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(4)
    hub.start()
    hub.end(node, 1, 1, wall_us=3 * SECOND)
    hub.take_all()
    standing = hub.core.standing(batch)
    assert standing is not None
    assert (standing.state, standing.mean_run_us, standing.slots) == ("open", 3 * SECOND, 2)
    assert hub.core.standing(99) is None  # type: ignore[arg-type]


def test_a_batch_of_which_all_that_is_left_is_held_shows_as_held(hub: Recorder) -> None:
    batch = hub.submit(2)
    hub.feed(JobsHeld(1, batch, None, 0))
    hub.answer()
    standing = hub.core.standing(batch)
    assert standing is not None and standing.state == "held"


def test_nodes_by_name_without_those_removed(hub: Recorder) -> None:
    for name in ("b", "c", "a"):
        hub.join(name)
    hub.feed(NodeWished(1, "c", "remove", 0))
    hub.take_all()
    hub.now_us += 2 * SECOND
    assert [(node.name, node.seen_s) for node in hub.core.nodes(hub.now_us)] == [("a", 2.0), ("b", 2.0)]


def test_watchers_are_told_of_every_move(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=1))
    batch = hub.submit(1)
    before = hub.batch(batch).version
    hub.decide()
    assert hub.batch(batch).version > before
    assert BatchMoved(batch) in hub.effects
    hub.take_all()


def test_the_next_moment_something_is_due(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    hub.submit(1)
    hub.start()
    assert hub.core.next_due_us() is None
    hub.end(node, 1, 1, outcome="node")
    hub.take_all()
    assert hub.core.next_due_us() == hub.now_us + 200_000
    hub.now_us += 200_000
    hub.feed(TimePassed(hub.now_us))
    assert hub.core.next_due_us() is None
    assert hub.core.needs_pass


def test_a_call_returns_what_it_came_to_and_nothing_older(hub: Recorder) -> None:
    hub.submit(1)
    decision = hub.core.handle(hub.now_us, [])
    assert (decision.records, decision.effects) == ([], [])
