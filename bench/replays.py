"""How quick replays are: jobs of a trace a second, from the first event to the last effect, and as a whole command.

AccaSim replays the same jobs beside it, as a whole command too. Its EASY does not decide quite as ours: jobs behind
the head may not use nodes that are reserved for it. So only speeds compare.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from processes import bare_environment

from lanai.model.policy import Policy, Preset
from lanai.sim.live import site_planner
from lanai.sim.policies import planner_of
from lanai.sim.replay import replay
from lanai.sim.swf import Reading, Trace, read_trace

ACCASIM = Path(__file__).with_name("accasim_replay.py")
ACCASIM_S = 600.0


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


def by_the_hub(trace: Trace, preset: Preset) -> float:
    """Jobs a second of a replay that the hub's own pass decides, in this process, the trace read before."""
    began_s = time.monotonic()
    replay(trace, site_planner(trace, Policy(preset=preset), None, predicts=False))
    return len(trace.jobs) / (time.monotonic() - began_s)


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


def beside_accasim(trace: Trace, head: int) -> tuple[float, float]:
    """Jobs a second of AccaSim, and of `lanai simulate`, under EASY on the first `head` jobs; each a whole command.

    Raises:
        RuntimeError: AccaSim is not there, or did not come to its end; says which.
    """
    with tempfile.TemporaryDirectory(prefix="lanai-replays-") as directory:
        path = Path(directory, "jobs.swf")
        count = _write(trace, head, path)
        theirs = _timed([str(ACCASIM), str(path), str(trace.procs)])
        ours = _timed(["-m", "lanai", "simulate", str(path), "--policy", "easy"])
    return count / theirs, count / ours


def _write(trace: Trace, head: int, path: Path) -> int:
    """The first jobs as plain SWF, with what both read alike; returns how many."""
    jobs = trace.jobs[:head]
    lines = [f"; MaxProcs: {trace.procs}\n"]
    for number, job in enumerate(jobs, 1):
        asked = f"{job.width} {job.estimate_s} -1 1 {job.user} 1 -1 1 1 -1 -1"
        lines.append(f"{number} {job.submit_s} -1 {job.run_s} {job.width} -1 -1 {asked}\n")
    path.write_text("".join(lines))
    return len(jobs)


def _timed(words: list[str]) -> float:
    """Seconds of a Python process from its start to its exit."""
    began_s = time.monotonic()
    command = [sys.executable, *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=bare_environment(), timeout=ACCASIM_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"had not ended after {ACCASIM_S:.0f} s") from error
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return time.monotonic() - began_s
