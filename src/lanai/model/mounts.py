"""Which file system a path lies on, from the text of `/proc/self/mountinfo` (proc(5)). Pure: the text is handed in."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final

NETWORK: Final = frozenset(
    {
        "afs", "beegfs", "ceph", "cifs", "davfs",
        "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre",
        "ncpfs", "nfs", "nfs4", "smb3", "smbfs",
    }
)
"""File systems whose locks or mappings cannot be trusted with a store that one machine writes."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def file_system(path: PurePath, mountinfo: str) -> str:
    """The type of the file system that holds an absolute, resolved path; empty where the text does not tell."""
    best, found = -1, ""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        mounted = PurePath(_OCTAL.sub(lambda escape: chr(int(escape[1], 8)), fields[4]))
        depth = len(mounted.parts)
        # Of several mounts at one place the last hides the others.
        if depth >= best and (path == mounted or mounted in path.parents):
            best, found = depth, after.split(" ", 1)[0]
    return found
