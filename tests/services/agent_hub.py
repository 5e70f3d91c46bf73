"""A hub for tests of agents: it says what the test says, and the test reads what the agent says.

Real sockets, the real wire; nothing is decided here but the answer to heartbeats, and that only where it is asked for.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from lanai.model.ids import BatchId, GrantId, Index, NodeId, grant_id
from lanai.model.job import AttemptResult
from lanai.model.resources import Shape
from lanai.wire import messages as wire
from lanai.wire import unix
from lanai.wire.framing import FrameReader, frame

M = TypeVar("M")
PATIENCE_S = 20.0


def spec(number: int = 1, *, batch: int = 7, cwd: str = "/", cpu_milli: int = 1000, **rest: object) -> wire.Spec:
    """A spec for tests; `rest` are fields of the message."""
    fields: dict[str, object] = {
        "user": "tester",
        "env": {b"PATH": b"/usr/bin:/bin"},
        "umask": 0o022,
        "output": None,
        "error": None,
        "shell": "auto",
        "shape": Shape(cpu_milli=cpu_milli),
        "grace_us": 1_000_000,
    }
    return wire.Spec(spec=number, batch=BatchId(batch), cwd=cwd, **(fields | rest))  # type: ignore[arg-type]


def grant(counter: int, lines: list[bytes], *, number: int = 1, first: int = 1, attempt: int = 1) -> wire.Grant:
    """A grant of epoch 1 for jobs first .. first+len(lines)-1."""
    last = first + len(lines) - 1
    return wire.Grant(grant_id(1, counter), number, attempt, [(first, last)], b"\0".join(lines))


class ScriptedHub:
    """One listening socket and the connection of one agent.

    Attributes:
        heard: messages that came and that nobody has waited for yet.
        is_silent: heartbeats are not answered.
    """

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self._listener = listener
        self._tls = tls
        self._connection: socket.socket | None = None
        self._reader = FrameReader(wire.to_hub)
        self.heard: list[wire.ToHub] = []
        self.is_silent = False

    def accept(self, *, epoch: int = 1, lease_us: int = 60_000_000, heartbeat_us: int = 3_000_000) -> wire.Hello:
        """Take the next connection, say Welcome, and return the agent's Hello."""
        hello = self.accept_hello()
        self.send(wire.Welcome(1, "test", "hub", epoch, NodeId(1), lease_us, heartbeat_us, time.time_ns() // 1000))
        return hello

    def accept_hello(self) -> wire.Hello:
        """Take the next connection and its Hello, and say nothing."""
        self.hang_up()
        self._listener.settimeout(PATIENCE_S)
        connection, _ = self._listener.accept()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        self._connection = connection
        self._reader = FrameReader(wire.to_hub)
        self._reader.accept_peer()
        self.heard = []
        return self.wait(wire.Hello)

    def send(self, *messages: wire.ToAgent) -> None:
        """Say this."""
        assert self._connection is not None
        self._connection.sendall(b"".join(map(frame, messages)))

    def wait(self, kind: type[M], accept: Callable[[M], bool] = lambda _: True) -> M:
        """The next message of this kind that the test accepts; others stay in `heard`."""
        limit = time.monotonic() + PATIENCE_S
        while True:
            for place, message in enumerate(self.heard):
                if isinstance(message, kind) and accept(message):
                    del self.heard[place]
                    return message
            self._read(limit - time.monotonic())

    def results(self, count: int) -> list[AttemptResult]:
        """The next results, at least so many."""
        found: list[AttemptResult] = []
        while len(found) < count:
            found.extend(self.wait(wire.Ended).results)
        return found

    def inventory(self) -> list[tuple[GrantId, Index, str]]:
        """The whole inventory, sorted."""
        items: list[tuple[GrantId, Index, str]] = []
        while True:
            part = self.wait(wire.Inventory)
            items.extend(part.items)
            if part.is_last:
                return sorted(items)

    def is_quiet(self, kind: type[object], for_s: float = 0.3) -> bool:
        """Whether no message of this kind comes for a while."""
        limit = time.monotonic() + for_s
        while not any(isinstance(message, kind) for message in self.heard):
            try:
                self._read(limit - time.monotonic())
            except TimeoutError:
                return True
        return False

    def wait_for_hang_up(self) -> None:
        """Until the agent has closed the connection."""
        limit = time.monotonic() + PATIENCE_S
        with contextlib.suppress(ConnectionError):
            while True:
                self._read(limit - time.monotonic())

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Close everything."""
        self.hang_up()
        self._listener.close()

    def _read(self, for_s: float) -> None:
        connection = self._connection
        assert connection is not None
        pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
        if not pending and not select.select([connection], [], [], max(0.0, for_s))[0]:
            raise TimeoutError(f"the agent said only {self.heard}")
        data = connection.recv(1 << 18)
        if not data:
            raise ConnectionError(f"the agent hung up after {self.heard}")
        for message in self._reader.feed(data):
            if isinstance(message, wire.Heartbeat) and not self.is_silent:
                self.send(wire.Beat(message.number, time.time_ns() // 1000))
            self.heard.append(message)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[ScriptedHub]:
    """A scripted hub on a Unix socket."""
    hub = ScriptedHub(unix.listen(path))
    try:
        yield hub
    finally:
        hub.close()
