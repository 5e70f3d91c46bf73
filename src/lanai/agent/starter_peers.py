"""The starter's ends of its sockets: frames in, frames out, never waiting.

Standard library only, part of the starter. A frame is an unsigned 32-bit length, most significant byte first, and as
many bytes of JSON holding one object, whose field ``m`` names the message.
"""

import json
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
            data = self.connection.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise BadPeer(str(error)) from None
        if not data:
            raise BadPeer("closed")
        self._received += data
        while (message := self._next()) is not None:
            yield message

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
