"""Hub and agent as the services of a machine: started by the command lines of their units, found by its users."""

from __future__ import annotations

import json
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.machine import HUB, Machine
from services.processes import eventually
from services.unit import Service
from services.users import made_users, open_directory


@pytest.fixture(scope="module")
def anna() -> Iterator[pwd.struct_passwd]:
    with made_users("anna") as made:
        yield made[0]


@pytest.fixture
def machine() -> Iterator[Machine]:
    with open_directory() as root, Machine.standing(root) as made:
        yield made


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
