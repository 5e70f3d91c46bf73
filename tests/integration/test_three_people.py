"""Three people, a hub that runs as a user of its own, and an agent of root's: everything killed in mid-run.

Each job appends a line to a file in its user's home, so lines equal jobs, and the files tell whose they were.
"""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import descendants, is_alive
from services.town import Town
from services.users import made_users, open_directory

JOBS = 60


@pytest.fixture(scope="module")
def users() -> Iterator[list[pwd.struct_passwd]]:
    with made_users("ann", "bob", "cleo", "keeper") as made:
        yield made


@pytest.fixture
def people(users: list[pwd.struct_passwd]) -> Iterator[list[pwd.struct_passwd]]:
    """The three, with homes as they were."""
    yield users[:3]
    for user in users[:3]:
        for path in Path(user.pw_dir).glob("*"):
            path.unlink()


@pytest.fixture
def town(users: list[pwd.struct_passwd]) -> Iterator[Town]:
    with open_directory() as ground:
        made = Town(ground, users[3])
        try:
            made.start_hub()
            made.start_agent("--cpus", "3")
            yield made
        finally:
            made.close()


def lines_of(user: pwd.struct_passwd, name: str = "ran") -> list[str]:
    path = Path(user.pw_dir, name)
    return path.read_text().split() if path.exists() else []


def await_lines(people: list[pwd.struct_passwd], count: int, name: str = "ran") -> None:
    eventually(lambda: all(len(lines_of(user, name)) >= count for user in people), what=f"{count} lines of each")


def appending(count: int = JOBS) -> list[str]:
    return [f"sleep 0.03; echo {number} >> ran" for number in range(1, count + 1)]


def test_hub_agent_and_both_killed_and_each_job_of_each_runs_once(
    town: Town, people: list[pwd.struct_passwd]
) -> None:
    batches = [town.submit(user, appending()) for user in people]
    assert town.hub is not None and town.agent is not None
    await_lines(people, 10)
    town.hub.kill()
    town.start_hub()
    await_lines(people, 25)
    town.agent.kill()
    town.start_agent("--cpus", "3")
    await_lines(people, 40)
    town.hub.kill()
    town.agent.kill()
    town.start_hub()
    town.start_agent("--cpus", "3")
    for user, batch in zip(people, batches, strict=True):
        jobs = town.jobs(user, batch)
        assert [job["state"] for job in jobs] == ["done"] * JOBS
        assert sorted(map(int, lines_of(user))) == list(range(1, JOBS + 1))
        assert Path(user.pw_dir, "ran").stat().st_uid == user.pw_uid


def test_whose_starter_is_killed_has_his_own_job_again_and_the_others_go_on(
    town: Town, people: list[pwd.struct_passwd]
) -> None:
    line = "echo $$ >> began; while [ ! -e go ]; do sleep 0.05; done; echo $LANAI_ATTEMPT >> ran"
    batches = [town.submit(user, [line]) for user in people]
    await_lines(people, 1, "began")
    ann, *others = people
    doomed = town.starter_pid(ann)
    assert doomed is not None
    os.kill(doomed, signal.SIGKILL)
    await_lines([ann], 2, "began")
    assert not is_alive(int(lines_of(ann, "began")[0]))
    for user in people:
        go = Path(user.pw_dir, "go")
        go.touch()
        os.chown(go, user.pw_uid, user.pw_gid)
    ended = [town.jobs(user, batch)[0] for user, batch in zip(people, batches, strict=True)]
    assert [(job["state"], job["attempts"]) for job in ended] == [("done", 2), ("done", 1), ("done", 1)]
    assert lines_of(ann) == ["2"]
    assert [lines_of(user) for user in others] == [["1"], ["1"]]


def test_agent_and_starters_killed_together_what_ran_is_ended_and_run_again(
    town: Town, people: list[pwd.struct_passwd]
) -> None:
    batches = [town.submit(user, ["echo $$ >> began; [ $LANAI_ATTEMPT -gt 1 ] || sleep 1000"]) for user in people]
    await_lines(people, 1, "began")
    assert town.agent is not None
    doomed = [town.agent.pid, *filter(None, (town.starter_pid(user) for user in people))]
    assert len(doomed) == 4
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    town.agent.kill()
    town.start_agent("--cpus", "3")
    for user, batch in zip(people, batches, strict=True):
        (job,) = town.jobs(user, batch)
        assert (job["state"], job["attempts"]) == ("done", 2)
        assert not is_alive(int(lines_of(user, "began")[0]))


def test_a_planned_stop_of_both_leaves_everybodys_commands_running(
    town: Town, people: list[pwd.struct_passwd]
) -> None:
    batches = [town.submit(user, ["echo x >> began; sleep 2; echo $LANAI_ATTEMPT >> ran"]) for user in people]
    await_lines(people, 1, "began")
    assert town.hub is not None and town.agent is not None
    assert town.agent.stop() == 0
    assert town.hub.stop() == 0
    await_lines(people, 1)
    town.start_hub()
    town.start_agent("--cpus", "3")
    for user, batch in zip(people, batches, strict=True):
        (job,) = town.jobs(user, batch)
        assert (job["state"], job["attempts"], lines_of(user)) == ("done", 1, ["1"])


def test_who_did_what_is_in_the_audit_trail_across_the_hubs_death(
    town: Town, people: list[pwd.struct_passwd]
) -> None:
    """By the kernel's word of who asked, kept with the change itself."""
    batches = [town.submit(user, ["sleep 1000"]) for user in people]
    assert town.hub is not None
    town.hub.kill()
    town.start_hub()
    for user, batch in zip(people, batches, strict=True):
        town.ask(user, lambda client, batch=batch: client.cancel(batch))
        town.jobs(user, batch)
    root = pwd.getpwuid(0)
    rows = town.ask(root, lambda client: list(client.audit()))
    told = sorted((row["user"], row["action"]) for row in rows if row["action"] in ("batch.submit", "batch.cancel"))
    names = [user.pw_name for user in people]
    assert told == sorted((name, action) for name in names for action in ("batch.submit", "batch.cancel"))


def test_the_hub_has_no_rights_of_roots(town: Town, users: list[pwd.struct_passwd]) -> None:
    assert town.hub is not None
    for pid in descendants(town.hub.pid):
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        assert set(fields["Uid"].split()) == {str(users[3].pw_uid)}
        assert int(fields["CapEff"], 16) == 0
