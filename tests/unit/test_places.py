"""Paths follow LANAI_HOME, then XDG, then HOME, and nothing is guessed where all are missing."""

from pathlib import Path

import pytest

from lanai.model import places
from lanai.model.errors import StoreError, UserError


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LANAI_HOME": "/l", "XDG_STATE_HOME": "/s", "HOME": "/h"}, "/l"),
        ({"LANAI_HOME": "", "XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/lanai/box"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/lanai/box"),
        ({"HOME": "/h"}, "/h/.local/state/lanai/box"),
    ],
)
def test_home(environ: dict[str, str], expected: str) -> None:
    assert places.home(environ, host="box") == Path(expected)


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"LANAI_HOME": "here"}])
def test_without_a_usable_home_the_user_is_told(environ: dict[str, str]) -> None:
    with pytest.raises(UserError):
        places.home(environ, host="box")


def test_layout() -> None:
    home = Path("/l")
    assert places.hub_dir(home) == Path("/l/hub")
    assert places.private_dir(home) == Path("/l/private")
    assert places.agent_dir(home, "n1") == Path("/l/agents/n1")
    assert places.join_file(home) == Path("/l/join")
    assert places.api_socket(Path("/l/hub")) == Path("/l/hub/api.sock")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0"])
def test_a_node_name_is_one_path_component(name: str) -> None:
    with pytest.raises(UserError):
        places.agent_dir(Path("/l"), name)


def test_config_files_come_weakest_first() -> None:
    environ = {"HOME": "/h", "XDG_CONFIG_DIRS": "/strong:/weak:odd", "LANAI_HOME": "/l"}
    assert [str(path) for path in places.config_files(environ)] == [
        "/weak/lanai/config.toml",
        "/strong/lanai/config.toml",
        "/h/.config/lanai/config.toml",
        "/l/config.toml",
    ]


def test_config_files_without_home() -> None:
    assert places.config_files({}) == (Path("/etc/xdg/lanai/config.toml"),)


def test_a_directory_for_state_is_made_for_one_user_alone(tmp_path: Path) -> None:
    """$LANAI_HOME and agents/ were 0755, although all that is in them was not."""
    tmp_path.chmod(0o755)
    made = places.make(tmp_path / "home" / "agents" / "n1")
    modes = [path.stat().st_mode & 0o777 for path in (made, made.parent, made.parent.parent, tmp_path)]
    assert modes == [0o700, 0o700, 0o700, 0o755]
    assert places.make(made) == made


def test_where_state_cannot_be_kept_the_user_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as refused:
        places.make(tmp_path / "file" / "private")
    assert refused.value.exit_code == 7
    assert refused.value.message == f"state cannot be kept in {tmp_path}/file/private: Not a directory"
    assert "LANAI_HOME" in refused.value.hint
