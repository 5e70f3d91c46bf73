"""Nodes named in a few characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanai.model.node_names import NAMES_MOST, NamesError, names_of


@pytest.mark.parametrize(
    ("expression", "exact", "globs"),
    [
        ("n1", "n1", ""),
        (" n1 , n2 ", "n1 n2", ""),
        ("n[1-3,7]", "n1 n2 n3 n7", ""),
        ("n[08-11]", "n08 n09 n10 n11", ""),
        ("r[1-2]-[a,b]", "r1-a r1-b r2-a r2-b", ""),
        ("n[5]", "n5", ""),
        ("n[1-2].example.org,x", "n1.example.org n2.example.org x", ""),
        ("gpu-*,n1", "n1", "gpu-*"),
        ("n[ab]", "", "n[ab]"),
        ("*", "", "*"),
        ("r[1-2]-*", "", "r1-* r2-*"),
    ],
)
def test_what_stands_for_which(expression: str, exact: str, globs: str) -> None:
    names = names_of(expression)
    assert (sorted(names.exact), list(names.globs)) == (exact.split(), globs.split())


@pytest.mark.parametrize(
    "expression",
    ["", ",", "n1,", "n[1-", "n]1[", "n[3-1]", "a b", "n[1-99999999]", "n[1-5000],m[1-5001]", "é", "n[[1]]"],
)
def test_what_is_not_understood(expression: str) -> None:
    with pytest.raises(NamesError):
        names_of(expression)


def test_names_are_matched_as_they_are_written() -> None:
    names = names_of("n[1-8,12],gpu-?,n[ab]")
    assert all(names.has(name) for name in ("n1", "n8", "n12", "gpu-x", "na"))
    assert not any(names.has(name) for name in ("n9", "N1", "gpu-", "gpu-xy", "nc", "n01"))


@given(st.text(alphabet="n0123456789[]-,*?ab ", max_size=40))
def test_whatever_is_written_stands_for_so_many_at_most(text: str) -> None:
    try:
        names = names_of(text)
    except NamesError:
        return
    assert 0 < len(names.exact) + len(names.globs) <= NAMES_MOST
    assert all(names.has(name) for name in names.exact)
