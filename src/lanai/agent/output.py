"""The outputs of attempts on this node: where they are, their tails for the hub, and who reads them now.

It reads the files that the starter makes and keeps an index of them; it never writes into one. It sends nothing itself:
`frames` and `tails` give the messages, the loop sends them when the link has room.

Theory of operation. The index is a text file per batch, one line per attempt that wrote anything, looked up by a search
for the line's beginning, so that nothing of it is held in memory. A running attempt is read from its slot's files. A
slot passes to another attempt as soon as its process has been reaped, so what was read counts only if that process is
still there afterwards; otherwise it is read again from where the result says.
"""

from __future__ import annotations

import json
import mmap
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lanai.agent.starter_output import segment_path
from lanai.agent.starter_processes import read_process
from lanai.agent.starting import Record, Running
from lanai.model.ids import BatchId, Index
from lanai.model.job import Outcome
from lanai.wire.messages import Fetch, Output, Tail

FAILED_TAIL_BYTES: Final = 64 << 10
OK_TAIL_BYTES: Final = 4 << 10
PIECE_BYTES: Final = 64 << 10
KEEP_S: Final = 7 * 24 * 3600
CAP_BYTES: Final = 16 << 30
TAILS_AT_MOST: Final = 100_000
_STREAMS: Final = ("out", "err")

Where = tuple[BatchId, Index, int]
Find = Callable[[Where], tuple[bool, Running | None]]
"""Whether the attempt is here and has not ended, and its process and slot where these are known."""


