"""Slots are shared evenly for as long as batches want them, however long their jobs run: the core against one node.

The node here is what an agent is to the hub: it starts the first that fits of the list that it was given, and gives
back what has not begun. Time is virtual; a pass is made when one is wanted and the last is 100 ms ago.
"""

from __future__ import annotations

from collections import Counter, deque
from heapq import heappop, heappush

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.effects import RecallJobs, StartAttempts
from lanai.core.schedule.lines import SURPLUS_US
from lanai.model.ids import BatchId, GrantId, Index, NodeId
from lanai.model.job import AttemptResult
from lanai.model.resources import Shape

MS = 1000
PASS_US = 100 * MS
DELAY_US = 2 * MS
"""From a decision to the node that learns of it."""


def run_time_us(mean_us: int, index: int) -> int:
    """Between 0.8 and 1.2 of the mean, so that ends do not fall together."""
    return mean_us * (80 + index * 17 % 41) // 100


class Clockwork:
    """A hub's core and one node of so many slots; `runs_us` says how long each batch's jobs run, about."""

    def __init__(self, hub: Recorder, slots: int) -> None:
        self.hub = hub
        self.slots = slots
        self.node: NodeId = hub.join("n", capacity(cpus=slots))
        self.runs_us: dict[BatchId, int] = {}
        self.used_us: Counter[BatchId] = Counter()
        self.first_us: dict[BatchId, int] = {}
        self._list: deque[tuple[GrantId, Index, BatchId]] = deque()
        self._at_work: list[tuple[int, GrantId, Index, BatchId]] = []
        self._mail: list[tuple[int, int, StartAttempts | RecallJobs]] = []
        self._sent = 0
        self._spooled = 0
        self._passed_us = 0

    def submit(self, jobs: int, run_us: int, *, user: str = "ann", **settings: object) -> BatchId:
        """Jobs that run for so long each."""
        batch = self.hub.submit(jobs, user=user, **settings)
        self.runs_us[batch] = run_us
        return batch

    def run(self, seconds: float) -> Counter[BatchId]:
        """Go on for so long; returns the slot time that each batch has had, in microseconds."""
        until_us = self.hub.now_us + round(seconds * SECOND)
        before = Counter(self.used_us)
        self._post()
        while True:
            due_us = min(
                self._at_work[0][0] if self._at_work else until_us,
                self._mail[0][0] if self._mail else until_us,
                self._passed_us + PASS_US if self.hub.core.needs_pass else until_us,
                until_us,
            )
            self._pass_time(max(due_us, self.hub.now_us))
            if due_us >= until_us:
                return self.used_us - before
            self._deliver()
            self._end_what_is_over()
            self._begin_what_fits()
            if self.hub.core.needs_pass and self.hub.now_us >= self._passed_us + PASS_US:
                self._passed_us = self.hub.now_us
                self.hub.decide()
            self._post()

    def _pass_time(self, now_us: int) -> None:
        for _, _, _, batch in self._at_work:
            self.used_us[batch] += now_us - self.hub.now_us
        self.hub.now_us = now_us

    def _post(self) -> None:
        for effect in self.hub.take_all():
            if isinstance(effect, StartAttempts | RecallJobs):
                self._sent += 1
                heappush(self._mail, (self.hub.now_us + DELAY_US, self._sent, effect))

    def _deliver(self) -> None:
        while self._mail and self._mail[0][0] <= self.hub.now_us:
            _, _, effect = heappop(self._mail)
            if isinstance(effect, StartAttempts):
                for first, last in effect.spans:
                    self._list += [(effect.grant, Index(index), effect.batch) for index in range(first, last + 1)]
            else:
                wanted = {(grant, index) for grant, first, last in effect.items for index in range(first, last + 1)}
                back = [(grant, index) for grant, index, _ in self._list if (grant, index) in wanted]
                self._list = deque(one for one in self._list if one[:2] not in wanted)
                self.hub.feed(ev.JobsReturned(self.node, back))

    def _end_what_is_over(self) -> None:
        over = []
        while self._at_work and self._at_work[0][0] <= self.hub.now_us:
            _, grant, index, batch = heappop(self._at_work)
            over.append(AttemptResult(grant, index, "ok", 0, wall_us=run_time_us(self.runs_us[batch], index)))
        if over:
            self._begin_what_fits()
            self._spooled += len(over)
            self.hub.feed(ev.AttemptsEnded(self.node, self._spooled, over, self.hub.now_us))

    def _begin_what_fits(self) -> None:
        while self._list and len(self._at_work) < self.slots:
            grant, index, batch = self._list.popleft()
            self.first_us.setdefault(batch, self.hub.now_us)
            heappush(self._at_work, (self.hub.now_us + run_time_us(self.runs_us[batch], index), grant, index, batch))


