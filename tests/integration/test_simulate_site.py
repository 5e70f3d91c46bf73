"""`lanai simulate` under a site's own policy: presets, files, what a hub has in force, on nodes, and shaken copies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.site import Site

KTH = str(Path(__file__).resolve().parents[1] / "traces" / "kth-sp2.swf.gz")
EASY_SJBF = '[schedule]\npreset = "tight"\n[weights]\nage = 1\nxfactor = 0\nshare = 0\n'
HEADER = "; MaxProcs: 4\n; User: 1 ann\n; User: 2 bob\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    yield made
    made.close()


def rows(site: Site, *words: str) -> list[dict[str, Any]]:
    told = json.loads(site.lanai("simulate", *words, "--format", "json").stdout)
    found: list[dict[str, Any]] = told["policies"]
    return found


def job(name: int, submit: int, procs: int, run: int, user: int) -> str:
    return f"{name} {submit} -1 {run} {procs} -1 -1 {procs} {run} -1 1 {user} 1 -1 -1 -1 -1 -1\n"


def test_the_policy_in_force_decides_like_the_file_that_was_applied(site: Site) -> None:
    site.start_hub()
    (site.work / "site.toml").write_text(EASY_SJBF)
    site.lanai("policy", "apply", "site.toml")
    found = rows(site, KTH, "--policy", "live,site.toml,easy-sjbf,tight,fair")
    assert [row["policy"] for row in found] == ["live", "site.toml", "easy-sjbf", "tight", "fair"]
    live, file, sjbf, tight, fair = [row["starts_sha256"] for row in found]
    assert live == file == sjbf, "by age alone, EASY and shortest first: the policy of the literature to the second"
    assert len({live, tight, fair}) == 3
    site.lanai("policy", "apply", "-")
    live, fair = [row["starts_sha256"] for row in rows(site, KTH, "--policy", "live,fair")]
    assert live == fair, "what a hub does that was told nothing"


def test_without_a_hub_live_says_so_and_the_others_need_none(site: Site) -> None:
    refused = site.lanai("simulate", KTH, "--policy", "live", ok=False)
    assert refused.returncode != 0 and refused.stdout == "" and "hub" in refused.stderr
    assert rows(site, KTH, "--policy", "tight")[0]["jobs"] == 400


def test_a_mistake_in_a_policy_is_named_by_its_line(site: Site) -> None:
    (site.work / "bad.toml").write_text('[schedule]\npreset = "loose"\n')
    refused = site.lanai("simulate", KTH, "--policy", "bad.toml", ok=False)
    assert refused.returncode == 2 and "bad.toml:2: " in refused.stderr and "fair, tight" in refused.stderr


def test_limits_hold_users_by_the_names_that_the_trace_gives(site: Site) -> None:
    (site.work / "log.swf").write_text(HEADER + job(1, 0, 1, 10, 1) + job(2, 0, 1, 10, 1) + job(3, 0, 1, 10, 2))
    (site.work / "one.toml").write_text("[users.ann]\nlimits.jobs = 1\n")
    site.lanai("simulate", "log.swf", "--policy", "one.toml", "--starts", "starts")
    assert (site.work / "starts").read_text() == "1 0 0 10\n2 0 10 20\n3 0 0 10\n"


def test_on_nodes_wide_jobs_have_equal_parts_and_more_nodes_are_a_what_if(site: Site) -> None:
    (site.work / "log.swf").write_text(HEADER + "".join(job(n, 0, 3, 10, n) for n in (1, 2)) + job(3, 0, 6, 10, 1))
    (site.work / "nodes").write_text("n1 4 16G 0 ssd\nn2 4 16G\n")
    told = site.lanai("simulate", "log.swf", "--policy", "easy,tight", "--nodes", "nodes", "--what-if", "nodes+=2")
    assert "2 nodes with 8 cpus; for easy one machine with all of them" in told.stdout
    words = ("log.swf", "--policy", "tight", "--nodes", "nodes", "--what-if", "nodes+=2")
    assert [row["makespan_s"] for row in rows(site, *words)] == [20, 10]
    refused = site.lanai("simulate", *words[:5], "--what-if", "procs+=2", ok=False)
    assert refused.returncode == 2 and "procs+=2: the machine is one of nodes" in refused.stderr
    (site.work / "nodes").write_text("n1 7\nn2 1\n")
    (site.work / "log.swf").write_text(HEADER + job(5, 0, 8, 10, 1))
    refused = site.lanai("simulate", "log.swf", "--policy", "tight", "--nodes", "nodes", ok=False)
    assert refused.returncode == 2 and "log.swf: job 5 asks for 8 processors" in refused.stderr


def test_predictions_and_shaken_copies(site: Site) -> None:
    requested, predicted = (
        rows(site, KTH, "--policy", "tight", "--estimates", estimates)[0] for estimates in ("requested", "predicted")
    )
    assert requested["starts_sha256"] != predicted["starts_sha256"]
    words = (KTH, "--policy", "easy,tight", "--head", "150", "--shake", "3")
    first = rows(site, *words)
    assert first == rows(site, *words) and first != rows(site, *words, "--seed", "2")
    assert [(row["copies"], row["jobs"]) for row in first] == [(3, 150), (3, 150)]
    assert all(row["deviations"]["wait_avg_s"] == pytest.approx(row["wait_avg_sd_s"], abs=1e-3) for row in first)
    still = rows(site, KTH, "--policy", "easy", "--shake", "2", "--shake-s", "0")[0]
    assert still["slowdown_sd"] == 0 and still["wait_max_s"] == rows(site, KTH, "--policy", "easy")[0]["wait_max_s"]
    table = site.lanai("simulate", *words).stdout.splitlines()
    assert table[0].split()[:4] == ["POLICY", "COPIES", "WAIT_AVG_S", "WAIT_AVG_SD_S"]
    assert "means of 3 copies with shaken submissions; _sd: their standard deviation" in table
