"""The client's side of HTTP/1.1, against bytes that a server might send."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lanai.client.exchange import BadAnswer, Exchange


@contextmanager
def answering(*said: bytes) -> Iterator[tuple[Exchange, socket.socket]]:
    """An exchange whose other side has said `said` already, and that other side, which has closed its direction."""
    ours, theirs = socket.socketpair()
    exchange = Exchange(ours, "hub")
    exchange.bound(5.0)
    for piece in said:
        theirs.sendall(piece)
    theirs.shutdown(socket.SHUT_WR)
    try:
        yield exchange, theirs
    finally:
        exchange.close()
        theirs.close()


def test_two_requests_on_one_connection() -> None:
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    second = b"HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n"
    with answering(first + second) as (exchange, theirs):
        answer = exchange.ask("GET", "/v1/hub", {"X-A": "1"}, None)
        assert (answer.status, answer.is_read, exchange.is_reusable) == (200, False, False)
        assert (answer.read(2), answer.read(), answer.read()) == (b"he", b"llo", b"")
        assert exchange.is_reusable
        answer = exchange.ask("POST", "/v1/x", {}, b"{}")
        assert (answer.status, answer.is_read) == (404, True)
        sent = theirs.recv(1 << 16)
    assert sent == (
        b"GET /v1/hub HTTP/1.1\r\nHost: hub\r\nX-A: 1\r\n\r\n"
        b"POST /v1/x HTTP/1.1\r\nHost: hub\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_an_answer_in_chunks_is_read_across_their_borders() -> None:
    body = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n"
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answering(head + body) as (exchange, _):
        answer = exchange.ask("GET", "/", {}, None)
        assert (answer.read(5), answer.read(1), answer.read()) == (b"abcde", b"f", b"g")
        assert exchange.is_reusable


def test_an_answer_without_a_length_goes_to_the_end_and_is_the_last() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000) as (exchange, _):
        answer = exchange.ask("GET", "/", {}, None)
        assert len(answer.read()) == 100_000
        assert not exchange.is_reusable


@pytest.mark.parametrize("name", ["connection", "Connection"])
def test_a_connection_that_is_to_be_closed_is_not_used_again(name: str) -> None:
    with answering(f"HTTP/1.1 200 OK\r\n{name}: close\r\nContent-Length: 1\r\n\r\nx".encode()) as (exchange, _):
        answer = exchange.ask("GET", "/", {}, None)
        assert (answer.read(), exchange.is_reusable) == (b"x", False)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" + b"A" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(200)) + b"\r\n",
    ],
)
def test_what_is_no_whole_answer_is_refused(said: bytes) -> None:
    with answering(said) as (exchange, _), pytest.raises(BadAnswer):
        exchange.ask("GET", "/", {}, None).read()


def test_a_body_goes_out_in_chunks_and_an_early_answer_counts() -> None:
    with answering(b"HTTP/1.1 422 X\r\nContent-Length: 2\r\n\r\nno") as (exchange, theirs):
        answer = exchange.send("/v1/batches", {}, [b"abc", b"", b"x" * 20])
        assert (answer.status, answer.read()) == (422, b"no")
        sent = theirs.recv(1 << 16)
    assert sent.endswith(b"\r\n\r\n3\r\nabc\r\n14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n")
    assert b"Transfer-Encoding: chunked\r\n" in sent


def test_a_send_that_broke_off_leaves_no_connection_to_use() -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise KeyError

    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (exchange, _):
        assert exchange.is_reusable
        with pytest.raises(KeyError):
            exchange.send("/", {}, broken())
        assert not exchange.is_reusable


def test_a_line_s_end_cannot_be_slipped_into_a_request() -> None:
    with answering() as (exchange, _), pytest.raises(ValueError, match="line's end"):
        exchange.ask("GET", "/v1\r\nX: y", {}, None)
