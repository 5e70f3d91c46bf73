"""gensub: variables, orders and templates as gensub2 has them, and the file it writes."""

import itertools
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lanai.cli.verbs.gensub import command
from lanai.model.errors import NothingThere, UserError
from lanai.model.gensub import (
    SINGLE,
    Order,
    Template,
    TemplateError,
    generate,
    pairs,
    parse_list,
    parse_template,
    self_pairs,
)


def made(loop: str, list1: list[str], list2: list[str] | None, order: Order = "diagonal") -> list[str]:
    return list(generate(Template((), (loop,), ()), list1, list2, order))


@pytest.mark.parametrize(
    ("path", "variable", "value"),
    [
        ("in/chr1/a.b.fa", "path1", "in/chr1/a.b.fa"),
        ("in/chr1/a.b.fa", "dir1", "in/chr1"),
        ("in/chr1/a.b.fa", "lastDir1", "chr1"),
        ("in/chr1/a.b.fa", "lastDirs1=1", "chr1"),
        ("in/chr1/a.b.fa", "lastDirs1=2", "in/chr1"),
        ("in/chr1/a.b.fa", "lastDirs1=9", "in/chr1"),
        ("/a/b/c", "lastDirs1=3", "/a/b"),
        ("/a/b/c", "lastDirs1=2", "a/b"),
        ("/a/b/c", "dir1", "/a/b"),
        ("/c", "dir1", "/"),
        ("/c", "lastDir1", ""),
        ("c", "dir1", ""),
        ("c", "lastDirs1=1", ""),
        ("in/a.b.fa", "root1", "a.b"),
        ("in/a.b.fa", "ext1", ".fa"),
        ("in/a.b.fa", "file1", "a.b.fa"),
        ("in.d/a", "ext1", ""),
        ("in.d/a", "root1", "a"),
        (".rc", "root1", ""),
        (".rc", "ext1", ".rc"),
        ("d/", "file1", ""),
        ("x", "num1", "0"),
        ("x", "path2", "single"),
        ("x", "root2", "single"),
        ("x", "num2", "0"),
    ],
)
def test_variables(path: str, variable: str, value: str) -> None:
    assert made(f"<$({variable})>", [path], [SINGLE]) == [f"<{value}>"]


@pytest.mark.parametrize("text", ["$(path3)", "$(date)", "$(lastDirs1=0)", "$(lastDirs1=x)", "100% %s {a} $$"])
def test_other_text_stays(text: str) -> None:
    assert made(text, ["a"], ["b"]) == [text]


def test_orders() -> None:
    loop, upper, lower = "$(path1)$(path2)", ["A", "B", "C"], ["a", "b", "c"]
    assert " ".join(made(loop, upper, lower)) == "Aa Ba Ab Ca Bb Ac Cb Bc Cc"
    assert " ".join(made(loop, upper, lower, "group1")) == "Aa Ab Ac Ba Bb Bc Ca Cb Cc"
    assert " ".join(made(loop, upper, lower, "group2")) == "Aa Ba Ca Ab Bb Cb Ac Bc Cc"
    assert " ".join(made(loop, upper, None)) == "AB AC BC"
    assert " ".join(made(loop, [*upper, "D"], None, "group2")) == "AB AC BC AD BD CD"


@given(st.integers(0, 7), st.integers(0, 7))
def test_the_diagonal_order_is_that_of_the_plain_double_loop(first: int, second: int) -> None:
    plain = [(at - j, j) for at in range(first + second) for j in range(at + 1) if at - j < first and j < second]
    assert list(pairs(first, second, "diagonal")) == plain
    for order in ("group1", "group2"):
        assert sorted(pairs(first, second, order)) == sorted(plain)
        assert sorted(self_pairs(first, order)) == list(itertools.combinations(range(first), 2))


NAMES = ("path1", "dir1", "lastDir1", "root1", "ext1", "file1", "num1", "path2", "root2", "num2", "lastDirs2=2")


