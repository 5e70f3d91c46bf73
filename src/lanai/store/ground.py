"""The ground that a store stands on: a local file system, one owner, and a reserve for the day the disk is full.

It knows nothing of what is stored. The lock and the check serve every directory in which Lanai keeps state.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Self

from lanai.model.errors import Refusal

BALLAST_BYTES: Final = 16 * 1024 * 1024

NETWORK_TYPES: Final = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "lustre", "gpfs", "beegfs", "panfs",
        "pvfs2", "orangefs", "glusterfs", "wekafs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse",
        "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.goofys", "fuse.juicefs", "fuse.curlftpfs", "fuse.davfs",
        "fuse.moosefs", "fuse.mfs", "fuse.lizardfs", "fuse.cvmfs2",
    }
)  # fmt: skip
"""File systems on which locks and shared memory do not reach every machine that can see the files."""


def network_filesystem(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the network file system that `path` lies on or would lie on, e.g. `nfs4`; None where it is local.

    Args:
        path: need not exist.
        mounts: in the format of proc(5), mountinfo. Where it cannot be read, every path counts as local.
    """
    real = os.path.realpath(path)
    _wake_automounter(real)
    best, kind = "", ""
    for line in _lines(mounts):
        before, _, after = line.partition(" - ")
        point = _unescaped(before.split(" ")[4])
        # Of two mounts at one place the later one is seen.
        if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, kind = point, after.split(" ")[0]
    return kind if kind in NETWORK_TYPES else None


def refuse_network_filesystem(path: Path) -> None:
    """Raises Refusal where `path` lies on a network file system."""
    kind = network_filesystem(path)
    if kind is not None:
        raise Refusal(
            f"{path} is on a network file system ({kind}), where a store is not safe",
            code="network_filesystem",
            hint="set LANAI_HOME to a directory on a local disk",
            facts={"path": str(path), "type": kind},
        )


def _wake_automounter(real: str) -> None:
    try:
        os.stat(real)
    except OSError:
        pass


def _lines(mounts: Path) -> list[str]:
    try:
        return mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _unescaped(point: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, character)
    return point


class StateLock:
    """One directory's owner: held from `take` until `release` or the end of the process, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, directory: Path, name: str = "lock") -> Self:
        """Takes the lock file `name` in `directory`, which exists, and writes the process id into it.

        Raises:
            Refusal: another process holds it; code `in_use`, its process id in `facts["pid"]` (0 where unknown).
        """
        descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid(descriptor)
            os.close(descriptor)
            raise Refusal(
                f"{directory} is in use" + (f" by process {pid}" if pid else ""),
                code="in_use",
                hint="stop that one first, or set LANAI_HOME to another directory",
                facts={"path": str(directory), "pid": pid},
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Lets go; a repeat is harmless. The file stays, since removing it would race with the next owner."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def restore_ballast(file: Path, size_bytes: int = BALLAST_BYTES) -> bool:
    """Takes up `size_bytes` of real blocks in `file`; a repeat is harmless. False where there is no room for it."""
    try:
        with open(file, "ab", opener=_private) as ballast:
            os.posix_fallocate(ballast.fileno(), 0, size_bytes)
        return True
    except OSError as error:
        release_ballast(file)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return False
        raise


def release_ballast(file: Path) -> None:
    """Gives the blocks back; a repeat is harmless."""
    file.unlink(missing_ok=True)


def has_no_room(directory: Path, needed_bytes: int = 1024 * 1024) -> bool:
    """Whether `needed_bytes` cannot be had in `directory` just now, by lack of space or by quota; found by trying."""
    probe = directory / "probe"
    try:
        return not restore_ballast(probe, needed_bytes)
    finally:
        release_ballast(probe)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
