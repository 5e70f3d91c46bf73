"""A real agent with its real starter, and a hub that says what the test says. Everything by processes and sockets."""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lanai.model.errors import ErrorBody
from lanai.model.ids import BatchId, Index, grant_id
from lanai.wire import messages as wire
from services.agent_hub import PATIENCE_S, ScriptedHub, grant, listening, spec
from services.agent_process import AgentProcess, gone

G1, G2 = grant_id(1, 1), grant_id(1, 2)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ScriptedHub]:
    with listening(tmp_path / "hub.sock") as made:
        yield made


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path / "agent", f"unix:{tmp_path}/hub.sock")
    yield made
    made.clean_up()


@pytest.fixture
def joined(hub: ScriptedHub, agent: AgentProcess, tmp_path: Path) -> ScriptedHub:
    """An agent that has joined and knows spec 1, whose commands start in the test's directory."""
    agent.start()
    hub.accept()
    assert hub.inventory() == []
    hub.send(spec(cwd=str(tmp_path)))
    return hub


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def let_go(path: Path) -> None:
    """Open a pipe that a command reads from, so that it goes on."""
    path.write_bytes(b"go\n")


def read_all(hub: ScriptedHub, stream: int) -> tuple[bytes, str]:
    """What comes on a stream until its end, and the problem it ended with."""
    data = b""
    while True:
        part = hub.wait(wire.Output, lambda one: one.stream == stream)
        assert part.offset == len(data)
        data += part.data
        if part.is_end:
            return data, part.problem


def fetch(stream: int, index: int, *, follow: bool = False, which: int = 1, credit: int = 1 << 20) -> wire.Fetch:
    return wire.Fetch(stream, BatchId(7), Index(index), 1, which, 0, follow, credit)


def test_jobs_run_and_their_results_come_from_the_spool(joined: ScriptedHub, tmp_path: Path) -> None:
    joined.send(grant(1, [b"true", b"false", b"echo $LANAI_JOB_ID > id", b"no-such-program", b"kill -9 $$"]))
    results = {result.index: result for result in joined.results(5)}
    told = {index: (one.outcome, one.exit_code, one.signal) for index, one in results.items()}
    assert told == {
        1: ("ok", 0, 0),
        2: ("exit", 1, 0),
        3: ("ok", 0, 0),
        4: ("notfound", 127, 0),
        5: ("signal", None, 9),
    }
    assert (tmp_path / "id").read_text() == "7/3\n"


def test_the_agent_says_what_it_is(hub: ScriptedHub, agent: AgentProcess) -> None:
    agent.start("--memory", "8G", "--resource", "licence=3")
    hello = hub.accept()
    assert (hello.kind, hello.name, len(hello.key)) == ("agent", "n1", 64)
    assert hello.capacity is not None
    assert (hello.capacity.cpu_milli, hello.capacity.memory_bytes) == (2000, 8 << 30)
    assert hello.capacity.named == (("licence", 3),)
    assert (agent.state / "key").stat().st_mode & 0o777 == 0o600
    assert agent.process is not None
    assert json.loads((agent.state / "agent.json").read_text())["pid"] == agent.process.pid
    agent.kill()
    agent.start()
    assert hub.accept().key == hello.key


def test_a_second_agent_of_a_state_directory_is_refused(joined: ScriptedHub, agent: AgentProcess) -> None:
    words = [sys.executable, "-m", "lanai.agent", "--state", str(agent.state), "--hub", agent.hub]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 7
    assert "runs already" in done.stderr


