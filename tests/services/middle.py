"""Between an agent or a client and its hub: changes bytes, cuts, delays, doubles; or, with the hub's key, listens."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from services.hostile import trusting

WAIT_S = 10.0
PIECE_BYTES = 4096


class Harm(NamedTuple):
    """What is done to a connection.

    Attributes:
        what: `flip` a bit, `cut`, `double` what was read at once, `drop` it, `late`: everything a moment later.
        towards_hub: in which direction.
        after: how many bytes pass untouched before.
    """

    what: str
    towards_hub: bool = True
    after: int = 0


class Middle:
    """Takes connections at `place` and passes them on to the hub, doing one harm to each of the first of them.

    With `certificate`, the hub's own, it speaks TLS to both ends and keeps what is said to the hub: `heard`, one for
    each connection.
    """

    def __init__(
        self, hub: tuple[str, int], harms: Sequence[Harm] = (), *, certificate: tuple[Path, Path] | None = None
    ) -> None:
        self.heard: list[bytearray] = []
        self.done: list[Harm] = []
        self._hub = hub
        self._left = list(harms)
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ends, self._end = socket.socketpair()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    @property
    def place(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._listening.getsockname()[:2]
        return str(host), int(port)

    def close(self) -> None:
        """End all connections."""
        self._end.close()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        self._ends.close()
        self._listening.close()

    def _begin(self, run: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def _accept(self) -> None:
        while self._ends not in select.select([self._listening, self._ends], [], [])[0]:
            near = self._listening.accept()[0]
            near.settimeout(WAIT_S)
            harm = self._left.pop(0) if self._left else None
            self._begin(lambda near=near, harm=harm: self._connect(near, harm))

    def _connect(self, near: socket.socket, harm: Harm | None) -> None:
        try:
            far = socket.create_connection(self._hub, timeout=WAIT_S)
        except OSError:
            near.close()
            return
        try:
            if self._tls is not None:
                near = self._tls.wrap_socket(near, server_side=True)
                far = trusting().wrap_socket(far)
            self.heard.append(bytearray())
            self._pass_on(near, far, harm, self.heard[-1])
        except OSError:
            pass
        finally:
            near.close()
            far.close()

    def _pass_on(self, near: socket.socket, far: socket.socket, harm: Harm | None, heard: bytearray) -> None:
        passed = {near: 0, far: 0}
        while True:
            pending = [each for each in (near, far) if isinstance(each, ssl.SSLSocket) and each.pending()]
            ready = pending or select.select([near, far, self._ends], [], [])[0]
            if self._ends in ready:
                return
            for source in ready:
                data = _received(source)
                if data is None:
                    continue
                if not data:
                    return
                towards_hub = source is near
                if towards_hub:
                    heard += data
                if harm is not None and harm.towards_hub == towards_hub and passed[source] >= harm.after:
                    data = self._harmed(harm, data)
                    if harm.what != "late":
                        harm = None
                passed[source] += len(data)
                (far if towards_hub else near).sendall(data)

    def _harmed(self, harm: Harm, data: bytes) -> bytes:
        if harm not in self.done:
            self.done.append(harm)
        match harm.what:
            case "flip":
                at = len(data) * 2 // 3
                return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            case "double":
                return data + data
            case "drop":
                return b""
            case "late":
                select.select([self._ends], [], [], 0.02)
                return data
            case _:
                raise ConnectionError("cut")


def _received(source: socket.socket) -> bytes | None:
    """What there is; None where it was for TLS itself."""
    source.settimeout(0)
    try:
        return source.recv(PIECE_BYTES)
    except ssl.SSLWantReadError:
        return None
    finally:
        source.settimeout(WAIT_S)
