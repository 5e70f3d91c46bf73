"""The starter's parts that need no process: reports, checks, patterns, slots, specs."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from lanai.agent import starter_command as command
from lanai.agent import starter_output as output
from lanai.agent.starter_exec import Environment, Streams, Words, spawn
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


def test_a_success_is_told_as_any_other_end() -> None:
    reports = Reports()
    for number, peak_bytes in enumerate((None, 20 << 20)):
        reports.succeeded((5, number), f"5,{number},3", (10, 11, 12, 13, peak_bytes))
        reports.ended(End(5, number + 2, 3, "ok", 0, None, 10, 11, 12, 13, peak_bytes))
    quick, full, quick_with_peak, full_with_peak = rows(list(reports.take()))
    assert [quick[0], full[0], quick_with_peak[0], full_with_peak[0]] == [1, 2, 3, 4]
    assert quick[3:] == full[3:] and quick_with_peak[3:] == full_with_peak[3:]
    assert quick[1:3] == [5, 0] and quick_with_peak[1:3] == [5, 1]
    assert (5, 0) in reports and len(reports) == 4
    reports.forget(3)
    assert len(reports) == 1 and (5, 3) in reports


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
    assert command.Spec(message).variables[b"OMP_NUM_THREADS"] == b"9"
    message = {"batch": 1, "cwd": "/", "env": {}, "cpu_milli": 1500}
    assert b"OMP_NUM_THREADS" not in command.Spec(message).variables
    assert command.Spec(message).variables[b"LANAI_CPUS"] == b"1.5"


def start_and_read(tmp_path: Path, words: list[bytes], environment: Environment) -> tuple[int, str]:
    with open(tmp_path / "out", "w+") as out:
        pid = spawn(words[0], Words().lay_out(words), environment, Streams(None, out.fileno(), out.fileno()))
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        return os.waitstatus_to_exitcode(status), out.read()


def test_a_command_gets_what_was_laid_out_and_what_is_its_own(tmp_path: Path) -> None:
    environment = Environment({b"KEPT": b"as it is", b"OWN": b"of somebody else"}, [b"OWN", b"TOO"])
    for round_ in (b"first", b"2"):
        environment.places[0].value = b"OWN=" + round_
        environment.places[1].value = b"TOO=" + round_ * 20
        exit_code, text = start_and_read(tmp_path, [b"/usr/bin/env"], environment)
        assert exit_code == 0
        assert sorted(text.splitlines()) == ["KEPT=as it is", f"OWN={round_.decode()}", f"TOO={(round_ * 20).decode()}"]


def test_words_are_laid_out_anew_for_each_command(tmp_path: Path) -> None:
    words = Words()
    environment = Environment({}, [])
    for line in ([b"/bin/echo", b"a", b"b"], [b"/bin/echo", b"", b"c d"], [b"/bin/echo"], [b"/bin/echo", *[b"x"] * 99]):
        with open(tmp_path / "out", "w+b") as out:
            pid = spawn(line[0], words.lay_out(line), environment, Streams(None, out.fileno()))
            os.waitpid(pid, 0)
            out.seek(0)
            assert out.read() == b" ".join(line[1:]) + b"\n"


def test_a_command_has_a_session_and_a_mask_of_its_own(tmp_path: Path) -> None:
    former = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM])
    try:
        line = [b"/bin/sh", b"-c", b"grep SigBlk /proc/self/status; cut -d' ' -f6 /proc/$$/stat; echo $$"]
        exit_code, text = start_and_read(tmp_path, line, Environment({b"PATH": b"/usr/bin:/bin"}, []))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    mask, session, pid = text.splitlines()
    assert exit_code == 0
    assert mask.split() == ["SigBlk:", "0" * 16]
    assert session == pid


def test_what_cannot_be_started_is_told_by_its_number() -> None:
    with pytest.raises(OSError) as caught:
        spawn(b"/no/such/program", Words().lay_out([b"x"]), Environment({}, []), Streams())
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError) as caught:
        Streams(None, -1)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("variable", [(b"A=B", b"c"), (b"A\0", b"c"), (b"A", b"c\0d")])
def test_what_is_no_variable_is_refused(variable: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="environment"):
        Environment(dict([variable]), [])


def test_a_command_of_words_that_no_program_can_get_cannot_start() -> None:
    assert command.words_of(["a", "\udcff b", ""]) == [b"a", b"\xff b", b""]
    assert command.words_of("echo $HOME") == [b"/bin/sh", b"-c", b"echo $HOME"]
    assert command.words_of([]) == [b""]
    for words in (["a\0b"], "a\0b", ["\ud800"]):
        with pytest.raises(command.CannotStart) as caught:
            command.words_of(words)
        assert (caught.value.outcome, caught.value.exit_code) == ("exit", 126)
    for wrong in (7, None, ["a", 7]):
        with pytest.raises(TypeError):
            command.words_of(wrong)
