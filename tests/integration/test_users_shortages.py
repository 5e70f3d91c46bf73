"""What one user lacks on a node is lacking to him only: processes, a home, files open in the agent. A root agent."""

from __future__ import annotations

import os
import pwd
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.model.ids import grant_id
from lanai.wire import messages as wire
from services.agent_hub import ScriptedHub, grant, spec
from services.agent_process import AgentProcess
from services.users import made_users

ANNA, BERT = 1, 2


@pytest.fixture(scope="module")
def users() -> Iterator[list[pwd.struct_passwd]]:
    with made_users("anna", "bert") as made:
        yield made


@pytest.fixture
def joined(hub: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]) -> ScriptedHub:
    agent.start("--as-users", cpus=8)
    hub.accept()
    assert hub.inventory() == []
    for number, user in enumerate(users, 1):
        hub.send(spec(number, batch=number, user=user.pw_name, cwd="/"))
    return hub


def ended(hub: ScriptedHub, count: int) -> list[tuple[int, str]]:
    return sorted((result.index, result.outcome) for result in hub.results(count))


def returned(hub: ScriptedHub, counter: int) -> wire.Returned:
    return hub.wait(wire.Returned, lambda one: one.items[0][0] == grant_id(1, counter))


def limit_processes(user: pwd.struct_passwd, pid: int, count: int) -> None:
    """As that user himself may do."""
    words = ["prlimit", "--pid", str(pid), f"--nproc={count}:"]
    subprocess.run(words, user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=True)


def test_out_of_processes_is_one_users_affair(
    joined: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd], ground: Path
) -> None:
    """His limit is three, his starter one of them: two of his jobs run at most, others come back; another's all run."""
    anna = users[0]
    joined.send(grant(1, [b"true"], number=ANNA))
    assert ended(joined, 1) == [(1, "ok")]
    starter = agent.starter_pid(anna.pw_name)
    assert starter is not None
    limit_processes(anna, starter, 3)
    os.mkfifo(ground / "door", 0o666)
    (ground / "door").chmod(0o666)
    line = f"read line < {ground}/door".encode()
    joined.send(grant(2, [line] * 8, number=ANNA, first=10))
    back = returned(joined, 2)
    assert 6 <= len(back.items) < 8
    assert back.why == "/bin/sh: Resource temporarily unavailable"
    joined.send(grant(3, [b"true"] * 20, number=BERT, first=100))
    assert {outcome for _, outcome in ended(joined, 20)} == {"ok"}
    limit_processes(anna, starter, 100)
    joined.send(grant(4, [line] * len(back.items), number=ANNA, first=20))
    door = os.open(ground / "door", os.O_RDWR)
    os.write(door, b"\n" * 8)
    assert {outcome for _, outcome in ended(joined, 8)} == {"ok"}
    os.close(door)


def test_an_agent_out_of_open_files_starts_nobody_new_and_goes_on(
    joined: ScriptedHub, agent: AgentProcess, users: list[pwd.struct_passwd]
) -> None:
    """Whose starter is there is served; for whom one would be to be started, his jobs go back and say why."""
    joined.send(grant(1, [b"true"], number=ANNA))
    assert ended(joined, 1) == [(1, "ok")]
    assert agent.process is not None
    before = resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)
    open_now = len(os.listdir(f"/proc/{agent.process.pid}/fd"))
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (open_now, before[1]))
    joined.send(grant(2, [b"true"] * 3, number=BERT))
    back = returned(joined, 2)
    assert (len(back.items), back.why) == (3, "cannot start commands: Too many open files")
    joined.send(grant(3, [b"true"] * 20, number=ANNA, first=100))
    assert {outcome for _, outcome in ended(joined, 20)} == {"ok"}
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, before)
    joined.send(grant(4, [b"true"] * 3, number=BERT))
    assert ended(joined, 3) == [(index, "ok") for index in (1, 2, 3)]


def test_a_home_that_is_missing_is_missed_by_those_only_who_are_to_run_in_it(
    joined: ScriptedHub, users: list[pwd.struct_passwd]
) -> None:
    """An attempt there is the node's fault and says so; when it is back the next one runs."""
    bert = users[1]
    home, aside = Path(bert.pw_dir), Path(f"{bert.pw_dir}.aside")
    home.rename(aside)
    joined.send(spec(3, batch=3, user=bert.pw_name, cwd=bert.pw_dir))
    joined.send(grant(1, [f'test "$HOME" = {home}'.encode()], number=BERT))
    assert ended(joined, 1) == [(1, "ok")]
    joined.send(grant(2, [b"true"], number=3))
    (result,) = joined.results(1)
    assert (result.outcome, result.reason) == ("node", f"working directory {home}: No such file or directory")
    aside.rename(home)
    joined.send(grant(3, [b"true"], number=3, attempt=2))
    assert ended(joined, 1) == [(1, "ok")]
