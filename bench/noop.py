"""No-op jobs end to end: Lanai, the yardstick and the peers, in turns within one run.

Every contender's run stands directly behind a run of the yardstick with the same program, and its ratio is to that one,
because absolute rates drift on a shared machine. Lanai's time goes from before the submission to the answer that says
the batch has ended, which the hub gives after the commit of the last result.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from processes import bare_environment, cpu_us, scratch
from sites import NODE, SLOTS, site

from lanai.client import Client
from lanai.model.batch import BatchSettings
from lanai.model.resources import Shape

HERE = Path(__file__).parent
SILENT = ("/bin/true",)
TALKING = ("/bin/echo", "x")
LIMIT_BYTES = 64 << 20
NO_LIMIT = Shape()
OTHER = "nobody"


@dataclass
class Run:
    """One run of a contender."""

    jobs_per_s: float
    yardstick_per_s: float
    cpu_us: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """To the yardstick beside it."""
        return self.jobs_per_s / self.yardstick_per_s


class Yardstick:
    """The C program, compiled for this run."""

    def __init__(self, directory: Path) -> None:
        self._program = directory / "yardstick"
        subprocess.run(["gcc", "-O2", "-o", self._program, HERE / "yardstick.c"], check=True)

    def jobs_per_s(self, jobs: int, command: tuple[str, ...]) -> float:
        """Its rate now."""
        mode = "null" if command == SILENT else "append"
        words = [str(self._program), str(jobs), str(SLOTS), mode, *command]
        seconds = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[0]
        return jobs / float(seconds)


def run_lanai(jobs: int, command: tuple[str, ...], yardstick: Callable[[], float]) -> Run:
    """One batch through fresh processes, which are warm by a small batch before."""
    return _run_site(jobs, command, yardstick)


def run_in_cgroups(jobs: int, command: tuple[str, ...], yardstick: Callable[[], float]) -> Run:
    """The same with a memory limit for each job, kept by the kernel."""
    return _run_site(jobs, command, yardstick, shape=Shape(memory_bytes=LIMIT_BYTES))


def run_as_another_user(jobs: int, command: tuple[str, ...], yardstick: Callable[[], float]) -> Run:
    """The same by a token over TLS, through an agent of root's that starts the commands as that user."""
    if os.geteuid() != 0:
        raise RuntimeError("an agent that runs jobs as their users is root's: run it as root")
    return _run_site(jobs, command, yardstick, user=OTHER)


def _run_site(
    jobs: int,
    command: tuple[str, ...],
    yardstick: Callable[[], float],
    *,
    shape: Shape = NO_LIMIT,
    user: str | None = None,
) -> Run:
    settings = BatchSettings(cwd="/tmp", name="bench", shape=shape)
    with site(user) as here:
        client = here.client()
        if shape.memory_bytes:
            _check_limit(client)
        _run_batch(client, 500, command, settings)
        beside = yardstick()
        pids = here.processes()
        before = {part: cpu_us(pid) for part, pid in pids.items()}
        client_s = time.process_time()
        wall_s = _run_batch(client, jobs, command, settings)
        used = {part: (cpu_us(pid) - before[part]) / jobs for part, pid in pids.items()}
        used["client"] = (time.process_time() - client_s) / jobs * 1e6
        client.close()
    return Run(jobs / wall_s, beside, used)


def _check_limit(client: Client) -> None:
    limit = client.node(NODE)["facts"]["memory_limit"]
    if not limit.startswith("by cgroup"):
        raise RuntimeError(f"memory is not limited by cgroups here, but {limit}")


def _run_batch(client: Client, jobs: int, command: tuple[str, ...], settings: BatchSettings) -> float:
    line = " ".join(command).encode() + b"\n"
    began_s = time.monotonic()
    submitted = client.submit([line * jobs], settings, env={b"PATH": b"/usr/bin:/bin"})
    counts = client.wait(submitted.batch)["counts"]
    wall_s = time.monotonic() - began_s
    if counts["done"] != jobs:
        raise RuntimeError(f"of {jobs} jobs {counts} ended well")
    return wall_s


