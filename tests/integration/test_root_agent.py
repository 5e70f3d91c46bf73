"""An agent of root's with real users: whose everything is, and what none of them can do to another or to the agent."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent.cgroups import left_in
from lanai.model.ids import grant_id
from lanai.model.job import AttemptResult
from lanai.model.resources import Shape
from lanai.wire import messages as wire
from lanai.wire import unix
from services.agent_hub import PATIENCE_S, ScriptedHub, grant, spec
from services.agent_process import AgentProcess, gone
from services.cgroups import ESCAPES, assert_kept_in, needs_cgroups
from services.starter_bench import wait_for
from services.users import made_users

ANNA, BERT = 1, 2


@pytest.fixture(scope="module")
def users() -> Iterator[list[pwd.struct_passwd]]:
    with made_users("anna+lab", "bert") as made:
        yield made


@pytest.fixture
def joined(hub: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]) -> ScriptedHub:
    """An agent that serves users, with a spec for each of the two."""
    agent.start("--as-users", cpus=4)
    hub.accept()
    assert hub.inventory() == []
    for number, user in enumerate(users, 1):
        hub.send(_spec(number, user.pw_name, cwd=user.pw_dir))
    return hub


def _spec(number: int, user: str, *, cwd: str = "/tmp", **rest: object) -> wire.Spec:
    return spec(number, batch=number, user=user, cwd=cwd, **rest)


def _one(hub: ScriptedHub, line: str, who: int = ANNA, counter: int = 1) -> AttemptResult:
    """The result of one command of that user's."""
    hub.send(grant(counter, [line.encode()], number=who))
    found: AttemptResult = hub.wait(wire.Ended, lambda one: one.results[0].grant == grant_id(1, counter)).results[0]
    return found


def _one_at_last(hub: ScriptedHub, line: str, who: int, counter: int) -> AttemptResult:
    """The result of one command that is granted anew as often as it comes back."""
    hub.send(grant(counter, [line.encode()], number=who))
    about = hub.wait(wire.Ended | wire.Returned, lambda one: grant_id(1, counter) in _grants_in(one))
    if isinstance(about, wire.Ended):
        return about.results[0]
    return _one_at_last(hub, line, who, counter + 1)


def _grants_in(message: wire.Ended | wire.Returned) -> list[int]:
    if isinstance(message, wire.Returned):
        return [number for number, _ in message.items]
    return [result.grant for result in message.results]


def test_a_job_is_its_users_in_everything(joined: ScriptedHub, users: list[pwd.struct_passwd]) -> None:
    """Ids, groups, home and name of this computer, whatever the environment that was submitted says."""
    anna = users[0]
    env = {b"PATH": b"/usr/bin:/bin", b"HOME": b"/Users/anna", b"USER": b"root", b"KEPT": b"yes"}
    joined.send(_spec(3, anna.pw_name, cwd=anna.pw_dir, env=env, umask=0o027))
    line = "id -un > who; id -Gn >> who; umask >> who; echo $HOME $USER $LOGNAME $SHELL $KEPT >> who"
    assert _one(joined, line, who=3).outcome == "ok"
    made = Path(anna.pw_dir, "who")
    name, groups, umask, named = made.read_text().splitlines()
    assert (name, umask) == (anna.pw_name, "0027")
    assert set(groups.split()) == {anna.pw_name, anna.pw_name.replace("anna", "lab")}
    assert named == f"{anna.pw_dir} {anna.pw_name} {anna.pw_name} /usr/sbin/nologin yes"
    status = made.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (anna.pw_uid, anna.pw_gid, 0o640)