def test_a_killed_agent_is_followed_by_one_that_takes_over(
    joined: ScriptedHub, agent: AgentProcess, tmp_path: Path
) -> None:
    """Running commands go on without an agent, and their exit status reaches the next one."""
    door = pipe(tmp_path / "door")
    joined.send(grant(1, [b"read x < door; echo ran >> log; exit 3", b"echo ran >> log; exit 4", b"true"]))
    joined.wait(wire.Started)
    joined.results(2)
    agent.kill()
    let_go(door)
    agent.start()
    joined.accept()
    inventory = joined.inventory()
    assert [(index, state) for _, index, state in inventory if index > 1] == [(2, "ended"), (3, "ended")]
    results = {result.index: result for result in joined.results(3)}
    assert (results[1].outcome, results[1].exit_code) == ("exit", 3)
    assert (results[2].outcome, results[2].exit_code) == ("exit", 4)
    assert (tmp_path / "log").read_text() == "ran\nran\n"


def test_a_new_agent_knows_what_goes_on(joined: ScriptedHub, agent: AgentProcess, tmp_path: Path) -> None:
    """Jobs that run stay, one that had not begun is given back, and the node's cpus stay charged."""
    doors = [pipe(tmp_path / name) for name in ("door1", "door2")]
    joined.send(grant(1, [b"read x < door1", b"read x < door2"]))
    started = joined.wait(wire.Started).items
    if len(started) < 2:
        joined.wait(wire.Started)
    agent.kill()
    agent.start()
    joined.accept()
    assert joined.inventory() == [(G1, 1, "running"), (G1, 2, "running")]
    joined.send(spec(cwd=str(tmp_path)), grant(2, [b"echo after >> log"]))
    assert joined.is_quiet(wire.Ended)
    let_go(doors[0])
    assert [(result.grant, result.index, result.outcome) for result in joined.results(2)] == [
        (G1, 1, "ok"),
        (G2, 1, "ok"),
    ]
    let_go(doors[1])
    assert joined.results(1)[0].outcome == "ok"


def test_when_agent_and_starter_are_killed_what_ran_is_killed_and_charged_to_the_node(
    joined: ScriptedHub, agent: AgentProcess, tmp_path: Path
) -> None:
    joined.send(grant(1, [b"echo $$ > pid; setsid sleep 1000 & sleep 1000", b"true"]))
    joined.wait(wire.Started)
    [done] = joined.results(1)
    joined.send(wire.Forget(1))
    agent.kill()
    agent.kill_starter()
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    agent.start()
    joined.accept()
    # What the first agent's hub has committed is said once more: only whole segments of a spool are ever dropped.
    [lost] = [result for result in joined.results(2) if result.index != done.index]
    assert (lost.index, lost.outcome) == (1, "node")
    gone(pid)


def test_a_starter_that_dies_is_replaced(joined: ScriptedHub, agent: AgentProcess) -> None:
    joined.send(grant(1, [b"sleep 1000", b"sleep 1000"]))
    joined.wait(wire.Started)
    agent.kill_starter()
    assert {(result.index, result.outcome) for result in joined.results(2)} == {(1, "node"), (2, "node")}
    joined.send(grant(2, [b"true"]))
    assert joined.results(1)[0].outcome == "ok"


def test_sigterm_leaves_what_runs(joined: ScriptedHub, agent: AgentProcess, tmp_path: Path) -> None:
    door = pipe(tmp_path / "door")
    joined.send(grant(1, [b"read x < door; exit 5"]))
    joined.wait(wire.Started)
    assert agent.process is not None
    agent.process.terminate()
    assert agent.process.wait(PATIENCE_S) == 0
    assert not (agent.state / "agent.json").exists()
    let_go(door)
    agent.start()
    joined.accept()
    assert joined.results(1)[0].exit_code == 5


def test_recall_and_kill(joined: ScriptedHub) -> None:
    joined.send(grant(1, [b"sleep 1000"] * 4))
    joined.wait(wire.Started)
    joined.send(wire.Recall([(G1, 1, 4)]))
    assert sorted(joined.wait(wire.Returned).items) == [(G1, 3), (G1, 4)]
    joined.send(wire.Kill([(G1, Index(1)), (G2, Index(4))], 1_000_000, "cancelled by tester"))
    assert joined.wait(wire.Returned).items == [(G2, 4)]
    [result] = joined.results(1)
    assert (result.index, result.outcome, result.reason) == (1, "cancelled", "cancelled by tester")
    joined.send(wire.Kill([(G1, Index(2))], 0, "cancelled by tester"))
    assert joined.results(1)[0].outcome == "cancelled"


