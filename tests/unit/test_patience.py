"""How long a silent hub is asked again, and what is said of it, on a clock of the test's own."""

import pytest

from lanai.client import patience
from lanai.client.patience import PAUSE_S, Patience
from lanai.model.errors import OtherEnd, TimedOut

GONE = OtherEnd("the hub does not answer")


class Clock:
    """Goes on only where somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, length_s: float) -> None:
        assert length_s > 0
        self.now_s += length_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patience, "time", made)
    return made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def tried(said: list[str]) -> Patience:
    return Patience(for_s=30.0, quiet_s=1.0, say=said.append)


def fail_until_raised(tried: Patience, kind: type[OtherEnd], deadline_s: float | None = None) -> None:
    def fail_for_ever() -> None:
        while True:
            tried.failed(GONE, deadline_s=deadline_s)

    with pytest.raises(kind):
        fail_for_ever()


def test_a_hub_that_never_answered_is_not_waited_for(clock: Clock, tried: Patience, said: list[str]) -> None:
    fail_until_raised(tried, OtherEnd)
    assert (clock.now_s, said) == (1000.0, [])


def test_a_short_silence_is_no_news(clock: Clock, tried: Patience, said: list[str]) -> None:
    tried.answered()
    while clock.now_s < 1000.0 + 1.0 - PAUSE_S:
        tried.failed(GONE)
    tried.answered()
    assert said == []


def test_silence_and_return_are_said_once_each(clock: Clock, tried: Patience, said: list[str]) -> None:
    for _ in range(2):
        tried.answered()
        for _ in range(50):
            tried.failed(GONE)
        tried.answered()
        tried.answered()
    assert said == ["lanai: the hub does not answer; trying again for 29 s", "lanai: the hub answers again"] * 2


def test_it_is_given_up_after_the_limit_and_the_next_question_has_all_of_it(
    clock: Clock, tried: Patience, said: list[str]
) -> None:
    tried.answered()
    for _ in range(2):
        began_s = clock.now_s
        fail_until_raised(tried, OtherEnd)
        assert clock.now_s - began_s == pytest.approx(30.0)
    assert len(said) == 2


def test_the_askers_own_deadline_counts(clock: Clock, tried: Patience, said: list[str]) -> None:
    tried.answered()
    fail_until_raised(tried, TimedOut, deadline_s=1005.0)
    assert clock.now_s == pytest.approx(1005.0)
    assert said == ["lanai: the hub does not answer; trying again for 4 s"]
