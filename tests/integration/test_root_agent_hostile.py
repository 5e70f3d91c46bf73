"""What a user does to an agent of root's, to other users, and to what is left of his own attempts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent import starter_processes as processes
from lanai.model.ids import grant_id
from lanai.wire import messages as wire
from services.agent_process import gone
from services.root_agent import RootAgent, root_agent
from services.users import made_users

ANNA, BERT = 1, 2
_JOIN, _SEARCH, _SESSION = 1, 10, -3
_KEYCTL = {"x86_64": (250, 248), "aarch64": (219, 217)}


FILL = """
import os
kept = {name: os.environ[name] for name in ("LANAI_MARK",)}
big = {f"A{i}": chr(10) * 120_000 for i in range(10)}
for n in range(100):
    os.spawnve(os.P_NOWAIT, "/bin/sleep", ["sleep", "1000"], big | kept)
os.kill(int(os.environ["STARTER"]), 9)
"""


@pytest.fixture(scope="module")
def users() -> Iterator[list[pwd.struct_passwd]]:
    with made_users("anna", "bert") as made:
        yield made


@pytest.fixture
def serving(users: list[pwd.struct_passwd]) -> Iterator[RootAgent]:
    """An agent that has joined, with a batch of each user's."""
    with root_agent() as made:
        made.join()
        for number, user in enumerate(users, 1):
            made.name_spec(number, user.pw_name, cwd=user.pw_dir)
        yield made


LEAVING = {
    "a session": "setsid sleep {n} & echo $! >> {pids}; exec sleep {n}",
    "two forks": "(setsid sh -c '(sleep {n} & echo $! >> {pids}) &' &); exec sleep {n}",
    "nohup": "nohup sleep {n} > /dev/null 2>&1 & echo $! >> {pids}; exec sleep {n}",
    "signals ignored": "(trap '' TERM HUP; setsid sh -c 'echo $$ >> {pids}; sleep {n}; sleep {n}' &); exec sleep {n}",
    "no environment": "env -i /usr/bin/setsid /bin/sh -c 'echo $$ >> {pids}; exec sleep {n}' & exec sleep {n}",
}


@pytest.mark.parametrize("way", LEAVING)
def test_what_leaves_its_session_is_ended_with_its_attempt(
    serving: RootAgent, users: list[pwd.struct_passwd], way: str
) -> None:
    pids = Path(users[0].pw_dir, "pids")
    os.mkfifo(pids)
    os.chown(pids, users[0].pw_uid, users[0].pw_gid)
    try:
        serving.give(1, LEAVING[way].format(n=1000, pids=pids), number=ANNA)
        with open(pids, encoding="ascii") as told:
            left = int(told.readline())
        assert Path(f"/proc/{left}").stat().st_uid == users[0].pw_uid
        serving.hub.send(wire.Kill([(grant_id(1, 1), 1)], 200_000, "cancelled"))
        assert serving.results(1)[0].outcome == "cancelled"
        gone(left)
    finally:
        pids.unlink()


def test_links_in_his_own_directory_lead_nobody_astray(
    serving: RootAgent, users: list[pwd.struct_passwd]
) -> None:
    """He has put links to what only root may read or write in the place of everything that is kept for him."""
    secret = serving.ground / "secret"
    secret.write_text("root's\n")
    secret.chmod(0o600)
    theirs = Path(users[1].pw_dir, "theirs")
    theirs.mkdir()
    os.chown(theirs, users[1].pw_uid, users[1].pw_gid)
    own = serving.agent.state / "users" / users[0].pw_name
    names = ["starter.log", *(f"slot{n}.{s}" for n in range(5) for s in ("out", "err"))]
    names += [f"out-{n:06d}" for n in range(1, 5)]
    traps = [f"rm -rf {own}/{name}; ln -s {secret} {own}/{name}" for name in names]
    traps += [f"rm -rf {own}/jobs; ln -s {theirs} {own}/jobs", f"chmod 777 {own}"]
    serving.give(1, "; ".join(traps), number=ANNA)
    assert serving.results(1)[0].outcome == "ok"
    serving.give(2, *["echo small", "head -c 100000 /dev/zero", "kill -9 $PPID"], number=ANNA)
    assert len(serving.results(2, 3)) == 3
    serving.give(3, "echo again", "head -c 100000 /dev/zero", number=ANNA)
    serving.results(3, 2)
    serving.give(4, "echo fine; id -un", number=BERT)
    assert serving.results(4)[0].outcome == "ok"
    assert secret.read_text() == "root's\n" and secret.stat().st_uid == 0
    assert list(theirs.iterdir()) == []
    assert (own.lstat().st_uid, own.parent.stat().st_uid) == (users[0].pw_uid, 0)
    theirs.rmdir()


