"""Both TLS doors under attack: slow, many, and those who keep at it. Who is honest notices nothing."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from lanai.api.doors import REST_S
from lanai.client.connection import Connection, Target
from lanai.wire import messages
from lanai.wire.framing import frame
from lanai.wire.lobby import NOTICES_EACH, STRANGER_S, Bounds
from services import hostile
from services.hostile import Doors, Dribbler, Flood, cpu_s, descriptors, lines_about, resident_bytes, took_s
from services.processes import Process, eventually, start_hub
from services.wirepeer import WirePeer, join_token

HONEST_S = 2.0
"""An honest request may take so long at the worst. It takes some milliseconds; the machine may be busy."""
USUALLY_S = 0.25
"""Half of all honest requests take less than this."""
SLACK_S = 8.0
CROWD = 10_000


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def hub(home: Path) -> Iterator[Process]:
    started = start_hub(home)
    yield started
    assert started.stop() == 0


@pytest.fixture
def doors(hub: Process, home: Path) -> Doors:
    return Doors(home)


class Honest:
    """A client and an agent who do as they should, and how long each answer took."""

    def __init__(self, home: Path) -> None:
        said = json.loads((home / "hub" / "token").read_text())
        host, port = Doors(home).api
        self.target = Target(host=host, port=port, pin=said["pin"], token=said["token"])
        self.agent = WirePeer.tls(home)
        self.agent.hello_agent("honest", token=join_token(home))
        self.took_s: list[float] = []
        self._home = home
        self._beats = 0

    def ask(self) -> None:
        """One question of each kind, each on a new connection where it can be."""
        self.took_s += [took_s(self._new_client), took_s(self._beat), took_s(self._local), took_s(self._local_client)]

    def assert_was_served(self) -> None:
        """None waited for long, and most did not wait."""
        assert max(self.took_s) < HONEST_S, sorted(self.took_s)[-5:]
        assert sorted(self.took_s)[len(self.took_s) // 2] < USUALLY_S, sorted(self.took_s)

    def close(self) -> None:
        """The agent goes."""
        self.agent.close()

    def _new_client(self) -> None:
        with closing(Connection(self.target)) as client:
            assert client.json("GET", "/v1/hub")["nodes"] >= 1

    def _local_client(self) -> None:
        with closing(Connection(Target(socket=self._home / "hub" / "api.sock"))) as client:
            assert client.json("GET", "/v1/hub")["nodes"] >= 1

    def _beat(self) -> None:
        self._beats += 1
        self.agent.send(messages.Heartbeat(self._beats, 1))
        self.agent.expect(messages.Beat, number=self._beats)

    def _local(self) -> None:
        with closing(WirePeer.local(self._home / "hub")) as api:
            api.hello_api()


@pytest.fixture
def honest(hub: Process, home: Path) -> Iterator[Honest]:
    with closing(Honest(home)) as made:
        hostile.hub_facts(made.target)
        yield made


def api_pid(honest: Honest) -> int:
    """The process behind the clients' door."""
    return int(hostile.hub_facts(honest.target)["api_pid"])


def comes_in(place: tuple[str, int]) -> bool:
    """Whether somebody from the strangers' address gets as far as a TLS handshake."""
    try:
        hostile.connect_tls(place).close()
    except OSError:
        return False
    return True


def dribblers(home: Path, doors: Doors) -> dict[str, Callable[[], Dribbler]]:
    """One maker for each way to be slow. Each says enough for longer than anybody has patience."""
    head = b"GET /v1/hub HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1000
    drain = b"POST /v1/nodes/none/drain HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n"
    get = b"GET /v1/hub HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % doors.token.encode()
    hello = frame(messages.Hello("agent", 1, 1, "x" * 1000, join_token(home), "slow", "k"))

    def over_tls(what: str, place: tuple[str, int], at_once: bytes, slowly: bytes) -> Dribbler:
        sock = hostile.connect_tls(place)
        sock.sendall(at_once)
        return Dribbler(what, sock, slowly)

    return {
        "handshake, agents": lambda: Dribbler("handshake", hostile.connect(doors.wire), hostile.client_hello()),
        "handshake, clients": lambda: Dribbler("handshake", hostile.connect(doors.api), hostile.client_hello()),
        "silence, agents": lambda: Dribbler("silence", hostile.connect(doors.wire), b""),
        "silence after the handshake, clients": lambda: over_tls("silence", doors.api, b"", b""),
        "Hello": lambda: over_tls("hello", doors.wire, b"", hello),
        "head": lambda: over_tls("head", doors.api, b"", head),
        "head of a second request": lambda: over_tls("head", doors.api, get, head),
        "body": lambda: over_tls("body", doors.api, drain % doors.token.encode(), b" " * 1000),
        "body after the answer": lambda: over_tls("body", doors.api, drain % b"wrong", b" " * 1000),
    }


