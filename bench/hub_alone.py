"""The hub with simulated agents: what its core, store and wire carry, and what a thousand quiet agents cost it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hubwire import HubWire
from processes import bare_environment, cpu_us, scratch, start_hub

LINE = b"/bin/true"


@contextmanager
def fake_agents(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Simulated agents, all of them welcome. They end when the block does."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fake_agents.py")), str(directory), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=bare_environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the simulated agents did not get in")
        yield process
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def full_frames(jobs: int, *, agents: int = 8, cpus: int = 64) -> dict[str, float]:
    """Jobs a second through the hub, with agents that answer whole grants at once.

    From before Close to the commit of the last result; the chunks are there already.
    """
    with scratch() as directory:
        hub = start_hub(directory / "hub")
        try:
            with fake_agents(directory / "hub", "--agents", str(agents), "--cpus", str(cpus)):
                wire = HubWire(directory / "hub")
                batch = wire.open()
                wire.fill(batch, LINE, jobs)
                before_us = cpu_us(hub.pid)
                began_s = time.monotonic()
                wire.finish(batch, jobs)
                wire.wait_until_ended(batch)
                wall_s = time.monotonic() - began_s
                hub_us = cpu_us(hub.pid) - before_us
                wire.close()
        finally:
            hub.stop()
    return {"jobs_per_s": jobs / wall_s, "hub_cpu_us_per_job": hub_us / jobs, "wall_s": wall_s}


def kept_full(seconds: float, *, agents: int = 1000, cpus: int = 2, job_s: float = 1.0) -> dict[str, float]:
    """The hub's share of a core while `agents` agents are kept full of jobs of `job_s`."""
    with scratch() as directory:
        hub = start_hub(directory / "hub")
        try:
            arguments = ["--agents", str(agents), "--cpus", str(cpus), "--job-s", str(job_s)]
            with fake_agents(directory / "hub", *arguments):
                wire = HubWire(directory / "hub")
                wire.submit(LINE, round(agents * cpus / job_s * (seconds + 10)))
                time.sleep(4 * job_s)  # the agents fill, their run times become known
                before_us, before = cpu_us(hub.pid), _done(wire)
                began_s = time.monotonic()
                time.sleep(seconds)
                done, wall_s = _done(wire) - before, time.monotonic() - began_s
                share = (cpu_us(hub.pid) - before_us) / 1e6 / wall_s
                wire.close()
        finally:
            hub.kill()
    return {"jobs_per_s": done / wall_s, "hub_share_of_core": share, "hub_cpu_us_per_job": share * wall_s / done * 1e6}


def _done(wire: HubWire) -> int:
    status = wire.command("status")
    assert isinstance(status, dict)
    return int(status["batches"][0]["counts"]["done"])


if __name__ == "__main__":
    kind = sys.argv[1] if len(sys.argv) > 1 else "full"
    found = full_frames(int(sys.argv[2])) if kind == "full" else kept_full(float(sys.argv[2]))
    print(json.dumps(found))
