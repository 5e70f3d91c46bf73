"""The job-list parser, above all against a naive reference that looks at one line at a time."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanai.model import joblist
from lanai.model.clauses import ClauseParser, faults
from lanai.model.joblist import BLOCK_BYTES, BLOCK_JOBS, JobBlock, JobListParser, ListProblem
from lanai.model.request import AS_BATCH, Check, JobRequest

Job = tuple[int, bytes, JobRequest, tuple[Check, ...]]


def parsed(data: bytes, cuts: list[int] | None = None) -> tuple[list[JobBlock], JobListParser]:
    parser = JobListParser("jobs.txt")
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts or []), len(data)]
    blocks = [block for begin, end in pairwise(edges) for block in parser.feed(data[begin:end])] + parser.finish()
    return blocks, parser


def jobs_of(blocks: list[JobBlock]) -> list[Job]:
    jobs: list[Job] = []
    for block in blocks:
        requests = [request for count, request in block.runs for _ in range(count)]
        commands = block.commands.split(b"\0")
        assert len(commands) == len(requests) == block.count
        assert all(mine != next_ for (_, mine), (_, next_) in pairwise(block.runs))
        for at, command in enumerate(commands):
            jobs.append((block.line_of(at), command, requests[at], block.checks.get(at, ())))
    return jobs


def naive(data: bytes) -> tuple[list[Job], list[tuple[int, int]]]:
    """Jobs, and (line, column) of the problems, straight from the description."""
    jobs, problems = [], []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = raw.removesuffix(b"\r").lstrip(b" \t\v\f\r")
        if b"\0" in raw:
            problems.append((number, len(raw[: raw.index(b"\0")].decode(errors="replace")) + 1))
        elif line and not line.startswith(b"#"):
            taken = ClauseParser().parse(line)
            if taken is None:
                problems += [(number, len(raw[: f.offset].decode(errors="replace")) + 1) for f in faults(raw)]
            else:
                jobs.append((number, *taken))
    return jobs, problems


LINES = (
    b"", b" ", b"\t", b"# comment", b"  # indented {use cpu x}", b"true", b"  true", b"true  ", b"echo a # b", b"\r",
    b"true\r", b"awk '{print}'", b"p {use cpu 2}", b"p {use cpu 2} x", b"p {use ram 1g}", b"p {use cpu x} {use y",
    b"cat {check in exists a} > {check out line+ b}", b"{use cpu 1}", b"caf\xc3\xa9 {check bad}", b"a\0b", b"!x",
    b'"x"', b"\xff", b"\xef\xbb\xbf", b"x\ry",
)  # fmt: skip


@given(
    st.lists(st.sampled_from(LINES), max_size=40).map(b"\n".join),
    st.lists(st.integers(0, 400), max_size=6),
    st.sampled_from([(3, 40), (1, 1000), (1000, 1 << 20), (7, 25)]),
)
@settings(max_examples=300)
def test_it_agrees_with_the_naive_reference(data: bytes, cuts: list[int], limits: tuple[int, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joblist, "BLOCK_JOBS", limits[0])
        patch.setattr(joblist, "BLOCK_BYTES", max(limits[1], 64))
        blocks, parser = parsed(data, cuts)
        assert blocks == parsed(data)[0]
    jobs, problems = naive(data)
    assert jobs_of(blocks) == jobs
    assert [(problem.line, problem.column) for problem in parser.problems] == problems
    assert parser.problem_count == len(problems)
    assert parser.job_count == len(jobs)
    assert all(block.count <= limits[0] and len(block.commands) <= max(limits[1], 64) for block in blocks)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_any_bytes_are_parsed_or_refused(data: bytes, cuts: list[int]) -> None:
    blocks, parser = parsed(data, cuts)
    assert jobs_of(blocks) == naive(data)[0]
    assert parser.problem_count == len(naive(data)[1])


def test_a_plain_list_comes_in_blocks_of_a_thousand() -> None:
    data = b"".join(b"echo %d\n" % number for number in range(2500))
    blocks, parser = parsed(data)
    assert [(block.first_line, block.count) for block in blocks] == [(1, 1000), (1001, 1000), (2001, 500)]
    assert blocks[0].runs == ((BLOCK_JOBS, AS_BATCH),)
    assert b"\0".join(block.commands for block in blocks).replace(b"\0", b"\n") + b"\n" == data
    assert (parser.job_count, parser.line_count, parser.problems) == (2500, 2500, [])


def test_long_lines_make_small_blocks() -> None:
    line = b"x" * (BLOCK_BYTES // 3)
    blocks, parser = parsed(b"\n".join([line] * 7 + [b"y" * BLOCK_BYTES, b"true"]))
    assert [block.count for block in blocks] == [2, 2, 2, 1, 1, 1]
    assert parser.problem_count == 0


def test_an_endless_line_is_refused_and_not_kept() -> None:
    parser = JobListParser("jobs.txt")
    for _ in range(50):
        assert parser.feed(b"y" * 100_000) == []
    assert parser.feed(b"\ntrue\n") == []
    blocks = parser.finish()
    assert [(block.first_line, block.commands) for block in blocks] == [(2, b"true")]
    assert parser.problems == [ListProblem("jobs.txt", 1, 1, "y" * 79 + "…", "a line of at most 1 MiB")]


def test_a_problem_reads_as_file_line_column_found_and_accepted() -> None:
    _, parser = parsed(b"true\n  caf\xc3\xa9 {use cpu two}\r\na\0b")
    assert [problem.text for problem in parser.problems] == [
        "jobs.txt:2:17: found 'two', accepted is a number such as 2 or 0.5",
        "jobs.txt:3:2: found '\\x00', accepted is text without NUL bytes",
    ]


def test_problems_are_counted_beyond_those_kept() -> None:
    blocks, parser = parsed(b"p {use cpu x}\n" * 2500 + b"true\n")
    assert (len(parser.problems), parser.problem_count) == (1000, 2500)
    assert [block.first_line for block in blocks] == [2501]


def test_nothing_comes_of_an_empty_list() -> None:
    for data in (b"", b"\n", b"\xef\xbb\xbf", b"# only\n\r\n  "):
        blocks, parser = parsed(data)
        assert blocks == [] and parser.job_count == 0 and parser.problem_count == 0