@pytest.mark.timeout(90)
def test_whoever_is_slow_is_dropped_and_nobody_else_waits(
    hub: Process, home: Path, doors: Doors, honest: Honest
) -> None:
    """Slow in every way there is, twenty of each. All go in about ten seconds, a refused body in five more."""
    before = {pid: (descriptors(pid), resident_bytes(pid)) for pid in (hub.pid, api_pid(honest))}
    slow = {what: [make() for _ in range(20)] for what, make in dribblers(home, doors).items()}
    begun_s = time.monotonic()
    while time.monotonic() < begun_s + STRANGER_S + REST_S + SLACK_S:
        for each in (each for those in slow.values() for each in those):
            each.go_on()
        honest.ask()
        if all(each.ended_s is not None for those in slow.values() for each in those):
            break
        time.sleep(0.1)  # how slow they are, not something that is waited for
    left = {what: sum(each.ended_s is None for each in those) for what, those in slow.items()}
    assert not any(left.values()), left
    honest.assert_was_served()
    hostile.close_all(each.sock for those in slow.values() for each in those)
    for pid, (files, memory) in before.items():
        eventually(lambda pid=pid, files=files: descriptors(pid) <= files + 2, what="the descriptors to be free again")
        assert resident_bytes(pid) < memory + (48 << 20)
    told = lines_about(hub.log, hostile.STRANGER)
    assert any("it has not said who it is within 10 s" in line for line in told), told
    assert any("the head of a request" in line for line in told), told
    assert len(told) <= 4 * (NOTICES_EACH + 1), told


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """As many as may be had; returns how many connections the test can make."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield min(CROWD, most - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


@pytest.mark.timeout(90)
@pytest.mark.parametrize("which", ["wire", "api"])
def test_ten_thousand_connections_of_one_address_take_the_place_of_nobody_else(
    hub: Process, home: Path, doors: Doors, honest: Honest, many_descriptors: int, which: str
) -> None:
    pid = hub.pid if which == "wire" else api_pid(honest)
    bounds = Bounds.within(resource.prlimit(pid, resource.RLIMIT_NOFILE)[1])
    honest.ask()
    files, memory = descriptors(pid), resident_bytes(pid)
    with closing(Flood(doors.wire if which == "wire" else doors.api, many_descriptors)) as flood:
        for _ in range(5):
            honest.ask()
        assert flood.never_answered == 0
        eventually(lambda: flood.held() <= bounds.strangers_each, what="the rest to be refused")
        assert flood.held() > 0
        assert descriptors(pid) <= files + bounds.strangers_each + 8
        assert resident_bytes(pid) < memory + (64 << 20)
        # From the crowd's own address there is a way in too: the oldest of them makes way.
        place = doors.wire if which == "wire" else doors.api
        eventually(lambda: comes_in(place), what="another of that address to come in")
    eventually(lambda: descriptors(pid) <= files + 2, what="the descriptors to be free again")
    honest.ask()
    honest.assert_was_served()
    assert 1 <= len(lines_about(hub.log, hostile.STRANGER)) <= 2 * (NOTICES_EACH + 1)


def test_strangers_from_everywhere_still_leave_room(
    hub: Process, home: Path, doors: Doors, honest: Honest, many_descriptors: int
) -> None:
    """Twenty addresses with their full share pass the bound in all: whoever has most makes way for a new address."""
    with ExitStack() as stack:
        floods = [
            stack.enter_context(closing(Flood(doors.wire, 80, source=f"127.0.0.{10 + number}"))) for number in range(20)
        ]
        for _ in range(5):
            honest.ask()
        bounds = Bounds.within(resource.prlimit(hub.pid, resource.RLIMIT_NOFILE)[1])
        eventually(lambda: sum(flood.held() for flood in floods) <= bounds.strangers, what="the bound to be kept")
        assert min(flood.held() for flood in floods) > 0
        honest.ask()
    honest.assert_was_served()


def test_a_hub_without_descriptors_waits_and_does_not_spin(
    hub: Process, home: Path, doors: Doors, honest: Honest
) -> None:
    """Its limit is lowered under it, so that no bound of its own helps: connections wait in the kernel."""
    eventually(lambda: descriptors(hub.pid) > 0)
    soft, hard = resource.prlimit(hub.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(hub.pid, resource.RLIMIT_NOFILE, (descriptors(hub.pid), hard))
    with closing(Flood(doors.wire, 50, within_s=2.0)):
        begun_s = cpu_s(hub.pid)
        lasted_s = took_s(lambda: [honest._beat() or time.sleep(0.05) for _ in range(30)])
        assert cpu_s(hub.pid) - begun_s < lasted_s / 3
        resource.prlimit(hub.pid, resource.RLIMIT_NOFILE, (soft, hard))
    eventually(lambda: took_s(honest._local) < HONEST_S)
    assert 1 <= len(lines_about(hub.log, "nobody can come in for a moment: Too many open files")) <= NOTICES_EACH + 1
