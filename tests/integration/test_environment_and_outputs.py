"""What a job finds around it, and where what it writes goes: files, the agent's whole, the hub's tail, a follower."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.processes import end_starters, eventually
from services.site import Site

NOT_ASKED = ("LANAI_MARK", "LANAI_HOME", "LANAI_SITE", "LANAI_TEST_MARK", "LANAI_RUNTIME")
SHOW = "env > env$LANAI_INDEX; umask > umask; pwd > cwd; echo x > made"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = Site(tmp_path / "site")
    made.start_hub()
    made.start_agent("n1", "--cpus", "4")
    yield made
    made.close()


def variables(site: Site, index: int) -> dict[str, str]:
    lines = (site.work / f"env{index}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def as_told(found: dict[str, str]) -> dict[str, str]:
    own = {name: value for name, value in found.items() if name.startswith("LANAI_") or name == "OMP_NUM_THREADS"}
    return {name: value for name, value in own.items() if name not in NOT_ASKED}


# -- around a job


def test_variables_tell_a_job_what_it_is(site: Site) -> None:
    before_s = time.time()
    lines = [SHOW, f"{{use cpu 2}} {{use ram 512M}} {{use time 1h}} {SHOW}", f"{{use cpu 0.5}} {SHOW}"]
    batch = site.submit(lines, "--env", "FOO=b ar", "--env", "LANAI_OWN=")
    site.wait(batch)
    one, two, half = (variables(site, index) for index in (1, 2, 3))
    ids = {"LANAI_BATCH_ID": str(batch), "LANAI_ATTEMPT": "1", "LANAI_OWN": ""}
    ids |= {"LANAI_NODES": "n1", "LANAI_NNODES": "1"}
    assert as_told(one) == {
        **ids,
        "LANAI_INDEX": "1",
        "LANAI_JOB_ID": f"{batch}/1",
        "LANAI_CPUS": "1",
        "OMP_NUM_THREADS": "1",
    }
    assert before_s + 3590 < int(two.pop("LANAI_DEADLINE")) < time.time() + 3610
    assert as_told(two) == {
        **ids,
        "LANAI_INDEX": "2",
        "LANAI_JOB_ID": f"{batch}/2",
        "LANAI_CPUS": "2",
        "OMP_NUM_THREADS": "2",
        "LANAI_MEMORY_BYTES": str(512 << 20),
    }
    assert (half["LANAI_CPUS"], half.get("OMP_NUM_THREADS")) == ("0.5", None)
    assert one["FOO"] == "b ar"
    assert one["PATH"] == os.environ["PATH"]


def test_a_thread_count_that_was_set_is_left_alone(site: Site) -> None:
    site.wait(site.submit([SHOW], "--env", "OMP_NUM_THREADS=7", "--cpus", "2"))
    assert variables(site, 1)["OMP_NUM_THREADS"] == "7"


def test_directory_and_umask_are_the_submitters(site: Site) -> None:
    before = os.umask(0o027)
    try:
        site.wait(site.submit([SHOW]))
    finally:
        os.umask(before)
    assert (site.work / "umask").read_text() == "0027\n"
    assert (site.work / "cwd").read_text() == f"{site.work}\n"
    assert (site.work / "made").stat().st_mode & 0o777 == 0o640


def test_an_environment_of_ones_own_choice(site: Site) -> None:
    site.wait(site.submit([SHOW], "--env-none", "--env", "PATH", "--env", "ONLY=this"))
    found = variables(site, 1)
    by_the_shell = {"PWD", "_", "SHLVL"}
    assert {name for name in found if not name.startswith("LANAI_")} - by_the_shell == {
        "PATH",
        "ONLY",
        "OMP_NUM_THREADS",
    }
    assert found["ONLY"] == "this"


def test_an_environment_that_is_too_large_is_refused_plainly(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUGE", "x" * 130_000)
    refused = site.lanai("submit", "-", stdin="true\n", ok=False)
    assert refused.returncode == 2
    assert "131,072" in refused.stderr and "HUGE" in refused.stderr and "--env-none" in refused.stderr
    site.wait(int(site.lanai("submit", "-", "--env-none", "--format", "quiet", stdin="true\n").stdout))


# -- what it writes


def test_output_files_in_directories_that_are_made(site: Site) -> None:
    job = "echo out$LANAI_INDEX; echo err$LANAI_INDEX >&2; [ $LANAI_ATTEMPT = 2 ]"
    batch = site.submit([job] * 2, "--output", "new/%b/%i.%a.out", "--error", "errors/%%-%i", "--retries", "1")
    site.wait(batch)
    written = {str(path.relative_to(site.work)): path.read_text() for path in site.work.rglob("*") if path.is_file()}
    outs = {f"new/{batch}/{index}.{attempt}.out": f"out{index}\n" for index in (1, 2) for attempt in (1, 2)}
    assert written == {**outs, "errors/%-1": "err1\n", "errors/%-2": "err2\n"}
    shown = site.lanai("logs", f"{batch}/2")
    assert (shown.stdout, shown.stderr) == ("out2\n", "err2\n")
    refused = site.lanai("submit", "-", "--output", "x%q", stdin="true\n", ok=False)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1


def test_a_named_file_that_is_none_any_more_is_said_and_not_waited_for(site: Site) -> None:
    """A pipe nobody writes to, in place of the file: to open it would be to wait for ever."""
    batch = site.submit(["echo some; rm out; mkfifo out"], "--output", "out")
    site.wait(batch)
    shown = site.lanai("logs", f"{batch}/1")
    assert shown.stdout == ""
    assert shown.stderr == f"lanai: cannot read {site.work}/out: it is a pipe\n"
    batch = site.submit(["echo some; while [ ! -e go ]; do sleep 0.02; done; echo more"], "--output", "followed")
    following = site.spawn("logs", "-f", f"{batch}/1")
    assert following.stdout is not None
    assert following.stdout.readline() == "some\n"
    (site.work / "go").touch()
    assert (following.stdout.read(), following.wait(20)) == ("more\n", 0)


def test_the_whole_from_the_agent_and_a_tail_when_it_is_gone(site: Site) -> None:
    """Of a failed job the hub kept 4 KiB, as of one that succeeded."""
    line = "head -c 200000 /dev/zero | tr '\\0' {}; echo end"
    batch = site.submit([line.format("a"), line.format("b") + "; exit 3", "echo all"])
    site.wait(batch, ok=False)
    whole = [site.lanai("logs", f"{batch}/{index}").stdout for index in (1, 2, 3)]
    assert whole == ["a" * 200_000 + "end\n", "b" * 200_000 + "end\n", "all\n"]

    def tails() -> list[int]:
        return [len(site.lanai("logs", f"{batch}/{index}", "--tail").stdout) for index in (1, 2, 3)]

    eventually(lambda: tails() == [4 << 10, 64 << 10, 4], what="the tails at the hub")
    site.agents["n1"].kill()
    end_starters(site.home)
    shutil.rmtree(site.home / "agents")
    for index, kept in ((1, 4 << 10), (2, 64 << 10)):
        shown = site.lanai("logs", f"{batch}/{index}")
        assert shown.stdout == whole[index - 1][-kept:]
        assert f"{200_004 - kept} bytes before these are not kept" in shown.stderr
    shown = site.lanai("logs", f"{batch}/3")
    assert (shown.stdout, shown.stderr) == ("all\n", "")


def test_followed_output_comes_while_the_job_runs(site: Site) -> None:
    batch = site.submit(["echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; echo problem >&2"])
    following = site.spawn("logs", "-f", str(batch))
    assert following.stdout is not None and following.stderr is not None
    assert following.stdout.readline() == "one\n"
    assert following.poll() is None
    (site.work / "go").touch()
    assert following.stdout.read() == "two\n"
    assert following.stderr.read() == "problem\n"
    assert following.wait(20) == 0


def test_a_follower_that_stops_reading_delays_nobody(site: Site) -> None:
    noisy = site.submit(["while [ ! -e stop ]; do head -c 100000 /dev/zero; sleep 0.002; done"])
    words = [sys.executable, "-m", "lanai", "logs", "-f", f"{noisy}/1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=site.work, env=site.environ()) as follower:
        assert follower.stdout is not None
        assert follower.stdout.read(1000)
        follower.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: written(site) > 60 << 20, what="more output than anybody holds back")
            began_s = time.monotonic()
            site.wait(site.submit(["true"] * 500))
            assert time.monotonic() - began_s < 10
        finally:
            (site.work / "stop").touch()
            follower.kill()
    site.wait(noisy)


def written(site: Site) -> int:
    """Bytes in the slots of the node."""
    return sum(path.stat().st_size for path in (site.home / "agents/n1/starter").glob("slot*"))
