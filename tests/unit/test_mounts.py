"""The file system of a path is that of its nearest mount, the latest where several lie on one another."""

from pathlib import PurePath

import pytest

from lanai.model.mounts import NETWORK, file_system

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /home rw shared:2 - nfs4 server:/home rw
24 23 0:6 / /home/fast rw - ext4 /dev/sdb1 rw
25 22 0:7 / /with\\040blank rw - cifs //server/share rw
26 22 0:8 / /twice rw - ext4 /dev/sdc1 rw
27 22 0:9 / /twice rw - lustre server:/x rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/x", "ext4"),
        ("/home", "nfs4"),
        ("/home/ann/.local", "nfs4"),
        ("/homestead", "ext4"),
        ("/home/fast/ann", "ext4"),
        ("/with blank/x", "cifs"),
        ("/twice/x", "lustre"),
    ],
)
def test_nearest_mount_wins(path: str, kind: str) -> None:
    assert file_system(PurePath(path), MOUNTS) == kind


def test_nothing_known() -> None:
    assert file_system(PurePath("/x"), "") == ""
    assert "nfs4" in NETWORK
