"""Which directories may not answer, and a child's look into them: real mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lanai.agent.starter_probing import GOOD_US, PATIENCE_US, Probing, silent_places
from services.sickfs import SickFs
from services.users import needs_root


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SickFs]:
    """A mount with a space in its name."""
    needs_root()
    made = SickFs(tmp_path / "of all")
    yield made
    made.unmount()


def test_by_its_name_a_directory_is_on_a_mount_that_may_not_answer(shared: SickFs, tmp_path: Path) -> None:
    """Nobody is asked: the mount is silent."""
    shared.stop()
    inside = [f"{shared.point}", f"{shared.point}/deep/er", f"{tmp_path}/x/../of all/y"]
    outside = [f"{tmp_path}", f"{shared.point}2", "/", "relative"]
    assert silent_places([*inside, *outside]) == tuple(sorted(map(os.path.normpath, inside)))


def test_what_answers_is_good_for_a_while(shared: SickFs) -> None:
    left: list[bool] = []
    probing = Probing(lambda: left.append(True))
    places = (str(shared.point), f"{shared.point}/missing")
    assert not probing.is_good(places, 0)
    assert not probing.is_good(places, 1)
    (pid,) = probing.children
    assert left == [True]
    os.waitpid(pid, 0)
    assert probing.reaped(pid, 1000)
    assert not probing.reaped(pid, 1000)
    assert probing.is_good(places, 1000 + GOOD_US - 1)
    assert list(probing.children) == []
    assert not probing.is_good(places, 1000 + GOOD_US)
    (pid,) = probing.children
    os.waitpid(pid, 0)
    probing.reaped(pid, 2000)


def test_what_does_not_answer_is_silent_in_the_end_and_whoever_waits_there_is_killed(shared: SickFs) -> None:
    probing = Probing(lambda: None)
    places = (str(shared.point),)
    shared.stop()
    assert not probing.is_good(places, 0)
    (pid,) = probing.children
    assert probing.due_us == PATIENCE_US
    assert not probing.is_silent(places, PATIENCE_US - 1)
    assert probing.is_silent(places, PATIENCE_US)
    probing.give_up(PATIENCE_US - 1)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    probing.give_up(PATIENCE_US)
    shared.go_on()
    os.waitpid(pid, 0)
    probing.reaped(pid, PATIENCE_US + 1)
    assert not probing.is_good(places, PATIENCE_US + 2)
    (pid,) = probing.children
    os.waitpid(pid, 0)
    probing.reaped(pid, PATIENCE_US + 3)
    assert probing.is_good(places, PATIENCE_US + 4)
