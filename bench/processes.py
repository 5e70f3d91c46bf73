"""Processes under measurement: started, watched through /proc, and ended, nothing left behind.

Hub and agent are started in the foreground, by `python -m lanai.hub` and `lanai.agent`; both say on a pipe when they
are ready. CPU is counted in clock ticks of 10 ms, so that a row needs some thousand jobs to mean anything.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
READY_S = 60.0
END_S = 20.0


class DidNotStart(Exception):
    """A program under measurement did not become ready; carries what it said."""


@dataclass
class Daemon:
    """A process that said it is ready."""

    process: subprocess.Popen[bytes]
    facts: dict[str, Any]
    log: Path
    ready_s: float = 0.0
    extra_pids: dict[str, int] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def stop(self) -> None:
        """Ask it to end, and insist after a while. A repeat is harmless."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def start(module: str, *arguments: str, log: Path, environment: dict[str, str] | None = None) -> Daemon:
    """Start `python -m MODULE ARGUMENTS --ready-fd N` and wait until it is ready.

    Raises:
        DidNotStart: it ended or kept silent.
    """
    began_s = time.monotonic()
    reading, writing = os.pipe()
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--ready-fd", str(writing)],
            pass_fds=(writing,),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment or bare_environment(),
        )
    os.close(writing)
    try:
        readable, _, _ = select.select([reading], [], [], READY_S)
        line = os.read(reading, 1 << 16) if readable else b""
    finally:
        os.close(reading)
    facts = json.loads(line) if line else {"error": "it said nothing"}
    if "error" in facts:
        process.kill()
        process.wait()
        raise DidNotStart(f"{module}: {facts['error']}\n{log.read_text(errors='replace')[-2000:]}")
    return Daemon(process, facts, log, time.monotonic() - began_s)


def start_hub(directory: Path, *arguments: str) -> Daemon:
    """A hub on a Unix socket alone, that does not end by itself."""
    directory.mkdir(parents=True, exist_ok=True)
    return start(
        "lanai.hub", str(directory), "--private", "--idle-end-s", "86400", *arguments, log=directory.parent / "hub.log"
    )


def bare_environment() -> dict[str, str]:
    """The caller's environment without what would lead Lanai elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("LANAI_", "XDG_"))}


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lanai-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def cpu_us(pid: int, *, with_children: bool = False) -> int:
    """User and system time of a process so far, in steps of 10 ms; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    wanted = fields[11:15] if with_children else fields[11:13]
    return sum(map(int, wanted)) * _TICK_US


def pss_bytes(pid: int) -> int:
    """Memory of a process, its share of what it shares with others included."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss in smaps_rollup")


def descendants(pid: int) -> dict[int, str]:
    """Every process below `pid`, with the module or program it runs."""
    found: dict[int, str] = {}
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    todo = [pid]
    while todo:
        for child in parents.get(todo.pop(), []):
            found[child] = _program(child)
            todo.append(child)
    return found


def _program(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    names = [word.decode(errors="replace") for word in words if word]
    for at, word in enumerate(names):
        if word == "-m" and at + 1 < len(names):
            return names[at + 1]
        if word.endswith(".py"):
            return word
    return names[0] if names else ""
