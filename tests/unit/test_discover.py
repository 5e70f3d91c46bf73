"""What names a hub, and what people get wrong about it."""

import json
import os
from pathlib import Path

import pytest

from lanai.client.discover import find, hub_arguments
from lanai.model.errors import LanaiError

GOOD = {"url": "https://head:8443", "wire_url": "lanai://head:7001", "pin": "ab", "token": "cd", "user": "me"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"LANAI_HOME": str(tmp_path / "home"), "XDG_CONFIG_DIRS": str(tmp_path), "HOME": str(tmp_path)}


def test_a_token_file_names_a_hub(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(json.dumps(GOOD))
    found = find(environ, hub=str(tmp_path / "token"))
    assert found is not None
    assert (found.target.host, found.target.port, found.target.pin, found.target.token) == ("head", 8443, "ab", "cd")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "Expecting value"),
        ("[]", "it is no JSON object"),
        ("{}", "it lacks url, pin or token"),
        (json.dumps({**GOOD, "url": 3}), "it lacks url, pin or token"),
        (json.dumps({**GOOD, "pin": None}), "it lacks url, pin or token"),
        (json.dumps({**GOOD, "url": "http://head:1"}), "its url is not https://HOST:PORT"),
        (json.dumps({**GOOD, "url": "https://head:123456"}), "Port out of range"),
    ],
)
def test_what_is_no_token_file(environ: dict[str, str], tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(LanaiError) as refused:
        find(environ, hub=str(tmp_path / "token"))
    assert refused.value.exit_code == 2
    assert f"{tmp_path}/token is no token file: {problem}" in refused.value.message


def test_what_names_no_hub(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(LanaiError, match="names no hub"):
        find(environ, hub=str(tmp_path / "missing"))


def test_a_configuration_that_cannot_be_read_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lanai" / "config.toml").mkdir(parents=True)
    with pytest.raises(LanaiError, match=r"config\.toml: cannot be read: Is a directory$"):
        find(environ)


def test_directories_that_may_not_be_looked_at_are_as_if_missing(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under `sudo -u somebody` with the HOME of root."""

    def refuse(path: object, **_: object) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", refuse)
    assert find(environ) is None


def test_what_the_configuration_says_to_a_hub(environ: dict[str, str], tmp_path: Path) -> None:
    assert hub_arguments(environ) == []
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("[keep]\nbatches_days = 0\n")
    assert hub_arguments(environ) == ["--keep-batches-days", "0.0", "--keep-events-days", "30"]
