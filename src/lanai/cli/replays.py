"""What `lanai simulate` does between its command line and its output: workloads, their replays, and the printing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from lanai.cli.listings import REPLAYS
from lanai.cli.replacing import replaced
from lanai.cli.replay_policies import is_of_site
from lanai.cli.tables import View, print_rows
from lanai.cli.terminal import printable
from lanai.model.errors import NothingThere, UserError
from lanai.sim.averages import Average, average
from lanai.sim.machines import MachineNode, cpus_of, read_nodes
from lanai.sim.measures import Measures, measure, start_lines
from lanai.sim.replay import replay
from lanai.sim.shaking import shaken
from lanai.sim.swf import Reading, Trace, record, select
from lanai.sim.whatif import changed, changed_nodes, read_what_if

if TYPE_CHECKING:
    from lanai.core.schedule.rigid import Planner

Telling = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
NODES_FILE_CHARACTERS: Final = 64 << 20
SHAKEN_SHOWN: Final = (
    *("policy", "copies", "wait_avg_s", "wait_avg_sd_s", "wait_max_s", "wait_max_sd_s", "slowdown_avg", "slowdown_sd"),
    *("utilisation", "fairness_jain"),
)


class Workload(NamedTuple):
    """What is replayed. `what_if` is empty where it is as it was recorded; `nodes` None for one machine."""

    what_if: str
    trace: Trace
    nodes: Sequence[MachineNode] | None = None


PlannerMaker: TypeAlias = "Callable[[Workload], Planner]"
"""What makes a new planner for the replay of a workload."""


class Shake(NamedTuple):
    """How workloads are shaken: so many copies, each submission by so many seconds at most."""

    copies: int
    most_s: int
    seed: int


class Result(NamedTuple):
    """A replay; or (`average`) those of several shaken copies, of which `starts` and `measures` are the last one's."""

    policy: str
    workload: Workload
    starts: list[int]
    measures: Measures
    average: Average | None = None


def read_machine(path: str) -> list[MachineNode]:
    """The nodes of a file. Raises UserError."""
    return read_nodes(text_of(path, NODES_FILE_CHARACTERS, "a list of nodes"), path)


def text_of(path: str, most: int, what: str) -> str:
    """The text of a file of at most so many characters, which is to be `what`. Raises UserError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(most + 1)
    except FileNotFoundError as error:
        raise NothingThere(f"there is no file {path}", facts={"file": path}) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found what is no UTF-8, accepted is text", facts={"file": path}) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", facts={"file": path}) from error
    if len(text) > most:
        raise UserError(f"{path}: found more than {most} characters, accepted is {what}")
    return text


def workloads(
    lines: Iterable[bytes],
    file: str,
    options: Mapping[str, Any],
    nodes: Sequence[MachineNode] | None,
    what_ifs: Sequence[str],
    *,
    goes_by_nodes: bool,
) -> list[Workload]:
    """The workload as it was recorded, and as it is with the changes asked for, each once.

    `goes_by_nodes`: some policy looks at the nodes themselves, and not only at their cpus together.

    Raises:
        UserError: a damaged line, or changes that cannot be made.
    """
    asked = {what_if.text: what_if for what_if in map(read_what_if, what_ifs)}
    reading = Reading(**options)
    if nodes is not None:
        reading = msgspec.structs.replace(reading, procs=cpus_of(nodes))
    recorded = record(lines, file, reading)
    machine = nodes if goes_by_nodes else None
    found = [Workload("", select(recorded, reading), machine)]
    for text, what_if in asked.items():
        trace = select(changed(recorded, nodes, what_if), reading)
        found.append(Workload(text, trace, changed_nodes(machine, what_if)))
    return found


def run(
    planners: Mapping[str, PlannerMaker], workloads: Sequence[Workload], telling: Telling, shake: Shake | None = None
) -> Iterator[Result]:
    """Replay each workload under each policy; what is of one policy comes together."""
    for policy, planner in planners.items():
        for workload in workloads:
            if shake is None:
                yield _replayed(policy, planner, workload, telling)
                continue
            copies = []
            for copy in range(1, shake.copies + 1):
                moved = shaken(workload.trace, shake.most_s, shake.seed, copy)
                copies.append(_replayed(policy, planner, workload._replace(trace=moved), telling, f" (copy {copy})"))
            yield copies[-1]._replace(workload=workload, average=average([each.measures for each in copies]))


def _replayed(policy: str, planner: PlannerMaker, workload: Workload, telling: Telling, which: str = "") -> Result:
    with telling(_name(policy, workload) + which, len(workload.trace.jobs)) as tell:
        starts = replay(workload.trace, planner(workload), tell)
    return Result(policy, workload, starts, measure(workload.trace, starts))


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
    rows = [{"policy": each.policy, "what_if": each.workload.what_if or None, **_measured(each)} for each in results]
    if format_ == "json":
        said: dict[str, Any] = {"version": 1, "trace": _described(workloads[0].trace), "policies": rows}
        said["what_ifs"] = [{"what_if": each.what_if, **_described(each.trace)} for each in workloads[1:]]
        said["machine_nodes"] = None if nodes is None else len(nodes)
        said["plots"] = list(files)
        print(json.dumps(said, indent=2))
        return
    shown = REPLAYS.shown if results[0].average is None else SHAKEN_SHOWN
    columns = shown if len(workloads) == 1 else ("policy", "what_if", *shown[1:])
    print_rows(REPLAYS, rows, View(columns=columns))
    print()
    if nodes is not None:
        print(_machine(nodes, [each.policy for each in results]))
    if results[0].average is not None:
        print(f"means of {results[0].average.copies} copies with shaken submissions; _sd: their standard deviation")
    for workload in workloads:
        _print_workload(workload)
    for file in files:
        print(f"drawn: {file}")


def _measured(result: Result) -> dict[str, Any]:
    if result.average is None:
        return msgspec.structs.asdict(result.measures)
    spread = result.average.deviations
    named = {"slowdown_sd": "slowdown_avg", "wait_avg_sd_s": "wait_avg_s", "wait_max_sd_s": "wait_max_s"}
    return {
        "copies": result.average.copies,
        **{name: round(mean, 4) for name, mean in result.average.means.items()},
        **{name: round(spread[of], 4) for name, of in named.items()},
        "deviations": spread,
    }


def _machine(nodes: Sequence[MachineNode], policies: Sequence[str]) -> str:
    """What the machine is to the policies."""
    cpus = f"{len(nodes)} nodes with {cpus_of(nodes)} cpus"
    whole = list(dict.fromkeys(name for name in policies if not is_of_site(name)))
    return f"{cpus}; for {', '.join(whole)} one machine with all of them" if whole else cpus


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
