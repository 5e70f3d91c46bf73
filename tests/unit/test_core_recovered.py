"""Why jobs wait, and since when, is not another thing because the hub was started anew."""

from core_recorder import SECOND, Recorder, capacity, grant
from lanai.core.events import BatchRevived, JobsCancelled, JobsRetried, NodeHeard, NodeTookStock
from lanai.model.ids import Index
from lanai.model.records import SaveReason
from lanai.model.resources import Shape

HOUR = Shape(time_limit_us=3600 * SECOND)


def busy(hub: Recorder) -> None:
    """A node with a job, and a batch with one more that waits, since a minute ago."""
    hub.join("n", capacity(cpus=1))
    hub.submit(2, shape=HOUR)
    hub.start()
    hub.now_us += 60 * SECOND
    hub.take_kept(SaveReason)


def come_back(hub: Recorder) -> None:
    """The node joins, and still has what it had."""
    hub.hello("n", capacity(cpus=1))
    hub.feed(NodeTookStock(hub.core.world.names["n"], [(grant(1), Index(1), "running")]))
    hub.decide()
    hub.take_all()


def since(hub: Recorder) -> tuple[object, object]:
    said = hub.core.why(hub.core.world.last_batch, None)
    assert said is not None
    return said["code"], said["since_us"]


def test_a_reason_that_is_the_same_after_a_start_has_been_so_since_before(hub: Recorder) -> None:
    busy(hub)
    before = since(hub)
    assert before == ("no_room", hub.now_us - 60 * SECOND)
    hub.restart()
    assert since(hub) == before
    hub.decide()
    assert since(hub) == before, "the node is not back yet, but has not been given up"
    come_back(hub)
    assert since(hub) == before
    assert hub.take_kept(SaveReason) == []


def test_what_is_said_meanwhile_is_that_the_node_is_not_back(hub: Recorder) -> None:
    busy(hub)
    hub.restart()
    hub.decide()
    said = hub.core.why(hub.core.world.last_batch, None)
    assert said is not None
    assert said["verdict"] == "needs 1 cpu; 1 of 1 nodes that are large enough are away"


def test_a_node_that_does_not_come_back_is_why_they_wait_then(hub: Recorder) -> None:
    busy(hub)
    hub.restart()
    hub.decide()
    hub.wait(15)
    assert not hub.core.needs_pass
    hub.wait(1)
    hub.decide()
    assert since(hub) == ("no_open_node", hub.now_us)
    (kept,) = hub.take_kept(SaveReason)
    assert (kept.code, kept.since_us) == ("no_open_node", hub.now_us)
    come_back(hub)
    assert since(hub) == ("no_room", hub.now_us)


def test_a_reason_that_a_start_changes_is_kept_with_its_time(hub: Recorder) -> None:
    """The node is drained when it is back: that is another reason, from then on."""
    busy(hub)
    hub.restart()
    hub.core.world.nodes[hub.core.world.names["n"]].is_drained = True
    hub.decide()
    assert since(hub) == ("no_open_node", hub.now_us)
    come_back(hub)
    assert [kept.code for kept in hub.take_kept(SaveReason)] == ["no_open_node"]


def test_a_reason_of_a_line_of_which_nothing_waits_is_taken_away(hub: Recorder) -> None:
    """The hub was killed after the last of its jobs was taken and before the pass that would have said so."""
    busy(hub)
    batch = hub.core.world.last_batch
    hub.feed(JobsCancelled(1, batch, ((2, 2),), (), 0))
    hub.answer()
    hub.restart()
    hub.decide()
    assert [(kept.code, kept.since_us) for kept in hub.take_kept(SaveReason)] == [("", hub.now_us)]
    assert hub.store.kept.reasons == {}


def test_a_revived_batch_begins_to_wait_anew(hub: Recorder) -> None:
    batch = hub.submit(1)
    hub.decide()
    hub.feed(JobsCancelled(1, batch, None, (), 0))
    hub.take_all()
    hub.wait(60)
    found = hub.store.recover_batch(batch)
    assert found is not None and found.reasons
    hub.feed(BatchRevived(found), JobsRetried(1, batch, None, (), 0))
    hub.answer()
    hub.decide()
    assert since(hub) == ("no_node", hub.now_us)


def test_how_long_jobs_ran_is_known_after_a_start(hub: Recorder) -> None:
    """What is left of their line is expected to take as long; the surplus goes by that, and what is predicted."""
    node = hub.join("n", capacity(cpus=2))
    batch = hub.submit(9, user="ann", shapes=((8, Shape()), (1, Shape(memory_bytes=1 << 30))))
    hub.start()
    hub.end(node, 1, 1, wall_us=10 * SECOND)
    hub.end(node, 1, 2, wall_us=20 * SECOND)
    hub.take_all()
    (line, *_), world = hub.batch(batch).lines.values(), hub.core.world
    before = line.mean_run_us, hub.batch(batch).mean_run_us(), list(world.last_runs["ann"])
    assert before == (15 * SECOND, 15 * SECOND, [10 * SECOND, 20 * SECOND])
    hub.restart()
    (line, other), world = hub.batch(batch).lines.values(), hub.core.world
    assert before == (line.mean_run_us, hub.batch(batch).mean_run_us(), list(world.last_runs["ann"]))
    assert other.mean_run_us == 0


def test_where_a_command_was_not_found_it_is_not_tried_again_after_a_start(hub: Recorder) -> None:
    """It has one more try, on another node; a start used to send it to the same one, where it failed for good."""
    bad = hub.join("bad", capacity(cpus=1))
    hub.join("good", capacity(cpus=1))
    batch = hub.submit(2, shape=HOUR)
    hub.start()
    (number,) = [grant_id & 0xFF for grant_id, each in hub.core.world.grants.items() if each.node.id == bad]
    (index,) = next(each.members for each in hub.core.world.grants.values() if each.node.id == bad)
    hub.end(bad, number, index, outcome="notfound")
    hub.decide()
    hub.take_all()
    assert [line.not_on for line in hub.batch(batch).lines.values() if line.waiting] == [bad]
    hub.restart()
    assert [line.not_on for line in hub.batch(batch).lines.values() if line.waiting] == [bad]
    hub.join("bad", capacity(cpus=1))
    assert hub.start() == []


def test_a_node_that_a_batch_avoids_is_avoided_by_it_after_a_start(hub: Recorder) -> None:
    """Also where it is the first to come back: the others are about to."""
    bad = hub.join("bad", capacity(cpus=1))
    hub.join("good", capacity(cpus=1))
    batch = hub.submit(3, shape=HOUR)
    hub.batch(batch).avoided.add(bad)
    hub.store.commit([hub.batch(batch).standing()])
    hub.start()
    hub.restart()
    hub.join("bad", capacity(cpus=1))
    assert hub.start() == [] and hub.batch(batch).avoided == {bad}
    hub.wait(16)
    hub.feed(NodeHeard(bad, "", hub.now_us))
    assert [start.node for start in hub.start()] == [bad], "the other one does not come back"
