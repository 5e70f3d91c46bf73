"""What a hub that has been started anew knows of attempts that an earlier process of it has granted."""

from core_recorder import SECOND, Recorder, capacity, grant
from lanai.core.events import AttemptsStarted, NodeTookStock
from lanai.core.schedule.forecast import earliest_of_job
from lanai.core.schedule.future import ends_of
from lanai.model.ids import Index
from lanai.model.resources import Shape

TEN_MINUTES = Shape(time_limit_us=600 * SECOND)


def test_what_runs_has_run_since_it_began_and_not_since_the_hub_was_started(hub: Recorder) -> None:
    """The node says it again after its inventory; else every forecast after a restart would be too late."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(2, shape=TEN_MINUTES)
    hub.start()
    began_us = hub.now_us
    began = AttemptsStarted(node, [(grant(1), Index(1), began_us)])
    hub.feed(began)
    hub.now_us += 30 * SECOND
    hub.restart()
    hub.hello("n", capacity(cpus=1))
    hub.feed(NodeTookStock(node, [(grant(1), Index(1), "running")]))
    assert ends_of(hub.core.world, hub.node(node))[0][0] > began_us + 600 * SECOND, "not known yet"
    hub.feed(began)
    hub.feed(began)
    hub.decide()
    hub.take_all()
    assert hub.counts(batch) == {"queued": 1, "running": 1}
    (adopted,) = hub.core.world.grants.values()
    assert adopted.started == {1: began_us}
    assert [end_us for end_us, _ in ends_of(hub.core.world, hub.node(node))] == [began_us + 600 * SECOND]
    assert earliest_of_job(hub.core.world, hub.batch(batch), None).at_us == began_us + 600 * SECOND
