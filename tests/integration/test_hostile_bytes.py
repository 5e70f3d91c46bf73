"""What no protocol allows, said to each door before and after one is let in: refused, logged, and harmless."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import pytest

from lanai.client.connection import Connection, Target
from lanai.model.ids import BatchId, GrantId, Index
from lanai.model.resources import Capacity
from lanai.wire import messages
from lanai.wire.framing import FRAME_BYTES, STRANGER_FRAME_BYTES, frame
from services import hostile
from services.hostile import Doors, lines_about, resident_bytes
from services.processes import Process, eventually, start_hub
from services.wirepeer import WirePeer, join_token

MEMORY_BYTES: Final = 32 << 20
"""What no single stranger's word may cost."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def hub(home: Path) -> Iterator[Process]:
    started = start_hub(home)
    started.facts["api_pid"] = hostile.hub_facts(Target(socket=home / "hub" / "api.sock"))["api_pid"]
    yield started
    assert started.stop() == 0


@pytest.fixture(autouse=True)
def _unharmed(hub: Process, home: Path) -> Iterator[None]:
    """After each test both processes are the same, have grown little, and answer."""
    memory = [resident_bytes(pid) for pid in (hub.pid, hub.facts["api_pid"])]
    yield
    with closing(Connection(Target(socket=home / "hub" / "api.sock"))) as client:
        assert client.json("GET", "/v1/hub")["api_pid"] == hub.facts["api_pid"]
    for pid, before in zip((hub.pid, hub.facts["api_pid"]), memory, strict=True):
        assert resident_bytes(pid) < before + MEMORY_BYTES
    text = hub.log.read_text(errors="replace")
    assert "Traceback" not in text, text[text.index("Traceback") :][:3000]
    assert "a mistake of ours" not in text


@pytest.fixture
def doors(hub: Process, home: Path) -> Doors:
    return Doors(home)


def ends(sock: socket.socket) -> bytes:
    """What is said before the other end hangs up. Raises TimeoutError where it does not."""
    sock.settimeout(hostile.WAIT_S + 5)
    heard = b""
    try:
        while data := sock.recv(1 << 16):
            heard += data
    except TimeoutError:
        raise
    except OSError:
        pass
    sock.close()
    return heard


# -- any bytes


@pytest.mark.parametrize("door", ["wire", "api"])
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(os.urandom(3000), id="noise"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="plain HTTP"),
        pytest.param(b"\x16\x03\x01\xff\xff" + b"\0" * 70_000, id="a TLS record that is too long"),
        pytest.param(b"SSH-2.0-x\r\n", id="another protocol"),
    ],
)
def test_what_is_no_tls_is_hung_up_on(hub: Process, doors: Doors, door: str, said: bytes) -> None:
    sock = hostile.connect(doors.wire if door == "wire" else doors.api)
    try:
        sock.sendall(said)
    except OSError:
        pass
    assert len(ends(sock)) < 100


def test_the_two_protocols_do_not_mix(hub: Process, doors: Doors) -> None:
    """An agent at the clients' door, and a client at the agents'."""
    agent = hostile.connect_tls(doors.api)
    agent.sendall(frame(messages.Hello("agent", 1, 1, "x")))
    assert ends(agent)[:12] in (b"HTTP/1.1 400", b"")
    client = hostile.connect_tls(doors.wire)
    client.sendall(b"GET /v1/hub HTTP/1.1\r\nHost: x\r\n\r\n")
    assert ends(client) == b""


def test_an_old_tls_is_not_spoken(hub: Process, doors: Doors) -> None:
    import ssl
    import warnings

    context = hostile.trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    for place in (doors.wire, doors.api):
        with hostile.connect(place) as plain, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain)


# -- the agents' wire


def array(*items: bytes, count: int | None = None) -> bytes:
    """A msgpack array of what is packed already; `count` is what it says to hold."""
    return b"\xdd" + (len(items) if count is None else count).to_bytes(4, "big") + b"".join(items)


def framed(body: bytes) -> bytes:
    """A frame that holds it."""
    return len(body).to_bytes(4, "big") + body


def packed(value: object) -> bytes:
    """Its msgpack."""
    return msgspec.msgpack.encode(value)


