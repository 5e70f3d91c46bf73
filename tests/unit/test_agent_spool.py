"""The agent's spool: what is written is there after a kill, however that cut it; a full disk is said, not suffered."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent.spool import Handed, Spool
from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.job import AttemptResult
from lanai.model.resources import Shape

SHAPE = Shape()


def results(first: int, count: int) -> list[AttemptResult]:
    return [AttemptResult(GrantId(1), Index(index), "ok", 0) for index in range(first, first + count)]


def handed(*indices: int, grant: int = 1) -> Handed:
    return Handed(GrantId(grant), BatchId(7), 2, SHAPE, [Index(index) for index in indices])


def reopened(directory: Path) -> Spool:
    spool = Spool(directory)
    spool.close()
    return spool


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def test_results_are_numbered_and_read_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.keep(results(1, 3)) == 3
    assert spool.keep(results(4, 1)) == 4
    spool.close()
    spool = Spool(tmp_path)
    assert spool.remembered.results == list(enumerate(results(1, 4), 1))
    assert spool.keep(results(9, 1)) == 5
    spool.close()


def test_what_the_starter_holds_is_read_back_without_what_ended_or_was_given_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.hand([handed(1, 2, 3, 4), handed(1, grant=2)])
    spool.keep(results(2, 1))
    spool.gone([(GrantId(1), Index(3))])
    spool.close()
    assert reopened(tmp_path).remembered.handed == [handed(1, 4), handed(1, grant=2)]
    assert reopened(tmp_path).remembered.handed == [handed(1, 4), handed(1, grant=2)]


def test_forgotten_segments_go_and_what_they_said_of_the_starter_stays(tmp_path: Path) -> None:
    """What is handed out may run for weeks, while millions of results pass through the spool."""
    spool = Spool(tmp_path, segment_bytes=4096)
    spool.hand([handed(1, 2)])
    upto = 0
    for _ in range(100):
        upto = spool.keep(results(100, 20))
    assert len(segments(tmp_path)) > 5
    spool.forget(upto)
    assert len(segments(tmp_path)) == 1
    spool.close()
    spool = Spool(tmp_path, segment_bytes=4096)
    assert spool.remembered.handed == [handed(1, 2)]
    assert all(number <= upto for number, _ in spool.remembered.results)
    assert spool.keep(results(1, 1)) == upto + 1
    spool.close()


def test_numbers_go_on_though_everything_was_forgotten(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    upto = spool.keep(results(1, 10))
    spool.forget(upto)
    spool.close()
    for _ in range(3):
        spool = Spool(tmp_path)
        spool.forget(upto)
        spool.close()
    spool = Spool(tmp_path)
    assert spool.remembered.results == []
    assert spool.keep(results(1, 1)) == 11
    spool.close()


@pytest.mark.parametrize("seed", range(5))
def test_a_torn_tail_costs_the_last_record_only(tmp_path: Path, seed: int) -> None:
    """The agent was killed within a write: any part of the last record may be missing, or be something else."""
    chance = random.Random(seed)
    spool = Spool(tmp_path)
    for first in range(1, 31, 3):
        spool.keep(results(first, 3))
    end = spool._offset
    spool.keep(results(31, 3))
    torn = chance.randrange(end + 1, spool._offset)
    last = spool._offset
    spool.close()
    path = segments(tmp_path)[-1]
    with path.open("r+b") as file:
        file.seek(torn)
        file.write(chance.choice([bytes(last - torn), chance.randbytes(5000)]))
    spool = Spool(tmp_path)
    assert [result for _, result in spool.remembered.results] == results(1, 30)
    assert spool.keep(results(31, 1)) == 31
    spool.close()
    assert [number for number, _ in reopened(tmp_path).remembered.results] == list(range(1, 32))


def test_segments_of_garbage_are_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.keep(results(1, 3))
    spool.close()
    (tmp_path / "0000000000000009.seg").write_bytes(os.urandom(10_000))
    (tmp_path / "0000000000000010.seg").write_bytes(b"")
    spool = Spool(tmp_path)
    assert [result for _, result in spool.remembered.results] == results(1, 3)
    assert spool.keep(results(4, 1)) == 4
    spool.close()


def test_a_record_larger_than_a_segment_fits(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=4096)
    assert spool.keep(results(1, 1000)) == 1000
    spool.close()
    assert len(reopened(tmp_path).remembered.results) == 1000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.netns  # not for a network: for root, who alone may mount
def test_a_full_disk_is_said_while_what_runs_can_still_be_written(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", segment_bytes=64 << 10)
    (small_disk / "rest").write_bytes(bytes(100 << 10))
    kept = 0
    while not spool.is_full:
        kept = spool.keep(results(kept + 1, 10))
    # The reserve has become the segment in use: there is room for what ends now.
    kept = spool.keep(results(kept + 1, 100))
    with contextlib.suppress(OSError):
        while True:
            kept = spool.keep(results(kept + 1, 100))
    assert not spool.make_room()
    (small_disk / "rest").unlink()
    assert spool.make_room()
    assert not spool.is_full
    assert spool.keep(results(kept + 1, 100)) == kept + 100
    spool.close()
    assert [result for _, result in reopened(small_disk / "spool").remembered.results] == results(1, kept + 100)


@pytest.mark.netns  # not for a network: for root, who alone may mount
def test_without_room_for_a_segment_the_next_agents_go_on_in_the_last(small_disk: Path) -> None:
    """Each start took the reserve for a segment of its own; the second on a full disk failed, and what ran was lost."""
    spool = Spool(small_disk / "spool", segment_bytes=64 << 10)
    spool.keep(results(1, 10))
    with (small_disk / "rest").open("wb", buffering=0) as rest, contextlib.suppress(OSError):
        while True:
            rest.write(bytes(4096))
    for start in range(1, 5):
        spool.close()
        spool = Spool(small_disk / "spool", segment_bytes=64 << 10)
        assert [result for _, result in spool.remembered.results] == results(1, 10 * start)
        assert spool.is_full
        assert spool.keep(results(10 * start + 1, 10)) == 10 * start + 10
    spool.close()
    assert len(segments(small_disk / "spool")) == 2


def test_which_gpus_a_job_has_is_read_back(tmp_path: Path) -> None:
    """A killed agent's jobs keep their gpus: the next agent must not give them to others."""
    spool = Spool(tmp_path)
    gpus = [("0", "2"), ("1", "3")]
    spool.hand([Handed(GrantId(1), BatchId(7), 2, SHAPE, [Index(1), Index(2)], gpus), handed(1, grant=2)])
    spool.keep([AttemptResult(GrantId(1), Index(1), "ok", 0)])
    spool.close()
    expected = [Handed(GrantId(1), BatchId(7), 2, SHAPE, [Index(2)], [("1", "3")]), handed(1, grant=2)]
    assert reopened(tmp_path).remembered.handed == expected
    assert reopened(tmp_path).remembered.handed == expected
