"""How outputs are hollowed out: real files with real holes, no process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent.starter_reading import Reading
from lanai.agent.starter_trimming import LEAST_BYTES, LOOK_US, NEVER, SOONEST_US, Trimming, stretch, trim

MIB = 1 << 20
MUCH = 1 << 60


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "jobs/7").mkdir(parents=True)
    descriptor = os.open(tmp_path / "jobs/7/1.1.out", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield descriptor
    os.close(descriptor)


def write(file: int, count: int) -> None:
    """Numbered lines of 8 bytes."""
    at = os.lseek(file, 0, os.SEEK_END) // 8
    os.write(file, b"".join(b"%07d\n" % number for number in range(at, at + count // 8)))


def taken(file: int) -> int:
    return os.fstat(file).st_blocks * 512


def test_what_is_small_enough_stays_whole(file: int) -> None:
    write(file, 2 * MIB)
    assert trim([file], 2 * MIB, MUCH) == 2 * MIB
    assert stretch(file, 0) == (0, 2 * MIB)


def test_the_first_and_the_last_quarter_are_kept_while_it_grows(file: int) -> None:
    for _ in range(5):
        write(file, 3 * MIB)
        trim([file], 2 * MIB, MUCH)
        assert taken(file) <= 2 * MIB
    length = os.fstat(file).st_size
    assert length == 15 * MIB
    assert stretch(file, 0) == (0, MIB // 2)
    start, end = stretch(file, MIB // 2)
    assert (start, end) == (length - MIB // 2, length)
    assert os.pread(file, 8, start) == b"%07d\n" % (start // 8)


@pytest.mark.parametrize(("free", "kept"), [(0, LEAST_BYTES), (40 * MIB, 6 * MIB), (MUCH, 8 * MIB)])
def test_the_fuller_the_disk_the_less_is_kept(file: int, free: int, kept: int) -> None:
    write(file, 8 * MIB)
    trim([file], 100 * MIB, free)
    assert taken(file) == (kept if kept == 8 * MIB else kept // 2)


def test_a_hole_is_left_out_when_it_is_read(file: int, tmp_path: Path) -> None:
    write(file, 8 * MIB)
    trim([file], MIB, MUCH)
    reading = Reading(str(tmp_path), {}, {})
    record = ["file", "jobs/7/1.1.out", 8 * MIB]
    asked = [(record, 0, 16), (record, MIB // 4 - 8, 16), (record, MIB // 4 + 5, 8), (record, None, 8)]
    (frame,) = reading.frames(1, [*asked, (record, 8 * MIB, 8)])
    found = [row.split(",") for row in frame.decode().partition("[[")[2].rstrip("}]").split("],[")]
    assert [len(row) for row in found] == [4, 4, 5, 4, 4]
    assert int(found[2][4]) == 7 * MIB + 3 * MIB // 4 - MIB // 4 - 5
    assert {row[1] for row in found} == {str(8 * MIB)}
    assert found[1][0] != found[2][0] != '""'


def test_it_looks_oftener_where_the_disk_would_be_full_before(file: int, tmp_path: Path) -> None:
    trimming = Trimming(str(tmp_path))
    assert trimming.due_us == NEVER
    trimming.watch("one", (file, file), MIB, 1_000_000)
    assert trimming.due_us == 1_000_000
    trimming.look(1_000_000)
    assert trimming.due_us == 1_000_000 + LOOK_US
    os.ftruncate(file, 1 << 42)
    trimming.look(1_250_000)
    assert 1_250_000 + SOONEST_US <= trimming.due_us < 1_250_000 + LOOK_US
    trimming.ended("one")
    trimming.look(1_300_000)
    assert trimming.due_us == NEVER
