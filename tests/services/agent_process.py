"""Real agents with their real starters, for tests that play the hub."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from lanai.agent import starter_link
from lanai.agent.cgroups import remove_left
from services.agent_hub import PATIENCE_S
from services.processes import pid_with_word


def gone(pid: int) -> None:
    """Wait until the process is no more."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            assert select.select([descriptor], [], [], PATIENCE_S)[0], f"process {pid} goes on"
        finally:
            os.close(descriptor)


class AgentProcess:
    """Agents of one state directory, one after the other."""

    def __init__(self, state: Path, hub: str) -> None:
        self.state = state
        self.hub = hub
        self.log = state.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, cpus: int = 2) -> None:
        words = [sys.executable, "-m", "lanai.agent", "--state", str(self.state), "--name", "n1", "--cpus", str(cpus)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*words, "--hub", self.hub, *arguments], stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def starter_pid(self, user: str = "") -> int | None:
        """Found by its command, since to ask it would be to take it away from its agent."""
        return pid_with_word(os.fspath(self.place(user).directory))

    def place(self, user: str = "") -> starter_link.Place:
        """Where the starter is: the agent's own, or a user's."""
        if not user:
            return starter_link.own_place(self.state / "starter")
        return starter_link.Place(self.state / "users" / user, self.state / "doors" / user)

    def kill_starter(self) -> None:
        pid = self.starter_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        if self.process is not None and self.process.poll() is not None:
            gone(pid)

    def clean_up(self) -> None:
        """End the agent, its starters, and what they run."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        doors = self.state / "doors"
        for user in ["", *(path.name for path in doors.iterdir())] if doors.exists() else [""]:
            pid = self.starter_pid(user)
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGTERM)
                gone(pid)
            starter_link.kill_leftovers(self.place(user))
        remove_left(self.state)
