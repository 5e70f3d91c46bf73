"""Frames: u32 length, big-endian, then msgpack. Bytes in, messages out, and back; the sockets are somebody else's.

A frame is bounded: 64 KiB until the peer has been accepted, 4 MiB after. Whatever does not decode into a known message
is a `ProtocolViolation`; the caller drops the peer. Nothing here reads ahead of a bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

import msgspec

STRANGER_FRAME_BYTES: Final = 64 << 10
"""A Hello has some hundred bytes; a thousand strangers are to hold little of us."""
FRAME_BYTES: Final = 4 << 20
UNREAD_BYTES: Final = 16 << 20
"""A peer with more than this unread by it is dropped."""

M = TypeVar("M")


class ProtocolViolation(Exception):
    """The peer sent what no version of the protocol allows."""


_encode = msgspec.msgpack.Encoder().encode


def frame(message: msgspec.Struct) -> bytes:
    """The bytes that carry `message`. Raises ValueError where they would pass the bound."""
    body = _encode(message)
    if len(body) > FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes passes the bound of {FRAME_BYTES}")
    return len(body).to_bytes(4, "big") + body


class FrameReader(Generic[M]):
    """Cuts a byte stream into messages of the union that its decoder knows."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M]) -> None:
        self._decode = decoder.decode
        self._buffer = bytearray()
        self._limit = STRANGER_FRAME_BYTES

    def accept_peer(self) -> None:
        """From now on frames may have their full size."""
        self._limit = FRAME_BYTES

    def feed(self, data: bytes | memoryview) -> Iterator[M]:
        """Take bytes and yield the messages they complete.

        Raises:
            ProtocolViolation: on a frame too long, or one that is no known message.
        """
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        try:
            while end - start >= 4:
                length = int.from_bytes(buffer[start : start + 4], "big")
                if length > self._limit:
                    raise ProtocolViolation(f"frame of {length} bytes; at most {self._limit} are accepted")
                if end - start - 4 < length:
                    break
                body = bytes(buffer[start + 4 : start + 4 + length])
                start += 4 + length
                try:
                    message = self._decode(body)
                except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
                    raise ProtocolViolation(str(error)) from None
                yield message
        finally:
            if start:
                del buffer[:start]
