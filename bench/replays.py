"""How quick replays are: jobs of a trace a second, from the first event to the last effect, and as a whole command."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from processes import bare_environment

from lanai.sim.policies import planner_of
from lanai.sim.replay import replay
from lanai.sim.swf import Reading, Trace, read_trace


def read(path: Path) -> Trace:
    """The trace of a file in the Standard Workload Format, packed by gzip if its name ends in `.gz`."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        return read_trace(lines, str(path), Reading())


def in_process(trace: Trace, policy: str, repeats: int) -> float:
    """Jobs a second of a replay in this process, the trace read before; the median."""
    planner = planner_of(policy)
    assert planner is not None
    rates = []
    for _ in range(repeats):
        began_s = time.monotonic()
        replay(trace, planner(trace.procs))
        rates.append(len(trace.jobs) / (time.monotonic() - began_s))
    return median(rates)


def whole_command(path: Path, jobs: int, policy: str, repeats: int) -> float:
    """Jobs a second of `lanai simulate`, from its start to its exit; the median."""
    rates = []
    for _ in range(repeats):
        began_s = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "lanai", "simulate", str(path), "--policy", policy],
            check=True,
            stdout=subprocess.DEVNULL,
            env=bare_environment(),
        )
        rates.append(jobs / (time.monotonic() - began_s))
    return median(rates)
