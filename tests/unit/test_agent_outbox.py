"""Bytes and descriptors over a socket that takes few of them at a time: each descriptor comes with its own bytes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from lanai.agent.outbox import Outbox


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def _pipe_with(text: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    return reader


def _read(descriptor: int) -> bytes:
    text = os.read(descriptor, 100)
    os.close(descriptor)
    return text


def test_descriptors_come_in_order_and_not_after_their_bytes(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    box = Outbox()
    expected: list[tuple[int, bytes]] = []
    sent = b""
    for number in range(60):
        frame = b"%d " % number * (1 + number * 37 % 700)
        texts = [b"%d.%d" % (number, n) for n in range(number % 4)]
        expected += [(len(sent) + len(frame), text) for text in texts]
        box.put(frame, [_pipe_with(text) for text in texts])
        sent += frame
    received = b""
    while box:
        try:
            box.flush(ours)
        except BlockingIOError:
            pass
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(theirs, 3000, 100)
            except BlockingIOError:
                break
            received += data
            for descriptor in descriptors:
                frame_end, text = expected.pop(0)
                assert _read(descriptor) == text and len(received) - len(data) < frame_end
            # What has come in full has its descriptors.
            assert not expected or expected[0][0] > len(received)
    assert received == sent and not expected


def test_what_is_dropped_is_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    box = Outbox()
    descriptor = _pipe_with(b"x")
    box.put(b"one", [descriptor])
    box.clear()
    assert not box
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    box.put(b"two")
    box.flush(ours)
    assert socket.recv_fds(theirs, 100, 10)[:2] == (b"two", [])
