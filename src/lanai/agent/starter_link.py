"""The agent's end of a starter: start one, connect to one, say things to it, understand what it says.

`StarterLink` is sans-IO: its verbs return bytes to be sent, `feed` turns received bytes into reports. `Connection` is
the small blocking client around it that tests and benchmarks use; the agent puts the link into its own event loop.
The messages are described in docs/starter-protocol.md. Nothing here decides what runs.
"""

import base64
import json
import os
import secrets
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lanai.agent import starter_processes as processes
from lanai.agent.starter_account import LOG_NAME

PROTOCOL = 1
FEATURES = ("unbegun",)
SOCKET_NAME = "starter.sock"
MARK_NAME = "starter.mark"
PID_NAME = "starter.pid"
INPUT_WINDOW_BYTES = 1 << 20
_FRAME_LIMIT_BYTES = 16 << 20
_REPORT_LIMIT_BYTES = 4 << 20
_LENGTH = struct.Struct(">I")
Key = tuple[int, int]


class LinkError(Exception):
    """The other end is not a starter that we can talk to."""


class Hello(NamedTuple):
    """The starter's answer to our hello; ``mark`` begins the environment marks of all its attempts.

    ``features`` are those of its messages that not every starter of this protocol understands.
    """

    protocol: int
    pid: int
    mark: str
    features: frozenset[str] = frozenset()


class Refused(NamedTuple):
    """The starter speaks another protocol, or cannot be this user's; it closes the connection after this."""

    protocol: int
    reason: str


class Running(NamedTuple):
    """An attempt that runs; its output so far is in the files of its slot, None if it has files of its user's."""

    grant: int
    index: int  # type: ignore[assignment]  # it hides the method of tuples, which nobody needs here
    attempt: int
    pid: int
    started_wall_us: int
    slot: int | None


class Inventory(NamedTuple):
    """All that a starter holds; ``ended`` ends follow it, and ``waiting`` is (grant, index, attempt).

    ``leaves`` are the numbers of the control groups that it holds.
    """

    running: list[Running]
    waiting: list[tuple[int, int, int]]
    ended: int
    leaves: tuple[int, ...] = ()


class Started(NamedTuple):
    """Attempts that have been running for 100 ms."""

    items: list[Running]


class Ended(NamedTuple):
    """The end of an attempt. The fields are those of the protocol page, in its order."""

    sequence: int
    grant: int
    index: int  # type: ignore[assignment]  # it hides the method of tuples, which nobody needs here
    attempt: int
    outcome: str
    exit_code: int | None
    signal: int | None
    started_wall_us: int | None
    wall_us: int
    user_us: int
    system_us: int
    memory_peak_bytes: int | None
    reason: str | None
    output: list[list[Any] | None] | None
    checks: list[list[str | None]] | None
    escaped: int


class EndedMany(NamedTuple):
    """Ends, in the order of their sequence numbers.

    ``left`` is None but in the last words of a starter that was asked to end: what has begun and not ended then. All
    else that was given to it, and whose end it has not told, it has not taken.
    """

    items: list[Ended]
    left: list[Key] | None = None


class Recalled(NamedTuple):
    """The answer to a recall: what will not begin, and what has begun (or ended) already."""

    returned: list[Key]
    begun: list[Key]


class Unbegun(NamedTuple):
    """Attempts that cannot begin now, and are not at the starter any more; why."""

    items: list[Key]
    why: str


class InputTaken(NamedTuple):
    """So much of an attempt's input has been passed on since it began; nothing more is taken once it is closed.

    ``missing_from`` is None but where a piece was not kept, since it began after what had come: there it has to begin.
    """

    grant: int
    index: int  # type: ignore[assignment]  # it hides the method of tuples, which nobody needs here
    taken_bytes: int
    is_closed: bool
    missing_from: int | None = None


class Piece(NamedTuple):
    """What was read of one output: the bytes in base64, how long the whole is, and why there are no bytes.

    ``is_gone``: asked was about an attempt that neither runs nor waits there; its end has been told before.
    ``left_out``: so many bytes from the offset on are not kept; the data follows them.
    """

    data: str
    length: int
    is_gone: bool
    problem: str | None
    left_out: int = 0


class Data(NamedTuple):
    """The answer to a read, or a part of it: the pieces of its next items, in their order."""

    read: int
    items: list[Piece]


class Leaves(NamedTuple):
    """So many more control groups are wanted, and these (by number) are given back, empty and held by nobody."""

    wanted: int
    returned: list[int]


Report = Data | Hello | Refused | Inventory | Started | EndedMany | Recalled | Unbegun | InputTaken | Leaves


