"""What is changed of a workload and of its machine, and what cannot be asked."""

import pytest

from lanai.model.errors import UserError
from lanai.sim.machines import MachineNode, read_nodes, resized
from lanai.sim.swf import Reading, Trace, record, select
from lanai.sim.whatif import changed, read_what_if

HEADER = b"; MaxProcs: 10\n"
NODES = [MachineNode("a", 4), MachineNode("b", 3, gpus=1), MachineNode("c", 3, gpus=1)]


def line(submit: int, run: int = 100, width: int = 1, asked: int = 200) -> bytes:
    return b"1 %d -1 %d %d -1 -1 %d %d -1 1 3 1 -1 -1 -1 -1 -1\n" % (submit, run, width, width, asked)


def trace(what_if: str, *lines: bytes, nodes: list[MachineNode] | None = None) -> Trace:
    recorded = record([HEADER, *lines], "log", Reading())
    return select(changed(recorded, nodes, read_what_if(what_if)), Reading())


@pytest.mark.parametrize(
    ("what_if", "procs"),
    [
        *(("procs+=6", 16), ("procs-=4", 6), ("procs=7", 7), ("procs*=1.25", 13), ("procs=4,procs+=1", 5)),
        *(("nodes+=2", 16), ("nodes-=1", 7), ("nodes=1", 4), ("nodes*=2", 19), ("nodes-=1, nodes+=1", 11)),
    ],
)
def test_the_machine_is_another(what_if: str, procs: int) -> None:
    """Nodes that are added are like the commonest: of c and b two are alike, but once c has gone a is the first."""
    assert trace(what_if, line(0), nodes=NODES).procs == procs


def test_on_a_larger_machine_wider_jobs_run() -> None:
    lines = (line(0, width=3), line(5, width=12))
    assert len(trace("procs+=1", *lines).jobs) == 1
    assert len(trace("procs+=2", *lines).jobs) == 2


def test_submissions_are_squeezed_from_the_first_on() -> None:
    """25/1.2 is 20.83, 3/1.2 is 2.5; a job that is skipped is no first one, and stays what it is."""
    found = trace("load*=1.2", line(-1), line(100), line(103), line(125), line(220))
    assert [job.submit_s for job in found.jobs] == [100, 103, 121, 200]
    assert found.skipped_as("invalid") == 1


def test_runs_are_longer_or_shorter_and_requests_stay() -> None:
    found = trace("run*=0.8", line(0, run=100), line(0, run=1), line(0, run=0), line(0, run=-1))
    assert [(job.run_s, job.estimate_s) for job in found.jobs] == [(80, 200), (1, 200)]
    assert found.skipped_as("invalid") == 2
    (job,) = trace("run*=3", line(0, run=100)).jobs
    assert (job.run_s, job.estimate_s) == (300, 300)


@pytest.mark.parametrize("text", ["procs+=0", "procs*=1", "load*=1", "load*=1.0", "run*=1", "nodes*=1"])
def test_a_change_that_is_none_leaves_everything(text: str) -> None:
    lines = [line(3 * n, run=n, width=1 + n % 10) for n in range(30)]
    assert trace(text, *lines, nodes=NODES) == trace("procs=10", *lines)


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "procs", "procs+=", "procs+=-1", "procs+=1.5", "procs/=2", "cores+=1", "load=2", "load+=1"),
        *("run*=0", "run*=1001", "load*=nan", "run*=1e3", "procs +=1", "procs=１", "procs+=1;run*=2"),
        "nodes*=0." + "1" * 13,
    ],
)
def test_what_is_no_change_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="accepted is procs or nodes with"):
        read_what_if(text)


@pytest.mark.parametrize("text", ["procs=0", "procs-=10", "procs*=0", "nodes-=3", "nodes*=0.1"])
def test_something_has_to_be_left_of_the_machine(text: str) -> None:
    with pytest.raises(UserError, match="accepted is 1 or more"):
        trace(text, line(0), nodes=NODES)


def test_without_nodes_there_are_none_to_change() -> None:
    with pytest.raises(UserError, match="give --nodes FILE"):
        trace("nodes+=1", line(0))


# -- the nodes of a machine


def test_nodes_come_as_lines_or_as_toml() -> None:
    lines = "n1 16 64G 2 ssd,fast  # the good one\n\n# others\nn2 8\nn3 8 - - -\n"
    toml = """
        [[node]]
        name = "n"
        cpus = 8
        count = 2

        [[node]]
        name = "big"
        cpus = 16
        memory = "64G"
        gpus = 2
        features = ["ssd", "fast"]
    """
    big = MachineNode("n1", 16, 64 << 30, 2, ("ssd", "fast"))
    assert read_nodes(lines, "nodes") == [big, MachineNode("n2", 8), MachineNode("n3", 8)]
    assert read_nodes(toml, "nodes.toml")[:2] == [MachineNode("n1", 8), MachineNode("n2", 8)]
    assert read_nodes(toml, "nodes.toml")[2] == MachineNode("big", 16, 64 << 30, 2, ("ssd", "fast"))


def test_further_nodes_have_names_of_their_own() -> None:
    assert [node.name for node in resized(NODES, 5)] == ["a", "b", "c", "+1", "+2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n1 4\nn2\n", "nodes:2: found 1 field,"),
        ("n1 4 1G 0 ssd more\n", "nodes:1: found 6 fields"),
        ("n1 4\n\nn2 2.5\n", "nodes:3: found '2.5' as cpus"),
        ("n1 0\n", "nodes:1: found 0 cpus"),
        ("n1 4 lots\n", "nodes:1: found 'lots' as memory"),
        ("n1 4 1G -1\n", "nodes:1: found '-1' as gpus"),
        ("n1 4\nn1 4\n", "nodes:2: found node n1 a second time"),
        ("# none\n", "nodes: found no node"),
    ],
)
def test_a_line_that_is_no_node_is_named(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_nodes(text, "nodes")
    assert refused.value.message.startswith(said)


A = "[[node]]\nname = 'a'\ncpus = 4\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[node]\n", "nodes.toml:1: found no TOML: "),
        ("[[node]]\nname = 'a'\n", "nodes.toml:1: Object missing required field `cpus`"),
        ("[[node]]\nname = 'a'\ncpus = 4\ncolour = 'red'\n", "nodes.toml:1: Object contains unknown field `colour`"),
        ("[[node]]\nname = 'a'\ncpus = 4\ncount = 0\n", "nodes.toml:1: found count = 0, accepted is 1 to"),
        ("[[node]]\nname = 'a'\ncpus = 0\n", "nodes.toml:1: found 0 cpus"),
        ("[[node]]\nname = 'a'\ncpus = 4\nmemory = 'x'\n", "nodes.toml:1: found 'x' as memory"),
        ("node = []\n", "nodes.toml: found no node"),
        ("node = 3\n", "nodes.toml: found node, accepted are tables [[node]]"),
        (f"{A}[[node]]\nname = 'b'\ncpus = 4\ngpus = -1\n", "nodes.toml:4: found gpus = -1"),
        (f"{A}{A}", "nodes.toml:4: found node a a second time"),
        ("node = [{name = 'a', cpus = 'x'}]\n", "nodes.toml: node 1: Expected `int`, got `str`"),
    ],
)
def test_a_table_that_is_no_node_is_named(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        read_nodes(text, "nodes.toml")
    assert refused.value.message.startswith(said)
