"""Following while the hub, or a private hub's agent, goes away and comes back: what is said, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from services.processes import eventually
from services.site import Site

SILENT = "lanai: the hub does not answer; trying again for"
BACK = "lanai: the hub answers again"
GATED = "echo $LANAI_INDEX >> began; while [ ! -e go ]; do sleep 0.02; done; echo line $LANAI_INDEX"
"""A job that ends once the file `go` is there."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.close()


NOTING = """
import pathlib, runpy, sys
from lanai.client.patience import Patience
noted, answered = pathlib.Path(sys.argv.pop(1)), Patience.answered
def note(self):
    answered(self)
    noted.touch()
Patience.answered = note
runpy.run_module("lanai", run_name="__main__", alter_sys=True)
"""
"""Runs `lanai`, and makes a file once the hub has answered it: from then on it outlives the hub."""


class Follower:
    """A `lanai` that follows, and what it has said on standard error so far."""

    def __init__(self, site: Site, *words: str, noted: str = "noted") -> None:
        answered = site.home / noted
        (site.home / "noting.py").write_text(NOTING)
        self._process = site.spawn(*words, program=(str(site.home / "noting.py"), str(answered)))
        assert self._process.stdout is not None and self._process.stderr is not None
        self.out = self._process.stdout
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, args=(self._process.stderr,))
        self._reading.start()
        eventually(answered.exists, what="the hub to have answered the follower")

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.append(line.rstrip("\n"))

    def await_line(self, begin: str) -> None:
        """Wait until it has said a line that begins so."""
        eventually(lambda: self.count(begin), what=f"{begin!r} in {self.lines}")

    def count(self, begin: str) -> int:
        """How many lines begin so."""
        return sum(line.startswith(begin) for line in self.lines)

    def end(self) -> int:
        """Its exit code, once it has ended and everything it said was read."""
        code = self._process.wait(60)
        self._reading.join(10)
        return code


def with_hub(site: Site) -> None:
    site.start_hub()
    site.start_agent("n1")


def kill_hub(site: Site) -> None:
    assert site.hub is not None
    site.hub.kill()


def release(site: Site) -> None:
    (site.work / "go").touch()


# -- a hub that somebody started


@pytest.mark.parametrize("words", [("wait", "1"), ("watch", "1"), ("logs", "-f", "1/1"), ("run", "jobs")])
def test_who_follows_says_that_the_hub_is_silent_and_that_it_is_back(site: Site, words: tuple[str, ...]) -> None:
    with_hub(site)
    if words[0] == "run":
        (site.work / "jobs").write_text(GATED + "\n")
    else:
        site.submit([GATED])
        site.await_lines("began", 1)
    follower = Follower(site, *words)
    site.await_lines("began", 1)
    kill_hub(site)
    follower.await_line(SILENT)
    site.start_hub()
    follower.await_line(BACK)
    release(site)
    assert follower.end() == 0
    assert (follower.count(SILENT), follower.count(BACK)) == (1, 1)
    assert site.lines_of("began") == ["1"]
    if words[0] == "logs":
        assert follower.out.read() == "line 1\n"


def test_one_command_goes_on_after_a_silence_and_its_output_comes_once(site: Site) -> None:
    with_hub(site)
    follower = Follower(site, "run", "--", "sh", "-c", f"echo first; {GATED}; exit 9")
    assert follower.out.readline() == "first\n"
    kill_hub(site)
    follower.await_line(SILENT)
    site.start_hub()
    follower.await_line(BACK)
    release(site)
    assert follower.out.read() == "line 1\n"
    assert follower.end() == 9
    assert follower.lines[0].startswith(SILENT) and follower.lines[1:] == [BACK]


def test_the_time_that_was_given_counts_while_the_hub_is_silent(site: Site) -> None:
    with_hub(site)
    batch = site.submit([GATED])
    site.await_lines("began", 1)
    follower = Follower(site, "wait", str(batch), "--timeout", "6")
    kill_hub(site)
    assert follower.end() == 6
    assert follower.count(SILENT) == 1
    assert "the time is up" in follower.lines[-2], follower.lines


# -- a private hub

AGAIN = "lanai: the private hub was killed, and is started again"
AGENT_AGAIN = "lanai: the agent of the private hub was killed, and is started again"
BOTH_AGAIN = "lanai: the private hub and its agent were killed, and are started again"
HUB_FILE, AGENT_FILE = "hub.pid", "agent/agent.json"
JOBS = 60


