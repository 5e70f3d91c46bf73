"""Start dates: nothing of a batch starts before its own, also where the hub was down meanwhile."""

from core_recorder import SECOND, Recorder, capacity
from lanai.core.events import TimePassed
from lanai.model.ids import BatchId
from lanai.model.moments import format_moment


def reason(hub: Recorder, batch: BatchId) -> tuple[object, object]:
    why = hub.core.why(batch, None)
    assert why is not None
    return why["code"], why["verdict"]


def test_nothing_starts_before_the_date(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    at_us = hub.now_us + 5 * SECOND
    later, now = hub.submit(2, start_after_us=at_us), hub.submit(1)
    assert [start.batch for start in hub.start()] == [now]
    assert reason(hub, later) == ("date", f"none of its jobs is to start before {format_moment(at_us)}")
    hub.wait(4)
    assert not hub.core.needs_pass
    hub.wait(1)
    assert [start.batch for start in hub.start()] == [later]


def test_the_hub_is_woken_then(hub: Recorder) -> None:
    """The clock on the wall is behind the core's own by what it was when it was looked at last."""
    hub.submit(1, start_after_us=hub.now_us + 3 * SECOND // 2)
    assert hub.core.next_due_us() == hub.now_us + 3 * SECOND // 2
    hub.now_us += SECOND
    hub.feed(TimePassed(hub.now_us - SECOND // 4))
    assert hub.core.next_due_us() == hub.now_us + 3 * SECOND // 4


def test_the_fast_path_keeps_to_it(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    now = hub.submit(1)
    hub.start()
    later = hub.submit(3, start_after_us=hub.now_us + 60 * SECOND)
    hub.decide()
    hub.end(node, 1, 1)
    hub.decide()
    assert now not in hub.core.world.batches
    assert hub.counts(later) == {"queued": 3}
    hub.take_all()


def test_a_date_outlives_the_hub(hub: Recorder) -> None:
    later = hub.submit(1, start_after_us=hub.now_us + 5 * SECOND)
    over = hub.submit(1, start_after_us=hub.now_us + 2 * SECOND)
    hub.now_us += 3 * SECOND
    hub.restart()
    hub.join("n", capacity(cpus=4))
    assert [start.batch for start in hub.start()] == [over]
    assert reason(hub, later)[0] == "date"
    hub.wait(2)
    assert [start.batch for start in hub.start()] == [later]


def test_a_date_that_is_over_is_none(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=1))
    batch = hub.submit(1, start_after_us=hub.now_us)
    assert [start.batch for start in hub.start()] == [batch]
    assert hub.core.next_due_us() is None