@pytest.mark.parametrize("slots", [2, 4, 8])
@pytest.mark.parametrize(
    ("one_us", "other_us"),
    [
        (2 * MS, 10 * MS),
        (20 * MS, 20 * MS),
        (50 * MS, 500 * MS),
        (50 * MS, 3 * SECOND),
        (500 * MS, 3 * SECOND),
        (50 * MS, 90 * SECOND),
    ],
)
def test_two_batches_have_half_the_slots_each(hub: Recorder, slots: int, one_us: int, other_us: int) -> None:
    """A batch of short jobs kept its surplus filled for ever, and one of longer jobs never got a slot back."""
    clock = Clockwork(hub, slots)
    one, other = clock.submit(100_000, one_us), clock.submit(100_000, other_us)
    clock.run(5)
    used_us = clock.run(30)
    assert used_us.total() > 0.97 * slots * 30 * SECOND, "slots stood idle"
    assert 0.42 < used_us[one] / used_us.total() < 0.58, used_us
    assert used_us[other] > 0


@pytest.mark.parametrize("run_us", [20 * MS, 400 * MS, 3 * SECOND])
def test_more_batches_than_slots_take_turns(hub: Recorder, run_us: int) -> None:
    """Of three batches on two slots one is always without; it is not always the same."""
    clock = Clockwork(hub, 2)
    batches = [clock.submit(100_000, run_us) for _ in range(3)]
    clock.run(10)
    used_us = clock.run(60)
    for batch in batches:
        assert 0.26 < used_us[batch] / used_us.total() < 0.41, used_us


def test_one_slot_goes_from_one_batch_to_the_other(hub: Recorder) -> None:
    """By time, not by jobs: what a batch has had before counts."""
    clock = Clockwork(hub, 1)
    short, long = clock.submit(100_000, 50 * MS), clock.submit(100_000, 3 * SECOND)
    clock.run(10)
    used_us = clock.run(60)
    assert abs(used_us[short] - used_us[long]) <= 3 * 3 * SECOND, used_us


@pytest.mark.parametrize("short_us", [1 * MS, 50 * MS, 400 * MS])
def test_who_comes_later_begins_at_the_next_end(hub: Recorder, short_us: int) -> None:
    """All slots and half a second of surplus belong to the first batch, and nothing is known of the second's jobs."""
    clock = Clockwork(hub, 2)
    clock.submit(100_000, short_us)
    clock.run(3)
    came_us = hub.now_us
    newcomer = clock.submit(10, 10 * MS)
    clock.run(3)
    assert clock.first_us[newcomer] - came_us < PASS_US + 2 * DELAY_US + 2 * short_us + 10 * MS


def test_users_share_before_batches_between_passes_too(hub: Recorder) -> None:
    """Ann's three batches of short jobs have half of the slots together, Bob's one of long jobs the other half."""
    clock = Clockwork(hub, 12)
    anns = [clock.submit(100_000, 40 * MS, user="ann") for _ in range(3)]
    bobs = clock.submit(100_000, 2 * SECOND, user="bob")
    clock.run(5)
    used_us = clock.run(20)
    assert 0.42 < used_us[bobs] / used_us.total() < 0.58, used_us
    for batch in anns:
        assert 0.12 < used_us[batch] / used_us.total() < 0.21, used_us