def test_an_end_of_lease_ends_what_runs(hub: ScriptedHub, agent: AgentProcess, tmp_path: Path) -> None:
    """The hub is reachable and silent: after the lease nothing of it runs any more, by the node's fault."""
    agent.start()
    hub.accept(lease_us=1_500_000, heartbeat_us=300_000)
    hub.send(spec(cwd=str(tmp_path)), grant(1, [b"echo $$ > pid; sleep 1000"]))
    hub.wait(wire.Started)
    hub.is_silent = True
    [result] = hub.results(1)
    assert result.outcome != "ok"
    gone(int((tmp_path / "pid").read_text()))


def test_a_hub_that_is_down_ends_nothing(hub: ScriptedHub, agent: AgentProcess, tmp_path: Path) -> None:
    """Refused connects prove that there is no hub, and renew the lease."""
    door = pipe(tmp_path / "door")
    agent.start()
    hub.accept(lease_us=3_000_000, heartbeat_us=500_000)
    hub.send(spec(cwd=str(tmp_path)), grant(1, [b"read x < door"]))
    hub.wait(wire.Started)
    hub.close()
    (tmp_path / "hub.sock").unlink()
    until_us = json.loads((agent.state / "lease").read_text())[1]
    poll = select.poll()
    while json.loads((agent.state / "lease").read_text() or "[0,0]")[1] < until_us + 3_500_000:
        poll.poll(20)
    with listening(tmp_path / "hub.sock") as second:
        second.accept()
        assert second.inventory() == [(G1, 1, "running")]
        let_go(door)
        assert second.results(1)[0].outcome == "ok"


def test_output_is_fetched_after_the_end_and_its_tail_comes_by_itself(joined: ScriptedHub) -> None:
    lines = [b"echo out; echo err >&2; false", b"true", b"head -c 200000 /dev/zero | tr '\\0' x; exit 1"]
    joined.send(grant(1, lines))
    joined.results(3)
    tails = {tail.index: tail for tail in (joined.wait(wire.Tail), joined.wait(wire.Tail))}
    assert (tails[1].out, tails[1].err, tails[1].out_bytes) == (b"out\n", b"err\n", 4)
    assert (tails[3].out, tails[3].out_bytes) == (b"x" * 65536, 200_000)
    assert joined.is_quiet(wire.Tail)
    joined.send(fetch(1, 1), fetch(2, 1, which=2), fetch(3, 2), fetch(4, 3))
    assert read_all(joined, 1) == (b"out\n", "")
    assert read_all(joined, 2) == (b"err\n", "")
    assert read_all(joined, 3) == (b"", "")
    assert read_all(joined, 4) == (b"x" * 200_000, "")


def test_output_is_sent_only_as_far_as_there_is_credit(joined: ScriptedHub) -> None:
    joined.send(grant(1, [b"head -c 300000 /dev/zero"]))
    joined.results(1)
    joined.send(fetch(1, 1, credit=100_000))
    got = 0
    while got < 100_000:
        got += len(joined.wait(wire.Output).data)
    assert got == 100_000
    assert joined.is_quiet(wire.Output)
    joined.send(wire.Credit(1, 50_000))
    assert len(joined.wait(wire.Output).data) == 50_000
    joined.send(wire.Unfetch(1), wire.Credit(1, 50_000))
    assert joined.is_quiet(wire.Output)


