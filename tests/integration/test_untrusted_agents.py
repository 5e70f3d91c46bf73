"""Who has a token of an agent's, or of a plain user's, and means harm: he reaches what is his, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from lanai.client.private import is_answering
from lanai.model.resources import Capacity
from lanai.wire import messages
from services.callers import Caller
from services.processes import eventually, start_hub
from services.wirepeer import WirePeer, join_token

HUGE = (1 << 64) - 1


class Site:
    """A hub, and its own user who asks it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.hub = start_hub(home)
        self.root = Caller(path=home / "hub" / "api.sock", user=str(os.geteuid()))
        eventually(lambda: is_answering(home / "hub"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.hub.kill()


def joined(site: Site, name: str, *, cpu_milli: int = 1) -> WirePeer:
    peer = WirePeer.tls(site.home)
    peer.hello_agent(name, token=join_token(site.home), cpu_milli=cpu_milli)
    return peer


def offering(site: Site, capacity: Capacity) -> messages.Refused:
    peer = WirePeer.tls(site.home)
    peer.send(messages.Hello("agent", 1, 1, "test", join_token(site.home), "n", "k", "b", 1, 0, capacity))
    refused: messages.Refused = peer.expect(messages.Refused)
    peer.close()
    return refused


def submitted(site: Site, body: bytes = b"sleep 600\n", **settings: object) -> int:
    head = json.dumps({"settings": {"cwd": "/", **settings}}).encode()
    said = site.root.ask("POST", "/v1/batches", head + b"\n" + body)
    assert said.status == 201, said
    return int(said.value["batch"])


def test_numbers_that_no_store_can_hold_end_the_connection_and_not_the_hub(site: Site) -> None:
    """The writer of the store would have given up, and the hub with it, for one message of one agent."""
    liar = joined(site, "liar")
    liar.send(messages.Tail(HUGE, 1, 1, b"x", b"", 1, 0))  # type: ignore[arg-type]
    assert liar.is_ended_by_hub()
    liar.close()
    assert site.root.ask("GET", "/v1/hub").status == 200


def test_a_node_says_nothing_about_the_outputs_of_anothers_attempts(site: Site) -> None:
    batch = submitted(site)
    honest, liar = joined(site, "honest", cpu_milli=1000), joined(site, "liar")
    grant = honest.expect(messages.Grant)
    path = f"/v1/jobs/{batch}/1/output?stream=out"
    with site.root.asked("GET", path + "&follow=1") as answer:
        fetch = honest.expect(messages.Fetch)
        liar.send(messages.Output(fetch.stream, 1, 0, b"forged", True))
        liar.send(messages.Tail(batch, 1, 1, b"forged", b"", 6, 0, True))  # type: ignore[arg-type]
        liar.send(messages.Heartbeat(1, 0))
        liar.expect(messages.Beat)  # what it said before has been heard
        honest.send(messages.Output(fetch.stream, 1, 0, b"true", True))
        told = answer.read()
    assert b"true" in told and b"forged" not in told
    liar.send(messages.Ended(1, [(grant.grant, 1, "exit", 3)]))  # type: ignore[list-item]
    honest.send(messages.Ended(1, [(grant.grant, 1, "exit", 3)]))  # type: ignore[list-item]
    honest.expect(messages.Forget)
    liar.send(messages.Tail(batch, 1, 1, b"forged", b"", 6, 0, True))  # type: ignore[arg-type]
    honest.send(messages.Tail(batch, 1, 1, b"true", b"", 4, 0, True))  # type: ignore[arg-type]
    eventually(lambda: site.root.ask("GET", path + "&tail_only=1").body == b"true")
    liar.send(messages.Tail(batch, 1, 1, b"forged", b"", 6, 0, True))  # type: ignore[arg-type]
    liar.send(messages.Heartbeat(2, 0))
    liar.expect(messages.Beat, number=2)
    submitted(site)  # on disk after it
    assert site.root.ask("GET", path + "&tail_only=1").body == b"true"
    honest.close()
    liar.close()


def test_a_node_that_sends_more_output_than_there_is_room_for_is_dropped(site: Site) -> None:
    """Who reads slowly would have the API keep all of it."""
    batch = submitted(site)
    liar = joined(site, "liar", cpu_milli=1000)
    liar.expect(messages.Grant)
    with site.root.asked("GET", f"/v1/jobs/{batch}/1/output?stream=out&follow=1") as answer:
        fetch = liar.expect(messages.Fetch)
        liar.send(messages.Output(fetch.stream, 1, 0, b"x" * fetch.credit))
        piece = answer.read(5 + fetch.credit)
        assert piece.endswith(b"x")
        credit = liar.expect(messages.Credit).count
        assert credit == fetch.credit
        liar.send(messages.Output(fetch.stream, 1, fetch.credit, b"x" * credit + b"y"))
        assert liar.is_ended_by_hub()
        assert b"the connection to its node is lost" in answer.read()
    liar.close()


def test_a_node_takes_no_input_that_was_given_to_another(site: Site) -> None:
    body = json.dumps({"settings": {"cwd": "/", "stdin": "pipe"}, "single": True}).encode() + b"\ncat"
    batch = site.root.ask("POST", "/v1/batches", body).value["batch"]
    honest, liar = joined(site, "honest", cpu_milli=1000), joined(site, "liar")
    honest.expect(messages.Grant)
    with ThreadPoolExecutor(1) as aside:
        asked = aside.submit(site.root.ask, "POST", f"/v1/jobs/{batch}/1/input", b"four")
        honest.expect(messages.Input)
        liar.send(messages.InputTaken(batch, 1, 4, attempt=1))
        liar.send(messages.InputTaken(batch, 1, 0, "closed", 1, messages.InputState.OVER))
        liar.send(messages.Heartbeat(1, 0))
        liar.expect(messages.Beat)  # what it said before has been heard
        honest.send(messages.InputTaken(batch, 1, 3, attempt=1))
        honest.expect(messages.Input)  # offered again: not all of it was taken yet
        honest.send(messages.InputTaken(batch, 1, 4, attempt=1))
        assert asked.result().value["offset"] == 4
    honest.close()
    liar.close()


@pytest.mark.parametrize(
    "capacity",
    [
        Capacity(cpu_milli=HUGE, memory_bytes=1),
        Capacity(cpu_milli=1, memory_bytes=-1),
        Capacity(cpu_milli=1, memory_bytes=1, named=tuple((f"r{number}", 1) for number in range(65))),
        Capacity(cpu_milli=1, memory_bytes=1, named=(("a", 1), ("a", 2))),
        Capacity(cpu_milli=1, memory_bytes=1, named=(("\33[2J", 1),)),
        Capacity(cpu_milli=1, memory_bytes=1, gpus=("x" * 101,)),
    ],
)
def test_an_agent_that_offers_what_no_computer_has_is_refused(site: Site, capacity: Capacity) -> None:
    refused = offering(site, capacity)
    assert (refused.error.code, refused.error.hint) == ("bad_offer", "lanai agent start --help")
    assert site.root.ask("GET", "/v1/nodes").value["nodes"] == []


def test_a_start_at_no_time_is_shown_as_the_last_there_is(site: Site) -> None:
    batch = submitted(site)
    agent = joined(site, "n", cpu_milli=1000)
    grant = agent.expect(messages.Grant)
    agent.send(messages.Started([(grant.grant, 1, HUGE)]))  # type: ignore[list-item]

    def running() -> bool:
        said = site.root.ask("GET", f"/v1/batches/{batch}/jobs")
        assert said.status == 200, said
        return bool(said.value["jobs"][0]["started_at"] == "9999-12-31T23:59:59.999999Z")

    eventually(running)
    agent.close()


def test_a_list_that_names_a_resource_of_its_own_in_every_line_holds_nobody_up(site: Site) -> None:
    """Every name had a field in all vectors of the hub, for ever: a few thousand of them stopped it."""
    agent = joined(site, "n", cpu_milli=1000)
    lines = b"".join(b"{use r%d 1} true\n" % number for number in range(3000))
    refused = site.root.ask("POST", "/v1/batches", b'{"settings": {"cwd": "/"}}\n' + lines)
    assert (refused.status, refused.code) == (422, "impossible_request")
    submitted(site)
    agent.expect(messages.Grant)
    many = " ".join(f"{{use r{number} 1}}" for number in range(65)).encode()
    refused = site.root.ask("POST", "/v1/batches", b'{"settings": {"cwd": "/"}}\n' + many + b" true\n")
    assert (refused.status, refused.code) == (400, "bad_list")
    agent.close()


def test_jobs_that_wait_for_a_resource_start_once_a_node_offers_it(site: Site) -> None:
    batch = submitted(site, b"{use licence 1} sleep 600\n")
    with closing(joined(site, "poor", cpu_milli=1000)), closing(WirePeer.tls(site.home)) as rich:
        eventually(
            lambda: "licence" in site.root.ask("GET", f"/v1/batches/{batch}/why").value["verdict"],
            what="the verdict to name what no node offers",
        )
        capacity = Capacity(cpu_milli=1000, memory_bytes=1 << 30, named=(("licence", 1),))
        rich.send(messages.Hello("agent", 1, 1, "test", join_token(site.home), "rich", "k", "b", 1, 0, capacity))
        rich.expect(messages.Welcome)
        rich.send(messages.Inventory([], is_last=True))
        assert rich.expect(messages.Grant).ranges == [(1, 1)]


def test_settings_have_a_bound(site: Site) -> None:
    for settings in ({"name": "x" * 40_000}, {"labels": {str(number): "y" * 100 for number in range(400)}}):
        body = json.dumps({"settings": {"cwd": "/", **settings}}).encode() + b"\ntrue\n"
        refused = site.root.ask("POST", "/v1/batches", body)
        assert (refused.status, refused.code) == (400, "bad_settings"), refused


def test_a_method_that_a_path_does_not_know_is_told_as_any_other_error(site: Site) -> None:
    for method, path in (("DELETE", "/v1/hub"), ("GET", "/v1/hub/stop"), ("PUT", "/v1/batches")):
        refused = site.root.ask(method, path)
        assert (refused.status, refused.code) == (404, "no_such_method")
    assert site.root.ask("HEAD", "/v1/hub").status == 200


def test_numbers_beyond_all_bounds_are_the_callers_fault(site: Site) -> None:
    batch = submitted(site)
    for path, wish in (
        (f"/v1/batches/{batch}/set", {"priority": 10**30}),
        (f"/v1/batches/{batch}/set", {"max_running": 1 << 63}),
        ("/v1/tokens/revoke", {"token": 10**30}),
    ):
        refused = site.root.ask("POST", path, wish)
        assert (refused.status, refused.code) == (400, "bad_body"), (path, wish, refused)
    cursor = "lM___________6CgoA=="  # the event of time 2^64 - 1
    assert site.root.ask("GET", f"/v1/events?before={cursor}").code == "bad_query"
