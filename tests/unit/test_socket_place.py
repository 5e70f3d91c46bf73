"""Where one more socket for clients may stand: nobody else can put his own there, and nothing is lost by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lanai.hub import socketplace
from lanai.model.errors import LanaiError
from lanai.wire import unix


def refused(path: Path) -> str:
    with pytest.raises(LanaiError) as error:
        socketplace.check(path)
    assert error.value.hint
    return error.value.code


def test_a_directory_that_others_may_write_is_none(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    for mode in (0o777, 0o1777, 0o757):
        directory.chmod(mode)
        assert refused(directory / "api.sock") == "open_directory"
    directory.chmod(0o755)
    socketplace.check(directory / "api.sock")


def test_one_that_its_group_may_write_is_none_where_the_group_is_anothers(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(0o775)
    socketplace.check(directory / "api.sock")  # the user's own group
    if os.geteuid() == 0:
        os.chown(directory, 0, 60_000)
        assert refused(directory / "api.sock") == "open_directory"
        directory.chmod(0o755)
        os.chown(directory, 60_000, 0)
        assert refused(directory / "api.sock") == "open_directory"


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    assert refused(file) == "not_a_socket"
    (tmp_path / "link").symlink_to(file)
    assert refused(tmp_path / "link") == "not_a_socket"
    with pytest.raises(LanaiError):
        unix.listen(file)
    assert file.read_text() == "precious"


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file" / "below" / "api.sock") == "bad_socket"


def test_another_hubs_socket_is_left_to_it_and_a_stale_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socketplace, "ENDING_S", 0.0)
    with unix.listen(tmp_path / "api.sock"):
        assert refused(tmp_path / "api.sock") == "socket_taken"
    socketplace.check(tmp_path / "api.sock")
