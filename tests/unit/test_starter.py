"""The starter's parts that need no process: reports, checks, patterns, slots, specs."""

import errno
import json
import os
from pathlib import Path

import pytest

from lanai.agent import starter_command as command
from lanai.agent import starter_output as output
from lanai.agent.starter_reports import End, Reports


def rows(payloads: list[bytes]) -> list[list[object]]:
    return [row for payload in payloads for row in json.loads(payload)["items"]]


def test_an_end_keeps_every_field() -> None:
    reports = Reports()
    end = End(5, 6, 1, "check", 0, None, 10, 11, 12, 13, 14, 'a "reason" \udcff', [None, ["user", "p"]], [["in"]], 2)
    reports.ended(end)
    reports.ended(End(5, 7, 1, "ok", 0))
    first, second = rows(list(reports.take()))
    assert first == [1, *end]
    assert second == [2, 5, 7, 1, "ok", 0, None, None, 0, 0, 0, None, None, None, None, 0]


def test_ends_are_kept_until_forgotten() -> None:
    reports = Reports()
    for index in range(2_500):
        reports.ended(End(1, index, 1, "ok"))
    assert [row[0] for row in rows(list(reports.take()))] == list(range(1, 2_501))
    assert list(reports.take()) == []
    reports.forget(2_498)
    assert (1, 2_497) not in reports and (1, 2_498) in reports and len(reports) == 2
    reports.forget(5)
    reports.ended(End(1, 9_999, 1, "ok"))
    reports.discard_unsent()
    assert not reports.has_unsent
    assert [row[0] for row in rows(list(reports.repeat()))] == [2_499, 2_500, 2_501]


def test_no_frame_grows_past_its_bound() -> None:
    reports = Reports()
    for index in range(300):
        reports.ended(End(1, index, 1, "check", reason="x" * 10_000, checks=[["in", "exists", "y" * 100, None]] * 500))
    payloads = list(reports.take())
    assert len(rows(payloads)) == 300
    assert max(map(len, payloads)) < 1 << 20


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [("o/%b/%i.%a", "o/7/12.3"), ("%%i", "%i"), ("100%", "100%"), ("%x%i", "%x12"), ("plain", "plain")],
)
def test_patterns(pattern: str, expanded: str) -> None:
    assert output.expand(pattern, (7, 12, 3)) == expanded


@pytest.mark.parametrize(
    ("kind", "text", "passes"),
    [
        ("exists", "", True),
        ("exists", None, False),
        ("exists+", "", False),
        ("exists+", "a", True),
        ("line", "", True),
        ("line", "a", False),
        ("line", "a\n", True),
        ("line+", "", False),
        ("line+", "a\nb", False),
        ("line+", "a\nb\n", True),
        ("line+", None, False),
    ],
)
def test_checks_are_parasols(tmp_path: Path, kind: str, text: str | None, passes: bool) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text)
    checks = (
        command.Check("in", kind, "file"),
        command.Check("in", kind, "file"),
        command.Check("out", "exists", "no"),
    )
    results = command.run_checks(checks, "in", str(tmp_path))
    assert [result.reason is None for result in results] == ([True, True] if passes else [False])
    assert all("file" in str(result.reason) and kind in str(result.reason) for result in results if result.reason)


def test_a_node_that_cannot_look_is_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(path: str) -> os.stat_result:
        raise OSError(errno.ESTALE, "stale", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stale)
        with pytest.raises(command.CannotStart) as caught:
            command.run_checks((command.Check("in", "exists", "f"),), "in", "/")
    assert caught.value.outcome == "node"


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.EAGAIN, "node"),
        (errno.ENOMEM, "node"),
        (errno.EMFILE, "node"),
        (errno.EIO, "node"),
        (errno.ESTALE, "node"),
        (errno.ENOENT, "notfound"),
        (errno.EACCES, "notfound"),
        (errno.E2BIG, "exit"),
    ],
)
def test_whose_fault_a_failed_spawn_is(number: int, outcome: str) -> None:
    assert command.spawn_failure(OSError(number, "x"), "/no/such").outcome == outcome


def test_a_full_disk_keeps_the_output_in_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = output.Output(str(tmp_path))
    slot = slots.take()
    os.write(slot.descriptors[0], b"kept")

    def full(descriptor: int, data: bytes) -> int:
        return len(data) - 1

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        records = slots.collect(slot, (7, 1, 1), is_shared=False)
    assert records == [["file", "jobs/7/1.1.out", 4], ["file", "jobs/7/1.1.err", 0]]
    assert (tmp_path / "jobs/7/1.1.out").read_bytes() == b"kept"
    again = slots.take()
    os.write(again.descriptors[1], b"next")
    assert slots.collect(again, (7, 2, 1), is_shared=False) == [None, ["segment", 1, 0, 4]]
    for descriptor in again.descriptors:
        os.close(descriptor)


def test_omp_threads_are_the_users_if_he_says_so() -> None:
    message = {"batch": 1, "cwd": "/", "env": {"OMP_NUM_THREADS": "9"}, "cpu_milli": 2000}
    assert command.Spec(message).environment[b"OMP_NUM_THREADS"] == b"9"
    message = {"batch": 1, "cwd": "/", "env": {}, "cpu_milli": 1500}
    assert b"OMP_NUM_THREADS" not in command.Spec(message).environment
    assert command.Spec(message).environment[b"LANAI_CPUS"] == b"1.5"
