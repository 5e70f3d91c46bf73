"""The ground a store stands on: who owns the directory, what file system it is on, the reserve."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lanai.model.errors import Refusal
from lanai.store import ground
from lanai.store.ground import StateLock, network_filesystem

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / {top}/home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / {top}/home/ada/far\\040away rw - fuse.sshfs ada@host:/ rw
32 30 0:42 / {top}/home/ada/local rw - tmpfs tmpfs rw
33 22 0:43 / {top}/twice rw - nfs server:/ rw
34 33 0:44 / {top}/twice rw - xfs /dev/vdb rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS.format(top=os.path.realpath(tmp_path)))
    return file


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("home", "nfs4"),
        ("home/bob/.local/state/not/yet/there", "nfs4"),
        ("home/ada/far away/x", "fuse.sshfs"),
        ("home/ada/local/x", None),
        ("homes/ada", None),
        ("twice/x", None),
        ("elsewhere", None),
    ],
)
def test_network_file_systems_are_known_by_mount(tmp_path: Path, mounts: Path, path: str, kind: str | None) -> None:
    assert network_filesystem(tmp_path / path, mounts) == kind


def test_a_link_is_followed_to_where_the_files_are(tmp_path: Path, mounts: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "home" / "ada")
    assert network_filesystem(tmp_path / "link" / "state", mounts) == "nfs4"


def test_where_mounts_cannot_be_read_a_path_counts_as_local(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path, tmp_path / "nothing") is None
    assert network_filesystem(tmp_path) is None


def test_a_network_file_system_is_refused_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "network_filesystem", lambda _: "nfs4")
    with pytest.raises(Refusal) as refused:
        ground.refuse_network_filesystem(tmp_path)
    assert (refused.value.code, refused.value.facts["type"]) == ("network_filesystem", "nfs4")
    assert "LANAI_HOME" in refused.value.hint


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    with StateLock.take(tmp_path):
        with pytest.raises(Refusal) as refused:
            StateLock.take(tmp_path)
        assert (refused.value.code, refused.value.facts["pid"]) == ("in_use", os.getpid())
        StateLock.take(tmp_path, "other").release()
    again = StateLock.take(tmp_path)
    again.release()
    again.release()


def test_the_lock_of_a_killed_owner_is_free(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from lanai.store.ground import StateLock; "
        "lock = StateLock.take(pathlib.Path(sys.argv[1])); print('taken', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"taken\n"
        with pytest.raises(Refusal) as refused:
            StateLock.take(tmp_path)
        assert refused.value.facts["pid"] == owner.pid
        owner.kill()
        owner.wait()
    StateLock.take(tmp_path).release()


def test_the_ballast_takes_real_blocks_and_gives_them_back(tmp_path: Path) -> None:
    ballast = tmp_path / "ballast"
    assert ground.restore_ballast(ballast, 1 << 20)
    assert ground.restore_ballast(ballast, 1 << 20)
    assert ballast.stat().st_blocks * 512 >= 1 << 20
    ground.release_ballast(ballast)
    ground.release_ballast(ballast)
    assert not ballast.exists()
    assert not ground.has_no_room(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_than_there_is_leaves_nothing_behind(tmp_path: Path) -> None:
    ballast = tmp_path / "ballast"
    free = os.statvfs(tmp_path)
    assert not ground.restore_ballast(ballast, free.f_frsize * free.f_blocks * 4)
    assert not ballast.exists()
