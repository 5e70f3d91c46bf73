"""A real API process under a scripted hub."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from lanai.client import Client, Target
from lanai.model.ids import BatchId, GrantId, Index, NodeId
from lanai.wire import unix
from scripted_hub import WALL_US, ScriptedHub

WITHIN_S = 20.0
PATIENCE_S = 30.0
ENV = {b"PATH": b"/usr/bin:/bin"}


class Api:
    """A scripted hub and its API process."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.hub = ScriptedHub(directory)
        self.hub.__enter__()
        self.process = subprocess.Popen([sys.executable, "-m", "lanai.api", os.fspath(directory), *options])
        self.target = Target(socket=directory / "api.sock")
        self.clients: list[Client] = []
        deadline_s = time.monotonic() + WITHIN_S
        while True:
            try:
                self.raw().close()
                break
            except OSError:
                assert time.monotonic() < deadline_s
                time.sleep(0.005)

    def client(self, target: Target | None = None) -> Client:
        made = Client(target or self.target, patience_s=0.0)
        self.clients.append(made)
        return made

    def raw(self) -> socket.socket:
        return unix.connect(self.directory / "api.sock", timeout_s=WITHIN_S)

    def end(self) -> None:
        self.hub.stop()
        for client in self.clients:
            client.close()
        assert self.process.wait(WITHIN_S) == 0


def attempt(batch: int, index: int, row: int, **differs: object) -> tuple[object, ...]:
    fields: dict[str, object] = {
        "row": row, "batch": BatchId(batch), "index": Index(index), "attempt": 1, "grant": GrantId(row),
        "node": NodeId(1), "state": "done", "outcome": "ok", "exit_code": 0, "signal": 0, "started_at_us": WALL_US,
        "ended_at_us": WALL_US + 1_500_000, "wall_us": 1_500_000, "cpu_user_us": 250_000, "cpu_system_us": 125_000,
        "memory_peak_bytes": None, "reason": "",
    }  # fmt: skip
    return tuple({**fields, **differs}.values())
