"""An API that answers what a test wrote down, on the Unix socket where the hub of a LANAI_HOME would serve."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = dict[str, Any] | bytes | tuple[int, dict[str, Any]]


class ScriptedApi:
    """Answers by (method, path without query); an answer may be a value, or a function of query and body.

    Attributes:
        asked: (method, path, query, body) of every request, in order.
    """

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer | Callable[[dict[str, str], bytes], Answer]] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    def on(self, method: str, path: str, answer: Answer | Callable[[dict[str, str], bytes], Answer]) -> None:
        self.answers[method, path] = answer

    def bodies(self, method: str, path: str) -> list[bytes]:
        return [body for asked, at, _, body in self.asked if (asked, at) == (method, path)]

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.asked.append((method, parts.path, query, body))
        found = self.answers.get((method, parts.path))
        said = found(query, body) if callable(found) else found
        if said is None:
            said = 404, {"error": error("no_such_path", f"nothing at {method} {parts.path}", exit_code=5)}
        status, value = said if isinstance(said, tuple) else (200, said)
        return status, value if isinstance(value, bytes) else json.dumps(value).encode()


def error(code: str, message: str, *, exit_code: int, hint: str = "", **facts: object) -> dict[str, Any]:
    return {"code": code, "message": message, "hint": hint, "exit_code": exit_code, "facts": facts}


def frames(*pieces: tuple[int, bytes], attempt: int = 1, problem: str = "") -> bytes:
    end = json.dumps({"attempt": attempt, "problem": problem}).encode()
    return b"".join(bytes([which]) + len(data).to_bytes(4, "big") + data for which, data in (*pieces, (0, end)))


def batch(number: int = 1, *, state: str = "ended", change: int = 1, reason: str = "", **counts: int) -> dict[str, Any]:
    every = dict.fromkeys(("held", "queued", "locked", "running", "done", "failed", "cancelled"), 0) | counts
    return {
        "version": 1,
        "batch": number,
        "name": "",
        "first_line": "true",
        "user": "ada",
        "state": state,
        "reason": reason,
        "jobs": sum(every.values()),
        "counts": every,
        "priority": 10,
        "max_running": 0,
        "account": "",
        "service": "",
        "reservation": "",
        "start_after_at": None,
        "labels": {},
        "cwd": "/",
        "submitted_at": "2026-11-21T01:02:03.000004Z",
        "ended_at": None,
        "mean_run_s": 0.5,
        "slots": 2,
        "change": change,
    }


def job(index: int = 1, *, state: str = "done", number: int = 1, **values: object) -> dict[str, Any]:
    empty = ("exit_code", "signal", "outcome", "ended_at", "wall_s", "cpu_user_s", "cpu_system_s", "memory_peak_bytes")
    return {
        "id": f"{number}/{index}",
        "batch": number,
        "index": index,
        "state": state,
        "command": f"job {index}",
        "attempts": 1,
        "attempt": 1,
        **dict.fromkeys(empty),
        "node": "n1",
        "started_at": None,
        "submitted_at": "2026-11-21T01:02:03.000004Z",
        "reason": None,
        **values,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._chunks() if self.headers.get("Transfer-Encoding") else self._sized())

    def _sized(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _chunks(self) -> bytes:
        gathered = b""
        while length := int(self.rfile.readline(), 16):
            gathered += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return gathered

    def _answer(self, body: bytes) -> None:
        status, value = self.server.api.answer(self.command, self.path, body)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(value)))
        self.end_headers()
        self.wfile.write(value)

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, api: ScriptedApi) -> None:
        self.api = api
        super().__init__(path, _Handler)


@contextmanager
def serving(home: Path) -> Iterator[ScriptedApi]:
    """A scripted API as the hub of `home`."""
    directory = home / "hub"
    directory.mkdir(parents=True)
    (directory / "hub.db").touch()
    api = ScriptedApi()
    server = _Server(str(directory / "api.sock"), api)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