class StarterLink:
    """Encodes what is said to a starter and decodes what it says. One per connection."""

    def __init__(self) -> None:
        self._received = bytearray()

    def hello(self) -> bytes:
        """The first words on every connection."""
        return _frame({"m": "hello", "protocol": PROTOCOL, "agent_pid": os.getpid(), "features": FEATURES})

    def inventory(self) -> bytes:
        """Asks for all that the starter holds; from its answer on, reports come by themselves."""
        return _frame({"m": "inventory"})

    def spec(
        self,
        spec: int,
        *,
        batch: int,
        cwd: str,
        env: Mapping[str, str],
        umask: int = 0o022,
        cpu_milli: int | None = None,
        memory_bytes: int | None = None,
        time_limit_us: int | None = None,
        grace_us: int = 5_000_000,
        stdout: str | None = None,
        stderr: str | None = None,
        stdin: str = "null",
        leaf: Mapping[str, str | None] | None = None,
        output_bytes: int | None = None,
    ) -> bytes:
        """Tells settings that many attempts share; a spec of the same id is replaced for attempts to come.

        ``stdin`` is ``null``, ``pipe`` or a path; ``stdout`` and ``stderr`` are patterns with %b %i %a, or None for
        the slot's files. ``memory_bytes`` and ``time_limit_us`` are limits, None for none; ``output_bytes`` is how
        much is kept of either output that goes to the slot's files. With ``leaf`` each attempt waits for a control
        group; its ``cpu`` is ``weight``, ``quota`` or None.
        """
        in_leaf = {} if leaf is None else {"leaf": dict(leaf)}
        return _frame(
            in_leaf
            | {
                "m": "spec",
                "id": spec,
                "batch": batch,
                "cwd": cwd,
                "env": dict(env),
                "umask": umask,
                "cpu_milli": cpu_milli,
                "memory_bytes": memory_bytes,
                "time_limit_us": time_limit_us,
                "grace_us": grace_us,
                "stdout": stdout,
                "stderr": stderr,
                "stdin": stdin,
                "output_bytes": output_bytes,
            }
        )

    def drop_spec(self, spec: int) -> bytes:
        """Lets the starter forget a spec; attempts already given keep it."""
        return _frame({"m": "drop_spec", "id": spec})

    def lane(self, lane: int, width: int, *, gpus: Sequence[str] = (), gpus_each: int = 0) -> bytes:
        """Makes or changes a lane: how many of its queue may run at once, and which gpus they share out."""
        return _frame({"m": "lane", "id": lane, "width": width, "gpus": list(gpus), "gpus_each": gpus_each})

    def run(self, lane: int, spec: int, grant: int, items: Sequence[Sequence[Any]]) -> bytes:
        """Queues attempts: rows of (index, attempt, command[, extra]).

        A command is a list of words, or a string for /bin/sh; extra may hold ``env`` (added to the spec's),
        ``checks`` (rows of when, kind, path) and ``hosts`` (``names`` of nodes, ``tasks`` on each). Attempts that the
        starter knows already are left as they are.
        """
        return _frame({"m": "run", "lane": lane, "spec": spec, "grant": grant, "items": items})

    def recall(self, keys: Iterable[Key]) -> bytes:
        """Asks for attempts back that have not begun; answered by `Recalled`."""
        return _frame({"m": "recall", "items": list(keys)})

    def kill(
        self, grant: int, index: int, *, why: str = "cancelled", reason: str | None = None, grace_us: int | None = None
    ) -> bytes:
        """Ends an attempt with outcome ``why`` (cancelled, node, time, memory, lost); grace None is its spec's."""
        return _frame({"m": "kill", "grant": grant, "index": index, "why": why, "reason": reason, "grace_us": grace_us})

    def lease(self, until_us: int | None) -> bytes:
        """Says until when (CLOCK_BOOTTIME) attempts may run; None for ever. Past it the starter ends them all."""
        return _frame({"m": "lease", "until_us": until_us})

    def forget(self, upto: int) -> bytes:
        """Lets the starter forget the ends up to that sequence number."""
        return _frame({"m": "forget", "upto": upto})

    def input(self, grant: int, index: int, data: bytes, *, offset: int | None = None, is_end: bool = False) -> bytes:
        """Sends standard input; at most `INPUT_WINDOW_BYTES` should be on their way, see `InputTaken`.

        With the ``offset`` of ``data`` in the whole of the attempt's input a piece can be sent again: it is taken once,
        and each is answered. Without, it follows what was sent before.
        """
        message = {"m": "input", "grant": grant, "index": index, "data": base64.b64encode(data).decode("ascii")}
        return _frame({**message, "eof": is_end} | ({} if offset is None else {"offset": offset}))

    def read(self, read: int, items: Sequence[Sequence[Any]]) -> bytes:
        """Asks for pieces of outputs; answered by `Data`. At most 64 KiB each, together no more than 1 MiB on the way.

        Items are rows of (what, offset, limit): what is (grant, index, 1 or 2) of an attempt that runs, or a record of
        an end; offset None is for the last ``limit`` bytes.
        """
        return _frame({"m": "read", "id": read, "items": items})

    def sweep(self, keep_us: int, cap_bytes: int) -> bytes:
        """Has it remove outputs that are older, and then the oldest until the rest takes no more than that."""
        return _frame({"m": "sweep", "keep_us": keep_us, "cap_bytes": cap_bytes})

    def main(self, count: int) -> bytes:
        """Says how to leave a leaf: as many descriptors go along, one for each hierarchy."""
        return _frame({"m": "main", "files": ["enter"] * count})

    def leaf(self, number: int, files: Sequence[str]) -> bytes:
        """Gives a control group to run attempts in: a descriptor for each of its files goes along."""
        return _frame({"m": "leaf", "number": number, "files": list(files)})

    def no_leaf(self, reason: str) -> bytes:
        """Says that there are no more of them: what waits for one begins without."""
        return _frame({"m": "no_leaf", "reason": reason})

    def quit_when_idle(self) -> bytes:
        """Lets the starter end as soon as nothing runs, waits or is unforgotten."""
        return _frame({"m": "quit_when_idle"})

    def feed(self, data: bytes) -> Iterator[Report]:
        """Yields the reports that are complete with this data.

        Raises:
            LinkError: it does not speak our protocol. What a user's starter says is not to be trusted.
        """
        self._received += data
        while (payload := self._next()) is not None:
            try:
                yield _report(json.loads(payload))
            except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
                raise LinkError(f"malformed report: {error!r}") from None

    def _next(self) -> bytes | None:
        received = self._received
        if len(received) < 4:
            return None
        size: int = _LENGTH.unpack_from(received)[0]
        if size > _REPORT_LIMIT_BYTES:
            raise LinkError(f"frame of {size} bytes")
        if len(received) < 4 + size:
            return None
        payload = bytes(received[4 : 4 + size])
        del received[: 4 + size]
        return payload