def test_equal_users_have_equal_parts_of_a_saturated_day(hub: Recorder) -> None:
    """Three users on four slots, whatever the lengths of their jobs: within the area of the longest one."""
    clock = Clockwork(hub, 4)
    minutes = {"ann": (7, 20), "bob": (45,), "cid": (2, 11, 60)}
    batches = {
        user: [clock.submit(10_000, each * 60 * SECOND, user=user) for each in lengths]
        for user, lengths in minutes.items()
    }
    used_us: Counter[str] = Counter()
    for _ in range(24 * 60):
        hub.feed(ev.NodeHeard(clock.node, "", hub.now_us))
        of_batch = clock.run(60)
        for user, own in batches.items():
            used_us[user] += sum(of_batch[batch] for batch in own)
    assert used_us.total() > 0.99 * 4 * 24 * 3600 * SECOND
    assert max(used_us.values()) - min(used_us.values()) <= 1.2 * 3600 * SECOND, used_us


def test_priority_is_a_weight_between_passes_too(hub: Recorder) -> None:
    """Of two batches of unlike jobs, priorities 10 and 30, the first has three slots of four."""
    clock = Clockwork(hub, 8)
    heavy, light = clock.submit(100_000, 30 * MS, priority=10), clock.submit(100_000, 1 * SECOND, priority=30)
    clock.run(5)
    used_us = clock.run(20)
    assert 0.68 < used_us[heavy] / used_us.total() < 0.82, (used_us, light)


@pytest.mark.parametrize("wide", [1, 8, 40])
def test_batches_that_fit_nowhere_now_do_not_stand_in_the_way(hub: Recorder, wide: int) -> None:
    """Jobs that need the whole node, small jobs that are always there, and one more batch: each has its turn.

    Without promises the wide ones never began. With them nobody may be kept out for longer than one turn of each takes.
    """
    clock = Clockwork(hub, 4)
    small = clock.submit(100_000, 200 * MS)
    clock.run(2)
    large = [clock.submit(10, SECOND, shape=Shape(cpu_milli=4000)) for _ in range(wide)]
    clock.run(1)
    newcomer = clock.submit(100, 200 * MS)
    used_us = clock.run(2 * wide + 2)
    assert {newcomer, *large} <= clock.first_us.keys()
    assert used_us[small] > 0


def test_a_batch_with_a_limit_keeps_its_part(hub: Recorder) -> None:
    """Two of four slots are its share and its limit. At the limit it had no tickets, and lost its slots at each end."""
    clock = Clockwork(hub, 4)
    limited, other = clock.submit(100_000, 2 * SECOND, max_running=2), clock.submit(100_000, 2 * SECOND)
    clock.run(10)
    used_us = clock.run(60)
    assert used_us[limited] > 0.75 * used_us[other], used_us


@pytest.mark.parametrize("slots", [2, 8])
@pytest.mark.parametrize("batches", [1, 5])
@pytest.mark.parametrize(("long_us", "short_us"), [(1 * MS, 1 * MS), (50 * MS, 50 * MS), (400 * MS, 10 * MS)])
def test_a_million_jobs_of_one_user_delay_ten_of_another_by_no_more_than_the_surplus(
    hub: Recorder, slots: int, batches: int, long_us: int, short_us: int
) -> None:
    """However many batches they come in: bob has half of the slots, once a job of ann's has ended on each of them."""
    clock = Clockwork(hub, slots)
    for _ in range(batches):
        clock.submit(1_000_000 // batches, long_us, user="ann")
    clock.run(3)
    came_us = hub.now_us
    bobs = clock.submit(10, short_us, user="bob")
    while bobs in hub.core.world.batches and hub.now_us < came_us + 10 * SECOND:
        clock.run(0.01)
    alone_us = -(-10 // slots) * short_us
    ends_us = -(-10 // (slots // 2)) * long_us * 6 // 5
    assert hub.counts(bobs) == {"done": 10}
    assert hub.now_us - came_us < SURPLUS_US + alone_us + ends_us, "it waited for the million"
    assert clock.first_us[bobs] - came_us < PASS_US + 2 * long_us + 4 * DELAY_US
