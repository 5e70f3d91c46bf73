"""The timeline against one that writes down what is free in every second."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lanai.core.schedule.rigid import RigidJob
from lanai.core.schedule.timeline import Timeline

CAPACITY = 5
LAST = 80


class BySecond(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.timeline = Timeline(CAPACITY)
        self.now = 0
        self.free = [CAPACITY] * (2 * LAST)
        self.held: list[tuple[int, int, int]] = []

    def first_fit(self, begin: int, width: int, length: int) -> int:
        return next(at for at in range(begin, LAST) if all(free >= width for free in self.free[at : at + length]))

    @rule(after=st.integers(0, 10), width=st.integers(1, CAPACITY), length=st.integers(1, 8))
    @precondition(lambda self: len(self.held) < 4)
    def take_the_earliest(self, after: int, width: int, length: int) -> None:
        begin = self.timeline.earliest(self.now + after, width, length)
        assert begin == self.first_fit(self.now + after, width, length)
        assert self.timeline.fits(begin, width, length)
        self.timeline.take(begin, begin + length, width)
        self.held.append((begin, begin + length, width))
        self.write(begin, begin + length, -width)

    @rule(which=st.integers(0, 3))
    @precondition(lambda self: self.held)
    def give_back_what_is_left(self, which: int) -> None:
        begin, end, width = self.held.pop(which % len(self.held))
        begin = max(begin, self.now)
        self.timeline.give(begin, end, width)
        self.write(begin, end, width)

    @rule(by=st.integers(1, 4))
    @precondition(lambda self: self.now < 20)
    def time_passes(self, by: int) -> None:
        self.now += by
        self.timeline.advance(self.now)
        self.held = [hold for hold in self.held if hold[1] > self.now]

    @rule(which=st.integers(0, 3))
    @precondition(lambda self: any(hold[0] > self.now for hold in self.held))
    def ask_for_an_earlier_place(self, which: int) -> None:
        later = [hold for hold in self.held if hold[0] > self.now]
        begin, end, width = later[which % len(later)]
        self.write(begin, end, width)
        expected = self.first_fit(self.now, width, end - begin)
        self.write(begin, end, -width)
        job = RigidJob(seq=0, submit=0, width=width, estimate=end - begin)
        assert self.timeline.earlier(self.now, job, begin, begin) == (expected if expected < begin else None)

    def write(self, begin: int, end: int, amount: int) -> None:
        for second in range(begin, end):
            self.free[second] += amount

    @invariant()
    def every_second_is_as_written(self) -> None:
        for second in range(self.now, LAST):
            for width in range(1, CAPACITY + 1):
                assert self.timeline.fits(second, width, 1) == (self.free[second] >= width), second


TestBySecond = BySecond.TestCase
TestBySecond.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(releases=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 2)), max_size=4))
def test_releases_are_what_is_taken_until_then(releases: list[tuple[int, int]]) -> None:
    timeline = Timeline(8, 0, sorted(releases))
    for second in range(12):
        free = 8 - sum(amount for when, amount in releases if when > second)
        assert timeline.fits(second, free, 1) or not free
        assert not timeline.fits(second, free + 1, 1)
