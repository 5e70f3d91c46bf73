"""`python -m lanai.hub DIR`: runs a hub in the foreground until it is stopped.

What can begin before the imports that a hub needs does: the lock is taken, the Unix socket of agents and of the API
process listens, and a private hub's API process starts on its own imports. Whoever connects waits for the answer.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanai.hub.apiprocess import Access, ApiProcess
from lanai.model import places
from lanai.model.errors import InternalError, LanaiError
from lanai.model.node import LEASE_S
from lanai.store.ground import StateLock
from lanai.wire import unix
from lanai.wire.notify import Notifier

if TYPE_CHECKING:
    import socket

    from lanai.core.world import Kept
    from lanai.hub.server import Options


def main() -> int:
    """Run; returns the exit code."""
    arguments = _parser().parse_args()
    # Importing makes nothing that could be collected, and the hub sets up collection for itself.
    gc.disable()
    # Where whoever started us ignores it, the kernel would reap our children, and waiting for one be an error.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if arguments.ready_fd is not None:
        os.set_inheritable(arguments.ready_fd, False)
    try:
        return _run(arguments)
    except LanaiError as error:
        print(f"lanai.hub: {error.message}", file=sys.stderr)
        _say(arguments, {"error": error.body()})
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        _say(arguments, {"error": InternalError(f"{type(error).__name__}: {error}").body()})
        return InternalError.exit_code


def _run(arguments: argparse.Namespace) -> int:
    directory: Path = arguments.directory.absolute()
    notifier = Notifier.taken_from(os.environ)
    if arguments.unfinished:
        _say(arguments, {"unfinished": _unfinished(directory)})
        return 0
    if arguments.certificate:
        _say(arguments, _certificate(arguments, directory))
        return 0
    if arguments.restored:
        _say(arguments, {"epoch": _begin_epoch(directory)})
        return 0
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with StateLock.take(directory):
        # Where a hub was killed its API process may still answer there for a moment, and hang up on whoever has asked.
        places.api_socket(directory).unlink(missing_ok=True)
        if arguments.api_socket and not arguments.private:
            from lanai.hub import socketplace

            socketplace.check(arguments.api_socket.absolute())
        door = unix.listen(places.wire_socket(directory))
        api = ApiProcess(directory, _access(arguments))
        try:
            if arguments.private:
                api.start()
            return _serve(arguments, door, api, notifier)
        finally:
            api.stop()
            door.close()


def _access(arguments: argparse.Namespace) -> Access:
    if arguments.private:
        return Access()
    from lanai.model.access import user_name

    return Access(
        is_open=arguments.local == "everyone",
        socket=arguments.api_socket.absolute() if arguments.api_socket else None,
        operators=tuple(map(user_name, arguments.operator)),
        admins=tuple(map(user_name, arguments.admin)),
    )


def _unfinished(directory: Path) -> int:
    from lanai.store.reader import PAGE_ROWS, SqliteReader

    reader = SqliteReader(directory)
    try:
        return len(reader.batches(limit=PAGE_ROWS, states=("open", "held", "paused")))
    finally:
        reader.close()


def _certificate(arguments: argparse.Namespace, directory: Path) -> dict[str, str]:
    import socket

    from lanai.hub import identity

    options = _options(arguments)
    if arguments.certificate == "switch":
        return {"pin": identity.switch_certificate(directory), "next_pin": ""}
    files = (options.join_file, options.token_file)
    announced = identity.announce_certificate(directory, socket.gethostname(), files)
    return {"pin": identity.ensure_certificate(directory, socket.gethostname()), "next_pin": announced}


def _begin_epoch(directory: Path) -> int:
    """Have what was granted by the state that this one was restored over be known as another's; returns the epoch."""
    from lanai.model.errors import NothingThere
    from lanai.model.records import SaveMeta
    from lanai.store.sqlite import SqliteWriter

    if not (directory / "hub.db").exists():
        raise NothingThere(f"there is no hub in {directory}", hint="restore its directory first")
    with StateLock.take(directory):
        store = SqliteWriter(directory)
        try:
            epoch = int(dict(store.recover().meta).get("epoch", "1")) + 1
            store.commit([SaveMeta("epoch", str(epoch))])
        finally:
            store.close()
    return epoch


