"""Lists that hold nothing, selectors in every verb that takes them, and what is printed where to."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.processes import eventually
from services.site import Site

LINES = ["echo out$LANAI_INDEX; echo err$LANAI_INDEX >&2; [ $LANAI_INDEX -le 40 ]"] * 50


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("lists"))
    made.start_hub()
    made.start_agent("n1", "--cpus", "4")
    yield made
    made.close()


@pytest.fixture(scope="module")
def ended(site: Site) -> int:
    """A batch of which 40 jobs are done and the last 10 have failed."""
    batch = site.submit(LINES, "--name", "x, y")
    site.wait(batch, ok=False)
    return batch


def ids(site: Site, *words: str, stdin: str = "") -> list[int]:
    printed = site.lanai("job", "list", *words, "--format", "quiet", stdin=stdin).stdout.split()
    return [int(each.partition("/")[2]) for each in printed]


def shell(site: Site, script: str) -> subprocess.CompletedProcess[str]:
    """Run a bash script in which `lanai` is the command under test."""
    start = f'lanai() {{ "{sys.executable}" -m lanai "$@"; }}; '
    words = ["bash", "-c", start + script]
    return subprocess.run(
        words, cwd=site.work, env=site.environ(), capture_output=True, text=True, timeout=60, check=False
    )


# -- lists


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"# nothing\n\n  # more\r\n\t\n", "holds only comments and blank lines"),
        (b"\xef\xbb\xbf#" + b"x" * 600_000 + b"\n", "holds only comments and blank lines"),
        (None, "there is no job list"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "submit"])
def test_a_list_with_nothing_in_it_is_refused_plainly(
    site: Site, tmp_path: Path, verb: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / "list"
    if content is not None:
        path.write_bytes(content)
    for words, stdin in ((str(path), ""), ("-", (content or b"").decode())):
        if content is None and words == "-":
            continue
        refused = site.lanai(verb, words, stdin=stdin, ok=False)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) <= 2


@pytest.mark.parametrize("line", [b"sort {check in exists+}", b"sort {use ram much}", b"sort \0"])
def test_bad_lines_are_counted_and_said_once_each(site: Site, tmp_path: Path, line: bytes) -> None:
    """The same words wherever a list is looked through: here where input files are checked, else by the API."""
    path = tmp_path / "list"
    path.write_bytes(b"true\n" + line + b"\n" + line + b"\n")
    refused = site.lanai("submit", str(path), ok=False)
    first, *problems = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert first == f"lanai: {path} has 2 problems; nothing was submitted"
    assert [problem.strip().split(":")[1] for problem in problems] == ["2", "3"]


def test_a_list_that_cannot_be_read_is_refused_plainly(site: Site, tmp_path: Path) -> None:
    # Unmapped memory: it can be opened, and reading it is an error, also for root.
    for path, why in ((tmp_path, "Is a directory"), ("/proc/self/mem", "Input/output error")):
        refused = site.lanai("submit", str(path), ok=False)
        assert refused.returncode == 2
        assert refused.stderr == f"lanai: the job list {path} cannot be read: {why}\n"


def test_nothing_is_started_for_a_list_without_a_job(tmp_path: Path) -> None:
    site = Site(tmp_path / "fresh")
    assert site.lanai("run", "-", stdin="# nothing\n", ok=False).returncode == 2
    assert not (site.home / "private").exists()
    site.close()


def test_a_list_of_one_line_after_a_byte_order_mark(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbf# one\r\n\r\n  true")
    assert "1 job" in site.lanai("submit", str(path)).stdout


# -- selectors


def test_selectors_choose_the_same_jobs_in_every_list(site: Site, ended: int) -> None:
    assert ids(site, f"{ended}/12-40:9") == [12, 21, 30, 39]
    assert ids(site, "@failed") == ids(site, f"{ended}@failed") == list(range(41, 51))
    assert ids(site, f"{ended}/1-45:2@failed") == [41, 43, 45]
    assert ids(site, "-", stdin=f"{ended}/3 last/5-6\n\n{ended}@failed\n") == [3, 5, 6, *range(41, 51)]
    assert ids(site, "last", "--filter", "exit_code=1", "--filter", "index>=49") == [49, 50]
    assert ids(site, "last", "--limit", "2", "--filter", "state!=done") == [41, 42]


def test_logs_and_why_take_selectors(site: Site, ended: int) -> None:
    logs = site.lanai("logs", "@failed", "--limit", "2")
    assert logs.stdout == f"==> {ended}/41 <==\nout41\n==> {ended}/42 <==\nout42\n"
    assert logs.stderr.startswith("err41\nerr42\nlanai: there are more")
    assert site.lanai("logs", "-", "--stream", "err", stdin=f"{ended}/3 {ended}/41").stderr == "err3\nerr41\n"
    why = site.lanai("why", "-", stdin=f"{ended}/3\n{ended}/50@failed").stdout.splitlines()
    assert why == [f"{ended}/3: it is done", f"{ended}/50: it failed: exit code 1"]
    assert len(site.lanai("why", "@failed").stdout.splitlines()) == 10
    assert "has ended" in site.lanai("why", str(ended)).stdout


def test_changes_take_selectors(site: Site) -> None:
    """`hold @failed` held every job that waited."""
    batch = site.submit(["sleep 60"] * 40)

    def said(verb: str, *words: str, stdin: str = "") -> str:
        return site.lanai(verb, *words, stdin=stdin).stderr

    assert said("hold", "@failed") == f"batch {batch}: 0 jobs held\n"
    assert said("hold", f"{batch}/12-40:2") == f"batch {batch}: 15 jobs held\n"
    assert ids(site, "@held") == list(range(12, 41, 2))
    assert said("release", "@queued") == f"batch {batch}: 0 jobs released\n"
    assert said("release", "-", stdin=f"{batch}/12 {batch}/14\n") == f"batch {batch}: 2 jobs released\n"
    assert said("release", f"{batch}/1-20@held") == f"batch {batch}: 3 jobs released\n"
    assert said("cancel", "@held") == f"batch {batch}: 10 jobs cancelled\n"
    assert said("retry", "last/22-24@cancelled") == f"batch {batch}: 2 jobs queued again\n"
    at_nodes = "4 jobs at nodes are ended unless done first"
    assert said("cancel", "last") == f"batch {batch}: 28 jobs cancelled, {at_nodes}\n"
    assert site.wait(batch, ok=False).returncode == 1
    assert site.counts(batch) == {"cancelled": 40}


def test_an_ended_batch_has_nothing_to_change(site: Site, ended: int) -> None:
    for verb, done in (("cancel", "cancelled"), ("hold", "held"), ("release", "released")):
        assert site.lanai(verb, str(ended)).stderr == f"batch {ended}: 0 jobs {done}\n"
        assert site.lanai(verb, "999999", ok=False).returncode == 5
    refused = site.lanai("set", str(ended), "--priority", "5", ok=False)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (7, f"lanai: batch {ended} has ended")
    assert site.lanai("set", "999999", "--priority", "5", ok=False).returncode == 5


@pytest.mark.parametrize("verb", ["job list", "logs", "why", "cancel", "hold", "release", "retry"])
def test_jobs_that_are_not_there_are_said_plainly(site: Site, ended: int, verb: str) -> None:
    for selector in (f"{ended}/51", f"{ended}/49-51@failed", f"{ended}/0"):
        refused = site.lanai(*verb.split(), selector, ok=False)
        assert (refused.returncode, refused.stdout) == (5, ""), selector
        assert "the batch has 1 to 50" in refused.stderr
    assert site.lanai(*verb.split(), f"{ended}/1-50@held").returncode == 0


@pytest.mark.parametrize("words", [["wait", "1/3"], ["watch", "@failed"], ["batch", "show", "1/1"], ["cancel", "x/1"]])
def test_what_a_selector_cannot_mean_is_refused(site: Site, words: list[str]) -> None:
    assert site.lanai(*words, ok=False).returncode == 2


# -- printing


def test_formats_columns_and_filters(site: Site, ended: int) -> None:
    text = site.lanai(
        "batch", "list", "--filter", "failed>0", "--format", "csv", "--columns", "batch,name,failed"
    ).stdout
    assert list(csv.reader(io.StringIO(text))) == [["batch", "name", "failed"], [str(ended), "x, y", "10"]]
    (row,) = json.loads(site.lanai("batch", "list", "--limit", "1", "--format", "json").stdout)["batches"]
    assert json.loads(site.lanai("batch", "show", "--format", "ndjson").stdout) == row
    refused = site.lanai("job", "list", "--columns", "outcom", ok=False)
    assert refused.returncode == 2 and "did you mean outcome?" in refused.stderr
    assert site.lanai("job", "list", "--limit", "0", "--format", "quiet").stdout == ""


@pytest.mark.parametrize("format_", ["table", "json", "ndjson", "csv", "quiet"])
def test_a_reader_that_has_enough_is_no_error(site: Site, format_: str) -> None:
    # More than a pipe holds in any format, so that the reader is gone before all is written.
    batch = site.submit(["true"] * 30_000, "--max-running", "1")
    ended = shell(site, f"lanai job list {batch} --format {format_} | head -1; echo ${{PIPESTATUS[0]}}")
    site.lanai("cancel", str(batch))
    assert ended.stdout.splitlines()[-1] == "141"
    assert ended.stderr == ""


def test_output_that_nobody_takes(site: Site, ended: int) -> None:
    for script, code, said in (
        ("lanai node list >&-", 1, "lanai: cannot write: standard output is closed\n"),
        ("lanai job list --format ndjson >&-", 1, "lanai: cannot write: standard output is closed\n"),
        (f"lanai cancel {ended} >&-", 0, f"batch {ended}: 0 jobs cancelled\n"),
        ("lanai job list >/dev/full", 1, "lanai: cannot write: No space left on device\n"),
        ("lanai logs last/1 2>&-", 0, ""),
        ("lanai status <&-", 0, ""),
    ):
        done = shell(site, script)
        assert (done.returncode, done.stderr) == (code, said), script


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("run good", 0),
        ("run bad", 1),
        ("run -- sh -c 'echo e >&2; exit 3'", 3),
        ("run -- sh -c 'kill -9 $$'", 137),
        ("cancel last", 0),
        ("logs last", 0),
        ("cancel 999999", 5),
        ("nosuchverb", 2),
    ],
)
@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_talk_that_cannot_be_written_changes_no_exit_code(site: Site, words: str, code: int, to: str) -> None:
    """A batch that was done, and a command's own exit code, became 1."""
    (site.work / "good").write_text("true\n" * 3)
    (site.work / "bad").write_text("false\n")
    assert shell(site, f"lanai {words} {to}").returncode == code


