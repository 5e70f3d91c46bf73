"""A hub and an agent on this machine, to be measured: as one user has them, or over TLS with an agent of root's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from processes import Daemon, descendants, scratch, start, start_hub

from lanai.client import Client, Target

SLOTS = 2
NODE = "bench"
_ANSWER_S = 20


class Site:
    """A hub and an agent of two slots on this machine, with their API process and starter.

    Args:
        directory: for the state of both.
        user: None for everything on Unix sockets and as whoever measures; else who submits, by a token of his, and as
            whom the agent, which has to be root's, starts the commands; then both connections are TLS.
    """

    def __init__(self, directory: Path, user: str | None = None) -> None:
        self._directory = directory
        self._user = user
        if user is None:
            self.hub = start_hub(directory / "hub")
        else:
            directory.chmod(0o711)
            (directory / "hub").mkdir()
            listen = ("--listen", "127.0.0.1:0")
            self.hub = start("lanai.hub", str(directory / "hub"), *listen, log=directory / "hub.log")
        self.agent: Daemon | None = None

    def join(self) -> None:
        """Start the agent."""
        state = self._directory / "agent"
        state.mkdir()
        if self._user is None:
            words = ["--hub", f"unix:{self._directory / 'hub' / 'hub.sock'}"]
        else:
            with closing(self._own_client()) as client:
                url = client.create_token(self._user)["wire_url"]
            words = ["--hub", url, "--join", str(self._directory / "join"), "--as-users"]
        arguments = ["--state", str(state), *words, "--cpus", str(SLOTS), "--name", NODE]
        self.agent = start("lanai.agent", *arguments, log=self._directory / "agent.log")

    def client(self) -> Client:
        """A client of the API process, which answers."""
        own = self._own_client()
        if self._user is None:
            return own
        with closing(own):
            token = own.create_token(self._user)
        url = urlsplit(token["url"])
        return Client(Target(host=url.hostname or "", port=url.port or 0, pin=token["pin"], token=token["secret"]))

    def _own_client(self) -> Client:
        until_s = time.monotonic() + _ANSWER_S
        while True:
            client = Client(Target(socket=self._directory / "hub" / "api.sock"))
            try:
                client.hub()
                return client
            except Exception:
                client.close()
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.02)

    def processes(self) -> dict[str, int]:
        """Their pids by part."""
        found = {"hub": self.hub.pid}
        for pid, program in descendants(self.hub.pid).items():
            if program == "lanai.api":
                found["api"] = pid
        if self.agent is not None:
            found["agent"] = self.agent.pid
            for pid, program in descendants(self.agent.pid).items():
                if program.endswith(("starter.py", "lanai.agent.starter")):
                    found["starter"] = pid
        return found

    def stop(self) -> None:
        """End them all."""
        pids = self.processes()
        if self.agent is not None:
            self.agent.stop()
        self.hub.stop()
        for part in ("starter", "api"):
            if part in pids and Path(f"/proc/{pids[part]}").exists():
                os.kill(pids[part], 15)


@contextmanager
def site(user: str | None = None) -> Iterator[Site]:
    """A hub with its agent, ended at the end."""
    with scratch() as directory:
        made = Site(directory, user)
        try:
            made.join()
            yield made
        finally:
            made.stop()
