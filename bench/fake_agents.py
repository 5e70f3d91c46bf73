"""Agents that start nothing: they take grants and answer with results, at once or after a time. Many in one process.

    python bench/fake_agents.py DIR --agents 1000 --cpus 2 --job-s 1.0 [--tls URL PIN TOKEN]

Prints `ready` when all are welcome, and as its last line, when its standard input ends, a line of JSON: jobs answered,
frames sent, its own CPU. With `--first-grant` it prints the CLOCK_BOOTTIME of the first grant in microseconds and ends.
It holds no books: the hub is trusted to be right, and the price of an agent's work is kept small.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import heapq
import json
import resource
import socket
import ssl
import sys
import time
from pathlib import Path

import msgspec

from lanai.model.resources import Capacity
from lanai.wire import messages, unix
from lanai.wire.framing import FrameReader, frame

_encode = msgspec.msgpack.Encoder().encode
TICK_S = 0.01
HEARTBEAT_S = 3.0


class Crowd:
    """All agents of this process."""

    def __init__(self, *, cpus: int, job_s: float, wall_us: int, is_first_only: bool) -> None:
        self.cpus = cpus
        self.job_s = job_s
        self.wall_us = wall_us
        self.is_first_only = is_first_only
        self.welcome_count = 0
        self.all_welcome = asyncio.Event()
        self.wanted = 0
        self.jobs = 0
        self.frames = 0
        self.due: list[tuple[float, int, FakeAgent, int, int]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number = 0

    def welcomed(self) -> None:
        """One more is connected."""
        self.welcome_count += 1
        if self.welcome_count == self.wanted:
            self.all_welcome.set()

    def begin(self, agent: FakeAgent, grant: int, index: int) -> None:
        """An attempt that ends after `job_s`."""
        self._number += 1
        heapq.heappush(self.due, (time.monotonic() + self.job_s, self._number, agent, grant, index))

    async def run_clock(self) -> None:
        """End attempts when their time has come."""
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            touched: dict[FakeAgent, None] = {}
            while self.due and self.due[0][0] <= now_s:
                _, _, agent, grant, index = heapq.heappop(self.due)
                agent.results.append((grant, index))
                touched[agent] = None
            for agent in touched:
                agent.answer()


class FakeAgent(asyncio.Protocol):
    """One agent."""

    def __init__(self, crowd: Crowd, number: int, token: str) -> None:
        self._crowd = crowd
        self._number = number
        self._token = token
        self._reader = FrameReader(messages.to_agent)
        self._reader.accept_peer()
        self._running = 0
        self._todo: list[tuple[int, int]] = []
        self._upto = 0
        self._beats = 0
        self.results: list[tuple[int, int]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(
            frame(
                messages.Hello(
                    "agent",
                    messages.PROTOCOL_MIN,
                    messages.PROTOCOL_MAX,
                    "bench",
                    token=self._token,
                    name=f"fake-{self._number}",
                    key="00" * 16,
                    boot_id="bench",
                    capacity=Capacity(cpu_milli=1000 * self._crowd.cpus, memory_bytes=64 << 30),
                )
            )
        )

    def data_received(self, data: bytes) -> None:
        """Take what the hub sends."""
        for message in self._reader.feed(data):
            if isinstance(message, messages.Grant):
                self._take(message)
            elif isinstance(message, messages.Welcome):
                self._transport.write(frame(messages.Inventory([], True)))
                self._crowd.welcomed()
                loop = asyncio.get_running_loop()
                loop.call_later(HEARTBEAT_S * (self._number % 97) / 97, self._beat)
            elif isinstance(message, messages.Refused):
                raise SystemExit(f"refused: {message.error}")

    def _take(self, grant: messages.Grant) -> None:
        if self._crowd.is_first_only:
            if not self._crowd.ended.done():
                print(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000, flush=True)
                self._crowd.ended.set_result(None)
            return
        members = [(grant.grant, index) for first, last in grant.ranges for index in range(first, last + 1)]
        if not self._crowd.job_s:
            self.results = members
            self.answer()
        else:
            self._todo += members
            self._start()

    def _start(self) -> None:
        while self._todo and self._running < self._crowd.cpus:
            self._running += 1
            self._crowd.begin(self, *self._todo.pop(0))

    def answer(self) -> None:
        """Send the results that are there in one frame, and begin what waits."""
        results, self.results = self.results, []
        crowd = self._crowd
        count = len(results)
        self._upto += count
        started_us = time.time_ns() // 1000 - crowd.wall_us
        rows = [
            (grant, index, "ok", 0, 0, started_us, crowd.wall_us, 300, 400, None, "", 0) for grant, index in results
        ]
        body = _encode(("Ended", self._upto, rows))
        self._transport.write(len(body).to_bytes(4, "big") + body)
        crowd.jobs += count
        crowd.frames += 1
        if crowd.job_s:
            self._running -= count
            self._start()

    def _beat(self) -> None:
        self._beats += 1
        self._transport.write(frame(messages.Heartbeat(self._beats, time.time_ns() // 1000, self._running)))
        asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat)

    def connection_lost(self, exc: Exception | None) -> None:
        """The hub has gone; so do we."""
        if not self._crowd.ended.done():
            self._crowd.ended.set_result(None)


async def _run(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    wall_us = round(options.job_s * 1e6) or 100
    crowd = Crowd(cpus=options.cpus, job_s=options.job_s, wall_us=wall_us, is_first_only=options.first_grant)
    crowd.wanted = options.agents
    for number in range(options.agents):
        await _connect(loop, crowd, number, options)
    await crowd.all_welcome.wait()
    if not options.first_grant:
        print("ready", flush=True)
        loop.add_reader(sys.stdin.fileno(), lambda: crowd.ended.done() or crowd.ended.set_result(None))
    clock = asyncio.create_task(crowd.run_clock())
    await crowd.ended
    clock.cancel()
    use = resource.getrusage(resource.RUSAGE_SELF)
    if not options.first_grant:
        cpu_us = round((use.ru_utime + use.ru_stime) * 1e6)
        print(json.dumps({"jobs": crowd.jobs, "frames": crowd.frames, "cpu_us": cpu_us}))


async def _connect(loop: asyncio.AbstractEventLoop, crowd: Crowd, number: int, options: argparse.Namespace) -> None:
    if options.tls is None:
        sock = await _until_it_listens(options.directory / "hub.sock")
        sock.setblocking(False)
        await loop.create_unix_connection(lambda: FakeAgent(crowd, number, ""), sock=sock)
        return
    url, pin, token = options.tls
    host, _, port = url.removeprefix("lanai://").rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    transport, _ = await loop.create_connection(lambda: FakeAgent(crowd, number, token), host, int(port), ssl=context)
    shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if hashlib.sha256(shown).hexdigest() != pin:
        raise SystemExit("the hub's certificate is not the pinned one")


async def _until_it_listens(path: Path) -> socket.socket:
    until_s = time.monotonic() + 60
    while True:
        try:
            return unix.connect(path)
        except OSError:
            if time.monotonic() > until_s:
                raise
            await asyncio.sleep(0.005)


def main() -> None:
    """Run until standard input ends or the hub hangs up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--job-s", type=float, default=0.0)
    parser.add_argument("--first-grant", action="store_true")
    parser.add_argument("--tls", nargs=3, metavar=("URL", "PIN", "TOKEN"))
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