BOMBS: Final = {
    "four thousand million items": framed(array(packed("Inventory"), array(count=0xFFFFFFFF), packed(True))),
    "a text of 4 GiB": framed(array(packed("Hello"), b"\xdb\xff\xff\xff\xff")),
    "bytes of 4 GiB": framed(array(packed("Tail"), b"\1", b"\1", b"\1", b"\xc6\xff\xff\xff\xff")),
    "a map of 4 Gi": framed(array(packed("Open"), b"\1", packed("k"), packed("u"), b"\x90", b"\xdf\xff\xff\xff\xff")),
    "nested arrays": framed(array(packed("Command"), b"\1", packed("u"), packed("v"), b"\x91" * 60_000)),
    "nested arrays for a message": framed(b"\x91" * 60_000),
    "nested maps": framed(array(packed("Command"), b"\1", packed("u"), packed("v"), b"\x81\xa1x" * 20_000)),
    "a message of another": framed(packed(["Beat", 1, 1])),
    "no message": framed(packed(["Nonsense"])),
    "an empty frame": framed(b""),
    "a number for a name": framed(packed([1, 2, 3])),
    "an extension": framed(b"\xc7\x08\x01" + b"x" * 8),
    "half a text": framed(array(packed("Hello"), b"\xa5ag")),
    "a frame of 4 GiB": b"\xff\xff\xff\xff",
}


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_before_hello(hub: Process, doors: Doors, what: str) -> None:
    sock = hostile.connect_tls(doors.wire)
    sock.sendall(BOMBS[what])
    assert ends(sock) == b""


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_after_hello(hub: Process, home: Path, what: str) -> None:
    agent = WirePeer.tls(home)
    agent.hello_agent("bomber", token=join_token(home))
    agent.sock.sendall(BOMBS[what])
    assert agent.is_ended_by_hub()
    agent.close()
    eventually(lambda: lines_about(hub.log, "dropped agent bomber at 127.0.0.1"), what="a line in the log")


def test_a_frame_that_is_too_long_is_refused_by_its_length(hub: Process, home: Path, doors: Doors) -> None:
    """Nothing of it is waited for: neither of a stranger's nor of an agent's."""
    stranger = hostile.connect_tls(doors.wire)
    stranger.sendall((STRANGER_FRAME_BYTES + 1).to_bytes(4, "big"))
    assert ends(stranger) == b""
    agent = WirePeer.tls(home)
    agent.hello_agent("bomber", token=join_token(home))
    agent.sock.sendall((FRAME_BYTES + 1).to_bytes(4, "big"))
    assert agent.is_ended_by_hub()
    agent.close()


@pytest.mark.parametrize(
    "said",
    [
        messages.Open(1, "k", "root", msgspec.convert({}, messages.BatchSettings), {}),
        messages.Chunk(BatchId(1), 1, 1, [], [], b"true"),
        messages.Close(1, BatchId(1), 1, b""),
        messages.Abandon(BatchId(1)),
        messages.Command(1, "root", "stop", msgspec.Raw(packed({"now": True}))),
        messages.Watch(BatchId(1)),
        messages.Follow(1, BatchId(1), Index(1), 0, 1, 0, True, 1),
        messages.Credit(1, 1),
        messages.Unfetch(1),
        messages.Input(BatchId(1), Index(1), 0, b"x", False),
        messages.Hello("api", 1, 1, "x"),
        messages.Hello("agent", 1, 1, "x", "", "bomber", "k", "b1", 1, 0, Capacity(cpu_milli=1, memory_bytes=1)),
    ],
    ids=lambda said: type(said).__name__,
)
def test_an_agent_cannot_say_what_the_api_process_says(hub: Process, home: Path, said: messages.Message) -> None:
    agent = WirePeer.tls(home)
    agent.hello_agent("bomber", token=join_token(home))
    agent.send(said)
    assert agent.is_ended_by_hub()
    agent.close()


def test_the_api_process_cannot_say_what_an_agent_says(hub: Process, home: Path) -> None:
    for said in (
        messages.Heartbeat(1, 1),
        messages.Inventory([], True),
        messages.Ended(1, []),
        messages.Started([(GrantId(1), Index(1), 1)]),
        messages.Returned([(GrantId(1), Index(1))]),
        messages.Hello("agent", 1, 1, "x", "", "n", "k"),
    ):
        with closing(WirePeer.local(home / "hub")) as api:
            api.hello_api()
            api.send(said)
            assert api.is_ended_by_hub(), said


