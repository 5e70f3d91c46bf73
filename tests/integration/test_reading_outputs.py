"""Outputs as the starter reads them for a real agent: files of every kind, old ones, many, and users' tricks."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.model.ids import BatchId, Index
from lanai.wire import messages as wire
from services.agent_hub import ScriptedHub, grant, spec
from services.agent_process import AgentProcess, gone
from services.processes import eventually
from services.users import made_users

NOT_KEPT = "this output is not kept here any more"
DAY_S = 24 * 3600
BIG = b"head -c 200000 /dev/zero | tr '\\0' x"


@pytest.fixture
def work(ground: Path) -> Path:
    made = ground / "work"
    made.mkdir()
    return made


@pytest.fixture
def joined(hub: ScriptedHub, agent: AgentProcess, work: Path) -> ScriptedHub:
    """An agent that has joined; of spec 1 the starter keeps the output, of spec 2 it goes to files, both in `work`."""
    agent.start()
    meet(hub, work)
    return hub


def meet(hub: ScriptedHub, work: Path) -> None:
    hub.accept()
    hub.inventory()
    hub.send(spec(1, batch=1, cwd=str(work)), spec(2, batch=2, cwd=str(work), output="out.%i"))


def fetch(stream: int, batch: int, index: int = 1, *, follow: bool = False, which: int = 1) -> wire.Fetch:
    return wire.Fetch(stream, BatchId(batch), Index(index), 1, which, 0, follow, 1 << 24)


def read_all(hub: ScriptedHub, asked: wire.Fetch | int) -> tuple[bytes, str]:
    """What comes on a stream, asked for now or before, until its end; and the problem it ended with."""
    if isinstance(asked, wire.Fetch):
        hub.send(asked)
    stream = asked if isinstance(asked, int) else asked.stream
    data = b""
    while True:
        part = hub.wait(wire.Output, lambda one: one.stream == stream)
        assert part.offset == len(data)
        data += part.data
        if part.is_end:
            return data, part.problem


def door(work: Path, name: str = "door") -> Path:
    path = work / name
    os.mkfifo(path)
    return path


def kill_all(agent: AgentProcess, user: str = "") -> None:
    """The agent, then the starter."""
    pid = agent.starter_pid(user)
    assert pid is not None
    agent.kill()
    os.kill(pid, 9)
    gone(pid)


# -- while an attempt runs


def test_output_to_a_file_of_ones_own_is_followed(joined: ScriptedHub, work: Path) -> None:
    gate = door(work)
    joined.send(grant(1, [b"echo one; echo problem >&2; read x < door; echo two"], number=2), fetch(1, 2, follow=True))
    assert joined.wait(wire.Output).data == b"one\n"
    assert read_all(joined, fetch(2, 2)) == (b"one\n", "")
    assert read_all(joined, fetch(3, 2, which=2)) == (b"problem\n", "")
    gate.write_bytes(b"go\n")
    rest = joined.wait(wire.Output, lambda one: one.stream == 1)
    assert (rest.offset, rest.data) == (4, b"two\n")
    assert joined.wait(wire.Tail).out == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("replace", "what"),
    [
        ("mkfifo out.1", "it is a pipe"),
        ("mkdir out.1", "it is a directory"),
        ("ln -s /dev/zero out.1", "it is a device"),
        ("ln -s out.1 out.1", "Too many levels of symbolic links"),
        ("true", "No such file or directory"),
    ],
)
def test_a_file_that_is_none_is_a_named_problem_and_holds_up_nothing(
    joined: ScriptedHub, work: Path, replace: str, what: str
) -> None:
    gate = door(work)
    line = f"echo some; rm out.1; {replace}; touch replaced; read x < door"
    joined.send(grant(1, [line.encode()], number=2))
    eventually((work / "replaced").exists, what="the job to have replaced its output")
    problem = f"cannot read {work}/out.1: {what}"
    assert read_all(joined, fetch(1, 2)) == (b"", problem)
    joined.send(fetch(2, 2, follow=True))
    joined.send(grant(2, [b"echo other"]))
    assert joined.results(1)[0].outcome == "ok"
    assert not [one for one in joined.heard if isinstance(one, wire.Output)]
    gate.write_bytes(b"go\n")
    end = joined.wait(wire.Output, lambda one: one.stream == 2)
    assert (end.data, end.is_end, end.problem) == (b"", True, problem)
    assert read_all(joined, fetch(3, 2)) == (b"", problem)
    assert read_all(joined, fetch(4, 1)) == (b"other\n", "")


def test_what_vanishes_on_purpose_is_empty(joined: ScriptedHub) -> None:
    joined.send(spec(3, batch=3, output="/dev/null"), grant(1, [b"echo some"], number=3))
    joined.results(1)
    assert read_all(joined, fetch(1, 3)) == (b"", "")


def test_a_slot_that_passes_on_is_not_mistaken(joined: ScriptedHub) -> None:
    """Each follower gets his job's output and no other's, while short jobs take turns in two slots."""
    count = 60
    joined.send(grant(1, [b"echo begin $LANAI_INDEX; sleep 0.01; echo end $LANAI_INDEX"] * count))
    followed = range(1, count + 1)
    joined.send(*[fetch(stream, 1, stream, follow=True) for stream in followed])
    for stream in followed:
        assert read_all(joined, stream) == (f"begin {stream}\nend {stream}\n".encode(), "")


# -- afterwards


def test_old_outputs_are_read_by_the_next_agent_and_the_next_starter(
    joined: ScriptedHub, agent: AgentProcess, work: Path
) -> None:
    """Also from an index that an earlier version left where it kept it."""
    joined.send(grant(1, [b"echo small", BIG]), grant(2, [b"echo named"], number=2))
    joined.results(3)
    joined.send(wire.Forget(100))
    kill_all(agent)
    (agent.state / "index").rename(agent.state / "starter" / "index")
    agent.start()
    meet(joined, work)
    assert read_all(joined, fetch(1, 1, 1)) == (b"small\n", "")
    assert read_all(joined, fetch(2, 1, 2)) == (b"x" * 200_000, "")
    assert read_all(joined, fetch(3, 2, 1)) == (b"named\n", "")
    agent.kill_starter()
    assert read_all(joined, fetch(4, 1, 2)) == (b"x" * 200_000, "")
    assert not (agent.state / "starter" / "index").exists()


def test_where_no_starter_can_be_started_a_reader_is_told(joined: ScriptedHub, agent: AgentProcess, work: Path) -> None:
    joined.send(grant(1, [b"echo small"]))
    joined.results(1)
    kill_all(agent)
    (agent.state / "starter").rename(work / "aside")
    (agent.state / "starter").touch()
    agent.start()
    meet(joined, work)
    problem = "the node cannot read it now: cannot start commands: Not a directory"
    assert read_all(joined, fetch(1, 1)) == (b"", problem)
    (agent.state / "starter").unlink()
    (work / "aside").rename(agent.state / "starter")
    eventually(lambda: read_all(joined, fetch(2, 1)) == (b"small\n", ""), what="a starter that reads")


def test_many_large_tails_at_once(joined: ScriptedHub) -> None:
    """Eight MiB of them: more than a frame holds, and more than may be on the way."""
    line = b"yes $LANAI_INDEX | head -c 66000; yes $LANAI_INDEX | head -c 65000 >&2; exit 1"
    joined.send(grant(1, [line] * 64))
    joined.results(64)
    for _ in range(64):
        tail = joined.wait(wire.Tail)
        out, err = (f"{tail.index}\n" * 66_000).encode()[:66_000], (f"{tail.index}\n" * 65_000).encode()[:65_000]
        assert (tail.out, tail.err) == (out[-65_536:], err)
        assert (tail.out_bytes, tail.err_bytes, tail.is_failed) == (66_000, 65_000, True)


def test_old_outputs_are_removed(joined: ScriptedHub, agent: AgentProcess, work: Path) -> None:
    joined.send(grant(1, [BIG, b"echo small"]), grant(2, [BIG], number=1, first=3))
    joined.results(3)
    old = agent.state / "starter/jobs/1/1.1.out"
    long_ago_s = time.time() - 8 * DAY_S
    os.utime(old, (long_ago_s, long_ago_s))
    agent.kill()
    agent.start()
    meet(joined, work)
    eventually(lambda: not old.exists(), what="an output of eight days ago to be removed")
    assert read_all(joined, fetch(1, 1, 1)) == (b"", NOT_KEPT)
    assert read_all(joined, fetch(2, 1, 2)) == (b"small\n", "")
    assert read_all(joined, fetch(3, 1, 3)) == (b"x" * 200_000, "")


# -- users


@pytest.fixture(scope="module")
def users() -> Iterator[list[pwd.struct_passwd]]:
    with made_users("anna", "bert") as made:
        yield made


@pytest.fixture
def serving(hub: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]) -> ScriptedHub:
    """An agent of root's; of batch 1 and 2 the starters of two users keep the output, of batch 3 it is Anna's file."""
    agent.start("--as-users")
    meet_users(hub, users)
    return hub


def meet_users(hub: ScriptedHub, users: list[pwd.struct_passwd]) -> None:
    hub.accept()
    hub.inventory()
    for number, user in enumerate(users, 1):
        hub.send(spec(number, batch=number, user=user.pw_name, cwd=user.pw_dir))
    hub.send(spec(3, batch=3, user=users[0].pw_name, cwd=users[0].pw_dir, output="out"))


def test_each_users_output_is_read_by_his_starter_running_or_not(
    serving: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    serving.send(grant(1, [b"id -un", BIG], number=1), grant(2, [b"id -un", BIG], number=2))
    serving.results(4)
    for number, user in enumerate(users, 1):
        assert read_all(serving, fetch(number, number)) == (f"{user.pw_name}\n".encode(), "")
    kill_all(agent, users[0].pw_name)
    agent.start("--as-users")
    meet_users(serving, users)
    assert read_all(serving, fetch(1, 1, 2)) == (b"x" * 200_000, "")
    assert read_all(serving, fetch(2, 2, 2)) == (b"x" * 200_000, "")


def test_nobody_reads_through_a_link_what_he_may_not_read(
    serving: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    """A link instead of the file he has named, and in place of each that his starter keeps for him."""
    secret = Path(users[1].pw_dir, "secret")
    secret.write_bytes(b"secret " * 50_000)
    secret.chmod(0o600)
    kept = agent.state / "users" / users[0].pw_name
    serving.send(grant(1, [b"echo small", BIG], number=1), grant(2, [b"echo named"], number=3))
    serving.results(3)
    for _ in range(3):
        serving.wait(wire.Tail)
    names = f"out {kept}/out-000001 {kept}/jobs/1/2.1.out"
    line = f"for name in {names}; do rm $name && ln -s {{}} $name || exit 1; done"
    for counter, target in ((3, str(secret)), (4, "/etc/shadow"), (5, f"{agent.state}/key")):
        serving.send(grant(counter, [line.format(target).encode()], number=1, first=counter))
        assert serving.results(1)[0].outcome == "ok"
        assert read_all(serving, fetch(1, 1, 1)) == (b"", NOT_KEPT)
        assert read_all(serving, fetch(2, 1, 2)) == (b"", NOT_KEPT)
        data, problem = read_all(serving, fetch(3, 3))
        assert data == b"" and problem.endswith("Permission denied")
    secret.unlink()
    Path(users[0].pw_dir, "out").unlink()


def test_nothing_of_others_is_removed_through_a_users_links(
    serving: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd], ground: Path
) -> None:
    """Old files of root's that everybody could write to, where Anna's old outputs should be."""
    outside = ground / "outside"
    outside.mkdir()
    long_ago_s = time.time() - 8 * DAY_S
    for name in ("1.1.out", "out-000001"):
        (outside / name).touch()
        os.utime(outside / name, (long_ago_s, long_ago_s))
    kept = agent.state / "users" / users[0].pw_name
    line = f"cd {kept}; mkdir jobs; ln -s {outside} jobs/1; ln -s {outside}/out-000001 out-000000; touch jobs/old"
    line += "; mkdir jobs/2; touch -d '8 days ago' jobs/2/1.1.out"
    serving.send(grant(1, [line.encode()], number=1))
    assert serving.results(1)[0].outcome == "ok"
    agent.kill()
    agent.start("--as-users")
    meet_users(serving, users)
    eventually(lambda: not (kept / "jobs/2/1.1.out").exists(), what="Anna's own old output to be removed")
    assert sorted(path.name for path in outside.iterdir()) == ["1.1.out", "out-000001"]


def test_a_user_without_a_starter_has_his_old_outputs_removed_too(
    serving: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    serving.send(grant(1, [BIG], number=2))
    serving.results(1)
    serving.send(wire.Forget(100))
    old = agent.state / "users" / users[1].pw_name / "jobs/2/1.1.out"
    long_ago_s = time.time() - 8 * DAY_S
    os.utime(old, (long_ago_s, long_ago_s))
    kill_all(agent, users[1].pw_name)
    for path in (agent.state / "doors" / users[1].pw_name).iterdir():
        path.unlink()
    (agent.state / "doors" / users[1].pw_name).rmdir()
    agent.start("--as-users")
    meet_users(serving, users)
    eventually(lambda: not old.exists(), what="an output of eight days ago to be removed")


def test_a_user_who_is_served_no_more_has_his_outputs_kept_from_readers(
    serving: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    serving.send(grant(1, [b"echo small"], number=1))
    serving.results(1)
    kill_all(agent, users[0].pw_name)
    agent.start("--as-users", "--min-uid", str(users[0].pw_uid + 1))
    meet_users(serving, users)
    data, problem = read_all(serving, fetch(1, 1))
    assert data == b""
    assert problem.startswith(f"the node cannot read it now: user {users[0].pw_name} has uid {users[0].pw_uid}")
