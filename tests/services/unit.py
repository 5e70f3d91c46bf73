"""Services started as their units say, without systemd: the same command line and environment, and a notify socket."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.datagrams import Datagrams

WATCHDOG_S = 2.0


def settings(text: str, name: str) -> list[str]:
    """All values of one setting of a unit."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(name + "=")]


def command(text: str) -> list[str]:
    """The words of a unit's ExecStart."""
    (line,) = settings(text.replace("\\\n", " "), "ExecStart")
    return shlex.split(line.replace("%%", "%"))


def environment(text: str) -> dict[str, str]:
    """What a unit adds to its environment."""
    return dict(word.split("=", 1) for line in settings(text, "Environment") for word in shlex.split(line))


class Service:
    """A process as systemd starts it: its own id is the watched one. `notices` is what it tells of itself.

    Args:
        directory: where its notify socket and log lie.
        environ: over what the unit says.
        words: after those of ExecStart.
        group: the control group that it is put into first.
    """

    def __init__(
        self,
        text: str,
        directory: Path,
        environ: Mapping[str, str],
        words: Sequence[str] = (),
        group: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "notify").unlink(missing_ok=True)
        self.notices = Datagrams(directory / "notify")
        self.log = directory / "log"
        told = {"NOTIFY_SOCKET": str(self.notices.path), "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}
        enter = f"echo 0 > {group}/cgroup.procs && " if group else ""
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                ["sh", "-c", enter + 'WATCHDOG_PID=$$ exec "$@"', "sh", *command(text), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, **environment(text), **told, **environ},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """What systemd calls the main process."""
        return self.child.pid

    def until(self, wanted: bytes) -> bytes:
        """The first notice that has this in it."""
        return self.notices.until(lambda notice: wanted in notice)[-1]

    def stop(self) -> int:
        """As `systemctl stop` does with KillMode=process: the main process alone. Its exit code."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(20)
        self.notices.close()
        return code

    def kill(self) -> None:
        """End it, whatever state it is in; a repeat is harmless."""
        self.child.kill()
        self.child.wait()
        self.notices.close()
