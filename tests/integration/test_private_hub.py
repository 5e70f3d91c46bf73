"""The private hub: begun when it may be, by one of any number of starters, found again, and taken up after a crash."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lanai.client import Client, Found, daemon, find, private
from lanai.model.errors import NothingThere, OtherEnd, Refusal, UserError
from services.processes import eventually

ENV = {b"PATH": b"/usr/bin:/bin"}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    environ = {"LANAI_HOME": os.fspath(tmp_path / "home"), "HOME": os.fspath(tmp_path)}
    yield environ
    found = find(environ)
    if found is not None:
        end(found)


def end(found: Found) -> None:
    client = found.client()
    try:
        pid = client.hub()["pid"]
        watched = os.pidfd_open(pid)
        client.stop(now=True)
        wait_for(watched)
    finally:
        client.close()


def wait_for(watched: int) -> None:
    assert select.select([watched], [], [], 20)[0]
    os.close(watched)


def kill_and_wait(pid: int) -> None:
    watched = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(watched)


def ask(found: Found | None, question: str) -> object:
    assert found is not None
    client = found.client()
    try:
        return getattr(client, question)()
    finally:
        client.close()


def test_nothing_is_started_where_nothing_may_be(home: dict[str, str]) -> None:
    assert find(home) is None
    assert not Path(home["LANAI_HOME"]).exists()


def test_starters_at_once_end_up_with_one(home: dict[str, str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: find(home, may_start=True), range(4)))
    pids = {ask(each, "hub")["pid"] for each in found}  # type: ignore[index]
    assert len(pids) == 1
    assert all(each is not None and each.is_private and each.resumed == 0 for each in found)


def test_it_runs_jobs_and_is_found_by_the_next(home: dict[str, str]) -> None:
    found = find(home, may_start=True)
    assert found is not None
    client = found.client()
    client.submit([b"echo hello\n"], {}, env=ENV)
    assert client.wait("last", timeout_s=30)["counts"]["done"] == 1
    assert next(client.output("last", 1)) == (1, b"hello\n")
    client.close()
    again = find(home)
    assert again is not None and again.target == found.target


def test_after_a_crash_the_next_takes_unfinished_batches_up_and_says_so(home: dict[str, str], tmp_path: Path) -> None:
    found = find(home, may_start=True)
    assert found is not None
    client = found.client()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    client.submit([b"cat %s\n" % os.fsencode(fifo)], {}, env=ENV)
    kill_and_wait(client.hub()["pid"])
    again = find(home)
    assert again is not None and again.resumed == 1
    fifo.write_bytes(b"")
    assert client.wait(1, timeout_s=30)["counts"]["done"] == 1
    client.close()


def test_an_agent_that_was_killed_is_started_again_by_the_next(home: dict[str, str]) -> None:
    found = find(home, may_start=True)
    assert found is not None
    client = found.client()
    client.submit([b"true\n"], {}, env=ENV)
    client.wait("last", timeout_s=30)
    facts = Path(home["LANAI_HOME"]) / "private" / "agent" / "agent.json"
    killed = json.loads(facts.read_bytes())["pid"]
    kill_and_wait(killed)
    again = find(home)
    assert again is not None and again.resumed == 0
    client.submit([b"echo again\n"], {}, env=ENV)
    assert client.wait("last", timeout_s=30)["counts"]["done"] == 1
    assert json.loads(facts.read_bytes())["pid"] != killed
    client.close()


def test_after_a_hub_that_was_killed_for_good_its_agent_ends_once_nothing_runs(
    home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agent and starter stayed for ever. What runs goes on; its result is kept for the next hub."""
    monkeypatch.setattr(private, "END_WITH_HUB_S", 0.3)
    found = find(home, may_start=True)
    assert found is not None
    client = found.client()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    client.submit([b"cat %s\n" % os.fsencode(fifo)], {}, env=ENV)
    with open(fifo, "wb"):  # opened once the command runs
        directory = Path(home["LANAI_HOME"]) / "private"
        agent = os.pidfd_open(json.loads((directory / "agent" / "agent.json").read_bytes())["pid"])
        (starter,) = map(os.pidfd_open, daemon.mentioning("starter.py", f"{directory}/agent/starter"))
        kill_and_wait(client.hub()["pid"])
        client.close()
        assert not select.select([agent, starter], [], [], 3.0)[0]
    wait_for(agent)
    wait_for(starter)
    again = find(home)
    assert again is not None and again.resumed == 1
    client = again.client()
    assert client.wait(1, timeout_s=30)["counts"]["done"] == 1
    assert client.job(1, 1)["attempts"] == 1
    client.close()


