"""The process of one starter: found or started, killed with all that it ran, and its end awaited. A part of its port.

It says nothing to a starter and hears nothing of it. It blocks for the short while that each of these takes.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import Final

from lanai.agent import starter_link as link
from lanai.agent.leaves import Leaves

CONNECT_S: Final = 1.0
# They say nothing of the starter, which may live and run commands.
_OWN_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class CannotLook(OSError):
    """We lack what it takes to connect, so that nothing is known of the starter."""


class StarterProcess:
    """The starter at one place, whichever process that is."""

    def __init__(self, place: link.Place, account: link.Account | None, leaves: Leaves) -> None:
        """`account`: the user's whom it is to become; None for the agent's own. `leaves`: its control groups."""
        self._place = place
        self._account = account
        self._leaves = leaves
        self._unreaped: list[int] = []

    def reached(self, *, is_wanted: bool) -> socket.socket | None:
        """A connection to it, blocking, to be closed by the caller; one that takes nobody in is killed first.

        It is started where there is none; None if it would have to be and is not wanted. CannotLook if nothing can be
        known of it now; other errors if none can be started.
        """
        try:
            reached = link.connect(self._place, CONNECT_S)
        except OSError as error:
            if error.errno in _OWN_SHORTAGES:
                raise CannotLook(error.errno, error.strerror) from None
            self.kill_all()  # one that takes nobody in
            if not is_wanted:
                return None
            self.reap()
            self._unreaped.append(link.start_starter(self._place, account=self._account))
            reached = link.connect(self._place, CONNECT_S)
        # By what was noted at its start: what a user's starter says of itself may be another's.
        pid = link.starter_pid(self._place)
        if pid is not None:
            self._leaves.start(pid)
        return reached

    def kill_all(self) -> None:
        """Kill it, and what it ran."""
        link.kill_starter(self._place)
        self._leaves.kill()
        link.kill_leftovers(self._place)

    def reap(self) -> None:
        """Take leave of starters of ours that have ended, so that the kernel can."""
        for pid in list(self._unreaped):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._unreaped.remove(pid)
            except ChildProcessError:
                self._unreaped.remove(pid)

    def ends_within(self, limit_s: float) -> bool:
        """Wait for the starter's end; False if it goes on for longer than that."""
        pid = link.starter_pid(self._place)
        try:
            descriptor = -1 if pid is None else os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        if descriptor < 0:
            return True
        try:
            return bool(select.select([descriptor], [], [], limit_s)[0])
        finally:
            os.close(descriptor)

    def kill(self) -> None:
        """Kill it alone."""
        link.kill_starter(self._place)
