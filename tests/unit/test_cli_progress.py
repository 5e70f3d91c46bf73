import io

import pytest

from lanai.cli.progress import BAR_COLUMNS, Live, Pace, Seen, bar, counts_text, eta_text, fitted, line


def seen(at_s: float, *, mean_run_s: float | None = None, slots: int = 0, **counts: int) -> Seen:
    return Seen(at_s=at_s, counts=counts, mean_run_s=mean_run_s, slots=slots)


def test_the_eta_is_unknown_until_something_is_known() -> None:
    pace = Pace()
    assert pace.eta_s() is None
    pace.see(seen(0, queued=10))
    assert pace.eta_s() is None
    assert eta_text(pace.eta_s()) == "ETA unknown"


def test_the_eta_is_a_range_around_what_is_left() -> None:
    pace = Pace()
    pace.see(seen(0, queued=1000, mean_run_s=0.1, slots=2))
    pace.see(seen(10, queued=800, done=200, mean_run_s=0.1, slots=2))
    low, high = pace.eta_s() or (0, 0)
    assert low <= 40 <= high
    assert high < 60
    assert pace.jobs_per_s() == pytest.approx(20)


def test_the_range_narrows_with_what_was_seen() -> None:
    def width(done: int) -> float:
        pace = Pace()
        pace.see(seen(0, queued=2 * done))
        pace.see(seen(10, queued=done, done=done, mean_run_s=10 / done, slots=1))
        low, high = pace.eta_s() or (0, 0)
        return high / low

    assert width(10_000) < width(10)


def test_held_jobs_are_not_waited_for() -> None:
    pace = Pace()
    pace.see(seen(0, held=10, done=0, mean_run_s=1.0, slots=1))
    assert pace.eta_s() is None


def test_jobs_that_were_there_before_do_not_count_as_pace() -> None:
    """A watch that begins late must not think that everything ended in its first second."""
    pace = Pace()
    pace.see(seen(0, queued=10, done=990))
    assert pace.jobs_per_s() == 0
    pace.see(seen(1, queued=9, done=991))
    assert pace.jobs_per_s() == pytest.approx(1)


def test_the_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    for second in range(100):
        pace.see(seen(second, queued=1000, done=10 * second if second < 50 else 500))
    assert pace.jobs_per_s() == 0


def test_a_retry_does_not_make_the_pace_negative() -> None:
    pace = Pace()
    pace.see(seen(0, failed=10, done=10))
    pace.see(seen(1, queued=10, done=10))
    assert pace.jobs_per_s() == 0


def test_the_bar_is_as_wide_as_it_should_be() -> None:
    for counts in ({}, {"done": 1}, {"done": 1, "failed": 1, "queued": 1}, {"failed": 999, "queued": 1}):
        assert len(bar(counts, io.StringIO())) == BAR_COLUMNS


def test_the_line_says_counts_speed_and_eta() -> None:
    pace = Pace()
    now = seen(0, done=1, failed=1, queued=2000)
    pace.see(now)
    assert line("batch 7", pace, now) == "batch 7 0%, 0.0 jobs/s, ETA unknown: 1 done, 1 failed, 2,000 queued"
    assert counts_text({}) == "no jobs"


def test_off_a_terminal_there_is_a_line_every_ten_seconds_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Live("batch 7", now_s=0) as live:
        for second in range(25):
            live.show(seen(second, running=1, done=second))
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert "\x1b" not in captured.err and "█" not in captured.err


@pytest.mark.parametrize(
    ("eta_s", "expected"),
    [
        (None, "ETA unknown"),
        ((0.1, 0.3), "ETA 1s"),
        ((41.2, 44.9), "ETA 41s to 45s"),
        ((611.0, 1234.0), "ETA 10m10s to 20m"),
    ],
)
def test_the_eta_has_two_figures(eta_s: tuple[float, float] | None, expected: str) -> None:
    assert eta_text(eta_s) == expected


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (99, "batch 7 25%, 50 jobs/s, ETA 1s to 7s: 100 done, 2 running, 4 locked, 294 queued"),
        (64, "batch 7 25%, 50/s, ETA 1s to 7s: 100 done, 2 running, 298 queued"),
        (60, "25%, 50/s, ETA 1s to 7s: 100 done, 2 running, 298 queued"),
        (55, "25%, ETA 1s to 7s: 100 done, 2 running, 298 queued"),
        (40, "25%: 100 done, 2 running, 298 queued"),
        (28, "25%, ETA 1s to 7s"),
        (10, "25%, ETA …"),
    ],
)
def test_on_a_narrow_terminal_what_matters_least_is_left_out_first(columns: int, text: str) -> None:
    pace = Pace()
    pace.see(seen(0, queued=400, mean_run_s=0.01, slots=2))
    now = seen(2, done=100, running=2, locked=4, queued=294, mean_run_s=0.01, slots=2)
    pace.see(now)
    assert fitted("batch 7", pace, now, columns) == text


@pytest.mark.parametrize("columns", [200, 60, 35])
def test_a_full_disk_takes_the_place_of_the_estimate(columns: int) -> None:
    full = Seen(at_s=0, counts={"done": 1, "queued": 2, "running": 1}, is_disk_full=True)
    text = fitted("batch 1", Pace(), full, columns)
    assert "25%, the hub's disk is full" in text
    assert len(text) <= columns
