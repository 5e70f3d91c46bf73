"""All starters of an agent: what becomes of a user's name before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lanai.agent import events as ev
from lanai.agent.ports import Served, Starters


@pytest.fixture
def starters(tmp_path: Path) -> Starters:
    (tmp_path / "state").mkdir()
    return Starters(tmp_path / "state", Served())


@pytest.mark.parametrize("name", ["../../escaped", "..", "/tmp/escaped", "-", "a/b", "a\0b", "12345"])
def test_a_name_that_is_none_is_missing_at_once(starters: Starters, tmp_path: Path, name: str) -> None:
    """It has no port, so nothing is looked for, made or ended for it; and it is told once."""
    before = sorted(tmp_path.rglob("*"))
    starters.wake(name)
    assert starters.due_us == 0
    [missing] = starters.on_time(5)
    assert isinstance(missing, ev.StarterMissing) and missing.owner == name
    assert "cannot be a user's name" in missing.problem
    assert starters.on_time(6) == []
    assert starters.reading(name) is None
    assert starters.ports == {}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_that_was_set_aside_is_nobodys(starters: Starters, tmp_path: Path) -> None:
    """No starter is started to sweep it."""
    (tmp_path / "state" / "users" / ".ann.of-1000-7").mkdir()
    starters.sweep(0, 0)
    assert starters.ports == {}
