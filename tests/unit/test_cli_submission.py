import os
from pathlib import Path
from typing import Any

import click
import pytest

from lanai.cli.joblist_file import check_inputs, open_list
from lanai.cli.submission import environment, nodes_of, priority_of, settings_of, submit_options
from lanai.model.batch import BatchSettings, Retries
from lanai.model.errors import ListErrors, UserError
from lanai.model.resources import NODES_MAX, Shape
from lanai.model.settings import SubmitSettings


def options(*words: str) -> dict[str, Any]:
    taken: dict[str, Any] = {}

    @click.command()
    @submit_options
    def command(**given: Any) -> None:
        taken.update(given)

    command.main(list(words), standalone_mode=False)
    return taken


def settings(*words: str, defaults: SubmitSettings | None = None, is_single: bool = False) -> BatchSettings:
    return settings_of(options(*words), defaults or SubmitSettings(), is_single=is_single)


def test_without_options_a_job_has_one_cpu_and_this_directory() -> None:
    found = settings()
    assert found.shape == Shape()
    assert found.retries == Retries(exit=0, signal=0, check=0, time=0, memory=1, node=5)
    assert (found.cwd, found.shell, found.priority) == (os.getcwd(), "auto", 10)
    mask = os.umask(0o022)
    os.umask(mask)
    assert found.umask == mask


def test_several_nodes() -> None:
    assert settings("--nodes", "3", "--tasks-per-node", "2").shape == Shape(nodes=3, tasks_per_node=2)
    assert settings("--nodes", "2-5").shape == Shape(nodes=2, nodes_most=5)


def test_a_date_that_is_past_is_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings("--start-after", "2020-01-01T08:00Z").start_after_us == 1_577_865_600_000_000
    assert capsys.readouterr().err == (
        "lanai: --start-after 2020-01-01T08:00Z: 2020-01-01 08:00:00 UTC is past, so its jobs may start at once\n"
    )
    for text in ("2999-01-01", "+2h", "now"):
        settings("--start-after", text)
    assert capsys.readouterr().err == ""


def test_amounts() -> None:
    found = settings("--cpus", "0.5", "--memory", "2G", "--gpus", "1", "--time", "1h30m", "--resource", "lic=2")
    assert found.shape == Shape(
        cpu_milli=500,
        memory_bytes=2 << 30,
        gpu_milli=1000,
        named=(("lic", 2),),
        time_limit_us=5_400_000_000,
    )


def test_a_number_of_retries_counts_for_the_causes_that_are_the_jobs_own() -> None:
    assert settings("--retries", "3").retries == Retries(exit=3, signal=3, check=3, time=3, memory=1, node=5)
    assert settings("--retries", "exit=2,memory=3").retries == Retries(exit=2, memory=3)


def test_names_labels_and_limits(tmp_path: Path) -> None:
    words = ["--name", "n", "--label", "a=b", "--label", "c=d=e", "--max-running", "4", "--stop-after", "2"]
    found = settings(*words, "--dir", str(tmp_path), "--output", "o/%i", "--error", "/dev/null", "--priority", "high")
    assert (found.name, found.labels) == ("n", {"a": "b", "c": "d=e"})
    assert (found.max_running, found.stop_after, found.priority) == (4, 2, 1)
    assert (found.cwd, found.output, found.error) == (str(tmp_path), os.path.abspath("o/%i"), "/dev/null")


def test_the_configuration_speaks_where_no_option_does() -> None:
    defaults = SubmitSettings(cpus=2, memory="1G", retries=1, priority=100, shell=True, time="90")
    found = settings("--cpus", "3", defaults=defaults)
    assert found.shape == Shape(cpu_milli=3000, memory_bytes=1 << 30, time_limit_us=90_000_000)
    assert (found.retries.exit, found.priority, found.shell) == (1, 100, "always")


@pytest.mark.parametrize(
    ("words", "is_single", "expected"),
    [
        ([], False, "auto"),
        (["--shell"], False, "always"),
        (["--no-shell"], False, "never"),
        ([], True, "words"),
        (["--no-shell"], True, "words"),
        (["--shell"], True, "always"),
    ],
)
def test_how_lines_are_started(words: list[str], is_single: bool, expected: str) -> None:
    assert settings(*words, is_single=is_single).shell == expected


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--cpus", "two"], "--cpus"),
        (["--memory", "8X"], "--memory"),
        (["--time", "soon"], "--time"),
        (["--gpus", "-1"], "--gpus"),
        (["--resource", "lic"], "--resource"),
        (["--resource", "lic=x"], "--resource lic"),
        (["--resource", "mem=1"], "--resource: found 'mem', accepted is the name of a resource"),
        (["--resource", "cpu=1"], "--resource: found 'cpu'"),
        (["--resource", "1x=1"], "--resource: found '1x'"),
        (["--retries", "many"], "--retries"),
        (["--retries", "sleep=1"], "--retries"),
        (["--priority", "0"], "--priority"),
        (["--priority", "urgent"], "--priority"),
        (["--label", "x"], "--label"),
        (["--dir", "/nonexistent"], "--dir"),
        (["--output", ""], "--output"),
    ],
)
def test_an_option_that_cannot_be_understood_is_named(words: list[str], named: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(*words)
    assert caught.value.message.startswith(named)
    assert caught.value.exit_code == 2


def test_priorities_have_names() -> None:
    assert [priority_of(each) for each in (None, "high", "medium", "low", "10000", 5)] == [10, 1, 10, 100, 10000, 5]


def test_the_environment_is_the_callers_with_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "caf\udce9")
    assert environment(options())[b"HERE"] == b"caf\xe9"
    assert environment(options("--env", "A=b=c"))[b"A"] == b"b=c"
    assert environment(options("--env-none")) == {}
    assert environment(options("--env-none", "--env", "HERE", "--env", "X=")) == {b"HERE": b"caf\xe9", b"X": b""}


