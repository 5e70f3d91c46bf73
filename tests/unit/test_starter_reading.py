"""What a starter reads for its agent, and what of old outputs it removes: real files, no process."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lanai.agent.starter_output import Output, segments_in
from lanai.agent.starter_reading import Reading
from lanai.agent.starter_sweeping import outputs_in, sweeping

FRAME_BYTES = 1 << 20
NOT_KEPT = "this output is not kept here any more"


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    return Reading(str(tmp_path), {}, {(1, 2)})


def rows(reading: Reading, *items: tuple[Any, int | None, int]) -> list[tuple[bytes, int, bool, str | None]]:
    """What is answered, (data, length, whether it is gone, problem)."""
    found = []
    for payload in reading.frames(5, items):
        assert len(payload) < FRAME_BYTES
        message = json.loads(payload)
        assert (message["m"], message["id"]) == ("data", 5)
        found += [(base64.b64decode(data), *rest) for data, *rest in message["items"]]
    return found


def problem(reading: Reading, *record: Any) -> str:
    ((data, length, is_gone, text),) = rows(reading, (list(record), 0, 100))
    assert (data, length, is_gone) == (b"", 0, False)
    return str(text)


def test_pieces_of_segments(reading: Reading, tmp_path: Path) -> None:
    (tmp_path / "out-000001").write_bytes(b"..0123456789..")
    (tmp_path / "out-000002").write_bytes(b"abc")
    one = ["segment", 1, 2, 10]
    found = rows(reading, (one, 0, 3), (one, 8, 50), (one, 10, 50), (one, 99, 5), (["segment", 2, 0, 3], 0, 9))
    assert [row[:2] for row in found] == [(b"012", 10), (b"89", 10), (b"", 10), (b"", 10), (b"abc", 3)]
    assert rows(reading, (one, None, 4), (one, None, 64)) == [
        (b"6789", 10, False, None),
        (b"0123456789", 10, False, None),
    ]


def test_pieces_of_files(reading: Reading, tmp_path: Path) -> None:
    (tmp_path / "jobs/7").mkdir(parents=True)
    (tmp_path / "jobs/7/1.1.out").write_bytes(b"own")
    (tmp_path / "named").write_bytes(b"users")
    named = ["user", str(tmp_path / "named")]
    found = rows(reading, (["file", "jobs/7/1.1.out", 3], 1, 9), (named, 0, 9), (named, None, 2), (named, 7, 9))
    assert found == [
        (b"wn", 3, False, None),
        (b"users", 5, False, None),
        (b"rs", 5, False, None),
        (b"", 5, False, None),
    ]


def test_attempts_that_wait_are_empty_and_others_are_gone(reading: Reading) -> None:
    assert rows(reading, ([1, 2, 1], 0, 9), ([1, 3, 1], 0, 9)) == [(b"", 0, False, None), (b"", 0, True, None)]


def test_large_answers_come_in_several_frames_in_order(reading: Reading, tmp_path: Path) -> None:
    """A hundred of 64 KiB, and of each no more than that."""
    (tmp_path / "big").write_bytes(b"".join(b"%08d" % number for number in range(1 << 20)))
    record = ["user", str(tmp_path / "big")]
    found = rows(reading, *[(record, 8 * number, 1 << 20) for number in range(100)])
    assert [len(row[0]) for row in found] == [64 << 10] * 100
    assert [row[0][:8] for row in found] == [b"%08d" % number for number in range(100)]
    assert len(list(reading.frames(1, [(record, 0, 64 << 10)] * 100))) > 10


@contextmanager
def must_not_wait() -> Iterator[None]:
    """Interrupt whatever is in there if it takes ten seconds."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def test_only_regular_files_of_a_user_are_read(reading: Reading, tmp_path: Path) -> None:
    path = tmp_path / "it"
    with must_not_wait():
        os.mkfifo(path)
        assert problem(reading, "user", str(path)) == f"cannot read {path}: it is a pipe"
        path.unlink()
        path.mkdir()
        assert problem(reading, "user", str(path)) == f"cannot read {path}: it is a directory"
        path.rmdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            assert problem(reading, "user", str(path)) == f"cannot read {path}: it is a socket"
        path.unlink()
        path.symlink_to("/dev/zero")
        assert problem(reading, "user", str(path)) == f"cannot read {path}: it is a device"
        path.unlink()
        path.symlink_to(path)
        assert "symbolic links" in problem(reading, "user", str(path))
        path.unlink()
    assert problem(reading, "user", str(path)) == f"cannot read {path}: No such file or directory"
    assert "null byte" in problem(reading, "user", "/x\0y")
    assert rows(reading, (["user", "/dev/null"], 0, 9)) == [(b"", 0, False, None)]


