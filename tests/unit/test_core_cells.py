"""The index of free nodes against a search through all of them."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lanai.core.nodes import Node
from lanai.core.schedule.cells import Cell
from lanai.model.ids import NodeId
from lanai.model.vector import CPU, FIELD_BITS, GPU, MEMORY, Layout, field

CPUS = 200_000
vectors = st.tuples(st.integers(0, CPUS), st.integers(0, 4), st.integers(0, 2))


def packed(cpu: int, memory: int, gpu: int) -> int:
    return cpu | memory << MEMORY * FIELD_BITS | gpu << GPU * FIELD_BITS


@dataclass
class Change:
    node: int
    free: tuple[int, int, int]
    is_gone: bool


changes = st.lists(st.builds(Change, st.integers(1, 5), vectors, st.booleans()), max_size=15)


@given(changes, vectors, st.sets(st.integers(1, 5)))
def test_finds_the_smallest_node_that_fits_and_is_allowed(
    steps: list[Change], wanted: tuple[int, int, int], banned: set[int]
) -> None:
    """Least gpus, then the least bucket of cpus, then least memory, then the lowest id."""
    guard = Layout().guard
    cell = Cell(packed(CPUS, 4, 2), ())
    nodes = {number: Node(NodeId(number), str(number), b"") for number in range(1, 6)}
    there: set[int] = set()
    for step in steps:
        node = nodes[step.node]
        if step.is_gone:
            cell.drop(node)
            there.discard(step.node)
        else:
            node.free = packed(*step.free)
            cell.put(node, guard)
            there.add(step.node)
    bucket = 250 * -(-CPUS // (250 * 512))
    request = packed(*wanted)
    fitting = [
        (field(nodes[n].free, GPU), field(nodes[n].free, CPU) // bucket, field(nodes[n].free, MEMORY), n)
        for n in there - banned
        if not (nodes[n].free - request) & guard
    ]
    found = cell.find(request, guard, lambda node: node.id not in banned)
    assert (found and found.id) == (min(fitting)[3] if fitting else None)
    assert [node.id for node in cell.nodes()] == sorted(there)


def test_an_overfull_node_is_left_out() -> None:
    """A node that came back with less than runs on it has a negative amount free, which is no place in an index."""
    node = Node(NodeId(1), "n", b"")
    node.free = packed(1000, 1, 0) - packed(2000, 0, 0)
    cell = Cell(packed(4000, 1, 0), ())
    cell.put(node, Layout().guard)
    assert cell.nodes() == []
