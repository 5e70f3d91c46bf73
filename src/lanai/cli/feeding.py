"""Standard input for one command, passed on to whichever attempt of it runs.

A thread of its own reads and sends, one piece after the other: the next is sent once the command's pipe has taken the
last, so what a hub, its API process or an agent loses when it is killed is still here and is sent again. A further
attempt needs the input from its beginning. A file has it; of a pipe the last `KEPT_BYTES` are kept, and where more than
that has gone by, the job is cancelled with a word that says why, since it would wait for ever.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from typing import TYPE_CHECKING, Final

from lanai.cli.terminal import say
from lanai.model.errors import LanaiError, OtherEnd, Refusal

if TYPE_CHECKING:
    from lanai.client.client import Client

PIECE_BYTES: Final = 1 << 16
KEPT_BYTES: Final = 1 << 20
REFUSED: Final = "input_refused"


def has_input() -> bool:
    """Whether standard input is something to pass on: a pipe, a socket or a file; no terminal, and not /dev/null."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


class Source:
    """What can be read at `fd`, by offsets from where it stands now."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._begin = os.lseek(fd, 0, os.SEEK_CUR) if self._is_file else 0
        self._kept = bytearray()
        self._kept_from = 0

    def has(self, offset: int) -> bool:
        """Whether what begins there, where something was read before, can be had (again)."""
        return self._is_file or offset >= self._kept_from

    def await_readable(self, offset: int, wake_fd: int) -> bool:
        """Returns once `read` does not wait; False where `wake_fd` can be read before that."""
        if self._is_file or offset < self._kept_from + len(self._kept):
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(wake_fd, select.POLLIN)
        return wake_fd not in [fd for fd, _ in poll.poll()]

    def read(self, offset: int) -> bytes:
        """At most a piece from `offset` on, which is what was kept or read last; empty at the end.

        Raises:
            OSError: it cannot be read.
        """
        if self._is_file:
            # Not pread: whoever shares the file with us goes on after what the command was given.
            os.lseek(self._fd, self._begin + offset, os.SEEK_SET)
            return os.read(self._fd, PIECE_BYTES)
        at = offset - self._kept_from
        if at == len(self._kept):
            self._kept += os.read(self._fd, PIECE_BYTES)
        data = bytes(self._kept[at : at + PIECE_BYTES])
        surplus = max(0, len(self._kept) - KEPT_BYTES)
        del self._kept[:surplus]
        self._kept_from += surplus
        return data


class Feeder:
    """Begins at once with the first attempt; `turn_to` names the ones after it.

    Args:
        client: its own; nobody else uses it.
        batch, index: of the job.
    """

    def __init__(self, client: Client, batch: int, index: int, source: Source) -> None:
        self._client = client
        self._batch = batch
        self._index = index
        self._source = source
        self._attempt = 1
        self._turned, self._turn = os.pipe()
        threading.Thread(target=self._feed, name="input", daemon=True).start()

    def turn_to(self, attempt: int) -> None:
        """The attempt before has ended; this one is given the input from its beginning."""
        self._attempt = attempt
        os.write(self._turn, b"+")

    def _feed(self) -> None:
        try:
            while self._feed_attempt(self._attempt):
                os.read(self._turned, 1)
        except OSError as error:
            self._give_up(f"standard input cannot be read: {error.strerror}")
        except LanaiError as error:
            self._give_up(error.message)
        finally:
            self._client.close()

    def _feed_attempt(self, attempt: int) -> bool:
        """Give an attempt all it takes; returns whether the next one, once there is one, can be given it too."""
        if not self._source.has(0):
            self._give_up(f"attempt {attempt} needs the input from its beginning, which is not kept")
            return False
        try:
            self._pass_on(attempt)
        except Refusal as refusal:
            if refusal.code != REFUSED:
                raise
            # It reads no more, or has ended; how, is told by its result.
        return True

    def _pass_on(self, attempt: int) -> None:
        offset = 0
        while self._source.await_readable(offset, self._turned):
            data = self._source.read(offset)
            self._send(attempt, offset, data)
            offset += len(data)
            if not data:
                return

    def _send(self, attempt: int, offset: int, data: bytes) -> None:
        while True:
            try:
                self._client.send_input(self._batch, self._index, data, offset=offset, is_end=not data, attempt=attempt)
                return
            except OtherEnd:
                continue  # the client has been patient; how long the whole command is, is not for us to say

    def _give_up(self, why: str) -> None:
        say(f"lanai: input of job {self._batch}/{self._index}: {why}; the job is cancelled")
        try:
            self._client.job(self._batch, self._index)  # returns once the hub answers
            self._client.cancel(self._batch)
        except LanaiError as error:
            say(f"lanai: it cannot be cancelled: {error.message}")
