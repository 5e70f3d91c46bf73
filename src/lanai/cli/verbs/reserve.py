"""Reserve nodes for somebody, for a time or again and again, or for maintenance"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lanai.cli.context import Asked
from lanai.cli.main import Group
from lanai.cli.reserving import reserve_options, wish_of
from lanai.cli.tables import for_people, print_object
from lanai.cli.terminal import say

NAMED = 8


@click.command(name="reserve", cls=Group)
def command() -> None:
    """Reserve nodes for somebody, for a time or again and again, or for maintenance. For operators.

    \b
    Examples:
      lanai reserve create course --count 4 --begin 2026-12-01T08:00 --for 10h --users ann,bob
      lanai reserve create nightly --nodes 'n[1-8]' --every day --from 22:00 --to 06:00 --groups physics
      lanai reserve create repair --nodes rack-7 --begin +2h --for 4h --maintenance --dry-run
      lanai reserve change course --end 20:00
      lanai reserve drop course
    """


format_option = click.option(
    "--format", "format_", type=click.Choice(["table", "json"]), default="table", help="How to print."
)


@command.command("create")
@click.argument("name")
@reserve_options
@format_option
@click.pass_obj
def create(asked: Asked, /, name: str, format_: str, **options: Any) -> int:
    """Make the reservation NAME.

    Nodes by --nodes or --features are all that are such, now and later; with --count so many of them are chosen now.
    Its jobs are those of the lists; `lanai submit --reservation NAME` makes jobs run in it only. Others start on its
    nodes only what is expected to be over before it begins. Nothing that runs is ended by it.

    \b
    Examples:
      lanai reserve create course --count 4 --begin 2026-12-01T08:00 --for 10h --users ann,bob
      lanai reserve create desk --nodes n1 --cpus 8 --memory 32G --for 5d --accounts physics
      lanai reserve create office --features gpu --every week --on mon,tue --from 08:00 --to 18:00 --groups lab
      lanai reserve create fast --count 2 --every day --from 00:00 --to 24:00 --max-time 10m
      lanai reserve create repair --nodes rack-7 --begin +2h --for 4h --maintenance --dry-run
    """
    wish = wish_of(options, is_change=False)
    _tell(asked.connect().reserve(name, wish), name, format_, "reserved")
    return 0


@command.command("change")
@click.argument("name")
@reserve_options
@format_option
@click.pass_obj
def change(asked: Asked, /, name: str, format_: str, **options: Any) -> int:
    """Change the reservation NAME: what is not given stays as it is. All of it or, if that cannot be, nothing.

    \b
    Examples:
      lanai reserve change course --end 20:00
      lanai reserve change nightly --to 07:00
      lanai reserve change course --users ann,bob,carl
      lanai reserve change course --batches +417
      lanai reserve change course --count 6 --dry-run
    """
    wish = wish_of(options, is_change=True)
    _tell(asked.connect().change_reservation(name, wish), name, format_, "changed")
    return 0


@command.command("drop")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def drop(asked: Asked, names: tuple[str, ...]) -> int:
    """Drop reservations: their nodes are everybody's again, what runs goes on.

    Where one of several is not there, the others are dropped all the same.

    \b
    Examples:
      lanai reserve drop course
    """
    from lanai.model.errors import NothingThere

    client = asked.connect()
    missing: list[NothingThere] = []
    for name in dict.fromkeys(names):
        try:
            client.drop_reservation(name)
        except NothingThere as error:
            missing.append(error)
            continue
        say(f"reservation {name}: dropped")
    for each in missing[1:]:
        say(f"lanai: {each.message}")
    if missing:
        raise missing[0]
    return 0


def _tell(answer: Mapping[str, Any], name: str, format_: str, done: str) -> None:
    if format_ == "json":
        print_object("reservation", {key: value for key, value in answer.items() if key != "version"})
    elif answer["is_dry_run"]:
        _print_rehearsal(answer)
    else:
        say(f"reservation {name}: {done}, {_nodes(answer)}")


def _nodes(answer: Mapping[str, Any]) -> str:
    names, count = answer["nodes"], answer["count"]
    more = f" and {count - NAMED} more" if count > NAMED else ""
    return f"{count} node{'s' * (count != 1)}: {', '.join(names[:NAMED])}{more}"


def _print_rehearsal(answer: Mapping[str, Any]) -> None:
    print(f"would be {_nodes(answer)}")
    for period in answer["periods"][:NAMED]:
        print(f"from {for_people('begin_at', period['begin_at'])} to {for_people('end_at', period['end_at'])}")
    if len(answer["periods"]) > NAMED:
        print(f"and {len(answer['periods']) - NAMED} times more")
    running = answer["running"]
    if running:
        print(f"attempts that are expected to run into it: {len(running) + answer['more']}")
        for each in running:
            print(f"  {each['job']} on {each['node']} until {for_people('until_at', each['until'])}")
    else:
        print("nothing that runs is expected to run into it")
    delayed, looked_at = answer["delayed"], answer["looked_at"]
    of = f"of the first {looked_at} line{'s' * (looked_at != 1)} that wait"
    print(f"jobs that would start later, {of}: {len(delayed)}" if delayed else f"no job would start later, {of}")
    for each in delayed:
        before = for_people("before_at", each["before_at"])
        if each["after_at"] is None:
            print(f"  {each['job']} of {each['user']}: not at {before}, and nothing says when")
        else:
            after, by = for_people("after_at", each["after_at"]), for_people("delay_s", each["delay_s"])
            print(f"  {each['job']} of {each['user']}: not at {before} but at {after}, {by} later")
