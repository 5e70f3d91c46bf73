"""Replay a recorded workload against one or more policies, and compare them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import click

from lanai.cli.terminal import CLEAR_LINE, has_cursor, say, talk

if TYPE_CHECKING:
    from lanai.cli.context import Asked

MOST_BYTES: Final = 1 << 20
GZIP: Final = b"\x1f\x8b"
QUIET_S: Final = 1.0
LIVE_S: Final = 0.2
LINE_S: Final = 10.0

EPILOG: Final = """\b
Policies:
  fcfs, sjf, wfp3              in order; the first that does not fit blocks all
  easy, sjf+easy, wfp3+easy    the same, with EASY backfill behind it
  easy-sjbf                    easy, backfilled shortest first
  conservative                 a reservation for every waiting job
  depth:D                      reservations for the first D that do not fit
  fair, tight                  the hub's own pass under a preset of its policy
  live                         the same under the policy in force at the hub
  FILE.toml                    the same under a policy as in `lanai policy`

\b
Examples:
  lanai simulate SDSC-SP2.swf.gz --policy easy
  lanai simulate SDSC-SP2.swf.gz --policy fcfs,easy,easy-sjbf,conservative --head 10000
  lanai simulate CEA-Curie.swf.gz --policy easy --procs 80640 --estimates actual --format json
  lanai simulate KTH-SP2.swf.gz --policy easy-sjbf --estimates predicted
  lanai simulate SDSC-SP2.swf.gz --policy easy --what-if procs+=64 --what-if load*=1.2,procs+=64
  lanai simulate SDSC-SP2.swf.gz --policy fcfs,easy --plots pictures
  lanai simulate lublin_256.swf --policy depth:64 --starts starts.txt
  lanai simulate history.swf --policy live,new.toml --nodes nodes.txt --what-if nodes+=20
  lanai simulate KTH-SP2.swf.gz --policy easy,easy-sjbf,tight --shake 10
