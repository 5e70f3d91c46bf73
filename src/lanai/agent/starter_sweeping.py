"""Files that are kept for a while: the old ones go, and then the oldest of what is left until it is little enough.

Standard library only, part of the starter; the agent does the same with files of its own. There may be many of them,
and whoever removes them has other things to do: it is done in short steps.
"""

import os
import stat
from collections.abc import Iterable, Iterator

from lanai.agent.starter_output import segment_path, segments_in

_AT_ONCE = 64


def sweeping(paths: Iterable[str], kept_since_s: float, cap_bytes: int) -> Iterator[None]:
    """Removes files last written before ``kept_since_s`` (seconds since 1970), then the oldest beyond ``cap_bytes``.

    Counted is the room that they take on the disk. What is not a regular file, or cannot be removed, stays. Yields
    after each step; it is over when that ends.
    """
    kept: list[tuple[float, int, str]] = []
    total = 0
    for number, path in enumerate(paths):
        if number % _AT_ONCE == 0:
            yield
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_mtime < kept_since_s:
                os.unlink(path)
                continue
        except OSError:
            continue
        kept.append((status.st_mtime, status.st_blocks * 512, path))
        total += kept[-1][1]
    yield from _lessening(kept, total, cap_bytes)


def _lessening(kept: list[tuple[float, int, str]], total: int, cap_bytes: int) -> Iterator[None]:
    if total > cap_bytes:
        kept.sort()
    for number, (_, size, path) in enumerate(kept):
        if total <= cap_bytes:
            return
        if number % _AT_ONCE == 0:
            yield
        try:
            os.unlink(path)
        except OSError:
            continue
        total -= size


def outputs_in(directory: str) -> Iterator[str]:
    """Yields the paths of the outputs kept in a starter's directory, but for the last segment: it may be written to."""
    yield from (segment_path(directory, number) for number in segments_in(directory)[:-1])
    jobs = os.path.join(directory, "jobs")
    for batch in _names(jobs):
        folder = os.path.join(jobs, batch)
        if not os.path.islink(folder):
            yield from (os.path.join(folder, name) for name in _names(folder))


def _names(directory: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            yield from (entry.name for entry in entries)
    except OSError:
        return