def pid_in(site: Site, file: str) -> int:
    """The process id that a private hub, or its agent, has written down."""
    path = site.home / "private" / file
    eventually(path.exists, what=file)
    pid: int = json.loads(path.read_bytes())["pid"]
    return pid


def kill_private(site: Site, *files: str) -> None:
    """End them at once: stopped first, so that none sees another's end."""
    pids = [pid_in(site, file) for file in files]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)


def list_with_a_gate(site: Site, last: str) -> str:
    """Jobs of which each leaves its line in `ran`; the first waits for `release`, the last is as asked for."""
    waiting = "while [ ! -e go ]; do sleep 0.02; done; echo $LANAI_INDEX >> ran"
    lines = [waiting, *["sleep 0.02; echo $LANAI_INDEX >> ran"] * (JOBS - 2), f"echo $LANAI_INDEX >> ran; {last}"]
    (site.work / "jobs").write_text("".join(f"{line}\n" for line in lines))
    return "jobs"


@pytest.mark.parametrize(
    ("files", "again"),
    [((HUB_FILE,), AGAIN), ((AGENT_FILE,), AGENT_AGAIN), ((HUB_FILE, AGENT_FILE), BOTH_AGAIN)],
)
def test_run_starts_again_what_was_killed_of_its_private_hub(site: Site, files: tuple[str, ...], again: str) -> None:
    """Grants, results and lines are on their way when it happens; nothing of them is lost, and nothing comes twice."""
    follower = Follower(site, "run", list_with_a_gate(site, "exit 3"), "--cpus", "0.5")
    site.await_lines("ran", 5)
    kill_private(site, *files)
    follower.await_line(again)
    release(site)
    assert follower.end() == 1
    assert sorted(map(int, site.lines_of("ran"))) == list(range(1, JOBS + 1))
    assert site.counts(1) == {"done": JOBS - 1, "failed": 1}
    assert (follower.count(again), follower.count("lanai:")) == (1, 1), follower.lines


@pytest.mark.parametrize("words", [("wait", "1"), ("watch", "1"), ("logs", "-f", "1/1")])
def test_all_who_follow_start_a_private_hub_again(site: Site, words: tuple[str, ...]) -> None:
    site.lanai("run", "--detach", "--", "sh", "-c", f"echo first; {GATED}")
    site.await_lines("began", 1)
    follower = Follower(site, *words)
    for file, again in ((HUB_FILE, AGAIN), (AGENT_FILE, AGENT_AGAIN)):
        kill_private(site, file)
        follower.await_line(again)
    release(site)
    assert follower.end() == 0
    assert follower.out.read() == ("first\nline 1\n" if words[0] == "logs" else "")
    assert site.lines_of("began") == ["1"]
    assert [follower.count(AGAIN), follower.count(AGENT_AGAIN), follower.count("lanai:")] == [1, 1, 2]


def test_one_command_outlives_its_private_hub_and_agent(site: Site) -> None:
    follower = Follower(site, "run", "--", "sh", "-c", f"echo first; {GATED}; exit 9")
    assert follower.out.readline() == "first\n"
    kill_private(site, HUB_FILE, AGENT_FILE)
    follower.await_line(BOTH_AGAIN)
    release(site)
    assert follower.end() == 9
    assert follower.out.read() == "line 1\n"
    assert follower.lines == [BOTH_AGAIN]


def test_of_two_who_follow_one_starts_the_hub(site: Site) -> None:
    site.lanai("run", "--detach", "--", "sh", "-c", GATED)
    followers = [Follower(site, "wait", "1", noted=f"noted{number}") for number in range(2)]
    kill_private(site, HUB_FILE)
    eventually(lambda: any(each.lines for each in followers), what="one to say so")
    release(site)
    assert [each.end() for each in followers] == [0, 0]
    assert sorted(each.lines for each in followers) == [[], [AGAIN]]


def test_a_private_hub_that_is_stopped_on_purpose_stays_so(site: Site) -> None:
    site.submit([GATED, GATED], "--max-running", "1")
    site.await_lines("began", 1)
    follower = Follower(site, "wait", "1", "--timeout", "8")
    site.lanai("hub", "stop", "--now")
    assert follower.end() == 6
    assert not (site.home / "private" / HUB_FILE).exists()
    assert follower.count("lanai: the private hub was killed") == 0
