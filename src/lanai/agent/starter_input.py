"""Standard input of attempts that have it by pipe: what the agent sends is passed on as fast as it is read.

Standard library only, part of the starter. Never waits: what a command does not read is kept here, up to a limit, and
the agent is told how much has been taken, so that it sends no more than it may.

A piece may say at which offset of the input it begins. Then it can be sent again by whoever does not know whether it
came: this process lives as long as the command, so what it has counted is what there is to know.
"""

import os
import select
from collections.abc import Callable

from lanai.agent.starter_command import node_or
from lanai.agent.starter_descriptors import open_files
from lanai.agent.starter_reports import Key

UNREAD_LIMIT_BYTES = 4 << 20


class Pipe:
    """One attempt's input: ``taken_bytes`` are passed on; ``write_fd`` is -1 until it begins and after its end."""

    __slots__ = ("has_ended", "is_closed", "taken_bytes", "unread", "write_fd")

    def __init__(self) -> None:
        self.unread = bytearray()
        self.taken_bytes = 0
        self.has_ended = False
        self.is_closed = False
        self.write_fd = -1

    def come_bytes(self) -> int:
        """How much has come in all, passed on or not: the offset at which the next piece is to begin."""
        return self.taken_bytes + len(self.unread)


class Inputs:
    """All pipes.

    Args:
        poller: told which pipes wait for room.
        tell: called with (key, bytes taken, closed, missing from) whenever a pipe has been written to or closed, and
            where a piece with an offset brought nothing new. The last is None, or where a piece that was not kept
            should have begun.
    """

    def __init__(self, poller: select.epoll, tell: Callable[[Key, int, bool, int | None], None]) -> None:
        self._poller = poller
        self._tell = tell
        self._pipes: dict[Key, Pipe] = {}
        self._by_fd: dict[int, Key] = {}

    def __contains__(self, fd: int) -> bool:
        return fd in self._by_fd

    def open(self, key: Key) -> int:
        """Makes the pipe of an attempt that is beginning; returns the end for the command, the caller closes it.

        Raises:
            CannotStart: outcome node, if there is no descriptor left for it.
        """
        try:
            read_fd, write_fd = os.pipe()
            open_files.hold(read_fd, write_fd)
        except OSError as error:
            raise node_or(error, "node", None, "opening a pipe for standard input") from None
        pipe = self._pipes.setdefault(key, Pipe())
        pipe.write_fd = write_fd
        os.set_blocking(pipe.write_fd, False)
        self._by_fd[pipe.write_fd] = key
        self._poller.register(pipe.write_fd, select.EPOLLOUT if pipe.unread or pipe.has_ended else 0)
        return read_fd

    def feed(self, key: Key, data: bytes, is_end: bool, offset: int | None) -> bool:
        """Takes input for an attempt, begun or not. Returns False if it holds too much already.

        With an ``offset`` the piece is one of the whole: what has come before is not taken again. Without, it goes on
        where the last one ended.
        """
        pipe = self._pipes.setdefault(key, Pipe())
        if offset is not None and not pipe.is_closed:
            come = pipe.come_bytes()
            if offset > come:
                self._tell(key, pipe.taken_bytes, False, come)
                return True
            data = data[come - offset :]
            if not data and (pipe.has_ended or not is_end):
                self._tell(key, pipe.taken_bytes, False, None)
                return True
        if len(pipe.unread) + len(data) > UNREAD_LIMIT_BYTES:
            return False
        if pipe.is_closed:
            self._tell(key, pipe.taken_bytes, True, None)
            return True
        pipe.unread += data
        pipe.has_ended = pipe.has_ended or is_end
        if pipe.write_fd >= 0:
            self._poller.modify(pipe.write_fd, select.EPOLLOUT)
        return True

    def write(self, fd: int) -> None:
        """Passes on what goes into a pipe that has room; closes one whose reader is gone or whose input has ended."""
        key = self._by_fd[fd]
        pipe = self._pipes[key]
        before = pipe.taken_bytes
        try:
            while pipe.unread:
                written = os.write(fd, pipe.unread[: 64 << 10])
                del pipe.unread[:written]
                pipe.taken_bytes += written
        except BlockingIOError:
            pass
        except OSError:
            self._close(pipe)
        else:
            if pipe.has_ended:
                self._close(pipe)
            else:
                self._poller.modify(fd, 0)
        if pipe.taken_bytes != before or pipe.is_closed:
            self._tell(key, pipe.taken_bytes, pipe.is_closed, None)

    def _close(self, pipe: Pipe) -> None:
        if pipe.write_fd >= 0:
            self._poller.unregister(pipe.write_fd)
            os.close(pipe.write_fd)
            del self._by_fd[pipe.write_fd]
        pipe.write_fd = -1
        pipe.is_closed = True
        pipe.unread.clear()

    def forget_all_but(self, keep: Callable[[Key], bool]) -> None:
        """Closes and forgets the pipes of attempts that are over."""
        for key in [key for key in self._pipes if not keep(key)]:
            self._close(self._pipes.pop(key))
