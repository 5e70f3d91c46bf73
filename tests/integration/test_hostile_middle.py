"""Somebody stands between the hub and its agents and clients, knows what was said before, or is not the hub at all."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lanai.wire import messages
from lanai.wire.framing import FrameReader, frame
from services.hostile import Doors, connect_tls, lines_about
from services.middle import Harm, Middle
from services.processes import eventually
from services.site import Site
from services.wirepeer import WirePeer

COUNTED = ("batch", "attempt", "grant", "tail", "override", "chunk", "shape")
"""The tables that say what ran and how it ended; `progress` and `tally` follow from these, a second later."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    yield made
    made.close()


def through(middle: Middle) -> str:
    """The hub's URL for an agent that goes by way of `middle`."""
    return f"lanai://{middle.place[0]}:{middle.place[1]}"


def rows(site: Site) -> dict[str, list[Any]]:
    """What the store says that has run."""
    with closing(sqlite3.connect(f"file:{site.home}/hub/hub.db?mode=ro", uri=True)) as store:
        return {table: sorted(store.execute(f'SELECT * FROM "{table}"'), key=repr) for table in COUNTED}


LAST = 1 << 40
"""The number of a heartbeat after everything else."""


# -- bytes that change on their way


HARMS = [
    Harm("flip", towards_hub=True),
    Harm("flip", towards_hub=False),
    Harm("flip", towards_hub=True, after=900),
    Harm("flip", towards_hub=False, after=1500),
    Harm("double", towards_hub=True, after=900),
    Harm("double", towards_hub=False, after=1500),
    Harm("drop", towards_hub=True, after=1200),
    Harm("cut", towards_hub=True, after=1600),
    Harm("cut", towards_hub=False, after=2500),
    Harm("late"),
]


@pytest.mark.timeout(120)
def test_bytes_that_are_changed_doubled_or_lost_end_the_connection_and_nothing_else(site: Site) -> None:
    """Each connection of the agent's is harmed in another way, until the last, which is only late. Jobs run once."""
    with closing(Middle(Doors(site.home).wire, HARMS)) as middle:
        site.start_agent("far", hub=through(middle))
        batch = site.submit([f"echo {number} >> ran; sleep 0.02" for number in range(300)])
        site.wait(batch)
        eventually(lambda: middle.done == HARMS, what="all harm to be done")
        again = site.submit(["true"] * 20)
        site.wait(again)
        assert sorted(map(int, site.lines_of("ran"))) == list(range(300))
        assert {job["attempts"] for job in [*site.jobs(batch), *site.jobs(again)]} == {1}
        assert site.hub is not None
        assert lines_about(site.hub.log, r"dropped agent far at 127\.0\.0\.1:\d+: decryption failed or bad record mac")


@pytest.mark.parametrize("harm", [Harm("flip", after=540), Harm("flip", towards_hub=False, after=1000), Harm("cut")])
def test_a_client_whose_bytes_are_changed_says_so_and_may_ask_again(site: Site, harm: Harm, tmp_path: Path) -> None:
    said = json.loads((site.home / "hub" / "token").read_text())
    site.lanai("status")
    with closing(Middle(Doors(site.home).api, [harm])) as middle:
        file = tmp_path / "token"
        file.write_text(json.dumps(said | {"url": f"https://{middle.place[0]}:{middle.place[1]}"}))
        failed = site.lanai("--hub", str(file), "submit", "-", "--key", "k", stdin="true\n", ok=False)
        assert failed.returncode == 3
        assert "does not answer" in failed.stderr
        assert "Traceback" not in failed.stderr
        # Whether it was submitted he cannot know, where the answer was lost; to ask again with its key is safe.
        site.lanai("--hub", str(file), "submit", "-", "--key", "k", stdin="true\n")
        assert len(site.lanai("batch", "list", "--format", "ndjson").stdout.splitlines()) == 1


# -- the same again


