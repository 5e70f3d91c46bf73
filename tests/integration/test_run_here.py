"""`lanai run` as people meet it: on a terminal, with a private hub that several share, after a reboot, in a pipe."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site, is_alive, marked, starters

LANAI = [sys.executable, "-m", "lanai"]
INPUT_BYTES = 50_000_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Nothing is started but what `lanai run` starts by itself."""
    made = Site(tmp_path / "site")
    yield made
    made.close()


class Terminal:
    """A command on a terminal of its own, 120 columns wide."""

    def __init__(self, site: Site, *words: str, **extra: str) -> None:
        self.pid, self._ours = pty.fork()
        if not self.pid:
            os.chdir(site.work)
            os.execve(sys.executable, [*LANAI, *words], {**site.environ(), "TERM": "xterm", **extra})
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.shown = ""
        self.code: int | None = None

    def see(self, text: str, within_s: float = 30.0) -> str:
        """Everything shown so far, once that has `text`."""
        deadline_s = time.monotonic() + within_s
        while text not in self.shown:
            assert self._read(deadline_s - time.monotonic()), f"not shown: {text!r}; but {self.shown!r}"
        return self.shown

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._ours)
        self._ours = -1

    def end(self, within_s: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        deadline_s = time.monotonic() + within_s
        while self._ours >= 0 and self._read(deadline_s - time.monotonic()):
            pass
        found = eventually(lambda: os.waitpid(self.pid, os.WNOHANG), max(1.0, deadline_s - time.monotonic()))
        self.code = os.waitstatus_to_exitcode(found[1]) if found[0] else None
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def close(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self._ours >= 0:
            os.close(self._ours)

    def _read(self, within_s: float) -> bool:
        if within_s <= 0 or not select.select([self._ours], [], [], within_s)[0]:
            return False
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # nobody has it open any more
            return False
        self.shown += piece.decode(errors="replace")
        return bool(piece)


@contextmanager
def terminal(site: Site, *words: str, **extra: str) -> Iterator[Terminal]:
    made = Terminal(site, *words, **extra)
    try:
        yield made
    finally:
        made.close()


def listed(site: Site, *lines: str) -> str:
    (site.work / "jobs.txt").write_text("".join(f"{line}\n" for line in lines))
    return "jobs.txt"


# -- on a terminal


def test_a_bar_moves_on_a_terminal_and_is_gone_at_the_end(site: Site) -> None:
    with terminal(site, "run", listed(site, *["sleep 0.3"] * 8)) as run:
        shown = run.see("█")
        assert "░" in shown and "jobs/s" in shown and "ETA" in shown and "\x1b[32m" in shown
        assert run.end() == 0
        assert "8 done" in run.shown.rpartition("\r\x1b[K")[2]


def test_no_color_leaves_the_bar_and_a_dumb_terminal_has_none(site: Site) -> None:
    with terminal(site, "run", listed(site, *["sleep 0.3"] * 4), NO_COLOR="1") as run:
        run.see("█")
        assert run.end() == 0
        assert "\x1b[3" not in run.shown
    with terminal(site, "run", "jobs.txt", TERM="dumb") as run:
        assert run.end() == 0
        assert "\x1b" not in run.shown and "█" not in run.shown


def test_what_is_said_meanwhile_takes_the_place_of_the_bar(site: Site) -> None:
    with terminal(site, "run", listed(site, *["while [ ! -e go ]; do sleep 0.05; done"] * 2)) as run:
        run.see("running")
        os.kill(json.loads((site.home / "private" / "hub.pid").read_bytes())["pid"], signal.SIGKILL)
        assert "\r\x1b[Klanai: the private hub was killed" in run.see("is started again")
        (site.work / "go").touch()
        assert run.end() == 0
        assert "2 done" in run.shown.rpartition("\r\x1b[K")[2]


def test_one_interruption_detaches(site: Site) -> None:
    with terminal(site, "run", listed(site, *["while [ ! -e go ]; do sleep 0.05; done"] * 2)) as run:
        run.see("running")
        run.press("\x03")
        assert "goes on" in run.see("lanai watch 1")
        assert run.end() == 130
    (site.work / "go").touch()
    assert "2 done" in site.lanai("watch", "1").stderr


def test_two_interruptions_cancel(site: Site) -> None:
    with terminal(site, "run", listed(site, *["sleep 60"] * 9)) as run:
        run.see("running")
        run.press("\x03")
        run.see("detached")
        run.press("\x03")
        assert "cancelled batch 1: 9 jobs" in run.see("had not ended")
        assert run.end() == 1
    site.wait(1, ok=False)
    assert site.counts(1) == {"cancelled": 9}


def test_a_terminal_that_is_closed_detaches(site: Site) -> None:
    with terminal(site, "run", listed(site, *["while [ ! -e go ]; do sleep 0.05; done"] * 2)) as run:
        run.see("running")
        run.hang_up()
        assert run.end() == 130
    (site.work / "go").touch()
    site.wait(1)
    assert site.counts(1) == {"done": 2}


# -- several at once


def test_two_at_once_share_one_agent_and_never_run_more_than_fit(site: Site) -> None:
    job = "echo + >> log; sleep 0.05; echo - >> log"
    name = listed(site, *[job] * 40)
    runs = [site.spawn("run", name) for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    (node,) = json.loads(site.lanai("node", "list", "--format", "json").stdout)["nodes"]
    running = most = 0
    for sign in site.lines_of("log"):
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert (len(site.lines_of("log")), running) == (160, 0)
    assert 1 <= most <= node["cpus"]


def test_after_a_reboot_the_next_command_resumes_and_says_so(site: Site) -> None:
    """Everything is gone at once: hub, API process, agent, starter, commands.

    Of jobs that had ended but whose result no process had written down yet nobody can know; those run once more, and
    their record says so: as many lines as attempts that anybody knows of.
    """
    waiting = "echo $LANAI_INDEX >> began; while [ ! -e go ]; do sleep 0.05; done; echo $LANAI_INDEX >> ended"
    site.lanai("run", "--detach", listed(site, *["echo $LANAI_INDEX >> ended"] * 20, *[waiting] * 20))
    site.await_lines("ended", 20)
    site.await_lines("began", 1)
    everything = [*marked(site.home), *starters(site.home)]
    assert len(everything) >= 5
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in everything:
            os.kill(pid, number)
    eventually(lambda: not [pid for pid in everything if is_alive(pid)])
    status = site.lanai("status")
    assert "the private hub was not running; 1 unfinished batch goes on" in status.stderr
    assert "unfinished" not in site.lanai("status").stderr
    (site.work / "go").touch()
    assert site.lanai("run", listed(site, "true")).returncode == 0
    site.wait(1)
    assert site.counts(1) == {"done": 40}
    ended = [int(line) for line in site.lines_of("ended")]
    assert set(ended) == set(range(1, 41))
    attempts = {job["index"]: job["attempts"] for job in site.jobs(1)}
    assert all(ended.count(index) <= attempts[index] for index in attempts), (ended, attempts)


# -- one command in a pipe


def run_fed(site: Site, stdin: int, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*LANAI, "run", "--", *words],
        stdin=stdin,
        capture_output=True,
        cwd=site.work,
        env=site.environ(),
        timeout=60,
        check=False,
    )


def test_what_is_piped_in_reaches_the_command(site: Site) -> None:
    data = os.urandom(1 << 20) * (INPUT_BYTES >> 20)
    (site.work / "big").write_bytes(data)
    with open(site.work / "big", "rb") as big:
        counted = run_fed(site, big.fileno(), "md5sum")
    assert counted.stdout.split()[0].decode() == hashlib.md5(data, usedforsecurity=False).hexdigest()
    with subprocess.Popen(["cat", "big"], cwd=site.work, stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        copied = run_fed(site, cat.stdout.fileno(), "cat")
    assert copied.returncode == 0
    assert copied.stdout == data
    with open(site.work / "big", "rb") as big:
        unread = run_fed(site, big.fileno(), "echo", "all the same")
    assert (unread.returncode, unread.stdout, unread.stderr) == (0, b"all the same\n", b"")


def test_a_pipe_that_is_never_closed_keeps_nobody(site: Site) -> None:
    reader, writer = os.pipe()
    try:
        run_fed(site, subprocess.DEVNULL, "true")  # the private hub is up after this
        began_s = time.monotonic()
        assert run_fed(site, reader, "echo", "hi").stdout == b"hi\n"
        os.write(writer, b"one\ntwo\n")
        assert run_fed(site, reader, "head", "-n", "1").stdout == b"one\n"
        assert run_fed(site, reader, "sh", "-c", "exit 7").returncode == 7
        assert time.monotonic() - began_s < 10
    finally:
        os.close(reader)
        os.close(writer)


def test_no_input_at_all(site: Site) -> None:
    assert run_fed(site, subprocess.DEVNULL, "cat").stdout == b""
    closed = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m lanai run -- cat <&-"],
        cwd=site.work,
        env=site.environ(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, b"", b"")