def test_a_job_keeps_nothing_of_roots_rights(joined: ScriptedHub, users: list[pwd.struct_passwd]) -> None:
    """No capability, no saved id, no group of root's, no descriptor but the three."""
    line = "grep -E '^(Uid|Gid|Groups|Cap)' /proc/self/status > status; ls /proc/self/fd > fds"
    assert _one(joined, line).outcome == "ok"
    anna = users[0]
    words = dict(line.split(":") for line in Path(anna.pw_dir, "status").read_text().splitlines())
    assert words["Uid"].split() == [str(anna.pw_uid)] * 4
    assert words["Gid"].split() == [str(anna.pw_gid)] * 4
    assert "0" not in words["Groups"].split()
    assert {int(words[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert Path(anna.pw_dir, "fds").read_text().split() == ["0", "1", "2", "3"]  # 3 is that of ls itself


def test_what_one_user_does_to_another_or_to_the_agent_fails(
    joined: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd], ground: Path
) -> None:
    """Bert runs something and has written something; Anna tries whatever she can think of."""
    bert = users[1]
    joined.send(grant(1, [b"echo secret; echo $PPID > pids; exec sleep 1000"], number=BERT))
    began = joined.wait(wire.Started).items[0]
    running = next(pid for pid in _pids_of(bert.pw_uid) if _words(pid)[0] == b"sleep")
    starter = int(Path(bert.pw_dir, "pids").read_text())
    tries = [
        f"kill -9 {running}",
        f"kill -9 {starter}",
        f"kill -9 {agent.process.pid if agent.process else 0}",
        f"cat /proc/{running}/environ",
        f"cat {bert.pw_dir}/pids",
        f"ls {agent.state}/users/{bert.pw_name}",
        f"cat {agent.state}/users/{bert.pw_name}/slot0.out",
        f"ls {agent.state}/doors",
        f"ls {agent.state}/spool",
        f"cat {agent.state}/key",
        f"touch {agent.state}/x",
        f"touch {agent.state}/spool/x",
        f"echo x >> {agent.state}/spool/0000000000000001.seg",
        f"touch {agent.state}/users/x",
        f"echo x > {agent.state}/lease",
        f"ln -s /etc/shadow {agent.state}/users/{bert.pw_name}/out-000009",
        "cat /proc/$PPID/environ",
        "cat /proc/$PPID/mem",
        "ls /proc/$PPID/fd",
    ]
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    sockets = [*(agent.state / "doors" / user.pw_name / "starter.sock" for user in users), ground / "hub.sock"]
    tries += [f"python3 -c '{connect}' {path}" for path in sockets]
    with contextlib.closing(unix.listen(ground / "open.sock", mode=0o666)):
        assert _one(joined, f"python3 -c '{connect}' {ground}/open.sock", counter=3).outcome == "ok"
    joined.send(grant(2, [line.encode() for line in tries], number=ANNA))
    results = {result.index: result for result in joined.results(len(tries))}
    done = [tries[index - 1] for index, result in results.items() if result.outcome == "ok"]
    assert done == []
    assert began[0] == grant_id(1, 1) and Path(f"/proc/{running}").exists()
    joined.send(wire.Kill([(grant_id(1, 1), 1)], 0, "enough"))
    assert joined.results(1)[0].outcome == "cancelled"


@pytest.mark.parametrize("how", ["kill -9 $PPID", "kill -TERM $PPID", "kill -9 -1"])
def test_who_kills_his_own_starter_harms_his_own_jobs_only(
    joined: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd], how: str
) -> None:
    """Bert's attempts end as the node's fault, and his next one runs; Anna's goes on, and her output is right."""
    joined.send(grant(1, [b"mkfifo gate; read x < gate; echo done > gate-done"], number=ANNA))
    joined.wait(wire.Started)
    joined.send(grant(2, [b"exec sleep 1000"], number=BERT))
    joined.wait(wire.Started, lambda one: one.items[0][0] == grant_id(1, 2))
    starter = agent.starter_pid(users[1].pw_name)
    assert starter is not None
    joined.send(grant(3, [how.encode()], number=BERT))
    ended = {(result.grant, result.outcome) for result in joined.results(2)}
    if how == "kill -TERM $PPID":
        # Asked to end, it ends what it runs, and says so where it still can.
        assert {outcome for _, outcome in ended} <= {"node", "ok"} and (grant_id(1, 2), "node") in ended
    else:
        assert ended == {(grant_id(1, 2), "node"), (grant_id(1, 3), "node")}
    gone(starter)
    assert not [pid for pid in _pids_of(users[1].pw_uid) if b"sleep" in _words(pid)]
    assert _one_at_last(joined, "true", BERT, 4).outcome == "ok"
    Path(users[0].pw_dir, "gate").write_bytes(b"go\n")
    assert joined.results(1)[0].outcome == "ok"
    Path(users[0].pw_dir, "gate").unlink()


def test_who_stops_his_own_starter_loses_his_jobs_when_the_lease_is_over(
    hub: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    """A stopped starter cannot end what it runs; then the agent does, before the hub gives the jobs to others.

    That goes for what has left its session, and keeps no mark in its environment, too.
    """
    agent.start("--as-users")
    hub.accept(lease_us=3_000_000, heartbeat_us=500_000)
    hub.send(_spec(BERT, users[1].pw_name, cwd=users[1].pw_dir))
    hub.send(grant(1, [b"env -i setsid sleep 1000 & exec sleep 1000"], number=BERT))
    hub.wait(wire.Started)
    running = [pid for pid in _pids_of(users[1].pw_uid) if _words(pid)[0] == b"sleep"]
    assert len(running) == 2
    starter = agent.starter_pid(users[1].pw_name)
    assert starter is not None
    os.kill(starter, signal.SIGSTOP)
    hub.is_silent = True
    hub.inventory()
    hub.hang_up()
    for pid in running:
        gone(pid)
    gone(starter)
    hub.is_silent = False
    hub.accept()
    assert [(result.outcome, result.reason) for result in hub.results(1)] == [
        ("node", "the starter ended unexpectedly")
    ]


@pytest.mark.parametrize(
    ("arguments", "user", "reason"),
    [
        ((), "lt-nobody-knows", "there is no user lt-nobody-knows on this computer"),
        (("--no-allow-root",), "root", "jobs of root are not run on this computer (allow_root)"),
        (("--min-uid", "1000"), "daemon", "user daemon has uid 1, and this computer serves those from 1000 on"),
    ],
)
def test_whom_it_does_not_serve_it_says_so(
    hub: ScriptedHub,
    agent: AgentProcess,
    users: list[pwd.struct_passwd],
    arguments: tuple[str, ...],
    user: str,
    reason: str,
) -> None:
    """His jobs end as the node's fault, with the reason; others run, and nothing of his is left in the way."""
    agent.start("--as-users", *arguments)
    hub.accept()
    hub.send(_spec(1, user), _spec(2, users[0].pw_name))
    hub.send(grant(1, [b"true", b"true"], number=1), grant(2, [b"true"], number=2))
    found = {(result.grant, result.index): result for result in hub.results(3)}
    assert {one.reason for member, one in found.items() if member[0] == grant_id(1, 1)} == {reason}
    assert {one.outcome for member, one in found.items() if member[0] == grant_id(1, 1)} == {"node"}
    assert found[grant_id(1, 2), 1].outcome == "ok"


def test_roots_own_jobs_run_where_that_is_allowed(hub: ScriptedHub, agent: AgentProcess) -> None:
    agent.start("--as-users", "--min-uid", "1000", "--allow-root")
    hello = hub.accept()
    assert dict(hello.facts)["runs_as"] == "the users who have submitted them, from uid 1000 on"
    hub.send(_spec(1, "root"))
    assert _one(hub, "test $(id -u) = 0").outcome == "ok"


def test_a_new_agent_takes_over_what_runs_for_each_user(
    joined: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    """Killed in the middle: both users' commands go on, and their results come, those that ended meanwhile too."""
    for who, user in enumerate(users, 1):
        os.mkfifo(Path(user.pw_dir, "wait"))
        os.chown(Path(user.pw_dir, "wait"), user.pw_uid, user.pw_gid)
        joined.send(grant(who, [b"read x < wait; exit 7"], number=who))
        joined.wait(wire.Started)
    agent.kill()
    Path(users[0].pw_dir, "wait").write_bytes(b"go\n")
    agent.start("--as-users", cpus=4)
    joined.accept()
    here = {member[0] for member in joined.inventory()}
    assert here == {grant_id(1, ANNA), grant_id(1, BERT)}
    Path(users[1].pw_dir, "wait").write_bytes(b"go\n")
    assert {(one.grant, one.outcome, one.exit_code) for one in joined.results(2)} == {
        (grant_id(1, ANNA), "exit", 7),
        (grant_id(1, BERT), "exit", 7),
    }
    for user in users:
        Path(user.pw_dir, "wait").unlink()


def test_agent_and_starters_killed_together_leave_nothing_running(
    joined: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    for who in (ANNA, BERT):
        joined.send(grant(who, [b"setsid sleep 1000 & exec sleep 1001"], number=who))
        joined.wait(wire.Started)
    left = [pid for user in users for pid in _pids_of(user.pw_uid) if b"sleep" in _words(pid)]
    assert len(left) == 4
    agent.kill()
    for user in users:
        pid = agent.starter_pid(user.pw_name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        gone(pid)
    agent.start("--as-users")
    joined.accept()
    results = joined.results(2)
    assert {(one.outcome, one.reason) for one in results} == {("node", "the agent and its starter were killed")}
    for pid in left:
        gone(pid)


def test_a_directory_closed_to_the_user_is_a_named_reason(
    joined: ScriptedHub, users: list[pwd.struct_passwd], ground: Path
) -> None:
    """Root would get in; the job does not."""
    closed = ground / "closed"
    closed.mkdir(0o700)
    joined.send(_spec(3, users[0].pw_name, cwd=str(closed)), _spec(4, users[0].pw_name, cwd="/no/such/home"))
    found = _one(joined, "true", who=3)
    assert (found.outcome, found.reason) == ("node", f"working directory {closed}: Permission denied")
    found = _one(joined, "true", who=4, counter=2)
    assert (found.outcome, found.reason) == ("node", "working directory /no/such/home: No such file or directory")
    joined.send(_spec(5, users[0].pw_name, output=f"{closed}/out"))
    found = _one(joined, "true", who=5, counter=3)
    assert (found.outcome, found.exit_code) == ("exit", 126) and "Permission denied" in found.reason
    assert list(closed.iterdir()) == []


def test_a_state_that_users_cannot_reach_is_refused(ground: Path, hub: ScriptedHub) -> None:
    closed = ground / "closed"
    closed.mkdir(0o700)
    agent = AgentProcess(closed / "agent", f"unix:{ground}/hub.sock")
    agent.start("--as-users")
    assert agent.process is not None and agent.process.wait(PATIENCE_S) == 7
    assert f"users cannot get through {closed}" in agent.log.read_text()


def test_the_two_kinds_of_agent_do_not_share_a_state(agent: AgentProcess, hub: ScriptedHub) -> None:
    agent.start()
    hub.accept()
    agent.kill()
    agent.start("--as-users")
    assert agent.process is not None and agent.process.wait(PATIENCE_S) == 7
    assert "was made by an agent without --as-users" in agent.log.read_text()


def _pids_of(uid: int) -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _uid(path) == uid]


def _uid(process: Path) -> int | None:
    try:
        words = (process / "status").read_text().split()
        return int(words[words.index("Uid:") + 1])
    except (OSError, ValueError):
        return None


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def test_one_users_fork_bomb_is_not_anothers(
    hub: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    """Anna has all the processes that she may have; Bert's jobs begin and end. The bomb ends by itself after 200."""
    needs_cgroups()
    agent.start("--as-users", "--user-processes", "40", cpus=4)
    hub.accept()
    assert hub.inventory() == []
    for number, user in enumerate(users, 1):
        hub.send(_spec(number, user.pw_name, cwd=user.pw_dir))
    bomb = "n=0; while [ $n -lt 200 ]; do sleep 1000 & n=$((n + 1)); done; wait"
    ended = _one(hub, bomb)
    assert (ended.outcome, ended.exit_code) == ("exit", 2)
    assert 35 <= ended.escaped < 40
    assert len(left_in(agent.state)) == ended.escaped + 1  # and the starter
    assert _one(hub, "true", who=BERT, counter=2).outcome == "ok"


def test_with_a_users_starter_all_of_his_is_dead_and_nothing_of_anothers(
    joined: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    """Of what ran off without a mark in its environment too."""
    needs_cgroups()
    off = "(setsid env -i sleep 1000 < /dev/null > /dev/null 2>&1 &); exec sleep 1000"
    for counter, who in enumerate((ANNA, BERT), 1):
        joined.send(grant(counter, [off.encode()], number=who))
    anna, bert = users
    for user in users:
        wait_for(lambda uid=user.pw_uid: _sleeping(uid) == 2)
    starter = agent.starter_pid(anna.pw_name)
    assert starter is not None
    os.kill(starter, signal.SIGKILL)
    wait_for(lambda: not _sleeping(anna.pw_uid))
    assert _sleeping(bert.pw_uid) == 2


def test_no_user_gets_his_job_out_of_its_control_group(
    hub: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd], ground: Path
) -> None:
    """The groups are root's, and the descriptors that lead out of them are those of a starter nobody looks into."""
    needs_cgroups()
    agent.start("--as-users", "--cpu-limit", "quota")
    hub.accept()
    assert hub.inventory() == []
    anna = users[0]
    script = ground / "escapes.py"
    script.write_text(ESCAPES)
    script.chmod(0o644)
    shape = Shape(cpu_milli=500, memory_bytes=64 << 20)
    hub.send(_spec(ANNA, anna.pw_name, cwd=anna.pw_dir, shape=shape, output=f"{anna.pw_dir}/said"))
    found = _one(hub, f"/usr/bin/python3 -I -S {script}")  # without a shell, its parent is the starter
    assert found.outcome == "ok" and 0 < (found.memory_peak_bytes or 0) <= 64 << 20
    assert_kept_in(Path(anna.pw_dir, "said").read_text(), anna.pw_uid)


def _sleeping(uid: int) -> int:
    return sum(1 for pid in _pids_of(uid) if _words(pid)[:1] == [b"sleep"])
