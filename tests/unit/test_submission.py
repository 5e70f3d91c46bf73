"""The head of a submission is refused with everything that is wrong with it, and keeps any bytes."""

import json

import pytest

from lanai.api.submission import head_from
from lanai.model.batch import BatchSettings
from lanai.model.errors import UserError


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_bytes_in_the_environment_come_through() -> None:
    head = head_from(line(settings={"cwd": "/tmp", "priority": 3}, env={"A": "x\udc80y"}, file="jobs.txt"))
    assert head.settings == BatchSettings(cwd="/tmp", priority=3)
    assert head.env == {b"A": b"x\x80y"}
    assert head.file == "jobs.txt"
    assert not head.single


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"settings": 3}', b'{"env": {"A": 3}}', b'{"single": "yes"}'])
def test_not_understood(raw: bytes) -> None:
    with pytest.raises(UserError) as caught:
        head_from(raw)
    assert caught.value.code == "bad_submission"


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(UserError):
        head_from(line(settings={"prioritty": 3}))


def test_all_problems_are_told_together() -> None:
    settings = {
        "priority": 0,
        "shell": "zsh",
        "cwd": "here",
        "output": "%q",
        "max_running": -1,
        "retries": {"exit": -1},
        "stdin": "pipe",
        "umask": 0o1777,
        "shape": {"cpu_milli": -1},
    }
    with pytest.raises(UserError) as caught:
        head_from(line(settings=settings, env={"A=B": "", "C": "\0"}))
    problems = caught.value.facts["problems"]
    assert isinstance(problems, list)
    assert [problem.partition(":")[0] for problem in problems] == [
        "priority", "shell", "umask", "stdin", "output", "max_running", "retries.exit", "shape", "cwd", "env", "env",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"max_running": 1 << 63},
        {"stop_after": 1 << 64},
        {"grace_us": 1 << 53},
        {"retries": {"exit": 1 << 63}},
        {"shape": {"memory_bytes": 1 << 63}},
        {"shape": {"nodes": 0}},
        {"shape": {"nodes": 4097}},
        {"shape": {"tasks_per_node": 0}},
        {"shape": {"named": [["licence", 1 << 63]]}},
        {"cwd": "/tmp\0x"},
    ],
    ids=str,
)
def test_numbers_that_no_store_holds_and_paths_that_no_system_has_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        head_from(line(settings={"cwd": "/", **settings}))
    assert caught.value.code == "bad_settings"


def test_a_path_that_is_no_utf8_is_refused_and_not_an_accident() -> None:
    with pytest.raises(UserError) as caught:
        head_from(line(settings={"cwd": "/x\udc80"}))
    assert caught.value.code == "bad_settings"


def test_the_environment_is_bounded() -> None:
    with pytest.raises(UserError) as caught:
        head_from(line(env={"A": "x" * (128 * 1024)}))
    assert "--env-none" in caught.value.message


def test_the_digest_tells_lists_and_settings_apart_but_not_shells() -> None:
    base = head_from(line(settings={"cwd": "/a"}, env={"SHLVL": "1"})).digest().digest()
    assert head_from(line(settings={"cwd": "/a"}, env={"SHLVL": "2"})).digest().digest() == base
    assert head_from(line(settings={"cwd": "/b"})).digest().digest() != base
    assert head_from(line(settings={"cwd": "/a"}, single=True)).digest().digest() != base


def test_what_the_batch_shows_is_short_and_text() -> None:
    shown = head_from(line()).with_first_line(b"\xff" + b"x" * 10_000).first_line
    assert shown.startswith("\ufffdxxx")
    assert len(shown) == 200


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"account": "a b"}, "account"),
        ({"service": "x" * 65}, "service"),
        ({"reservation": "-x"}, "reservation"),
        ({"start_after_us": -1}, "start_after_us"),
        ({"start_after_us": 1 << 53}, "start_after_us"),
        ({"shape": {"features": ["b", "a"]}}, "features"),
        ({"shape": {"features": ["a", "a"]}}, "features"),
        ({"shape": {"features": ["a b"]}}, "features"),
        ({"shape": {"features": [f"f{at:03}" for at in range(100)]}}, "features"),
    ],
)
def test_what_the_scheduler_cannot_be_told(settings: dict[str, object], field: str) -> None:
    with pytest.raises(UserError) as caught:
        head_from(line(settings={"cwd": "/", **settings}))
    (problem,) = caught.value.facts["problems"]  # type: ignore[misc]
    assert str(problem).startswith(f"{field}: ")


def test_a_submission_of_another_start_date_is_the_same() -> None:
    """`--start-after +2h` with a key may be repeated."""
    first, second = (head_from(line(settings={"cwd": "/", "start_after_us": at})) for at in (1, 2))
    assert first.digest().digest() == second.digest().digest()
    assert second.settings.start_after_us == 2
