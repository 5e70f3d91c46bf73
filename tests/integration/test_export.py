"""`lanai export --swf` of a real hub's past: what was run comes back, and `lanai simulate` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from lanai.client import client as client_module
from lanai.client.connection import Target
from lanai.sim.swf import Reading, Trace, read_trace
from services.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    made.start_hub()
    made.start_agent("n1", "--cpus", "4")
    yield made
    made.close()


def trace_of(path: Path) -> Trace:
    return read_trace(path.read_bytes().splitlines(keepends=True), str(path), Reading())


def header(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("; "):
            name, _, value = line[2:].partition(": ")
            found.setdefault(name, []).append(value)
    return found


def rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if not line.startswith(";")]


def second_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def test_what_a_hub_has_run_is_written_and_read_back(site: Site) -> None:
    lines = ["true", "false", "sleep 1.1{use cpu 2.5}{use time 50}{use ram 64M}"]
    first = site.submit(lines, "--retries", "exit=1")
    site.wait(first, ok=False)
    cancelled = site.submit(["echo >> began; sleep 600{use cpu 4}", "true{use cpu 4}"])
    site.await_lines("began", 1)
    site.lanai("cancel", str(cancelled))
    site.wait(cancelled, ok=False)

    file = site.work / "history.swf"
    done = site.lanai("export", "--swf", "history.swf")
    assert done.stdout == ""

    trace = trace_of(file)
    began = [*site.jobs(first), site.jobs(cancelled)[0]]
    assert "4 jobs of 1 users; 1 that never began are left out" in done.stderr
    assert len(trace.jobs) == 4
    assert trace.procs == 4
    start = int(header(file)["UnixStartTime"][0])
    found = rows(file)
    assert [row[10] for row in found] == ["1", "0", "1", "5"]
    assert [int(row[0]) for row in found] == list(range(1, len(found) + 1))
    for row, job in zip(found, began, strict=True):
        assert int(row[1]) + start == second_of(job["submitted_at"])
        assert int(row[1]) + int(row[2]) + start == second_of(job["started_at"])
        assert job["wall_s"] <= int(row[3]) < job["wall_s"] + 1.001
        assert int(row[13]) == job["batch"]
    assert found[2][4] == found[2][7] == "3"
    assert found[2][8] == "50"
    assert found[2][9] == str(-(-64 * 1024 // 3))
    assert found[0][8] == "-1"
    assert header(file)["Partition"] == ["1 n1"]
    assert header(file)["Queue"] == ["1 normal"]
    assert len(header(file)["User"]) == 1

    replayed = json.loads(site.lanai("simulate", "history.swf", "--policy", "easy", "--format", "json").stdout)
    assert replayed["trace"]["jobs_run"] == 4
    assert replayed["trace"]["skipped"] == []


def test_pages_follow_one_another(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [site.submit(["true"] * count) for count in (3, 1, 2)]
    for batch in batches:
        site.wait(batch)
    monkeypatch.setattr(client_module, "PAGE_JOBS", 2)
    client = client_module.Client(Target(socket=site.home / "hub" / "api.sock"))
    pages = list(client.history())
    client.close()
    assert max(len(page["jobs"]) for page in pages) == 2
    found = [(job["batch"], job["index"]) for page in pages for job in page["jobs"]]
    first, second, third = batches
    assert found == [(first, 1), (first, 2), (first, 3), (second, 1), (third, 1), (third, 2)]
    job = pages[0]["jobs"][0]
    assert (job["id"], job["state"], job["cpu_milli"], job["nodes"]) == (f"{first}/1", "done", 1000, 1)
    assert (job["account"], job["service"], job["time_limit_s"], job["node"]) == (None, None, None, "n1")


def test_the_past_may_go_to_standard_output_and_begin_at_a_time(site: Site) -> None:
    site.wait(site.submit(["true"] * 3))
    out = site.lanai("export", "--swf").stdout
    assert out.count("\n") - out.count("\n;") - 1 == 3
    assert site.lanai("export", "--swf", "-", "--since", "1h").stdout == out
    later = site.lanai("export", "--swf", "--since", "2100-01-01T00:00:00Z")
    assert "; MaxRecords: 0" in later.stdout
    refused = site.lanai("simulate", "-", "--policy", "easy", stdin=later.stdout, ok=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "found no job that can be replayed" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say in which format: --swf [FILE]"),
        (("--swf", ""), "--swf needs the name of a file"),
        (("--swf", "x", "--since", "soon"), "--since: found 'soon'"),
        (("--swf", "nowhere/x"), "cannot write nowhere/x: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said(site: Site, words: tuple[str, ...], said: str) -> None:
    done = site.lanai("export", *words, ok=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert list(site.work.iterdir()) == []
