"""The documentation is what the program is: generated parts are fresh, links lead somewhere, verbs exist."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def docs() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        spec = importlib.util.spec_from_file_location("docs", ROOT / "tools" / "docs.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_the_documentation_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "docs.py", "--check"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def test_every_verb_has_a_page_and_every_page_a_verb(docs: ModuleType) -> None:
    described = {path.stem for path in (ROOT / "docs" / "guide").glob("*.md")} - {"README"}
    assert described == set(docs.verbs())


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text()
    assert [path.name for path in folder.glob("0*.md") if f"({path.name})" not in listed] == []


def test_the_readme_opens_with_the_two_commands() -> None:
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.strip()]
    assert lines[1:3] == ["make demo", "make test"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](there.md) [b](https://x.org/y) [c](#one-heading)\n# One heading\n", []),
        ("[a](there.md#its-own-heading)", []),
        ("```\n[a](nowhere.md)\n```\n", []),
        ("[a](nowhere.md)", ["the link nowhere.md leads nowhere"]),
        ("[a](there.md#another)", ["has no heading #another"]),
    ],
)
def test_links_that_lead_nowhere_are_seen(docs: ModuleType, tmp_path: Path, text: str, found: list[str]) -> None:
    (tmp_path / "there.md").write_text("## Its own heading\n")
    page = tmp_path / "page.md"
    page.write_text(text)
    problems = list(docs.broken_links(page))
    assert len(problems) == len(found)
    assert all(problem.endswith(end) for problem, end in zip(problems, found, strict=True))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`lanai run jobs.txt`, `lanai node drain x`, lanai sings, `lanai VERB --help`", []),
        ("    id=$(lanai submit x --format quiet); lanai wait $id\n", []),
        ("`lanai sing`", ["there is no `lanai sing`"]),
        ("```sh\nseq 3 | lanai sing -\n```\n", ["there is no `lanai sing`"]),
        ("    x=$(lanai sing)\n", ["there is no `lanai sing`"]),
        ("`lanai node sing`", ["there is no `lanai node sing`"]),
    ],
)
def test_verbs_that_do_not_exist_are_seen(docs: ModuleType, tmp_path: Path, text: str, found: list[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert [problem.partition(": ")[2] for problem in docs.unknown_verbs(page)] == found


def test_stale_parts_are_seen_and_written_anew(docs: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    before = "before\n<!-- generated: states node up -->\nold\n<!-- end generated -->\nafter\n"
    page.write_text(before)
    assert [problem.partition(": ")[2] for problem in docs.stale(page)] == [
        "the part `states node up` is stale; run `make docs`"
    ]
    page.write_text(docs.refreshed(before))
    assert list(docs.stale(page)) == []
    assert "up --> silent" in page.read_text()
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")


def test_parts_of_no_known_kind_are_refused(docs: ModuleType) -> None:
    with pytest.raises(ValueError, match="no part is called 'nonsense'"):
        docs.refreshed("<!-- generated: nonsense -->\n\n<!-- end generated -->\n")


def test_every_state_and_message_is_in_its_page() -> None:
    from lanai.model.job import JobState, Outcome
    from lanai.wire import messages

    formats = (ROOT / "docs" / "file-formats.md").read_text()
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    assert [name for name in (*JobState, *Outcome) if f"| `{name}` |" not in formats] == []
    kinds = [kind.__name__ for kind in messages.Message.__subclasses__()]
    assert kinds and [name for name in kinds if f"| `{name}` |" not in protocol] == []
