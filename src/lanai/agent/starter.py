"""The starter: a small single-threaded process per user that spawns, limits and reaps commands, and outlives its agent.

Run as a file with ``python -I -S -X utf8 starter.py LISTEN_FD DIRECTORY MARK IDLE_S``; standard library only, since it
has to stay small and to start quickly. This file only makes the process what it has to be; the loop is in
``starter_loop.py``. The protocol is described in docs/starter-protocol.md and frozen at version 1.
"""

import gc
import os
import signal
import socket
import sys

# Isolated mode knows no path but the standard library's. Ours goes last, so that nothing beside us can shadow that.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from lanai.agent.starter_loop import Settings, Starter

_PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    """Serves until there is nothing left to serve. Returns the exit code."""
    if len(arguments) != 4 or sys.getfilesystemencoding() != "utf-8":
        print("usage: python -I -S -X utf8 starter.py LISTEN_FD DIRECTORY MARK IDLE_S", file=sys.stderr)
        return 2
    listen_fd, directory, mark, idle_s = arguments
    _close_inherited(int(listen_fd))
    _adopt_orphans()
    _clear_signals()
    listener = socket.socket(fileno=int(listen_fd))
    listener.set_inheritable(False)
    starter = Starter(Settings(listener, os.path.abspath(directory), mark, int(float(idle_s) * 1_000_000)))
    # What is here now stays: looking through it for garbage would be most of what the collector does.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    starter.run()
    return 0


def _close_inherited(listen_fd: int) -> None:
    # Whatever the agent's own starter left open would be open in every command.
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, listen_fd):
            os.closerange(int(name), int(name) + 1)


def _adopt_orphans() -> None:
    # The standard library offers no other way to prctl; the 10 ms of this import are paid once.
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _clear_signals() -> None:
    # Commands inherit the mask and what is ignored: both must be as a login shell has them, whoever started us.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
