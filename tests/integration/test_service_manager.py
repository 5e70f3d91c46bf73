"""Hub and agent as a service manager starts them: what they tell it, and how their lines reach the journal."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from services.datagrams import Datagrams, fields
from services.processes import end_starters, eventually, start_agent, start_hub

WATCHDOG_S = 0.6


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Datagrams]:
    made = Datagrams(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(made.path))
    yield made
    made.close()


def _has(wanted: bytes) -> Callable[[bytes], bool]:
    return lambda message: wanted in message


def test_a_hub_says_when_it_takes_work_that_its_loop_turns_and_when_it_ends(
    tmp_path: Path, manager: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog hears nothing while the process is stopped, although its socket is there: a hung hub is noticed."""
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_S * 1e6)))
    hub = start_hub(tmp_path)
    assert manager.next() == b"READY=1\nSTATUS=0 of 0 nodes up, 0 batches open"
    manager.until(_has(b"WATCHDOG=1"))
    hub.signal(signal.SIGSTOP)
    manager.socket.settimeout(2 * WATCHDOG_S)
    with pytest.raises(TimeoutError):
        manager.until(lambda message: False)
    manager.socket.settimeout(20.0)
    hub.signal(signal.SIGCONT)
    manager.until(_has(b"WATCHDOG=1"))
    assert hub.stop() == 0
    assert manager.until(_has(b"STOPPING=1"))[-1] == b"STOPPING=1"


def test_the_child_of_a_hub_does_not_speak_in_its_name(tmp_path: Path, manager: Datagrams) -> None:
    hub = start_hub(tmp_path)
    manager.until(_has(b"READY=1"))
    children = Path(f"/proc/{hub.pid}/task/{hub.pid}/children")
    child = eventually(lambda: children.read_text().split(), what="the API process")[0]
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
    hub.stop()


def test_an_agent_is_ready_without_its_hub_and_says_what_it_waits_for(
    tmp_path: Path, manager: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that failed because the hub is down would have to be started by hand when it is back."""
    monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_S * 1e6)))
    hub = start_hub(tmp_path)
    url = manager.until(_has(b"READY=1")) and hub.facts["url"]
    hub.stop()
    manager.until(_has(b"STOPPING=1"))
    words = [sys.executable, "-m", "lanai.agent", "--state", str(tmp_path / "agent"), "--name", "alone"]
    agent = subprocess.Popen([*words, "--join", str(tmp_path / "join")], stderr=subprocess.DEVNULL)
    try:
        assert manager.next() == f"READY=1\nSTATUS=looking for the hub at {url}".encode()
        manager.until(_has(b"STATUS=no connection to the hub"))
        manager.until(_has(b"WATCHDOG=1"))
        with monkeypatch.context() as unmanaged:
            unmanaged.delenv("NOTIFY_SOCKET")
            hub = start_hub(tmp_path)
        manager.until(_has(b"STATUS=joined hub"))
        agent.terminate()
        manager.until(_has(b"STOPPING=1"))
        assert agent.wait(20) == 0
    finally:
        agent.kill()
        agent.wait()
        hub.stop()
        end_starters(tmp_path)


# -- the journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Datagrams]:
    (tmp_path / "journal").mkdir()
    made = Datagrams(tmp_path / "journal" / "socket")
    yield made
    made.close()


def _in_its_view(journal: Datagrams) -> list[str]:
    """The words before a command that has the journal at its usual place, and everything else as it is."""
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("needs root to put a journal's socket in its place", pytrace=False)
        pytest.skip("needs root to put a journal's socket in its place")
    place = 'mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$0" /run/systemd/journal'
    return ["unshare", "--mount", "sh", "-c", f'{place} && exec "$@"', str(Path(journal.path).parent)]


def _start(words: Sequence[str], journal: Datagrams, monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[bytes]:
    """Start it with a standard error that it is told is the journal's."""
    read, write = os.pipe()
    facts = os.fstat(write)
    with monkeypatch.context() as patch:
        patch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
        started = subprocess.Popen([*_in_its_view(journal), *words], stderr=write, stdout=subprocess.DEVNULL)
    os.close(write)
    os.close(read)
    return started


def test_lines_of_hub_and_agent_reach_the_journal_with_what_they_are_about(
    tmp_path: Path, journal: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [sys.executable, "-m", "lanai.hub", str(tmp_path / "hub"), "--listen", "127.0.0.1:0"]
    hub = _start(words, journal, monkeypatch)
    try:
        eventually(lambda: (tmp_path / "hub" / "hub.pid").exists(), what="the hub")
        agent = start_agent(tmp_path, "rack-7")
        joined = fields(journal.until(lambda entry: b"node_joined" in entry)[-1])
        assert joined["MESSAGE"] == "node_joined rack-7: for the first time, with token 1 of root"
        known = {name: value for name, value in joined.items() if name.startswith("LANAI_") or name == "PRIORITY"}
        assert known == {
            "PRIORITY": "6",
            "LANAI_NODE": "rack-7",
            "LANAI_EVENT": "node_joined",
            "LANAI_LOGGER": "lanai.hub.told",
        }
        assert (joined["SYSLOG_IDENTIFIER"], joined["SYSLOG_PID"]) == ("lanai-hub", str(hub.pid))
        agent.stop()
        words = [sys.executable, "-m", "lanai.agent", "--state", str(tmp_path / "agents" / "rack-7")]
        again = _start([*words, "--join", str(tmp_path / "join"), "--name", "rack-7"], journal, monkeypatch)
        said = fields(journal.until(lambda entry: b"joined hub" in entry)[-1])
        assert (said["SYSLOG_IDENTIFIER"], said["LANAI_NODE"]) == ("lanai-agent", "rack-7")
        again.terminate()
        assert again.wait(20) == 0
    finally:
        hub.terminate()
        hub.wait(20)
        end_starters(tmp_path)
