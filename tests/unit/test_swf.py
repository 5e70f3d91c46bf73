"""Reading traces: what each field becomes, what is skipped, and what is refused, with file and line."""

import pytest

from lanai.model.errors import UserError
from lanai.sim.swf import Reading, Trace, read_trace


def line(
    name: int | str = 1, submit: int | str = 0, run: int = 10, allocated: int = 4, requested: int = 4, time: int = 20
) -> bytes:
    return f" {name} {submit} -1 {run}  {allocated} -1 -1 {requested} {time} -1 1 7 1 -1 -1 -1 -1 -1\n".encode()


def read(*lines: bytes, **reading: object) -> Trace:
    return read_trace(lines, "log.swf", Reading(**{"procs": 8, **reading}))


def refused(*lines: bytes, **reading: object) -> str:
    with pytest.raises(UserError) as caught:
        read(*lines, **reading)
    return caught.value.message


def test_a_line_becomes_a_job() -> None:
    (job,) = read(line(name="007", submit=5)).jobs
    assert (job.id, job.submit_s, job.run_s, job.width, job.estimate_s, job.user) == ("007", 5, 10, 4, 20, 7)


def test_jobs_are_ordered_by_submission_then_by_the_file() -> None:
    assert [job.id for job in read(line(1, 9), line(2, 3), line(3, 9), line(4, 3)).jobs] == ["2", "4", "1", "3"]


@pytest.mark.parametrize(
    ("header", "procs"),
    [
        ([b"; MaxProcs: 64\n", b"; MaxNodes: 16\n"], 64),
        ([b";  MaxNodes: 16\n"], 16),
        ([b"; MaxProcs: 0\n", b"; MaxNodes: 16\n"], 16),
        ([b"; MaxProcs: -1\n", b";MaxNodes:16\n"], 16),
        ([b"; MaxProcs: 1,152\n", b"; MaxNodes: 16 \n"], 16),
    ],
)
def test_the_header_says_how_many_processors_there_are(header: list[bytes], procs: int) -> None:
    assert read(*header, b"\n", line(), procs=None).procs == procs
    assert read(*header, line(), procs=9).procs == 9


def test_without_processors_nothing_is_replayed() -> None:
    assert "--procs" in refused(b"; Computer: x\n", line(), procs=None)


def test_the_head_counts_lines_of_the_file_before_any_is_skipped() -> None:
    trace = read(line(1, 50), b"; note\n", line(2, run=-1), line(3, 1), b"no line of SWF", head=2)
    assert ([job.id for job in trace.jobs], trace.read) == (["1"], 2)


@pytest.mark.parametrize(
    ("allocated", "requested", "widths"),
    [(4, 2, (2, 4, 4)), (2, 4, (4, 2, 4)), (3, -1, (3, 3, 3)), (-1, 3, (3, 3, 3)), (3, 0, (3, 3, 3))],
)
def test_the_width(allocated: int, requested: int, widths: tuple[int, int, int]) -> None:
    found = tuple(
        read(line(allocated=allocated, requested=requested), width=width).jobs[0].width
        for width in ("requested", "allocated", "max")
    )
    assert found == widths


@pytest.mark.parametrize(
    ("run", "time", "reading", "run_and_estimate"),
    [
        (10, 20, {}, (10, 20)),
        (10, -1, {}, (10, 10)),
        (10, 0, {}, (10, 10)),
        (30, 20, {}, (30, 30)),
        (30, 20, {"overrun": "kill"}, (20, 20)),
        (10, 20, {"estimates": "actual"}, (10, 10)),
        (30, 20, {"estimates": "actual", "overrun": "kill"}, (20, 20)),
        (0, 20, {"keeps_zero": True}, (0, 20)),
    ],
)
def test_run_time_and_estimate(
    run: int, time: int, reading: dict[str, object], run_and_estimate: tuple[int, int]
) -> None:
    (job,) = read(line(run=run, time=time), **reading).jobs
    assert (job.run_s, job.estimate_s) == run_and_estimate


def test_what_cannot_be_replayed_is_skipped_and_named_by_its_line() -> None:
    trace = read(
        b"; note\n",
        line(1),
        line(2, run=-1),
        line(3, run=0),
        line(4, submit=-5),
        line(5, requested=9),
        line(6, allocated=-1, requested=-1),
        line(7, run=-1),
    )
    assert [job.id for job in trace.jobs] == ["1"]
    assert (trace.skipped_as("invalid"), trace.skipped_as("wide")) == (5, 1)
    assert [(skipped.reason, skipped.count, skipped.lines) for skipped in trace.skipped] == [
        ("a negative run time", 2, [3, 8]),
        ("a run time of 0", 1, [4]),
        ("a negative submit time", 1, [5]),
        ("more processors than there are", 1, [6]),
        ("no number of processors", 1, [7]),
    ]


def test_of_many_skipped_lines_the_first_are_named() -> None:
    (skipped,) = read(line(), *[line(run=-1) for _ in range(50)]).skipped
    assert (skipped.count, skipped.lines) == (50, list(range(2, 12)))


def test_a_trace_without_a_job_that_can_run_is_refused() -> None:
    assert refused(line(run=-1), line(requested=9)) == (
        "log.swf: found no job that can be replayed on 8 processors "
        "(1 with a negative run time; 1 with more processors than there are)"
    )
    assert refused() == "log.swf: found no job that can be replayed on 8 processors"


@pytest.mark.parametrize(
    ("damaged", "found"),
    [
        (b"1 2 3\n", "found 3 fields, accepted is 18 numbers"),
        (line()[:-1] + b" 5\n", "found 19 fields, accepted is 18 numbers"),
        (line(submit="x"), "found 'x' as field 2, accepted is a whole number"),
        (line(submit="1.5"), "found '1.5' as field 2, accepted is a whole number"),
        (line(submit="1_0"), "found '1_0' as field 2, accepted is a whole number"),
        (line(submit=1 << 53), f"found '{1 << 53}' as field 2, accepted is a number below 2^53"),
        (line(submit="9" * 5000), f"found '{'9' * 60}' as field 2, accepted is a number below 2^53"),
        (b"\x00\xff" * 40 + b"\n", "found 1 fields, accepted is 18 numbers"),
        (line(name="\\xff"), "found '\\\\xff' as field 1, accepted is a whole number"),
    ],
)
def test_a_damaged_line_is_named(damaged: bytes, found: str) -> None:
    assert refused(b"; note\n", line(), damaged, line()) == f"log.swf:3: {found}"


def test_fields_that_are_not_read_may_have_fractions() -> None:
    ragged = b"1 5 -1 10 4 3.25 1e3 4 20 -1.0 1 7 1 -1 -1 -1 -1 .5\n"
    assert [(job.submit_s, job.width) for job in read(ragged).jobs] == [(5, 4)]
    assert "field 6" in refused(ragged.replace(b"3.25", b"3.2.5"))
