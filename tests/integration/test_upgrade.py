"""Another version takes the place of the one that runs, part by part, while commands run."""

from __future__ import annotations

import json
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import lanai
from lanai.wire import messages
from services.machine import Machine
from services.processes import eventually
from services.users import made_users, open_directory

NEW = "99.0.0"


@pytest.fixture(scope="module")
def anna() -> Iterator[pwd.struct_passwd]:
    with made_users("anna") as made:
        yield made[0]


@pytest.fixture
def machine() -> Iterator[Machine]:
    with open_directory() as root, Machine.standing(root) as made:
        yield made


def _another(directory: Path, version: str, *, protocol: int | None = None) -> dict[str, str]:
    """A tree of the package with another version; what the environment has to say so that it is the one that runs.

    With `protocol` it speaks that one only.
    """
    tree = directory / "packages" / version
    package = Path(lanai.__file__).parent
    shutil.copytree(package, tree / "lanai", ignore=shutil.ignore_patterns("__pycache__"))
    tree.parent.chmod(0o755)
    _change(tree / "lanai" / "__init__.py", f'"{lanai.__version__}"', f'"{version}"')
    file = tree / "lanai" / "wire" / "messages.py"
    for end, now in (("MIN", messages.PROTOCOL_MIN), ("MAX", messages.PROTOCOL_MAX)) if protocol else ():
        _change(file, f"PROTOCOL_{end}: Final = {now}\n", f"PROTOCOL_{end}: Final = {protocol}\n")
    return {"PYTHONPATH": str(tree)}


def _change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1, (file, before)
    file.write_text(text.replace(before, after))


class Command:
    """A command of anna's that runs until it is let go, and leaves a line at its begin and at its end."""

    def __init__(self, machine: Machine, anna: pwd.struct_passwd) -> None:
        self._machine, self._anna = machine, anna
        self._home = Path(anna.pw_dir)
        for name in ("gate", "log"):
            (self._home / name).unlink(missing_ok=True)
        line = "echo begun $$ >> log; until [ -e gate ]; do sleep 0.05; done; echo ended $$ >> log; exit 3"
        (self._home / "list").write_text(line + "\n")
        self.batch = machine.lanai(anna, "submit", "list", "--format", "quiet", "--retries", "0").stdout.strip()
        eventually(lambda: self.log.endswith("\n"), what="the command")
        self.pid = int(self.log.split()[1])

    @property
    def log(self) -> str:
        file = self._home / "log"
        return file.read_text() if file.exists() else ""

    def is_running(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").exists()

    def end(self) -> None:
        """Let it go; it ran to its end once, and its exit code is recorded once, as that of the first attempt."""
        (self._home / "gate").touch()
        self._machine.lanai(self._anna, "wait", self.batch, "--timeout", "50")
        assert self.log == f"begun {self.pid}\nended {self.pid}\n"
        shown = json.loads(self._machine.lanai(self._anna, "job", "show", f"{self.batch}/1", "--format", "json").stdout)
        (attempt,) = shown["job"]["attempts_list"]
        assert (attempt["attempt"], attempt["outcome"], attempt["exit_code"]) == (1, "exit", 3), shown


def _node_version(machine: Machine, anna: pwd.struct_passwd) -> str:
    shown = machine.lanai(anna, "node", "show", "here", "--format", "json")
    return str(json.loads(shown.stdout)["node"]["version"])


def _is_node_up(machine: Machine, anna: pwd.struct_passwd) -> bool:
    """Not while the hub's API process is just coming up."""
    shown = machine.lanai(anna, "node", "show", "here", "--format", "json")
    return shown.returncode == 0 and json.loads(shown.stdout)["node"]["state"] == "up"


def test_hub_and_agent_are_replaced_by_another_version_while_a_command_runs(
    machine: Machine, anna: pwd.struct_passwd
) -> None:
    """First the hub, which then has an agent of the earlier version, as on all machines but its own; then the agent."""
    hub, agent = machine.start_hub(), machine.start_agent()
    command = Command(machine, anna)
    machine.environ |= _another(machine.root, NEW)
    assert hub.stop() == 0
    machine.start_hub()
    eventually(lambda: _is_node_up(machine, anna), what="the agent to join again")
    assert json.loads(machine.lanai(anna, "hub", "status", "--format", "json").stdout)["lanai"] == NEW
    assert _node_version(machine, anna) == lanai.__version__
    ran = machine.lanai(anna, "run", "--", "echo", "by the old one")
    assert (ran.returncode, ran.stdout) == (0, "by the old one\n"), ran.stderr
    assert agent.stop() == 0
    assert command.is_running()
    machine.start_agent()
    assert _node_version(machine, anna) == NEW
    ran = machine.lanai(anna, "run", "--", "echo", "by the new one")
    assert (ran.returncode, ran.stdout) == (0, "by the new one\n"), ran.stderr
    assert command.is_running()
    command.end()


def test_a_hub_that_does_not_speak_an_agents_protocol_any_more_says_so_and_its_command_waits_for_the_upgrade(
    machine: Machine, anna: pwd.struct_passwd
) -> None:
    """The agent is turned away, with words that name both; what runs has the lease's time until another agent comes."""
    hub, agent = machine.start_hub(), machine.start_agent()
    command = Command(machine, anna)
    machine.environ |= _another(machine.root, NEW, protocol=9)
    hub.stop()
    machine.start_hub()
    told = eventually(lambda: [line for line in agent.log.read_text().splitlines() if "protocol" in line])
    assert "the hub speaks protocols 9 to 9" in told[0]
    assert agent.child.poll() is None and command.is_running()
    agent.stop()
    machine.start_agent()
    assert command.is_running()
    command.end()
