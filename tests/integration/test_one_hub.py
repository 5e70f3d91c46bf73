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
