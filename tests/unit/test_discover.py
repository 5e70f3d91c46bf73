"""What names a hub, and what people get wrong about it."""

import json
import os
from pathlib import Path

import pytest

from lanai.cli.verbs import agent
from lanai.client.discover import Here, access_arguments, find, hub_arguments, meant, running
from lanai.model.errors import LanaiError, OtherEnd
from lanai.wire import unix

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
        (json.dumps({**GOOD, "token": "a\r\nX: y"}), "its token has characters that no token has"),
        (json.dumps({**GOOD, "token": "\N{SNOWMAN}"}), "its token has characters that no token has"),
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


def test_what_the_configuration_says_to_a_hub_about_its_doors(environ: dict[str, str], tmp_path: Path) -> None:
    assert access_arguments(environ) == []
    (tmp_path / "home").mkdir()
    text = '[access]\nlocal = "everyone"\nsocket = "/a/b"\nlisten = "[::]:70"\noperators = ["olga"]\n'
    (tmp_path / "home" / "config.toml").write_text(text)
    assert access_arguments(environ) == [
        *("--local", "everyone", "--listen", "[::]:70", "--api-socket", "/a/b", "--operator", "olga")
    ]


def _door(directory: Path, mode: int = 0o666) -> None:
    """What a hub leaves of its door: nobody listens behind it any more."""
    unix.listen(directory / "api.sock", mode=mode).close()


def test_the_hub_of_the_machine_comes_before_a_private_one(environ: dict[str, str], tmp_path: Path) -> None:
    home, run = tmp_path / "home", tmp_path / "run"
    environ["LANAI_RUNTIME"] = str(run)
    private = Here(directory=home / "private", is_private=True)
    assert meant(environ) == private
    (home / "private").mkdir(parents=True)
    (home / "private" / "hub.db").touch()
    _door(run)
    assert meant(environ) == Here(directory=run, is_machines=True)
    assert meant(environ, hub=str(home / "private")) == private
    assert meant({**environ, "LANAI_HUB": str(home / "private")}) == private


def test_who_has_no_home_has_the_hub_of_the_machine(tmp_path: Path) -> None:
    environ = {"LANAI_RUNTIME": str(tmp_path / "run"), "XDG_CONFIG_DIRS": str(tmp_path)}
    with pytest.raises(LanaiError) as homeless:
        meant(environ)
    assert homeless.value.code == "no_home"
    _door(tmp_path / "run")
    assert meant(environ) == Here(directory=tmp_path / "run", is_machines=True)


def test_a_hub_of_ones_own_comes_before_that_of_the_machine(environ: dict[str, str], tmp_path: Path) -> None:
    environ["LANAI_RUNTIME"] = str(tmp_path / "run")
    _door(tmp_path / "run")
    (tmp_path / "home" / "hub").mkdir(parents=True)
    (tmp_path / "home" / "hub" / "hub.db").touch()
    assert meant(environ) == Here(directory=tmp_path / "home" / "hub")


def test_a_hub_of_the_machine_that_does_not_run_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    """It is down, not gone: nothing else takes its place."""
    environ["LANAI_RUNTIME"] = str(tmp_path / "run")
    _door(tmp_path / "run")
    assert running(environ) is None
    with pytest.raises(OtherEnd) as missing:
        find(environ, may_start=True)
    assert missing.value.hint == "systemctl status lanai-hub"
    listening = unix.listen(tmp_path / "run" / "api.sock")
    found = find(environ, may_start=True)
    assert found is not None and found.target.socket == tmp_path / "run" / "api.sock" and not found.is_private
    listening.close()


def test_where_an_agent_finds_how_to_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub of this machine writes its file anew; one that somebody has put in place is for machines without one."""
    monkeypatch.setenv("LANAI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("lanai.model.places.SYSTEM_JOIN", str(tmp_path / "placed"))
    with pytest.raises(LanaiError, match="there is no join file"):
        agent._hub_arguments(None, None)
    (tmp_path / "placed").write_text(json.dumps({"url": "lanai://head:1"}))
    assert agent._hub_arguments(None, None) == ["--hub", "lanai://head:1", "--join", str(tmp_path / "placed")]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "join").write_text(json.dumps({"url": "lanai://here:2"}))
    assert agent._hub_arguments(None, None) == ["--hub", "lanai://here:2", "--join", str(tmp_path / "home" / "join")]
    (tmp_path / "other").write_text(json.dumps({"url": "lanai://other:3"}))
    assert agent._hub_arguments(None, str(tmp_path / "other"))[1] == "lanai://other:3"


@pytest.mark.parametrize("text", ["head", "7001", "head:", "a b:1", "::1:70", "head:7001\n"])
def test_an_address_that_cannot_be_listened_at_is_named(environ: dict[str, str], tmp_path: Path, text: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text(f"[access]\nlisten = {json.dumps(text)}\n")
    with pytest.raises(LanaiError) as refused:
        access_arguments(environ)
    file = tmp_path / "home" / "config.toml"
    assert refused.value.message == f"{file}: access.listen: found {text!r}, accepted is HOST:PORT"
