"""The starter with real processes: what it survives, and when it ends. Agents lost, rubbish, shortages, its death."""

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.agent import starter_link as sl
from services.starter_bench import TIMEOUT_S, Bench, hello, is_alive, now_us, wait_for


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


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