class Replay:
    """What an agent has said on one connection, said again on another."""

    def __init__(self, said: bytes) -> None:
        reader = FrameReader(messages.to_hub)
        reader.accept_peer()
        self.messages = list(reader.feed(said))
        assert isinstance(self.messages[0], messages.Hello)

    def say(self, site: Site) -> list[Any]:
        """Say all of it; returns what the hub answered until it had dealt with all, or hung up."""
        heard: list[Any] = []
        with closing(WirePeer(connect_tls(Doors(site.home).wire), messages.to_agent)) as peer:
            try:
                peer.send(self.messages[0])
                heard.append(peer.receive())
                peer.send(*self.messages[1:], messages.Heartbeat(LAST, 1))
                while not {LAST, messages.Forget} <= set(map(_kind, heard)):
                    heard.append(peer.receive())
            except ConnectionError:
                pass
        return heard


def _kind(message: messages.Message) -> object:
    return message.number if isinstance(message, messages.Beat) else type(message)


@pytest.mark.timeout(120)
def test_what_an_agent_has_said_counts_once_however_often_it_is_said(site: Site) -> None:
    """Recorded in clear by somebody with the hub's key. Refused while the agent lives; changes nothing after that."""
    certificate = site.home / "hub" / "cert.pem", site.home / "hub" / "key.pem"
    with closing(Middle(Doors(site.home).wire, certificate=certificate)) as middle:
        agent = site.start_agent("one", hub=through(middle))
        first = site.submit(["echo $LANAI_INDEX >> ran", "echo $LANAI_INDEX >> ran; exit 3", "echo out; sleep 0.3"])
        site.wait(first, ok=False)
        waits = "while [ ! -e go-$LANAI_ATTEMPT ]; do sleep 0.02; done"
        second = site.submit([f"echo $LANAI_ATTEMPT >> tries; {waits}; [ $LANAI_ATTEMPT = 2 ]"], "--retries", "1")
        site.await_lines("tries", 1)
        site.lanai("node", "drain", "one")
        (site.work / "go-1").touch()
        eventually(lambda: site.jobs(second)[0]["attempts"] == 1 and site.counts(second) == {"queued": 1})
        replay = Replay(bytes(middle.heard[0]))
        assert any(isinstance(message, messages.Ended) for message in replay.messages)
        before = rows(site)
        (refused,) = replay.say(site)
        assert refused.error.code == "name_in_use"
        assert rows(site) == before
        # The agent has gone; the job's second attempt, under a grant of its own, runs elsewhere.
        agent.kill()
    site.start_agent("two")
    site.await_lines("tries", 2)
    before = rows(site)
    for _ in range(2):
        heard = eventually(lambda: [said for said in replay.say(site) if not isinstance(said, messages.Refused)])
        assert isinstance(heard[0], messages.Welcome)
        assert {LAST, messages.Forget} <= set(map(_kind, heard))
        assert not [said for said in heard if isinstance(said, messages.Grant | messages.Kill)]
        assert rows(site) == before
    (site.work / "go-2").touch()
    site.wait(second)
    assert site.lines_of("tries") == ["1", "2"]
    assert sorted(site.lines_of("ran")) == ["1", "2"]
    assert site.jobs(second)[0]["attempts"] == 2
    assert {job["index"]: job["state"] for job in site.jobs(first)} == {1: "done", 2: "failed", 3: "done"}


def test_a_hello_of_an_agent_that_lives_does_not_take_its_jobs(site: Site) -> None:
    """From another machine, as its boot id says: that would have proved all that runs there dead."""
    certificate = site.home / "hub" / "cert.pem", site.home / "hub" / "key.pem"
    with closing(Middle(Doors(site.home).wire, certificate=certificate)) as middle:
        site.start_agent("one", hub=through(middle))
        batch = site.submit(["echo began >> ran; while [ ! -e go ]; do sleep 0.02; done"])
        site.await_lines("ran", 1)
        hello = Replay(bytes(middle.heard[0])).messages[0]
        assert isinstance(hello, messages.Hello)
        with closing(WirePeer(connect_tls(Doors(site.home).wire), messages.to_agent)) as copy:
            fields = {name: getattr(hello, name) for name in hello.__struct_fields__}
            copy.sock.sendall(frame(messages.Hello(**(fields | {"boot_id": "another"}))))
            assert copy.expect(messages.Refused).error.code == "name_in_use"
        (site.work / "go").touch()
        site.wait(batch)
    assert site.lines_of("ran") == ["began"]