def test_his_directory_cannot_be_taken_from_its_place(
    serving: RootAgent, users: list[pwd.struct_passwd]
) -> None:
    """Renamed, removed, or put in another's place: what lies above it is root's."""
    own, other = (serving.agent.state / "users" / user.pw_name for user in users)
    serving.give(1, "true", number=ANNA)
    serving.give(2, "true", number=BERT)
    assert [serving.results(n)[0].outcome for n in (1, 2)] == ["ok", "ok"]
    tries = [
        f"mv {own} {own}.away",
        f"mv {own} {other}",
        f"rmdir {own}",
        f"ln -s /etc {own.parent}/another",
        f"mv {own.parent} {own.parent}.away",
        f"mkdir {serving.agent.state}/doors/x",
        f"ln {serving.agent.state}/key {own}/key",
    ]
    serving.give(3, *tries, number=ANNA)
    assert [tries[n] for n, result in enumerate(serving.results(3, len(tries))) if result.outcome == "ok"] == []


def test_who_fills_his_environment_does_not_hold_up_the_agent(
    serving: RootAgent, users: list[pwd.struct_passwd]
) -> None:
    """Root looks through the environments of all processes for what a dead starter has left."""
    script = Path(users[0].pw_dir, "fill.py")
    script.write_text(FILL)
    serving.give(1, f"STARTER=$PPID exec python3 {script}", number=ANNA)
    assert serving.results(1)[0].outcome == "node"
    for pid in _sleeping(users[0].pw_uid):
        gone(pid)
    serving.give(2, "true", number=ANNA)
    assert serving.results(2)[0].outcome == "ok"


def test_a_starter_stands_in_no_directory_of_roots(serving: RootAgent, users: list[pwd.struct_passwd]) -> None:
    serving.give(1, "true", number=ANNA)
    assert serving.results(1)[0].outcome == "ok"
    starter = serving.agent.starter_pid(users[0].pw_name)
    assert os.readlink(f"/proc/{starter}/cwd") in ("/", users[0].pw_dir)


def test_nothing_of_the_agents_can_be_read_by_users(serving: RootAgent, users: list[pwd.struct_passwd]) -> None:
    """Not what it keeps of results either; the hub was restored meanwhile, so that those are put aside."""
    serving.give(1, "echo secret; exit 3", number=BERT)
    serving.results(1)
    serving.hub.accept(epoch=2)
    serving.hub.inventory()
    state = serving.agent.state
    apart = state / "apart.ndjson"
    assert '"exit_code":3' in apart.read_text()
    serving.name_spec(ANNA, users[0].pw_name, cwd=users[0].pw_dir)
    names = [str(path) for path in state.rglob("*") if path.is_file() and path.name not in ("agent.json", "joined")]
    assert str(apart) in names and len(names) > 10
    reading = [f"cat {name}" for name in names if f"/users/{users[0].pw_name}/" not in name]
    serving.hub.send(wire.Grant(grant_id(2, 1), ANNA, 1, [(1, len(reading))], "\0".join(reading).encode()))
    ended = serving.hub.results(len(reading))
    assert [reading[result.index - 1] for result in ended if result.outcome == "ok"] == []


@pytest.mark.skipif(os.uname().machine not in _KEYCTL, reason="the numbers of the calls are not known here")
def test_roots_keys_are_not_the_jobs(users: list[pwd.struct_passwd]) -> None:
    """The agent was started in a session that has a key: children possess it too, whatever their user."""
    keyctl, add_key = _KEYCTL[os.uname().machine]
    call = ctypes.CDLL(None, use_errno=True).syscall
    if call(keyctl, _JOIN, None) < 0:
        pytest.skip(f"no keyring to be had here: {os.strerror(ctypes.get_errno())}")
    assert call(add_key, b"user", b"lanai-secret", b"x", 1, _SESSION) > 0
    finder = Path(users[0].pw_dir, "find.py")
    search = f"call({keyctl}, {_SEARCH}, {_SESSION}, b'user', b'lanai-secret', 0)"
    finder.write_text(f"import ctypes, sys; call = ctypes.CDLL(None).syscall; sys.exit({search} >= 0)")
    with root_agent() as serving:
        assert subprocess.run([sys.executable, finder], check=False).returncode == 1
        serving.join()
        serving.name_spec(ANNA, users[0].pw_name)
        serving.give(1, f"python3 {finder}", number=ANNA)
        assert serving.results(1)[0].outcome == "ok"


def _sleeping(uid: int) -> list[int]:
    """Processes of his that live and sleep on."""
    found: list[int] = []
    for process in processes.every_process():
        with contextlib.suppress(OSError):
            path = Path(f"/proc/{process.pid}")
            if path.stat().st_uid == uid and (path / "comm").read_text() == "sleep\n":
                found.append(process.pid)
    return found
