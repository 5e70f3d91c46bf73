"""Maui's commands for people who know them: showq, checkjob, showstart, showbf and others"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from lanai.cli import maui
from lanai.cli.choose import choose
from lanai.cli.context import Asked
from lanai.cli.main import Group

if TYPE_CHECKING:
    from lanai.client.client import Client

F = TypeVar("F", bound=Callable[..., Any])

BLOCKS: Final = ("running", "eligible", "blocked")


@click.command(name="maui", cls=Group)
def command() -> None:
    """What Maui's commands ask, in Maui's layout, with the answers of `lanai queue`, `why`, `when`, `free` and `stats`.

    \b
    Examples:
      lanai maui showq -i
      lanai maui checkjob -v 417/12
      lanai maui showstart 8@2:00:00
    """


def _format(function: F) -> F:
    return click.option(
        "--format", "format_", type=click.Choice(["table", "json"]), default="table", help="As Maui, or as JSON."
    )(function)


_most: Final = click.option(
    "--most", type=click.IntRange(min=1, max=1000), default=1000, show_default=True, metavar="N", help="Rows of each."
)


def _print(format_: str, answer: Mapping[str, Any], lines: Iterable[str]) -> int:
    print(json.dumps({"version": 1, **answer}) if format_ == "json" else "\n".join(lines))
    return 0


@command.command("showq")
@click.option("-r", "block", flag_value="running", help="What runs, in detail.")
@click.option("-i", "block", flag_value="eligible", help="What is idle, by the order of turns.")
@click.option("-b", "block", flag_value="blocked", help="What is blocked, and why.")
@click.option("-u", "user", metavar="USER", help="Of this user only.")
@click.option("-c", "block", flag_value="completed", help="What has ended lately, by batch, the newest first.")
@click.option("-p", "partition", metavar="PARTITION", help="Accepted; there is one partition, ALL.")
@_most
@_format
@click.pass_obj
def showq(
    asked: Asked,
    block: str | None,
    user: str | None,
    partition: str | None,
    most: int,
    format_: str,
) -> int:
    """Show active, idle and blocked jobs.

    \b
    Examples:
      lanai maui showq
      lanai maui showq -r -u ann
    """
    _one_partition(partition)
    client = asked.connect()
    if block == "completed":
        ended = list(islice(_completed(client, user, most), most))
        return _print(format_, {"jobs": ended}, maui.showq_completed(ended))
    found = client.queue(user=user, blocks=block, most=most)
    by_block = {"running": maui.showq_running, "eligible": maui.showq_idle, "blocked": maui.showq_blocked}
    return _print(format_, found, maui.showq(found, BLOCKS) if block is None else by_block[block](found))


@command.command("checkjob")
@click.option("-v", "is_verbose", is_flag=True, help="Also the command, where it runs, and the facts behind it.")
@click.argument("job")
@_format
@click.pass_obj
def checkjob(asked: Asked, is_verbose: bool, job: str, format_: str) -> int:
    """Show a job's state, what it asks for, and why it cannot run.

    \b
    Examples:
      lanai maui checkjob -v 417/12
    """
    client = asked.connect()
    batch, index = _one(job)
    shown = client.job(batch, index)
    about, why = client.batch(shown["batch"]), client.why(shown["batch"], index)
    ranked = client.priority(shown["batch"], index)["rows"]
    lines = maui.checkjob(shown, about, why, ranked, is_verbose=is_verbose)
    return _print(format_, {"job": shown, "why": why, "priority": ranked}, lines)


@command.command("checknode")
@click.option("-v", "is_verbose", is_flag=True, help="Accepted; there is nothing more to say.")
@click.argument("node")
@_format
@click.pass_obj
def checknode(asked: Asked, is_verbose: bool, node: str, format_: str) -> int:
    """Show a node's state, its resources, and the jobs that it has.

    \b
    Examples:
      lanai maui checknode rack-7
    """
    client = asked.connect()
    shown = client.node(node)
    found = client.queue(node=node, blocks="running", most=1000)
    return _print(format_, {"node": shown, "running": found["running"]}, maui.checknode(shown, found))


@command.command("showstart")
@click.argument("job", metavar="JOB|PROCS@DURATION")
@_format
@click.pass_obj
def showstart(asked: Asked, job: str, format_: str) -> int:
    """Show when a job, or one of so many processors for so long, can start at the earliest.

    \b
    Examples:
      lanai maui showstart 417/12
      lanai maui showstart 8@2:00:00
    """
    client = asked.connect()
    count, at, duration = job.partition("@")
    if at and count.isdecimal() and not (int(count) and duration):
        raise click.UsageError(f"found {job}, accepted is a job such as 417/12, or PROCS@DURATION such as 8@2:00:00")
    if at and count.isdecimal():
        found = client.when(shape={**_tasks(client, int(count)), "time": duration})
        return _print(format_, found, maui.showstart(job, found, found["asked"], int(count)))
    batch, index = _one(job)
    request = client.job(batch, index)["asked"]
    found = client.when(batch, index)
    return _print(format_, found, maui.showstart(job, found, request))


@command.command("showbf")
@click.option("-c", "-q", "class_", metavar="CLASS", help="For jobs of this class or QOS (service).")
@click.option("-d", "duration", metavar="DURATION", help="Free for so long at least.")
@click.option("-f", "feature", metavar="FEATURE", help="On nodes with this feature.")
@click.option(
    "-m", "memory", metavar="[==|>|>=]MEMORY", help="On nodes with this much memory free (MB, or with a unit)."
)
@click.option("-n", "nodes", metavar="NODES", help="For jobs of so many nodes.")
@click.option("-p", "partition", metavar="PARTITION", help="Accepted; there is one partition, ALL.")
@click.option("-u", "user", metavar="USER", help="For whom; shown only.")
@_format
@click.pass_obj
def showbf(
    asked: Asked,
    class_: str | None,
    duration: str | None,
    feature: str | None,
    memory: str | None,
    nodes: str | None,
    partition: str | None,
    user: str | None,
    format_: str,
) -> int:
    """Show what is free now for backfill, and for how long.

    \b
    Examples:
      lanai maui showbf -m '>=4096' -d 2:00:00
    """
    _one_partition(partition)
    wanted = (memory or "").lstrip("<>=! ")
    shape = {"time": duration, "features": feature, "nodes": nodes, "memory": _megabytes(wanted), "service": class_}
    client = asked.connect()
    found = client.free({name: value for name, value in shape.items() if value})
    return _print(format_, found, maui.showbf(found, user or client.hub()["you"]["user"]))


@command.command("showstats")
@click.option("-u", "by", flag_value="user", default=True, help="By user (the default).")
@click.option("-a", "by", flag_value="account", help="By account.")
@click.option("-c", "by", flag_value="service", help="By class (service).")
@click.option("-q", "by", flag_value="service", help="By QOS (service).")
@_format
@click.pass_obj
def showstats(asked: Asked, by: str, format_: str) -> int:
    """Show how jobs fared that have ended.

    \b
    Examples:
      lanai maui showstats -a
    """
    found = asked.connect().stats(by=by, most=1000)
    return _print(format_, found, maui.showstats(found))


@command.command("diagnose")
@click.option("-p", "what", flag_value="priority", help="What makes the priorities of eligible jobs.")
@click.option("-q", "what", flag_value="queue", help="Blocked jobs, and why.")
@click.option("-j", "what", flag_value="jobs", help="All jobs.")
@click.option("-n", "what", flag_value="nodes", help="Nodes.")
@_most
@_format
@click.pass_obj
def diagnose(asked: Asked, what: str | None, most: int, format_: str) -> int:
    """Report on priorities, blocked jobs, jobs or nodes.

    \b
    Examples:
      lanai maui diagnose -p
    """
    if what is None:
        raise click.UsageError("say what to report on: -p, -q, -j or -n")
    client = asked.connect()
    if what == "nodes":
        nodes = client.nodes()
        return _print(format_, {"nodes": nodes}, maui.diagnose_nodes(nodes))
    return _diagnose_jobs(client, what, most, format_)


def _completed(client: Client, user: str | None, most: int) -> Iterator[dict[str, Any]]:
    """The jobs of batches that have ended, the newest batch first."""
    for batch in client.batches(state="ended", limit=most):
        if user is None or batch["user"] == user:
            yield from ({**job, "user": batch["user"]} for job in client.jobs(batch["batch"], limit=most))


def _diagnose_jobs(client: Client, what: str, most: int, format_: str) -> int:
    if what == "priority":
        ranked = client.priority(most=most)
        return _print(format_, ranked, maui.diagnose_priority(ranked))
    found = client.queue(blocks="blocked" if what == "queue" else "", most=most)
    return _print(format_, found, maui.showq(found, BLOCKS) if what == "jobs" else maui.showq_blocked(found))


def _tasks(client: Client, procs: int) -> dict[str, object]:
    """So many processors on one node, or where none is so large on as few as can have them, the same on each."""
    largest = max((node["capacity"]["cpu_milli"] // 1000 for node in client.nodes()), default=0)
    nodes = -(-procs // largest) if 0 < largest < procs else 1
    return {"cpus": -(-procs // nodes), "nodes": nodes}


def _one(text: str) -> tuple[int | str, int]:
    (chosen, *others) = choose([text])
    index = chosen.single()
    if others or index is None:
        raise click.UsageError(f"name one job, such as 417/12, not {text}")
    return chosen.batch, index


def _one_partition(name: str | None) -> None:
    if name is not None and name.strip("[]").upper() not in ("ALL", "DEFAULT"):
        raise click.UsageError(f"-p: found {name!r}, accepted is ALL: there is one partition")


def _megabytes(text: str) -> str:
    return f"{text}M" if text.isdecimal() else text
