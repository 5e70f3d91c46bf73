"""Two hosts on one machine: network namespaces of our own, joined by a cable that can be cut."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

_numbers = itertools.count(1)


class TwoHosts:
    """Namespaces `hub` and `node` with one veth pair. Loopback is up in both; no route leads anywhere else."""

    def __init__(self) -> None:
        number = next(_numbers)
        stem = f"ln{os.getpid() % 100000}x{number}"
        self.hub, self.node = f"{stem}h", f"{stem}n"
        self._ends = f"{stem}a"[-15:], f"{stem}b"[-15:]
        self.hub_address, self.node_address = "10.231.77.1", "10.231.77.2"
        for namespace in (self.hub, self.node):
            _ip("netns", "add", namespace)
        _ip("link", "add", self._ends[0], "netns", self.hub, "type", "veth", "peer", self._ends[1], "netns", self.node)
        for namespace, end, address in (
            (self.hub, self._ends[0], self.hub_address),
            (self.node, self._ends[1], self.node_address),
        ):
            _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", end)
            _ip("-n", namespace, "link", "set", end, "up")
            _ip("-n", namespace, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Both ways: nothing passes, nothing is refused, nobody is told. Frames go to nobody's hardware address."""
        self._neighbours("replace", "lladdr", "02:00:00:00:00:99", "nud", "permanent")

    def mend(self) -> None:
        """Frames find their way again."""
        self._neighbours("del")

    def _neighbours(self, verb: str, *how: str) -> None:
        _ip("-n", self.hub, "neigh", verb, self.node_address, *how, "dev", self._ends[0])
        _ip("-n", self.node, "neigh", verb, self.hub_address, *how, "dev", self._ends[1])

    def prefix(self, namespace: str) -> tuple[str, ...]:
        """What to put before a command that is to run on that host."""
        return "ip", "netns", "exec", namespace

    def close(self) -> None:
        """Take it all away; what still runs in a namespace must have ended."""
        for namespace in (self.hub, self.node):
            if Path("/run/netns", namespace).exists():
                _ip("netns", "del", namespace)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
