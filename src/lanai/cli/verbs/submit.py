"""Submit a job list and return at once."""

from __future__ import annotations

import json
from typing import Any

import click

from lanai.cli.context import Asked
from lanai.cli.submission import submit_options


@click.command(name="submit")
@click.argument("job_list", metavar="FILE|-")
@submit_options
@click.option("--hold", is_flag=True, help="Hold all its jobs from the start, until `lanai release`.")
@click.option(
    "--format", "format_", type=click.Choice(["table", "json", "quiet"]), default="table", help="How to print."
)
@click.pass_obj
def command(asked: Asked, /, job_list: str, format_: str, **options: Any) -> int:
    """Submit a job list, one command a line, and return once it is on the hub's disk.

    \b
    Examples:
      lanai submit jobs.txt
      id=$(lanai submit jobs.txt --key nightly-2026-11-21 --format quiet)
      make-list | lanai submit - --name tonight --max-running 10
      lanai submit jobs.txt --hold
    """
    from lanai.cli.submit import submit_list

    _, submitted = submit_list(asked, job_list, options)
    match format_:
        case "quiet":
            print(submitted.batch)
        case "json":
            answer = {"batch": submitted.batch, "jobs": submitted.jobs, "existed": submitted.existed}
            print(json.dumps({"version": 1, **answer}))
        case _:
            existed = " (submitted before with this key)" if submitted.existed else ""
            print(f"batch {submitted.batch}: {submitted.jobs:,} {'job' if submitted.jobs == 1 else 'jobs'}{existed}")
    return 0