def _frame(message: dict[str, Any]) -> bytes:
    payload = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(payload) > _FRAME_LIMIT_BYTES:
        raise ValueError(f"message of {len(payload)} bytes")
    return _LENGTH.pack(len(payload)) + payload


def _report(message: dict[str, Any]) -> Report:
    match message["m"]:
        case "ended":
            left = message.get("left")
            ended = [Ended(*row) for row in message["items"]]
            return EndedMany(ended, None if left is None else [_key(row) for row in left])
        case "started":
            return Started([Running(*row) for row in message["items"]])
        case "data":
            return Data(message["id"], [Piece(*row) for row in message["items"]])
        case "recalled":
            return Recalled([_key(row) for row in message["returned"]], [_key(row) for row in message["begun"]])
        case "unbegun":
            return Unbegun([_key(row) for row in message["items"]], str(message["why"]))
        case "input":
            taken = message["taken_bytes"], message["closed"], message.get("missing_from")
            return InputTaken(message["grant"], message["index"], *taken)
        case "inventory":
            running = [Running(*row) for row in message["running"]]
            waiting = [(row[0], row[1], row[2]) for row in message["waiting"]]
            return Inventory(running, waiting, message["ended"], tuple(map(int, message.get("leaves") or ())))
        case "hello":
            features = frozenset(map(str, message.get("features", ())))
            return Hello(message["protocol"], message["pid"], message["mark"], features)
        case "leaves":
            return Leaves(int(message["wanted"]), list(map(int, message["returned"])))
        case "refused":
            return Refused(message["protocol"], message["reason"])
        case name:
            raise ValueError(f"unknown report {name!r}")


def _key(row: list[int]) -> Key:
    return row[0], row[1]


# Starting and connecting


class Place(NamedTuple):
    """Where a starter is found.

    Attributes:
        directory: its own: outputs, and its log. Mode 0700; with an account it is that user's.
        door: its socket, its mark and its process id. The agent's own, so that with an account no job can get there.
    """

    directory: Path
    door: Path


class Account(NamedTuple):
    """Whom a starter that root starts is to become. The starter itself looks the name up, since that may take long.

    ``min_uid`` is the lowest user id that is served, root's apart, for which there is ``allow_root``.
    """

    user: str
    min_uid: int = 0
    allow_root: bool = True


def own_place(directory: Path) -> Place:
    """The place of a starter that runs everything as whoever started it: all in one directory."""
    return Place(directory, directory)


