"""One integer for several amounts: the same answers as amounts compared one by one."""

from hypothesis import given
from hypothesis import strategies as st

from core_recorder import GIB, capacity
from lanai.model.resources import Capacity, Shape
from lanai.model.vector import CPU, GPU, MEMORY, Layout, field, fit_count

amounts = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))


def shape(cpu: int, gib: int, gpu: int, a: int, b: int) -> Shape:
    named = tuple((name, count) for name, count in (("a", a), ("b", b)) if count)
    return Shape(cpu_milli=1000 * cpu, memory_bytes=gib * GIB, gpu_milli=1000 * gpu, named=named)


def has(cpu: int, gib: int, gpu: int, a: int, b: int) -> Capacity:
    return capacity(cpu, gib, gpu, **{name: count for name, count in (("a", a), ("b", b)) if count})


@given(amounts, amounts)
def test_fits_exactly_where_each_amount_fits(free: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    layout = Layout()
    total, request = layout.capacity(has(*free)), layout.request(shape(*wanted))
    fits = all(want <= there for want, there in zip(wanted, free, strict=True))
    assert (not (total - request) & layout.guard) == fits


@given(amounts, amounts, st.integers(0, 9))
def test_how_often_it_fits(free: tuple[int, ...], wanted: tuple[int, ...], most: int) -> None:
    layout = Layout()
    total, request = layout.capacity(has(*free)), layout.request(shape(*wanted))
    times = [there // want for want, there in zip(wanted, free, strict=True) if want]
    assert fit_count(total, request, layout.guard, most) == min([most, *times])


def test_a_resource_offered_later_widens_the_layout_and_changes_no_older_vector() -> None:
    """A node of an earlier layout has none of the resource: its field is not even there, and still nothing fits."""
    layout = Layout()
    node = layout.capacity(capacity(4))
    rich = layout.capacity(capacity(4, licence=1))
    request = layout.request(Shape(named=(("licence", 1),)))
    assert (node - request) & layout.guard and not (rich - request) & layout.guard
    assert layout.names == ("licence",)


def test_what_no_node_has_offered_fits_nowhere_and_takes_no_field() -> None:
    """A list with another name in every line would else make each vector of the hub as long as the list."""
    layout = Layout()
    node = layout.capacity(capacity(1 << 60))
    request = layout.request(Shape(named=tuple((f"r{number}", 1) for number in range(1000))))
    assert (node - request) & layout.guard
    assert layout.names == () and request.bit_length() < 200
    assert not (node - layout.request(Shape(named=(("none", 0),)))) & layout.guard


def test_fields_are_milli_cpus_mebibytes_and_milli_gpus() -> None:
    vector = Layout().request(Shape(cpu_milli=1500, memory_bytes=(3 << 20) + 1, gpu_milli=500))
    assert [field(vector, at) for at in (CPU, MEMORY, GPU)] == [1500, 4, 500]