# -- another certificate


def renew(site: Site) -> None:
    """The hub is killed and comes back with another certificate."""
    assert site.hub is not None
    site.hub.kill()
    for name in ("cert.pem", "key.pem"):
        (site.home / "hub" / name).unlink()
    site.start_hub()


@pytest.fixture
def handed_on(tmp_path: Path) -> Iterator[Site]:
    """A site whose hub writes its join file elsewhere: what lies in its place was fetched by hand."""
    made = Site(tmp_path / "site")
    made.start_hub("--join-file", str(made.home / "written"))
    shutil.copy(made.home / "written", made.home / "join")
    shutil.copy(made.home / "hub" / "token", made.home / "token")
    made.start_agent("far")
    yield made
    made.close()


def test_after_a_new_certificate_agent_and_client_wait_for_the_new_files(handed_on: Site) -> None:
    """Both refuse the hub and say what to do. What runs goes on; the agent comes back when its file was replaced."""
    site = handed_on
    token = str(site.home / "token")
    job = "echo began >> ran; while [ ! -e go ]; do sleep 0.02; done; echo ended >> ran"
    batch = site.submit([job])
    site.await_lines("ran", 1)
    renew(site)
    log = site.home / "agent-far.log"
    told = eventually(lambda: lines_about(log, "is not the hub of the join file"), what="the agent to refuse")
    assert "if the hub has a new certificate, fetch its join file again" in told[0]
    refused = eventually(lambda: _refused(site, token), what="the client to refuse")
    assert "is not the hub that the token file names" in refused
    assert "fetch its token file again" in refused
    (site.work / "go").touch()
    site.await_lines("ran", 2)
    assert site.counts(batch) in ({"running": 1}, {"locked": 1})
    shutil.copy(site.home / "written", site.home / "join")
    shutil.copy(site.home / "hub" / "token", token)
    site.wait(batch)
    assert (site.lines_of("ran"), site.jobs(batch)[0]["attempts"]) == (["began", "ended"], 1)
    site.lanai("--hub", token, "status")
    assert len(lines_about(log, "is not the hub of the join file")) == 1


def _refused(site: Site, token: str) -> str:
    ended = site.lanai("--hub", token, "status", ok=False)
    assert ended.returncode == 3
    return ended.stderr if "token file" in ended.stderr else ""


def test_a_certificate_that_was_announced_is_believed_at_once(handed_on: Site) -> None:
    """Its pin stands beside the old one in the files, which were handed on before the change. No agent is restarted."""
    site = handed_on
    announced = json.loads(site.lanai("hub", "certificate", "--announce", "--format", "json").stdout)
    assert json.loads((site.home / "join").read_text())["next_pin"] == announced["next_pin"] != announced["pin"]
    shutil.copy(site.home / "hub" / "token", site.home / "token")
    site.lanai("--hub", str(site.home / "token"), "status")
    assert "lanai hub stop" in site.lanai("hub", "certificate", "--switch").stderr
    assert site.hub is not None
    assert site.hub.stop() == 0
    site.start_hub()
    assert json.loads((site.home / "written").read_text())["pin"] == announced["next_pin"]
    site.wait(site.submit(["true"] * 5))
    eventually(lambda: not _refused_at_all(site), what="the client to be answered")
    assert not lines_about(site.home / "agent-far.log", "is not the hub of the join file")
    assert site.lanai("hub", "certificate", "--switch", ok=False).returncode == 2


def _refused_at_all(site: Site) -> str:
    ended = site.lanai("--hub", str(site.home / "token"), "status", ok=False)
    assert "token file names" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("text", ["", "{", '{"url": 7}', '{"url": "http://x"}'])
def test_a_join_file_that_cannot_be_read_leaves_what_was_known(handed_on: Site, text: str) -> None:
    """It may just be being replaced."""
    site = handed_on
    (site.home / "join").write_text(text)
    assert site.hub is not None
    site.hub.kill()
    site.start_hub()
    site.wait(site.submit(["true"]))