def test_a_hub_whose_starter_has_gone_comes_up_all_the_same(
    home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "END_WITH_HUB_S", 0.3)  # the hub may be stopped before its agent has quite joined
    directory = Path(home["LANAI_HOME"]) / "private"
    directory.mkdir(parents=True)
    begun = daemon.begin(["lanai.hub", os.fspath(directory), "--private"], log=directory / "hub.log")
    os.close(begun.reader)
    eventually((directory / "hub.pid").exists)
    assert ask(find(home), "hub")["pid"] == begun.pid  # type: ignore[index]


def test_one_whose_place_was_taken_meanwhile_is_not_started(home: dict[str, str]) -> None:
    """Whoever waited for the lock while another hub took its place would have begun a batch that nothing finds."""
    directory = Path(home["LANAI_HOME"]) / "private"
    assert private.start(directory, host="here", say=lambda line: None, is_wanted=lambda: False) is None
    assert not (directory / "hub.db").exists()


def test_what_keeps_it_from_starting_is_said(home: dict[str, str]) -> None:
    directory = Path(home["LANAI_HOME"]) / "private"
    directory.mkdir(parents=True)
    (directory / "hub.db").write_bytes(b"this is no database, and longer than a page header" * 100)
    with pytest.raises(Refusal) as caught:
        find(home)
    assert "hub.db" in caught.value.message
    (directory / "hub.db").unlink()


def test_a_hub_that_was_set_up_but_is_down_is_an_error_with_a_hint(home: dict[str, str]) -> None:
    hub = Path(home["LANAI_HOME"]) / "hub"
    hub.mkdir(parents=True)
    (hub / "hub.db").touch()
    with pytest.raises(OtherEnd) as caught:
        find(home, may_start=True)
    assert caught.value.hint == "lanai hub start"
    (hub / "hub.db").unlink()


@pytest.mark.parametrize(
    ("named", "kind"),
    [("https://host:1", UserError), ("/nowhere/at/all", UserError), ("ftp://host", UserError)],
)
def test_names_that_name_no_hub(home: dict[str, str], named: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        find(home, hub=named)
    with pytest.raises(kind):
        find({**home, "LANAI_HUB": named})


def test_token_files(home: dict[str, str], tmp_path: Path) -> None:
    token = tmp_path / "token"
    with pytest.raises(NothingThere):
        find({**home, "LANAI_TOKEN_FILE": os.fspath(token)}, hub="https://host:7")
    token.write_text('{"url": "https://elsewhere:9", "pin": "ab", "token": "cd"}')
    found = find(home, hub=os.fspath(token))
    assert found is not None
    assert (found.target.host, found.target.port, found.target.pin, found.target.token) == ("elsewhere", 9, "ab", "cd")
    found = find({**home, "LANAI_TOKEN_FILE": os.fspath(token)}, hub="https://host:7")
    assert found is not None and str(found.target) == "https://host:7"
    token.write_text("{}")
    with pytest.raises(UserError):
        find(home, hub=os.fspath(token))


def test_the_configuration_names_the_hub(home: dict[str, str], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text('{"url": "https://elsewhere:9", "pin": "ab", "token": "cd"}')
    config = Path(home["LANAI_HOME"]) / "config.toml"
    config.parent.mkdir()
    config.write_text(f'hub = "{token}"\n')
    found = find(home)
    assert found is not None and found.target.port == 9
    config.write_text("hubb = 3\n")
    with pytest.raises(UserError) as caught:
        find(home)
    assert "did you mean hub?" in caught.value.message
    config.write_text("hub = \n")
    with pytest.raises(UserError):
        find(home)
    config.unlink()


def test_importing_the_client_imports_nothing_dear() -> None:
    code = "import sys, lanai.client; print([n for n in ('msgspec', 'ssl', 'http.client') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys; from lanai.client import Client, find; print('ssl' in sys.modules, 'asyncio' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False False\n"
    assert Client.__name__ == "Client"
