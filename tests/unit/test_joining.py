"""The join file is read again when it was replaced, and what was known counts while it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lanai.agent.joining import Joining
from lanai.model.errors import UserError

OLD, NEW = "ab" * 32, "CD" * 32


def write(path: Path, **said: object) -> None:
    """Replace it, as copying a new one there does."""
    made = path.with_suffix(".new")
    made.write_text(json.dumps(said))
    made.rename(path)


def test_a_file_that_was_replaced_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "join"
    write(path, url="lanai://here:1", pin=OLD, token="t1")
    joining = Joining(path, "")
    assert joining.address().pins == (OLD,)
    write(path, url="lanai://there:2", pin=OLD, next_pin=NEW, token="t2")
    assert joining.address().pins == (OLD, NEW.lower())
    assert (joining.address().url, joining.token) == ("lanai://there:2", "t2")
    write(path, url="lanai://there:2", pin=NEW, token="t2", later="a field of a newer hub")
    assert joining.address().pins == (NEW.lower(),)


@pytest.mark.parametrize("said", [{"url": 7}, {}, {"url": "lanai://there:2"}, {"url": "http://x:1", "pin": OLD}])
def test_one_that_says_nothing_leaves_what_was_known(tmp_path: Path, said: dict[str, object]) -> None:
    path = tmp_path / "join"
    write(path, url="lanai://here:1", pin=OLD, token="t1")
    joining = Joining(path, "")
    write(path, **said)
    assert (joining.address().url, joining.token) == ("lanai://here:1", "t1")
    path.unlink()
    assert joining.address().url == "lanai://here:1"
    write(path, url="lanai://here:1", pin=NEW, token="t2")
    assert (joining.address().pins, joining.token) == ((NEW.lower(),), "t2")


def test_an_address_that_was_given_is_not_the_files(tmp_path: Path) -> None:
    path = tmp_path / "join"
    write(path, url="lanai://here:1", pin=OLD, token="t1")
    assert Joining(path, "lanai://there:2").address().url == "lanai://there:2"
    assert Joining(None, "unix:/x").address().url == "unix:/x"


def test_at_the_start_it_has_to_be_right(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        Joining(tmp_path / "missing", "")
    (tmp_path / "join").write_text("{")
    with pytest.raises(UserError):
        Joining(tmp_path / "join", "")
