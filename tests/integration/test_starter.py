"""The starter with real processes: what it runs, ends and reports of it."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.agent import starter_link as sl
from services.starter_bench import ENVIRONMENT, Bench, is_alive, wait_for


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("command", "outcome", "exit_code", "number"),
    [
        (["true"], "ok", 0, None),
        ("exit 3", "exit", 3, None),
        ("kill -9 $$", "signal", None, 9),
        ("kill -SEGV $$", "signal", None, 11),
        (["no-such-program"], "notfound", 127, None),
        (["/etc/passwd"], "notfound", 127, None),
        (["./nowhere"], "notfound", 127, None),
        (["true", "x" * (1 << 20)], "exit", 126, None),
        (["true", "a\0b"], "exit", 126, None),
        ([], "notfound", 127, None),
    ],
)
def test_outcomes(bench: Bench, command: Any, outcome: str, exit_code: int | None, number: int | None) -> None:
    end = bench.one(command)
    assert (end.outcome, end.exit_code, end.signal) == (outcome, exit_code, number)
    assert (end.grant, end.index, end.attempt, end.sequence) == (1, 1, 1, 1)
    assert (end.reason is None) == (outcome in ("ok", "signal") or exit_code == 3)


def test_a_missing_directory_is_the_nodes_fault(bench: Bench) -> None:
    end = bench.one(["true"], cwd=str(bench.work / "gone"))
    assert end.outcome == "node"
    assert end.started_wall_us is None
    assert "gone" in str(end.reason)


def test_a_file_without_interpreter_line_is_a_shell_script(bench: Bench) -> None:
    script = bench.work / "script"
    script.write_text("echo $1; exit 4\n")
    script.chmod(0o755)
    end = bench.one(["./script", "hello"])
    assert end.exit_code == 4
    assert bench.output(end) == b"hello\n"


def test_a_program_that_moved_is_found_again(bench: Bench, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").write_text(f"#!/bin/sh\necho {folder}\n")
        (tmp_path / folder / "tool").chmod(0o755)
    bench.prepare(env={"PATH": f"{tmp_path}/a:{tmp_path}/b"})
    bench.run(["tool"])
    bench.ends(1)
    (tmp_path / "a" / "tool").unlink()
    bench.run(["tool"], first=2)
    ends = bench.ends(2)
    assert [bench.output(end) for end in ends] == [b"a\n", b"b\n"]


def test_environment_directory_umask_and_signals(bench: Bench) -> None:
    bench.prepare(
        env={**ENVIRONMENT, "MINE": "\udcff1"},
        cpu_milli=2000,
        memory_bytes=1 << 40,
        time_limit_us=60_000_000,
        umask=0o27,
    )
    bench.run(
        (["env"], {"env": {"EXTRA": "e"}}),
        "pwd; umask; grep -E '^Sig(Blk|Ign)' /proc/self/status",
    )
    first, second = bench.ends(2)
    lines = dict(line.split(b"=", 1) for line in bench.output(first).splitlines())
    assert lines[b"LANAI_JOB_ID"] == b"7/1"
    assert lines[b"LANAI_BATCH_ID"] == b"7"
    assert lines[b"LANAI_INDEX"] == lines[b"LANAI_ATTEMPT"] == b"1"
    assert lines[b"LANAI_CPUS"] == lines[b"OMP_NUM_THREADS"] == b"2"
    assert lines[b"LANAI_MEMORY_BYTES"] == b"%d" % (1 << 40)
    assert abs(int(lines[b"LANAI_DEADLINE"]) - time.time() - 60) < 10
    assert lines[b"MINE"] == b"\xff1"
    assert lines[b"EXTRA"] == b"e"
    assert b"LANAI_GPUS" not in lines
    folder, umask, _, blocked, _, ignored = bench.output(second).decode().split()
    assert (folder, umask, int(blocked, 16)) == (str(bench.work), "0027", 0)
    # glibc's posix_spawn ignores 32 and 33, which it keeps for itself.
    assert int(ignored, 16) & 0x7FFFFFFF == 0


def test_gpus_are_shared_out(bench: Bench) -> None:
    bench.prepare()
    bench.say(bench.link.lane(1, 4, gpus=["0", "1"], gpus_each=1))
    for n in range(4):
        os.mkfifo(bench.work / f"go{n + 1}")
    bench.run(*["read x < go$LANAI_INDEX; echo $CUDA_VISIBLE_DEVICES $LANAI_GPUS"] * 4)
    for n in range(4):
        with open(bench.work / f"go{n + 1}", "w") as go:
            go.write("\n")
    ends = bench.ends(4)
    seen = [bench.output(end).split() for end in ends]
    assert all(first == second for first, second in seen)
    assert {seen[0][0], seen[1][0]} == {b"0", b"1"}
    assert {first for first, _ in seen} == {b"0", b"1"}


def test_small_and_large_output(bench: Bench) -> None:
    bench.prepare(width=1)
    bench.run("echo small", "head -c 100000 /dev/zero; echo err >&2", "echo again >&2", ["true"])
    small, large, again, silent = bench.ends(4)
    assert bench.output(small) == b"small\n"
    assert small.output is not None and small.output[1] is None
    assert bench.output(large) == bytes(100_000)
    assert bench.output(large, 1) == b"err\n"
    assert large.output == [["file", "jobs/7/2.1.out", 100_000], ["file", "jobs/7/2.1.err", 4]]
    assert bench.output(again, 1) == b"again\n"
    assert silent.output is None


def test_output_of_what_outlives_its_attempt_stays_apart(bench: Bench) -> None:
    """A job leaves something in the background that goes on writing: the next job in the slot must not get it."""
    os.mkfifo(bench.work / "go")
    bench.prepare(width=1)
    bench.run("echo one; (setsid sh -c 'read x < go; echo late; echo done > gone') &", "echo two")
    one, two = bench.ends(2)
    assert (one.outcome, one.escaped, two.escaped) == ("ok", 1, 0)
    assert bench.output(two) == b"two\n"
    with open(bench.work / "go", "w") as go:
        go.write("\n")
    wait_for((bench.work / "gone").exists)
    assert bench.output(one) == b"one\nlate\n"


def test_what_the_only_job_leaves_is_noticed_too(bench: Bench) -> None:
    """With no other attempt running nobody looked."""
    bench.prepare(width=1)
    bench.run("setsid sleep 60 & echo $! > pid; sleep 0.2")
    (end,) = bench.ends()
    os.kill(bench.pid_in("pid"), signal.SIGKILL)
    assert end.escaped == 1


def test_one_that_empties_its_environment_is_noticed_too(bench: Bench) -> None:
    bench.prepare(width=1)
    bench.run("env -i setsid sleep 60 & echo $! > pid; sleep 0.2", "true", "true")
    ends = bench.ends(3)
    os.kill(bench.pid_in("pid"), signal.SIGKILL)
    assert [end.escaped for end in ends] == [1, 0, 0]


def test_patterns_name_the_users_files(bench: Bench) -> None:
    bench.prepare(stdout="logs/%b/%i.%a%%%q", stderr="logs/%b/%i.%a%%%q")
    bench.run("echo out; echo err >&2")
    end = bench.ends()[0]
    path = bench.work / "logs/7/1.1%%q"
    assert path.read_text() == "out\nerr\n"
    assert end.output == [["user", str(path)]] * 2


def test_only_one_stream_named(bench: Bench) -> None:
    bench.prepare(stdout="only-out")
    bench.run("echo out; echo err >&2")
    end = bench.ends()[0]
    assert bench.output(end) == b"out\n"
    assert bench.output(end, 1) == b"err\n"


def test_output_that_cannot_be_opened(bench: Bench) -> None:
    (bench.work / "folder").mkdir()
    end = bench.one(["true"], stdout="folder")
    assert (end.outcome, end.exit_code) == ("exit", 126)
    assert "folder" in str(end.reason)


def test_usage(bench: Bench) -> None:
    program = "x = bytearray(80 << 20)\nfor i in range(3_000_000): pass"
    end = bench.one([sys.executable, "-S", "-c", program])
    assert end.memory_peak_bytes is not None and 80 << 20 < end.memory_peak_bytes < 200 << 20
    assert end.user_us + end.system_us > 10_000
    assert end.wall_us > 10_000
    assert end.started_wall_us is not None and abs(end.started_wall_us / 1e6 - time.time()) < 30
    bench.run(["true"], first=2)
    assert bench.ends(2)[1].memory_peak_bytes is None


def test_checks(bench: Bench) -> None:
    for name, text in (("empty", ""), ("line", "a\n"), ("part", "a")):
        (bench.work / name).write_text(text)
    good = [("in", "exists", "empty"), ("in", "line", "empty"), ("in", "line+", "line"), ("in", "exists+", "part")]
    bad = [("exists", "nowhere"), ("exists+", "empty"), ("line", "part"), ("line+", "empty"), ("line", "nowhere")]
    bench.prepare()
    bench.run(
        (["true"], {"checks": good}),
        *[(["true"], {"checks": [("in", *check)]}) for check in bad],
        ("echo hi > made", {"checks": [("out", "line+", "made")]}),
        (["true"], {"checks": [("out", "exists+", "empty")]}),
        ("exit 1", {"checks": [("out", "exists", "nowhere")]}),
    )
    ends = bench.ends(9)
    assert [end.outcome for end in ends] == ["ok", *["check"] * 5, "ok", "check", "exit"]
    assert all(check[1] in str(end.reason) for check, end in zip(bad, ends[1:6], strict=True))
    assert ends[0].checks == [[*check, None] for check in good]
    assert ends[1].started_wall_us is None
    assert ends[7].exit_code == 0 and "empty" in str(ends[7].reason)
    assert ends[8].checks is None


def test_time_limit(bench: Bench) -> None:
    end = bench.one(["sleep", "60"], time_limit_us=150_000)
    assert (end.outcome, end.signal) == ("time", 15)
    assert 150_000 <= end.wall_us < 5_000_000


def test_time_limit_of_what_ignores_the_signal(bench: Bench) -> None:
    end = bench.one("trap '' TERM; sleep 60 & wait; wait", time_limit_us=150_000, grace_us=200_000)
    assert (end.outcome, end.signal, end.escaped) == ("time", 9, 0)
    assert end.wall_us >= 350_000


def test_time_limit_reaches_those_that_left_the_session(bench: Bench) -> None:
    """Double fork, a session of its own, SIGTERM ignored: known by its mark only, and ended all the same."""
    daemon = "(trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > pid; sleep 60; sleep 60' &) ; sleep 60"
    bench.prepare(time_limit_us=300_000, grace_us=100_000)
    bench.run(daemon)
    pid = bench.pid_in("pid")
    end = bench.ends()[0]
    assert (end.outcome, end.escaped) == ("time", 0)
    assert not is_alive(pid)


def test_memory_limit(bench: Bench) -> None:
    hog = "import time\nx = bytearray(150 << 20)\ntime.sleep(60)"
    bench.prepare(memory_bytes=100 << 20)
    bench.run(["sh", "-c", f'{sys.executable} -S -c "$0" & wait', hog], ["sleep", "1"])
    first, second = bench.ends(2)
    assert first.outcome == "memory"
    assert "memory limit" in str(first.reason)
    assert second.outcome == "ok"


def test_started_is_told_of_those_that_last(bench: Bench) -> None:
    bench.prepare()
    bench.run(["true"], "echo $$ > pid; exec sleep 60")
    started = bench.until(lambda: bench.find(sl.Started))
    assert [(one.grant, one.index, one.attempt) for one in started.items] == [(1, 2, 1)]
    assert started.items[0].pid == bench.pid_in("pid")
    assert abs(started.items[0].started_wall_us / 1e6 - time.time()) < 30
    bench.say(bench.link.kill(1, 2))
    assert bench.ends(2)[1].outcome == "cancelled"


def test_kill_and_recall(bench: Bench) -> None:
    bench.prepare(width=1)
    bench.run("echo $$ > pid; exec sleep 60", ["true"], ["true"])
    bench.pid_in("pid")
    bench.say(bench.link.recall([(1, 1), (1, 2), (9, 9)]))
    recalled = bench.until(lambda: bench.find(sl.Recalled))
    assert recalled == sl.Recalled(returned=[(1, 2), (9, 9)], begun=[(1, 1)])
    bench.say(bench.link.kill(1, 3, reason="by hand"), bench.link.kill(1, 1, grace_us=0))
    first, third = bench.ends(2)
    assert (first.outcome, first.signal) == ("cancelled", 9)
    assert (third.outcome, third.started_wall_us, third.reason) == ("cancelled", None, "by hand")
    bench.say(bench.link.kill(1, 1), bench.link.kill(5, 5))
    bench.run(["true"], grant=2)
    assert len(bench.ends(3)) == 3


def test_width_bounds_what_runs_and_may_change(bench: Bench) -> None:
    bench.prepare(width=0)
    line = "mkdir up.$LANAI_INDEX; ls -d up.* | wc -l; sleep 0.02; rmdir up.$LANAI_INDEX"
    bench.run(*[line] * 6)
    bench.say(bench.link.lane(1, 2))
    ends = bench.ends(6)
    assert max(int(bench.output(end)) for end in ends) <= 2
    assert [end.index for end in bench.ended][:1] in ([1], [2])


def test_a_repeated_run_changes_nothing(bench: Bench) -> None:
    bench.prepare()
    bench.run("echo x >> file")
    bench.run("echo x >> file")
    bench.ends()
    bench.run("echo x >> file")
    bench.run(["true"], grant=2)
    bench.ends(2)
    assert (bench.work / "file").read_text() == "x\n"


def test_ten_thousand_are_told_once_each(bench: Bench) -> None:
    bench.prepare()
    count, window = 10_000, 1_000
    sent = 0
    while len(bench.ended) < count:
        while sent < count and sent - len(bench.ended) < window:
            bench.run(*[["true"]] * 500, first=sent)
            sent += 500
        known = len(bench.ended)
        bench.until(lambda known=known: len(bench.ended) > known)
        bench.say(bench.link.forget(bench.ended[-1].sequence))
    assert [end.sequence for end in bench.ended] == list(range(1, count + 1))
    assert {end.index for end in bench.ended} == set(range(count))
    assert {end.outcome for end in bench.ended} == {"ok"}
    inventory = bench.reconnect()
    assert inventory == sl.Inventory([], [], 0)


def test_input_by_pipe(bench: Bench) -> None:
    bench.prepare(width=1, stdin="pipe")
    bench.run(["cat"], ["true"], ["wc", "-c"])
    bench.say(bench.link.input(1, 1, b"hello "), bench.link.input(1, 1, b"world", is_end=True))
    bench.say(bench.link.input(1, 2, b"nobody reads this", is_end=True))
    bench.say(bench.link.input(1, 3, bytes(1 << 20), is_end=True))
    first, second, third = bench.ends(3)
    assert bench.output(first) == b"hello world"
    assert second.outcome == "ok"
    assert bench.output(third).strip() == b"%d" % (1 << 20)
    taken = [one for one in bench.others if isinstance(one, sl.InputTaken) and one.index == 3]
    assert taken[-1] == sl.InputTaken(1, 3, 1 << 20, True)
    bench.say(bench.link.input(1, 3, b"too late"))
    bench.until(lambda: [one for one in bench.others if one == sl.InputTaken(1, 3, 0, True)])


def test_input_that_is_not_read_is_bounded(bench: Bench) -> None:
    bench.prepare(stdin="pipe")
    bench.run(["sleep", "60"])
    flood = [bench.link.input(1, 1, bytes(1 << 20))] * 8 + [bench.link.recall([])]
    with pytest.raises((sl.LinkError, OSError)):
        bench.say_and_wait(*flood)
    assert len(bench.reconnect().running) == 1


def test_input_from_a_file(bench: Bench) -> None:
    (bench.work / "in").write_text("from a file")
    bench.prepare(stdin="in")
    bench.run(["cat"])
    assert bench.output(bench.ends()[0]) == b"from a file"
    bench.prepare(stdin="nowhere")
    bench.run(["cat"], first=2)
    assert bench.ends(2)[1].exit_code == 126


def test_no_descriptor_of_the_starters_reaches_a_command(bench: Bench) -> None:
    end = bench.one("ls /proc/$$/fd")
    assert bench.output(end).split() == [b"0", b"1", b"2"]
