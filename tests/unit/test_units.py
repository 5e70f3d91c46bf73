"""Sizes, durations and fractions: what is read, what is refused, and that what is written is read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanai.model.units import (
    UnitError,
    format_bytes,
    format_duration,
    format_milli,
    parse_bytes,
    parse_count,
    parse_duration,
    parse_gpu_ids,
    parse_milli,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("8G", 8 << 30),
        ("8g", 8 << 30),
        ("512M", 512 << 20),
        ("1.5k", 1536),
        ("8GiB", 8 << 30),
        ("8 GB", 8 << 30),
        ("2t", 2 << 40),
        (".5k", 512),
        ("7b", 7),
        ("0.3", 1),
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "G", "8Q", "-1", "1e3", "8 G G", "8iB", "9999999E", "1.2.3", "٣G", "8G\n8"])
def test_other_sizes_are_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_bytes(text)
    assert caught.value.found == text
    assert "8G" in caught.value.accepted
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("90", 90),
        ("0", 0),
        ("1.5", 1.5),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1:30:00", 5400),
        ("1:30", 90),
        ("90:00", 5400),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        ("1.5h", 5400),
        ("10sec", 10),
        ("2D3H", 183_600),
    ],
)
def test_durations_are_read(text: str, duration_s: float) -> None:
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize(
    "text", ["", "h", "30m1h", "1h1h", "-5", "1:75", "1:60:00", "1:2:3:4", "1:3", "5 parsecs", "11000d", "1..5h", ".h"]
)
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_duration(text)
    assert caught.value.found == text


def test_fractions_and_counts() -> None:
    assert [parse_milli(text) for text in ("2", "0.5", "0", ".25", "1.0001")] == [2000, 500, 0, 250, 1001]
    assert parse_count("20") == 20
    for text in ("", "-1", "2x", "1e3", "nan", "9" * 18):
        with pytest.raises(UnitError):
            parse_milli(text)
    for text in ("", "-1", "1.5", "x", "²", "9" * 25):
        with pytest.raises(UnitError):
            parse_count(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (64 << 30, "64 GiB"), (1 << 62, "4 EiB")],
)
def test_sizes_for_people(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (4.23, "4.2s"),
        (59.99, "1m"),
        (65, "1m5s"),
        (3599.7, "1h"),
        (5400, "1h30m"),
        (86_399, "1d"),
        (183_600, "2d3h"),
        (-65, "-1m5s"),
    ],
)
def test_durations_for_people(duration_s: float, text: str) -> None:
    assert format_duration(duration_s) == text


@given(st.integers(0, 2**63 - 1))
def test_a_written_size_is_read_back_within_its_precision(size_bytes: int) -> None:
    assert parse_bytes(format_bytes(min(size_bytes, 2**62))) == pytest.approx(min(size_bytes, 2**62), rel=0.06, abs=1)


@given(st.floats(0, 3e8, allow_nan=False))
def test_a_written_duration_is_read_back_within_its_precision(duration_s: float) -> None:
    assert parse_duration(format_duration(duration_s)) == pytest.approx(duration_s, rel=0.05, abs=0.0006)


@given(st.integers(0, 2**53))
def test_written_thousandths_are_read_back(milli: int) -> None:
    assert parse_milli(format_milli(milli)) == milli


@given(st.text(max_size=12))
def test_nothing_but_a_unit_error_is_raised(text: str) -> None:
    for parse in (parse_bytes, parse_duration, parse_milli, parse_count):
        try:
            assert parse(text) >= 0
        except UnitError:
            pass


@pytest.mark.parametrize(
    ("text", "ids"),
    [("0", ()), ("3", ("0", "1", "2")), ("0,2", ("0", "2")), ("3,", ("3",)), ("GPU-1a,1", ("GPU-1a", "1"))],
)
def test_gpus_are_a_number_or_ids(text: str, ids: tuple[str, ...]) -> None:
    assert parse_gpu_ids(text) == ids


@pytest.mark.parametrize("text", ["", ",", "0,0", "1.5", "-1", "9999", "0, ,1", "a b", "1;2"])
def test_other_gpus_are_refused(text: str) -> None:
    with pytest.raises(UnitError):
        parse_gpu_ids(text)
