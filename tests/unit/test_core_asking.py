"""The queue as people ask for it, and what could start now."""

import pytest

from core_recorder import GIB, SECOND, Recorder, capacity, grant
from lanai.core.asking import Block, QueueAsked, queue
from lanai.core.events import AttemptsStarted, BatchChanged, JobsHeld, NodeHeard
from lanai.core.free import Free, free
from lanai.model.batch import BatchSettings
from lanai.model.errors import NothingThere
from lanai.model.ids import Index
from lanai.model.policy import AccountPolicy, Policy, ServicePolicy
from lanai.model.resources import Shape

LIMITED = Shape(time_limit_us=600 * SECOND)


def free_for(hub: Recorder, shape: Shape) -> Free:
    return free(hub.core.world, "ann", BatchSettings(shape=shape))


def told(block: Block) -> list[tuple[int, tuple[tuple[int, int], ...], str]]:
    return [(row.batch, row.spans, row.code) for row in block.rows]


def test_a_million_jobs_that_wait_alike_are_one_row(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=2))
    batch = hub.submit(1_000_000, user="ann", shape=LIMITED, name="big")
    hub.start()
    found = queue(hub.core.world, QueueAsked())
    assert told(found.running) == [(batch, ((1, 2),), "")]
    (waiting,) = found.eligible.rows
    assert (waiting.spans, waiting.jobs, waiting.place, waiting.code) == (((3, 1_000_000),), 999_998, 1, "no_room")
    assert (waiting.user, waiting.account, waiting.service, waiting.name) == ("ann", "default", "normal", "big")
    assert told(found.blocked) == []
    assert (found.cpu_milli, found.busy_milli, found.nodes, found.busy_nodes) == (2000, 2000, 1, 1)


def test_what_runs_says_since_when_and_how_long_it_may(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    hub.submit(2, shape=LIMITED)
    hub.start()
    world = hub.core.world
    hub.wait(10)
    hub.feed(NodeHeard(node, "", 0), AttemptsStarted(node, [(grant(1), Index(2), world.wall_us - 4 * SECOND)]))
    began, not_known = queue(world, QueueAsked()).running.rows
    assert (began.spans, began.left_us, began.node) == (((2, 2),), 596 * SECOND, "n")
    assert (not_known.spans, not_known.started_at_us, not_known.left_us) == (((1, 1),), 0, 600 * SECOND)


def test_those_who_may_not_run_are_blocked_and_it_says_why(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    held, limited = hub.submit(5), hub.submit(3, max_running=1)
    hub.feed(JobsHeld(1, held, ((4, 5),), 0))
    hub.answer()
    hub.start()
    large = hub.submit(1, shape=Shape(memory_bytes=64 * GIB))
    hub.decide()
    hub.take_all()
    found = queue(hub.core.world, QueueAsked(blocks=("blocked",)))
    assert told(found.blocked) == [
        (held, ((4, 5),), "held"),
        (limited, ((2, 3),), "max_running"),
        (large, ((1, 1),), "too_large"),
    ]
    assert (found.blocked.jobs, found.running.rows, found.running.jobs) == (5, [], 4)
    assert found.blocked.rows[0].reason.endswith(f"; `lanai release {held}` lets it run")
    assert found.blocked.rows[2].shape.memory_bytes == 64 * GIB


def test_a_user_sees_his_own_and_how_much_others_have(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=2))
    anns, bobs = hub.submit(3, user="ann"), hub.submit(5, user="bob")
    hub.start()
    found = queue(hub.core.world, QueueAsked(only="ann"))
    assert [row.batch for row in (*found.running.rows, *found.eligible.rows)] == [anns, anns]
    assert (found.running.jobs, found.running.others, found.eligible.jobs, found.eligible.others) == (1, 1, 2, 4)
    other = queue(hub.core.world, QueueAsked(only="ann", user="bob"))
    assert other.running.rows == other.eligible.rows == []
    both = queue(hub.core.world, QueueAsked(user="bob", node="n"))
    assert told(both.running) == [(bobs, ((1, 1),), "")]


def test_a_job_over_several_nodes_is_on_each_of_them(hub: Recorder) -> None:
    """It was told of its first node only: the others were taken by nobody, and counted as idle."""
    for name in "abc":
        hub.join(name)
    wide = hub.submit(1, shape=Shape(nodes=2, nodes_most=9))
    hub.decide()
    hub.take_all()
    found = queue(hub.core.world, QueueAsked())
    assert (found.nodes, found.busy_nodes) == (3, 3)
    assert [row.shape.nodes for row in found.running.rows] == [3]
    for name in "abc":
        assert told(queue(hub.core.world, QueueAsked(node=name)).running) == [(wide, ((1, 1),), "")]


@pytest.mark.parametrize("name", ["node", "service", "account"])
def test_a_name_that_nothing_has_is_no_empty_queue(hub: Recorder, name: str) -> None:
    """A batch keeps the service and the account that it was given, whatever the policy says now."""
    hub.core.world.policy = Policy(services={"long": ServicePolicy()}, accounts={"chem": AccountPolicy()})
    hub.submit(1, service="long", account="chem")
    hub.core.world.policy = Policy()
    world = hub.core.world
    with pytest.raises(NothingThere, match=f"there is no {name} elsewhere"):
        queue(world, QueueAsked(**{name: "elsewhere"}))
    assert queue(world, QueueAsked(service="long", account="chem")).eligible.jobs == 1
    assert queue(world, QueueAsked(service="normal", account="default")).eligible.others == 1


def test_rows_come_in_pages(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=3))
    batches = [hub.submit(2) for _ in range(4)]
    hub.start()
    world = hub.core.world
    first, second = (queue(world, QueueAsked(skip=skip, most=2)) for skip in (0, 2))
    assert (len(first.running.rows), first.running.more, len(second.running.rows), second.running.more) == (2, 1, 1, 0)
    assert (first.eligible.more, second.eligible.more) == (2, 0)
    assert [row.place for row in second.eligible.rows] == [3, 4]
    in_order = [row.batch for row in (*first.eligible.rows, *second.eligible.rows)]
    # Who has nothing is first; the others by number.
    assert in_order == [batches[3], *batches[:3]]
    assert queue(world, QueueAsked(batch=batches[0])).eligible.jobs == 1


