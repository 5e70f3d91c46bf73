"""A real starter in a directory of its own, for tests that speak to it themselves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lanai.agent import starter_link as sl
from lanai.agent import starter_processes as processes

TIMEOUT_S = 20.0
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


class Bench:
    """A starter in a directory of its own, a connection to it, and all that it has said."""

    def __init__(
        self,
        directory: Path,
        idle_s: float = 60.0,
        python: str = sys.executable,
        *,
        place: sl.Place | None = None,
        account: sl.Account | None = None,
    ) -> None:
        self.place = place or sl.own_place(directory / "starter")
        self.directory = self.place.directory
        self.work = directory / "work"
        self.work.mkdir()
        self.pid = sl.start_starter(self.place, account=account, idle_s=idle_s, python=python)
        self.is_reaped = False
        self.ended: list[sl.Ended] = []
        self.others: list[sl.Report] = []
        self.connection = sl.Connection(self.place)
        self.link = self.connection.link
        self.say(self.link.inventory())
        self.until(lambda: self.find(sl.Inventory))

    def say(self, *messages: bytes) -> None:
        self.connection.send(b"".join(messages))

    def say_and_wait(self, *messages: bytes) -> None:
        self.say(*messages)
        self.until(lambda: False)

    def reconnect(self) -> sl.Inventory:
        self.connection.close()
        self.connection = sl.Connection(self.place)
        self.link = self.connection.link
        self.others.clear()
        self.say(self.link.inventory())
        return self.until(lambda: self.find(sl.Inventory))

    def find(self, kind: type) -> Any:
        return next((one for one in self.others if isinstance(one, kind)), None)

    def until(self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
        deadline_s = time.monotonic() + timeout_s
        while not (result := condition()):
            report = self.connection.receive(max(0.0, deadline_s - time.monotonic()))
            assert report is not None, f"nothing more came; log: {self.log()}"
            if isinstance(report, sl.EndedMany):
                self.ended.extend(report.items)
            else:
                self.others.append(report)
        return result

    def log(self) -> str:
        return (self.directory / sl.LOG_NAME).read_text()

    def prepare(self, width: int = 2, **settings: Any) -> None:
        settings = {"batch": 7, "cwd": str(self.work), "env": ENVIRONMENT, **settings}
        self.say(self.link.spec(1, **settings), self.link.lane(1, width))

    def run(self, *commands: Any, grant: int = 1, first: int = 1) -> None:
        rows = [command if isinstance(command, tuple) else (command,) for command in commands]
        items = [[first + n, 1, *row] for n, row in enumerate(rows)]
        self.say(self.link.run(1, 1, grant, items))

    def ends(self, count: int = 1) -> list[sl.Ended]:
        self.until(lambda: len(self.ended) >= count)
        return sorted(self.ended, key=lambda end: end.index)

    def begun(self) -> int:
        return sum(len(one.items) for one in self.others if isinstance(one, sl.Started))

    def given_back(self) -> int:
        return sum(len(one.items) for one in self.others if isinstance(one, sl.Unbegun))

    def one(self, command: Any, **settings: Any) -> sl.Ended:
        self.prepare(**settings)
        self.run(command)
        return self.ends()[0]

    def output(self, end: sl.Ended, stream: int = 0) -> bytes:
        assert end.output is not None
        record = end.output[stream]
        assert record is not None
        if record[0] == "segment":
            data = (self.directory / f"out-{record[1]:06d}").read_bytes()
            return data[record[2] : record[2] + record[3]]
        path = Path(record[1]) if record[0] == "user" else self.directory / record[1]
        return path.read_bytes()

    def pid_in(self, name: str) -> int:
        path = self.work / name
        wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
        return int(path.read_text())

    def wait_gone(self) -> int:
        deadline_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline_s:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.is_reaped = True
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise AssertionError(f"the starter is still there; log: {self.log()}")

    def close(self) -> None:
        self.connection.close()
        if not self.is_reaped:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.directory.exists():
            sl.kill_leftovers(self.place)


def wait_for(condition: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    return processes.read_process(pid) is not None


def now_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def hello(**fields: object) -> bytes:
    """What an agent says first, with these fields besides."""
    payload = json.dumps({"m": "hello", "protocol": 1, **fields}).encode()
    return struct.pack(">I", len(payload)) + payload


def end_starter(connection: sl.Connection, pid: int, place: sl.Place) -> None:
    """End a starter that may have ended by itself, and what it has left."""
    connection.close()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    sl.kill_leftovers(place)
