"""The starter's loop: one thread, one poll; the agent's messages in, reports out, the lease, and its own end.

Standard library only, part of the starter. It must never wait for anything but its poll, and must take nobody's word
about how long it may go on: the lease ends what runs, with or without an agent.
"""

import base64
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lanai.agent import starter_command as command
from lanai.agent.starter_account import Account
from lanai.agent.starter_attempt import NEVER
from lanai.agent.starter_attempts import Attempts, now_us
from lanai.agent.starter_cgroups import Leaf, Leaves
from lanai.agent.starter_hosts import FEATURE as HOSTS
from lanai.agent.starter_input import Inputs
from lanai.agent.starter_output import Output
from lanai.agent.starter_peers import BadPeer, Peer, encode
from lanai.agent.starter_reading import Reading
from lanai.agent.starter_reports import Key, Reports
from lanai.agent.starter_signals import read_signals
from lanai.agent.starter_spawn import Spawner
from lanai.agent.starter_sweeping import outputs_in, sweeping

PROTOCOL = 1
FEATURES = (HOSTS, "leaves", "read", "sweep")
_HOUSE_US = 1_000_000
_FAREWELL_US = 2_000_000
_PEERS_AT_MOST = 16
_OVER = object()
_OUTCOMES_OF_KILL = frozenset({"cancelled", "node", "time", "memory", "lost"})


class Settings(NamedTuple):
    """What the starter is started with."""

    listener: socket.socket
    signal_fd: int
    directory: str
    mark: str
    idle_us: int
    account: Account | None = None


