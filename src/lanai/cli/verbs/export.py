"""Write down what the hub has run, as a trace that `lanai simulate` reads"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TextIO

import click

from lanai.cli.context import Asked
from lanai.cli.replacing import replaced
from lanai.cli.since import since_text
from lanai.cli.terminal import say

if TYPE_CHECKING:
    from lanai.sim.swf_writing import Ended, Writer


@click.command(name="export")
@click.option(
    "--swf",
    "file",
    metavar="[FILE]",
    is_flag=False,
    flag_value="-",
    help="In the Standard Workload Format, to FILE or (without one, or `-`) to standard output.",
)
@click.option("--since", metavar="TIME", help="Only what was submitted since: a time, or how long ago, e.g. 30d.")
@click.option("--user", metavar="USER", help="Only this user's jobs.")
@click.pass_obj
def command(asked: Asked, file: str | None, since: str | None, user: str | None) -> int:
    """Write the jobs that have ended, each with its last attempt, as a trace in the Standard Workload Format.

    A user exports his own jobs, an operator everybody's. The header says which number is which user, account, service
    and node. Jobs that ended without having begun are left out, and counted there. A FILE appears whole or not at all.

    \b
    Examples:
      lanai export --swf history.swf
      lanai export --swf --since 30d --user ann | lanai simulate - --policy easy
      lanai simulate history.swf --policy fcfs,easy --what-if procs+=64
    """
    if file is None:
        raise click.UsageError("say in which format: --swf [FILE]")
    if file == "":
        raise click.UsageError("--swf needs the name of a file, or none")
    since_at = "" if since is None else since_text(since)
    client = asked.connect()
    with tempfile.TemporaryFile() as spool:
        past = _spooled(client.history(user=user or "", since=since_at), spool)
        machine = _machine(client.nodes())
        with _target(file) as target:
            target.writelines(past.header(client.hub()["hub"], machine))
            target.writelines(past.lines(spool))
    jobs, users = past.writer.jobs, len(past.writer.users)
    say(f"{jobs} jobs of {users} users; {past.never_started} that never began are left out")
    return 0


class _Piece(NamedTuple):
    """Jobs of one batch in the spool: `lines` of them from `offset` on."""

    submitted_at_us: int
    batch: int
    offset: int
    lines: int


class _Past(NamedTuple):
    """What was read; its lines are in the spool. The pieces are by submission, then by batch."""

    writer: Writer
    pieces: list[_Piece]
    never_started: int

    @property
    def first_us(self) -> int:
        """The first submission; 0 where there is none."""
        return self.pieces[0].submitted_at_us if self.pieces else 0

    def header(self, hub: str, machine: tuple[int, int]) -> Iterator[str]:
        nodes, cpus = machine
        counts = {"never_started": self.never_started, "first_us": self.first_us}
        return self.writer.header(hub=hub, cpus=cpus, nodes=nodes, **counts)

    def lines(self, spool: IO[bytes]) -> Iterator[str]:
        """By submission, then by batch and index."""
        from lanai.sim.swf_writing import second

        number = 0
        for piece in self.pieces:
            spool.seek(piece.offset)
            submit = second(piece.submitted_at_us) - second(self.first_us)
            for _ in range(piece.lines):
                number += 1
                yield f"{number} {submit} {spool.readline().decode()}"


def _spooled(pages: Iterable[dict[str, Any]], spool: IO[bytes]) -> _Past:
    """Write fields 3 to 18 of each job into the spool as it comes, so that no more than a page is held."""
    from lanai.sim.swf_writing import Writer

    writer, pieces, never_started, offset = Writer(), list[_Piece](), 0, 0
    for page in pages:
        never_started += page["never_started"]
        for (_, batch), rows in groupby(page["jobs"], key=lambda row: (row["submitted_at"], row["batch"])):
            jobs = [_ended(row) for row in rows]
            data = "".join([writer.fields(job) for job in jobs]).encode()
            pieces.append(_Piece(jobs[0].submitted_at_us, batch, offset, len(jobs)))
            spool.write(data)
            offset += len(data)
    return _Past(writer, sorted(pieces), never_started)


def _ended(row: dict[str, Any]) -> Ended:
    from lanai.sim.swf_writing import Ended

    return Ended(
        batch=row["batch"],
        state=row["state"],
        user=row["user"],
        account=row["account"] or "",
        service=row["service"] or "",
        node=row["node"] or "",
        nodes=row["nodes"],
        cpu_milli=row["cpu_milli"],
        memory_bytes=row["memory_bytes"],
        time_limit_s=row["time_limit_s"],
        submitted_at_us=_microseconds(row["submitted_at"]),
        started_at_us=_microseconds(row["started_at"]),
        wall_s=row["wall_s"],
        cpu_s=row["cpu_s"],
        memory_peak_bytes=row["memory_peak_bytes"],
    )


def _microseconds(text: str) -> int:
    at = datetime.fromisoformat(text)
    return int(at.replace(microsecond=0).timestamp()) * 1_000_000 + at.microsecond


def _machine(nodes: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """(nodes, their whole cpus together)."""
    cpus = [node["capacity"]["cpu_milli"] // 1000 for node in nodes]
    return len(cpus), sum(cpus)


@contextmanager
def _target(file: str) -> Iterator[TextIO]:
    if file == "-":
        yield sys.stdout
        return
    with replaced(file) as target:
        yield target