def test_accounts_and_services(hub: Recorder) -> None:
    hub.core.world.policy = Policy(accounts={"chem": AccountPolicy()}, services={"long": ServicePolicy()})
    chemists = hub.submit(1, account="chem", service="long")
    hub.submit(1)
    world = hub.core.world
    assert [row.batch for row in queue(world, QueueAsked(account="chem")).eligible.rows] == [chemists]
    assert [row.batch for row in queue(world, QueueAsked(service="long")).eligible.rows] == [chemists]
    assert queue(world, QueueAsked(service="normal", account="default")).eligible.jobs == 1


def test_asking_changes_nothing(hub: Recorder) -> None:
    """A row of what is held needs its shape: a line must not be made for it."""
    batch = hub.submit(3)
    hub.feed(JobsHeld(1, batch, None, 0))
    hub.answer()
    hub.take_all()
    hub.batch(batch).lines.clear()
    assert told(queue(hub.core.world, QueueAsked()).blocked) == [(batch, ((1, 3),), "held")]
    assert hub.batch(batch).lines == {}
    hub.feed(BatchChanged(1, batch, None, 5, 0))
    hub.answer()
    hub.take_all()


def test_each_node_may_have_parts_of_several_jobs(hub: Recorder) -> None:
    for name in "abc":
        hub.join(name, capacity(cpus=4))
    assert free_for(hub, Shape(cpu_milli=2000, nodes=2)).jobs == 3


def test_free_by_kind_of_node(hub: Recorder) -> None:
    hub.join("small1", capacity(cpus=2))
    hub.join("small2", capacity(cpus=2))
    hub.join("big", capacity(cpus=8, gib=64, gpus=2))
    hub.submit(1, shape=Shape(cpu_milli=2000))
    hub.start()
    found = free_for(hub, Shape(memory_bytes=2 * GIB))
    assert [(room.names, room.nodes, room.roomy, room.jobs, room.free_milli) for room in found.rooms] == [
        (("big",), 1, 1, 8, 8000),
        (("small2",), 2, 1, 2, 2000),
    ]
    assert (found.jobs, found.waiting, found.rooms[0].until_us) == (10, 0, 0)
    assert free_for(hub, Shape(gpu_milli=1000)).jobs == 2
    assert free_for(hub, Shape(nodes=2)).jobs == 2
    assert free_for(hub, Shape(cpu_milli=2000, nodes=2)).jobs == 1
    assert free_for(hub, Shape(features=("ssd",))).rooms == []
    assert BatchSettings().shape == Shape()
