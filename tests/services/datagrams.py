"""Ends of datagram sockets that a service manager and the journal listen on."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

WITHIN_S = 20.0


class Datagrams:
    """Listens at a path, as a service manager or the journal does."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(os.fspath(path))
        self.socket.settimeout(WITHIN_S)

    def next(self) -> bytes:
        return self.socket.recv(1 << 20)

    def until(self, is_it: Callable[[bytes], bool]) -> list[bytes]:
        """All up to the first for which this holds; TimeoutError where none comes."""
        seen = [self.next()]
        while not is_it(seen[-1]):
            seen.append(self.next())
        return seen

    def close(self) -> None:
        self.socket.close()


def fields(entry: bytes) -> dict[str, str]:
    """The fields of a journal entry, read as the format has it: NAME=value, or NAME, a length and as many bytes."""
    found = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            entry = rest
        else:
            (length,) = struct.unpack_from("<Q", rest)
            value, end, entry = rest[8 : 8 + length], rest[8 + length : 9 + length], rest[9 + length :]
            assert end == b"\n"
        assert name.decode("ascii") not in found
        found[name.decode("ascii")] = value.decode()
    return found
