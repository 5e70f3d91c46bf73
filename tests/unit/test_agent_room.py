"""When a disk counts as full: a real small one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent.room import ENOUGH_BYTES, ENOUGH_PART, Room
from services.users import needs_root

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """64 MiB, of which 2 are enough; and 400 files."""
    needs_root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=400", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def take(disk: Path, size: int) -> None:
    with (disk / "taken").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def is_low(room: Room) -> bool:
    room.look()
    return room.is_low


def test_it_is_low_before_it_is_full_and_until_there_is_twice_enough(disk: Path) -> None:
    enough = 64 * MIB // ENOUGH_PART
    assert enough < ENOUGH_BYTES
    room = Room(disk)
    assert not is_low(room)
    take(disk, 64 * MIB - enough - 4096)
    assert not is_low(room)
    take(disk, 64 * MIB - enough + 4096)
    assert is_low(room)
    (disk / "taken").unlink()
    take(disk, 64 * MIB - enough - 4096)
    assert is_low(room)
    (disk / "taken").unlink()
    take(disk, 64 * MIB - 2 * enough)
    assert not is_low(room)


def test_no_room_for_files_is_no_room(disk: Path) -> None:
    room = Room(disk)
    for number in range(350):
        (disk / str(number)).touch()
    assert is_low(room)
    for number in range(350):
        (disk / str(number)).unlink()
    assert not is_low(room)


def test_a_directory_that_is_gone_says_nothing_new(tmp_path: Path) -> None:
    room = Room(tmp_path / "gone")
    assert not is_low(room)
    room.is_low = True
    assert is_low(room)
