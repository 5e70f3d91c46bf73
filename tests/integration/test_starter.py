"""The starter with real processes: what it runs, ends, reports and survives."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.agent import starter_link as sl
from services.starter_bench import ENVIRONMENT, TIMEOUT_S, Bench, hello, is_alive, now_us, wait_for


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


AGENT = """
import sys
from pathlib import Path
from lanai.agent import starter_link as sl
directory, work = Path(sys.argv[1]), sys.argv[2]
c = sl.Connection(sl.own_place(directory))
c.send(c.link.inventory())
c.send(c.link.spec(1, batch=7, cwd=work, env={"PATH": "/usr/bin:/bin"}))
c.send(c.link.lane(1, 2))
rows = [[1, 1, "exit 5"], [2, 1, "echo $$ > pid; read x < go; exit 6"], [3, 1, "exit 7"]]
c.send(c.link.run(1, 1, 44, rows))
while True:
    report = c.receive(60)
    if isinstance(report, sl.EndedMany):
        print(len(report.items), flush=True)
"""


def test_the_agent_is_killed_and_the_next_one_takes_over(bench: Bench) -> None:
    os.mkfifo(bench.work / "go")
    words = [sys.executable, "-c", AGENT, str(bench.directory), str(bench.work)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline()
        pid = bench.pid_in("pid")
        agent.kill()
    inventory = bench.reconnect()
    assert [(one.grant, one.index, one.pid) for one in inventory.running] == [(44, 2, pid)]
    with open(bench.work / "go", "w") as go:
        go.write("\n")
    assert [end.exit_code for end in bench.ends(3)] == [5, 6, 7]
    bench.say(bench.link.forget(bench.ended[1].sequence))
    left = bench.ended[2:]
    bench.ended.clear()
    assert bench.reconnect().ended == 1
    bench.until(lambda: bench.ended)
    assert bench.ended == left


def test_the_lease_ends_everything_without_an_agent(bench: Bench) -> None:
    bench.prepare(width=1)
    bench.run("(setsid sh -c 'echo $$ > stray; sleep 60' &) ; echo $$ > pid; sleep 60", ["true"])
    pid, stray = bench.pid_in("pid"), bench.pid_in("stray")
    bench.say(bench.link.lease(now_us() + 300_000))
    bench.connection.close()
    wait_for(lambda: not is_alive(pid) and not is_alive(stray))
    bench.reconnect()
    first, second = bench.ends(2)
    assert (first.outcome, first.reason) == ("node", "lease expired")
    assert (second.outcome, second.started_wall_us) == ("node", None)
    bench.prepare()
    bench.run(["true"], grant=2)
    assert bench.ends(3) and bench.ended[2].reason == "lease expired"
    bench.say(bench.link.lease(None))
    bench.run(["true"], grant=3)
    assert bench.ends(4) and bench.ended[3].outcome == "ok"


def test_a_frozen_starter_begins_nothing_past_its_lease(bench: Bench) -> None:
    """Frozen and thawed beyond its lease, with work waiting: the hub has given that work to somebody else."""
    os.mkfifo(bench.work / "go")
    bench.prepare(width=1)
    bench.run("echo $$ > pid; read x < go", "echo > wrong")
    bench.pid_in("pid")
    until_us = now_us() + 200_000
    bench.say(bench.link.lease(until_us))
    os.kill(bench.pid, signal.SIGSTOP)
    with open(bench.work / "go", "w") as go:
        go.write("\n")
    wait_for(lambda: now_us() > until_us)
    os.kill(bench.pid, signal.SIGCONT)
    assert bench.ends(2)[1].reason == "lease expired"
    assert not (bench.work / "wrong").exists()


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


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        struct.pack(">I", 5) + b"hello",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 14) + b'{"m":"kill"}  ',
        struct.pack(">I", 200_000) + b" " * 200_000,
        struct.pack(">I", 60_000) + b"[" * 60_000,
        b"\0\0",
        b"",
    ],
)
def test_garbage_disturbs_nobody(bench: Bench, garbage: bytes) -> None:
    with sl.connect(sl.own_place(bench.directory)) as stranger:
        stranger.settimeout(TIMEOUT_S)
        try:
            stranger.sendall(garbage)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert bench.one(["true"]).outcome == "ok"


@pytest.mark.parametrize(
    "message",
    [
        {"m": "run", "spec": 99, "lane": 1, "grant": 1, "items": []},
        {"m": "run", "spec": 1, "lane": [], "grant": 1, "items": []},
        {"m": "run", "spec": 1, "lane": 1, "grant": "x", "items": [[1, 1, "true"]]},
        {"m": "run", "spec": 1, "lane": 1, "grant": 1, "items": [[{}, 1, "true"]]},
        {"m": "kill", "grant": [], "index": 1, "why": "cancelled"},
        {"m": "spec", "id": 2},
        {"m": "nonsense"},
        {"m": ["nonsense"]},
        {"m": "lease", "until_us": "tomorrow"},
        {"m": "read", "id": 1, "items": [[[1, 1, 1]]]},
        {"m": "read", "id": 1, "items": [[[1, 1, 1], 0, "all"]]},
        {"m": "read", "id": [], "items": []},
        {"m": "sweep", "keep_us": 1},
    ],
)
def test_a_malformed_message_costs_the_connection_only(bench: Bench, message: Any) -> None:
    bench.prepare()
    bench.run("echo $$ > pid; sleep 60")
    bench.pid_in("pid")
    with pytest.raises((sl.LinkError, OSError)):
        bench.say_and_wait(sl._frame(message))
    assert len(bench.reconnect().running) == 1


def test_another_protocol_is_refused(bench: Bench) -> None:
    with sl.connect(sl.own_place(bench.directory)) as stranger:
        stranger.sendall(sl._frame({"m": "hello", "protocol": 2, "agent_pid": 1}))
        stranger.settimeout(TIMEOUT_S)
        reports = list(sl.StarterLink().feed(stranger.recv(1000)))
    assert reports == [sl.Refused(1, "protocol 2")]


def test_a_new_agent_replaces_the_old_connection(bench: Bench) -> None:
    new = sl.Connection(sl.own_place(bench.directory))
    try:
        with pytest.raises((sl.LinkError, OSError)):
            bench.until(lambda: False)
    finally:
        new.close()


def test_a_path_too_long_for_an_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    bench = Bench(deep)
    try:
        assert bench.one(["true"]).outcome == "ok"
    finally:
        bench.close()


def test_it_ends_itself_when_it_is_of_no_use(tmp_path: Path) -> None:
    bench = Bench(tmp_path, idle_s=0.2)
    try:
        bench.one("exit 1")
        bench.connection.close()
        assert bench.reconnect().ended == 1
        bench.ends(2)
        bench.say(bench.link.forget(1))
        bench.connection.close()
        assert bench.wait_gone() == 0
    finally:
        bench.close()


def test_quit_when_idle_waits_for_what_runs(bench: Bench) -> None:
    bench.prepare()
    bench.run(["sleep", "0.3"])
    bench.say(bench.link.quit_when_idle())
    end = bench.ends()[0]
    assert end.outcome == "ok"
    bench.say(bench.link.forget(end.sequence))
    assert bench.wait_gone() == 0


def test_its_directory_vanishes(bench: Bench, tmp_path: Path) -> None:
    bench.prepare()
    bench.run("echo $$ > pid; sleep 60")
    pid = bench.pid_in("pid")
    bench.directory.rename(tmp_path / "elsewhere")
    assert bench.wait_gone() == 0
    assert not is_alive(pid)


def test_sigterm_ends_what_it_runs(bench: Bench) -> None:
    bench.prepare()
    bench.run("echo $$ > pid; sleep 60")
    pid = bench.pid_in("pid")
    os.kill(bench.pid, signal.SIGTERM)
    assert bench.ends()[0].outcome == "node"
    assert bench.wait_gone() == 0
    assert not is_alive(pid)


def test_leftovers_of_a_killed_starter(bench: Bench) -> None:
    bench.prepare()
    bench.run("(setsid sh -c 'echo $$ > stray; sleep 60' &) ; echo $$ > pid; sleep 60")
    pids = [bench.pid_in("pid"), bench.pid_in("stray")]
    os.kill(bench.pid, signal.SIGKILL)
    assert bench.wait_gone() == -signal.SIGKILL
    assert sl.kill_leftovers(sl.own_place(bench.directory)) >= 2
    wait_for(lambda: not any(map(is_alive, pids)))


def test_no_descriptor_of_the_starters_reaches_a_command(bench: Bench) -> None:
    end = bench.one("ls /proc/$$/fd")
    assert bench.output(end).split() == [b"0", b"1", b"2"]


def with_limits(directory: Path, soft: int, hard: int) -> str:
    """A Python that may have so many files open."""
    path = directory / "python"
    path.write_text(f'#!/bin/sh\nulimit -Sn {soft} && ulimit -Hn {hard} && exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("settings", [{}, {"stdin": "pipe"}, {"stderr": "named.%i"}])
def test_more_slots_than_the_soft_limit_allows_and_commands_keep_theirs(tmp_path: Path, settings: Any) -> None:
    """Each slot is a pair of files: with a soft limit of 64 a starter once ran 25 commands, and failed others."""
    bench = Bench(tmp_path, python=with_limits(tmp_path, 64, 400))
    try:
        os.mkfifo(bench.work / "go")
        bench.prepare(width=100, **settings)
        bench.run(*["ulimit -Sn; ulimit -Hn; read line < go"] * 100)
        bench.until(lambda: bench.begun() == 100)
        go = os.open(bench.work / "go", os.O_RDWR)
        os.write(go, b"\n" * 100)
        ends = bench.ends(100)
        os.close(go)
        assert {(end.outcome, end.reason) for end in ends} == {("ok", None)}
        assert {bench.output(end) for end in ends} == {b"64\n400\n"}
    finally:
        bench.close()


@pytest.mark.parametrize("settings", [{}, {"stdin": "pipe", "stdout": "named.%i", "stderr": "named.%i"}])
@pytest.mark.parametrize("features", [["unbegun"], []])
def test_out_of_descriptors_is_not_the_jobs_fault_and_says_what_to_do(
    tmp_path: Path, settings: Any, features: list[str]
) -> None:
    """It also leaves some to the starter itself, which goes on. An agent that takes none back has them end."""
    bench = Bench(tmp_path, python=with_limits(tmp_path, 40, 48))
    try:
        bench.say(hello(features=features), bench.link.inventory())
        bench.prepare(width=60, **settings)
        bench.run(*[["sleep", "60"]] * 60)
        bench.until(lambda: bench.begun() and bench.begun() + len(bench.ended) + bench.given_back() == 60)
        failed, bench.ended = bench.ended, []
        back = bench.given_back()
        assert (bool(failed), bool(back)) == (not features, bool(features))
        assert {end.outcome for end in failed} <= {"node"}
        reasons = [str(end.reason) for end in failed]
        reasons += [one.why for one in bench.others if isinstance(one, sl.Unbegun)]
        assert all("may have 48 files open; start the agent with a higher limit" in reason for reason in reasons)
        count = 60 - len(failed) - back
        bench.say(*[bench.link.kill(1, index, grace_us=0) for index in range(1, 61)])
        assert {end.outcome for end in bench.ends(count)} == {"cancelled"}
        bench.prepare()
        bench.ended.clear()
        bench.run(["echo", "on it goes"], grant=2)
        assert bench.output(bench.ends()[0]) == b"on it goes\n"
    finally:
        bench.close()


def test_it_needs_the_standard_library_only(bench: Bench) -> None:
    text = Path(f"/proc/{bench.pid}/cmdline").read_bytes().split(b"\0")
    assert text[1:3] == [b"-I", b"-S"]
    assert b"site-packages" not in Path(f"/proc/{bench.pid}/maps").read_bytes()
