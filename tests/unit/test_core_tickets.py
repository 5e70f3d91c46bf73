"""The fast path: an end is followed at once, and short jobs never wait for the hub."""

from core_recorder import Recorder, capacity, grant
from lanai.core.effects import ForgetResults, RecallJobs, StartAttempts
from lanai.core.events import NodeHeard, TimePassed
from lanai.core.schedule.tickets import SURPLUS_JOBS, is_pressing, surplus_target
from lanai.model.ids import NodeId
from lanai.model.resources import Shape

LONG_US = 600_000_000


def test_an_end_is_followed_without_a_pass(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(3)
    hub.start()
    hub.end(node, 1, 1, wall_us=LONG_US)
    assert hub.take_all() == [ForgetResults(node, 1), StartAttempts(node, grant(2), batch, 0, 1, ((2, 2),))]
    assert not hub.core.needs_pass


def test_several_ends_are_followed_by_one_grant(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=4))
    batch = hub.submit(9)
    hub.start()
    hub.end(node, 1, 1, 2, 3, wall_us=LONG_US)
    assert hub.take_all() == [ForgetResults(node, 3), StartAttempts(node, grant(2), batch, 0, 1, ((5, 7),))]


def test_short_jobs_are_stacked_at_the_node(hub: Recorder) -> None:
    """Half a second of work waits there, so that the slot is never idle while results travel."""
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(500)
    hub.start()
    hub.end(node, 1, 1, wall_us=50_000)
    _, active, surplus = hub.take_all()
    assert active == StartAttempts(node, grant(2), batch, 0, 1, ((2, 2),))
    assert surplus == StartAttempts(node, grant(3), batch, 0, 1, ((3, 12),))
    assert (hub.node(node).active, hub.node(node).surplus_count) == ({hub.batch(batch).line(0): 1}, 10)


def test_the_surplus_moves_up_when_the_active_ends(hub: Recorder) -> None:
    """Counts at the hub follow the agent's rule: the slot is not thought free while the agent has more."""
    node = hub.join("n", capacity(cpus=1))
    hub.submit(500)
    hub.start()
    hub.end(node, 1, 1, wall_us=50_000)
    hub.take_all()
    hub.end(node, 2, 2, wall_us=50_000)
    assert hub.take_all() == [ForgetResults(node, 2)]
    assert (sum(hub.node(node).active.values()), hub.node(node).surplus_count) == (1, 9)


def test_how_many_may_be_stacked() -> None:
    assert surplus_target(4, 0) == 0, "no run time is known yet"
    assert surplus_target(4, 1_000) == SURPLUS_JOBS
    assert surplus_target(4, 100_000) == 20
    assert surplus_target(1, 1_000_000) == 0
    assert surplus_target(1000, LONG_US) == 0, "an hour of work is not stacked, however many slots there are"


def test_when_a_surplus_cannot_wait_for_a_gathered_commit() -> None:
    assert is_pressing(10, 2, 1_000), "5 ms of work are left"
    assert not is_pressing(250, 2, 1_000), "what is there lasts longer than the gathering"
    assert is_pressing(0, 2, 100_000), "the next end may find nothing"
    assert not is_pressing(0, 2, 1_000_000), "of two jobs of a second hardly one ends within a gathering"
    assert is_pressing(0, 64, 1_000_000), "of 64 several do"


def test_nothing_is_stacked_beyond_the_limit_of_the_batch(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    batch = hub.submit(500, max_running=3)
    hub.start()
    hub.end(node, 1, 1, wall_us=1_000)
    hub.take_all()
    assert hub.counts(batch) == {"queued": 496, "locked": 3, "done": 1}


def test_a_drained_or_troubled_node_is_not_followed_up(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=1))
    hub.submit(5)
    hub.start()
    hub.node(node).trouble = "disk full"
    hub.end(node, 1, 1)
    assert hub.take_all() == [ForgetResults(node, 1)]


def test_a_used_up_ticket_asks_for_a_pass_and_the_line_goes_on(hub: Recorder) -> None:
    """The first ticket's job is too large for the room; the second ticket is used up by this very end.

    It was looked at again and again, each time for no job at all.
    """
    node = hub.join("n", capacity(cpus=2))
    small = hub.submit(9)
    hub.start()
    large = hub.submit(2, user="bob", shape=Shape(cpu_milli=2000))
    hub.decide()
    hub.take_all()
    cell = hub.core.world.cell_of(hub.node(node))
    assert [line.batch for line in cell.tickets] == [large, small]
    cell.tickets[hub.batch(small).line(0)] = 2
    hub.end(node, 1, 1, wall_us=LONG_US)
    assert [type(effect) for effect in hub.take_all()] == [ForgetResults, StartAttempts]
    assert not hub.core.needs_pass
    hub.end(node, 1, 2, wall_us=LONG_US)
    assert [type(effect) for effect in hub.take_all()] == [ForgetResults, StartAttempts]
    assert hub.core.needs_pass


def test_nothing_is_stacked_in_front_of_somebody_whose_turn_it_is(hub: Recorder) -> None:
    """Nothing is known of the newcomer's run time: the next end is to make room for it, and not to find a surplus."""
    node = hub.join("n", capacity(cpus=1))
    one = hub.submit(500)
    hub.start()
    hub.end(node, 1, 1, wall_us=50_000)
    hub.take_all()
    newcomer = hub.submit(3)
    hub.decide()
    assert hub.take_all() == [RecallJobs(node, [(grant(2), 2, 2), (grant(3), 3, 12)])]
    hub.end(node, 2, 2, wall_us=50_000)
    assert hub.take_all() == [ForgetResults(node, 2)], "number 3 moves up; nothing more of its batch comes"
    hub.returned(node, 3, *range(4, 13))
    hub.end(node, 3, 3, wall_us=50_000)
    _, start, surplus = hub.take_all()
    assert start == StartAttempts(node, grant(4), newcomer, 0, 1, ((1, 1),))
    assert surplus == StartAttempts(node, grant(5), one, 0, 1, ((4, 5),)), "the turn after that is the first one's"


def test_room_that_is_left_asks_for_a_pass(hub: Recorder) -> None:
    """The last job of one batch ends beside a long one, the tickets are used up, and another batch has work.

    Nobody asked for a pass until the long job had ended too.
    """
    node = hub.join("n", capacity(cpus=2))
    hub.submit(2)
    hub.start()
    other = hub.submit(1, user="bob")
    hub.decide()
    hub.core.world.cell_of(hub.node(node)).tickets.clear()
    hub.take_all()
    hub.end(node, 1, 1, wall_us=LONG_US)
    assert hub.take_all() == [ForgetResults(node, 1)]
    assert hub.core.needs_pass
    assert [start.batch for start in hub.start()] == [other]


def test_a_surplus_behind_long_jobs_is_asked_back(hub: Recorder) -> None:
    """Twenty short jobs, then an hour-long one with a hundred jobs stacked behind it, while other nodes are idle."""
    node = hub.join("n", capacity(cpus=1))
    hub.submit(500)
    hub.start()
    hub.end(node, 1, 1, wall_us=50_000)
    hub.take_all()
    for _ in range(3):
        hub.now_us += 1_000_000
        beat(hub, node)
    assert hub.take_all() == [RecallJobs(node, [(grant(2), 2, 2), (grant(3), 3, 12)])]


def beat(hub: Recorder, node: NodeId) -> None:
    hub.feed(NodeHeard(node, "", hub.now_us), TimePassed(hub.now_us))