@given(st.lists(st.sampled_from((*(f"$({name})" for name in NAMES), "%", "%s", " x ", "$(")), max_size=8).map("".join))
def test_it_agrees_with_replacing_one_variable_after_another(loop: str) -> None:
    values1 = ("d/e/f.g", "d/e", "e", "f", ".g", "f.g", "0")
    expected = loop
    for name, value in zip(NAMES, (*values1, "p/q/r.s", "r", "0", "p/q"), strict=True):
        expected = expected.replace(f"$({name})", value)
    assert made(loop, ["d/e/f.g"], ["p/q/r.s"]) == [expected]


def test_a_template_is_copied_around_its_loop() -> None:
    template = parse_template(["# head", "#LOOP here", "one $(num1)", "", "two $(path1)", "#ENDLOOP", "tail", "#LOOP"])
    lines = list(generate(template, ["a", "b"], [SINGLE], "diagonal"))
    assert lines == ["# head", "one 0", "", "two a", "one 1", "", "two b", "tail", "#LOOP"]
    assert list(generate(template, [], [SINGLE], "diagonal")) == ["# head", "tail", "#LOOP"]


@pytest.mark.parametrize("lines", [[], ["a"], ["#ENDLOOP", "#LOOP"], ["#LOOP", "a"], [" #LOOP", "#ENDLOOP"]])
def test_a_template_without_its_loop_is_refused(lines: list[str]) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_template(lines)
    assert caught.value.line == len(lines) and "LOOP" in caught.value.accepted


def test_blank_lines_of_a_list_are_no_entries() -> None:
    assert parse_list(["a", "", "  ", " b c "]) == ["a", "b c"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("list").write_bytes(b"in/a.fa\r\n\nin/caf\xe9.fa\n")
    Path("template").write_text("#LOOP\ngzip $(path1) $(path2)\n#ENDLOOP\n")
    return tmp_path


def run(*arguments: str) -> str:
    return CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False).output


def test_it_writes_a_file_whole_and_leaves_nothing_else(here: Path) -> None:
    Path("jobs").write_text("old")
    assert run("list", "single", "template", "jobs") == ""
    assert Path("jobs").read_bytes() == b"gzip in/a.fa single\ngzip in/caf\xe9.fa single\n"
    assert sorted(os.listdir()) == ["jobs", "list", "template"]


def test_gensub2s_options_are_taken_with_one_dash_or_two(here: Path) -> None:
    Path("list").write_text("A\nB\n")
    Path("other").write_text("a\nb\n")
    for option in ("-group1", "--group1"):
        assert run("list", "other", "template", "-", option).split() == "gzip A a gzip A b gzip B a gzip B b".split()
    assert run("list", "other", "template", "stdout", "-group2").split()[4:6] == ["B", "a"]
    assert run("list", "selfPair", "template", "-") == "gzip A B\n"
    with pytest.raises(Exception, match="exclude each other"):
        run("list", "other", "template", "-", "-group1", "-group2")


def test_errors_name_the_file_and_line_and_leave_the_old_file(here: Path) -> None:
    Path("jobs").write_text("old")
    Path("bad").write_text("#LOOP\nx\n")
    Path("nul").write_bytes(b"a\nb\0c\n")
    with pytest.raises(UserError, match=r"^bad:2: found the end of the loop begun in line 1"):
        run("list", "single", "bad", "jobs")
    with pytest.raises(UserError, match=r"^nul:2:2: found a NUL"):
        run("nul", "single", "template", "jobs")
    with pytest.raises(NothingThere, match="there is no file nowhere"):
        run("nowhere", "single", "template", "jobs")
    with pytest.raises(UserError, match="cannot write nowhere/jobs"):
        run("list", "single", "template", "nowhere/jobs")
    with pytest.raises(UserError, match="cannot read"):
        run(".", "single", "template", "jobs")
    assert Path("jobs").read_text() == "old"
    assert sorted(os.listdir()) == ["bad", "jobs", "list", "nul", "template"]
