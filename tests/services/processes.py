"""Real hubs and agents for tests: started as processes, known by what they say on their ready descriptor."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

READY_WITHIN_S = 20.0
POLL_S = 0.02


class NotReady(AssertionError):
    """The process ended, or said an error, before it was ready."""


class Process:
    """A child with a ready descriptor. `facts` is what it said of itself."""

    def __init__(self, command: Sequence[str], log: Path, *, prefix: Sequence[str] = ()) -> None:
        read, write = os.pipe()
        self.log = log
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                [*prefix, *command, "--ready-fd", str(write)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(write,),
                start_new_session=True,
            )
        os.close(write)
        try:
            self.facts = self._ready(read)
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(read)

    @property
    def pid(self) -> int:
        """Of the process itself, also where something was put before its command."""
        return int(self.facts["pid"])

    def _ready(self, read: int) -> dict[str, Any]:
        poll = select.poll()
        poll.register(read, select.POLLIN)
        said = b""
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not said.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
                raise NotReady(f"not ready within {READY_WITHIN_S} s: {self.log.read_text()[-2000:]}")
            more = os.read(read, 65536)
            if not more:
                raise NotReady(f"ended before it was ready: {self.log.read_text()[-2000:]}")
            said += more
        facts: dict[str, Any] = json.loads(said)
        if "error" in facts:
            raise NotReady(json.dumps(facts["error"]))
        return facts

    def signal(self, number: int) -> None:
        """Send the process itself a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone. A repeat is harmless."""
        if self._child.poll() is None:
            target = self.pid if hasattr(self, "facts") else self._child.pid
            os.kill(target, signal.SIGKILL)
        self._child.wait()

    def stop(self, within_s: float = 15.0) -> int:
        """SIGTERM, and its exit code."""
        if self._child.poll() is None:
            self.signal(signal.SIGTERM)
        return self._child.wait(within_s)

    def wait(self, within_s: float = 30.0) -> int:
        """Until it ends by itself."""
        return self._child.wait(within_s)


def start_hub(home: Path, *options: str, prefix: Sequence[str] = ()) -> Process:
    """A hub in `home/hub`, listening on loopback unless `options` say otherwise."""
    home.mkdir(parents=True, exist_ok=True)
    listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
    command = [sys.executable, "-m", "lanai.hub", str(home / "hub"), *listen, *options]
    return Process(command, home / "hub.log", prefix=prefix)


def start_agent(home: Path, name: str, *options: str, hub: str = "", prefix: Sequence[str] = ()) -> Process:
    """An agent with its state in `home/agents/NAME`, of the hub in `home` unless `hub` says otherwise."""
    state = home / "agents" / name
    state.mkdir(parents=True, exist_ok=True)
    joining = json.loads((home / "join").read_text())
    command = [
        *(sys.executable, "-m", "lanai.agent", "--state", str(state), "--name", name),
        *("--hub", hub or joining["url"], "--join", str(home / "join"), *options),
    ]
    return Process(command, home / f"agent-{name}.log", prefix=prefix)


def pid_with_word(word: str) -> int | None:
    """A process that has `word` among those of its command; None where there is none."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.fsencode(word) in (entry / "cmdline").read_bytes().split(b"\0"):
                return int(entry.name)
    return None


def end_starters(home: Path) -> None:
    """Kill what outlives agents on purpose: starters, and with them what they run, whose directory is under `home`."""
    needle = os.fsencode(home)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = Path(entry.path, "cmdline").read_bytes()
            if needle in command and b"starter.py" in command:
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def eventually(check: Callable[[], Any], within_s: float = 30.0, what: str = "") -> Any:
    """Poll until `check()` is true and return what it returned; AssertionError with its last value after `within_s`."""
    deadline_s = time.monotonic() + within_s
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {within_s} s: {what or check}; last {value!r}")
        select.select([], [], [], POLL_S)