class Starter:
    """Owns everything; `run` returns when the starter's work is over."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._poller = select.epoll()
        self._reports = Reports()
        self._inputs = Inputs(self._poller, self._tell_input)
        slots = Output(settings.directory)
        self._leaves = Leaves()
        spawner = Spawner(slots, self._leaves, self._inputs.open)
        self._attempts = Attempts(settings.mark, self._reports, slots, self._leaves, spawner)
        self._reading = Reading(settings.directory, self._attempts.active, self._attempts.waiting)
        self._sweep: Iterator[None] | None = None
        self._specs: dict[int, command.Spec] = {}
        self._about_user = {} if settings.account is None else settings.account.variables()
        self._peers: dict[int, Peer] = {}
        self._agent: Peer | None = None
        self._lone_since_us = now_us()
        self._house_us = 0
        self._is_quitting = False
        self._is_expired = False
        self._has_to_end: str | None = None
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "spec": self._on_spec,
            "drop_spec": self._on_drop_spec,
            "lane": self._on_lane,
            "run": self._on_run,
            "recall": self._on_recall,
            "kill": self._on_kill,
            "lease": self._on_lease,
            "forget": self._on_forget,
            "inventory": self._on_inventory,
            "input": self._on_input,
            "read": self._on_read,
            "sweep": self._on_sweep,
            "main": self._on_main,
            "leaf": self._on_leaf,
            "no_leaf": self._on_no_leaf,
            "quit_when_idle": self._on_quit_when_idle,
        }
        status = os.stat(settings.directory)
        self._identity = (status.st_dev, status.st_ino)
        self._listener = settings.listener
        self._listener.setblocking(False)
        self._wake_fd = settings.signal_fd
        self._poller.register(self._listener.fileno(), select.EPOLLIN)
        self._poller.register(self._wake_fd, select.EPOLLIN)

    # The loop

    def run(self) -> None:
        """Serves until there is nothing left to serve, or the directory has vanished, or a signal says so."""
        attempts = self._attempts
        now = now_us()
        while True:
            for fd, event in self._poller.poll(self._patience_s(now)):
                # A frozen host may thaw here with its lease run out: nothing may begin before that is known.
                if fd == self._wake_fd:
                    self._on_signals()
                elif fd in self._peers:
                    self._on_peer(self._peers[fd], event)
                elif fd in self._inputs:
                    self._inputs.write(fd)
                elif fd == self._listener.fileno():
                    self._accept()
            now = now_us()
            if now >= attempts.lease_us:
                self._expire()
            # One that has to end begins nothing more: what waits here then was never taken, see `_say_goodbye`.
            if attempts.wants_fill and self._has_to_end is None:
                attempts.fill()
            if now >= attempts.settle_us:
                attempts.settle()
            if now >= attempts.next_us:
                attempts.tick(now)
            if self._sweep is not None and next(self._sweep, _OVER) is _OVER:
                self._sweep = None
            if now >= self._house_us and self._is_over(now):
                break
            if self._reports.has_unsent:
                self._report()
            if self._leaves.has_news:
                self._tell_leaves()
        self._say_goodbye()

    def _patience_s(self, now: int) -> float:
        # By the clock as it was before this turn: what is due a turn later than it should be is soon enough.
        attempts = self._attempts
        if attempts.wants_fill or self._sweep is not None:
            return 0.0
        next_us = min(attempts.next_us, attempts.settle_us, attempts.lease_us, self._house_us)
        return max(0.0, (next_us - now) / 1_000_000)

    def _report(self) -> None:
        if self._agent is None or not self._agent.is_told:
            self._reports.discard_unsent()
            return
        for payload in self._reports.take():
            self._send(payload)

    def _tell_leaves(self) -> None:
        if self._agent is not None and self._agent.is_told:
            self._send(encode(self._leaves.news()))

    def _send(self, payload: bytes) -> None:
        if self._agent is not None:
            self._send_to(self._agent, payload)

    def _send_to(self, peer: Peer, payload: bytes) -> None:
        try:
            peer.send(payload)
        except BadPeer as error:
            self._drop(peer, error)
            return
        self._repoll(peer)

    def _repoll(self, peer: Peer) -> None:
        # Asked for only when it changes: a call per frame would be a call too many.
        if peer.has_unsent != peer.is_polled_for_room:
            peer.is_polled_for_room = peer.has_unsent
            self._poller.modify(peer.fileno, select.EPOLLIN | (select.EPOLLOUT if peer.has_unsent else 0))

    # Signals, the lease, the end

    def _on_signals(self) -> None:
        if signal.SIGTERM in read_signals(self._wake_fd):
            self._has_to_end = "starter ended by SIGTERM"
            self._house_us = 0
        self._attempts.reap()

    def _expire(self) -> None:
        attempts = self._attempts
        if not attempts.is_idle:
            _log("lease expired: ending everything")
            attempts.end_all("lease expired")
        # Until a new lease comes, whatever is given to us is ended at once.
        self._is_expired = True
        attempts.lease_us = NEVER

    def _is_over(self, now: int) -> bool:
        self._house_us = now + _HOUSE_US
        self._inputs.forget_all_but(lambda key: key in self._attempts.waiting or key in self._attempts.active)
        self._attempts.rest()
        if not self._has_directory():
            self._has_to_end = "its directory has vanished"
        if self._has_to_end is not None:
            return True
        if not self._attempts.is_idle or len(self._reports):
            return False
        is_lone = self._agent is None and now >= self._lone_since_us + self._settings.idle_us
        return self._is_quitting or is_lone

    def _has_directory(self) -> bool:
        try:
            status = os.stat(self._settings.directory)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _say_goodbye(self) -> None:
        """Ends what runs, and tells the agent that it may give to others whatever else it has given to us.

        What waits, and what is on its way to us, is not taken any more. The agent cannot know how far we have come with
        what it has sent, so it is told the last that can be said: all that has begun has ended, but for what is left.
        """
        if self._has_to_end is None:
            return
        _log(f"ending: {self._has_to_end}")
        attempts = self._attempts
        attempts.waiting.clear()
        attempts.end_all(self._has_to_end)
        limit_us = now_us() + _FAREWELL_US
        while attempts.active and now_us() < limit_us:
            self._poller.poll(0.02)
            attempts.reap()
            attempts.settle()
            attempts.tick(now_us())
        self._report()
        agent = self._agent
        if agent is not None and agent.is_told:
            self._send(encode({"m": "ended", "items": [], "left": list(attempts.active)}))
            if self._agent is agent:
                agent.finish(_FAREWELL_US / 1_000_000)

    # Peers

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._peers) >= _PEERS_AT_MOST or not _is_trusted(connection):
            connection.close()
            return
        peer = Peer(connection)
        self._peers[peer.fileno] = peer
        self._poller.register(peer.fileno, select.EPOLLIN)

    def _on_peer(self, peer: Peer, event: int) -> None:
        try:
            if event & select.EPOLLOUT:
                peer.flush()
                self._repoll(peer)
            if event & ~select.EPOLLOUT:
                for message in peer.receive():
                    self._on_message(peer, message)
        except BadPeer as error:
            self._drop(peer, error)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            self._drop(peer, BadPeer(f"malformed message: {error!r}"))

    def _on_message(self, peer: Peer, message: dict[str, Any]) -> None:
        name = message.get("m")
        if name == "hello":
            self._on_hello(peer, message)
        elif not peer.is_agent:
            raise BadPeer("no hello")
        elif peer is self._agent and name in self._handlers:
            self._handlers[name](message)
        elif peer is self._agent:
            raise BadPeer(f"unknown message {name!r}")

    def _drop(self, peer: Peer, error: BadPeer) -> None:
        if self._peers.pop(peer.fileno, None) is None:
            return
        if str(error) != "closed":
            _log(f"connection dropped: {error}")
        self._poller.unregister(peer.fileno)
        peer.close()
        if peer is self._agent:
            self._agent = None
            self._attempts.gives_back = False
            self._lone_since_us = now_us()

    def _on_hello(self, peer: Peer, message: dict[str, Any]) -> None:
        if message["protocol"] != PROTOCOL:
            refusal = {"m": "refused", "protocol": PROTOCOL, "reason": f"protocol {message['protocol']}"}
            peer.send(encode(refusal))
            raise BadPeer(refusal["reason"])
        former = self._agent
        peer.is_agent = True
        peer.takes_back = "unbegun" in message.get("features", ())
        self._attempts.gives_back = False
        self._agent = peer
        self._is_quitting = False  # that was the wish of an agent before
        if former is not None and former is not peer:
            self._drop(former, BadPeer("another agent has taken over"))
        answer = {"m": "hello", "protocol": PROTOCOL, "pid": os.getpid(), "mark": self._settings.mark}
        self._send_to(peer, encode({**answer, "features": FEATURES}))

    # What the agent says

    def _on_spec(self, message: dict[str, Any]) -> None:
        self._specs[int(message["id"])] = command.Spec(message, self._about_user)

    def _on_drop_spec(self, message: dict[str, Any]) -> None:
        self._specs.pop(int(message["id"]), None)

    def _on_lane(self, message: dict[str, Any]) -> None:
        gpus = [str(gpu) for gpu in message.get("gpus") or ()]
        self._attempts.set_lane(int(message["id"]), int(message["width"]), gpus, int(message.get("gpus_each") or 0))

    def _on_run(self, message: dict[str, Any]) -> None:
        spec = self._specs[message["spec"]]
        lane = self._attempts.lane(message["lane"])
        grant = int(message["grant"])
        self._attempts.add(spec, lane, grant, message["items"])
        if self._is_expired:
            self._attempts.end_all("lease expired")

    def _on_recall(self, message: dict[str, Any]) -> None:
        returned: list[Key] = []
        begun: list[Key] = []
        for grant, index in message["items"]:
            key = (grant, index)
            (returned if self._attempts.recall(key) else begun).append(key)
        self._send(encode({"m": "recalled", "returned": returned, "begun": begun}))

    def _on_kill(self, message: dict[str, Any]) -> None:
        outcome = message["why"]
        if outcome not in _OUTCOMES_OF_KILL:
            raise BadPeer(f"kill because of {outcome!r}")
        # An attempt that has ended already has its own outcome, even if nobody has noticed it yet.
        self._attempts.reap()
        key = (message["grant"], message["index"])
        self._attempts.kill(key, outcome, message.get("reason"), message.get("grace_us"))

    def _on_lease(self, message: dict[str, Any]) -> None:
        until_us = message["until_us"]
        self._attempts.lease_us = NEVER if until_us is None else int(until_us)
        self._is_expired = False

    def _on_forget(self, message: dict[str, Any]) -> None:
        self._reports.forget(int(message["upto"]))

    def _on_inventory(self, message: dict[str, Any]) -> None:
        self._attempts.reap()
        self._attempts.settle()
        running = [
            [*key, one.number, one.pid, one.wall_us, None if one.slot is None else one.slot.number]
            for key, one in self._attempts.active.items()
        ]
        waiting = [[*key, one.number] for key, one in self._attempts.waiting.items()]
        answer = {"m": "inventory", "running": running, "waiting": waiting, "ended": len(self._reports)}
        answer["leaves"] = self._leaves.numbers()
        self._leaves.new_agent()
        self._attempts.fill_leafless()
        self._send(encode(answer))
        for payload in self._reports.repeat():
            self._send(payload)
        if self._agent is not None:
            self._agent.is_told = True
            self._attempts.gives_back = self._agent.takes_back

    def _on_input(self, message: dict[str, Any]) -> None:
        key = (int(message["grant"]), int(message["index"]))
        if key not in self._attempts.waiting and key not in self._attempts.active:
            self._tell_input(key, 0, True, None)
            return
        data = base64.b64decode(message.get("data") or "", validate=True)
        offset = message.get("offset")
        if not self._inputs.feed(key, data, bool(message.get("eof")), None if offset is None else int(offset)):
            raise BadPeer("more input than may be outstanding")

    def _tell_input(self, key: Key, taken_bytes: int, is_closed: bool, missing_from: int | None) -> None:
        answer = {"m": "input", "grant": key[0], "index": key[1], "taken_bytes": taken_bytes, "closed": is_closed}
        if missing_from is not None:
            answer["missing_from"] = missing_from
        self._send(encode(answer))

    def _on_read(self, message: dict[str, Any]) -> None:
        # Ends first: whoever hears that an attempt is not here then knows already where its output went.
        self._report()
        for payload in self._reading.frames(int(message["id"]), message["items"]):
            self._send(payload)

    def _on_sweep(self, message: dict[str, Any]) -> None:
        kept_since_s = time.time() - int(message["keep_us"]) / 1_000_000
        self._sweep = sweeping(outputs_in(self._settings.directory), kept_since_s, int(message["cap_bytes"]))

    def _on_main(self, message: dict[str, Any]) -> None:
        self._leaves.set_home(self._passed(message))

    def _on_leaf(self, message: dict[str, Any]) -> None:
        names = [str(name) for name in message["files"]]
        self._leaves.add(Leaf(int(message["number"]), names, self._passed(message)))
        self._attempts.fill_leafless()

    def _on_no_leaf(self, message: dict[str, Any]) -> None:
        _log(f"no cgroup: {message.get('reason')}")
        self._leaves.deny()
        self._attempts.fill_leafless()

    def _passed(self, message: dict[str, Any]) -> list[int]:
        assert self._agent is not None
        return self._agent.passed(len(message["files"]))

    def _on_quit_when_idle(self, message: dict[str, Any]) -> None:
        self._is_quitting = True
        self._house_us = 0


def _is_trusted(connection: socket.socket) -> bool:
    option = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", option)
    return uid in (0, os.getuid())


def _log(text: str) -> None:
    try:
        os.write(2, f"starter {os.getpid()}: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # a full disk costs the log, and nothing else
