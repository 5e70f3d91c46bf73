import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.wire.notify import STATUS_EVERY_US, Notifier
from services.datagrams import Datagrams


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Datagrams]:
    made = Datagrams(tmp_path / "notify")
    yield made
    made.close()


def _fill(filler: socket.socket, path: str) -> None:
    while True:
        filler.sendto(b"x", path)


def _environ(manager: Datagrams, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(manager.path), "HOME": "/root", **more}


def test_without_a_service_manager_nothing_is_said_or_wanted() -> None:
    notifier = Notifier.taken_from({})
    notifier.ready("works")
    notifier.stopping()
    assert (notifier.every_us, notifier.has_watchdog) == (0, False)


def test_no_child_inherits_what_would_let_it_speak_in_our_name(manager: Datagrams) -> None:
    environ = _environ(manager, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
    Notifier.taken_from(environ)
    assert environ == {"HOME": "/root"}


def test_ready_says_how_it_is_in_one_line(manager: Datagrams) -> None:
    Notifier.taken_from(_environ(manager)).ready("looking for\nthe hub")
    assert manager.next() == b"READY=1\nSTATUS=looking for the hub"


def test_the_watchdog_hears_at_half_its_time_and_the_status_only_when_it_changes(manager: Datagrams) -> None:
    notifier = Notifier.taken_from(_environ(manager, WATCHDOG_USEC="4000000"))
    assert notifier.every_us == 2_000_000
    notifier.ready("one node")
    assert notifier.beat(100, "one node") == 2_000_100
    assert notifier.beat(2_000_099, "two nodes") == 2_000_100
    assert notifier.beat(2_000_100, "two nodes") == 4_000_100
    notifier.stopping()
    said = manager.until(lambda message: message == b"STOPPING=1")
    assert said[1:-1] == [b"WATCHDOG=1", b"WATCHDOG=1\nSTATUS=two nodes"]


def test_a_watchdog_of_another_process_is_not_ours(manager: Datagrams) -> None:
    notifier = Notifier.taken_from(_environ(manager, WATCHDOG_USEC="4000000", WATCHDOG_PID="1"))
    assert not notifier.has_watchdog
    assert notifier.every_us == STATUS_EVERY_US
    notifier.beat(0, "as it was")
    notifier.beat(STATUS_EVERY_US, "as it was")
    notifier.stopping()
    assert [manager.next(), manager.next()] == [b"STATUS=as it was", b"STOPPING=1"]


def test_a_socket_without_a_path(tmp_path: Path) -> None:
    name = f"@lanai-test-{os.getpid()}-{tmp_path.name}"
    manager = Datagrams("\0" + name[1:])
    Notifier.taken_from({"NOTIFY_SOCKET": name}).ready("works")
    assert manager.next() == b"READY=1\nSTATUS=works"
    manager.close()


def test_a_service_manager_that_is_gone_or_reads_nothing_holds_nobody_up(
    manager: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lanai.wire.notify.PATIENCE_S", 0.05)
    notifier = Notifier.taken_from(_environ(manager))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        with pytest.raises(BlockingIOError):
            _fill(filler, str(manager.path))
    notifier.ready("works")
    manager.close()
    notifier.stopping()
