"""The options of `lanai reserve`, as the wish that they come to."""

from __future__ import annotations

import re
import time
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lanai.cli.reserving import local_zone, reserve_options, wish_of
from lanai.model.errors import UserError


def wish(*words: str, is_change: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @click.command()
    @reserve_options
    def command(**options: Any) -> None:
        found.update(wish_of(options, is_change=is_change))

    result = CliRunner().invoke(command, words, catch_exceptions=True)
    if result.exception is not None:
        raise result.exception
    return found


def test_amounts_lists_and_lengths() -> None:
    got = wish(
        *("--count", "2", "--cpus", "1.5", "--memory", "2G", "--gpus", "1", "--features", "b,a", "--for", "2h"),
        *("--users", "bob, ann", "--batches", "7,8", "--max-time", "10m", "--preferring", "--owner", "eve"),
    )
    end_us = got.pop("end_us")
    assert abs(end_us - time.time_ns() // 1000 - 7_200_000_000) < 60_000_000
    assert got == {
        "count": 2,
        "cpus": 1.5,
        "memory_bytes": 2 << 30,
        "gpus": 1,
        "features": ("a", "b"),
        "users": ("ann", "bob"),
        "batches": [7, 8],
        "max_time_s": 600,
        "kind": "preferring",
        "owner": "eve",
        "begin_us": 0,
        "is_dry_run": False,
    }


def test_it_is_of_one_kind() -> None:
    with pytest.raises(UserError, match="--preferring and --maintenance: accepted is one of them"):
        wish("--nodes", "n1", "--for", "1h", "--preferring", "--maintenance")
    assert wish("--maintenance", "--maintenance", is_change=True) == {"kind": "maintenance", "is_dry_run": False}


def test_a_change_of_nothing_is_refused() -> None:
    """It used to be made, and could be refused for what others have."""
    for words in ((), ("--dry-run",)):
        with pytest.raises(UserError, match="what is to change"):
            wish(*words, is_change=True)


def test_a_change_says_no_more_than_it_is_told() -> None:
    assert wish("--users", "ann", is_change=True) == {"users": ("ann",), "is_dry_run": False}
    assert wish("--end", "2030-01-01T00:00Z", "--dry-run", is_change=True) == {
        "end_us": 1_893_456_000_000_000,
        "is_dry_run": True,
    }


def test_batches_that_join_and_leave_a_list() -> None:
    got = wish("--batches", "+7,-8,+9", is_change=True)
    assert got == {"batches_added": [7, 9], "batches_removed": [8], "is_dry_run": False}
    assert wish("--batches", "-8", is_change=True)["batches_removed"] == [8]
    with pytest.raises(UserError, match=r"found '\+7,8', accepted is \+N and -N, or N alone"):
        wish("--batches", "+7,8", is_change=True)


def test_a_rule() -> None:
    got = wish("--every", "week", "--on", "tue,mon", "--from", "8:00", "--to", "18:00", "--timezone", "Asia/Tokyo")
    assert got["rule"] == {
        "on": ("mon", "tue"),
        "from": "8:00",
        "to": "18:00",
        "timezone": "Asia/Tokyo",
        "until_us": 0,
    }


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("--to 18:00", {"to": "18:00"}),
        ("--timezone Asia/Tokyo --on mon", {"timezone": "Asia/Tokyo", "on": ("mon",)}),
        ("--until 2030-01-01T00:00Z", {"until_us": 1_893_456_000_000_000}),
        ("--every day", {"on": ()}),
        ("--every week --on tue --from 8:00", {"on": ("tue",), "from": "8:00"}),
    ],
)
def test_of_a_rule_that_there_is_only_what_is_said_changes(words: str, rule: dict[str, object]) -> None:
    """All of it had to be said again, and a time zone that was not became this machine's."""
    assert wish(*words.split(), is_change=True) == {"rule": rule, "is_dry_run": False}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "until when?"),
        ("--for 1h --end +2h", "accepted is one of them"),
        ("--for x", "--for: found 'x'"),
        ("--for 1h --from 8:00", "--from goes with --every"),
        ("--for 1h --on mon", "--on goes with --every"),
        ("--every day --from 8:00", "from when to when?"),
        ("--every week --from 8:00 --to 9:00", "on which days?"),
        ("--every day --from 8:00 --to 9:00 --for 1h", "not with --begin, --end or --for"),
        ("--for 1h --count x", "--count: found 'x'"),
        ("--for 1h --count 0", "--count: found '0', accepted is 1 or more"),
        ("--for 1h --batches x", "--batches: found 'x'"),
        ("--for 1h --batches +7", "--batches: found '+7', accepted is N"),
        ("--begin yesterday --for 1h", "--begin: found 'yesterday'"),
    ],
)
def test_what_is_not_understood(words: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        wish(*words.split())


@pytest.mark.parametrize(
    ("variable", "zone"),
    [("Asia/Tokyo", "Asia/Tokyo"), (":Europe/Rome", "Europe/Rome"), ("/dev/null", "UTC")],
)
def test_this_machines_time_zone(monkeypatch: pytest.MonkeyPatch, variable: str, zone: str) -> None:
    monkeypatch.setenv("TZ", variable)
    assert local_zone() == zone
