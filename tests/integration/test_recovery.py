"""Break it on purpose: every process killed, frozen or starved in mid-run. Jobs append to a file: lines equal jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site, descendants, is_alive, marked, starters

LEASE_S = "6"
"""Leases in these tests; what is said of 60 s holds for any."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.close()


def appending(count: int, file: str = "ran", run_s: float = 0.05) -> list[str]:
    """Jobs that leave one line each and take a moment."""
    return [f"sleep {run_s}; echo {number} >> {file}" for number in range(1, count + 1)]


def assert_each_ran_once(site: Site, batch: int, count: int, file: str = "ran") -> None:
    assert sorted(map(int, site.lines_of(file))) == list(range(1, count + 1))
    assert site.counts(batch) == {"done": count}


def test_hub_killed_under_load_three_times(site: Site) -> None:
    """Grants committed but unsent, results sent but uncommitted, acknowledgements lost: all of it happens here."""
    site.start_hub()
    site.start_agent("n1")
    batch = site.submit(appending(400, run_s=0.01))
    for lines in (40, 120, 250):
        site.await_lines("ran", lines)
        assert site.hub is not None
        site.hub.kill()
        site.start_hub()
    site.wait(batch)
    assert_each_ran_once(site, batch, 400)


def test_why_a_job_waits_and_since_when_is_the_same_after_a_start(site: Site) -> None:
    """Once the node is back the reason is what it was, since when it was, and in the history once."""

    def said() -> list[object]:
        found = json.loads(site.lanai("why", str(batch), "--format", "json").stdout)
        return [found["code"], found["since"], found["history"]]

    site.start_hub()
    site.start_agent("n1")
    site.submit(["echo begun >> begun; sleep 600"] * 2)
    batch = site.submit(["true"] * 2)
    site.await_lines("begun", 2)
    eventually(lambda: said()[0] == "no_room", what="the second batch to find no room")
    before = said()
    assert site.hub is not None
    site.lanai("hub", "stop")
    for _ in range(2):
        site.hub.kill()
        site.start_hub()
        eventually(lambda: site.counts(1) == {"running": 2}, what="the node to be back")
        assert said() == before


def test_agent_killed_its_commands_go_on_and_are_taken_over(site: Site) -> None:
    site.start_hub()
    agent = site.start_agent("n1")
    batch = site.submit(["echo begun >> begun; sleep 3; echo $LANAI_INDEX >> ran; exit 7", *appending(20, "others")])
    site.await_lines("begun", 1)
    agent.kill()
    site.start_agent("n1")
    site.wait(batch, ok=False)
    first = site.jobs(batch)[0]
    assert (first["state"], first["exit_code"], first["attempts"]) == ("failed", 7, 1)
    assert site.lines_of("ran") == ["1"]
    assert len(site.lines_of("others")) == 20


def test_hub_and_agent_killed_at_once(site: Site) -> None:
    site.start_hub()
    agent = site.start_agent("n1")
    batch = site.submit(appending(150, run_s=0.05))
    site.await_lines("ran", 30)
    assert site.hub is not None
    site.hub.kill()
    agent.kill()
    site.start_hub()
    site.start_agent("n1")
    site.wait(batch)
    assert_each_ran_once(site, batch, 150)


def test_agent_and_starter_killed_what_ran_is_ended_and_run_again(site: Site) -> None:
    """Nobody can say how the command would have ended: it is the node's fault, and the process must not live."""
    site.start_hub()
    agent = site.start_agent("n1")
    batch = site.submit(["echo $$ >> pids; [ $LANAI_ATTEMPT -gt 1 ] || sleep 1000"])
    (pid,) = site.await_lines("pids", 1)
    doomed = starters(site.home)
    agent.kill()
    for starter in doomed:
        os.kill(starter, signal.SIGKILL)
    site.start_agent("n1")
    site.wait(batch)
    assert not is_alive(int(pid))
    (job,) = site.jobs(batch)
    assert (job["state"], job["attempts"]) == ("done", 2)


def test_api_process_killed_is_started_again(site: Site) -> None:
    """Whoever asks in the moment between two API processes waits, and sees nothing of it."""
    site.start_hub()
    site.start_agent("n1")
    batch = site.submit(appending(100))
    import json

    pid = json.loads(site.lanai("hub", "status", "--format", "json").stdout)["api_pid"]
    os.kill(pid, signal.SIGKILL)
    site.lanai("status")
    site.wait(batch)
    assert_each_ran_once(site, batch, 100)


def test_run_survives_the_death_of_hub_and_api(site: Site) -> None:
    """Whoever watches waits until the hub is back, and sees the end."""
    site.start_hub()
    site.start_agent("n1")
    (site.work / "jobs").write_text("\n".join(appending(100)) + "\n")
    running = site.spawn("run", "jobs")
    site.await_lines("ran", 10)
    assert site.hub is not None
    site.hub.kill()
    site.start_hub()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    site.wait(1)
    assert_each_ran_once(site, 1, 100)


