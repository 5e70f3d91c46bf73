"""A million command lines: how soon acknowledged, what they weigh while they wait, how soon back after kill -9."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from hubwire import HubWire
from processes import bare_environment, pss_bytes, scratch, start_hub
from sites import Site

from lanai.model.batch import BatchSettings


def million(jobs: int) -> dict[str, float]:
    """Submit `jobs` lines to a hub without nodes; then kill it and time its return."""
    with scratch() as directory:
        site = Site(directory)
        try:
            found = _submit(site, jobs)
            found |= _status(directory / "hub", jobs)
            site.hub.kill()
            found |= _restart(site, directory)
        finally:
            site.stop()
    return found


def _submit(site: Site, jobs: int) -> dict[str, float]:
    client = site.client()
    line = b"gzip -k /data/run-2026-11/sample-%07d.txt\n"
    body = [b"".join(line % number for number in range(at, min(at + 1000, jobs))) for at in range(0, jobs, 1000)]
    settings = BatchSettings(cwd="/tmp")
    before_bytes = pss_bytes(site.hub.pid)
    began_s = time.monotonic()
    submitted = client.submit(body, settings, env={b"PATH": b"/usr/bin:/bin"})
    acknowledged_s = time.monotonic() - began_s
    assert submitted.jobs == jobs
    time.sleep(0.3)  # the checkpoint under way is not a job's weight
    grown_bytes = pss_bytes(site.hub.pid) - before_bytes
    client.close()
    return {"acknowledged_s": acknowledged_s, "hub_bytes_per_waiting_job": grown_bytes / jobs}


def _status(hub: Path, jobs: int) -> dict[str, float]:
    """`lanai status` as a whole process, with all of them waiting."""
    environment = bare_environment() | {"LANAI_HUB": str(hub)}
    words = [os.path.join(os.path.dirname(sys.executable), "lanai"), "status", "--format", "json"]
    times_s = []
    for _ in range(3):
        began_s = time.monotonic()
        shown = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
        times_s.append(time.monotonic() - began_s)
    assert str(jobs) in shown
    return {"status_s": sorted(times_s)[1]}


def _restart(site: Site, directory: Path) -> dict[str, float]:
    began_s = time.monotonic()
    began_us = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    agent = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fake_agents.py")), str(directory / "hub"), "--first-grant"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=bare_environment(),
    )
    site.hub = start_hub(directory / "hub")
    ready_s = time.monotonic() - began_s
    first_us = int(agent.communicate(timeout=60)[0])
    wire = HubWire(directory / "hub")
    status = wire.command("status")
    assert isinstance(status, dict)
    assert status["batches"]
    wire.close()
    return {"restart_ready_s": ready_s, "restart_to_dispatch_s": (first_us - began_us) / 1e6}


if __name__ == "__main__":
    print(json.dumps(million(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)))
