import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lanai.cli import main as entry
from lanai.cli.report import write_report
from lanai.model.errors import ListErrors, NothingThere

VERBS = sorted(path.stem.replace("_", "-") for path in Path(entry.VERBS).glob("*.py") if path.stem != "__init__")


def lanai(*words: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **({"LANAI_HOME": str(home)} if home else {})}
    return subprocess.run(
        [sys.executable, "-m", "lanai", *words], capture_output=True, text=True, env=environ, check=False
    )


def test_the_help_names_every_verb_and_imports_none_of_them() -> None:
    code = (
        "import sys; from lanai.cli.main import command\n"
        "command.main(['--help'], standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert re.search(rf"^  {verb}  +\S", ended.stdout, re.MULTILINE), verb
    loaded = set(ended.stderr.split())
    heavy = {"asyncio", "ssl", "rich", "http.client", "msgspec", "json", "subprocess"}
    assert not heavy & loaded
    assert not [name for name in loaded if name.startswith(("lanai.cli.verbs.", "lanai.client", "lanai.model"))]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(verb: str) -> None:
    command = entry.command.get_command(entry.command.make_context("lanai", [verb]), verb)
    assert command is not None
    text = command.get_help(command.make_context(verb, [], resilient_parsing=True))
    assert "Examples:" in text
    assert f"lanai {verb}" in text


@pytest.mark.parametrize(("typed", "meant"), [("sttatus", "status"), ("kancel", "cancel")])
def test_a_mistyped_verb_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    ended = lanai(typed)
    assert ended.returncode == 2
    assert ended.stderr == f"lanai: there is no `lanai {typed}`; did you mean `lanai {meant}`?\ntry: lanai --help\n"
    assert ended.stdout == ""


def test_a_mistyped_member_of_a_group_is_answered_with_the_nearest() -> None:
    ended = lanai("job", "lst")
    assert ended.returncode == 2
    assert "did you mean `lanai job list`?" in ended.stderr


def test_the_version() -> None:
    ended = lanai("--version")
    assert (ended.returncode, ended.stdout) == (0, "lanai 0.1.0\n")


def test_a_group_without_a_member_shows_its_help_as_it_is() -> None:
    ended = lanai("policy")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == lanai("policy", "--help").stdout


def test_no_verb_is_a_question_for_help() -> None:
    assert lanai().stdout == lanai("--help").stdout


def test_status_where_nothing_was_ever_started_says_so_and_starts_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ended = lanai("status", home=home)
    assert ended.returncode == 0
    assert ended.stdout == ""
    assert "nothing was ever started here" in ended.stderr
    assert not home.exists()


def test_status_where_nothing_was_ever_started_has_the_line_of_names_in_csv(tmp_path: Path) -> None:
    ended = lanai("status", "--format", "csv", "--columns", "batch,state", home=tmp_path / "home")
    assert (ended.returncode, ended.stdout) == (0, "batch,state\n")


@pytest.mark.parametrize("verb", [["status"], ["job", "list"], ["batch", "list"], ["node", "list"]])
def test_a_filter_that_is_not_understood_is_refused_before_a_hub_is_asked(tmp_path: Path, verb: list[str]) -> None:
    ended = lanai(*verb, "--filter", "state=bogus", home=tmp_path / "home")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--filter state=bogus: found 'bogus', accepted is" in ended.stderr


def test_a_verb_that_needs_a_hub_says_that_there_is_none(tmp_path: Path) -> None:
    ended = lanai("wait", "3", home=tmp_path / "home")
    assert ended.returncode == 3
    assert "try: lanai run jobs.txt" in ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cpus", "0"], "--cpus: found '0', accepted is a number such as 2 or 0.5, more than 0"),
        (["--resource", "mem=1"], "--resource: found 'mem', accepted is the name of a resource"),
    ],
)
def test_a_node_that_nothing_could_use_is_refused_and_leaves_nothing(
    tmp_path: Path, words: list[str], said: str
) -> None:
    ended = lanai("agent", "start", "--hub", "unix:/nowhere", *words, home=tmp_path / "home")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert not (tmp_path / "home").exists()


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def raising(**_: object) -> int:
        raise error

    monkeypatch.setattr(entry.command, "main", raising)
    return entry.main()


def test_an_error_is_told_with_its_hint_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, NothingThere("there is no batch 7", hint="lanai batch list")) == 5
    assert capsys.readouterr().err == "lanai: there is no batch 7\ntry: lanai batch list\n"


def test_all_problems_of_a_list_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, ListErrors("bad", facts={"problems": ["a:1:1: x", "a:2:1: y"]})) == 2
    assert capsys.readouterr().err == "lanai: bad\n  a:1:1: x\n  a:2:1: y\n"


def test_a_mistake_of_ours_leaves_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(monkeypatch, ZeroDivisionError("division by zero")) == 70
    (report,) = tmp_path.iterdir()
    assert str(report) in capsys.readouterr().err
    assert "ZeroDivisionError" in report.read_text()


def test_a_reader_that_has_enough_is_no_error() -> None:
    ended = subprocess.run(
        f"{sys.executable} -m lanai --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in (0, 141)
    assert ended.stderr == ""


def test_a_directory_that_is_gone_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    ended = lanai("run", "--", "true", home=tmp_path / "home")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "lanai: the directory that you are in is gone\ntry: cd to another\n"


def test_a_mistake_of_ours_is_reported_also_from_a_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = re.search(r"lies in (\S+);", write_report(ValueError("oh")))
    assert path
    assert "ValueError: oh" in Path(path[1]).read_text()
