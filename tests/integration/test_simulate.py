"""`lanai simulate` as a person types it: tables, JSON, files of starts, and every kind of bad input."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lanai.sim.swf import Reading, read_trace
from replay_reference import reference_starts

TRACES = Path(__file__).resolve().parents[1] / "traces"
KTH = TRACES / "kth-sp2.swf.gz"
HEADER = "; MaxProcs: 4\n"


def simulate(*words: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "lanai", "simulate", *map(str, words)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )


def job(name: object, submit: object = 0, run: object = 10, procs: object = 1, requested: object = 20) -> str:
    return f"{name} {submit} -1 {run} {procs} -1 -1 {procs} {requested} -1 1 3 1 -1 -1 -1 -1 -1\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.swf"
    path.write_text(HEADER + job(1) + job(2, run=-1) + job(3, procs=5) + job(4, procs=4) + job(5, submit=-3) + job(6))
    return path


def test_policies_stand_side_by_side_in_the_order_asked_for() -> None:
    done = simulate(KTH, "--policy", "fcfs,easy", "--policy", "depth:8,easy")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == [
        *("POLICY", "JOBS", "WAIT_AVG_S", "WAIT_P95_S", "WAIT_MAX_S"),
        *("SLOWDOWN_AVG", "UTILISATION", "MAKESPAN_S", "FAIRNESS_JAIN"),
    ]
    assert [line.split()[:2] for line in lines[1:4]] == [["fcfs", "400"], ["easy", "400"], ["depth:8", "400"]]
    assert lines[4:] == ["", f"{KTH}: 400 jobs read, 400 run on 100 processors"]


@pytest.mark.parametrize("policy", ["easy", "conservative"])
def test_the_file_of_starts_holds_every_job_and_matches_the_hash(tmp_path: Path, policy: str) -> None:
    out = tmp_path / "starts"
    done = simulate(KTH, "--policy", policy, "--head", 150, "--procs", 110, "--starts", out, "--format", "json")
    assert done.returncode == 0, done.stderr
    with gzip.open(KTH) as lines:
        trace = read_trace(lines, "kth", Reading(head=150, procs=110))
    starts = reference_starts(trace, policy)
    assert out.read_text() == "".join(
        f"{job.id} {job.submit_s} {start} {start + job.run_s}\n" for job, start in zip(trace.jobs, starts, strict=True)
    )
    (row,) = json.loads(done.stdout)["policies"]
    text = "".join(f"{job.id} {start}\n" for job, start in zip(trace.jobs, starts, strict=True))
    assert row["starts_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert row["starts_sum_s"] == sum(starts)


def test_json_says_what_was_skipped_and_why(log: Path) -> None:
    answer = json.loads(simulate(log, "--policy", "easy", "--format", "json").stdout)
    assert answer["version"] == 1
    assert answer["trace"] == {
        "file": str(log),
        "procs": 4,
        "jobs_read": 6,
        "jobs_run": 3,
        "skipped_invalid": 2,
        "skipped_wide": 1,
        "skipped": [
            {"kind": "invalid", "reason": "a negative run time", "count": 1, "lines": [3]},
            {"kind": "wide", "reason": "more processors than there are", "count": 1, "lines": [4]},
            {"kind": "invalid", "reason": "a negative submit time", "count": 1, "lines": [6]},
        ],
    }
    (row,) = answer["policies"]
    assert (row["policy"], row["jobs"], row["wait_max_s"], row["makespan_s"]) == ("easy", 3, 10, 20)
    assert row["utilisation"] == pytest.approx((10 + 40 + 10) / (4 * 20))


def test_the_table_names_what_was_skipped_by_file_and_line(log: Path) -> None:
    assert simulate(log, "--policy", "easy").stdout.decode().splitlines()[3:] == [
        f"{log}: 6 jobs read, 3 run on 4 processors",
        f"skipped: 1 with a negative run time: {log}:3",
        f"skipped: 1 with more processors than there are: {log}:4",
        f"skipped: 1 with a negative submit time: {log}:6",
    ]


def test_a_trace_may_come_by_a_pipe_packed_or_not() -> None:
    packed = KTH.read_bytes()
    printed = [simulate("-", "--policy", "easy", stdin=data).stdout for data in (packed, gzip.decompress(packed))]
    assert printed[0] == printed[1] != b""


def test_conventions_can_be_chosen(tmp_path: Path) -> None:
    trace, out = tmp_path / "log.swf", tmp_path / "out"
    trace.write_text(HEADER + job("1", run=30) + job("2", run=0) + "3 0 -1 10 4 -1 -1 2 20 -1 1 3 1 -1 -1 -1 -1 -1\n")
    words = ("--overrun", "kill", "--keep-zero", "--width", "allocated", "--estimates", "actual")
    assert simulate(trace, "--policy", "fcfs", "--starts", out, *words).returncode == 0
    assert out.read_text() == "1 0 0 20\n2 0 0 0\n3 0 20 30\n"
    assert simulate(trace, "--policy", "fcfs", "--starts", out).returncode == 0
    assert out.read_text() == "1 0 0 30\n3 0 0 10\n"


def test_predictions_make_other_starts_and_the_table_is_the_same() -> None:
    rows = [
        json.loads(simulate(KTH, "--policy", "easy-sjbf", "--estimates", by, "--format", "json").stdout)["policies"][0]
        for by in ("requested", "predicted")
    ]
    assert rows[0].keys() == rows[1].keys()
    assert rows[0]["starts_sha256"] != rows[1]["starts_sha256"]


def test_what_if_stands_beside_the_workload_as_it_was(log: Path) -> None:
    words = ("--policy", "easy,fcfs", "--what-if", "procs+=1", "--what-if", "load*=2, run*=0.5")
    done = simulate(log, *words)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    changes = ["-", "procs+=1", "load*=2,run*=0.5"]
    assert [line.split()[:3] for line in lines[:4]] == [
        ["POLICY", "WHAT_IF", "JOBS"],
        *(["easy", change, jobs] for change, jobs in zip(changes, "343", strict=True)),
    ]
    assert [line.split()[0] for line in lines[4:7]] == ["fcfs"] * 3
    assert f"{log}, procs+=1: 6 jobs read, 4 run on 5 processors" in lines
    answer = json.loads(simulate(log, *words, "--format", "json").stdout)
    assert [row["what_if"] for row in answer["policies"][:3]] == [None, *changes[1:]]
    assert [row["makespan_s"] for row in answer["policies"][:3]] == [20, 30, 10]
    assert [(each["what_if"], each["procs"], each["skipped_wide"]) for each in answer["what_ifs"]] == [
        ("procs+=1", 5, 0),
        ("load*=2,run*=0.5", 4, 1),
    ]


def test_a_machine_of_nodes_is_its_cpus_together(log: Path, tmp_path: Path) -> None:
    nodes = tmp_path / "nodes.txt"
    nodes.write_text("# a rack\nn1 2 64G 0 ssd,fast\nn2 2\n")
    done = simulate(log, "--policy", "easy", "--nodes", nodes, "--what-if", "nodes+=1")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert "2 nodes with 4 cpus; for easy one machine with all of them" in lines
    assert f"{log}: 6 jobs read, 3 run on 4 processors" in lines
    assert f"{log}, nodes+=1: 6 jobs read, 4 run on 6 processors" in lines
    nodes.write_text("n1 2\nn2 two\n")
    done = simulate(log, "--policy", "easy", "--nodes", nodes)
    assert done.returncode == 2
    assert f"{nodes}:2: found 'two' as cpus, accepted is" in done.stderr.decode()


def test_pictures_are_drawn_of_all_replays_of_a_call(tmp_path: Path) -> None:
    into = tmp_path / "new" / "pictures"
    done = simulate(KTH, "--policy", "fcfs,easy", "--what-if", "procs*=2", "--plots", into, "--format", "json")
    assert (done.returncode, done.stderr) == (0, b"")
    files = [into / f"{name}.{kind}" for name in ("utilisation", "queue", "waits") for kind in ("png", "svg")]
    assert json.loads(done.stdout)["plots"] == [str(file) for file in files]
    assert sorted(into.iterdir()) == sorted(files)
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".png":
            assert content[:8] == b"\x89PNG\r\n\x1a\n"
        else:
            for label in (b"kth-sp2.swf.gz on 100 processors<", b">fcfs<", b">easy<", b">easy, procs*=2<"):
                assert label in content
    assert b"days since the first submission" in files[1].read_bytes()
    piped = simulate("-", "--policy", "easy", "--estimates", "actual", "--plots", into, stdin=KTH.read_bytes())
    assert piped.stdout.decode().splitlines()[-6:] == [f"drawn: {file}" for file in files]
    assert b"standard input on 100 processors, estimates actual<" in files[1].read_bytes()


# -- what is refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEADER + job(1) + "1 2 3\n", "{file}:3: found 3 fields, accepted is 18 numbers"),
        (HEADER + job(1) + job(2, submit="soon"), "{file}:3: found 'soon' as field 2, accepted is a whole number"),
        (job(1), "{file}: found neither `; MaxProcs: N` nor `; MaxNodes: N`, accepted is either, or --procs N"),
        (HEADER + job(1, run=0), "{file}: found no job that can be replayed on 4 processors (1 with a run time of 0)"),
        (HEADER + ";" * (1 << 20), "{file}:2: found a line of more than 1048576 bytes, accepted is a line of SWF"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path: Path, content: str, said: str) -> None:
    trace, out = tmp_path / "log.swf", tmp_path / "out"
    trace.write_text(content)
    out.write_text("as before")
    done = simulate(trace, "--policy", "easy", "--starts", out)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[0] == f"lanai: {said.format(file=trace)}"
    assert out.read_text() == "as before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.swf", "out"]


def test_a_packed_trace_that_breaks_off_is_named_with_its_line(tmp_path: Path) -> None:
    trace = tmp_path / "log.swf.gz"
    trace.write_bytes(KTH.read_bytes()[:-2000])
    done = simulate(trace, "--policy", "easy")
    assert (done.returncode, done.stdout) == (2, b"")
    words = done.stderr.decode()
    line = int(words.removeprefix(f"lanai: {trace}:").partition(":")[0])
    assert 100 < line < 400
    assert "Compressed file ended" in words


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


PACKED = gzip.compress((HEADER + job(1) + job(2)).encode(), mtime=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PACKED[:3], "{file}:1: cannot read on: Compressed file ended"),
        (PACKED[:-4], "{file}:4: cannot read on: Compressed file ended"),
        (flipped(PACKED, len(PACKED) - 6), "{file}:4: cannot read on: CRC check failed"),
        (PACKED + b"more", "{file}:4: cannot read on: Not a gzipped file"),
        (flipped(PACKED, 10), "{file}:1: cannot read on: "),
        (gzip.compress(b""), "{file}: found neither `; MaxProcs: N` nor `; MaxNodes: N`"),
        (b"", "{file}: found neither `; MaxProcs: N` nor `; MaxNodes: N`"),
        (b"PK\x03\x04rest", "{file}:1: found 1 fields, accepted is 18 numbers"),
        ((HEADER + job(1) + job(2))[:-9].encode(), "{file}:3: found 15 fields, accepted is 18 numbers"),
        ((HEADER + job(1)).encode("utf-16"), "{file}:1: found "),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_written(tmp_path: Path, content: bytes, said: str) -> None:
    trace, out = tmp_path / "log.swf.gz", tmp_path / "out"
    trace.write_bytes(content)
    done = simulate(trace, "--policy", "easy", "--starts", out, "--plots", tmp_path / "pictures")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"lanai: {said.format(file=trace)}")
    assert [path.name for path in tmp_path.iterdir()] == ["log.swf.gz"]


@pytest.mark.parametrize("ends", ["\r\n", "\n\n"])
def test_other_ends_of_lines_are_taken(tmp_path: Path, ends: str) -> None:
    trace, out = tmp_path / "log.swf", tmp_path / "out"
    trace.write_bytes((HEADER + job(1) + job(2)).replace("\n", ends).encode().rstrip())
    assert simulate(trace, "--policy", "easy", "--starts", out).returncode == 0
    assert out.read_text() == "1 0 0 10\n2 0 0 10\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((KTH, "--policy", "best"), 2, "there is no policy 'best'; accepted are fcfs, easy, easy-sjbf, sjf,"),
        ((KTH, "--policy", "nowhere.toml"), 5, "there is no file nowhere.toml"),
        ((KTH, "--policy", "easy", "--shake", "0"), 2, "--shake"),
        ((KTH, "--policy", "easy", "--shake", "2", "--starts", "x"), 2, "--shake replays many copies: --starts and"),
        ((KTH, "--policy", "easy", "--shake", "2", "--plots", "x"), 2, "--shake replays many copies: --starts and"),
        ((KTH, "--policy", "depth:0"), 2, "there is no policy 'depth:0'"),
        ((KTH, "--policy", ","), 2, "there is no policy ''"),
        ((KTH,), 2, "Missing option '--policy'"),
        ((KTH, "--policy", "easy", "--estimates", "guessed"), 2, "'guessed' is not one of 'requested', 'actual'"),
        ((KTH, "--policy", "conservative", "--estimates", "predicted"), 2, "conservative promises every job its start"),
        ((KTH, "--policy", "easy", "--head", "0"), 2, "--head"),
        ((KTH, "--policy", "easy", "--procs", "-3"), 2, "--procs"),
        ((KTH, "--policy", "easy", "--nodes", "x"), 5, "there is no file x"),
        ((KTH, "--policy", "easy", "--nodes", "."), 2, "cannot read .: Is a directory"),
        ((KTH, "--policy", "easy", "--nodes", "x", "--procs", "4"), 2, "--procs and --nodes both say how large"),
        ((KTH, "--policy", "easy", "--what-if", "nodes+=2"), 2, "nodes+=2: the machine has no nodes: give --nodes"),
        ((KTH, "--policy", "easy", "--what-if", "cores+=2"), 2, "--what-if: found 'cores+=2', accepted is procs"),
        ((KTH, "--policy", "easy", "--what-if", "procs-=100"), 2, "procs would be 0, accepted is 1 or more"),
        ((KTH, "--policy", "easy", "--what-if", "load*=0"), 2, "--what-if: found 'load*=0'"),
        ((KTH, "--policy", "easy", "--what-if", "run*=2", "--starts", "x"), 2, "--starts takes the starts of one"),
        ((KTH, "--policy", "easy", "--plots", ""), 2, "--plots needs the name of a directory"),
        ((KTH, "--policy", "easy", "--plots", "/proc/x"), 2, "cannot make /proc/x"),
        ((KTH, "--policy", "easy,fcfs", "--starts", "x"), 2, "--starts takes the starts of one policy"),
        ((KTH, "--policy", "easy", "--starts", "-"), 2, "--starts needs the name of a file"),
        ((KTH, "--policy", "easy", "--starts", "nowhere/x"), 2, "cannot write nowhere/x: No such file or directory"),
        (("nowhere.swf", "--policy", "easy"), 5, "there is no file nowhere.swf"),
        ((".", "--policy", "easy"), 2, "cannot read .: Is a directory"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, words: tuple[str | Path, ...], code: int, said: str) -> None:
    done = simulate(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, b"")
    assert said in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []
