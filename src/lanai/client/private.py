"""Starts the private hub and its agent: one pair a user and host, however many clients want it at once.

Both are started detached, with their output in log files beside their state. A lock file makes starters wait for each
other, so the second finds what the first has started. They end by themselves: the hub when nobody needs it, and its
agent with it, or some time after it where it was killed.

Each writes its process id into a file of its own when it is up, and takes the file back when it ends on purpose. Where
the file stands and the process is gone, it was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lanai.client import daemon
from lanai.client.discover import hub_arguments
from lanai.model import places
from lanai.model.errors import Refusal

if TYPE_CHECKING:
    from lanai.client.client import Client

READY_WITHIN_S: Final = 60.0
"""Recovery of a very long queue on a slow disk takes its time."""

POLL_S: Final = 0.005

API_WITHIN_S: Final = 5.0

END_WITH_HUB_S: Final = 60.0
"""How long the agent waits for a hub that was killed to be started again, once nothing runs any more."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the two processes: what it runs, and where it writes its process id, below the hub's directory."""

    module: str
    file: str


HUB: Final = Part(module="lanai.hub", file="hub.pid")
AGENT: Final = Part(module="lanai.agent", file="agent/agent.json")
PARTS: Final = (HUB, AGENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What `start` has done.

    Attributes:
        parts: what was not there; another may have started them meanwhile, and then there are none.
        resumed: unfinished batches that the hub, if it was started, has taken up again.
    """

    parts: tuple[Part, ...] = ()
    resumed: int = 0


def is_answering(directory: Path) -> bool:
    """Whether somebody listens on the API socket of the hub in `directory`."""
    from lanai.wire import unix

    try:
        unix.connect(places.api_socket(directory), timeout_s=1.0).close()
    except OSError:
        return False
    return True


def is_up(directory: Path) -> bool:
    """Whether the hub in `directory` runs and answers: the API process of a killed one listens a moment longer.

    Where the hub runs, its API process is waited for a moment: it comes up after the hub, and anew if it was killed.
    """
    until_s = time.monotonic() + API_WITHIN_S
    while _lives(directory):
        if is_answering(directory):
            return True
        if time.monotonic() >= until_s:
            return False
        time.sleep(POLL_S)
    return False


def _lives(directory: Path) -> bool:
    try:
        pid = int((directory / "lock").read_text())
    except (OSError, ValueError):
        return False
    return daemon.is_module(pid, "lanai.hub")


def is_whole(directory: Path) -> bool:
    """Whether the hub in `directory` answers and its agent runs too: somebody may have killed either."""
    return is_up(directory) and _has_agent(directory)


def pid_of(directory: Path, part: Part) -> int | None:
    """The process id that a part has written down, whether or not it still runs; None where there is none."""
    try:
        pid = json.loads((directory / part.file).read_bytes())["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if isinstance(pid, int) else None


def _has_agent(directory: Path) -> bool:
    pid = pid_of(directory, AGENT)
    return pid is not None and daemon.is_module(pid, AGENT.module)


def start(directory: Path, *, host: str, say: Say, is_wanted: Callable[[], bool] = lambda: True) -> Started | None:
    """Have a private hub with its agent in `directory`, starting what is not there.

    Args:
        directory: made if it is missing; nobody else's.
        host: the agent's name.
        say: told what takes long, one line a time.
        is_wanted: asked once nobody else can start or replace it.

    Returns:
        None where it was not wanted any more, and nothing was started.

    Raises:
        LanaiError: what the hub says it cannot start by.
        OtherEnd: it did not come up within a minute; with the last line of its log.
    """
    places.make(directory)
    with _start_lock(directory):
        if not is_wanted():
            return None
        if is_up(directory):
            # One that runs already, but has not said so yet, keeps a second one from its directory.
            if _has_agent(directory):
                return Started()
            _start_agent(directory, host)
            return Started(parts=(AGENT,))
        words = ["lanai.hub", os.fspath(directory), "--private", *hub_arguments(os.environ)]
        hub = daemon.begin(words, log=directory / "hub.log")
        # Both start at once: the agent's words wait until the hub hears them.
        agent = None if _has_agent(directory) else _start_agent(directory, host)
        try:
            resumed = _resumed(directory, hub, say)
        except Exception:  # an interruption leaves both alone: they come up, and end by themselves
            if agent is not None:
                os.kill(agent, signal.SIGTERM)  # not waited for, so the number is still its own
            raise
        if agent is None and not _has_agent(directory):
            agent = _start_agent(directory, host)  # it had waited long enough for a hub, and ended just now
        return Started(parts=(HUB,) if agent is None else PARTS, resumed=resumed)


def unfinished(directory: Path) -> int:
    """How many batches of the hub in `directory` have not ended, whether or not it runs; 0 where there never was one.

    Raises:
        LanaiError: its store cannot be read.
    """
    if not (directory / "hub.db").exists():
        return 0
    if is_up(directory):
        with closing(_client(directory)) as client:
            return int(client.hub()["batches_open"])
    words = ["lanai.hub", os.fspath(directory), "--unfinished"]
    told = daemon.start(words, log=directory / "hub.log", within_s=READY_WITHIN_S)
    daemon.stay(told)
    return int(told.facts["unfinished"])


@contextmanager
def replaced(directory: Path) -> Iterator[None]:
    """End the private hub in `directory`, and keep it from being started within: another takes its place.

    Raises:
        Refusal: it has batches that have not ended, of which the other would know nothing. They are as they were.
    """
    places.make(directory)
    with _start_lock(directory):
        _refuse_unfinished(directory)
        if is_up(directory):
            _stop(directory)
            _refuse_unfinished(directory)  # one may have come meanwhile
        end_agent(directory)
        yield


def _refuse_unfinished(directory: Path) -> None:
    left = unfinished(directory)
    if left:
        batches = f"{left} unfinished {'batch' if left == 1 else 'batches'}"
        raise Refusal(
            f"the private hub has {batches}, of which a new hub would know nothing",
            code="private_unfinished",
            hint="lanai status, which goes on with them; a new hub takes its place once they have ended",
            facts={"directory": os.fspath(directory), "unfinished": left},
        )


def _stop(directory: Path) -> None:
    with closing(_client(directory)) as client:
        pid = client.hub()["pid"]
        client.stop()
    daemon.wait_gone(pid)


def end_rest(directory: Path) -> None:
    """Have the agent of a private hub that was stopped gone too, unless the hub has been started again meanwhile."""
    with _start_lock(directory):
        if not is_up(directory):
            end_agent(directory)


def end_agent(directory: Path) -> None:
    """End the agent of the private hub in `directory`, its starter, and what that runs; harmless where none is left."""
    pid = pid_of(directory, AGENT)
    if pid is not None and _has_agent(directory):
        daemon.terminate(pid)
    daemon.end_starters(directory / "agent")


def _client(directory: Path) -> Client:
    from lanai.client.client import Client
    from lanai.client.connection import Target

    return Client(Target(socket=places.api_socket(directory)))


def _start_agent(directory: Path, host: str) -> int:
    state = directory / "agent"
    state.mkdir(exist_ok=True, mode=0o700)
    wire = f"unix:{places.wire_socket(directory)}"
    words = ["lanai.agent", "--state", os.fspath(state), "--hub", wire, "--name", host]
    words += ["--end-with-hub", f"{END_WITH_HUB_S:g}"]
    return daemon.spawn(words, directory / "agent.log")


def _resumed(directory: Path, hub: daemon.Begun, say: Say) -> int:
    """Wait until the hub and its API are up; returns how many batches it has taken up again."""
    begun_s = time.monotonic()
    started = daemon.ready(hub, within_s=READY_WITHIN_S, on_slow=lambda: say("starting a private hub ..."))
    while not is_answering(directory):
        if time.monotonic() - begun_s > READY_WITHIN_S:
            raise daemon.not_ready(hub)
        time.sleep(POLL_S)
    return int(started.facts.get("resumed", 0))


@contextmanager
def _start_lock(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
