"""Maui's layouts, from answers of the API."""

import re
from typing import Any

import pytest

from lanai.cli import maui
from lanai.cli.verbs.maui import command

NOW = "2026-11-21T20:02:03.000000Z"
ASKED = {
    "cpus": 2.0, "memory_bytes": 1 << 30, "gpus": 0.0, "nodes": 2, "time_limit_s": 3600.0, "features": ["ssd"],
    "resources": {"licence": 1},
}  # fmt: skip


def row(job: str, **fields: Any) -> dict[str, Any]:
    base = {
        **ASKED, "job": job, "jobs": 1, "user": "ann", "account": "chem", "service": "long", "queued_at": NOW,
        "node": None, "started_at": None, "left_s": None, "place": None, "code": None, "reason": None,
    }  # fmt: skip
    return {**base, **fields}


def queue(**blocks: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"cpus": 48.0, "busy_cpus": 12.0, "nodes": 24, "busy_nodes": 3}
    for name in ("running", "eligible", "blocked"):
        rows = blocks.get(name, [])
        found[name] = {"rows": rows, "more": 0, "others": 0, "jobs": sum(one["jobs"] for one in rows)}
    return found


@pytest.mark.parametrize(
    ("length_s", "shown"),
    [(0, "00:00:00"), (3599.6, "01:00:00"), (90061, "1:01:01:01"), (None, "INFINITY")],
)
def test_lengths_of_time(length_s: float | None, shown: str) -> None:
    assert maui.clock(length_s) == shown


def test_showq_in_three_blocks() -> None:
    found = queue(
        running=[row("1/1", node="n1", started_at=NOW, left_s=60.0)],
        eligible=[row("2/[1-9]", jobs=9, place=1, code="no_room")],
        blocked=[row("3/1", code="held"), row("4/1", code="paused"), row("5/1", code="too_large")],
    )
    text = "\n".join(maui.showq(found, ("running", "eligible", "blocked")))
    assert "    12 of   48 Processors Active (25.00%)" in text and "3 of   24 Nodes Active      (12.50%)" in text
    assert re.search(r"^1/1 +ann +Running +4 +00:01:00 ", text, re.MULTILINE)
    assert re.search(r"^2/\[1-9\] +ann +Idle +36 +01:00:00 ", text, re.MULTILINE)
    assert [maui.HOLDS.get(code, "Idle") for code in ("held", "paused", "too_large")] == [
        "UserHold", "SystemHold", "BatchHold"
    ]  # fmt: skip
    assert text.endswith("Total Jobs: 13   Active Jobs: 1   Idle Jobs: 9   Blocked Jobs: 3")
    assert "Nodes Active      (0.00%)" in "\n".join(maui.showq({**queue(), "nodes": 0, "cpus": 0}, ("running",)))


def test_what_runs_has_waited_until_it_started_and_has_all_its_nodes() -> None:
    """Its waiting went on growing while it ran, and it was on its first node only."""
    began = "2026-11-21T21:02:03.000000Z"
    shown = maui.showq_running(queue(running=[row("1/1", node="n1", started_at=began)]))
    (line,) = [one for one in shown if one.startswith("1/1")]
    assert line.split()[3] == "2.0"
    job = {
        "id": "1/1", "state": "running", "node": "n1", "nodes": ["n1", "n2", "n3"], "asked": ASKED, "wall_s": None,
        "submitted_at": NOW, "started_at": began, "attempts": 1,
    }  # fmt: skip
    batch = {"user": "ann", "account": "chem", "service": "", "cwd": "/", "priority": 10}
    text = "\n".join(maui.checkjob(job, batch, {"code": "", "verdict": "it runs"}, [], is_verbose=False))
    assert "Total: 01:00:00)" in text
    assert "Total Tasks: 3" in text and "Allocated Nodes:  [n1:2][n2:2][n3:2]" in text and "PE:  6.00" in text


def test_a_job_that_waits_has_a_priority_and_what_it_was_promised() -> None:
    job = {
        "id": "1/1", "state": "queued", "node": "n1", "nodes": None, "asked": ASKED, "wall_s": 5.0,
        "submitted_at": NOW, "started_at": NOW, "attempts": 1,
    }  # fmt: skip
    batch = {"user": "ann", "account": "chem", "service": "", "cwd": "/", "priority": 10}
    when = {"certainty": "promised", "starts_at": NOW, "why": "n1 keeps room for it"}
    why = {"code": "no_room", "verdict": "all are busy", "when": when}
    lines = list(maui.checkjob(job, batch, why, [{"score": 105.391, "place": 3}], is_verbose=False))
    assert "StartPriority:  105.391 (place 3)" in lines
    assert f"Reservation:  from {maui.date(NOW)} (n1 keeps room for it)" in lines
    assert not [line for line in lines if "Total: 00:00:00" in line], "it waits again"


def test_showbf_by_windows() -> None:
    room = {"free_nodes": 2, "free_cpus": 8.0, "for_s": None}
    rooms = [room, {**room, "for_s": 3600.0}, {**room, "free_cpus": 4.0}, {**room, "free_nodes": 0}]
    lines = list(maui.showbf({"rooms": rooms, "waiting": 0}, "ann"))
    assert lines[0].startswith("backfill window (user: 'ann' partition: ALL) ")
    assert lines[2:] == [
        "   8 procs on 2 nodes available for       01:00:00",
        "  12 procs on 4 nodes available with no timelimit",
    ]


def test_showstart_says_when_it_would_end() -> None:
    found = {"starts_at": NOW, "in_s": 90.0, "certainty": "promised", "why": "it has a reservation"}
    lines = list(maui.showstart("1/1", found, ASKED))
    assert lines[0] == "job 1/1 requires 4 procs for 01:00:00"
    assert lines[2].split()[3] == "00:01:30" and lines[3].split()[3] == "01:01:30"
    assert lines[-1] == "Certainty: promised (it has a reservation)"


def test_showstart_says_how_many_processors_were_asked_about() -> None:
    """99 are the same number on each of 50 nodes of two only with one too many: it said that 100 were required."""
    found = {"starts_at": None, "why": "too many"}
    asked = {**ASKED, "nodes": 50}
    lines = list(maui.showstart("99@1:00:00", found, asked, 99))
    assert lines[:2] == [
        "job 99@1:00:00 requires 99 procs for 01:00:00",
        "NOTE: answered for 50 nodes with 2 procs each, which is 100",
    ]
    assert list(maui.showstart("100@1:00:00", found, asked, 100))[1] == ""


def test_what_comes_from_jobs_is_made_harmless() -> None:
    found = queue(blocked=[row("3/1", code="held", reason="\x1b[2J")])
    assert "\x1b" not in "\n".join(maui.showq_blocked(found))


def test_each_of_mauis_commands_has_help_with_an_example() -> None:
    names = {"showq", "checkjob", "checknode", "showstart", "showbf", "showstats", "diagnose"}
    assert hasattr(command, "commands") and set(command.commands) == names
    for name, made in command.commands.items():
        assert f"lanai maui {name}" in (made.help or "")
