"""A hub from start to end: store, recovery, doors, API process; and its end, asked for or not."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import uuid
from pathlib import Path
from typing import Any, Final

import msgspec

import lanai
from lanai.core.events import JobsCancelled
from lanai.core.hub import HubCore
from lanai.core.world import Kept
from lanai.hub import identity
from lanai.hub.apiprocess import Access, ApiProcess
from lanai.hub.clock import boottime_us, wall_us
from lanai.hub.lengthy import LongQuestions
from lanai.hub.loop import Heart
from lanai.hub.peers import STALLED_S, Peer
from lanai.hub.standing import RENEWED_S, renewals
from lanai.hub.switchboard import Switchboard
from lanai.model import places
from lanai.model.errors import Refusal, StoreError, UserError
from lanai.model.job import JobState
from lanai.model.node import NodeState
from lanai.model.records import Recovered, SaveMeta
from lanai.store.sqlite import SqliteWriter
from lanai.wire.door import Door
from lanai.wire.lobby import Lobby, Visitor, allow_many_connections
from lanai.wire.notify import Notifier

IDLE_END_S: Final = 60.0
OUR_BUG: Final = 70
ANSWERED_S: Final = 0.05
"""Whoever stops the hub gets the answer within that."""

LOOK_S: Final = 0.1
FAREWELL_S: Final = 5.0
"""For what runs to be known and its results to arrive, besides its grace; after that it is left to its agent."""

_log = logging.getLogger(__name__)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub is started with.

    Attributes:
        directory: its state; made if missing.
        is_private: no TLS, and it ends by itself when nobody needs it.
        listen: HOST:PORT of the TLS doors; port 0 is the one of last time, or any.
        kept: how long what is over is kept.
        join_file, token_file: where to leave what agents and clients need.
        access: who may come in through the API's doors.
    """

    directory: Path
    is_private: bool
    listen: tuple[str, int]
    join_file: Path
    token_file: Path
    lease_us: int
    durability: str
    kept: Kept
    access: Access = Access()
    idle_end_s: float = IDLE_END_S