@pytest.mark.parametrize("text", ["=x", "NOT_SET_ANYWHERE"])
def test_a_variable_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        environment(options("--env", text))


def test_an_environment_that_is_too_large_is_refused_with_its_largest_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUGE", "x" * 128 * 1024)
    with pytest.raises(UserError, match="HUGE") as caught:
        environment(options())
    assert "--env-none" in caught.value.hint
    assert environment(options("--env-none")) == {}


# -- the list


def check(list_file: str, directory: Path) -> None:
    with open_list(list_file) as jobs:
        check_inputs(jobs, str(directory))


def bytes_twice(list_file: str) -> tuple[bytes, bytes]:
    with open_list(list_file) as jobs:
        return b"".join(jobs.pieces()), b"".join(jobs.pieces())


def joblist(tmp_path: Path, text: bytes) -> str:
    path = tmp_path / "jobs.txt"
    path.write_bytes(text)
    return str(path)


@pytest.mark.parametrize("name", ["missing.txt", "", "/"])
def test_a_list_that_cannot_be_read_is_said_plainly(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        bytes_twice(str(tmp_path / name))
    assert (caught.value.code, caught.value.exit_code) == ("no_list", 2)


def test_an_empty_list_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        bytes_twice(joblist(tmp_path, b""))


def test_a_list_is_read_again_from_the_beginning(tmp_path: Path) -> None:
    assert bytes_twice(joblist(tmp_path, b"a\nb\n")) == (b"a\nb\n", b"a\nb\n")


def test_a_pipe_is_kept_to_be_read_again() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a\n")
    os.close(writer)
    assert bytes_twice(f"/dev/fd/{reader}") == (b"a\n", b"a\n")
    os.close(reader)


def test_every_input_file_that_is_not_in_order_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "whole").write_bytes(b"x\n")
    (tmp_path / "cut").write_bytes(b"x")
    lines = [
        "a {check in exists whole} {check in line+ whole} {check in line empty} {check in exists empty}",
        "b {check in exists missing}",
        "c {check in exists+ empty}",
        "d {check in line cut} {check in exists+ cut}",
        "e {check in line+ missing} {check out exists later}",
    ]
    with pytest.raises(ListErrors) as caught:
        check(joblist(tmp_path, "\n".join(lines).encode()), tmp_path)
    path = tmp_path / "jobs.txt"
    assert caught.value.facts["problems"] == [
        f"{path}:2:20: input file missing does not exist",
        f"{path}:3:21: input file empty is empty",
        f"{path}:4:18: input file cut does not end with a newline",
        f"{path}:5:19: input file missing does not exist",
    ]


def test_every_line_with_a_missing_file_is_told_with_its_column(tmp_path: Path) -> None:
    """Only the first line that named a file was told, and without a column; bad clauses came before all of them."""
    lines = [
        b"\xef\xbb\xbf# {check in exists gone}",
        "  caf\u00e9 {check in exists gone} {check in exists+ gone}\r".encode(),
        b"b {use ram much} {check in exists gone}",
        b"c {check out exists gone} {check in exists gone}",
    ]
    with pytest.raises(ListErrors) as caught:
        check(joblist(tmp_path, b"\n".join(lines)), tmp_path)
    path = tmp_path / "jobs.txt"
    problems = caught.value.facts["problems"]
    assert isinstance(problems, list)
    assert [problem.partition(" ")[0] for problem in problems] == [
        f"{path}:2:25:",
        f"{path}:2:49:",
        f"{path}:3:12:",
        f"{path}:4:44:",
    ]
    assert caught.value.message == f"{path} has 4 problems; nothing was submitted"


def test_bad_lines_are_told_together_with_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ListErrors) as caught:
        check(joblist(tmp_path, b"a {check in exists x}\nb {check in sometimes x}\n"), tmp_path)
    problems = caught.value.facts["problems"]
    assert isinstance(problems, list)
    assert len(problems) == 2


def test_a_list_whose_files_are_in_order_passes(tmp_path: Path) -> None:
    check(joblist(tmp_path, b"cat {check in line+ jobs.txt}\n"), tmp_path)


def test_a_clause_is_found_where_two_pieces_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanai.cli.joblist_file.PIECE_BYTES", 4)
    with pytest.raises(ListErrors):
        check(joblist(tmp_path, b"ab {check in exists missing}\n"), tmp_path)


def test_what_the_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000_000)
    words = ["--account", "grant", "--service", "long", "--reservation", "night", "--features", "ib, avx,ib"]
    found = settings(*words, "--start-after", "+1m")
    assert (found.account, found.service, found.reservation) == ("grant", "long", "night")
    assert (found.start_after_us, found.shape.features) == (1_060_000_000, ("avx", "ib"))


def test_account_and_service_have_defaults_in_the_configuration() -> None:
    defaults = SubmitSettings(account="grant", service="long")
    found = settings("--service", "short", defaults=defaults)
    assert (found.account, found.service) == ("grant", "short")


def test_a_start_date_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="--start-after: found 'soon', accepted is a moment"):
        settings("--start-after", "soon")


@pytest.mark.parametrize(("text", "nodes"), [("1", (1, 0)), ("4", (4, 0)), ("4-8", (4, 8)), ("2+", (2, NODES_MAX))])
def test_nodes_are_a_number_or_a_range(text: str, nodes: tuple[int, int]) -> None:
    assert nodes_of(text) == nodes


@pytest.mark.parametrize("text", ["0", "1+", "1-4", "8-4", "4-", "+4", "x", "", "99999"])
def test_other_nodes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--nodes: found"):
        nodes_of(text)
