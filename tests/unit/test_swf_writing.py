"""Jobs that have ended as lines of a trace, and that they are read back as what they were."""

from typing import Any

import pytest

from lanai.sim.swf import Reading, read_trace
from lanai.sim.swf_writing import Ended, Writer

JOB: dict[str, Any] = {
    "batch": 7,
    "state": "done",
    "user": "ann",
    "account": "",
    "service": "",
    "node": "n1",
    "nodes": 1,
    "cpu_milli": 1000,
    "memory_bytes": 0,
    "time_limit_s": None,
    "submitted_at_us": 1_000_000_900_000,
    "started_at_us": 1_000_010_100_000,
    "wall_s": 5.0,
    "cpu_s": 4.5,
    "memory_peak_bytes": None,
}


def ended(**fields: Any) -> Ended:
    return Ended(**{**JOB, **fields})


def test_a_job_becomes_sixteen_fields() -> None:
    assert Writer().fields(ended()) == "10 5 1 4.50 -1 1 -1 -1 1 1 -1 7 1 1 -1 -1\n"


@pytest.mark.parametrize(
    ("fields", "place", "value"),
    [
        ({"wall_s": 0.0}, 1, "1"),
        ({"wall_s": 5.001}, 1, "6"),
        ({"cpu_milli": 2500}, 2, "3"),
        ({"cpu_milli": 0}, 2, "1"),
        ({"cpu_milli": 1500, "nodes": 3}, 5, "6"),
        ({"cpu_milli": 2000}, 3, "2.25"),
        ({"memory_peak_bytes": 10 << 20, "cpu_milli": 2000}, 4, "5120"),
        ({"time_limit_s": 59.5}, 6, "60"),
        ({"memory_bytes": 3 << 20, "cpu_milli": 2000, "nodes": 2}, 7, "1536"),
        ({"state": "failed"}, 8, "0"),
        ({"state": "cancelled"}, 8, "5"),
        ({"started_at_us": 0}, 0, "0"),
        ({"account": "physics"}, 10, "1"),
        ({"node": ""}, 13, "-1"),
    ],
)
def test_what_each_field_says(fields: dict[str, Any], place: int, value: str) -> None:
    assert Writer().fields(ended(**fields)).split()[place] == value


def test_names_are_numbered_as_they_come_and_the_header_says_which() -> None:
    writer = Writer()
    whose = (("b", "quick"), ("a", ""), ("b", ""))
    users = [writer.fields(ended(user=user, service=service)) for user, service in whose]
    assert [line.split()[9] for line in users] == ["1", "2", "1"]
    assert [line.split()[12] for line in users] == ["1", "2", "2"]
    header = "".join(writer.header(hub="h", cpus=8, nodes=2, first_us=1_000_000_900_000, never_started=4))
    assert "; User: 1 b\n; User: 2 a\n" in header
    assert "; Queue: 1 quick\n; Queue: 2 normal\n" in header
    assert "; Partition: 1 n1\n" in header
    assert "; MaxProcs: 8\n" in header
    assert "; UnixStartTime: 1000000\n" in header
    assert "; StartTime: Mon Jan 12 13:46:40 UTC 1970\n" in header
    assert "; Note: 4 jobs" in header
    assert all(line.startswith("; ") for line in header.splitlines())


def test_a_name_breaks_no_line() -> None:
    writer = Writer()
    writer.fields(ended(account="a\nb\r; c"))
    header = "".join(writer.header(hub="h", cpus=1, nodes=1, first_us=0, never_started=0))
    assert "; Group: 1 a b ; c\n" in header


def test_what_is_written_is_read_as_what_was_run() -> None:
    writer = Writer()
    fields = [writer.fields(ended(cpu_milli=64_000, wall_s=0.2)), writer.fields(ended(user="bob", time_limit_s=60.0))]
    header = writer.header(hub="h", cpus=4, nodes=1, first_us=1_000_000_900_000, never_started=0)
    lines = [*header, f"1 0 {fields[0]}", f"2 9 {fields[1]}"]
    trace = read_trace([line.encode() for line in "".join(lines).splitlines(keepends=True)], "past", Reading())
    assert (trace.procs, trace.read, trace.skipped) == (64, 2, [])
    assert [(job.submit_s, job.run_s, job.width, job.estimate_s, job.user) for job in trace.jobs] == [
        (0, 1, 64, 1, 1),
        (9, 5, 1, 60, 2),
    ]
