"""What a client does where the API process ends under its question."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lanai.client.connection import Connection, Target
from lanai.model.errors import OtherEnd
from lanai.wire import unix

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"nodes":1}'


class TwoProcesses:
    """The first ends with a question unread; the second answers what is asked of it."""

    def __init__(self, path: Path) -> None:
        self.asked: list[bytes] = []
        self._path = path
        self._listening = unix.listen(path)
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        accepted, _ = self._listening.accept()
        self.asked.append(accepted.recv(1))
        with accepted, self._listening:
            pass  # hangs up on who has asked, and on who comes in
        self._listening = unix.listen(self._path)
        with self._listening:
            accepted, _ = self._listening.accept()
            with accepted:
                self.asked.append(accepted.recv(1 << 16))
                with suppress(BrokenPipeError):  # whoever only ended us does not wait for it
                    accepted.sendall(ANSWER)

    def join(self) -> None:
        """Ask the second where nobody has, and wait for the end of both."""
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as last:
                if self._thread.is_alive() and last.connect_ex(str(self._path)) == 0:
                    last.sendall(b"enough")
            self._thread.join(0.1)
            if not self._thread.is_alive():
                return
        raise AssertionError("nobody has ended it")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[TwoProcesses]:
    made = TwoProcesses(tmp_path / "api.sock")
    yield made
    made.join()


def test_what_only_asks_is_asked_again(processes: TwoProcesses, tmp_path: Path) -> None:
    connection = Connection(Target(socket=tmp_path / "api.sock"))
    assert connection.json("GET", "/v1/hub") == {"nodes": 1}
    assert processes.asked[1].startswith(b"GET /v1/hub ")
    connection.close()


def test_what_changes_something_is_not(processes: TwoProcesses, tmp_path: Path) -> None:
    """It may have been done already."""
    connection = Connection(Target(socket=tmp_path / "api.sock"))
    with pytest.raises(OtherEnd, match="does not answer: Connection reset"):
        connection.json("POST", "/v1/nodes/n1/drain", {})
    assert len(processes.asked) == 1
    connection.close()