def test_an_inventory_without_end_is_cut_off(hub: Process, home: Path) -> None:
    """It is held until its last part has come, which never does."""
    agent = WirePeer.tls(home)
    agent.send(
        messages.Hello(
            "agent", 1, 1, "x", join_token(home), "hoarder", "k", "b1", 1, 0, Capacity(cpu_milli=1, memory_bytes=1)
        )
    )
    agent.expect(messages.Welcome)
    part = frame(messages.Inventory([(GrantId(1), Index(1), "running")] * 100_000, is_last=False))
    with pytest.raises(OSError):
        agent.sock.sendall(part * 100)
    agent.close()


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31mred", "x" * 300, "\0"])
def test_names_of_nodes_that_would_not_stay_on_a_line_are_refused(hub: Process, home: Path, name: str) -> None:
    agent = WirePeer.tls(home)
    offered = Capacity(cpu_milli=1, memory_bytes=1)
    agent.send(messages.Hello("agent", 1, 1, "x", join_token(home), name, "k", "b1", 1, 0, offered))
    assert agent.expect(messages.Refused).error.http_status == 400
    agent.close()
    assert "\x1b" not in hub.log.read_text()


# -- the clients' HTTP


def exchange(doors: Doors, said: bytes, *, token: str | None = None) -> list[int]:
    """Say it at the TLS door, and no more; the status of each answer until the other end hangs up or is silent."""
    sock = hostile.connect_tls(doors.api)
    authorization = f"Authorization: Bearer {doors.token if token is None else token}".encode()
    heard = b""
    try:
        try:
            sock.sendall(said.replace(b"$T", authorization))
        except OSError:
            pass  # it may have answered already
        while data := sock.recv(1 << 16):
            heard += data
            sock.settimeout(SILENT_S)
    except OSError:
        pass
    sock.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", heard)]


