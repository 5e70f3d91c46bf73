"""`python -m lanai.agent`: reads what was asked for, takes the state directory, and runs the loop.

One agent per state directory: a second one is refused by a lock on it. On SIGTERM the agent ends at once and leaves
what runs to the starter; the next agent in this directory takes it over.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import fcntl
import gc
import json
import os
import pwd
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, get_args

import msgspec

import lanai
from lanai.agent import detect, output_index
from lanai.agent.cgroups import Cgroups, Wishes
from lanai.agent.hublink import HubLink
from lanai.agent.joining import Joining
from lanai.agent.loop import Agent, LeaseFile, now_us, wall_us
from lanai.agent.machine import Machine
from lanai.agent.ports import Served, Starters, check_state
from lanai.agent.room import Room
from lanai.agent.spool import Spool
from lanai.model.errors import ErrorBody, LanaiError, Refusal, UserError
from lanai.model.features import parse_feature
from lanai.model.resources import Capacity
from lanai.model.settings import CgroupUse, CpuLimit
from lanai.model.units import parse_bytes, parse_gpu_ids, parse_milli
from lanai.wire import journal
from lanai.wire import messages as wire
from lanai.wire.notify import Notifier

_GC_EVERY: Final = 50_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an agent until it is told to leave. Returns the exit code."""
    options = _options(arguments)
    tell = _ready_teller(options.ready_fd)
    try:
        _run(options, tell, Notifier.taken_from(os.environ))
    except LanaiError as error:
        tell(error.body())
        print(f"lanai agent: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lanai.agent", description="Runs jobs of a hub on this computer.")
    parser.add_argument("--state", type=Path, required=True, help="directory of this agent, made if missing")
    parser.add_argument("--hub", default="", help="unix:PATH or lanai://HOST:PORT; default: what the join file says")
    parser.add_argument("--join", type=Path, help="file that the hub wrote: URL, pin and join token")
    parser.add_argument("--name", default=socket.gethostname(), help="of the node; default: the computer's")
    parser.add_argument("--cpus", type=parse_milli, help="default: what this process may use")
    parser.add_argument("--memory", type=parse_bytes, help="default: the computer's, or the cgroup's limit")
    parser.add_argument("--gpus", type=parse_gpu_ids, help="how many, or their ids; default: what nvidia-smi lists")
    parser.add_argument("--resource", action="append", default=[], metavar="NAME=N", help="a named resource")
    parser.add_argument("--feature", action="append", default=[], type=parse_feature, help="a name; may be repeated")
    parser.add_argument("--as-users", action="store_true", help="run each job as its user; for root only")
    parser.add_argument("--min-uid", type=int, default=0, help="lowest uid that --as-users serves, but for root's")
    parser.add_argument("--allow-root", action=argparse.BooleanOptionalAction, default=True, help="serve root's jobs")
    parser.add_argument("--cgroups", choices=get_args(CgroupUse), default="auto", help="none: use none")
    parser.add_argument("--cgroup-base", metavar="GROUP", help="make groups in this one, not in the agent's own")
    parser.add_argument("--cpu-limit", choices=get_args(CpuLimit), default="none", help="what asking for cpus means")
    parser.add_argument("--user-processes", type=int, default=0, metavar="N", help="at most a user's; 0: any number")
    parser.add_argument("--output-limit", type=parse_bytes, default=1 << 30, help="kept of each output; 0: all")
    parser.add_argument("--ready-fd", type=int, default=-1, help="gets one line of JSON once the hub has answered")
    parser.add_argument("--end-with-hub", type=float, default=0.0, metavar="S", help="end S after the hub, when idle")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, tell: Callable[[ErrorBody | None], None], notifier: Notifier) -> None:
    state = options.state.absolute()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(state)
    served = _served(options)
    check_state(state, served)
    joining = Joining(options.join, options.hub)
    hub = HubLink(joining.address, random.random)
    boot_id, key, capacity = detect.boot_id(), _key(state), _capacity(options)
    lease_file = LeaseFile(state / "lease", boot_id)
    spool = Spool(state / "spool")
    machine = _machine(options, capacity, spool, lease_file)
    cgroups = Cgroups(state, _wishes(options, capacity))

    def hello() -> wire.Hello:
        return _hello(options, joining.token, key, boot_id, capacity, cgroups, served)

    def settled(error: ErrorBody | None) -> None:
        if error is None:
            with contextlib.suppress(OSError):  # a full disk costs that it is known as one that has joined before
                (state / "joined").write_text(hub.url + "\n")
        tell(error)

    agent = Agent(
        machine=machine,
        spool=spool,
        room=Room(state),
        hub=hub,
        starters=Starters(
            state,
            served,
            {handed.owner for handed in spool.remembered.handed},
            cgroups=cgroups,
            output_bytes=options.output_limit,
            node=options.name,
            log=_log,
        ),
        lease_file=lease_file,
        hello=hello,
        settled=settled,
        log=_logger(options.name),
        notifier=notifier,
        wake_fd=_wake_on_signals(),
        apart=state / "apart.ndjson",
        index=output_index.moved(state / "starter" / "index", state / "index"),
    )
    facts = state / "agent.json"
    _write(facts, {"pid": os.getpid(), "name": options.name, "hub": hub.url, "version": lanai.__version__})
    if notifier.has_watchdog:
        faulthandler.enable()  # its SIGABRT shows where we hang
    gc.freeze()
    gc.set_threshold(_GC_EVERY)
    agent.run()
    facts.unlink(missing_ok=True)  # where it stays, the agent was killed
    os.close(lock)


