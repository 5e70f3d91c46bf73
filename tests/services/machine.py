"""A machine with hub and agent as services, and its users: all of it below one directory, and without systemd."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lanai.agent import cgroup_mounts
from lanai.agent.cgroup_tree import remove
from lanai.cli import service_units
from services.cgroups import needs_cgroups
from services.processes import end_starters, eventually
from services.unit import Service
from services.users import needs_root

HUB = service_units.hub_files(sys.executable, is_packaged=False)[-1].text
JOBS, AGENT = (file.text for file in service_units.agent_files(sys.executable, is_packaged=False))
BASE = "system.slice/lanai-jobs.service"


class Machine:
    """One with services, below a directory that stands for its root. Its places are those of the units otherwise."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.state, self.runtime = root / "lanai", root / "lanai-agent", root / "run"
        self.home.mkdir(mode=0o700)
        self.runtime.mkdir(mode=0o755)
        self.configuration = root / "etc" / "lanai" / "config.toml"
        self.configuration.parent.mkdir(parents=True)
        self.configuration.write_text(
            f'[access]\nlocal = "everyone"\nsocket = "{self.runtime}/api.sock"\nlisten = "127.0.0.1:0"\n'
        )
        self.environ = {"LANAI_HOME": str(self.home), "XDG_CONFIG_DIRS": str(root / "etc")}
        self.services: list[Service] = []
        mounted = cgroup_mounts.find()
        self.group = next(one.point for one in mounted if one.version == 2) / root.name
        self._groups = [one.point / root.name for one in mounted]
        for group in self._groups:
            group.mkdir()

    @classmethod
    @contextmanager
    def standing(cls, root: Path) -> Iterator[Machine]:
        """One that is taken down at the end. Needs root, and control groups."""
        needs_root()
        needs_cgroups()
        made = cls(root)
        try:
            yield made
        finally:
            made.close()

    def start_hub(self, text: str = HUB) -> Service:
        """Until it says that it is ready."""
        return self._started(Service(text, self.root / "hub-told", self.environ))

    def start_agent(self, text: str = AGENT) -> Service:
        """Until it has joined the hub."""
        if not (self.group / "keep").exists():
            self._started(Service(JOBS, self.root / "jobs-told", self.environ, group=self.group))
        words = ["--state", str(self.state), "--name", "here", "--cpus", "2"]
        agent = Service(text.replace(BASE, self.group.name), self.root / "agent-told", self.environ, words)
        self.services.append(agent)
        agent.until(b"STATUS=joined hub")
        return agent

    def _started(self, service: Service) -> Service:
        self.services.append(service)
        service.until(b"READY=1")
        return service

    def lanai(self, user: pwd.struct_passwd, *words: str) -> subprocess.CompletedProcess[str]:
        """A user's command, who has configured nothing; waits until the hub's door is open."""
        eventually((self.runtime / "api.sock").exists, what="the hub's door")
        environ = {"HOME": user.pw_dir, "PATH": "/usr/bin:/bin", "LANAI_RUNTIME": str(self.runtime)}
        return subprocess.run(
            [*_as(user), sys.executable, "-P", "-m", "lanai", *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=user.pw_dir,
            env={**environ, "LANAI_TEST_MARK": os.environ["LANAI_TEST_MARK"]},
            check=False,
        )

    def close(self) -> None:
        """End everything."""
        for service in self.services:
            service.kill()
        end_starters(self.root)
        eventually(self._are_groups_gone, what="its processes gone")

    def _are_groups_gone(self) -> bool:
        for group in self._groups:
            remove(group)
        return not any(group.exists() for group in self._groups)


def _as(user: pwd.struct_passwd) -> list[str]:
    """The words that run a command as that user; he may read what he could not, as a Python in root's home."""
    ids = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
