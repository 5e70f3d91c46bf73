"""`make bench`: every measure in turn, one table at the end, the same as JSON in bench/results.json.

    python bench/run.py [--quick | --full] [--only NAME]... [--json FILE] [--trace FILE]

Figures are what was measured, reached or not. `--quick` is for trying things out (two minutes), the default ends within
about ten minutes on two cores, `--full` repeats more. Replays need a trace, which is not part of Lanai: the figures to
reach are for SDSC-SP2, whole (LANAI_BENCH_TRACE names it to `make bench`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hub_alone
import latency
import noop
import passes
import replays
import submission
from budgets import BUDGETS
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results.json")

RATIOS = {"captured": "captured ratio", "in cgroups": "ratio in cgroups", "another user": "ratio as another user"}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    rounds: int
    many_rounds: int
    few_jobs: int
    many_jobs: int
    slow_jobs: int
    frame_jobs: int
    full_s: float
    lines: int
    repeats: int
    peer_jobs: int
    trace: Path | None = None


SCALES = {
    "quick": Scale(1, 0, 2_000, 0, 500, 100_000, 4, 200_000, 3, 5_000),
    "default": Scale(3, 1, 10_000, 100_000, 2_000, 500_000, 10, 1_000_000, 7, 100_000),
    "full": Scale(5, 3, 10_000, 100_000, 10_000, 2_000_000, 30, 1_000_000, 15, 100_000),
}


@dataclass
class Report:
    """Rows for the table and everything for the JSON file."""

    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)

    def against(self, title: str, budget: str, value: float) -> None:
        """A row with a figure to reach."""
        wanted = BUDGETS[budget]
        unit = f" {wanted.unit}" if wanted.unit else ""
        verdict = wanted.verdict(value)
        self.rows.append((title, _number(value) + unit, _number(wanted.must), _number(wanted.aim), verdict))
        self.results.setdefault("budgets", {})[title] = {
            "value": value, "unit": wanted.unit, "must": wanted.must, "aim": wanted.aim, "verdict": verdict,
        }  # fmt: skip

    def beside(self, title: str, text: str) -> None:
        """A row to compare with."""
        self.rows.append((title, text, "", "", ""))


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 1 else f"{value:.4g}"


def measure_noop(report: Report, scale: Scale, say: Callable[[str], None]) -> None:
    """No-op jobs end to end, peers in turns."""
    few, slow = scale.few_jobs, scale.slow_jobs
    contenders: dict[str, tuple[noop.Contender, int, tuple[str, ...]]] = {
        f"lanai, {few:,} silent": (noop.run_lanai, few, noop.SILENT),
        f"lanai, {few:,} in cgroups": (noop.run_in_cgroups, few, noop.SILENT),
        f"lanai, {few:,} over TLS as another user": (noop.run_as_another_user, few, noop.TALKING),
        f"make -j2, {few:,}": (noop.run_make, few, noop.SILENT),
        f"xargs -P2, {few:,}": (noop.run_xargs, few, noop.SILENT),
        f"lanai, {few:,} captured": (noop.run_lanai, few, noop.TALKING),
        f"HyperQueue, {few:,}": (noop.run_hyperqueue, few, noop.SILENT),
        f"GNU parallel, {slow:,}": (noop.run_parallel, slow, noop.SILENT),
    }
    runs, missing = noop.compare(contenders, rounds=scale.rounds, say=say)
    if scale.many_rounds:
        many = scale.many_jobs
        more, lacking = noop.compare(
            {
                f"lanai, {many:,} silent": (noop.run_lanai, many, noop.SILENT),
                f"lanai, {many:,} captured": (noop.run_lanai, many, noop.TALKING),
            },
            rounds=scale.many_rounds,
            say=say,
        )
        runs, missing = runs | more, missing | lacking
    report.results["noop"] = {"missing": missing}
    for name, found in runs.items():
        _noop_rows(report, name, noop.summary(found))
    for name, why in missing.items():
        report.beside(name, f"left out: {why.splitlines()[0][:60]}")


def _noop_rows(report: Report, name: str, found: dict[str, Any]) -> None:
    report.results["noop"][name] = found
    rate = f"{found['jobs_per_s']:,.0f} jobs/s"
    if not name.startswith("lanai"):
        report.beside(name, f"{found['ratio']:.2f} ({rate})")
        return
    budget = next((of for end, of in RATIOS.items() if name.endswith(end)), "silent ratio")
    report.against(f"{name}: ratio to the yardstick", budget, found["ratio"])
    report.against(f"{name}: hub CPU", "hub cpu", found["cpu_us_per_job"]["hub"])
    parts = ", ".join(f"{part} {value:.0f}" for part, value in found["cpu_us_per_job"].items())
    report.beside(f"{name}: CPU us/job", f"{parts} ({rate})")


def measure_hub(report: Report, scale: Scale, say: Callable[[str], None]) -> None:
    """The hub alone with simulated agents."""
    frames = hub_alone.full_frames(scale.frame_jobs, agents=32)
    say(f"hub alone, full frames: {frames}")
    full = hub_alone.kept_full(scale.full_s)
    say(f"hub alone, 1,000 agents: {full}")
    report.results["hub_alone"] = {"full_frames": frames, "kept_full": full}
    report.against("hub, wire and store, full frames", "full frames", frames["jobs_per_s"])
    report.beside("the same: hub CPU us/job", f"{frames['hub_cpu_us_per_job']:.1f}")
    title = f"1,000 agents kept full, {full['jobs_per_s']:,.0f} jobs/s: hub's CPU"
    report.against(title, "kept full", full["hub_share_of_core"])


def measure_submission(report: Report, scale: Scale, say: Callable[[str], None]) -> None:
    """A million lines."""
    found = submission.million(scale.lines)
    say(f"{scale.lines:,} lines: {found}")
    report.results["submission"] = found | {"lines": scale.lines}
    report.against(f"{scale.lines:,} lines to acknowledgement", "acknowledged", found["acknowledged_s"])
    report.against("hub memory per waiting job", "waiting job", found["hub_bytes_per_waiting_job"])
    report.against("kill -9 and start, to first dispatch", "restart", found["restart_to_dispatch_s"])
    report.against(f"lanai status with {scale.lines:,} jobs", "status", found["status_s"])


def measure_latency(report: Report, scale: Scale, say: Callable[[str], None]) -> None:
    """One job, one command."""
    measures: dict[str, tuple[str, Callable[[int], float]]] = {
        "one job, submission to exec": ("start of a job", latency.one_job),
        "lanai run -- true, hub running": ("run, hub running", latency.run_with_hub),
        "lanai run -- true, nothing running": ("run, nothing running", latency.run_from_nothing),
        "lanai --help": ("help", latency.show_help),
    }
    found: dict[str, float] = {}
    for title, (budget, measure) in measures.items():
        found[title] = measure(scale.repeats)
        say(f"{title}: {found[title]:.4f} s")
        report.against(title, budget, found[title])
    report.results["latency_s"] = found


def measure_replays(report: Report, scale: Scale, say: Callable[[str], None]) -> None:
    """A recorded workload against policies."""
    if scale.trace is None:
        report.beside("replay of a trace", "left out: no trace is named (--trace FILE)")
        return
    trace = replays.read(scale.trace)
    found: dict[str, float] = {}
    for policy, budget in {"easy": "replay", "depth:64": "replay, depth 64", "conservative": "replay, all"}.items():
        found[policy] = replays.in_process(trace, policy, 3)
        say(f"replay, {policy}: {found[policy]:,.0f} jobs/s")
        report.against(f"replay of {len(trace.jobs):,} jobs, {policy}", budget, found[policy])
    found["tight"] = replays.by_the_hub(trace, "tight")
    say(f"replay, the hub's own pass, tight: {found['tight']:,.0f} jobs/s")
    report.against("replay by the hub's own pass, preset tight", "replay, the hub's pass", found["tight"])
    found["easy, whole command"] = replays.whole_command(scale.trace, len(trace.jobs), "easy", 3)
    report.against("lanai simulate, easy, whole command", "replay, whole command", found["easy, whole command"])
    head = min(scale.peer_jobs, len(trace.jobs))
    try:
        theirs, ours = replays.beside_accasim(trace, head)
    except RuntimeError as error:
        report.beside(f"AccaSim, easy, {head:,} jobs, whole command", f"left out: {str(error)[:60]}")
        found["accasim"] = 0.0
    else:
        say(f"AccaSim, easy, {head:,} jobs: {theirs:,.0f} jobs/s")
        report.beside(f"AccaSim, easy, {head:,} jobs, whole command", f"{theirs:,.0f} jobs/s")
        report.beside("lanai simulate, the same jobs", f"{ours:,.0f} jobs/s ({ours / theirs:.0f} times AccaSim)")
        found |= {"accasim": theirs, "beside accasim": ours}
    report.results["replays_jobs_per_s"] = found | {"trace": scale.trace.name}


def measure_passes(report: Report, scale: Scale, say: Callable[[str], None]) -> None:
    """One pass of the core in a large world, many nodes filled at once, and many reserved."""
    found: dict[str, dict[str, float]] = {}
    for depth in ("1", "16"):
        one = found[f"depth {depth}"] = passes.measured(depth)
        say(f"pass at depth {depth}: {one}")
        title = f"pass, depth {depth}: 10,000 nodes, {one['running']:,.0f} running, {one['waiting']:,.0f} waiting"
        report.beside(f"{title}: median", f"{one['median_ms']:.1f} ms")
        report.against(f"the same: 95th percentile of 60, depth {depth}", f"pass, depth {depth}", one["p95_ms"])
        report.against(f"the same: longest call, depth {depth}", "one call", one["longest_call_ms"])
        report.beside(f"the same: memory of the process, depth {depth}", f"{one['memory_mib']:.0f} MiB")
    filled = found["filled"] = passes.measured("fill")
    say(f"filled from empty: {filled}")
    title = f"{filled['started']:,.0f} slots over 1,000 nodes filled from empty"
    report.against(title, "filled from empty", filled["ms"])
    report.against(f"{title}: longest call", "one call", filled["longest_call_ms"])
    reserved = found["reserved"] = passes.measured("reserve")
    say(f"reserved: {reserved}")
    report.against("daily reservations over 10,000 nodes: longest call", "one call", reserved["longest_call_ms"])
    report.results["passes_ms"] = found


MEASURES = {
    "passes": measure_passes,
    "latency": measure_latency,
    "hub": measure_hub,
    "submission": measure_submission,
    "noop": measure_noop,
    "replays": measure_replays,
}


def main() -> None:
    """Measure, print, write."""
    options = _options()
    console = Console()
    report = Report()
    report.results = {
        "version": 1,
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "scale": options.scale,
        "load_before": os.getloadavg()[0],
    }
    began_s = time.monotonic()
    scale = replace(SCALES[options.scale], trace=options.trace)
    for name in options.only or MEASURES:
        MEASURES[name](report, scale, lambda line: print(line, file=sys.stderr, flush=True))
    report.results["took_s"] = round(time.monotonic() - began_s, 1)
    options.json.write_text(json.dumps(report.results, indent=2) + "\n")
    console.print(_table(report))
    load = report.results["load_before"]
    if load > 0.5:
        console.print(f"The machine was busy before (load {load:.1f}): only the ratios mean something.")


def _table(report: Report) -> Table:
    table = Table(title=f"{report.results['cpus']} cpus, {report.results['took_s']:.0f} s")
    table.add_column("measure", overflow="fold")
    for heading in ("found", "must", "aim", ""):
        table.add_column(heading, justify="right", overflow="fold")
    for row in report.rows:
        style = {"MISS": "red", "AIM": "green"}.get(row[4], "")
        table.add_row(*row, style=style)
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", dest="scale", action="store_const", const="quick")
    scale.add_argument("--full", dest="scale", action="store_const", const="full")
    parser.add_argument("--only", action="append", choices=MEASURES, help="may be repeated")
    parser.add_argument("--json", type=Path, default=RESULTS)
    trace = os.environ.get("LANAI_BENCH_TRACE")
    parser.add_argument("--trace", type=Path, default=Path(trace) if trace else None, help="in SWF; for replays")
    parser.set_defaults(scale="default")
    return parser.parse_args()


if __name__ == "__main__":
    main()
