"""What `lanai simulate` does between its command line and its output: workloads, their replays, and the printing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

import msgspec

from lanai.cli.listings import REPLAYS
from lanai.cli.replacing import replaced
from lanai.cli.tables import View, print_rows
from lanai.cli.terminal import printable
from lanai.model.errors import NothingThere, UserError
from lanai.sim.machines import MachineNode, cpus_of, read_nodes
from lanai.sim.measures import Measures, measure, start_lines
from lanai.sim.policies import PlannerMaker
from lanai.sim.replay import replay
from lanai.sim.swf import Reading, Trace, record, select
from lanai.sim.whatif import changed, read_what_if

Telling = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
NODES_FILE_CHARACTERS: Final = 64 << 20


class Workload(NamedTuple):
    """What is replayed. `what_if` is empty where it is as it was recorded."""

    what_if: str
    trace: Trace


class Result(NamedTuple):
    """A replay."""

    policy: str
    workload: Workload
    starts: list[int]
    measures: Measures


def read_machine(path: str) -> list[MachineNode]:
    """The nodes of a file. Raises UserError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(NODES_FILE_CHARACTERS + 1)
    except FileNotFoundError as error:
        raise NothingThere(f"there is no file {path}", facts={"file": path}) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found what is no UTF-8, accepted is text", facts={"file": path}) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", facts={"file": path}) from error
    if len(text) > NODES_FILE_CHARACTERS:
        raise UserError(f"{path}: found more than {NODES_FILE_CHARACTERS} characters, accepted is a list of nodes")
    return read_nodes(text, path)


def workloads(
    lines: Iterable[bytes],
    file: str,
    options: Mapping[str, Any],
    nodes: Sequence[MachineNode] | None,
    what_ifs: Sequence[str],
) -> list[Workload]:
    """The workload as it was recorded, and as it is with the changes asked for, each once.

    Raises:
        UserError: a damaged line, or changes that cannot be made.
    """
    asked = {what_if.text: what_if for what_if in map(read_what_if, what_ifs)}
    reading = Reading(**options)
    if nodes is not None:
        reading = msgspec.structs.replace(reading, procs=cpus_of(nodes))
    recorded = record(lines, file, reading)
    found = [Workload("", select(recorded, reading))]
    for text, what_if in asked.items():
        found.append(Workload(text, select(changed(recorded, nodes, what_if), reading)))
    return found


def run(
    planners: Mapping[str, PlannerMaker], workloads: Sequence[Workload], telling: Telling
) -> Iterator[Result]:
    """Replay each workload under each policy; what is of one policy comes together."""
    for policy, planner in planners.items():
        for workload in workloads:
            with telling(_name(policy, workload), len(workload.trace.jobs)) as tell:
                starts = replay(workload.trace, planner(workload.trace), tell)
            yield Result(policy, workload, starts, measure(workload.trace, starts))


def write_starts(path: str, result: Result) -> None:
    """Lines `id submit start end`. Raises UserError."""
    with replaced(path) as target:
        target.writelines(start_lines(result.workload.trace, result.starts))


def draw(directory: str, estimates: str, results: Sequence[Result]) -> list[str]:
    """The pictures of all replays; returns the files. Raises UserError."""
    from lanai.cli.plots import Drawn
    from lanai.cli.plots import draw as draw_all

    trace = results[0].workload.trace
    name = "standard input" if trace.file == "-" else printable(trace.file.rpartition("/")[2])
    title = f"{name} on {trace.procs:,} processors" + ("" if estimates == "requested" else f", estimates {estimates}")
    drawn = [Drawn(_name(each.policy, each.workload), each.workload.trace, each.starts) for each in results]
    return draw_all(directory, title, drawn)


def print_results(
    workloads: Sequence[Workload],
    nodes: Sequence[MachineNode] | None,
    results: Sequence[Result],
    files: Sequence[str],
    format_: str,
) -> None:
    """The table with what was read and skipped beneath it, or the same as JSON."""
    rows = [
        {"policy": each.policy, "what_if": each.workload.what_if or None, **msgspec.structs.asdict(each.measures)}
        for each in results
    ]
    if format_ == "json":
        said: dict[str, Any] = {"version": 1, "trace": _described(workloads[0].trace), "policies": rows}
        said["what_ifs"] = [{"what_if": each.what_if, **_described(each.trace)} for each in workloads[1:]]
        said["machine_nodes"] = None if nodes is None else len(nodes)
        said["plots"] = list(files)
        print(json.dumps(said, indent=2))
        return
    columns = REPLAYS.shown if len(workloads) == 1 else ("policy", "what_if", *REPLAYS.shown[1:])
    print_rows(REPLAYS, rows, View(columns=columns))
    print()
    if nodes is not None:
        print(f"{len(nodes)} nodes, taken for one machine with their {cpus_of(nodes)} cpus together")
    for workload in workloads:
        _print_workload(workload)
    for file in files:
        print(f"drawn: {file}")


def _print_workload(workload: Workload) -> None:
    trace = workload.trace
    changed = f", {workload.what_if}" if workload.what_if else ""
    print(f"{trace.file}{changed}: {trace.read} jobs read, {len(trace.jobs)} run on {trace.procs} processors")
    for skipped in trace.skipped:
        more = ", ..." if skipped.count > len(skipped.lines) else ""
        lines = ", ".join(map(str, skipped.lines))
        print(f"skipped: {skipped.count} with {skipped.reason}: {trace.file}:{lines}{more}")


def _described(trace: Trace) -> dict[str, Any]:
    return {
        "file": trace.file,
        "procs": trace.procs,
        "jobs_read": trace.read,
        "jobs_run": len(trace.jobs),
        "skipped_invalid": trace.skipped_as("invalid"),
        "skipped_wide": trace.skipped_as("wide"),
        "skipped": msgspec.to_builtins(trace.skipped),
    }


def _name(policy: str, workload: Workload) -> str:
    return f"{policy}, {workload.what_if}" if workload.what_if else policy
