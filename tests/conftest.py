"""What holds for every test: a home of its own, nothing left running, and no test left out silently."""

import functools
import os
import select
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from lanai.agent.cgroups import RECORD, left_in, remove_left

MARK = "LANAI_TEST_MARK"
GRACE_S = 2.0
EXEC_LOOKS = 100


@pytest.fixture(scope="session", autouse=True)
def _own_directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps tests away from state and configuration of the person who runs them, from his Python's settings, and from
    a hub that is a service of this machine.

    An environment that has Python write at once hides output that nobody has flushed.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
            patch.delenv(name, raising=False)
        patch.delenv("LANAI_HOME", raising=False)
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "LANAI_RUNTIME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield
    # Those of agents that served a whole module.
    for state in _agents([tmp_path_factory.getbasetemp()]):
        remove_left(state)


@pytest.fixture(autouse=True)
def _nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test of which a process is still alive when all its fixtures are torn down, and ends that process.

    A process is known by a mark in its environment, so that daemons with another parent are found too, and by being in
    a control group of an agent that the test has started. Fixtures of wider scope start before the mark is set and are
    left alone. What agents that were killed have left to their next one, idle starters and groups, is removed here.
    """
    directories = [Path(os.environ["XDG_STATE_HOME"])]
    if "tmp_path" in request.fixturenames:
        directories.append(request.getfixturevalue("tmp_path"))
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        yield
    left = [pid for pid in _marked(mark) if not _ends_within(pid, GRACE_S)]
    shown = [_kill(pid) for pid in left]
    for state in _agents(directories):
        inside = [pid for pid in left_in(state) if not _is_starter(pid)]
        shown += [_kill(pid) for pid in inside if not _ends_within(pid, GRACE_S)]
        remove_left(state)
    if shown:
        pytest.fail(f"{request.node.name} left running: " + "; ".join(shown), pytrace=False)


def _agents(directories: Iterable[Path]) -> Iterator[Path]:
    """The state directories, somewhere below, of agents that have left groups."""
    for top in directories:
        for directory, below, files in os.walk(top):
            if RECORD in files:
                below.clear()
                yield Path(directory)


def _is_starter(pid: int) -> bool:
    try:
        return b"starter.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    numbered = (entry for entry in os.scandir("/proc") if entry.name.isdigit())
    return [int(entry.name) for entry in numbered if wanted in _environment(entry.path).split(b"\0")]


def _environment(process: str) -> bytes:
    """Of a process by its path in /proc; empty where it is gone meanwhile, or somebody else's."""
    try:
        # One that is just being exec'ed shows none for a moment; the kernel's own never have any, and no program.
        for _ in range(EXEC_LOOKS):
            environment = Path(process, "environ").read_bytes()
            if environment or not os.readlink(f"{process}/exe"):
                return environment
            os.sched_yield()
    except OSError:
        pass
    return b""


def _ends_within(pid: int, grace_s: float) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(grace_s * 1000))
    finally:
        os.close(descriptor)


def _kill(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return f"{pid} (ended meanwhile)"
    return f"{pid} {command}"


@functools.cache
def _has_network_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


NOT_RUN: list[str] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("netns") is None or _has_network_namespaces():
        return
    if os.environ.get("CI"):
        pytest.fail("needs root and iproute2 to make network namespaces", pytrace=False)
    NOT_RUN.append(item.nodeid)
    pytest.skip("needs root and iproute2 to make network namespaces")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if NOT_RUN:
        what = f"NOT RUN: {len(NOT_RUN)} tests need root and iproute2 (network namespaces)"
        terminalreporter.write_line(what, red=True)