def run_xargs(jobs: int, command: tuple[str, ...], yardstick: Callable[[], float]) -> Run:
    """xargs -P2, one command a line."""
    return _timed(jobs, ["xargs", f"-P{SLOTS}", "-n1", *command], yardstick, feeds="x\n")


def run_parallel(jobs: int, command: tuple[str, ...], yardstick: Callable[[], float]) -> Run:
    """GNU parallel with its job log."""
    with scratch() as directory:
        log = str(directory / "joblog")
        words = ["parallel", f"-j{SLOTS}", "--joblog", log, *command, "{}"]
        return _timed(jobs, words, yardstick, feeds="x\n", home=directory)


def run_make(jobs: int, command: tuple[str, ...], yardstick: Callable[[], float]) -> Run:
    """make -j2 with as many phony targets."""
    with scratch() as directory:
        names = " ".join(f"t{number}" for number in range(jobs))
        (directory / "Makefile").write_text(f"all: {names}\n.PHONY: all {names}\n{names}:\n\t@{' '.join(command)}\n")
        return _timed(jobs, ["make", "-s", f"-j{SLOTS}", "-C", str(directory), "all"], yardstick)


def run_hyperqueue(jobs: int, command: tuple[str, ...], yardstick: Callable[[], float]) -> Run:
    """HyperQueue's server and worker from its wheel; its own submission is within the time, its start is not."""
    beside = yardstick()
    words = [sys.executable, str(HERE / "hq_noop.py"), str(jobs), str(SLOTS), *command]
    found = subprocess.run(words, capture_output=True, text=True, env=bare_environment())
    if found.returncode:
        raise RuntimeError(found.stderr[-500:])
    wall_s, cpu = map(float, found.stdout.split())
    return Run(jobs / wall_s, beside, {"all": cpu})


def _timed(
    jobs: int, words: list[str], yardstick: Callable[[], float], *, feeds: str = "", home: Path | None = None
) -> Run:
    beside = yardstick()
    environment = bare_environment() | ({"HOME": str(home)} if home else {})
    with tempfile.TemporaryFile("w+") as list_file:
        list_file.write(feeds * jobs)
        list_file.seek(0)
        began_s = time.monotonic()
        subprocess.run(
            words, stdin=list_file, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=environment
        )
        wall_s = time.monotonic() - began_s
    return Run(jobs / wall_s, beside)


Contender = Callable[[int, tuple[str, ...], Callable[[], float]], Run]


def compare(
    contenders: dict[str, tuple[Contender, int, tuple[str, ...]]], *, rounds: int, say: Callable[[str], None]
) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """All contenders in turns, `rounds` times: name -> (how, jobs, command). Returns runs, and why some are missing."""
    runs: dict[str, list[Run]] = {}
    missing: dict[str, str] = {}
    with scratch() as directory:
        stick = Yardstick(directory)
        for number in range(rounds):
            for name, (contender, jobs, command) in contenders.items():
                if name in missing:
                    continue

                def beside(jobs: int = jobs, command: tuple[str, ...] = command) -> float:
                    return stick.jobs_per_s(min(jobs, 5000), command)

                try:
                    run = contender(jobs, command, beside)
                except (FileNotFoundError, RuntimeError, subprocess.CalledProcessError) as error:
                    missing[name] = str(error)
                    say(f"{name}: left out: {error}")
                    continue
                runs.setdefault(name, []).append(run)
                say(f"round {number + 1} {name}: {run.jobs_per_s:,.0f} jobs/s, {run.ratio:.2f} of the yardstick")
    return runs, missing


def summary(runs: list[Run]) -> dict[str, object]:
    """Medians over the rounds."""
    parts = runs[0].cpu_us.keys()
    return {
        "jobs_per_s": median(run.jobs_per_s for run in runs),
        "yardstick_per_s": median(run.yardstick_per_s for run in runs),
        "ratio": median(run.ratio for run in runs),
        "ratios": [round(run.ratio, 3) for run in runs],
        "cpu_us_per_job": {part: round(median(run.cpu_us.get(part, 0.0) for run in runs), 1) for part in parts},
    }
