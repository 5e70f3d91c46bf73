"""The starter: a small single-threaded process per user that spawns, limits and reaps commands, and outlives its agent.

Run as a file with ``python -I -S -X utf8 starter.py LISTEN_FD DIRECTORY MARK IDLE_S``; standard library only, since it
has to stay small and to start quickly. This file only makes the process what it has to be; the loop is in
``starter_loop.py``. The protocol is described in docs/starter-protocol.md and frozen at version 1.
"""

import gc
import os
import socket
import sys

# Isolated mode knows no path but the standard library's. Ours goes last, so that nothing beside us can shadow that.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from lanai.agent.starter_loop import Settings, Starter
from lanai.agent.starter_signals import adopt_orphans, open_signals


def main(arguments: list[str]) -> int:
    """Serves until there is nothing left to serve. Returns the exit code."""
    if len(arguments) != 4 or sys.getfilesystemencoding() != "utf-8":
        print("usage: python -I -S -X utf8 starter.py LISTEN_FD DIRECTORY MARK IDLE_S", file=sys.stderr)
        return 2
    listen_fd, directory, mark, idle_s = arguments
    _settle_descriptors(int(listen_fd))
    adopt_orphans()
    listener = socket.socket(fileno=int(listen_fd))
    listener.set_inheritable(False)
    idle_us = int(float(idle_s) * 1_000_000)
    starter = Starter(Settings(listener, open_signals(), os.path.abspath(directory), mark, idle_us))
    # What is here now stays: looking through it for garbage would be most of what the collector does.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    starter.run()
    return 0


def _settle_descriptors(listen_fd: int) -> None:
    # Whatever was left open in the agent would be open in every command.
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, listen_fd):
            os.closerange(int(name), int(name) + 1)
    # The commands' standard input unless they are given another.
    null_fd = os.open("/dev/null", os.O_RDONLY)
    if null_fd != 0:
        os.dup2(null_fd, 0)
        os.close(null_fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
