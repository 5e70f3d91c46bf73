"""Asking the scheduler of a real hub with real agents: queue, free, when, why, stats, and Maui's words for them."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.processes import eventually
from services.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("asking") / "site")
    made.start_hub()
    made.start_agent("n1", "--cpus", "2", "--memory", "4G", "--feature", "ssd", "--feature", "a100")
    yield made
    made.close()


@pytest.fixture(scope="module")
def short(site: Site) -> int:
    """A batch that has ended: two jobs are done, one has failed."""
    number = site.submit(["true", "exit 3", "true"], "--time", "1m", "--memory", "64M")
    site.wait(number, ok=False)
    return number


@pytest.fixture(scope="module")
def batch(site: Site, short: int) -> Iterator[int]:
    """Two of its jobs run, with half an hour to go; 997 wait; one is held."""
    number = site.submit(["exec sleep 1000"] * 1000, "--time", "30m", "--name", "long")
    site.lanai("hold", f"{number}/1000")
    eventually(lambda: rows(site, "running")[0]["started_at"] is not None, what="both to have begun")
    yield number
    site.lanai("cancel", str(number))
    site.wait(number, ok=False)


def asked(site: Site, *words: str) -> dict[str, Any]:
    """The JSON that a verb answers."""
    found: dict[str, Any] = json.loads(site.lanai(*words, "--format", "json").stdout)
    assert found["version"] == 1
    return found


def rows(site: Site, block: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asked(site, "queue")[block]["rows"]
    return found


def test_the_queue_in_three_blocks(site: Site, batch: int) -> None:
    found = asked(site, "queue")
    assert [row["job"] for row in found["running"]["rows"]] == [f"{batch}/1", f"{batch}/2"]
    assert 1700 < found["running"]["rows"][0]["left_s"] <= 1800
    (waiting,) = found["eligible"]["rows"]
    assert (waiting["job"], waiting["jobs"], waiting["place"]) == (f"{batch}/[3-999]", 997, 1)
    (held,) = found["blocked"]["rows"]
    assert (held["job"], held["code"]) == (f"{batch}/1000", "held")
    assert (found["cpus"], found["busy_cpus"], found["nodes"], found["busy_nodes"]) == (2, 2, 1, 1)


def test_the_queue_for_people(site: Site, batch: int) -> None:
    shown = site.lanai("queue").stdout
    assert "RUNNING: 2 jobs\n" in shown and "ELIGIBLE: 997 jobs\n" in shown and "BLOCKED: 1 job\n" in shown
    (waiting,) = [line.split() for line in shown.splitlines() if f"{batch}/[3-999]" in line]
    assert waiting[-1] == "no_room"
    assert shown.endswith("2 of 2 cpus busy (100 %), 1 of 1 nodes\n")
    only = site.lanai("queue", "--blocked", "--user", "nobody").stdout
    assert only.startswith("BLOCKED: 0 jobs, 1 of others\n") and "RUNNING" not in only
    one = site.lanai("queue", "--running", "--most", "1").stdout
    assert "... and 1 more attempts (--most, --skip)" in one
    assert site.lanai("queue", "--running", "--skip", "1", "--format", "quiet").stdout == f"{batch}/2\n"


def test_when_and_free(site: Site, batch: int) -> None:
    found = asked(site, "when", f"{batch}/3")
    assert found["certainty"] == "if nothing comes before it" and 1700 < found["in_s"] <= 1800
    assert asked(site, "when", f"{batch}/1000")["certainty"] == "unknown"
    assert "is held" in site.lanai("when", f"{batch}/1000").stdout
    wide = asked(site, "when", "--cpus", "3")
    assert (wide["certainty"], wide["starts_at"]) == ("unknown", None)
    assert "accepted is 0.001 or more" in site.lanai("when", "--cpus", "0", ok=False).stderr
    assert "nodes: found '0', accepted is 1 to" in site.lanai("when", "--nodes", "0", ok=False).stderr
    room = asked(site, "free")
    assert (room["jobs"], room["rooms"][0]["free_cpus"], room["rooms"][0]["names"]) == (0, 0, ["n1"])
    assert room["waiting"] == 997
    assert "0 jobs of 1 cpu could start now; 997 wait already" in site.lanai("free").stdout
    assert "1 licence could start now" in site.lanai("free", "--resources", "licence=1").stdout
    assert "found 'x'" in site.lanai("free", "--resources", "licence=x", ok=False).stderr
    refused = site.lanai("free", "--memory", "much", ok=False)
    assert refused.returncode != 0 and "found 'much'" in refused.stderr


def test_why_says_where_a_job_runs(site: Site, batch: int) -> None:
    """It used to say of the whole batch that none of it waits, of which 997 do."""
    found = asked(site, "why", f"{batch}/1")
    assert (found["code"], found["verdict"]) == ("running", "it runs on n1")
    assert found["since"] == rows(site, "running")[0]["started_at"]
    assert site.lanai("why", f"{batch}/1").stdout.startswith(f"{batch}/1: it runs on n1\n  since ")


def test_why_says_when_and_what_would_change_it(site: Site, batch: int) -> None:
    found = asked(site, "why", f"{batch}/3")
    assert (found["code"], found["when"]["certainty"]) == ("no_room", "if nothing comes before it")
    assert [past["code"] for past in found["history"]] == ["no_room"]
    assert found["since"] == found["history"][0]["since"]
    large = site.submit(["true"], "--cpus", "2", "--memory", "1G")
    eventually(lambda: asked(site, "why", f"{large}/1")["code"] == "no_room", what="a pass")
    shown = site.lanai("why", str(large)).stdout
    assert "earliest start: in 29m" in shown or "earliest start: in 30m" in shown
    assert "\n  since 20" in shown and "on: no_room" not in shown
    site.lanai("cancel", str(large))
    held = asked(site, "why", f"{batch}/1000")
    assert (held["when"], held["changes"]) == (None, [f"`lanai release {batch}/1000` lets it run"])


def test_features_that_a_node_offers(site: Site, batch: int) -> None:
    (node,) = json.loads(site.lanai("node", "list", "--format", "json").stdout)["nodes"]
    system = os.uname()
    assert node["features"] == sorted(["a100", "ssd", system.sysname.lower(), system.machine])
    assert "a100" in site.lanai("node", "list").stdout and "ssd" in site.lanai("node", "show", "n1").stdout
    assert asked(site, "free", "--features", "ssd,a100")["rooms"][0]["names"] == ["n1"]
    assert asked(site, "free", "--features", "tape")["rooms"] == []
    refused = site.lanai("run", "--features", "ssd,tape", "--", "true", ok=False)
    assert refused.returncode != 0 and "tape" in refused.stderr
    bad = site.lanai("agent", "start", "--name", "n2", "--feature", "a b", ok=False)
    assert bad.returncode != 0 and "--feature: found 'a b'" in bad.stderr


def test_what_makes_a_priority(site: Site, batch: int) -> None:
    found = asked(site, "priority")
    (row,) = found["rows"]
    assert (row["job"], row["jobs"], row["place"], row["turn"], row["turns"]) == (f"{batch}/[3-999]", 997, 1, 1, 1)
    factors = {each["name"]: each for each in row["factors"]}
    assert (factors["share"]["value"], factors["share"]["points"], factors["own"]["weight"]) == (1, 2, 0)
    assert (factors["xfactor"]["cap"], factors["age"]["cap"], found["preset"]) == (100, None, "fair")
    assert sum(each["points"] for each in factors.values()) == pytest.approx(row["score"], rel=1e-4)
    assert asked(site, "priority", f"{batch}/7")["rows"][0]["job"] == f"{batch}/[3-999]"
    shown = site.lanai("priority", str(batch)).stdout
    assert shown.startswith(f"{batch}/[3-999]: place 1 of 1 line\n") and "turn 1 of 1 by shares" in shown
    assert [line.split()[0] for line in shown.splitlines()[4:19]][:4] == ["NAME", "age", "xfactor", "share"]
    assert "preset fair: by tier, then by turns (shares), and within a batch by score; 1 line eligible" in (
        site.lanai("priority").stdout
    )
    assert "nothing of it waits in a line" in site.lanai("priority", f"{batch}/1").stdout
    assert site.lanai("priority", f"{batch}/5000", ok=False).returncode != 0
    assert "there is no batch" in site.lanai("priority", "9999", ok=False).stderr
    assert site.lanai("priority", str(batch), "--user", "ann", ok=False).returncode == 2
    assert asked(site, "priority", "--user", "nobody-else")["rows"] == []
    once = site.lanai("priority", f"{batch}/3-9", f"{batch}@queued", "--format", "quiet").stdout
    assert once == f"{batch}/[3-999]\n"


def test_a_dry_run_says_what_would_happen_and_starts_nothing(site: Site, batch: int) -> None:
    found = asked(site, "plan", "--dry-run")
    assert (found["starts"], found["starting"], found["promised"], found["is_whole"]) == ([], 0, 0, True)
    assert (found["waiting"], found["blocked"]["jobs"], found["blocked"]["rows"][0]["code"]) == (997, 1, "held")
    (site.work / "tried.toml").write_text("[limits]\njobs = 2\n")
    tried = asked(site, "plan", "--dry-run", "--policy", "tried.toml")
    assert (tried["differs"], tried["waiting"], tried["blocked"]["jobs"]) == (True, 0, 998)
    limited = tried["blocked"]["rows"][0]
    assert (limited["job"], limited["code"]) == (f"{batch}/[3-999]", "limit_hub_jobs")
    shown = site.lanai("plan", "--dry-run", "--policy", "tried.toml").stdout
    assert shown.startswith("under the policy tried, which differs\n\nWOULD START: 0 jobs\n")
    assert "the hub runs 2 of at most 2 jobs" in shown
    assert asked(site, "why", f"{batch}/3")["code"] == "no_room"
    assert site.lanai("plan", ok=False).returncode == 2
    (site.work / "bad.toml").write_text("preset = 'loose'\n")
    assert "bad.toml:1:" in site.lanai("plan", "--dry-run", "--policy", "bad.toml", ok=False).stderr
    assert "cannot read none.toml" in site.lanai("plan", "--dry-run", "--policy", "none.toml", ok=False).stderr


def test_a_dry_run_names_who_is_promised_what(site: Site, batch: int) -> None:
    """Both cpus are busy for half an hour: who needs both is promised them then."""
    wide = site.submit(["true"], "--cpus", "2", "--time", "1m", "--name", "wide")
    eventually(lambda: asked(site, "plan", "--dry-run")["promised"] == 1, what="a promise")
    (promise,) = asked(site, "plan", "--dry-run")["promises"]
    assert (promise["job"], promise["on"], promise["name"]) == (f"{wide}/1", ["n1"], "wide")
    assert f"{wide}/1" in site.lanai("plan", "--dry-run").stdout
    site.lanai("cancel", str(wide))


def test_stats_of_what_has_ended(site: Site, short: int) -> None:
    found = asked(site, "stats", "--by", "batch")
    (group,) = [group for group in found["groups"] if group["group"] == str(short)]
    assert (group["jobs"], group["done"], group["failed"], group["attempts"]) == (3, 2, 1, 3)
    assert group["wait_avg_s"] <= group["wait_p95_s"] <= group["wait_max_s"] and group["slowdown_avg"] >= 1
    assert 0 < group["time_accuracy"] < 0.5 and found["took_s"] < 10
    shown = site.lanai("stats", "--since", "1h")
    assert shown.stdout.splitlines()[-1].startswith("(all)") and "attempts in" in shown.stderr
    assert asked(site, "stats", "--since", "2000-01-01T00:00:00Z")["total"]["jobs"] >= 3
    assert site.lanai("stats", "--since", "soon", ok=False).returncode == 2
    assert site.lanai("stats", "--by", "batch", "--format", "quiet").stdout.split() != []


def maui(site: Site, *words: str) -> str:
    return site.lanai("maui", *words).stdout


def test_mauis_showq(site: Site, batch: int) -> None:
    lines = maui(site, "showq").splitlines()
    assert lines[0] == "ACTIVE JOBS--------------------"
    assert lines[1].split() == ["JOBNAME", "USERNAME", "STATE", "PROC", "REMAINING", "STARTTIME"]
    assert lines[3].split()[:2] == [f"{batch}/1", getpass.getuser()] and "Running" in lines[3]
    assert "2 of    2 Processors Active (100.00%)" in lines[6]
    assert lines[-1] == "Total Jobs: 1000   Active Jobs: 2   Idle Jobs: 997   Blocked Jobs: 1"
    assert f"{batch}/[3-999]" in maui(site, "showq", "-i") and "UserHold" in maui(site, "showq", "-b")
    assert len(maui(site, "showq", "-r").splitlines()) == 8
    assert maui(site, "showq", "-u", "nobody").splitlines()[-1] == "Jobs of others: 1000"
    assert site.lanai("maui", "showq", "-p", "other", ok=False).returncode == 2
    assert asked(site, "maui", "showq", "-b")["blocked"]["jobs"] == 1


def test_mauis_questions_about_one_thing(site: Site, batch: int) -> None:
    waiting = maui(site, "checkjob", "-v", f"{batch}/3")
    assert "State: Idle" in waiting and "job cannot run in partition ALL (needs 1 cpu" in waiting
    assert "Executable:  exec sleep 1000" in waiting and "of 00:30:00" in waiting
    running = maui(site, "checkjob", f"{batch}/1")
    assert "State: Running" in running and "Allocated Nodes:  [n1:1]" in running
    assert "Holds:    held by " in maui(site, "checkjob", f"{batch}/1000")
    node = maui(site, "checknode", "n1")
    assert "State:  Busy" in node and f"JobList:  {batch}/1,{batch}/2" in node
    start = maui(site, "showstart", f"{batch}/3")
    assert "requires 1 proc for 00:30:00" in start and "Earliest start in             00:" in start
    many = maui(site, "showstart", "64@1:00:00")
    assert "requires 64 procs" in many and "needs 32 nodes with 2 cpus, 1 could take it" in many
    odd = maui(site, "showstart", "63@1:00:00")
    assert "requires 63 procs" in odd and "NOTE: answered for 32 nodes with 2 procs each, which is 64" in odd
    assert site.lanai("maui", "showstart", str(batch), ok=False).returncode == 2
    assert "no procs available" in maui(site, "showbf", "-m", ">=512", "-q", "normal")
    assert "no service" in site.lanai("maui", "showbf", "-q", "other", ok=False).stderr


def test_mauis_reports(site: Site, short: int, batch: int) -> None:
    ended = [line.split() for line in maui(site, "showq", "-c").splitlines()]
    codes = [(state, code) for job, state, code, *_ in ended[2:-2] if job.startswith(f"{short}/")]
    assert codes == [("C", "0"), ("C", "3"), ("C", "0")] and ended[-1][0] == "Jobs:"
    assert "State: Completed" in maui(site, "checkjob", f"{short}/1")
    assert "State: Failed" in maui(site, "checkjob", f"{short}/2")
    heads, _, first = maui(site, "diagnose", "-p").splitlines()[2:5]
    assert heads.split()[:2] == ["Job", "PRIORITY"] and heads.endswith("FS( Share)    Serv( QTime: XFctr)")
    assert first.startswith(f"{batch}/[3-999]")
    assert "UserHold" in maui(site, "diagnose", "-q") and "n1" in maui(site, "diagnose", "-n")
    assert maui(site, "showstats", "-u").splitlines()[-1].startswith("TOTAL")
    assert site.lanai("maui", "diagnose", ok=False).returncode == 2


@pytest.mark.parametrize("verb", ["queue", "priority", "free", "stats"])
def test_every_list_in_every_format(site: Site, batch: int, verb: str) -> None:
    whole = site.lanai(verb, "--format", "csv").stdout.splitlines()
    lines = [json.loads(line) for line in site.lanai(verb, "--format", "ndjson").stdout.splitlines()]
    assert len(whole) == len(lines) + 1 and list(lines[0]) == whole[0].split(",")
    first = whole[0].split(",")[1]
    chosen = site.lanai(verb, "--columns", f"{first},jobs", "--filter", "jobs>=0", "--limit", "1", "--format", "ndjson")
    assert [list(json.loads(line)) for line in chosen.stdout.splitlines()] == [list(dict.fromkeys((first, "jobs")))]
    assert site.lanai(verb, "--filter", "nonsense=1", ok=False).returncode == 2


def test_free_for_whoever_asks(site: Site, tmp_path: Path) -> None:
    """What a limit of the caller's lets start, and no more."""
    me = getpass.getuser()
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[users."{me}"]\nlimits = {{ cpus = 1 }}\n')
    site.lanai("policy", "apply", str(policy))
    room = asked(site, "free", "--cpus", "2")
    never = f"a job needs 2 cpus, and user {me} may have at most 1"
    assert (room["jobs"], room["limit"]) == (0, never)
    assert f"no more, by a limit: {never}\n" in site.lanai("free", "--cpus", "2").stdout
    assert asked(site, "when", "--cpus", "2")["why"] == never
    policy.write_text("")
    site.lanai("policy", "apply", str(policy))
    assert asked(site, "free")["limit"] is None