def _serve(arguments: argparse.Namespace, door: socket.socket, api: ApiProcess, notifier: Notifier) -> int:
    import asyncio
    import faulthandler
    import logging

    from lanai.hub.server import Hub
    from lanai.wire import logs

    async def live() -> int:
        return await Hub(_options(arguments), door, api, notifier).run(lambda facts: _say(arguments, facts))

    if notifier.has_watchdog:
        faulthandler.enable()  # its SIGABRT shows where we hang
    logs.configure("lanai-hub", level=logging.INFO, lines="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return asyncio.run(live())


def _say(arguments: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Say it on the ready descriptor; only the first word counts, and whoever waited for it is gone afterwards."""
    import msgspec

    ready_fd, arguments.ready_fd = arguments.ready_fd, None
    if ready_fd is not None:
        try:
            os.write(ready_fd, msgspec.json.encode(facts) + b"\n")
        except BrokenPipeError:
            pass  # whoever started us is gone; the batches are here all the same
        os.close(ready_fd)


def _options(arguments: argparse.Namespace) -> Options:
    from lanai.hub.server import Options

    directory: Path = arguments.directory.absolute()
    host, _, port = arguments.listen.rpartition(":")
    return Options(
        directory=directory,
        is_private=arguments.private,
        listen=(host.strip("[]") or "0.0.0.0", int(port)),
        join_file=arguments.join_file or directory.parent / "join",
        token_file=directory / "token",
        lease_us=round(arguments.lease_s * 1e6),
        durability=arguments.durability,
        kept=_kept(arguments.keep_batches_days, arguments.keep_events_days),
        access=_access(arguments),
        idle_end_s=arguments.idle_end_s,
    )


def _kept(batches_days: float | None, events_days: float | None) -> Kept:
    from lanai.core.world import Kept
    from lanai.model.settings import KeepSettings

    usual = KeepSettings()
    return Kept(
        batches_us=_us(usual.batches_days if batches_days is None else batches_days),
        events_us=_us(usual.events_days if events_days is None else events_days),
    )


def _us(days: float) -> int:
    return round(days * 86_400_000_000)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lanai.hub", description="A hub, in the foreground.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="where it keeps its state")
    parser.add_argument("--private", action="store_true", help="Unix socket only; ends when nobody needs it")
    parser.add_argument("--listen", default="0.0.0.0:0", metavar="HOST:PORT", help="port 0: the one of last time")
    parser.add_argument("--join-file", type=Path, help="where to leave what agents need (default: DIR/../join)")
    parser.add_argument("--lease-s", type=float, default=float(LEASE_S), help="how long a silent node keeps its jobs")
    parser.add_argument("--durability", choices=("full", "normal"), default="full")
    parser.add_argument("--keep-batches-days", type=float, metavar="N", help="of ended ones (default: 90; 0: for ever)")
    parser.add_argument("--keep-events-days", type=float, metavar="N", help="default: 30; 0: for ever")
    parser.add_argument("--local", choices=("owner", "everyone"), default="owner", help="who may use the Unix socket")
    parser.add_argument("--api-socket", type=Path, metavar="PATH", help="one more Unix socket for clients, there")
    parser.add_argument("--operator", action="append", default=[], metavar="USER", help="may be repeated")
    parser.add_argument("--admin", action="append", default=[], metavar="USER", help="may be repeated")
    parser.add_argument("--idle-end-s", type=float, default=60.0, help="when a private hub ends")
    parser.add_argument("--unfinished", action="store_true", help="say how many batches have not ended, and run none")
    parser.add_argument("--certificate", choices=("announce", "switch"), help="change it, and run no hub")
    parser.add_argument("--restored", action="store_true", help="begin another epoch, and run none")
    parser.add_argument("--ready-fd", type=int, help="descriptor that gets a line of JSON when it takes work")
    return parser


if __name__ == "__main__":
    sys.exit(main())
