"""The private hub and the one that a person starts: all verbs mean the same one, and neither hides the other's work."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site, is_alive, starters

LISTEN = ("--listen", "127.0.0.1:0")
GATED = "echo $LANAI_INDEX >> began; while [ ! -e go ]; do sleep 0.02; done"
"""A job that ends once the file `go` is there."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.close()


def pid_in(site: Site, file: str) -> int:
    path = site.home / "private" / file
    eventually(path.exists, what=file)
    return int(json.loads(path.read_bytes())["pid"])


def kill_private(site: Site) -> None:
    pids = [pid_in(site, "hub.pid"), pid_in(site, "agent/agent.json")]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)
    eventually(lambda: not any(map(is_alive, pids)), what="hub and agent to be gone")


def hub_status(site: Site) -> dict[str, object]:
    told: dict[str, object] = json.loads(site.lanai("hub", "status", "--format", "json", ok=False).stdout)
    return told


def test_a_killed_private_hub_with_work_is_told_of_and_not_hidden(site: Site) -> None:
    site.submit([GATED] * 3)
    site.await_lines("began", 1)
    kill_private(site)
    told = site.lanai("hub", "status", ok=False)
    assert told.returncode == 3
    assert "the private hub does not run; 1 unfinished batch waits for it\ntry: lanai status" in told.stderr
    assert hub_status(site)["unfinished"] == 1
    refused = site.lanai("hub", "start", *LISTEN, ok=False)
    assert refused.returncode == 7
    assert "the private hub has 1 unfinished batch" in refused.stderr
    assert not (site.home / "hub").exists()
    assert "1 unfinished batch goes on" in site.lanai("status").stderr
    (site.work / "go").touch()
    site.wait(1)
    assert site.counts(1) == {"done": 3}


def test_a_private_hub_at_work_is_not_replaced(site: Site) -> None:
    site.submit([GATED])
    site.await_lines("began", 1)
    private = pid_in(site, "hub.pid")
    assert site.lanai("hub", "start", *LISTEN, ok=False).returncode == 7
    assert hub_status(site)["pid"] == private
    (site.work / "go").touch()
    site.wait(1)


def test_an_idle_private_hub_gives_way(site: Site) -> None:
    site.lanai("run", "--", "true")
    pids = [pid_in(site, "hub.pid"), pid_in(site, "agent/agent.json"), *starters(site.home)]
    started = json.loads(site.lanai("hub", "start", *LISTEN, "--format", "json").stdout)
    assert not any(map(is_alive, pids))
    try:
        assert hub_status(site)["pid"] == started["pid"]
        assert f"pid {started['pid']}," in site.lanai("status").stdout
    finally:
        site.lanai("hub", "stop")


def test_all_verbs_mean_the_same_hub(site: Site) -> None:
    """Both were started, as was possible once: the one that was set up is meant, also where it is down."""
    site.lanai("hub", "start", *LISTEN)
    site.lanai("hub", "stop")
    (site.home / "hub").rename(site.home / "aside")
    site.submit([GATED])
    site.await_lines("began", 1)
    (site.home / "aside").rename(site.home / "hub")
    private = site.home / "private"
    assert [site.lanai(*words, ok=False).returncode for words in (("status",), ("hub", "status"))] == [3, 3]
    assert "no hub runs here" in site.lanai("hub", "stop").stderr
    assert pid_in(site, "hub.pid")
    kill_private(site)
    started = site.lanai("hub", "start", *LISTEN)
    assert f"try: lanai --hub {private} status" in started.stderr
    assert "1 unfinished batch goes on" in site.lanai("--hub", str(private), "status").stderr
    named = json.loads(site.lanai("--hub", str(private), "hub", "status", "--format", "json").stdout)
    assert (named["pid"], named["join_file"]) == (pid_in(site, "hub.pid"), "")
    (site.work / "go").touch()
    site.lanai("--hub", str(private), "wait", "1")
    site.lanai("hub", "stop")


def test_a_hub_that_the_environment_names_is_meant_by_all(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.lanai("run", "--", "true")
    monkeypatch.setenv("LANAI_HUB", str(site.home / "nowhere"))
    assert [site.lanai(*words, ok=False).returncode for words in (("status",), ("hub", "status"))] == [2, 2]
    monkeypatch.setenv("LANAI_HUB", str(site.home / "private"))
    assert hub_status(site)["pid"] == pid_in(site, "hub.pid")


def test_stopped_now_a_private_hub_cancels_what_runs_and_leaves_nothing(site: Site) -> None:
    """What has not begun is not cancelled with it, and goes on at the next command."""
    stubborn = f"trap 'echo $LANAI_INDEX >> ended; exit 3' TERM; {GATED}"
    site.submit([stubborn] * 4, "--max-running", "2")
    site.await_lines("began", 2)
    eventually(lambda: len(starters(site.home)) == 1, what="the starter")
    refused = site.lanai("hub", "stop", ok=False)
    assert refused.returncode == 7
    pids = [pid_in(site, "hub.pid"), pid_in(site, "agent/agent.json"), *starters(site.home)]
    site.lanai("hub", "stop", "--now")
    assert sorted(site.lines_of("ended")) == sorted(site.lines_of("began")[:2])
    assert not any(map(is_alive, pids))
    assert hub_status(site)["unfinished"] == 1
    (site.work / "go").touch()
    assert "1 unfinished batch goes on" in site.lanai("status").stderr
    site.wait(1, ok=False)
    assert site.counts(1) == {"done": 2, "cancelled": 2}
    assert len(site.lines_of("began")) == 4


def test_what_a_killed_agent_left_ends_with_a_hub_that_is_stopped_now(site: Site) -> None:
    site.submit([GATED])
    site.await_lines("began", 1)
    agent, left = pid_in(site, "agent/agent.json"), starters(site.home)
    os.kill(agent, signal.SIGKILL)
    site.lanai("hub", "stop", "--now")
    assert not any(map(is_alive, left))


def test_the_agent_of_the_private_hub_is_stopped_like_others(site: Site) -> None:
    site.submit([GATED])
    site.await_lines("began", 1)
    pids = [pid_in(site, "agent/agent.json"), *starters(site.home)]
    assert "has stopped" in site.lanai("agent", "stop", "--now").stderr
    assert not any(map(is_alive, pids))
    assert "no agent runs here" in site.lanai("agent", "stop").stderr
    (site.work / "go").touch()
    site.wait(1)