class Hub:
    """One running hub. `run` is its whole life.

    Args:
        door: listens for agents of this machine and the API process; who has connected is served after recovery.
        api: started already where the hub is private.
        notifier: speaks to the service manager, where one has started the hub.
    """

    def __init__(self, options: Options, door: socket.socket, api: ApiProcess, notifier: Notifier) -> None:
        self._options = options
        self._directory = options.directory
        self._started_at_us = wall_us()
        self._url = self._api_url = self._pin = ""
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._idle_since_us = boottime_us()
        self._end_by_us = 0
        self._doors: list[Door] = []
        self._door = door
        self._api = api
        self._notifier = notifier
        self._resumed = 0
        self._cancels = False
        self._is_ending = False

    async def run(self, on_ready: Any) -> int:
        """Live until stopped; returns the exit code. `on_ready(facts)` is called once it takes work.

        Raises:
            LanaiError: it cannot start, and nothing was changed.
        """
        self._copies = LongQuestions(asyncio.get_running_loop())
        self._lobby = Lobby(allow_many_connections(), _log)
        self._store = SqliteWriter(self._directory, durability=self._options.durability)
        try:
            self._store.restore_ballast()
            await self._start()
            facts = self._ready_facts()
            identity.write_private(self._directory / "hub.pid", msgspec.json.encode(facts) + b"\n")
            on_ready(facts)
            self._notifier.ready(self._status())
            self._beat()
            return await self._ended
        finally:
            self._notifier.stopping()
            self._end()
            (self._directory / "hub.pid").unlink(missing_ok=True)
            self._store.close()

    # -- start

    async def _start(self) -> None:
        recovered = self._store.recover()
        own = None if self._options.is_private else self._own_tokens(recovered)
        if own is not None:
            recovered = msgspec.structs.replace(recovered, tokens=own.tokens)
        meta = dict(recovered.meta)
        is_new = "hub" not in meta
        meta.setdefault("hub", uuid.uuid4().hex)
        meta.setdefault("epoch", "1")
        self._meta = meta
        self._core = HubCore(epoch=int(meta["epoch"]), lease_us=self._options.lease_us, kept=self._options.kept)
        self._resumed = len(recovered.batches)
        self._board = Switchboard(
            self._core,
            self._store,
            hub=meta["hub"],
            apart=self._copies.ask,
            facts=self._facts,
            stop=self._stop_asked,
            end=self._end_as_asked,
        )
        self._heart = Heart(self._core, self._store, perform=self._board.perform, on_fault=self._store_fault)
        self._board.attach(self._heart)
        if own is not None:
            self._pin = identity.ensure_certificate(self._directory, socket.gethostname())
            await self._open_tls_doors()
            meta |= own.meta
        if is_new or meta != recovered.meta or (own is not None and own.changed):
            kept = own.changed if own is not None else []
            self._store.commit([*kept, *(SaveMeta(name, value) for name, value in meta.items())])
        if own is not None:
            self._write_files(own)
        self._heart.take(self._core.recover(boottime_us(), wall_us(), recovered))
        self._renew()
        loop = asyncio.get_running_loop()
        self._open(self._door)
        if not self._options.is_private:
            self._api.start(self._listen_on(self._api_url.removeprefix("https://")))
        self._api.watch(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end_with, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self._options.is_private:
            loop.call_later(1.0, self._look_whether_idle)
        gc.collect()
        gc.freeze()
        gc.disable()
        loop.call_later(30.0, self._collect)

    def _collect(self) -> None:
        """Cycles are rare here; a full collection of a large heap would hold the loop up, a young one does not."""
        gc.collect(0)
        asyncio.get_running_loop().call_later(30.0, self._collect)

    def _own_tokens(self, recovered: Recovered) -> identity.Own:
        return identity.own_tokens(
            recovered,
            directory=self._directory,
            join_file=self._options.join_file,
            token_file=self._options.token_file,
            wall_us=wall_us(),
        )

    def _write_files(self, own: identity.Own) -> None:
        """After their tokens are kept: nobody is handed one that a crash could take back."""
        pins = {"pin": self._pin, "next_pin": identity.next_pin(self._directory)}
        identity.write_join(self._options.join_file, url=self._url, token=own.join, **pins)
        identity.write_user_token(
            self._options.token_file, url=self._api_url, wire_url=self._url, token=own.user, **pins
        )
        identity.forget_before(self._directory)

    async def _open_tls_doors(self) -> None:
        host, port = self._options.listen
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._directory / "cert.pem", self._directory / "key.pem")
        door = _listen(host, port or int(self._meta.get("port", "0")))
        self._meta["port"] = str(door.getsockname()[1])
        self._open(door, context)
        spare = _listen(host, int(self._meta.get("api_port", "0")))
        self._meta["api_port"] = str(spare.getsockname()[1])
        spare.close()  # the API process binds it a moment later
        shown = _reachable_name(host)
        self._url = f"lanai://{shown}:{self._meta['port']}"
        self._api_url = f"https://{shown}:{self._meta['api_port']}"

    def _listen_on(self, api_address: str) -> str:
        host = self._options.listen[0]
        return f"{f'[{host}]' if ':' in host else host}:{api_address.rpartition(':')[2]}"

    def _open(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        door = Door(self._lobby, self._peer, tls=tls, unread_s=STALLED_S)
        door.open(sock)
        self._doors.append(door)

    def _peer(self, visitor: Visitor) -> Peer:
        return Peer(self._board, visitor)

    def _ready_facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "url": self._url,
            "api_url": self._api_url,
            "pin": self._pin,
            "next_pin": "" if self._options.is_private else identity.next_pin(self._directory),
            "api_socket": os.fspath(self._options.access.socket or places.api_socket(self._directory)),
            "token_file": "" if self._options.is_private else str(self._options.token_file),
            "join_file": "" if self._options.is_private else str(self._options.join_file),
            "directory": str(self._directory),
            "resumed": self._resumed,
        }

    # -- while it runs

    def _beat(self) -> None:
        """Tell the service manager, from the loop that does all the work, that it turns."""
        every_us = self._notifier.every_us
        if every_us:
            self._notifier.beat(boottime_us(), self._status())
            asyncio.get_running_loop().call_later(every_us / 1e6, self._beat)

    def _renew(self) -> None:
        """Plan standing reservations further ahead, now and then."""
        for event in [] if self._heart.is_full else renewals(self._core, wall_us()):
            self._heart.post(event)
        self._heart.later(RENEWED_S, self._renew)

    def _status(self) -> str:
        facts = self._facts()
        full = "; the disk is full" if self._heart.is_full else ""
        return f"{facts['nodes_up']} of {facts['nodes']} nodes up, {facts['batches_open']} batches open{full}"

    def _facts(self) -> dict[str, Any]:
        world = self._core.world
        nodes = [node for node in world.nodes.values() if node.state is not NodeState.REMOVED]
        return {
            "version": lanai.__version__,
            "hub": self._meta["hub"],
            "epoch": world.epoch,
            "started_at_us": self._started_at_us,
            "durability": self._options.durability,
            "is_private": self._options.is_private,
            "store": "full" if self._heart.is_full else "ok",
            "tails_dropped": self._heart.tails.dropped,
            "nodes_up": sum(node.state is NodeState.UP for node in nodes),
            "nodes": len(nodes),
            "batches_open": len(world.batches),
            "lease_s": world.lease_us / 1e6,
            "api_pid": self._api.pid,
            **self._ready_facts(),
        }

    def _look_whether_idle(self) -> None:
        is_used = self._board.take_request_count() or self._board.watchers()
        has_work = any(batch.sent or (batch.state == "open" and batch.counts.queued) for batch in self._batches())
        now_us = boottime_us()
        if is_used or has_work:
            self._idle_since_us = now_us
        if (now_us - self._idle_since_us) / 1e6 >= self._options.idle_end_s:
            _log.info("nobody has needed this hub for %d s", self._options.idle_end_s)
            self._board.drain_all()
            self._end_with(0)
        else:
            asyncio.get_running_loop().call_later(1.0, self._look_whether_idle)

    def _batches(self) -> list[Any]:
        return list(self._core.world.batches.values())

    def _stop_asked(self, now: bool) -> None:
        running = sum(batch.sent for batch in self._batches())
        if self._options.is_private and running and not now:
            raise Refusal(
                f"{running} jobs are at work on this private hub",
                code="jobs_running",
                hint="wait for them, cancel them, or lanai hub stop --now",
            )
        if self._options.is_private:
            self._board.drain_all()
            self._heart.rest()
            grace_us = max((batch.settings.grace_us for batch in self._batches() if batch.sent), default=0)
            self._end_by_us = boottime_us() + grace_us + round(FAREWELL_S * 1e6)
        self._cancels = bool(running and now)
        # The wish is on its way to the disk, and then `_end_as_asked` is called; a disk may turn out to be full there.
        asyncio.get_running_loop().call_later(FAREWELL_S, self._end_as_asked)

    def _end_as_asked(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            asyncio.get_running_loop().call_later(ANSWERED_S, self._end_what_runs if self._cancels else self._end_now)

    def _end_now(self) -> None:
        self._end_with(0)

    def _end_what_runs(self) -> None:
        """Cancel what has begun, as it becomes known, and end once nothing is at a node.

        The agent, told to leave, has given the rest back or will; that waits for the next start.
        """
        batches = [batch for batch in self._batches() if batch.sent]
        is_heard = any(node.connection for node in self._core.world.nodes.values())
        if not batches or not is_heard or self._heart.is_full or boottime_us() >= self._end_by_us:
            self._end_now()
            return
        for batch in batches:
            if batch.counts.running:
                self._heart.post(JobsCancelled(0, batch.id, None, (JobState.RUNNING,), wall_us()))
        asyncio.get_running_loop().call_later(LOOK_S, self._end_what_runs)

    # -- the end

    def _end_with(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def _store_fault(self, fault: BaseException) -> None:
        kind = "the store failed" if isinstance(fault, StoreError) else "an error of ours"
        _log.critical("%s: %s", kind, fault, exc_info=fault)
        self._end_with(OUR_BUG)

    def _end(self) -> None:
        for door in self._doors:
            door.close()
        self._api.stop()
        self._copies.close()
        if hasattr(self, "_heart"):
            self._heart.stop()
            if self._ended.done() and not self._ended.cancelled() and self._ended.result() == 0:
                self._suspend_leases()

    def _suspend_leases(self) -> None:
        """Nodes go on for as long as it takes. That is kept first: the next start must not give their jobs away."""
        try:
            if records := self._core.suspend():
                self._store.commit(records)
        except StoreError as error:
            _log.warning("leases are not suspended: %s", error)
        else:
            self._board.suspend_leases()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        why = error.strerror if isinstance(error, OSError) else "a port is at most 65535"
        raise UserError(
            f"cannot listen on {host}:{port}: {why}",
            code="cannot_listen",
            hint="give another with --listen HOST:PORT",
            facts={"host": host, "port": port},
        ) from None
    made.listen(128)
    return made


def _reachable_name(host: str) -> str:
    """A name under which other machines find this one: the host's own where it is known, else an address."""
    if host not in ("0.0.0.0", "::", ""):
        return f"[{host}]" if ":" in host else host
    name = socket.gethostname()
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        addresses = set()
    if any(not str(address).startswith("127.") for address in addresses):
        return name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks the kernel which address would be ours
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
