"""A starter that says what a test wants it to, and the agent's end of it, over a real socket."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any, Final

from lanai.agent import events as ev
from lanai.agent import starter_link as link
from lanai.agent.distrust import LOOK_US
from lanai.agent.events import Item
from lanai.agent.starting import StarterPort
from lanai.model.ids import Index, grant_id
from services.agent_hub import spec

G: Final = grant_id(1, 1)
SECOND_US: Final = 1_000_000


class Liar:
    """A starter that says what the test says, and the port that has to bear it."""

    def __init__(self, directory: Path) -> None:
        door = directory / "door"
        door.mkdir()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(door / link.SOCKET_NAME))
        self.listener.listen()
        self.now_us = 1_000 * SECOND_US
        self.port = StarterPort(link.Place(directory / "users", door), link.Account("liar"))
        self.port.wake()
        assert self.port.on_time(self.now_us) == []
        self.port.flush()
        self.connection, _ = self.listener.accept()
        self.read()

    def read(self) -> None:
        """Take what the agent has said, whatever that is."""
        self.connection.setblocking(False)
        try:
            while self.connection.recv(1 << 20):
                pass
        except BlockingIOError:
            pass
        self.connection.setblocking(True)

    def say(self, *messages: dict[str, Any] | bytes) -> list[ev.StarterEvent]:
        """Say these; what the agent makes of it."""
        for one in messages:
            payload = one if isinstance(one, bytes) else json.dumps(one).encode()
            self.connection.sendall(struct.pack(">I", len(payload)) + payload)
        return self.port.on_ready(self.now_us)

    def give(self, count: int = 1) -> None:
        """The agent hands it jobs."""
        self.port.open_lane(1, spec(user="liar"))
        self.port.hand(1, G, 1, [Item(Index(index), b"true") for index in range(1, count + 1)])
        self.port.flush()
        self.read()

    def later(self, for_us: int, step_us: int = LOOK_US) -> list[ev.StarterEvent]:
        """Time passes, and the agent looks as often as it wants to."""
        found: list[ev.StarterEvent] = []
        until_us = self.now_us + for_us
        while self.now_us < until_us and not found:
            self.now_us = min(until_us, max(self.now_us + step_us, min(self.port.due_us, until_us)))
            found = self.port.on_time(self.now_us)
            self.port.flush()
        return found

    def close(self) -> None:
        """Both ends."""
        self.port.close()
        self.connection.close()
        self.listener.close()