SILENT_S: Final = 0.2
"""After an answer: a second one, which would be wrong, comes within that."""
DRAIN: Final = b"POST /v1/nodes/none/drain HTTP/1.1\r\nHost: x\r\n$T\r\n"
SECOND: Final = b"GET /v1/hub HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "statuses"),
    [
        pytest.param(DRAIN + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", [400], id="two lengths"),
        pytest.param(
            DRAIN + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
            [400],
            id="a length and chunks",
        ),
        pytest.param(DRAIN + b"Transfer-Encoding: identity\r\n\r\n{}", [501, 400], id="another coding"),
        pytest.param(DRAIN + b"Transfer-Encoding: chunked, chunked\r\n\r\n", [501, 400], id="chunked twice"),
        pytest.param(DRAIN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", [400], id="a chunk of no size"),
        pytest.param(
            DRAIN + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n", [400], id="a chunk of all there is"
        ),
        pytest.param(DRAIN + b"Content-Length: -1\r\n\r\n", [400], id="a length below nothing"),
        pytest.param(DRAIN + b"Content-Length: +2\r\n\r\n{}", [400], id="a length with a sign"),
        pytest.param(DRAIN + b"Content-Length: 1e3\r\n\r\n", [400], id="a length that is none"),
        pytest.param(DRAIN + b"Content-Length: " + b"9" * 25 + b"\r\n\r\n", [400], id="a length beyond all"),
        pytest.param(DRAIN + b"Content-Length: 1073741824\r\n\r\n", [400], id="1 GB and no body"),
        pytest.param(DRAIN + b"X: " + b"x" * 100_000 + b"\r\n\r\n", [400], id="a header of 100 kB"),
        pytest.param(DRAIN + b"X: x\r\n" * 20_000 + b"\r\n", [400], id="twenty thousand headers"),
        pytest.param(DRAIN + b"X : x\r\n\r\n", [400], id="a space before the colon"),
        pytest.param(DRAIN + b"X: a\r\n folded\r\nContent-Length: 2\r\n\r\n{}", [404], id="a folded header"),
        pytest.param(DRAIN + b"X: \0\r\n\r\n", [400], id="a NUL in a header"),
        pytest.param(b"GET /v1/nodes/a\0b HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [400], id="a NUL in the path"),
        pytest.param(b"GET /v1/nodes/a%00b HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [404], id="an escaped NUL"),
        pytest.param(b"GET /v1/nodes/%ff%fe HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [404], id="no UTF-8"),
        pytest.param(b"GET /v1/nodes/%zz%2 HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [404], id="half an escape"),
        pytest.param(b"GET /v1/../v1/hub HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [404], id="dots"),
        pytest.param(b"GET /v1/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [404], id="escaped dots"),
        pytest.param(b"GET /v1%2fhub HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [200], id="an escaped slash"),
        pytest.param(b"GET /v1/batches/%31e3 HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [400], id="a number that is none"),
        pytest.param(b"GET /v1/batches/" + b"9" * 5000 + b" HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [400], id="too many 9"),
        pytest.param(b"GET /v1/hub HTTP/1.1\r\nHost: a\r\nHost: b\r\n$T\r\n\r\n", [400], id="two hosts"),
        pytest.param(b"GET /v1/hub HTTP/1.1\r\n$T\r\n\r\n", [400], id="no host"),
        pytest.param(b"GET /v1/hub HTTP/9.9\r\nHost: x\r\n$T\r\n\r\n", [400, 200], id="another version"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400, 403], id="HTTP/2"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n$T\r\n\r\n", [404], id="a tunnel"),
        pytest.param(
            b"GET /v1/hub HTTP/1.1\r\nHost: x\r\n$T\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            [200],
            id="an upgrade",
        ),
        pytest.param(b"GET /v1/hub HTTP/1.1\nHost: x\n\n", [403], id="lines without return"),
    ],
)
def test_requests_that_mean_two_things_or_none(hub: Process, doors: Doors, said: bytes, statuses: list[int]) -> None:
    """Each gets at most one answer, and that of `statuses`; what stands behind it is not taken for a second request."""
    found = exchange(doors, said)
    # Whoever goes on sending may be cut off before he reads the answer.
    assert len(found) == 1 or (not found and len(said) > 50_000)
    assert set(found) <= set(statuses)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        pytest.param("/v1/nodes/none/drain", b"[" * 60_000, "bad_body", id="nested lists"),
        pytest.param("/v1/nodes/none/drain", b'{"x":' * 10_000, "bad_body", id="nested objects"),
        pytest.param("/v1/nodes/none/drain", b" " * (64 << 20), "body_too_long", id="64 MiB of nothing"),
        pytest.param("/v1/hub/stop", b'{"now": ' + b" " * 100_000 + b"true}", "body_too_long", id="a long stop"),
        pytest.param("/v1/hub/stop", b'{"now": NaN}', "bad_body", id="no JSON"),
        pytest.param("/v1/hub/stop", b'{"now": true, "user": "root"}', "bad_body", id="a user in the body"),
        pytest.param("/v1/batches", b"[" * 1_000_000 + b"\ntrue\n", "bad_submission", id="a nested head"),
        pytest.param("/v1/batches", b"x" * (3 << 20), "bad_submission", id="a head of 3 MiB"),
        pytest.param("/v1/batches", b'{"settings": {"priority": 1e999}}\ntrue\n', "bad_submission", id="infinity"),
    ],
)
def test_bodies_that_are_bombs(hub: Process, home: Path, doors: Doors, path: str, body: bytes, code: str) -> None:
    sock = hostile.connect_tls(doors.api)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {doors.token}\r\n"
    sock.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    try:
        sock.sendall(body)
    except OSError:
        pass  # it has answered before all was there
    heard = ends(sock)
    assert json.loads(heard.partition(b"\r\n\r\n")[2])["error"]["code"] == code, heard[:500]


def test_what_is_refused_over_http_is_logged_with_its_address(hub: Process, doors: Doors) -> None:
    exchange(doors, b"\0\0\0\r\n\r\n")
    eventually(lambda: lines_about(hub.log, r"api: dropped a client at 127\.0\.0\.2:\d+: invalid http request"))


def test_a_stranger_is_hung_up_on_after_the_refusal(hub: Process, doors: Doors) -> None:
    """He does not get to keep a connection, nor a second guess at a token on it."""
    sock = hostile.connect_tls(doors.api)
    sock.sendall(SECOND.replace(b"$T", b"Authorization: Bearer 00") * 2)
    assert ends(sock).count(b"HTTP/1.1 403") == 1
