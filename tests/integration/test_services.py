"""Hub and agent as the services of a machine: started by the command lines of their units, found by its users."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent import cgroup_mounts
from lanai.cli import service_units
from services.cgroups import needs_cgroups
from services.processes import end_starters, eventually
from services.unit import Service
from services.users import made_users, needs_root, open_directory

HUB = service_units.hub_files(sys.executable, is_packaged=False)[-1].text
JOBS, AGENT = (file.text for file in service_units.agent_files(sys.executable, is_packaged=False))
BASE = "system.slice/lanai-jobs.service"


class Machine:
    """One with services, below a directory that stands for its root. Its places are those of the units otherwise."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.state, self.runtime = root / "lanai", root / "lanai-agent", root / "run"
        self.home.mkdir(mode=0o700)
        self.runtime.mkdir(mode=0o755)
        self.configuration = root / "etc" / "lanai" / "config.toml"
        self.configuration.parent.mkdir(parents=True)
        self.configuration.write_text(
            f'[access]\nlocal = "everyone"\nsocket = "{self.runtime}/api.sock"\nlisten = "127.0.0.1:0"\n'
        )
        self.environ = {"LANAI_HOME": str(self.home), "XDG_CONFIG_DIRS": str(root / "etc")}
        self.services: list[Service] = []
        unified = next(one.point for one in cgroup_mounts.find() if one.version == 2)
        self.group = unified / root.name
        self.group.mkdir()

    def start_hub(self, text: str = HUB) -> Service:
        """Until it says that it is ready."""
        return self._started(Service(text, self.root / "hub-told", self.environ))

    def start_agent(self, text: str = AGENT) -> Service:
        """Until it has joined the hub."""
        if not (self.group / "keep").exists():
            self._started(Service(JOBS, self.root / "jobs-told", self.environ, group=self.group))
        words = ["--state", str(self.state), "--name", "here", "--cpus", "2"]
        agent = Service(text.replace(BASE, self.group.name), self.root / "agent-told", self.environ, words)
        self.services.append(agent)
        agent.until(b"STATUS=joined hub")
        return agent

    def _started(self, service: Service) -> Service:
        self.services.append(service)
        service.until(b"READY=1")
        return service

    def lanai(self, user: pwd.struct_passwd, *words: str) -> subprocess.CompletedProcess[str]:
        """A user's command, who has configured nothing; waits until the hub's door is open."""
        eventually((self.runtime / "api.sock").exists, what="the hub's door")
        environ = {"HOME": user.pw_dir, "PATH": "/usr/bin:/bin", "LANAI_RUNTIME": str(self.runtime)}
        return subprocess.run(
            [*_as(user), sys.executable, "-P", "-m", "lanai", *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=user.pw_dir,
            env={**environ, "LANAI_TEST_MARK": os.environ["LANAI_TEST_MARK"]},
            check=False,
        )

    def close(self) -> None:
        """End everything."""
        for service in self.services:
            service.kill()
        end_starters(self.root)
        eventually(lambda: "populated 0" in (self.group / "cgroup.events").read_text(), what="its processes gone")
        for directory, _, _ in os.walk(self.group, topdown=False):
            os.rmdir(directory)


def _as(user: pwd.struct_passwd) -> list[str]:
    """The words that run a command as that user; he may read what he could not, as a Python in root's home."""
    ids = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.fixture(scope="module")
def anna() -> Iterator[pwd.struct_passwd]:
    with made_users("anna") as made:
        yield made[0]


@pytest.fixture
def machine() -> Iterator[Machine]:
    needs_root()
    needs_cgroups()
    with open_directory() as root:
        made = Machine(root)
        try:
            yield made
        finally:
            made.close()


def test_a_user_who_has_set_up_nothing_runs_his_jobs_by_the_services(machine: Machine, anna: pwd.struct_passwd) -> None:
    machine.start_hub()
    machine.start_agent()
    ran = machine.lanai(anna, "run", "--", "sh", "-c", "id -un; touch mine")
    assert (ran.returncode, ran.stdout) == (0, f"{anna.pw_name}\n"), ran.stderr
    assert Path(anna.pw_dir, "mine").owner() == anna.pw_name
    assert not Path(anna.pw_dir, ".local").exists()  # no hub of his own was begun
    facts = json.loads(machine.lanai(anna, "hub", "status", "--format", "json").stdout)
    assert facts["pid"] == machine.services[0].pid and "log" not in facts


def test_the_process_that_systemd_started_is_the_one_that_it_watches(machine: Machine) -> None:
    """Another in between would be what is stopped, and what the watchdog hears nothing of."""
    hub, agent = machine.start_hub(), machine.start_agent()
    assert json.loads((machine.home / "hub" / "hub.pid").read_bytes())["pid"] == hub.pid
    assert json.loads((machine.state / "agent.json").read_bytes())["pid"] == agent.pid
    hub.until(b"WATCHDOG=1")
    agent.until(b"WATCHDOG=1")
    assert (agent.stop(), hub.stop()) == (0, 0)


def test_while_the_hub_of_the_machine_is_down_no_private_one_is_begun(
    machine: Machine, anna: pwd.struct_passwd
) -> None:
    """His jobs would wait where nobody looks for them once it is back."""
    hub = machine.start_hub()
    eventually(lambda: machine.lanai(anna, "status").returncode == 0)
    hub.stop()
    for verb, code in (("run", 3), ("status", 3)):
        told = machine.lanai(anna, verb, *(["--", "true"] if verb == "run" else []))
        assert told.returncode == code
        assert told.stderr == "lanai: the hub of this machine does not answer\ntry: systemctl status lanai-hub\n"
    told = machine.lanai(anna, "hub", "status")
    assert told.returncode == 3
    assert told.stderr == "lanai: the hub of this machine does not run\ntry: systemctl start lanai-hub\n"
    assert not Path(anna.pw_dir, ".local").exists()


def test_a_hub_that_is_for_its_owner_only_is_not_the_hub_of_others(machine: Machine, anna: pwd.struct_passwd) -> None:
    machine.configuration.write_text(
        f'[access]\nlocal = "owner"\nsocket = "{machine.runtime}/api.sock"\nlisten = "127.0.0.1:0"\n'
    )
    machine.start_hub()
    told = machine.lanai(anna, "status")
    assert told.stderr == "lanai: nothing was ever started here\ntry: lanai run jobs.txt\n"


def test_who_may_use_the_socket_can_be_said_on_the_command_line(machine: Machine, anna: pwd.struct_passwd) -> None:
    machine.start_hub(HUB.replace("--foreground", "--foreground --local owner"))
    eventually((machine.runtime / "api.sock").exists)
    assert (machine.runtime / "api.sock").stat().st_mode & 0o777 == 0o600


def test_a_second_service_in_the_same_directory_is_refused(machine: Machine) -> None:
    """Not told `runs already` with exit code 0: the service manager would take that for an end on purpose."""
    hub = machine.start_hub()
    second = Service(HUB, machine.root / "second", machine.environ)
    machine.services.append(second)
    assert second.child.wait(20) == 7
    assert second.log.read_text().startswith("lanai.hub: ")
    assert hub.child.poll() is None


def test_a_running_command_outlives_agent_and_hub_ended_by_their_watchdog(
    machine: Machine, anna: pwd.struct_passwd
) -> None:
    """What a watchdog sends is SIGABRT; each then says where it hung."""
    hub, agent = machine.start_hub(), machine.start_agent()
    gate = Path(anna.pw_dir, "gate")
    list_file = Path(anna.pw_dir, "list")
    list_file.write_text("echo begun >> log; until [ -e gate ]; do sleep 0.05; done; echo ended >> log\n")
    batch = machine.lanai(anna, "submit", "list", "--format", "quiet").stdout.strip()
    log = Path(anna.pw_dir, "log")
    eventually(log.exists, what="the command")
    for service in (agent, hub):
        service.child.send_signal(signal.SIGABRT)
        assert service.child.wait(20) == -signal.SIGABRT
        assert 'File "' in service.log.read_text()
    machine.start_hub()
    machine.start_agent()
    gate.touch()
    waited = machine.lanai(anna, "wait", batch, "--timeout", "50")
    assert waited.returncode == 0, waited.stderr
    assert log.read_text() == "begun\nended\n"


def test_the_jobs_unit_keeps_its_own_group_free_for_those_of_jobs(machine: Machine, anna: pwd.struct_passwd) -> None:
    """Its process is aside when it says that it is ready, so the agent, which comes after it, can divide the group."""
    machine.start_hub()
    machine.start_agent()
    jobs = next(each for each in machine.services if each.log.parent.name == "jobs-told")
    assert (machine.group / "cgroup.procs").read_text() == ""
    assert (machine.group / "keep" / "cgroup.procs").read_text() == f"{jobs.pid}\n"
    assert Path(f"/proc/{jobs.pid}/cmdline").read_bytes() == b"sleep\0infinity\0"
    ran = machine.lanai(anna, "run", "--memory", "64M", "--", "cat", "/proc/self/cgroup")
    assert f"/{machine.group.name}/" in ran.stdout, ran
