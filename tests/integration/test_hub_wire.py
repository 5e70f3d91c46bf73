"""The hub's doors with real sockets: who is let in, who is refused or dropped, and that nobody else notices."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.model.ids import GrantId, Index
from lanai.model.job import AttemptResult
from lanai.model.resources import Shape
from lanai.wire import messages
from lanai.wire.framing import frame
from services.processes import Process, eventually, start_hub
from services.wirepeer import WirePeer, join_token, tls_socket


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def hub(home: Path) -> Iterator[Process]:
    started = start_hub(home)
    yield started
    assert started.stop() == 0


def finish_all(agent: WirePeer, count: int) -> int:
    """Answer grants with success until `count` jobs have ended; returns how many grants it took."""
    done = grants = 0
    while done < count:
        grant = agent.expect(messages.Grant)
        grants += 1
        results = [
            AttemptResult(grant.grant, Index(index), "ok", exit_code=0, started_at_us=1, wall_us=1000)
            for first, last in grant.ranges
            for index in range(first, last + 1)
        ]
        agent.send(messages.Ended(done + len(results), results))
        done += len(results)
    return grants


def test_a_batch_goes_from_submission_to_its_last_result(hub: Process, home: Path) -> None:
    api = WirePeer.local(home / "hub")
    api.hello_api()
    agent = WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home))
    batch = api.submit([b"true %d" % i for i in range(2500)])
    api.send(messages.Watch(batch))
    assert finish_all(agent, 2500) < 100
    ended = api.expect(messages.Progress, state="ended")
    assert ended.batch == batch
    assert api.command("progress", batch=batch) == {"progress": None}
    api.close()
    agent.close()


def test_room_is_claimed_before_a_job_over_two_nodes_is_sent(hub: Process, home: Path) -> None:
    """An agent of before that hears no word of it: it would not know what to make of it."""
    api = WirePeer.local(home / "hub")
    api.hello_api()
    old, first, second = (WirePeer.tls(home) for _ in range(3))
    assert old.hello_agent("old", token=join_token(home)).protocol == 1
    assert first.hello_agent("n1", token=join_token(home), protocol=7).protocol == messages.PROTOCOL_MAX
    second.hello_agent("n2", token=join_token(home), protocol=2)
    shape = Shape(nodes=2)
    api.submit([b"true"], shape=shape)
    claim = second.expect(messages.Claim)
    assert claim.shape == shape
    second.send(messages.Claimed([claim.grant, GrantId(5)]))
    grant = first.expect(messages.Grant)
    assert (grant.grant, grant.ranges, grant.nodes) == (claim.grant, [(1, 1)], ("n1", "n2"))
    first.send(messages.Ended(1, [AttemptResult(grant.grant, Index(1), "ok", 0, started_at_us=1, wall_us=1)]))
    assert second.expect(messages.Unclaim).grants == [claim.grant]
    api.submit([b"true"] * 8)
    assert old.expect(messages.Grant).nodes == ()
    for peer in (api, old, first, second):
        peer.close()


def test_lines_arrive_at_the_node_as_they_were_submitted(hub: Process, home: Path) -> None:
    api = WirePeer.local(home / "hub")
    api.hello_api()
    agent = WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home), cpu_milli=3000)
    lines = [b"a", b"\xff\xfe b", b"x" * 100_000]
    api.submit(lines)
    got: list[bytes] = []
    while len(got) < 3:
        got += agent.expect(messages.Grant).lines.split(b"\0")
    assert got == lines
    api.close()
    agent.close()


def test_huge_lines_are_cut_into_messages_that_fit_a_frame(hub: Process, home: Path) -> None:
    """256 jobs of 100 kB granted at once pass 4 MiB; the grant is sent in pieces."""
    api = WirePeer.local(home / "hub")
    api.hello_api()
    agent = WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home), cpu_milli=60_000)
    lines = [b"%03d" % i + b"x" * 100_000 for i in range(60)]
    for first in range(0, 60, 20):
        api.submit(lines[first : first + 20])
    got: list[bytes] = []
    while len(got) < 60:
        got += agent.expect(messages.Grant).lines.split(b"\0")
    assert sorted(got) == lines
    api.close()
    agent.close()


@pytest.mark.parametrize("door", ["unix", "tls"])
def test_an_agent_that_is_slow_to_read_gets_20_mb_of_grants_and_is_kept(hub: Process, home: Path, door: str) -> None:
    """The hub once wrote all of it at once, and took for deaf whoever had not read 16 MiB a moment later."""
    api = WirePeer.local(home / "hub")
    api.hello_api()
    local = WirePeer.local(home / "hub", messages.to_agent)
    agent = local if door == "unix" else WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home), cpu_milli=200_000)
    lines = [b"%03d" % i + b"x" * 100_000 for i in range(200)]
    for first in range(0, 200, 20):
        api.submit(lines[first : first + 20])
    eventually(lambda: _granted(api) == 200, what="all jobs to be granted while nothing is read")
    agent.send(messages.Heartbeat(1, 1))
    got: list[bytes] = []
    while len(got) < 200:
        got += agent.expect(messages.Grant).lines.split(b"\0")
    assert got == lines
    local.close()
    agent.close()
    api.close()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\xff\xff\xff\xff", id="a frame of 4 GiB"),
        pytest.param(b"\x00\x00\x00\x02\xc1\xc1", id="no msgpack"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="another protocol"),
        pytest.param(frame(messages.Heartbeat(1, 1)), id="a message before Hello"),
        pytest.param(frame(messages.Hello("agent", 1, 1, "x", "00" * 32, "n", "k")), id="wrong token"),
        pytest.param(frame(messages.Hello("api", 1, 1, "x")), id="an API process from outside"),
    ],
)
def test_strangers_are_refused_and_nobody_else_notices(hub: Process, home: Path, said: bytes) -> None:
    stranger = tls_socket(home)
    stranger.settimeout(10)
    stranger.sendall(said)
    peer = WirePeer(stranger, messages.to_agent)
    assert peer.is_ended_by_hub()
    peer.close()
    api = WirePeer.local(home / "hub")
    api.hello_api()
    assert api.command("nodes") == {"nodes": [], "next": None}
    api.close()
    eventually(lambda: b"dropped" in hub.log.read_bytes() or b"refused" in hub.log.read_bytes(), what="a log line")


def test_random_bytes_on_every_door_harm_nobody(hub: Process, home: Path) -> None:
    for size in (1, 5, 1000, 70_000):
        for sock in (tls_socket(home), WirePeer.local(home / "hub").sock):
            try:
                sock.sendall(os.urandom(size))
            except OSError:
                pass
            sock.close()
    api = WirePeer.local(home / "hub")
    api.hello_api()
    assert api.command("status")["batches"] == []
    api.close()


def test_versions_that_do_not_meet_get_a_typed_refusal(hub: Process, home: Path) -> None:
    peer = WirePeer.tls(home)
    peer.send(messages.Hello("agent", 90, 99, "9.9", join_token(home), "n1", "k"))
    refused = peer.expect(messages.Refused)
    assert (refused.error.code, refused.error.exit_code) == ("version_mismatch", 8)
    peer.close()


def test_a_second_agent_of_a_name_with_another_key_is_refused(hub: Process, home: Path) -> None:
    first = WirePeer.tls(home)
    first.hello_agent("n1", token=join_token(home), key="one")
    second = WirePeer.tls(home)
    second.send(messages.Hello("agent", 1, 1, "t", join_token(home), "n1", "two", "b", 1, 0, _capacity()))
    assert second.expect(messages.Refused).error.code == "name_taken"
    first.send(messages.Heartbeat(1, 1))
    assert first.expect(messages.Beat).number == 1
    first.close()
    second.close()


def test_a_peer_that_never_reads_is_dropped_and_others_go_on(hub: Process, home: Path) -> None:
    """A deaf API connection asks and asks; the hub drops it at 16 MiB unread and stays quick for others."""
    deaf = WirePeer.local(home / "hub")
    deaf.hello_api()
    deaf.sock.settimeout(0.2)
    ask = frame(messages.Command(7, "t", "why_not" * 1000, _raw({})))
    assert _is_cut_off(deaf.sock, ask)
    api = WirePeer.local(home / "hub")
    api.hello_api()
    assert api.command("nodes") == {"nodes": [], "next": None}
    api.close()
    deaf.close()


def test_the_same_port_is_taken_again_at_once_after_kill(home: Path) -> None:
    first = start_hub(home)
    url = first.facts["url"]
    agent = WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home))
    first.kill()
    agent.close()
    second = start_hub(home)
    assert second.facts["url"] == url
    assert second.stop() == 0


def test_files_that_hold_secrets_are_private(hub: Process, home: Path) -> None:
    for path in (home / "join", home / "hub" / "token", home / "hub" / "key.pem", home / "hub" / "hub.db"):
        assert path.stat().st_mode & 0o777 == 0o600, path
    joining = json.loads((home / "join").read_text())
    assert joining["url"] == hub.facts["url"]
    for path in (home / "hub").glob("hub.db*"):
        assert joining["token"].encode() not in path.read_bytes()


def test_the_pin_is_that_of_the_certificate_shown(hub: Process, home: Path) -> None:
    sock = tls_socket(home)
    shown = sock.getpeercert(binary_form=True)
    assert shown is not None
    assert hashlib.sha256(shown).hexdigest() == json.loads((home / "join").read_text())["pin"]
    sock.close()


def test_plain_tcp_on_the_tls_door_is_dropped(hub: Process, home: Path) -> None:
    host, port = hub.facts["url"].removeprefix("lanai://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(frame(messages.Heartbeat(1, 1)))
        try:
            while plain.recv(1000):
                pass
        except ConnectionError:
            pass


def test_results_nobody_asked_for_change_nothing(hub: Process, home: Path) -> None:
    agent = WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home))
    agent.send(messages.Ended(5, [AttemptResult(GrantId(1 << 40 | 99), Index(3), "ok")]))
    assert agent.expect(messages.Forget).upto == 5
    agent.close()


def test_numbers_that_no_store_can_hold_drop_their_sender(hub: Process, home: Path) -> None:
    """An agent with a valid token reports a run time of 2^63: it is dropped, and the hub lives."""
    api = WirePeer.local(home / "hub")
    api.hello_api()
    agent = WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home))
    api.submit([b"true"])
    grant = agent.expect(messages.Grant)
    agent.send(messages.Ended(1, [AttemptResult(grant.grant, Index(1), "ok", wall_us=1 << 63)]))
    assert agent.is_ended_by_hub()
    assert api.command("progress", batch=1)["progress"]["counts"]["locked"] == 1
    api.close()
    agent.close()


def test_specs_of_an_ended_batch_are_taken_back(hub: Process, home: Path) -> None:
    """A node keeps an environment a spec; a thousand batches in a row must not leave it a thousand of them."""
    api = WirePeer.local(home / "hub")
    api.hello_api()
    agent = WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home))
    api.submit([b"true"])
    spec = agent.expect(messages.Spec).spec
    finish_all(agent, 1)
    assert agent.expect(messages.Unspec).specs == [spec]
    api.close()
    agent.close()


def test_an_arriving_batch_goes_with_its_client(hub: Process, home: Path) -> None:
    api = WirePeer.local(home / "hub")
    api.hello_api()
    api.send(messages.Open(1, "k", "tester", _settings(), {}))
    api.expect(messages.Opened)
    api.close()
    again = WirePeer.local(home / "hub")
    again.hello_api()

    def is_free() -> bool:
        again.send(messages.Open(1, "k", "tester", _settings(), {}))
        return not again.expect(messages.Opened).known

    eventually(is_free, what="the key to be free again")
    again.close()


def test_two_who_open_a_batch_under_one_key_at_the_same_moment_get_one_batch(hub: Process, home: Path) -> None:
    """The second Open comes while the first is on its way to disk: the store does not know the key yet."""
    api = WirePeer.local(home / "hub")
    api.hello_api()
    api.send(*(messages.Open(number, "k", "tester", _settings(), {}) for number in (1, 2, 3)))
    answers = [api.receive() for _ in range(3)]
    opened = [answer for answer in answers if isinstance(answer, messages.Opened) and not answer.known]
    refused = [answer for answer in answers if answer not in opened]
    assert len(opened) == 1
    assert [getattr(answer, "error", None) and answer.error.code for answer in refused] == ["key_arriving"] * 2
    api.send(messages.Open(4, "k", "tester", _settings(), {}))
    assert api.receive() == messages.Opened(4, opened[0].batch, known=True)
    api.close()


def test_a_batch_whose_client_goes_before_it_has_a_number_is_dropped(hub: Process, home: Path) -> None:
    api = WirePeer.local(home / "hub")
    api.hello_api()
    api.send(messages.Open(1, "k", "tester", _settings(), {}))
    api.close()
    again = WirePeer.local(home / "hub")
    again.hello_api()

    def is_free() -> bool:
        again.send(messages.Open(1, "k", "tester", _settings(), {}))
        answer = again.receive()
        return isinstance(answer, messages.Opened) and not answer.known

    eventually(is_free, within_s=5, what="the key to be free again")
    again.close()


def test_nobody_reads_for_a_follower_who_left_before_his_job_began(hub: Process, home: Path) -> None:
    api = WirePeer.local(home / "hub")
    api.hello_api()
    batch = api.submit([b"a"])
    api.send(messages.Follow(1, batch, Index(1), 0, 1, 0, True, 1000), messages.Unfetch(1))
    api.send(messages.Follow(2, batch, Index(1), 0, 2, 0, True, 1000))
    agent = WirePeer.tls(home)
    agent.hello_agent("n1", token=join_token(home))
    assert agent.expect(messages.Fetch).which == 2
    api.close()
    agent.close()


def _granted(api: WirePeer) -> int:
    return sum(batch["counts"]["locked"] for batch in api.command("status")["batches"])


def _is_cut_off(sock: socket.socket, said: bytes) -> bool:
    try:
        for _ in range(20_000):
            sock.sendall(said)
    except OSError:
        return True
    return False


def _capacity() -> object:
    from lanai.model.resources import Capacity

    return Capacity(cpu_milli=1000, memory_bytes=1 << 30)


def _settings() -> object:
    from lanai.model.batch import BatchSettings

    return BatchSettings()


def _raw(value: object) -> object:
    import msgspec

    return msgspec.Raw(msgspec.msgpack.encode(value))
