"""Following while the hub, or a private hub's agent, goes away and comes back: what is said, and how it ends."""

from __future__ import annotations

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

    def __init__(self, site: Site, *words: str) -> None:
        noted = site.home / "noted"
        (site.home / "noting.py").write_text(NOTING)
        self._process = site.spawn(*words, program=(str(site.home / "noting.py"), str(noted)))
        assert self._process.stdout is not None and self._process.stderr is not None
        self.out = self._process.stdout
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, args=(self._process.stderr,))
        self._reading.start()
        eventually(noted.exists, what="the hub to have answered the follower")

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
