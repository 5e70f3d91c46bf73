"""What a node offers and shows: gpus by number, what is free, its version; and joining a hub that is not to be had."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lanai
from services.processes import eventually
from services.site import Site

GPU_JOB = "echo $LANAI_JOB_ID began $CUDA_VISIBLE_DEVICES >> gpus; sleep 0.2; echo $LANAI_JOB_ID ended >> gpus"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    yield made
    made.close()


def node(site: Site, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(site.lanai("node", "show", name, "--format", "json").stdout)["node"]
    return shown


def most_at_once(lines: list[str]) -> int:
    """Replays what the gpu jobs wrote: fails where one got a gpu that another had; returns the most in use."""
    held: dict[str, list[str]] = {}
    most = 0
    for job, what, *ids in map(str.split, lines):
        if what == "began":
            taken = [gpu for others in held.values() for gpu in others]
            wanted = ids[0].split(",")
            assert not set(wanted) & set(taken), (job, wanted, taken)
            held[job] = wanted
            most = max(most, len(taken) + len(wanted))
        else:
            del held[job]
    return most


def test_no_gpu_is_given_to_two_running_attempts(site: Site) -> None:
    site.start_agent("n1", "--cpus", "8", "--gpus", "4")
    batches = [site.submit([GPU_JOB] * 9, "--gpus", "1"), site.submit([GPU_JOB] * 6, "--gpus", "2")]
    for batch in batches:
        site.wait(batch)
    assert len(site.lines_of("gpus")) == 30
    assert most_at_once(site.lines_of("gpus")) == 4


def test_gpus_are_as_nvidia_smi_lists_them_or_as_stated(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "nvidia-smi"
    fake.write_text('#!/bin/sh\necho "$@" > "$0.asked"\necho 0\necho 1\necho 2\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, options in {"found": [], "none": ["--gpus", "0"], "two": ["--gpus", "5,7"]}.items():
        site.lanai("agent", "start", "--name", name, "--cpus", "1", *options)
    assert "--query-gpu=index" in (programs / "nvidia-smi.asked").read_text()
    assert [node(site, name)["gpus"] for name in ("found", "none", "two")] == [3, 0, 2]
    assert node(site, "two")["capacity"]["gpus"] == ["5", "7"]
    batch = site.submit(["echo $CUDA_VISIBLE_DEVICES $LANAI_GPUS >> ids"], "--gpus", "2")
    site.wait(batch)
    assert site.lines_of("ids")[0] in ("0,1 0,1", "5,7 5,7")
    site.submit(["echo ${CUDA_VISIBLE_DEVICES-unset} ${LANAI_GPUS-unset} >> without"])
    assert site.await_lines("without", 1) == ["unset unset"]
    for name in ("found", "none", "two"):
        site.lanai("agent", "stop", "--name", name, "--now")


def test_gpus_stay_with_their_attempts_when_the_agent_is_killed(site: Site) -> None:
    """The next agent gave gpu 0 to another job while the first still ran on it."""
    agent = site.start_agent("n1", "--cpus", "8", "--gpus", "0,1")
    site.submit(["echo $CUDA_VISIBLE_DEVICES >> first; while [ ! -e go ]; do sleep 0.05; done"], "--gpus", "1")
    (taken,) = site.await_lines("first", 1)
    agent.kill()
    site.start_agent("n1", "--cpus", "8", "--gpus", "0,1")
    second = site.submit(["echo $CUDA_VISIBLE_DEVICES >> second"] * 3, "--gpus", "1")
    site.wait(second)
    assert {taken, *site.lines_of("second")} == {"0", "1"}
    assert len(set(site.lines_of("second"))) == 1
    (site.work / "go").touch()
    site.wait(second - 1)


@pytest.mark.parametrize("option", [("--gpus", "1.5"), ("--gpus", "0,0"), ("--cpus", "many"), ("--memory", "8Q")])
def test_an_offer_that_is_not_understood_is_refused(site: Site, option: tuple[str, str]) -> None:
    ended = site.lanai("agent", "start", *option, ok=False)
    assert ended.returncode == 2
    assert option[0] in ended.stderr and "accepted is" in ended.stderr


def test_a_node_shows_what_is_free_and_its_version(site: Site) -> None:
    site.start_agent("n1", "--cpus", "3", "--memory", "4G", "--gpus", "2", "--resource", "licence=5")
    free = {"cpus": 3, "memory_bytes": 4 << 30, "gpus": 2, "licence": 5}
    assert node(site, "n1")["free"] == free
    assert node(site, "n1")["version"] == lanai.__version__
    options = ("--cpus", "1.5", "--memory", "1G", "--gpus", "1", "--resource", "licence=2")
    batch = site.submit(["while [ ! -e go ]; do sleep 0.05; done"], *options)
    taken = {"cpus": 1.5, "memory_bytes": 3 << 30, "gpus": 1, "licence": 3}
    eventually(lambda: node(site, "n1")["free"] == taken, what="the job to take its room")
    (row,) = json.loads(site.lanai("node", "list", "--format", "json", "--columns", "name,free,version").stdout)[
        "nodes"
    ]
    assert row == {"name": "n1", "free": taken, "version": lanai.__version__}
    shown = site.lanai("node", "show", "n1").stdout
    assert "cpus=1.5" in shown and lanai.__version__ in shown
    (site.work / "go").touch()
    site.wait(batch)
    eventually(lambda: node(site, "n1")["free"] == free)


def test_a_busy_node_is_not_removed_and_an_idle_one_is(site: Site) -> None:
    site.start_agent("n1")
    batch = site.submit(["while [ ! -e go ]; do sleep 0.05; done"])
    eventually(lambda: site.counts(batch) == {"running": 1})
    refused = site.lanai("node", "remove", "n1", ok=False)
    assert refused.returncode == 7
    assert "1 attempts" in refused.stderr and "try: lanai node drain n1" in refused.stderr
    (site.work / "go").touch()
    site.wait(batch)
    site.agents["n1"].stop()
    site.lanai("node", "remove", "n1")
    assert json.loads(site.lanai("node", "list", "--format", "json").stdout)["nodes"] == []


# -- joining


def joining(site: Site, tmp_path: Path, **changes: str) -> str:
    made = tmp_path / "join"
    made.write_text(json.dumps({**json.loads((site.home / "join").read_text()), **changes}))
    return str(made)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_hub_that_is_not_up_is_said_soon(site: Site, tmp_path: Path) -> None:
    url = f"lanai://127.0.0.1:{closed_port()}"
    began_s = time.monotonic()
    ended = site.lanai("agent", "start", "--name", "x", "--join", joining(site, tmp_path, url=url), ok=False)
    assert ended.returncode == 3
    assert time.monotonic() - began_s < 10
    assert url in ended.stderr and "refused" in ended.stderr
    assert not [name for name in (site.home / "agents" / "x").iterdir() if name.name == "joined"]
    assert site.lanai("agent", "stop").stderr == "lanai: no agent runs here\n"


def test_a_hub_that_cannot_be_reached_is_said(site: Site, tmp_path: Path) -> None:
    join = joining(site, tmp_path, url="lanai://no-such-host.invalid:7")
    ended = site.lanai("agent", "start", "--name", "x", "--join", join, ok=False)
    assert ended.returncode == 3
    assert "lanai://no-such-host.invalid:7" in ended.stderr


@pytest.mark.parametrize(("field", "said"), [("pin", "certificate"), ("token", "join token")])
def test_a_wrong_pin_or_token_is_said_at_once(site: Site, tmp_path: Path, field: str, said: str) -> None:
    began_s = time.monotonic()
    join = joining(site, tmp_path, **{field: "00" * 32})
    ended = site.lanai("agent", "start", "--name", "x", "--join", join, ok=False)
    assert ended.returncode == 4
    assert time.monotonic() - began_s < 5
    assert said in ended.stderr and "join file" in ended.stderr


def test_an_agent_that_has_joined_before_goes_on_trying(site: Site) -> None:
    words = ("agent", "start", "--name", "n1", "--cpus", "1")
    site.lanai(*words)
    site.lanai("agent", "stop", "--now")
    assert site.hub is not None
    site.hub.kill()
    started = site.lanai(*words, "--format", "json")
    assert "goes on trying" in started.stderr
    pid = json.loads(started.stdout)["pid"]
    site.start_hub()
    eventually(lambda: node(site, "n1")["state"] == "up", what="the agent to find its hub")
    assert json.loads(site.lanai(*words, "--format", "json").stdout)["pid"] == pid
    site.lanai("agent", "stop", "--now")


def test_an_agent_in_the_foreground_goes_on_trying(site: Site) -> None:
    assert site.hub is not None
    site.hub.kill()
    running = site.spawn("agent", "start", "--name", "n1", "--cpus", "1", "--foreground")
    assert running.stdout is not None and running.stdout.readline().startswith("agent n1, pid ")
    site.start_hub()
    listed = ("node", "list", "--format", "quiet", "--filter", "state=up")
    eventually(lambda: site.lanai(*listed).stdout == "n1\n", what="the agent to find its hub")
    running.terminate()
    assert running.wait(20) == 0