def _machine(options: argparse.Namespace, capacity: Capacity, spool: Spool, lease_file: LeaseFile) -> Machine:
    """It goes on from what an earlier agent has left."""
    machine = Machine(
        capacity,
        spool.remembered,
        first_lane=now_us(),
        lease_us=lease_file.length_us,
        end_with_hub_us=round(options.end_with_hub * 1_000_000),
        serves_users=options.as_users,
    )
    machine.lease.take_over(lease_file.until_us)
    return machine


def _hello(
    options: argparse.Namespace,
    token: str,
    key: str,
    boot_id: str,
    capacity: Capacity,
    cgroups: Cgroups,
    served: Served | None,
) -> wire.Hello:
    return wire.Hello(
        kind="agent",
        protocol_min=wire.PROTOCOL_MIN,
        protocol_max=wire.PROTOCOL_MAX,
        version=lanai.__version__,
        token=token,
        name=options.name,
        key=key,
        boot_id=boot_id,
        pid=os.getpid(),
        wall_us=wall_us(),
        capacity=capacity,
        features=tuple(sorted({*options.feature, *detect.features()})),
        started_by=_user(),
        facts=(("runs_as", _runs_as(served)), *cgroups.facts()),
    )


def _lock(state: Path) -> int:
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Refusal(f"an agent runs already in {state}", code="agent_runs") from None
    return descriptor


def _served(options: argparse.Namespace) -> Served | None:
    """Whom it serves, as themselves; None for everybody, as whoever started it."""
    if not options.as_users:
        return None
    if os.geteuid() != 0:
        raise Refusal(
            "only root can run jobs as their users",
            code="not_root",
            hint="start it as root, or without --as-users: then everything runs as you",
        )
    return Served(options.min_uid, options.allow_root)


def _wishes(options: argparse.Namespace, capacity: Capacity) -> Wishes:
    return Wishes(
        are_used=options.cgroups != "none",
        cpu=options.cpu_limit,
        user_processes=options.user_processes,
        cpu_milli=capacity.cpu_milli,
        base=options.cgroup_base,
        for_users=options.as_users,
    )


def _runs_as(served: Served | None) -> str:
    if served is None:
        return f"{_user()}, whoever has submitted them"
    root = "" if served.allow_root else ", not root"
    return f"the users who have submitted them, from uid {served.min_uid} on{root}"


def _capacity(options: argparse.Namespace) -> Capacity:
    named: list[tuple[str, int]] = []
    for text in options.resource:
        name, _, count = text.partition("=")
        if not name or not count.isdigit():
            raise UserError(f"found the resource {text!r}, accepted is NAME=N", code="bad_resource")
        named.append((name, int(count)))
    return detect.capacity(
        cpu_milli=options.cpus,
        memory_bytes=options.memory,
        gpu_ids=options.gpus,
        named=named,
    )


def _key(state: Path) -> str:
    """The secret by which the hub knows this agent again; made at the first start."""
    path = state / "key"
    try:
        key = path.read_text("ascii").strip()
    except FileNotFoundError:
        key = ""
    if not key:
        key = secrets.token_hex(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(key)
    return key


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _write(path: Path, value: dict[str, object]) -> None:
    """Write it at once; on a full disk over what an agent that was killed has left, or not at all."""
    text = json.dumps(value) + "\n"
    made = path.with_suffix(".new")
    try:
        made.write_text(text)
        made.replace(path)
    except OSError:
        made.unlink(missing_ok=True)
        with contextlib.suppress(OSError), path.open("r+") as file:
            file.write(text)
            file.truncate()


def _ready_teller(descriptor: int) -> Callable[[ErrorBody | None], None]:
    """A function that writes one line to the descriptor, at its first call only: pid, or the error."""
    left = [descriptor] if descriptor >= 0 else []

    def tell(error: ErrorBody | None) -> None:
        if not left:
            return
        value = {"pid": os.getpid()} if error is None else {"error": msgspec.to_builtins(error)}
        try:
            with open(left.pop(), "w", encoding="utf-8") as file:
                file.write(json.dumps(value) + "\n")
        except BrokenPipeError:
            pass  # whoever started us did not wait

    return tell


def _wake_on_signals() -> int:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _note)
    return read_fd


def _note(number: int, frame: object) -> None:
    """Does nothing: the number has been written to the wake-up pipe."""


def _logger(node: str) -> Callable[[str], None]:
    """Where the log goes: to the journal where standard error is the journal's, else to standard error."""
    if not journal.is_stderr(os.environ):
        return lambda text: _log(_on_one_line(text))
    entries = journal.Journal("lanai-agent", {"LANAI_NODE": node})

    def log(text: str) -> None:
        if not entries.send(_on_one_line(text)):
            _log(_on_one_line(text))

    return log


def _on_one_line(text: str) -> str:
    """What is logged may hold the words of a user's starter: they are not to look like words of ours."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def _log(text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime())
    print(f"{stamp} agent {os.getpid()}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
