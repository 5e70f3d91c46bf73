"""The clauses of one line: what is taken out, what stays, and where a bad one is bad."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanai.model.clauses import ClauseParser, Fault, faults
from lanai.model.request import AS_BATCH, Check, JobRequest

ONE = JobRequest(cpu_milli=1500)


@pytest.mark.parametrize(
    ("line", "command", "request_", "checks"),
    [
        (b"sort {check in exists+ a b}", None, None, None),
        (
            b"sort {check in exists+ a} -o {check out line+ b.txt} -u",
            b"sort a -o b.txt -u",
            AS_BATCH,
            (Check("in", "exists+", b"a"), Check("out", "line+", b"b.txt")),
        ),
        (b"prog {use cpu 1.5} x", b"prog  x", ONE, ()),
        (b"{use cpu 1.5} prog", b"prog", ONE, ()),
        (b"prog {use cpu 8}{use cpu 1.5}", b"prog", ONE, ()),
        (b"prog {use cpu 0} {use ram 0}", b"prog", AS_BATCH, ()),
        (b"p {use ram 4g}", b"p", JobRequest(memory_bytes=4 << 30), ()),
        (b"p {use\tgpu 2 }", b"p", JobRequest(gpu_milli=2000), ()),
        (b"p {use gpu 0}", b"p", JobRequest(gpu_milli=0), ()),
        (b"p {use time 1h30m}", b"p", JobRequest(time_limit_s=5400), ()),
        (b"p {use nodes 4} {use nodes 3}", b"p", JobRequest(nodes=3), ()),
        (b"p {use nodes 0}", b"p", AS_BATCH, ()),
        (b"p {use net 2} {use disk 0}", b"p", JobRequest(named=(("disk", 0), ("net", 2))), ()),
        (b"awk '{print $1}' a", b"awk '{print $1}' a", AS_BATCH, ()),
        (b"echo ${HOME} {checked} {user x} {", b"echo ${HOME} {checked} {user x} {", AS_BATCH, ()),
        (b"a '{print}' {check in line \xe9}", b"a '{print}' \xe9", AS_BATCH, (Check("in", "line", b"\xe9"),)),
        (b"p >{check out exists a{b}", b"p >a{b", AS_BATCH, (Check("out", "exists", b"a{b"),)),
    ],
)
def test_good_lines(line: bytes, command: bytes | None, request_: JobRequest, checks: tuple[Check, ...]) -> None:
    assert ClauseParser().parse(line) == (None if command is None else (command, request_, checks))


@pytest.mark.parametrize(
    ("line", "offset", "found", "accepted"),
    [
        (b"p {check on exists a}", 9, "on", "in or out"),
        (b"p {check in exist a}", 12, "exist", "exists or exists+ or line or line+"),
        (b"p {check in exists}", 2, "{check in exists}", "{check in|out exists|exists+|line|line+ FILE}"),
        (b"p {check}", 2, "{check}", "{check in|out exists|exists+|line|line+ FILE}"),
        (b"p {use nodes 4097}", 13, "4097", "at most 4096 nodes"),
        (b"p {use node 2}", 7, "node", "nodes"),
        (b"p {use cpu}", 2, "{use cpu}", "{use cpu|ram|gpu|time|nodes|NAME VALUE}"),
        (b"p {use cpu 1", 2, "{use cpu 1", "a } that ends the clause"),
        (b"p {check", 2, "{check", "a } that ends the clause"),
        (b"p {use cpu two}", 11, "two", "a number such as 2 or 0.5"),
        (b"p {use gpu 0.5}", 11, "0.5", "a whole number such as 0, 1 or 20"),
        (b"p {use memory 4g}", 7, "memory", "ram"),
        (b"p {use time 0}", 12, "0", "a time limit of at least 1ms"),
        (b"{use cpu 1}  ", 0, "{use cpu 1}", "a command beside the clauses"),
    ],
)
def test_bad_lines(line: bytes, offset: int, found: str, accepted: str) -> None:
    assert ClauseParser().parse(line) is None
    assert list(faults(line)) == [Fault(offset, found, accepted)]


def test_every_fault_of_a_line_is_told() -> None:
    assert [fault.found for fault in faults(b"p {use cpu x} {use ram y} {check a b c} {use")] == ["x", "y", "a", "{use"]


def test_a_remembered_request_is_the_one_it_was() -> None:
    parser = ClauseParser()
    for milli in [*range(1, 5000), *range(1, 5000)]:
        parsed = parser.parse(b"p {use cpu %d}" % milli)
        assert parsed is not None and parsed[1] == JobRequest(cpu_milli=milli * 1000)


FRAGMENTS = (
    b"{check in exists f}", b"{check out line+ g}", b"{use cpu 2}", b"{use ram 1g}", b"{use", b"{check", b"}", b"{",
    b" ", b"in", b"cpu", b"exists", b"word", b"{use cpu x}", b"{check}", b"{use x 1}", b"\t", b"\r", b"#",
)  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(b"".join))
def test_a_line_is_either_taken_or_has_a_fault_inside_it(line: bytes) -> None:
    parsed = ClauseParser().parse(line)
    if parsed is None:
        assert all(0 <= fault.offset <= len(line) for fault in faults(line))
        assert list(faults(line))
    else:
        assert list(faults(line)) in ([], [Fault(0, line.decode().strip(), "a command beside the clauses")])