@pytest.mark.timeout(180)
def test_host_frozen_beyond_its_lease_is_fenced(site: Site) -> None:
    """A laptop closed for too long: its job has gone elsewhere, and what it says afterwards changes nothing."""
    site.start_hub("--lease-s", LEASE_S)
    first = site.start_agent("n1")
    batch = site.submit(
        ["echo $LANAI_ATTEMPT >> began; [ $LANAI_ATTEMPT = 2 ] || sleep 60; echo $LANAI_ATTEMPT >> ran"]
    )
    site.await_lines("began", 1)
    frozen = [*descendants(first.pid), *(pid for starter in starters(site.home) for pid in descendants(starter))]
    for pid in reversed(frozen):
        os.kill(pid, signal.SIGSTOP)
    site.start_agent("n2")
    site.await_lines("began", 2, within_s=60)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not [pid for pid in frozen if _is_sleep(pid)], what="the fenced command to be gone")
    site.wait(batch)
    assert site.lines_of("ran") == ["2"]
    (job,) = site.jobs(batch)
    assert (job["state"], job["attempts"], job["node"]) == ("done", 2, "n2")


def _is_sleep(pid: int) -> bool:
    try:
        return b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.timeout(180)
def test_hub_down_for_three_leases_with_its_host_up_ends_nothing(site: Site) -> None:
    """A refused connection proves that no hub is up: it renews the lease. Three minutes of 60 s leases, in small."""
    site.start_hub("--lease-s", LEASE_S)
    site.start_agent("n1")
    batch = site.submit(["echo x >> began; sleep 16; echo $LANAI_ATTEMPT >> ran", *appending(2, "others", 1)])
    site.await_lines("began", 1)
    assert site.hub is not None
    site.hub.kill()
    site.await_lines("ran", 1, within_s=30)
    site.start_hub()
    site.wait(batch)
    assert site.lines_of("ran") == ["1"]
    assert site.counts(batch) == {"done": 3}
    assert [job["attempts"] for job in site.jobs(batch)] == [1, 1, 1]


def test_planned_stop_leaves_commands_running_and_results_come_later(site: Site) -> None:
    site.start_hub()
    site.start_agent("n1")
    batch = site.submit(["echo x >> began; sleep 2; echo done >> ran"])
    site.await_lines("began", 1)
    site.lanai("hub", "stop")
    assert site.hub is not None
    assert site.hub.wait() == 0
    assert site.lanai("status", ok=False).returncode == 3
    site.await_lines("ran", 1)
    site.start_hub()
    site.wait(batch)
    assert site.counts(batch) == {"done": 1}
    assert site.lines_of("ran") == ["done"]


def test_agent_stopped_and_started_keeps_its_commands(site: Site) -> None:
    site.start_hub()
    agent = site.start_agent("n1")
    batch = site.submit(["echo x >> began; sleep 2; echo done >> ran"])
    site.await_lines("began", 1)
    assert agent.stop() == 0
    site.start_agent("n1")
    site.wait(batch)
    assert (site.lines_of("began"), site.lines_of("ran")) == (["x"], ["done"])


CLOCK = """
import runpy, sys, time, pathlib
real_ns, real_s = time.time_ns, time.time
offset = pathlib.Path(sys.argv.pop(1))
def shift():
    try: return int(offset.read_text())
    except (OSError, ValueError): return 0
time.time_ns = lambda: real_ns() + shift() * 10**9
time.time = lambda: real_s() + shift()
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@pytest.mark.timeout(180)
def test_clock_set_back_an_hour_times_nothing_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock cannot be set in a test; the hub's and agent's view of it is shifted instead."""
    offset = site.home / "offset"
    (site.home / "shifted.py").write_text(CLOCK)
    real = subprocess.Popen

    def shifted(command: list[str], **options: object) -> object:
        if command[:2] == [sys.executable, "-m"] and command[2] in ("lanai.hub", "lanai.agent"):
            command = [sys.executable, str(site.home / "shifted.py"), str(offset), *command[2:]]
        return real(command, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr("services.processes.subprocess.Popen", shifted)
        site.start_hub("--lease-s", LEASE_S)
        site.start_agent("n1")
    batch = site.submit(["echo x >> began; sleep 10; echo $LANAI_ATTEMPT >> ran", "sleep 1"], "--time", "60")
    site.await_lines("began", 1)
    offset.write_text("-3600")
    site.wait(batch)
    assert site.lines_of("ran") == ["1"]
    assert site.counts(batch) == {"done": 2}


def test_nothing_of_a_site_is_left_when_it_is_closed(tmp_path: Path) -> None:
    """The tests' own tidiness: agents, starters and commands all go."""
    made = Site(tmp_path / "site")
    made.start_hub()
    made.start_agent("n1")
    made.submit(["sleep 1000"])
    eventually(lambda: starters(made.home), what="a starter")
    made.close()
    eventually(lambda: not marked(made.home) and not starters(made.home), what="everything to be gone")
