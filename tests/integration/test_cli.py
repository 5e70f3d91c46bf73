"""The `lanai` command against a real hub and agent: what it prints, what it exits with, and how one leaves it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from services.processes import eventually
from services.site import Site

JOB_FIELDS = [
    *("id", "batch", "index", "state", "command", "attempts", "exit_code", "signal", "outcome", "node"),
    *("submitted_at", "started_at", "ended_at", "wall_s", "cpu_user_s", "cpu_system_s", "memory_peak_bytes"),
    "reason",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("cli"))
    made.start_hub()
    made.start_agent("n1")
    yield made
    made.close()


def list_file(site: Site, *lines: str) -> str:
    path = site.work / "jobs.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return "jobs.txt"


# -- run with a list


def test_run_of_a_list_ends_with_a_summary(site: Site) -> None:
    ended = site.lanai("run", list_file(site, *["true"] * 20))
    assert ended.stdout == ""
    assert "20 done" in ended.stderr
    assert "\x1b" not in ended.stderr and "█" not in ended.stderr


def test_failures_are_grouped_by_cause_with_what_they_wrote(site: Site) -> None:
    lines = ["true", "echo first >&2; exit 3", "echo second >&2; exit 3", "kill -9 $$", "nosuchcommand"]
    ended = site.lanai("run", list_file(site, *lines), ok=False)
    batch = json.loads(site.lanai("batch", "show", "--format", "json").stdout)["batch"]["batch"]
    assert ended.returncode == 1
    assert f"2 x exit code 3: {batch}/2, {batch}/3\n      first\n" in ended.stderr
    assert f"1 x killed by SIGKILL (9): {batch}/4" in ended.stderr
    assert f"1 x command not found: {batch}/5" in ended.stderr
    assert f"try: lanai retry {batch}@failed" in ended.stderr


def test_checks_of_many_files_are_one_group(site: Site) -> None:
    lines = [f"true {{check out exists out{letter}}}" for letter in "ABCDEFGHIJKLMNOP"]
    ended = site.lanai("run", list_file(site, *lines), ok=False)
    assert ended.returncode == 1
    assert "  16 x output check exists failed: " in ended.stderr
    assert ended.stderr.count(" x ") == 1


def test_a_list_from_standard_input(site: Site) -> None:
    ended = site.lanai("run", "-", stdin="# nothing\ntrue\r\n\ntrue\n")
    assert "2 done" in ended.stderr


@pytest.mark.parametrize("text", ["", "# only a comment\n\n"])
def test_an_empty_list_is_refused(site: Site, text: str) -> None:
    ended = site.lanai("run", "-", stdin=text, ok=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("lanai: ")


def test_all_bad_lines_are_told_and_nothing_is_submitted(site: Site) -> None:
    before = site.lanai("batch", "list", "--format", "quiet").stdout
    ended = site.lanai("submit", list_file(site, "a {use cpu many}", "true", "b {use ram x}"), ok=False)
    assert ended.returncode == 2
    assert "jobs.txt:1:12" in ended.stderr and "jobs.txt:3:12" in ended.stderr
    assert site.lanai("batch", "list", "--format", "quiet").stdout == before


def test_options_reach_the_jobs(site: Site, tmp_path: Path) -> None:
    command = "echo $LANAI_CPUS $LANAI_MEMORY_BYTES $COLOUR $(umask); pwd; env | wc -l"
    words = ["--cpus", "0.5", "--memory", "64M", "--env-none", "--env", "COLOUR=blue", "--dir", str(tmp_path)]
    site.lanai("run", list_file(site, command), *words, "--output", "%b.%i.out")
    (path,) = site.work.glob("*.1.out")
    first, second, _ = path.read_text().splitlines()
    mask = os.umask(0o022)
    os.umask(mask)
    assert first == f"0.5 {64 << 20} blue {mask:04o}"
    assert second == str(tmp_path)


def test_retries_by_cause(site: Site) -> None:
    ended = site.lanai("run", list_file(site, "test $LANAI_ATTEMPT -ge 3"), "--retries", "exit=2")
    assert "1 done" in ended.stderr
    (job,) = map(json.loads, site.lanai("job", "list", "--format", "ndjson").stdout.splitlines())
    assert (job["state"], job["attempts"]) == ("done", 3)


# -- run with one command


def test_one_command_passes_output_and_exit_code_through(site: Site) -> None:
    ended = site.lanai("run", "--", "sh", "-c", "echo out; echo err >&2; exit 9", ok=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (9, "out\n", "err\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["true"], 0), (["false"], 1), (["sh", "-c", "kill -15 $$"], 143), (["no-such-command"], 127)],
)
def test_exit_codes_of_one_command(site: Site, words: list[str], code: int) -> None:
    assert site.lanai("run", "--", *words, ok=False).returncode == code


def test_words_are_not_split_again(site: Site) -> None:
    words = ["a b", "", "c'd", "$HOME", 'e"f\n']
    ended = site.lanai("run", "--", "printf", "<%s>", *words)
    assert ended.stdout == "".join(f"<{word}>" for word in words)


def test_input_and_output_are_bytes(site: Site) -> None:
    data = os.urandom(1 << 20)
    ended = run_bytes(site, ["run", "--", "cat"], data)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, data, b"")


def test_a_command_that_does_not_read_its_input_ends_all_the_same(site: Site) -> None:
    ended = run_bytes(site, ["run", "--", "true"], b"x" * (1 << 20))
    assert ended.returncode == 0


def test_output_comes_while_the_command_runs(site: Site) -> None:
    """The command ends only after what it wrote has been seen here."""
    gate = site.work / "gate"
    os.mkfifo(gate)
    running = site.spawn("run", "--", "sh", "-c", f"echo here; cat {gate}")
    assert readline(running.stdout) == "here\n"
    gate.write_text("and gone\n")
    assert readline(running.stdout) == "and gone\n"
    assert running.wait(30) == 0


def test_a_second_try_is_copied_once(site: Site) -> None:
    script = 'echo try $LANAI_ATTEMPT; test "$LANAI_ATTEMPT" -gt 1'
    ended = site.lanai("run", "--retries", "1", "--", "sh", "-c", script)
    assert ended.stdout == "try 1\ntry 2\n"


def test_neither_list_nor_command(site: Site) -> None:
    assert site.lanai("run", ok=False).returncode == 2
    assert site.lanai("run", "jobs.txt", "--", "true", ok=False).returncode == 2
    forgotten = site.lanai("run", "true", ok=False)
    assert forgotten.returncode == 2
    assert "there is no job list true" in forgotten.stderr


# -- submit, wait, lists


def test_a_key_gives_the_same_batch_again(site: Site) -> None:
    name = list_file(site, "true", "true")
    words = ["submit", name, "--key", "nightly", "--format", "quiet"]
    first = site.lanai(*words).stdout
    assert first.strip().isdigit()
    assert site.lanai(*words).stdout == first
    list_file(site, "false")
    assert site.lanai(*words, ok=False).returncode == 7
    site.wait(int(first))


def test_wait_tells_how_it_went(site: Site) -> None:
    assert site.wait(site.submit(["true"])).returncode == 0
    assert site.wait(site.submit(["false"]), ok=False).returncode == 1
    assert site.lanai("wait", "999999", ok=False).returncode == 5
    batch = site.submit(["sleep 60"])
    timed_out = site.lanai("wait", str(batch), "--timeout", "0.2", ok=False)
    assert timed_out.returncode == 6
    assert timed_out.stdout == ""
    site.lanai("cancel", str(batch))
    assert site.wait(batch, ok=False).returncode == 1
    assert site.counts(batch) == {"cancelled": 1}


def test_a_list_of_jobs_has_exactly_the_promised_fields(site: Site) -> None:
    batch = site.submit(["true", "exit 4"])
    site.wait(batch, ok=False)
    jobs = site.jobs(batch)
    assert [list(job) for job in jobs] == [JOB_FIELDS] * 2
    assert (jobs[1]["id"], jobs[1]["state"], jobs[1]["exit_code"]) == (f"{batch}/2", "failed", 4)
    rows = list(csv.DictReader(io.StringIO(site.lanai("job", "list", str(batch), "--format", "csv").stdout)))
    assert [row["state"] for row in rows] == ["done", "failed"]
    failed = site.lanai("job", "list", str(batch), "--filter", "state=failed", "--format", "quiet").stdout
    assert failed == f"{batch}/2\n"
    answer = json.loads(site.lanai("job", "list", f"{batch}/1", "--format", "json").stdout)
    assert (answer["version"], [job["index"] for job in answer["jobs"]]) == (1, [1])


def test_selectors_pass_through_a_pipe(site: Site) -> None:
    batch = site.submit(["true", "test $LANAI_ATTEMPT -gt 1", "test $LANAI_ATTEMPT -gt 1"])
    site.wait(batch, ok=False)
    failed = site.lanai("job", "list", f"{batch}@failed", "--format", "quiet").stdout
    assert "2 jobs queued again" in site.lanai("retry", "-", stdin=failed).stderr
    assert site.wait(batch).returncode == 0


def test_hold_and_release(site: Site) -> None:
    batch = site.submit(["sleep 0.2; true"] * 20, "--max-running", "1")
    site.lanai("hold", f"{batch}/11-20")
    site.lanai("set", str(batch), "--max-running", "0")
    held = site.lanai("job", "list", f"{batch}@held", "--format", "quiet").stdout.split()
    assert held == [f"{batch}/{index}" for index in range(11, 21)]
    site.lanai("release", str(batch))
    assert site.wait(batch).returncode == 0


def test_wishes_count_only_what_is_known_to_be_so(site: Site) -> None:
    """`hold` said 10 of 10 while two ran on."""
    batch = site.submit(["echo >> began; while [ ! -e go ]; do sleep 0.02; done"] * 10, "--max-running", "2")
    site.await_lines("began", 2)
    eventually(lambda: site.counts(batch).get("running") == 2, what="the hub to know that two run")
    assert site.lanai("hold", str(batch)).stderr == f"batch {batch}: 8 jobs held, 2 jobs run on\n"
    assert site.lanai("cancel", f"{batch}/3-10").stderr == f"batch {batch}: 8 jobs cancelled\n"
    two = site.lanai("cancel", str(batch)).stderr
    assert two == f"batch {batch}: 2 jobs at nodes are ended unless done first\n"
    site.wait(batch, ok=False)


def test_logs_of_a_job_and_of_what_failed(site: Site) -> None:
    batch = site.submit(["echo one; echo two >&2", "echo three >&2; exit 1"])
    site.wait(batch, ok=False)
    first = site.lanai("logs", f"{batch}/1")
    assert (first.stdout, first.stderr) == ("one\n", "two\n")
    assert site.lanai("logs", f"{batch}/1", "--stream", "out").stderr == ""
    assert site.lanai("logs", f"{batch}@failed").stderr == "three\n"


def test_why_status_and_shows(site: Site) -> None:
    batch = site.submit(["sleep 30", "true"], "--max-running", "1")
    assert site.lanai("why", f"{batch}/2").stdout.startswith(f"{batch}/2: ")
    status = json.loads(site.lanai("status", "--format", "json").stdout)
    assert status["version"] == 1
    assert batch in [each["batch"] for each in status["batches"]]
    assert "nodes: 1 up" in site.lanai("status").stdout
    assert json.loads(site.lanai("job", "show", f"{batch}/1", "--format", "json").stdout)["job"]["index"] == 1
    assert f"{batch}" in site.lanai("batch", "list", "--filter", "state=open", "--format", "quiet").stdout.split()
    site.lanai("cancel", str(batch))
    site.wait(batch, ok=False)


def test_nodes_are_drained_and_used_again(site: Site) -> None:
    site.lanai("node", "drain", "n1")
    (node,) = json.loads(site.lanai("node", "list", "--format", "json").stdout)["nodes"]
    assert (node["name"], node["cpus"], node["is_drained"]) == ("n1", 2, True)
    site.lanai("node", "resume", "n1")
    assert json.loads(site.lanai("node", "show", "n1", "--format", "json").stdout)["node"]["is_drained"] is False
    assert site.lanai("node", "show", "nobody", ok=False).returncode == 5


def test_a_request_that_no_node_can_meet_is_refused(site: Site) -> None:
    ended = site.lanai("submit", list_file(site, "true"), "--memory", "500T", ok=False)
    assert ended.returncode == 2
    assert "lanai: " in ended.stderr


def test_the_token_file_is_the_way_from_elsewhere(site: Site, tmp_path: Path) -> None:
    token = site.home / "hub" / "token"
    ended = subprocess.run(
        [sys.executable, "-m", "lanai", "--token-file", str(token), "run", "--", "echo", "through TLS"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**site.environ(), "LANAI_HOME": str(tmp_path / "other")},
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "through TLS\n"), ended.stderr


# -- leaving


def test_an_interruption_detaches_and_says_how_to_come_back(site: Site) -> None:
    running = site.spawn("run", list_file(site, "sleep 1.5", "sleep 1.5"))
    batch = begun(running.stderr)
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 130
    assert running.stderr is not None
    assert f"try: lanai watch {batch}" in running.stderr.read()
    assert site.lanai("watch", str(batch)).returncode == 0


def test_a_second_interruption_cancels(site: Site) -> None:
    running = site.spawn("run", list_file(site, *["sleep 60"] * 4))
    batch = begun(running.stderr)
    running.send_signal(signal.SIGINT)
    assert readline(running.stderr).strip() == ""
    assert "detached" in readline(running.stderr)
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 1
    assert site.wait(batch, ok=False).returncode == 1
    assert site.counts(batch) == {"cancelled": 4}


def test_a_closed_terminal_detaches(site: Site) -> None:
    running = site.spawn("run", list_file(site, "sleep 1"))
    batch = begun(running.stderr)
    running.send_signal(signal.SIGHUP)
    assert running.wait(30) == 130
    assert site.wait(batch).returncode == 0


# -- the daemons


def test_hub_and_agent_are_started_and_stopped(tmp_path: Path) -> None:
    """What they print is what other people's scripts rely on."""
    site = Site(tmp_path / "own")
    try:
        hub = json.loads(site.lanai("hub", "start", "--listen", "127.0.0.1:0", "--format", "json").stdout)
        assert Path(hub["token_file"]).exists() and Path(hub["join_file"]).stat().st_mode & 0o777 == 0o600
        again = json.loads(site.lanai("hub", "start", "--format", "json").stdout)
        assert (again["pid"], again["url"]) == (hub["pid"], hub["url"])
        assert json.loads(site.lanai("hub", "status", "--format", "json").stdout)["url"] == hub["url"]
        words = ["agent", "start", "--hub", hub["url"], "--name", "a", "--cpus", "0.5", "--memory", "1G"]
        agent = json.loads(site.lanai(*words, "--format", "json").stdout)
        os.kill(agent["pid"], 0)
        (node,) = json.loads(site.lanai("node", "list", "--format", "json").stdout)["nodes"]
        assert (node["name"], node["cpus"], node["memory_bytes"], node["state"]) == ("a", 0.5, 1 << 30, "up")
        site.lanai("agent", "stop", "--name", "a", "--now")
        site.lanai("hub", "stop")
        assert site.lanai("hub", "status", ok=False).returncode == 3
        assert site.lanai("status", ok=False).returncode == 3
        site.lanai("hub", "stop")
        site.lanai("agent", "stop")
    finally:
        site.close()