@contextmanager
def _short_name(directory: Path) -> Iterator[str]:
    # A socket's address has 107 bytes; a directory held open has a short name whatever its path.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def start_starter(
    place: Place, *, account: Account | None = None, idle_s: float = 60.0, python: str = sys.executable
) -> int:
    """Starts a starter in a place that has no living one; its directories are made with mode 0700.

    The socket is bound here, so that it can be connected to at once. The starter is in a session of its own and is not
    waited for: whoever calls this reaps it, or ends before it. With an account (for root only) it becomes that user
    before it listens to anybody, and makes its directory itself, whose parent has to be there.

    Returns:
        The starter's process id.
    """
    place.door.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is None:
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = secrets.token_hex(8)
    (place.door / MARK_NAME).write_text(mark)
    (place.door / SOCKET_NAME).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _short_name(place.door) as name:
            listener.bind(name)
        listener.listen(16)
        pid = _spawn_starter(listener, place, mark, idle_s, account, python)
    process = processes.read_process(pid)
    if process is not None:
        (place.door / PID_NAME).write_text(f"{pid} {process.started_ticks}")
    return pid


def _spawn_starter(
    listener: socket.socket, place: Place, mark: str, idle_s: float, account: Account | None, python: str
) -> int:
    listen_fd = 3 if listener.fileno() != 3 else 4
    program = str(Path(__file__).with_name("starter.py"))
    words = [python, "-I", "-S", "-X", "utf8", program, str(listen_fd), str(place.directory), mark, str(idle_s)]
    if account is not None:
        words += [account.user, str(account.min_uid), str(int(account.allow_root))]
    # A user's starter opens its log itself, as that user: in his directory root would follow his links.
    log = os.devnull if account is not None else str(place.directory / LOG_NAME)
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    dup2 = os.POSIX_SPAWN_DUP2
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (dup2, log_fd, 1), (dup2, log_fd, 2)]
    actions.append((dup2, listener.fileno(), listen_fd))
    try:
        return os.posix_spawn(
            python,
            words,
            {"PATH": os.defpath},
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGTERM),
        )
    finally:
        os.close(log_fd)


def connect(place: Place, timeout_s: float | None = None) -> socket.socket:
    """Connects to the starter of a place; the socket is blocking, and nothing has been said on it yet.

    Raises:
        OSError: there is none (no socket, or nobody listens on it), or it takes nobody in within the time.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        with _short_name(place.door) as name:
            connection.connect(name)
    except OSError:
        connection.close()
        raise
    connection.settimeout(None)
    return connection


def starter_pid(place: Place) -> int | None:
    """Returns the process of the starter that was started last in a place; None if it has ended."""
    try:
        pid, ticks = map(int, (place.door / PID_NAME).read_text().split())
    except (OSError, ValueError):
        return None
    process = processes.read_process(pid)
    return pid if process is not None and process.started_ticks == ticks else None


def kill_starter(place: Place) -> None:
    """Kills the starter of a place, if it still lives, and what it runs; `kill_leftovers` finds more, by its marks.

    While it lives it is the parent of all orphans, also of those whose environment has no mark.
    """
    pid = starter_pid(place)
    starter = None if pid is None else processes.read_process(pid)
    if starter is not None:
        processes.signal_all([starter, *processes.descendants(starter.pid)], signal.SIGKILL)


def kill_leftovers(place: Place) -> int:
    """Kills what a dead starter of this place left running; returns how many processes that were."""
    try:
        mark = (place.door / MARK_NAME).read_text()
    except FileNotFoundError:
        return 0
    killed: set[int] = set()
    looks_in_vain = 0
    # Between a look and a kill a process may fork, and while it becomes another program it has no environment: it is
    # looked again until twice nothing is left, within reason.
    for _ in range(20):
        left = processes.marked_by(mark)
        looks_in_vain = 0 if left else looks_in_vain + 1
        if looks_in_vain == 2:
            break
        killed.update(one.pid for one in left)
        processes.signal_all(left, signal.SIGKILL)
        time.sleep(0.01)
    return len(killed)


class Connection:
    """A blocking client: for tests, benchmarks and people who look into a starter."""

    def __init__(self, place: Place) -> None:
        self.link = StarterLink()
        self.socket = connect(place)
        self._reports: list[Report] = []
        self.send(self.link.hello())
        answer = self.receive(timeout_s=10.0)
        if not isinstance(answer, Hello):
            raise LinkError(f"no hello but {answer}")
        self.starter = answer

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Sends it all, the descriptors with its first byte."""
        sent = socket.send_fds(self.socket, [data], descriptors) if descriptors else 0
        self.socket.sendall(data[sent:])

    def receive(self, timeout_s: float) -> Report | None:
        """Returns the next report; None if the time is up.

        Raises:
            LinkError: the starter has closed the connection, or does not speak our protocol.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self._reports:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self.socket], [], [], left_s)[0]:
                return None
            data = self.socket.recv(256 << 10)
            if not data:
                raise LinkError("closed")
            self._reports.extend(self.link.feed(data))
        return self._reports.pop(0)

    def close(self) -> None:
        """Hangs up; the starter and its attempts go on."""
        self.socket.close()