def test_output_is_followed_while_the_command_runs(joined: ScriptedHub, tmp_path: Path) -> None:
    """Also by an agent that came later than the command, and across the move of the output at its end."""
    door = pipe(tmp_path / "door")
    joined.send(grant(1, [b"echo one; read x < door; echo two"]), fetch(2, 1, follow=True))
    assert joined.wait(wire.Output).data == b"one\n"
    joined.send(fetch(3, 1))
    assert read_all(joined, 3) == (b"one\n", "")
    let_go(door)
    last = joined.wait(wire.Output)
    assert (last.offset, last.data) == (4, b"two\n")


def test_input_reaches_the_command(joined: ScriptedHub) -> None:
    joined.send(spec(2, batch=8, stdin="pipe"), wire.Input(BatchId(8), Index(1), 0, b"ab", False))
    joined.send(grant(2, [b"cat"], number=2))
    joined.send(wire.Input(BatchId(8), Index(1), 1, b"bcd\n", True))
    assert joined.results(1)[0].outcome == "ok"
    assert joined.wait(wire.Tail).out == b"abcd\n"
    taken = joined.wait(wire.InputTaken, lambda one: one.offset == 5)
    assert (taken.batch, taken.index, taken.attempt) == (8, 1, 1)


def test_an_agent_that_takes_over_says_how_much_its_predecessor_gave(
    joined: ScriptedHub, agent: AgentProcess, tmp_path: Path
) -> None:
    """The hub sends again what it heard nothing of, and the command gets it once."""
    joined.send(spec(2, batch=8, stdin="pipe", cwd=str(tmp_path)), grant(2, [b"cat"], number=2))
    joined.send(wire.Input(BatchId(8), Index(1), 0, b"abc", False, 1))
    joined.wait(wire.InputTaken, lambda one: one.offset == 3)
    agent.kill()
    agent.start()
    joined.accept()
    joined.send(wire.Input(BatchId(8), Index(1), 0, b"abc", False, 1))
    assert joined.inventory() == [(G2, 1, "running")]
    assert joined.wait(wire.InputTaken) == wire.InputTaken(BatchId(8), Index(1), 3, "", 1, wire.InputState.OPEN)
    joined.send(wire.Input(BatchId(8), Index(1), 7, b"too far", False, 1))
    missing = joined.wait(wire.InputTaken)
    assert (missing.offset, missing.state) == (3, wire.InputState.MISSING)
    joined.send(wire.Input(BatchId(8), Index(1), 2, b"cde", True, 1))
    closed = joined.wait(wire.InputTaken)
    assert (closed.offset, closed.state) == (5, wire.InputState.CLOSED)
    assert joined.results(1)[0].outcome == "ok"
    assert joined.wait(wire.Tail).out == b"abcde"


def test_where_no_starter_can_be_started_the_node_says_so_and_tries_on(hub: ScriptedHub, agent: AgentProcess) -> None:
    """A moment without memory or processes for a fork ended the agent."""
    agent.state.mkdir()
    in_the_way = agent.state / "starter"
    in_the_way.touch()
    agent.start()
    hub.accept(heartbeat_us=100_000)
    troubled = hub.wait(wire.Heartbeat, lambda beat: bool(beat.trouble))
    assert troubled.trouble == "cannot start commands: Not a directory"
    hub.send(spec(), grant(1, [b"true"]))
    assert hub.wait(wire.Returned).items == [(G1, 1)]
    in_the_way.unlink()
    hub.wait(wire.Heartbeat, lambda beat: not beat.trouble)
    hub.send(grant(2, [b"true"]))
    assert hub.results(1)[0].outcome == "ok"


def test_very_long_words_of_any_bytes_are_not_found_and_named_in_short(hub: ScriptedHub, agent: AgentProcess) -> None:
    """A few of them passed what a frame to the starter holds, or one to the hub: either ended the agent."""
    agent.start(cpus=8)
    hub.accept()
    hub.send(spec())
    for index in range(1, 9):
        hub.send(grant(1, [b"x\xff" * 400_000], first=index))
    results = hub.results(8)
    assert {result.outcome for result in results} == {"notfound"}
    assert {len(result.reason) for result in results} == {500}


