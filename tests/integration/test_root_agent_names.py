"""An agent of root's and names of users: odd ones that there are, and such as are none and come from the hub."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.root_agent import RootAgent, root_agent
from services.users import named_users

REAL = [
    "lt.with.dots",
    "LtCapitals",
    "lt-machine$",
    "lt" + "3" * 30,
    "LTDOMAIN\\user",
    "starter.sock",
    "lt.of-0-1",
]
NONE = [
    "../../escaped",
    "..",
    ".",
    "/etc",
    "a/../../../escaped",
    ".hidden",
    "-",
    "",
    "a\0b",
    "a\nb",
    "a" * 65,
    "a" * 5000,
    "12345",
    "é",
]


@pytest.fixture
def serving() -> Iterator[RootAgent]:
    with root_agent() as made:
        yield made


def test_users_with_odd_names_are_served() -> None:
    """Each as himself, in a directory of his own name below the agent's."""
    with named_users(*REAL) as users, root_agent() as serving:
        serving.join()
        for number, user in enumerate(users, 1):
            serving.name_spec(number, user.pw_name)
            serving.give(number, f"test $(id -u) = {user.pw_uid} && test \"$USER\" = '{user.pw_name}'", number=number)
        for number, user in enumerate(users, 1):
            assert serving.results(number)[0].outcome == "ok", user.pw_name
        kept = {path.name: path.stat().st_uid for path in (serving.agent.state / "users").iterdir()}
        assert kept == {user.pw_name: user.pw_uid for user in users}


def test_what_is_no_name_becomes_no_path(serving: RootAgent) -> None:
    """Nothing is made, opened or ended for it, inside the agent's directory or outside; its jobs say why."""
    root = serving.ground / "escaped"
    serving.join()
    before = _everything(serving.ground)
    for number, name in enumerate(NONE, 1):
        serving.name_spec(number, name)
        serving.give(number, "true", "true", number=number)
    for number, name in enumerate(NONE, 1):
        found = serving.results(number, 2)
        assert {result.outcome for result in found} == {"node"}, name
        assert all("cannot be a user's name" in result.reason for result in found), name
    assert not root.exists()
    assert _everything(serving.ground) == before
    serving.name_spec(100, "root")
    serving.give(100, "true", number=100)
    assert serving.results(100)[0].outcome == "ok"


def test_what_lies_where_such_a_name_leads_is_left_alone(serving: RootAgent) -> None:
    """A user has put a starter's files there that name a process: root would have killed it."""
    trap = serving.ground / "trap"
    trap.mkdir(0o777)
    with subprocess.Popen(["sleep", "1000"], env={"LANAI_MARK": "trap.1.1"}) as victim:
        ticks = Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (trap / "starter.pid").write_text(f"{victim.pid} {ticks}")
        (trap / "starter.mark").write_text("trap")
        serving.join()
        serving.name_spec(1, "../../trap")
        serving.give(1, "true", number=1)
        assert serving.results(1)[0].outcome == "node"
        assert victim.poll() is None
        victim.kill()
    assert sorted(os.listdir(trap)) == ["starter.mark", "starter.pid"]


def test_a_name_that_another_had_before_gets_a_new_directory() -> None:
    """What the one before has left is set aside, under a name that nobody can have."""
    with named_users("lt-again") as (user,), root_agent() as serving:
        old = serving.agent.state / "users" / user.pw_name
        old.mkdir(parents=True)
        serving.agent.state.chmod(0o711)
        (old / "secret").write_text("of the one before")
        os.chown(old, 65534, 65534)
        serving.join()
        serving.name_spec(1, user.pw_name)
        serving.give(1, "true", number=1)
        assert serving.results(1)[0].outcome == "ok"
        names = sorted(path.name for path in old.parent.iterdir())
        assert names[0].startswith(f".{user.pw_name}.of-65534-") and names[1:] == [user.pw_name]
        assert not (old / "secret").exists() and old.stat().st_uid == user.pw_uid


@pytest.mark.parametrize("owner", ["the state", "one above it"])
def test_a_state_in_a_users_hands_is_refused(serving: RootAgent, owner: str) -> None:
    """He could put links in the way of what root writes there."""
    above = serving.ground / "above"
    state = above / "agent"
    state.mkdir(parents=True)
    above.chmod(0o755)
    os.chown(state if owner == "the state" else above, 65534, 65534)
    serving.agent.state = state
    serving.agent.start("--as-users")
    assert serving.agent.process is not None and serving.agent.process.wait(20) == 7
    assert "somebody else than root could replace" in serving.agent.log.read_text()


def _everything(below: Path) -> list[tuple[str, int, int]]:
    """Names, owners and modes of all that is there, but for what the agent itself writes on."""
    found = [path for path in below.rglob("*") if path.relative_to(below).parts[:2] != ("agent", "spool")]
    return sorted((str(path), path.lstat().st_uid, path.lstat().st_mode) for path in found)
