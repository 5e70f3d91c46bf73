"""A whole site in one directory: a real hub, real agents, and the `lanai` command, for tests that break things."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lanai.client.private import is_answering
from services.processes import Process, end_starters, eventually, start_agent, start_hub

COMMAND_S = 60.0


class Site:
    """Hub and agents under `home`. `close` ends everything, whatever state it is in."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.work = home / "work"
        self.work.mkdir(parents=True)
        self.hub: Process | None = None
        self.agents: dict[str, Process] = {}
        self.hub_options: tuple[str, ...] = ()
        self._others: list[subprocess.Popen[str]] = []

    # -- parts

    def start_hub(self, *options: str, prefix: Sequence[str] = ()) -> Process:
        """Start it, with the options of last time where none are given."""
        self.hub_options = options or self.hub_options
        self.hub = start_hub(self.home, *self.hub_options, prefix=prefix)
        eventually(lambda: is_answering(self.home / "hub"), what="the API to answer")
        return self.hub

    def start_agent(self, name: str, *options: str, prefix: Sequence[str] = (), hub: str = "") -> Process:
        """Start an agent with two cpus unless `options` say otherwise."""
        cpus = () if "--cpus" in options else ("--cpus", "2")
        self.agents[name] = start_agent(self.home, name, *cpus, *options, prefix=prefix, hub=hub)
        return self.agents[name]

    def close(self) -> None:
        """End everything."""
        for other in self._others:
            other.kill()
            other.wait()
            for stream in (other.stdout, other.stderr):
                if stream is not None:
                    stream.close()
        for process in [*self.agents.values(), *([self.hub] if self.hub else [])]:
            for pid in descendants(process.pid):
                _signal(pid, signal.SIGCONT)
            process.kill()
        end_starters(self.home)
        for pid in marked(self.home):
            _signal(pid, signal.SIGKILL)

    # -- the command

    def environ(self) -> dict[str, str]:
        """What the command and its jobs see; marks them as this site's."""
        return {**os.environ, "LANAI_HOME": str(self.home), "LANAI_SITE": str(self.home)}

    def lanai(self, *words: str, stdin: str = "", ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `lanai WORDS` to its end; with `ok`, it must have exited 0."""
        ended = subprocess.run(
            [sys.executable, "-m", "lanai", *words],
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            cwd=self.work,
            env=self.environ(),
            timeout=COMMAND_S,
            check=False,
        )
        assert not ok or ended.returncode == 0, (words, ended.returncode, ended.stdout, ended.stderr)
        return ended

    def spawn(self, *words: str, program: Sequence[str] = ("-m", "lanai")) -> subprocess.Popen[str]:
        """Start `lanai WORDS` and go on; `program` is what Python is given for `lanai`."""
        self._others.append(
            subprocess.Popen(
                [sys.executable, *program, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=self.work,
                env=self.environ(),
            )
        )
        return self._others[-1]

    def submit(self, lines: Sequence[str], *options: str) -> int:
        """Submit a list; returns its number."""
        return int(self.lanai("submit", "-", "--format", "quiet", *options, stdin="\n".join(lines) + "\n").stdout)

    def wait(self, batch: int, timeout_s: float = 60.0, *, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """`lanai wait`."""
        return self.lanai("wait", str(batch), "--timeout", f"{timeout_s:g}", ok=ok)

    def jobs(self, batch: int) -> list[dict[str, Any]]:
        """`lanai job list`, decoded."""
        listed = self.lanai("job", "list", str(batch), "--format", "ndjson").stdout
        return [json.loads(line) for line in listed.splitlines()]

    def counts(self, batch: int) -> dict[str, int]:
        """How many jobs stand in each state, by the jobs' own list."""
        found: dict[str, int] = {}
        for job in self.jobs(batch):
            found[job["state"]] = found.get(job["state"], 0) + 1
        return found

    # -- what jobs leave

    def lines_of(self, name: str) -> list[str]:
        """The lines of a file that jobs append to."""
        path = self.work / name
        return path.read_text().splitlines() if path.exists() else []

    def await_lines(self, name: str, count: int, within_s: float = 30.0) -> list[str]:
        """Wait until a file has at least `count` lines."""
        eventually(lambda: len(self.lines_of(name)) >= count, within_s, f"{count} lines in {name}")
        return self.lines_of(name)


def descendants(pid: int) -> list[int]:
    """A process and everything below it, parents first."""
    found = [pid]
    for at in found:
        try:
            with os.scandir(f"/proc/{at}/task") as tasks:
                for task in tasks:
                    found += [int(child) for child in Path(task.path, "children").read_text().split()]
        except OSError:
            continue
    return found


def marked(home: Path) -> list[int]:
    """Processes that a site's command or jobs are, whoever their parent is by now."""
    needle = b"LANAI_SITE=" + os.fsencode(home)
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if needle in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return [pid for pid in found if is_alive(pid)]


def starters(home: Path) -> list[int]:
    """The starters whose directory lies under `home`."""
    needle = os.fsencode(home)
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                command = Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue
            if needle in command and b"starter.py" in command:
                found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs. One that has ended but that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