def test_a_hub_in_the_foreground_ends_with_the_command(tmp_path: Path) -> None:
    site = Site(tmp_path / "own")
    try:
        running = site.spawn("hub", "start", "--foreground", "--listen", "127.0.0.1:0", "--format", "json")
        pid = json.loads(readline(running.stdout))["pid"]
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        site.close()


def test_an_agent_that_is_refused_says_why(site: Site, tmp_path: Path) -> None:
    join = json.loads((site.home / "join").read_text())
    forged = tmp_path / "join"
    forged.write_text(json.dumps({**join, "token": "00" * 32}))
    ended = site.lanai("agent", "start", "--name", "stranger", "--join", str(forged), ok=False)
    assert ended.returncode in (4, 7)
    assert ended.stderr.startswith("lanai: ")


# -- within


def run_bytes(site: Site, words: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "lanai", *words]
    return subprocess.run(
        command, input=data, capture_output=True, cwd=site.work, env=site.environ(), timeout=60, check=False
    )


def readline(stream: IO[str] | None, within_s: float = 30.0) -> str:
    """The next line; the empty text at the end, or when none has come in time."""
    assert stream is not None
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(within_s)
    return found[0] if found else ""


def begun(stream: IO[str] | None) -> int:
    """The batch that `lanai run` says it has submitted; by then it follows, or is about to."""
    words = readline(stream).split()
    assert words[:1] == ["batch"], words
    time.sleep(0.3)  # no event tells that its handlers are set
    return int(words[1].rstrip(":"))
