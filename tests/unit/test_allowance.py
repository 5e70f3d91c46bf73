"""So many of a thing now, and only so many in the long run."""

from __future__ import annotations

from lanai.model.allowance import KEYS_MOST, Allowance


def test_a_burst_then_one_every_so_often_and_what_was_left_out_is_told() -> None:
    allowance = Allowance(burst=2, every_s=10.0)
    assert [allowance.take("a", 0.0) for _ in range(4)] == [0, 0, None, None]
    assert allowance.take("b", 0.0) == 0
    assert allowance.take("a", 9.0) is None
    assert allowance.take("a", 10.0) == 3
    assert allowance.take("a", 10.0) is None


def test_beyond_so_many_keys_all_share_one() -> None:
    allowance = Allowance(burst=1, every_s=10.0)
    for number in range(KEYS_MOST):
        assert allowance.take(str(number), 0.0) == 0
    assert allowance.take("one more", 0.0) == 0
    assert allowance.take("and another", 0.0) is None
    assert allowance.take("when all have room again", 100.0) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    allowance = Allowance(burst=1, every_s=10.0)
    assert allowance.take("a", 100.0) == 0
    assert allowance.take("a", 0.0) is None
