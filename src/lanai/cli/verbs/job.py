"""List the jobs of a batch, or show one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import click

from lanai.cli.choose import Chosen, choose
from lanai.cli.context import Asked
from lanai.cli.listings import JOBS
from lanai.cli.main import Group
from lanai.cli.tables import Listing, View, for_people, print_object, print_rows, pushed_limit, view_of, view_options
from lanai.cli.terminal import write_bytes

if TYPE_CHECKING:
    from lanai.client.client import Client

ATTEMPTS: Final = Listing(
    kind="attempts",
    key="attempt",
    columns=(
        *("attempt", "state", "outcome", "exit_code", "signal", "node", "started_at", "ended_at", "wall_s"),
        *("cpu_user_s", "cpu_system_s", "memory_peak_bytes", "reason", "nodes"),
    ),
    shown=("attempt", "state", "outcome", "exit_code", "signal", "node", "started_at", "wall_s", "reason"),
)


@click.command(name="job", cls=Group)
def command() -> None:
    """List the jobs of a batch, or show one with all its attempts.

    \b
    Examples:
      lanai job list last --filter state=failed
      lanai job show 417/12
    """


@command.command("list")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@view_options
@click.pass_obj
def list_(
    asked: Asked,
    selectors: tuple[str, ...],
    format_: str,
    columns: str | None,
    filters: tuple[str, ...],
    limit: int | None,
) -> int:
    """List the jobs of batches (default: the newest), in order.

    Machine formats are printed as they come, however many jobs there are.

    \b
    Examples:
      lanai job list 417@failed
      lanai job list 417 --filter 'wall_s>10m' --columns id,wall_s,command
      lanai job list last --format ndjson
      lanai job list 417 --filter exit_code=2 --format quiet | lanai retry -
    """
    view = view_of(JOBS, format_, columns, filters, limit)
    chosen = choose(selectors)
    client = asked.connect()
    if view.format == "ndjson" and not view.columns and not view.filters:
        _pass_through(client, chosen, view)
        return 0
    print_rows(JOBS, chain.from_iterable(_jobs(client, each, view) for each in chosen), view)
    return 0


def _pass_through(client: Client, chosen: Sequence[Chosen], view: View) -> None:
    """Print jobs as the hub writes them: of a million, reading and writing them again takes a third of the time."""
    left = view.limit
    for each in chosen:
        if left == 0:
            return
        ranges = each.ranges_text or ""
        for page in client.job_lines(each.batch, states=each.states, ranges=ranges, limit=left or 0):
            write_bytes(page, sys.stdout)
            left = None if left is None else left - page.count(b"\n")


def _jobs(client: Client, chosen: Chosen, view: View) -> Iterator[dict[str, Any]]:
    """The jobs chosen; a filter that is only a state is left to the hub, which has an index for it."""
    states = chosen.states or _only_state(view)
    return client.jobs(chosen.batch, states=states, ranges=chosen.ranges_text or "", limit=pushed_limit(view))


def _only_state(view: View) -> tuple[str, ...]:
    from lanai.model.job import JobState

    named = [text.removeprefix("state=") for text in view.filters if text.startswith("state=")]
    return (named[0],) if len(named) == 1 and named[0] in frozenset(JobState) else ()


@command.command("show")
@click.argument("selectors", nargs=-1, required=True, metavar="JOB...")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.pass_obj
def show(asked: Asked, selectors: tuple[str, ...], format_: str) -> int:
    """Show jobs with all their attempts.

    \b
    Examples:
      lanai job show 417/12
      lanai job show last/1 --format json
    """
    from lanai.model.ranges import iterate

    client = asked.connect()
    for each in choose(selectors):
        if each.ranges is None or each.states:
            raise click.UsageError("name jobs, such as 417/12 or last/1-3")
        for index in iterate(each.ranges):
            job = client.job(each.batch, index)
            if format_ == "json":
                print_object("job", job)
            else:
                _print_job(job)
    return 0


def _print_job(job: dict[str, Any]) -> None:
    tried = job.get("attempts_list") or []
    for name in (*JOBS.columns, "nodes"):
        if job.get(name) not in (None, ""):
            print(f"{name + ':':18} {for_people(name, job[name])}")
    if tried:
        print()
        print_rows(ATTEMPTS, tried, View())
