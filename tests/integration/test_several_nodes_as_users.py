"""A job over two nodes whose agents are root's: its host files are its user's, and nobody else's."""

from __future__ import annotations

import pwd
import sys
from collections.abc import Iterator

import pytest

from lanai.client.client import OUT
from services.processes import Process, eventually
from services.town import Town
from services.users import made_users, open_directory


@pytest.fixture(scope="module")
def users() -> Iterator[list[pwd.struct_passwd]]:
    with made_users("ann", "bob", "keeper") as made:
        yield made


@pytest.fixture
def town(users: list[pwd.struct_passwd]) -> Iterator[Town]:
    with open_directory() as ground:
        made = Town(ground, users[2])
        second: Process | None = None
        try:
            made.start_hub()
            made.start_agent("--cpus", "2")
            words = [sys.executable, "-m", "lanai.agent", "--state", str(ground / "agent2"), "--name", "n2"]
            words += ["--join", str(made.home / "join"), "--as-users", "--cpus", "2"]
            second = Process(words, ground / "agent2.log")
            yield made
        finally:
            if second is not None:
                second.kill()
            made.close()


SCRIPT = """
cat "$LANAI_HOSTFILE"; cat "$LANAI_MPI_HOSTFILE"; echo "$LANAI_NODES"
stat -c "%U %a" "$LANAI_HOSTFILE" "$LANAI_MPI_HOSTFILE" "$(dirname "$LANAI_HOSTFILE")"
echo "$LANAI_HOSTFILE" > {home}/where; while ! test -e {home}/go; do sleep 0.05; done
"""


def test_the_host_files_are_their_users_alone(town: Town, users: list[pwd.struct_passwd]) -> None:
    ann, bob = users[:2]
    line = SCRIPT.format(home=ann.pw_dir).strip().replace("\n", "; ")
    settings = {"cwd": ann.pw_dir, "shape": {"nodes": 2, "tasks_per_node": 2}, "shell": "always"}
    batch = int(town.ask(ann, lambda client: client.submit([line.encode() + b"\n"], settings, env={}).batch))
    where = eventually(lambda: _read(f"{ann.pw_dir}/where"), what="the command to begin")
    spy = {"cwd": bob.pw_dir, "shell": "always"}
    peeked = town.ask(bob, lambda client: client.submit([f"cat {where}\n".encode()], spy, env={}).batch)
    assert [job["exit_code"] for job in town.jobs(bob, int(peeked))] == [1]
    open(f"{ann.pw_dir}/go", "w").close()
    (job,) = town.jobs(ann, batch)
    assert job["state"] == "done"
    pieces = town.ask(ann, lambda client: list(client.output(batch, 1)))
    text = b"".join(data for which, data in pieces if which == OUT).decode()
    assert text.split("\n") == [
        *("n1", "n1", "n2", "n2", "n1 slots=2", "n2 slots=2", "n1 n2"),
        *(f"{ann.pw_name} 600", f"{ann.pw_name} 600", f"{ann.pw_name} 700", ""),
    ]


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
