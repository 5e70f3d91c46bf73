"""`lanai reserve` and `lanai reservations` at a real hub with real agents."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.callers import Caller
from services.processes import eventually
from services.site import Site

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    made.start_agent("n1")
    yield made
    made.close()


def asked(site: Site, *words: str) -> Any:
    found = json.loads(site.lanai(*words, "--format", "json").stdout)
    return found.get("reservation") or found.get("reservations", found)


def refused(site: Site, *words: str) -> tuple[int, str]:
    ended = site.lanai("reserve", "create", *words, ok=False)
    return ended.returncode, ended.stderr.splitlines()[0].removeprefix("lanai: ")


def running(site: Site) -> dict[str, str]:
    """Where each running job is."""
    rows = json.loads(site.lanai("queue", "--running", "--format", "json").stdout)["running"]["rows"]
    return {row["job"]: row["node"] for row in rows}


def test_beside_it_in_it_and_after_a_restart(site: Site) -> None:
    """Nobody but eve may use n1; then I may, and what names the reservation runs there and nowhere else."""
    assert site.lanai("reserve", "create", "course", "--nodes", "n1", "--for", "1h", "--users", "eve").stderr == (
        "reservation course: reserved, 1 node: n1\n"
    )
    beside = site.submit(["exec sleep 1000"], "--time", "30m")
    eventually(lambda: "reserved by course until" in site.lanai("why", str(beside)).stdout, what="the reason")
    assert json.loads(site.lanai("why", str(beside), "--format", "json").stdout)["code"] == "reserved"
    site.start_agent("n2")
    eventually(lambda: running(site) == {f"{beside}/1": "n2"}, what="it to start on the other node")

    number = site.submit(["echo in >> inside"], "--hold")
    assert site.lanai("set", str(number), "--reservation", "course", ok=False).returncode == 4
    site.lanai("reserve", "change", "course", "--batches", f"+{number}")
    assert asked(site, "reservations", "course")["access"] == {"users": ["eve"], "batches": [number]}
    site.lanai("set", str(number), "--reservation", "course")
    site.lanai("release", str(number))
    site.wait(number)
    site.lanai("reserve", "change", "course", "--batches", f"-{number}")
    assert asked(site, "reservations", "course")["access"] == {"users": ["eve"]}

    bad = site.lanai("submit", "-", "--reservation", "course", stdin="true\n", ok=False)
    assert (bad.returncode, f"{ME} may not use the reservation course" in bad.stderr) == (4, True)
    assert "open to users eve" in bad.stderr
    assert site.lanai("submit", "-", "--reservation", "curse", stdin="true\n", ok=False).returncode == 5

    site.lanai("reserve", "change", "course", "--users", f"eve,{ME}")
    inside = site.submit(["exec sleep 1000"] * 3, "--reservation", "course")
    both = {f"{inside}/1": "n1", f"{inside}/2": "n1"}
    eventually(lambda: running(site) == {f"{beside}/1": "n2", **both}, what="two to start in it, none beside it")
    before = asked(site, "reservations", "course")
    assert (before["state"], before["running"], before["waiting"], before["nodes"]) == ("active", 2, 1, ["n1"])

    assert site.hub is not None
    site.hub.kill()
    site.start_hub()
    after = asked(site, "reservations", "course")
    assert [after[name] for name in ("end_at", "nodes", "access")] == [before[n] for n in ("end_at", "nodes", "access")]
    site.lanai("cancel", f"{inside}/1")
    eventually(lambda: running(site).get(f"{inside}/3") == "n1", what="the third to follow in it")
    assert "course" in site.lanai("node", "show", "n1").stdout
    more = site.submit(["exec sleep 1000"], "--reservation", "course")
    site.lanai("reserve", "drop", "course")
    assert asked(site, "reservations") == []
    eventually(lambda: "which is over or was dropped" in site.lanai("why", str(more)).stdout, what="the reason")
    site.lanai("cancel", f"{inside}/2")
    site.lanai("set", str(more), "--reservation", "none")
    eventually(lambda: f"{more}/1" in running(site), what="it to run anywhere")
    site.lanai("cancel", str(beside), str(inside), str(more))


def test_a_dry_run_says_who_is_in_the_way_and_who_would_wait(site: Site) -> None:
    number = site.submit(["exec sleep 1000"] * 3, "--time", "30m")
    eventually(lambda: len(running(site)) == 2, what="two to run")
    words = ("reserve", "create", "repair", "--nodes", "n1", "--begin", "+10m", "--for", "4h", "--maintenance")
    told = asked(site, *words, "--dry-run")
    assert (told["is_dry_run"], told["nodes"]) == (True, ["n1"])
    assert [each["job"] for each in told["running"]] == [f"{number}/1", f"{number}/2"]
    (delayed,) = told["delayed"]
    assert delayed["job"] == f"{number}/3" and 3 * 3600 < delayed["delay_s"] < 4 * 3600
    shown = site.lanai(*words, "--dry-run").stdout
    assert "attempts that are expected to run into it: 2\n" in shown and "later\n" in shown
    assert asked(site, "reservations") == []

    site.lanai(*words)
    node = json.loads(site.lanai("node", "show", "n1", "--format", "json").stdout)["node"]
    assert [(each["name"], each["kind"]) for each in node["reserved"]] == [("repair", "maintenance")]
    assert "repair (maintenance) from" in site.lanai("node", "show", "n1").stdout
    when = asked(site, "when", "--time", "30m")
    assert when["certainty"] != "now" and when["in_s"] > 4 * 3600
    rows = json.loads(site.lanai("events", "--audit", "--format", "json").stdout)["audit"]
    (row,) = [row for row in rows if row["action"] == "reservation.set"]
    assert (row["subject"], row["after"]["kind"], row["after"]["nodes"]) == ("reservation repair", "maintenance", 1)
    site.lanai("cancel", str(number))


def test_a_standing_one_is_planned_for_two_weeks(site: Site) -> None:
    words = ("--every", "day", "--from", "22:00", "--to", "06:00", "--timezone", "Europe/Berlin", "--count", "1")
    site.lanai("reserve", "create", "nightly", *words, "--cpus", "1", "--max-time", "10m")
    found = asked(site, "reservations", "nightly")
    assert 14 <= len(found["periods"]) <= 16 and found["asked_count"] == 1 and found["cpus"] == 1
    assert found["rule"]["timezone"] == "Europe/Berlin" and found["access"] == {"max_time_s": 600.0}
    assert "nightly" in site.lanai("reservations").stdout
    assert site.lanai("reservations", "nightly").stdout.count("period:") == len(found["periods"])
    site.lanai("reserve", "change", "nightly", "--to", "07:00", "--on", "mon,sun")
    changed = asked(site, "reservations", "nightly")["rule"]
    assert changed == {**found["rule"], "to": "07:00", "on": ["mon", "sun"]}


def test_what_cannot_be_is_refused_with_what_can(site: Site) -> None:
    later = ("--begin", "+1h", "--for", "1h")
    assert refused(site, "r", "--nodes", "n9", *later) == (5, "no node is called n9")
    code, text = refused(site, "r", "--count", "2", *later)
    assert (code, text) == (7, "2 nodes asked for, there is 1 that has it")
    assert refused(site, "r", "--nodes", "n1", "--begin", "2020-01-01", "--end", "2020-01-02")[0] == 2
    assert "would end at" in refused(site, "r", "--nodes", "n1", "--begin", "+2h", "--end", "+1h")[1]
    assert refused(site, "r", "--nodes", "n1")[1] == "until when? Accepted are --end WHEN, --for TIME, or --every"
    assert "found none, accepted are a count, names, or a feature" in refused(site, "r", *later)[1]
    zone = ("--every", "day", "--from", "1:00", "--to", "2:00", "--timezone", "Mars/Olympus", "--nodes", "n1")
    assert refused(site, "r", *zone) == (2, "there is no time zone 'Mars/Olympus'")
    assert refused(site, "r", *zone[:-4], "--nodes", "n1", "--on", "someday")[0] == 2
    site.lanai("reserve", "create", "r", "--nodes", "n1", *later)
    assert refused(site, "r", "--nodes", "n1", *later) == (7, "there is a reservation r already")
    assert refused(site, "s", "--nodes", "n1", *later) == (7, "too much of n1 is reserved at that time, by r")
    assert site.lanai("reserve", "drop", "s", ok=False).returncode == 5
    assert site.lanai("reservations", "s", ok=False).returncode == 5
    assert [each["name"] for each in asked(site, "reservations")] == ["r"]
    assert site.lanai("reserve", "drop", "s", "r", ok=False).returncode == 5
    assert asked(site, "reservations") == [], "the others are dropped all the same"


def test_the_hub_checks_for_itself_what_it_is_sent(site: Site) -> None:
    me = Caller(path=site.home / "hub" / "api.sock", user=ME)
    bodies: list[dict[str, Any]] = [
        {"name": "x", "nodes": "*", "end_us": -5},
        {"name": "x", "nodes": "*", "end_us": 1 << 60},
        {"name": "x", "nodes": "*", "begin_us": 1.5},
        {"name": "x", "nodes": "*", "cpus": -1, "end_us": 1 << 52},
        {"name": "x" * 100, "nodes": "*", "end_us": 1 << 52},
        {"name": "x", "nodes": "n[1-999999999]", "end_us": 1 << 52},
        {"name": "x", "nodes": "*", "kind": "mine", "end_us": 1 << 52},
        {"name": "x", "nodes": "*", "rule": {"from": "5:00", "to": "6:00"}},
        {"name": "x", "nodes": "*", "rule": {"from": "25:00", "to": "1:00", "timezone": "UTC"}},
        {"name": "x", "nodes": "*", "rule": {"from": "5:00", "to": "1:00", "timezone": "../../etc/passwd"}},
        {"name": "x", "nodes": "*"},
        {},
    ]
    for body in bodies:
        said = me.ask("POST", "/v1/reservations", body)
        assert said.status == 400, (body, said.value)
    assert me.ask("GET", "/v1/reservations").value["reservations"] == []