class Reader:
    """Somebody who reads one output of one attempt."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        self.where: Where = (fetch.batch, fetch.index, fetch.attempt)
        self.offset = fetch.offset
        self.credit = fetch.credit
        self.started_ticks = 0


class Outputs:
    """All outputs below the starter's directory.

    Attributes:
        readers: those who read now, by stream.
    """

    def __init__(self, directory: Path, find: Find) -> None:
        self._directory = directory
        self._index = directory / "index"
        self._find = find
        self._tails: deque[tuple[Where, str, list[Record | None]]] = deque(maxlen=TAILS_AT_MOST)
        self.readers: dict[int, Reader] = {}

    # -- what ended

    def note(self, ended: list[tuple[Where, str, list[Record | None]]]) -> None:
        """Remember where attempts wrote: (attempt, outcome, records). A full disk loses the index, never a result."""
        by_batch: dict[BatchId, list[str]] = {}
        for (batch, index, attempt), _, records in ended:
            line = f"[{index},{attempt},{json.dumps(records, separators=(',', ':'))}]\n"
            by_batch.setdefault(batch, []).append(line)
        for batch, lines in by_batch.items():
            try:
                self._index.mkdir(mode=0o700, exist_ok=True)
                with open(self._index / str(batch), "ab", buffering=0) as file:
                    # Begun on a line of its own: a kill may have torn the last one.
                    file.write(b"\n" + "".join(lines).encode("ascii"))
            except OSError:
                continue
        self._tails.extend(ended)

    def tails(self, count: int) -> list[Tail]:
        """The next tails that are to be sent, at most `count`."""
        found: list[Tail] = []
        while self._tails and len(found) < count:
            where, outcome, records = self._tails.popleft()
            is_failed = outcome != Outcome.OK
            limit = FAILED_TAIL_BYTES if is_failed else OK_TAIL_BYTES
            ends = [self._end_of(where, which, record, limit) for which, record in enumerate(records)]
            if any(length for _, length in ends):
                found.append(Tail(*where, ends[0][0], ends[1][0], ends[0][1], ends[1][1], is_failed))
        return found

    def has_tails(self) -> bool:
        """Whether any tail waits."""
        return bool(self._tails)

    def _end_of(self, where: Where, which: int, record: Record | None, limit: int) -> tuple[bytes, int]:
        path, start, length = self._place(record)
        if path is None or not length:
            return b"", 0
        skipped = max(0, length - limit)
        return _read(path, start + skipped, length - skipped), length

    def _place(self, record: Record | None) -> tuple[Path | None, int, int]:
        """(file, offset, length) of what a record names; no file where there is none."""
        match record:
            case ["segment", int(number), int(offset), int(length)]:
                return Path(segment_path(str(self._directory), number)), offset, length
            case ["file", str(name), int(length)] if ".." not in name and not name.startswith("/"):
                return self._directory / name, 0, length
            case ["user", str(name)]:
                try:
                    return Path(name), 0, os.stat(name).st_size
                except (OSError, ValueError):
                    return None, 0, 0
            case _:
                return None, 0, 0

    def _records(self, where: Where) -> list[Record | None] | None:
        batch, index, attempt = where
        try:
            with open(self._index / str(batch), "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
                at = text.rfind(b"\n[%d,%d," % (index, attempt))
                if at < 0:
                    return None
                text.seek(at + 1)
                row = json.loads(text.readline())
        except (OSError, ValueError):
            return None
        return row[2] if len(row) == 3 and isinstance(row[2], list) else None

    # -- who reads

    def fetch(self, fetch: Fetch) -> None:
        """Somebody wants to read."""
        self.readers[fetch.stream] = Reader(fetch)

    def credit(self, stream: int, count: int) -> None:
        """He has room for this much more."""
        if stream in self.readers:
            self.readers[stream].credit += count

    def unfetch(self, stream: int) -> None:
        """He has gone."""
        self.readers.pop(stream, None)

    def frames(self) -> list[Output]:
        """One piece for each reader who has room, and the end for those who are through."""
        found: list[Output] = []
        for reader in list(self.readers.values()):
            piece = self._piece(reader)
            if piece is not None:
                found.append(piece)
                if piece.is_end:
                    del self.readers[reader.fetch.stream]
        return found

    def is_following(self) -> bool:
        """Whether anybody waits for what a running attempt will write."""
        return any(reader.credit > 0 for reader in self.readers.values())

    def _piece(self, reader: Reader) -> Output | None:
        fetch = reader.fetch
        if reader.credit <= 0:
            return None
        limit = min(reader.credit, PIECE_BYTES)
        is_here, running = self._find(reader.where)
        if is_here:
            data = self._read_running(reader, running, limit) if running is not None else b""
            is_end, problem = not fetch.follow and not data, ""
        else:
            data, is_end, problem = self._read_ended(reader, limit)
        if not data and not is_end:
            return None
        offset = reader.offset
        reader.offset += len(data)
        reader.credit -= len(data)
        return Output(fetch.stream, fetch.which, offset, data, is_end, problem)

    def _read_running(self, reader: Reader, running: Running, limit: int) -> bytes:
        if running.slot is None:
            return b""
        before = read_process(running.pid)
        if before is None or reader.started_ticks not in (0, before.started_ticks):
            return b""
        reader.started_ticks = before.started_ticks
        name = f"slot{running.slot}.{_STREAMS[reader.fetch.which - 1]}"
        data = _read(self._directory / name, reader.offset, limit)
        after = read_process(running.pid)
        return data if after is not None and after.started_ticks == before.started_ticks else b""

    def _read_ended(self, reader: Reader, limit: int) -> tuple[bytes, bool, str]:
        records = self._records(reader.where)
        record = records[reader.fetch.which - 1] if records and len(records) == 2 else None
        if record and record[0] == "lost":
            return b"", True, f"this output was lost: {record[1]}"
        path, start, length = self._place(record)
        left = length - reader.offset
        if path is None or left <= 0:
            return b"", True, ""
        data = _read(path, start + reader.offset, min(limit, left))
        if not data:
            return b"", True, "this output is not kept here any more"
        return data, len(data) == left, ""

    # -- what is old

    def sweep(self, wall_s: float, *, cap_bytes: int = CAP_BYTES) -> None:
        """Remove what is older than seven days, and then the oldest until no more than `cap_bytes` is left."""
        kept: list[tuple[float, int, Path]] = []
        segments = sorted(self._directory.glob("out-*"))
        for path in [*segments[:-1], *self._index.glob("*"), *self._directory.glob("jobs/*/*")]:
            try:
                status = path.stat()
            except OSError:
                continue
            kept.append((status.st_mtime, status.st_blocks * 512, path))
        total = sum(size for _, size, _ in kept)
        for modified_s, size, path in sorted(kept):
            if modified_s >= wall_s - KEEP_S and total <= cap_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        return os.pread(fd, count, offset)
    except OSError:
        return b""
    finally:
        os.close(fd)
