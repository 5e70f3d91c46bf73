"""The starter's ends of its sockets: frames in, frames out, never waiting.

Standard library only, part of the starter. A frame is an unsigned 32-bit length, most significant byte first, and as
many bytes of JSON holding one object, whose field ``m`` names the message.
"""

import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

FRAME_LIMIT_BYTES = 16 << 20
STRANGER_LIMIT_BYTES = 64 << 10
UNREAD_LIMIT_BYTES = 64 << 20
_TURN_AWAY_S = 10.0
# Below the size from which malloc asks the kernel for memory each time and gives it back.
_READ_BYTES = 64 << 10
_LENGTH = struct.Struct(">I")
_PASSED_AT_MOST = 253  # SCM_MAX_FD, the most that the kernel passes with one message
_ANCILLARY_BYTES = socket.CMSG_SPACE(_PASSED_AT_MOST * 4)


class BadPeer(Exception):
    """The other end broke the protocol; its connection is to be closed."""


def encode(message: dict[str, Any]) -> bytes:
    """Returns the payload of a frame."""
    return json.dumps(message, separators=(",", ":")).encode("ascii")


def turn_away(listener: socket.socket, protocol: int, reason: str) -> None:
    """Tells whoever waits at the door that there will be no starter, and why."""
    payload = encode({"m": "refused", "protocol": protocol, "reason": reason})
    listener.settimeout(_TURN_AWAY_S)
    try:
        connection, _ = listener.accept()
        connection.settimeout(_TURN_AWAY_S)
        connection.sendall(_LENGTH.pack(len(payload)) + payload)
        # Closed with words unread, it would take ours along.
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(_READ_BYTES):
            pass
        connection.close()
    except OSError:
        return


class Peer:
    """One connection. ``is_agent`` is set by a hello that was accepted, ``is_told`` once it has had the inventory.

    ``takes_back``: it knows what to do with attempts that cannot begin now.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.is_agent = False
        self.is_told = False
        self.takes_back = False
        self.is_polled_for_room = False
        self._received = bytearray()
        self._unsent = bytearray()
        self._passed: list[int] = []

    @property
    def fileno(self) -> int:
        """The descriptor to poll."""
        return self.connection.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether it must be polled for room to write."""
        return bool(self._unsent)

    def receive(self) -> Iterator[dict[str, Any]]:
        """Reads once and yields the messages that are complete.

        Raises:
            BadPeer: the other end is gone, or what it sent is no frame of ours.
        """
        try:
            flags = socket.MSG_CMSG_CLOEXEC
            data, ancillary, _, _ = self.connection.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, flags)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise BadPeer(str(error)) from None
        if not data:
            raise BadPeer("closed")
        self._received += data
        if ancillary:
            self._take_descriptors(ancillary)
        while (message := self._next()) is not None:
            yield message

    def _take_descriptors(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._passed += memoryview(data[: len(data) & ~3]).cast("i")
        if not self.is_agent and self._passed:
            raise BadPeer("descriptors from a stranger")

    def passed(self, count: int) -> list[int]:
        """Returns the next descriptors that came along, the caller's from now on: they belong to the current message.

        Raises:
            BadPeer: so many have not come.
        """
        if count > len(self._passed):
            raise BadPeer("descriptors are missing")
        taken, self._passed = self._passed[:count], self._passed[count:]
        return taken

    def close(self) -> None:
        """Closes the connection, and the descriptors that nobody has asked for."""
        self.connection.close()
        for descriptor in self.passed(len(self._passed)):
            os.close(descriptor)

    def _next(self) -> dict[str, Any] | None:
        received = self._received
        if len(received) < 4:
            return None
        size: int = _LENGTH.unpack_from(received)[0]
        if size > (FRAME_LIMIT_BYTES if self.is_agent else STRANGER_LIMIT_BYTES):
            raise BadPeer(f"frame of {size} bytes")
        if len(received) < 4 + size:
            return None
        payload = bytes(received[4 : 4 + size])
        del received[: 4 + size]
        try:
            message = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise BadPeer(f"not JSON: {error}") from None
        if not isinstance(message, dict):
            raise BadPeer("not an object")
        return message

    def send(self, payload: bytes) -> None:
        """Sends a frame, or as much as goes; the rest waits for `flush`.

        Raises:
            BadPeer: the other end is gone, or has not read for too long.
        """
        was_empty = not self._unsent
        self._unsent += _LENGTH.pack(len(payload))
        self._unsent += payload
        if was_empty:
            self.flush()
        if len(self._unsent) > UNREAD_LIMIT_BYTES:
            raise BadPeer("does not read")

    def flush(self) -> None:
        """Sends what waits, as much as goes.

        Raises:
            BadPeer: the other end is gone.
        """
        try:
            while self._unsent:
                del self._unsent[: self.connection.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise BadPeer(str(error)) from None

    def finish(self, patience_s: float) -> None:
        """Sends the rest, waiting for it a while, and takes what still comes, so that ours is not lost with it."""
        try:
            self.connection.settimeout(patience_s)
            self.connection.sendall(self._unsent)
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv(_READ_BYTES):
                pass
        except OSError:
            return