def test_a_grant_in_two_messages_runs_whole_although_the_first_has_ended(joined: ScriptedHub) -> None:
    joined.send(grant(1, [b"true"]))
    joined.results(1)
    joined.send(grant(1, [b"true"], first=2))
    assert [result.index for result in joined.results(1)] == [2]


def test_a_drained_agent_that_is_to_leave_ends_with_its_starter(joined: ScriptedHub, agent: AgentProcess) -> None:
    joined.send(grant(1, [b"true"]))
    joined.results(1)
    starter = agent.starter_pid()
    assert starter is not None
    joined.send(wire.Drain(True, leave=True), wire.Forget(1))
    assert agent.process is not None
    assert agent.process.wait(PATIENCE_S) == 0
    gone(starter)


def test_an_agent_of_a_private_hub_ends_after_it(hub: ScriptedHub, agent: AgentProcess) -> None:
    agent.start("--end-with-hub", "0.2")
    hub.accept()
    hub.close()
    assert agent.process is not None
    assert agent.process.wait(PATIENCE_S) == 0


def test_a_refused_agent_says_so_to_who_started_it(hub: ScriptedHub, agent: AgentProcess) -> None:
    read, write = os.pipe()
    words = [sys.executable, "-m", "lanai.agent", "--state", str(agent.state), "--hub", agent.hub]
    process = subprocess.Popen([*words, "--ready-fd", str(write)], pass_fds=(write,), stderr=subprocess.DEVNULL)
    os.close(write)
    agent.process = process
    hub.accept_hello()
    hub.send(wire.Refused(ErrorBody(code="not_allowed", message="no such token", exit_code=4)))
    with open(read, "rb") as file:
        assert json.loads(file.readline())["error"]["code"] == "not_allowed"
    hub.accept()


def certificate(directory: Path) -> ssl.SSLContext:
    """A server's context with a certificate of its own, `cert.pem` in the directory."""
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=lanai".split()
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run([*words, *files], check=True, capture_output=True)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return made


@pytest.fixture
def tls_hub(tmp_path: Path) -> Iterator[tuple[ScriptedHub, Callable[[str], Path]]]:
    """A hub on TLS, and what writes a join file for it with a given pin (or the right one, if empty)."""
    context = certificate(tmp_path)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"lanai://127.0.0.1:{listener.getsockname()[1]}"
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert((tmp_path / "cert.pem").read_text())).hexdigest()

    def join(other_pin: str) -> Path:
        path = tmp_path / "join"
        path.write_text(json.dumps({"url": url, "pin": other_pin or pin, "token": "ab" * 32}))
        return path

    made = ScriptedHub(listener, context)
    yield made, join
    made.close()


def test_tls_with_the_right_pin(
    tls_hub: tuple[ScriptedHub, Callable[[str], Path]], agent: AgentProcess, tmp_path: Path
) -> None:
    hub, join = tls_hub
    agent.hub = ""
    agent.start("--join", str(join("")))
    assert hub.accept().token == "ab" * 32
    hub.send(spec(cwd=str(tmp_path)), *[grant(n, [b"echo " + b"x" * 3000] * 100) for n in range(1, 11)])
    assert len(hub.results(1000)) == 1000


def test_a_hub_with_another_certificate_is_told_nothing(
    tls_hub: tuple[ScriptedHub, Callable[[str], Path]], agent: AgentProcess
) -> None:
    hub, join = tls_hub
    read, write = os.pipe()
    words = [sys.executable, "-m", "lanai.agent", "--state", str(agent.state), "--join", str(join("cd" * 32))]
    process = subprocess.Popen([*words, "--ready-fd", str(write)], pass_fds=(write,), stderr=subprocess.DEVNULL)
    os.close(write)
    agent.process = process
    with pytest.raises((ConnectionError, ssl.SSLError)):
        hub.accept_hello()
    with open(read, "rb") as file:
        assert json.loads(file.readline())["error"]["code"] == "wrong_pin"