def test_a_command_whose_output_nobody_reads_any_more_is_cancelled(site: Site) -> None:
    """It ends as it would in a pipe without lanai, and does not go on to fill the node's disk."""
    done = shell(site, "lanai run -- sh -c 'while echo y; do :; done' | head -2; echo ${PIPESTATUS[0]}")
    assert done.stdout == "y\ny\n141\n"
    assert "Traceback" not in done.stderr
    number = int(site.lanai("batch", "list", "--limit", "1", "--format", "quiet").stdout)
    eventually(lambda: site.counts(number) == {"cancelled": 1}, what="the command to be cancelled")


def test_colour_is_for_terminals_without_no_color(site: Site, ended: int) -> None:
    words = [sys.executable, "-m", "lanai", "job", "list", f"{ended}/50"]
    for extra, is_coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        shown = on_terminal(words, {**site.environ(), "TERM": "xterm", **extra}, site.work)
        assert (b"\x1b[" in shown) is is_coloured, shown
    assert "\x1b" not in site.lanai("job", "list", f"{ended}/50").stdout


def on_terminal(words: list[str], env: dict[str, str], cwd: Path) -> bytes:
    """What a command writes to a terminal of 200 columns."""
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=cwd) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            shown += piece
        assert child.wait(30) == 0
    os.close(ours)
    return shown


# -- keys


def test_a_key_used_twice_also_at_the_same_moment_is_one_batch(site: Site) -> None:
    def submit(_: int) -> str:
        return site.lanai("submit", "-", "--key", "k1", "--format", "quiet", stdin="echo x >> keyed\n" * 200).stdout

    with ThreadPoolExecutor(4) as pool:
        numbers = set(pool.map(submit, range(4)))
    assert len(numbers) == 1
    assert {submit(0)} == numbers
    (batch,) = map(int, numbers)
    site.wait(batch)
    assert len(site.lines_of("keyed")) == 200
    other = site.lanai("submit", "-", "--key", "k1", stdin="true\n", ok=False)
    assert other.returncode == 7 and "k1" in other.stderr