def test_a_pipes_writer_is_not_let_go_by_a_look(reading: Reading, tmp_path: Path) -> None:
    """To open it would be to read from it as far as its writer can see, who then is killed by SIGPIPE."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    opened = threading.Event()

    def write() -> None:
        with open(path, "wb"):
            opened.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(100):
            problem(reading, "user", str(path))
        assert not opened.is_set()
    finally:
        with open(path, "rb"):
            writer.join(10)


def test_a_symbolic_link_of_a_users_is_his_and_one_in_place_of_our_files_is_not_followed(
    reading: Reading, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "jobs/7").mkdir(parents=True)
    for name in ("named", "out-000001", "jobs/7/1.1.out"):
        (tmp_path / name).symlink_to(secret)
    assert rows(reading, (["user", str(tmp_path / "named")], 0, 9)) == [(b"secret", 6, False, None)]
    assert problem(reading, "segment", 1, 0, 6) == NOT_KEPT
    assert problem(reading, "file", "jobs/7/1.1.out", 6) == NOT_KEPT
    with must_not_wait():
        os.mkfifo(tmp_path / "out-000002")
        assert problem(reading, "segment", 2, 0, 6) == NOT_KEPT


@pytest.mark.parametrize(
    "record",
    [
        ["file", "secret", 6],
        ["file", "jobs/7/../../secret", 6],
        ["file", "/etc/passwd", 6],
        ["file", "jobs/7/1.1.out\n", 6],
        ["segment", 9, 0, 6],
        ["segment", 1, -6, 6],
        ["segment", 1, 1 << 70, 6],
        ["lost", "why", 6],
        ["other"],
        [],
    ],
)
def test_what_is_no_record_of_ours_is_not_kept(reading: Reading, tmp_path: Path, record: list[Any]) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "out-000001").write_bytes(b"123456")
    assert rows(reading, (record, 0, 9))[0][0] == b""
    assert rows(reading, (record, 0, 9), (["segment", 1, 0, 6], 0, 9))[1][0] == b"123456"


def test_no_descriptor_stays_open(reading: Reading, tmp_path: Path) -> None:
    (tmp_path / "out-000001").write_bytes(b"123456")
    (tmp_path / "out-000002").symlink_to("out-000001")
    os.mkfifo(tmp_path / "out-000003")
    before = os.listdir("/proc/self/fd")
    for number in (1, 2, 3, 4):
        rows(reading, (["segment", number, 0, 6], 0, 9), (["user", str(tmp_path)], 0, 9))
    assert len(os.listdir("/proc/self/fd")) == len(before)


# -- what is old


def aged(path: Path, seconds: float, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (seconds, seconds))
    return path


def swept(directory: Path, kept_since_s: float, cap_bytes: int) -> int:
    """How many steps it took."""
    return sum(1 for _ in sweeping(outputs_in(str(directory)), kept_since_s, cap_bytes))


def test_old_outputs_go_and_the_last_segment_stays(tmp_path: Path) -> None:
    old = [aged(tmp_path / name, 10) for name in ("out-000001", "out-000002", "jobs/7/1.1.out", "jobs/8/1.1.err")]
    kept = [aged(tmp_path / name, 30) for name in ("out-000003", "jobs/7/2.1.out")]
    kept += [aged(tmp_path / name, 10) for name in ("out-000009", "slot0.out", "starter.log", "index/7", "out-x")]
    swept(tmp_path, 20, 1 << 30)
    assert [path.exists() for path in old] == [False] * 4
    assert [path.exists() for path in kept] == [True] * len(kept)


def test_beyond_the_cap_the_oldest_go_first(tmp_path: Path) -> None:
    block = 64 << 10
    files = [aged(tmp_path / f"jobs/7/{age}.1.out", age, block) for age in (40, 10, 30, 20)]
    swept(tmp_path, 0, 2 * block + 4096)
    assert [path.exists() for path in files] == [True, False, True, False]


def test_nothing_is_removed_through_a_link(tmp_path: Path) -> None:
    """Of whatever a user puts in place of a directory or a file of an output."""
    outside = [aged(tmp_path / "outside" / name, 10) for name in ("1.1.out", "2.1.out")]
    directory = tmp_path / "starter"
    (directory / "jobs/8").mkdir(parents=True)
    (directory / "jobs/7").symlink_to(tmp_path / "outside")
    (directory / "jobs/8/1.1.out").symlink_to(outside[0])
    (directory / "out-000001").symlink_to(outside[1])
    (directory / "out-000002").mkdir()
    aged(directory / "out-000003", 10)
    swept(directory, 20, 0)
    assert [path.exists() for path in outside] == [True, True]


def test_a_sweep_is_done_in_short_steps(tmp_path: Path) -> None:
    for number in range(500):
        aged(tmp_path / f"jobs/7/{number}.1.out", 10)
    for number in range(500):
        aged(tmp_path / f"jobs/8/{number}.1.out", 30, 4096)
    assert swept(tmp_path, 20, 0) > 20
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_directory_that_has_nothing_is_no_trouble(tmp_path: Path) -> None:
    swept(tmp_path / "missing", 20, 0)


def test_the_number_of_a_segment_that_went_is_not_given_again(tmp_path: Path) -> None:
    """A record of the first one would show what is another job's."""
    for number in (3, 7):
        aged(tmp_path / f"out-{number:06d}", 10)
    assert segments_in(str(tmp_path)) == [3, 7]
    slots = Output(str(tmp_path))
    slot = slots.take()
    os.write(slot.descriptors[0], b"text")
    assert slots.collect(slot, (7, 1, 1), False) == [["segment", 8, 0, 4], None]
