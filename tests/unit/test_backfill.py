"""The parts that policies are made of, without a trace: what runs, who is first, what a head has been promised."""

import pytest

from lanai.core.schedule.conservative import ConservativePlanner
from lanai.core.schedule.easy import Shadow
from lanai.core.schedule.order import Queue, by_estimate, by_submission, by_urgency
from lanai.core.schedule.rigid import RigidJob
from lanai.core.schedule.running import Running
from lanai.core.schedule.timeline import Timeline


def job(seq: int, width: int = 1, estimate: int = 10, submit: int = 0) -> RigidJob:
    return RigidJob(seq=seq, submit=submit, width=width, estimate=estimate)


def test_the_shadow_counts_all_that_ends_at_its_time() -> None:
    running = Running(10)
    for each in (job(1, 3, 20), job(2, 2, 10), job(3, 4, 10)):
        running.start(each, 100)
    assert running.free == 1
    assert running.shadow(2) == (110, 5)
    assert running.shadow(7) == (110, 0)
    assert running.shadow(8) == (120, 2)
    running.end(job(2, 2, 10), 100)
    assert (running.free, running.shadow(7)) == (3, (110, 0))
    assert running.steps() == [(110, 4), (120, 3)]


def test_what_is_wider_than_the_machine_never_fits() -> None:
    running = Running(4)
    running.start(job(1, 4), 0)
    with pytest.raises(ValueError, match="5 is wider than the capacity of 4"):
        running.shadow(5)
    with pytest.raises(ValueError, match="5 is never free"):
        Timeline(4).earliest(0, 5, 1)


def test_a_job_that_runs_beyond_the_shadow_uses_up_what_is_extra() -> None:
    shadow = Shadow(when=50, extra=3)
    assert shadow.admits(job(1, width=9, estimate=10), now=40)
    assert shadow.admits(job(2, width=2, estimate=11), now=40)
    assert not shadow.admits(job(3, width=2, estimate=11), now=40)
    assert (shadow.when, shadow.extra) == (50, 1)


def test_ties_go_by_submission_then_by_seq() -> None:
    jobs = [job(4, estimate=5, submit=2), job(3, estimate=5, submit=2)]
    jobs += [job(2, estimate=9), job(1, estimate=5, submit=3)]
    for rank, order in ((by_submission, [2, 3, 4, 1]), (by_estimate, [3, 4, 1, 2])):
        queue = Queue(rank)
        for each in jobs:
            queue.add(each)
        assert [place[1].seq for place in queue.places] == order
        queue.remove(jobs[1])
        assert [place[1].seq for place in queue.places] == [seq for seq in order if seq != 3]


@pytest.mark.parametrize(
    ("width", "estimate", "waited", "score"),
    [(2, 10, 0, 0.0), (2, 10, 10, 2.0), (3, 10, 20, 24.0), (1, 4, 1, 1 / 64), (1, 0, 1, float("inf"))],
)
def test_urgency_is_the_cube_of_relative_wait_times_width(
    width: int, estimate: int, waited: int, score: float
) -> None:
    assert by_urgency(job(7, width, estimate, submit=100), 100 + waited) == (-score, 100, 7)


def test_a_pass_is_due_at_the_first_reservation_wherever_that_moves() -> None:
    planner = ConservativePlanner(3)
    first, second = job(1, width=2, estimate=10), job(2, width=2, estimate=5)
    planner.arrived(first)
    assert (planner.decide(0), planner.wake()) == ([first], None)
    planner.arrived(second)
    assert (planner.decide(3), planner.wake()) == ([], 10)
    planner.ended(first, 7, 0)
    assert (planner.decide(7), planner.wake()) == ([second], None)
