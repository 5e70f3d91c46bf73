"""A hub that runs as a user of its own, for everybody on the machine, and an agent of root's that serves them."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

import lanai
from lanai.client.client import Client
from lanai.client.connection import Target
from lanai.client.private import is_answering
from services.callers import acting_as
from services.processes import Process, end_starters, eventually, pid_with_word
from services.site import descendants

WAIT_S: Final = 90.0


class Town:
    """`keeper` runs the hub; its directory is closed to all others. `close` ends everything."""

    def __init__(self, ground: Path, keeper: pwd.struct_passwd) -> None:
        self.ground = ground
        self.home = ground / "keeper"
        self.socket = ground / "run" / "api.sock"
        self._keeper = keeper
        self._python = _python_for(keeper)
        self.hub: Process | None = None
        self.agent: Process | None = None
        for path, mode in ((self.home, 0o700), (self.socket.parent, 0o755)):
            path.mkdir(mode)
            os.chown(path, keeper.pw_uid, keeper.pw_gid)

    def start_hub(self) -> None:
        """Start it, or another one after it has ended."""
        words = [*self._python, "-m", "lanai.hub", str(self.home / "hub"), "--listen", "127.0.0.1:0"]
        words += ["--local", "everyone", "--api-socket", str(self.socket)]
        self.hub = Process(words, self.ground / "hub.log", prefix=_as(self._keeper))
        eventually(lambda: is_answering(self.home / "hub"), what="the API to answer")

    def start_agent(self, *options: str) -> None:
        """Start it, or another one after it has ended."""
        words = [sys.executable, "-m", "lanai.agent", "--state", str(self.ground / "agent"), "--name", "n1"]
        words += ["--join", str(self.home / "join"), "--as-users", *options]
        self.agent = Process(words, self.ground / "agent.log")

    def submit(self, user: pwd.struct_passwd, lines: Sequence[str]) -> int:
        """Submit a list as that user, to be run in his home; returns its number."""
        settings = {"cwd": user.pw_dir}
        body = [line.encode() + b"\n" for line in lines]
        return int(self.ask(user, lambda client: client.submit(body, settings, env={}).batch))

    def jobs(self, user: pwd.struct_passwd, batch: int) -> list[dict[str, Any]]:
        """All jobs of a batch, as that user sees them, once it has ended."""

        def ended(client: Client) -> list[dict[str, Any]]:
            client.wait(batch, timeout_s=WAIT_S)
            return list(client.jobs(batch))

        found: list[dict[str, Any]] = self.ask(user, ended)
        return found

    def ask(self, user: pwd.struct_passwd, question: Any) -> Any:
        """What `question(client)` returns where the kernel says that the client is that user."""
        with acting_as(user.pw_uid):
            client = Client(Target(socket=self.socket))
            try:
                return question(client)
            finally:
                client.close()

    def starter_pid(self, user: pwd.struct_passwd) -> int | None:
        """The user's starter; None where there is none."""
        return pid_with_word(os.fspath(self.ground / "agent" / "users" / user.pw_name))

    def close(self) -> None:
        """End everything."""
        for process in (self.agent, self.hub):
            for pid in descendants(process.pid) if process is not None else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if process is not None:
                process.kill()
        end_starters(self.ground)


def _as(user: pwd.struct_passwd) -> list[str]:
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _python_for(user: pwd.struct_passwd) -> list[str]:
    """A Python of our version that this user may run, with our packages: ours may lie where only root gets."""
    paths = os.pathsep.join([str(Path(lanai.__file__).parents[1]), sysconfig.get_path("purelib")])
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        tried = ["env", f"PYTHONPATH={paths}", python]
        ended = subprocess.run([*_as(user), *tried, "-c", "import lanai, msgspec"], check=False, capture_output=True)
        if ended.returncode == 0:
            return tried
    if os.environ.get("CI"):
        pytest.fail(f"{user.pw_name} can run no Python {sys.version_info[0]}.{sys.version_info[1]} with this project")
    pytest.skip("no user but root can run this project's Python")