"""


@click.command(name="simulate", epilog=EPILOG)
@click.argument("trace", metavar="TRACE")
@click.option(
    "--policy", "policies", metavar="POLICY,...", multiple=True, required=True, help="Who starts when. May be repeated."
)
@click.option("--head", type=click.IntRange(min=1), metavar="N", help="Only the first N jobs of the file.")
@click.option(
    "--procs",
    type=click.IntRange(min=1),
    metavar="P",
    help="Processors of the machine. Default: MaxProcs of the trace, else MaxNodes.",
)
@click.option(
    "--nodes",
    "nodes_file",
    metavar="FILE",
    help="The machine as nodes, one `name cpus memory gpus features` a line, or TOML. For policies that are not the "
    "hub's it is their cpus together.",
)
@click.option(
    "--what-if",
    "what_ifs",
    metavar="CHANGE,...",
    multiple=True,
    help="Besides, the same with another machine or load: procs+=64, nodes=20, load*=1.2, run*=0.8. May be repeated.",
)
@click.option(
    "--estimates",
    type=click.Choice(["requested", "actual", "predicted"]),
    default="requested",
    show_default=True,
    help="What policies know of run times: the time requested (where there is none, the run time), the run time, or a "
    "prediction: the mean of the user's last two, at most the time requested, which counts once it is outlived.",
)
@click.option(
    "--overrun",
    type=click.Choice(["raise", "kill"]),
    default="raise",
    show_default=True,
    help="A job longer than requested: raise its estimate to the run time, or kill it at the estimate.",
)
@click.option(
    "--width",
    type=click.Choice(["requested", "allocated", "max"]),
    default="requested",
    show_default=True,
    help="Processors of a job: those requested or those allocated, the other where it is not known, or the larger.",
)
@click.option("--keep-zero", "keeps_zero", is_flag=True, help="Keep jobs with a run time of 0.")
@click.option(
    "--shake",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Replay N copies with submissions moved a little at random, and print means and standard deviations.",
)
@click.option(
    "--shake-s",
    type=click.IntRange(0, 86_400),
    default=60,
    show_default=True,
    metavar="S",
    help="By so many seconds at most, to and fro.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Of the moves: with the same seed they are the same.",
)
@click.option("--starts", metavar="FILE", help="Write `id submit start end` of each job to FILE; for one policy.")
@click.option("--plots", metavar="DIR", help="Draw utilisation, queue length and waits into DIR, as PNG and SVG.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.pass_obj
def command(
    asked: Asked,
    /,
    trace: str,
    policies: tuple[str, ...],
    nodes_file: str | None,
    what_ifs: tuple[str, ...],
    shake: int | None,
    shake_s: int,
    seed: int,
    starts: str | None,
    plots: str | None,
    format_: str,
    **reading: Any,
) -> int:
    """Replay TRACE, a workload in the Standard Workload Format, and print how its jobs would have fared.

    The trace may be compressed by gzip; `-` is standard input. The machine is one of P equal processors. Jobs that
    cannot be replayed (negative times, wider than the machine) are skipped, counted, and named by their lines; a
    damaged line ends the command.
    """
    from lanai.cli import replays
    from lanai.cli.replay_policies import is_of_site, planner_maker

    names = _names(policies)
    if starts is not None and len(names) + len(what_ifs) > 1:
        raise click.UsageError("--starts takes the starts of one policy, and there are several")
    if starts in ("", "-"):
        raise click.UsageError("--starts needs the name of a file")
    if nodes_file is not None and reading["procs"] is not None:
        raise click.UsageError("--procs and --nodes both say how large the machine is: give one of them")
    if shake is not None and (starts is not None or plots is not None):
        raise click.UsageError("--shake replays many copies: --starts and --plots are for one")
    if plots is not None:
        _require_plots(plots)
    planners = {name: planner_maker(name, reading["estimates"], asked) for name in names}
    nodes = None if nodes_file is None else replays.read_machine(nodes_file)
    with _lines(trace) as lines:
        goes_by_nodes = any(map(is_of_site, names))
        workloads = replays.workloads(lines, trace, reading, nodes, what_ifs, goes_by_nodes=goes_by_nodes)
    shaking = None if shake is None else replays.Shake(shake, shake_s, seed)
    results = list(replays.run(planners, workloads, _telling, shaking))
    if starts is not None:
        replays.write_starts(starts, results[0])
    files = [] if plots is None else replays.draw(plots, reading["estimates"], results)
    replays.print_results(workloads, nodes, results, files, format_)
    return 0


def _require_plots(directory: str) -> None:
    from lanai.cli.plots import require

    if directory == "":
        raise click.UsageError("--plots needs the name of a directory")
    require()


def _names(policies: Sequence[str]) -> list[str]:
    """The policies asked for, each once, in the order in which they were named."""
    named = [name.strip() for some in policies for name in some.split(",")]
    return list(dict.fromkeys(name for name in named if name)) or [""]


# -- reading


@contextmanager
def _lines(path: str) -> Iterator[Iterator[bytes]]:
    """The lines of a file, unpacked if need be."""
    from lanai.model.errors import NothingThere, UserError

    if path == "-":
        yield _unpacked(sys.stdin.buffer, path)
        return
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise NothingThere(f"there is no file {path}", facts={"file": path}) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", facts={"file": path}) from error
    with file:
        yield _unpacked(file, path)


def _unpacked(file: Any, path: str) -> Iterator[bytes]:
    import gzip
    import zlib

    from lanai.model.errors import UserError

    number = 0
    try:
        source = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == GZIP else file
        for number, line in enumerate(iter(partial(source.readline, MOST_BYTES), b""), 1):
            if len(line) == MOST_BYTES:
                raise UserError(
                    f"{path}:{number}: found a line of more than {MOST_BYTES} bytes, accepted is a line of SWF",
                    facts={"file": path, "line": number},
                )
            yield line
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(
            f"{path}:{number + 1}: cannot read on: {error}", facts={"file": path, "line": number + 1}
        ) from error


# -- telling


@contextmanager
def _telling(name: str, count: int) -> Iterator[Any]:
    """Says how far a replay has come, once it has taken more than `QUIET_S`."""
    begun = last = monotonic()
    is_live = has_cursor(sys.stderr)
    has_told = False

    def tell(started: int) -> None:
        nonlocal last, has_told
        now = monotonic()
        if now - begun < QUIET_S or has_told and now - last < (LIVE_S if is_live else LINE_S):
            return
        last, has_told = now, True
        text = f"{name}: {started:,} of {count:,} jobs started"
        if is_live:
            talk(CLEAR_LINE + text)
        else:
            say(text)

    try:
        yield tell
    finally:
        if has_told and is_live:
            talk(CLEAR_LINE)
